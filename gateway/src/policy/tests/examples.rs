//! The examples of the repository, good and invalid.

use super::*;

#[test]
fn each_invalid_example_gets_exactly_the_expected_messages() {
    let mut cases = 0;
    for path in fs::read_dir(policies().join("invalid")).unwrap().map(|entry| entry.unwrap().path())
    {
        if path.extension().is_some_and(|extension| extension == "expected") {
            let of = ["", "toml"].map(|extension| path.with_extension(extension));
            assert!(of.iter().any(|path| path.exists()), "{} is of nothing", path.display());
            continue;
        }
        let sources = if path.is_dir() { files(&path, ".toml") } else { vec![path.clone()] };
        let contents: Vec<_> = sources
            .iter()
            .map(|path| (path.file_name().unwrap().to_str().unwrap(), fs::read(path).unwrap()))
            .collect();
        let contents: Vec<_> =
            contents.iter().map(|(name, text)| (*name, text.as_slice())).collect();
        let text = errors_of(directory(&contents).path());
        assert_file(&path.with_extension("expected"), &text);
        cases += 1;
    }
    assert!(cases >= 15, "only {cases} cases were found");
}

/// The file of a secret, if the line names one.
fn secret_of(line: &str) -> Option<&str> {
    let (key, file) = line.split_once(" = ")?;
    (key.ends_with("psk-file") || key.ends_with("password-file")).then_some(file)
}

/// The examples as an operator would install them: each directory with the secrets it names.
fn examples() -> Vec<(PathBuf, TempDir)> {
    let mut found = Vec::new();
    let mut pending = vec![policies()];
    while let Some(dir) = pending.pop() {
        let subdirectories = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        pending.extend(subdirectories.filter(|path| path.is_dir() && !path.ends_with("invalid")));
        let sources = files(&dir, ".toml");
        if sources.is_empty() {
            continue;
        }
        let copy = tempfile::tempdir().unwrap();
        certificates(copy.path());
        for source in sources {
            let text = fs::read_to_string(&source).unwrap();
            for name in text.lines().filter_map(|line| secret_of(line)) {
                let key = "c2VjcmV0IG9mIHRoZSBleGFtcGxlcw==\n";
                secret(&copy.path().join(name.trim_matches('"')), key, 0o600);
            }
            fs::write(copy.path().join(source.file_name().unwrap()), text).unwrap();
        }
        found.push((dir, copy));
    }
    found
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples = examples();
    assert!(examples.len() >= 6, "only {} were found", examples.len());
    for (dir, copy) in examples {
        let loaded =
            load(copy.path()).unwrap_or_else(|errors| panic!("{}: {errors:?}", dir.display()));
        assert_eq!(loaded.warnings, [], "{}", dir.display());
        assert!(!loaded.policies.peers.is_empty() && !loaded.policies.rules.is_empty());
    }
}

#[test]
fn the_two_sides_of_the_site_to_site_example_mirror_each_other() {
    let sides: Vec<_> = examples()
        .iter()
        .filter(|(dir, _)| dir.parent().is_some_and(|parent| parent.ends_with("site-to-site")))
        .map(|(_, copy)| load(copy.path()).unwrap().policies)
        .collect();
    let [a, b] = sides.as_slice() else { panic!("{} sides", sides.len()) };
    let ends = |policies: &gateway_ike::config::PolicySet| {
        let peer = policies.peers.values().next().unwrap();
        let rule = policies.rules.values().next().unwrap();
        (
            (peer.local_address, peer.local_id.clone(), rule.local.clone()),
            (peer.remote_address, peer.remote_id.clone(), rule.remote.clone()),
        )
    };
    let (near, far) = ends(a);
    assert_eq!(ends(b), (far, near));
}
