//! Building the BPF programs: what it takes, and bpf-linker, which no package has.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context as _, Error, Result};
use crate::progress::Step;
use crate::shell::{capture, cargo, find_tool, run};

#[path = "../../gateway/build/probe.rs"]
pub(crate) mod probe;

/// The version of bpf-linker that is built.
const LINKER: &str = "0.13.0";

/// The LLVM versions that this version can be built with.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Lints of the programs. They compile for the host too, so that the compiler in use checks them.
pub(crate) fn clippy() -> Result {
    run(&mut cargo(["clippy", "-p", "gateway-ebpf", "--all-targets", "--", "-D", "warnings"]))
}

/// Where the development files of an LLVM are: `LLVM_PREFIX`, Debian's directory, or what
/// `llvm-config` says.
pub(crate) fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let has_library =
        |prefix: &Path| prefix.join("lib").is_dir() && prefix.join("include").is_dir();
    let set = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let asked = [format!("llvm-config-{major}"), "llvm-config".to_owned()]
        .iter()
        .filter_map(|name| find_tool(name))
        .find_map(|config| {
            let version = capture(Command::new(&config).arg("--version")).ok()?;
            let prefix = capture(Command::new(&config).arg("--prefix")).ok()?;
            let fits = version.trim().starts_with(&format!("{major}."));
            fits.then(|| PathBuf::from(prefix.trim()))
        });
    set.into_iter().chain([debian]).chain(asked).find(|prefix| has_library(prefix))
}

/// Builds bpf-linker with the compiler's LLVM, into the directory of the tools that we build.
pub(crate) fn install_linker(major: u32) -> Result {
    if !LLVM.contains(&major) {
        return Err(Error::new(format!(
            "the compiler has LLVM {major}, and bpf-linker {LINKER} can be built with {} to {}: \
             use another compiler, or set GATEWAY_EBPF_OBJECT to a ready-made object",
            LLVM.start(),
            LLVM.end()
        )));
    }
    let prefix = llvm_prefix(major).ok_or_else(|| {
        Error::new(format!(
            "bpf-linker needs the development files of LLVM {major}: install them (Debian: \
             llvm-{major}-dev) or set LLVM_PREFIX"
        ))
    })?;
    let tools = probe::tools_dir()
        .ok_or_else(|| Error::new("none of GATEWAY_CACHE, XDG_CACHE_HOME and HOME is set"))?;
    fs::create_dir_all(&tools).context(|| format!("cannot create {}", tools.display()))?;
    let step = Step::start(format!("building bpf-linker {LINKER} with LLVM {major} (a minute)"));
    // A directory of its own for the build: our target directory stays as it is.
    let build = tempfile::tempdir().context(|| "cannot create a temporary directory")?;
    let mut install = cargo(["install", "bpf-linker", "--quiet", "--locked", "--force"]);
    install
        .args(["--version", LINKER, "--no-default-features", "--features"])
        .arg(format!("llvm-{major}"))
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(build.path())
        .env("LLVM_PREFIX", prefix)
        .current_dir("/");
    capture(&mut install)?;
    step.done();
    Ok(())
}
