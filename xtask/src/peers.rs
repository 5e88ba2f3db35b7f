//! Newer IKE implementations than this machine's Debian has, to test against: unpacked in the
//! cache, never installed.
//!
//! `peers/<suite>/<name>` is the root directory of a system that has one implementation and all
//! that it needs; the tests run it with `chroot`. It stays until the cache is cleared or other
//! packages are wanted, so that test results do not change under our feet.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Lists;
use crate::error::{Context as _, Result};
use crate::progress::Step;
use crate::shell::{cache_dir, capture, tool};

/// The suite that has them.
const SUITE: &str = "forky";

/// Each implementation and its packages.
const PEERS: &[(&str, &[&str])] = &[
    (
        "strongswan",
        &[
            "charon-systemd",
            "strongswan-swanctl",
            "libstrongswan-standard-plugins",
            "libstrongswan-extra-plugins",
            "libcharon-extra-plugins",
            "libcharon-extauth-plugins",
            // MD4 and DES, for EAP-MSCHAPv2.
            "openssl-provider-legacy",
        ],
    ),
    ("libreswan", &["libreswan"]),
];

/// The file in the root directory of each that says what was asked for.
const ASKED: &str = "packages";

/// The directory that holds them, with whatever was missing fetched into it.
///
/// # Errors
/// The suite cannot be reached, or no longer has the packages.
pub(crate) fn ensure() -> Result<PathBuf> {
    let suite = cache_dir()?.join("peers").join(SUITE);
    let missing: Vec<_> =
        PEERS.iter().filter(|(name, packages)| !is_whole(&suite.join(name), packages)).collect();
    if missing.is_empty() {
        return Ok(suite);
    }
    fs::create_dir_all(&suite).context(|| format!("cannot create {}", suite.display()))?;
    let mirror = Lists::of_the_machine().debian_mirror()?;
    let lists = Lists::of_suite(&mirror, SUITE)?;
    for (name, packages) in missing {
        let step = Step::start(format!("fetching and unpacking {name} of Debian {SUITE}"));
        let work = tempfile::Builder::new()
            .prefix("unpacking.")
            .tempdir_in(&suite)
            .context(|| "cannot create a directory in the cache")?;
        let (debs, root) = (work.path().join("debs"), work.path().join("root"));
        fs::create_dir(&debs).context(|| "cannot create a directory in the cache")?;
        lists.download(&lists.closure(packages)?, &debs)?;
        unpack(&debs, &root)?;
        fs::write(root.join(ASKED), asked(packages)).context(|| "cannot write to the cache")?;
        // In place at once, and only when complete.
        let place = suite.join(name);
        if place.exists() {
            fs::rename(&place, work.path().join("before"))
                .context(|| format!("cannot move {}", place.display()))?;
        }
        fs::rename(&root, &place).context(|| format!("cannot create {}", place.display()))?;
        step.done();
    }
    Ok(suite)
}

/// Whether a root directory was unpacked for these packages, and not for others that an earlier
/// version wanted.
fn is_whole(root: &Path, packages: &[&str]) -> bool {
    fs::read_to_string(root.join(ASKED)).is_ok_and(|text| text == asked(packages))
}

fn asked(packages: &[&str]) -> String {
    packages.join("\n")
}

/// Unpacks packages to a root directory in which their programs run.
fn unpack(debs: &Path, root: &Path) -> Result {
    fs::create_dir(root).context(|| format!("cannot create {}", root.display()))?;
    // Made by the installer of a system, and in no package.
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), root.join(name)).context(|| "cannot create a link")?;
    }
    for name in ["dev", "proc", "run", "sys", "tmp"] {
        fs::create_dir(root.join(name)).context(|| "cannot create a directory")?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(root.join("usr").join(name)).context(|| "cannot create a directory")?;
    }
    let list = fs::read_dir(debs).context(|| format!("cannot read {}", debs.display()))?;
    for deb in list {
        let deb = deb.context(|| "cannot read the downloaded packages")?.path();
        capture(Command::new(tool("dpkg-deb")?).arg("-x").arg(deb).arg(root))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_unpacked_again_when_other_packages_are_wanted() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_whole(root.path(), &["a"]));
        fs::write(root.path().join(ASKED), asked(&["a", "b"])).unwrap();
        assert!(is_whole(root.path(), &["a", "b"]));
        assert!(!is_whole(root.path(), &["a", "b", "c"]));
    }
}
