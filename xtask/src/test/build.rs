//! Building the test programs once, on this machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::script::Program;
use crate::error::{Context as _, Error, Result};
use crate::shell::{cargo, describe, root, run};

/// Where a test program can run, told by how its name begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// On this machine's kernel.
    pub(super) host: bool,
    /// In which guests.
    pub(super) guests: Guests,
}

/// The guests that a test program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guests {
    /// None.
    None,
    /// Any one: what it shows of IKE does not depend on the kernel.
    One,
    /// Each in which everything runs.
    Each,
    /// One with each of these kernels, and with two processors.
    TwoProcessors,
    /// These, and one with a newer kernel.
    EachAndNewest,
}

/// What was built.
#[derive(Debug)]
pub(super) struct Built {
    /// The daemon.
    pub(super) gateway: PathBuf,
    /// Each test program and where it runs.
    pub(super) programs: Vec<(Program, Places)>,
}

/// Builds the daemon and the programs of `tests/`.
pub(super) fn build() -> Result<Built> {
    check_names()?;
    // With the pure tests' packages and targets: another choice would have other features of their
    // dependencies, and cargo would build these once more.
    let built = executables(&mut cargo([
        "build",
        "--workspace",
        "--exclude=gateway-ebpf",
        "--bins",
        "--tests",
        "--message-format=json-render-diagnostics",
    ]))?;
    let gateway = built
        .iter()
        .find(|target| target.name == "gateway" && target.kind == Kind::Program)
        .map(|target| target.path.clone())
        .ok_or_else(|| Error::new("cargo built no program `gateway`"))?;
    let mut programs: Vec<(Program, Places)> = built
        .into_iter()
        .filter_map(|target| {
            let places = match target.kind {
                Kind::Test if target.package == TESTS => places(&target.name)?,
                Kind::UnitTests if target.package == TESTS => LIBRARY,
                Kind::Test | Kind::UnitTests | Kind::Program => return None,
            };
            Some((Program { name: target.name, path: target.path }, places))
        })
        .collect();
    programs.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(Built { gateway, programs })
}

/// Builds programs for showing or measuring, optimised.
pub(crate) fn release(args: &[&str]) -> Result {
    run(cargo(["build", "--release"]).args(args))
}

/// The unit tests of the tests' own library.
const LIBRARY: Places = Places { host: true, guests: Guests::None };

/// Where the tests of `tests/tests/<name>.rs` run; nothing for a name that says nothing.
fn places(name: &str) -> Option<Places> {
    let (kind, _) = name.split_once('_')?;
    match kind {
        "bpf" => Some(Places { host: true, guests: Guests::EachAndNewest }),
        "host" | "kernel" => Some(Places { host: true, guests: Guests::None }),
        "ike" => Some(Places { host: false, guests: Guests::One }),
        "smp" => Some(Places { host: true, guests: Guests::TwoProcessors }),
        "vm" => Some(Places { host: false, guests: Guests::Each }),
        _ => None,
    }
}

/// A test file that no level runs would be lost in silence.
fn check_names() -> Result {
    let dir = root().join("tests/tests");
    let files = fs::read_dir(&dir).context(|| format!("cannot read {}", dir.display()))?;
    for file in files {
        let path = file.context(|| format!("cannot read {}", dir.display()))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|end| end == "rs") && places(&name).is_none() {
            return Err(Error::new(format!(
                "tests/tests/{name}.rs belongs to no level: its name must begin with bpf_, \
                 host_, ike_, kernel_, smp_ or vm_"
            )));
        }
    }
    Ok(())
}

/// The directory of the package whose tests need a host or a guest.
const TESTS: &str = "tests";

/// An executable that cargo has built.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// The directory of its package.
    package: String,
    name: String,
    kind: Kind,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    /// A test program of its own.
    Test,
    /// The unit tests of a library.
    UnitTests,
}

fn executables(command: &mut Command) -> Result<Vec<Target>> {
    let what = describe(command);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context(|| what.as_str())?;
    let mut targets = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            targets.extend(target(&line.context(|| what.as_str())?));
        }
    }
    let status = child.wait().context(|| what.as_str())?;
    if status.success() { Ok(targets) } else { Err(Error::new(format!("{what}: {status}"))) }
}

/// The executable that a line of cargo's messages tells of.
fn target(line: &str) -> Option<Target> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact" {
        return None;
    }
    let target = message.get("target")?;
    let test = message.pointer("/profile/test")?.as_bool()?;
    let kind = match (target.pointer("/kind/0")?.as_str()?, test) {
        ("bin", false) => Kind::Program,
        ("test", _) => Kind::Test,
        ("lib", true) => Kind::UnitTests,
        _ => return None,
    };
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    Some(Target {
        package: manifest.parent()?.file_name()?.to_str()?.to_owned(),
        name: target.get("name")?.as_str()?.to_owned(),
        kind,
        path: message.get("executable")?.as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_where_a_test_runs() {
        assert_eq!(places("bpf_natt"), Some(Places { host: true, guests: Guests::EachAndNewest }));
        assert_eq!(places("kernel_acquire"), Some(Places { host: true, guests: Guests::None }));
        assert_eq!(places("ike_pool"), Some(Places { host: false, guests: Guests::One }));
        assert_eq!(places("vm_tunnel"), Some(Places { host: false, guests: Guests::Each }));
        for lost in ["reload", "vmtunnel", "interop_strongswan", ""] {
            assert_eq!(places(lost), None);
        }
    }

    #[test]
    fn an_executable_is_read_from_cargos_message() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/t/tests/Cargo.toml",
            "target":{"kind":["test"],"name":"vm_a"},"profile":{"test":true},"executable":"/t/vm_a-1"}"#;
        let expected = Target {
            package: TESTS.into(),
            name: "vm_a".into(),
            kind: Kind::Test,
            path: "/t/vm_a-1".into(),
        };
        assert_eq!(target(line), Some(expected));
    }

    #[test]
    fn other_messages_are_passed_over() {
        for line in [
            "",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/t/x/Cargo.toml",
                "target":{"kind":["lib"],"name":"x"},"profile":{"test":true},"executable":null}"#,
        ] {
            assert_eq!(target(line), None);
        }
    }
}
