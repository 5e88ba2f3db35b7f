//! The single steps: style, lints, documentation, dependencies.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::ebpf;
use crate::error::{Context as _, Result};
use crate::progress::Step;
use crate::shell::{cache_dir, cargo, root, run, tool};

/// The version of cargo-deny that reads our `deny.toml`.
const DENY: &str = "0.19.0";

/// Formatting of every crate, and of the fuzz targets, which are a workspace of their own.
pub(crate) fn format() -> Result {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    if fuzz_manifest().exists() {
        run(cargo(["fmt", "--check", "--manifest-path"]).arg(fuzz_manifest()))?;
    }
    Ok(())
}

/// Lints of all that runs on the host, and of the BPF programs.
pub(crate) fn clippy() -> Result {
    ebpf::clippy()?;
    run(&mut cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "gateway-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Documentation, of private items too: links must lead somewhere.
pub(crate) fn documentation() -> Result {
    run(cargo(["doc", "--workspace", "--exclude", "gateway-ebpf", "--no-deps"])
        .arg("--document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Licences, bans and sources of the dependencies. Advisories need a database from the network
/// at every run and would fail a build that has not changed: they are not asked here.
pub(crate) fn dependencies() -> Result {
    let deny = cargo_deny()?;
    run(Command::new(deny).args(["check", "bans", "licenses", "sources"]).current_dir(root()))
}

/// cargo-deny in the cache, built there if it is not.
fn cargo_deny() -> Result<PathBuf> {
    let dir = cache_dir()?.join("tools").join(format!("cargo-deny-{DENY}"));
    let program = dir.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let step = Step::start(format!("building cargo-deny {DENY} (once, some minutes)"));
    // A directory of its own for the build: our target directory stays as it is.
    let build = tempfile::tempdir().context(|| "cannot create a temporary directory")?;
    let work = tempfile::Builder::new()
        .prefix("cargo-deny.")
        .tempdir_in(cache_dir()?)
        .context(|| "cannot create a directory in the cache")?;
    run(cargo(["install", "cargo-deny", "--quiet", "--locked", "--version", DENY, "--root"])
        .arg(work.path())
        .arg("--target-dir")
        .arg(build.path())
        .current_dir("/"))?;
    fs::create_dir_all(cache_dir()?.join("tools")).context(|| "cannot write to the cache")?;
    // In place at once, and only when complete; what an interrupted run left does not count.
    if dir.exists() {
        fs::remove_dir_all(&dir).context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::rename(work.path(), &dir).context(|| format!("cannot create {}", dir.display()))?;
    step.done();
    Ok(program)
}

/// The script that continuous integration runs at least parses.
pub(crate) fn scripts() -> Result {
    run(Command::new(tool("bash")?).args(["-n", ".ci/run"]).current_dir(root()))
}

fn fuzz_manifest() -> PathBuf {
    root().join("tests/fuzz/Cargo.toml")
}
