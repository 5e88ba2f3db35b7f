//! Builds the BPF programs, so that the daemon carries them.
//!
//! - `GATEWAY_EBPF_OBJECT=FILE` takes a ready-made object.
//! - `GATEWAY_EBPF_SKIP=1` leaves the programs out, for checks on a machine without BPF tools:
//!   the daemon then says at start that it has none.

#![expect(clippy::print_stderr, reason = "cargo shows it when the build fails")]

#[path = "build/probe.rs"]
mod probe;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use probe::{Compiler, Core, Linker, TARGET};

/// The package and its object file.
const PROGRAMS: &str = "gateway-ebpf";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("\nthe BPF programs cannot be built: {text}\n");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    for name in ["GATEWAY_EBPF_OBJECT", "GATEWAY_EBPF_SKIP", "GATEWAY_CACHE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = dir("OUT_DIR")?;
    let object = out.join(PROGRAMS);
    if env::var_os("GATEWAY_EBPF_SKIP").is_some_and(|value| value == "1") {
        println!("cargo::warning=GATEWAY_EBPF_SKIP=1: this build has no BPF programs");
        return write(&object, &[]);
    }
    if let Some(ready) = env::var_os("GATEWAY_EBPF_OBJECT").map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", ready.display());
        let octets = fs::read(&ready)
            .map_err(|error| format!("GATEWAY_EBPF_OBJECT={}: {error}", ready.display()))?;
        return write(&object, &octets);
    }
    let own = dir("CARGO_MANIFEST_DIR")?;
    let root = own.parent().ok_or("this package has no parent directory")?;
    for part in ["gateway-ebpf/src", "gateway-ebpf/Cargo.toml", "gateway-ebpf/common", "Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    println!("cargo::rerun-if-changed={}", own.join("build").display());
    let (compiler, linker) = tools().map_err(|missing| {
        format!(
            "{missing}\n\nRun `cargo xtask setup` (`cargo xtask doctor` shows what was looked at), \
             or set GATEWAY_EBPF_OBJECT to a ready-made object, or GATEWAY_EBPF_SKIP=1 to build \
             without them"
        )
    })?;
    let built = compile(&compiler, &linker, root, &target_dir(&out))?;
    let octets = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    write(&object, &octets)
}

/// A compiler and a linker that go together.
fn tools() -> Result<(Compiler, Linker), String> {
    let compilers = probe::compilers();
    let Some(compiler) = probe::choose(&compilers) else {
        let seen: Vec<String> = compilers.iter().map(|one| format!("\n  {one}")).collect();
        return Err(format!("no Rust compiler here has `core` for BPF{}", seen.concat()));
    };
    let linker = probe::linker(compiler.llvm).map_err(|missing| missing.to_string())?;
    Ok((compiler.clone(), linker))
}

/// The cargo that came with a compiler, or the one that runs us.
fn cargo_of(compiler: &Compiler) -> PathBuf {
    let beside = compiler.rustc.with_file_name("cargo");
    if beside.is_file() {
        return beside;
    }
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

/// Compiles the programs and returns the object's path.
fn compile(
    compiler: &Compiler,
    linker: &Linker,
    root: &Path,
    target: &Path,
) -> Result<PathBuf, String> {
    let program = cargo_of(compiler);
    let mut cargo = Command::new(&program);
    cargo.current_dir(root).args([
        "build",
        "--package",
        PROGRAMS,
        "--bins",
        "--release",
        "--locked",
    ]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(target);
    forget_outer_build(&mut cargo);
    cargo.env("RUSTC", &compiler.rustc);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker.path);
    match compiler.core {
        // aya-ebpf needs one unstable feature, inline assembly for BPF.
        Some(Core::Prebuilt) => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf"),
        Some(Core::Source) => {
            cargo.args(["-Z", "build-std=core"]);
            cargo.env("RUSTC_BOOTSTRAP", "1")
        }
        None => return Err(format!("{compiler}: cannot build them")),
    };
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(compiler, root).join("\x1f"));
    // The kernel's verifier is what checks these programs; a panic has nowhere to go in them.
    cargo.env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    cargo.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    let output =
        cargo.output().map_err(|error| format!("{} does not start: {error}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let llvm = linker.llvm.map_or_else(|| "unknown".to_owned(), |major| major.to_string());
        let linker = linker.path.display();
        return Err(format!("{compiler} with {linker} (LLVM {llvm}):\n{said}"));
    }
    Ok(target.join(TARGET).join("release").join(PROGRAMS))
}

/// Takes what the outer cargo set for the host out of the inner one's environment.
fn forget_outer_build(cargo: &mut Command) {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = ["RUSTFLAGS", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "TARGET", "HOST", "PROFILE"];
    for name in names {
        // CARGO_HOME and the settings of registries and networks stay.
        let of_cargo = ["CARGO_CFG_", "CARGO_PKG_", "CARGO_FEATURE_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let of_build = name.starts_with("CARGO_BUILD_") || name.starts_with("CARGO_PROFILE_");
        let of_rustc = name.starts_with("RUSTC_");
        let exact = ours.contains(&name.as_str())
            || name == "CARGO_ENCODED_RUSTFLAGS"
            || name == "CARGO_TARGET_DIR"
            || name == "CARGO"
            || name == "CARGO_MAKEFLAGS";
        if of_cargo || of_build || of_rustc || exact {
            cargo.env_remove(name);
        }
    }
}

/// The compiler's flags: debug information for BTF, and no path of this machine in the object, so
/// that two checkouts build the same octets.
fn flags(compiler: &Compiler, root: &Path) -> Vec<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    // The last that matches wins.
    if let Some(sysroot) = compiler.rustc.parent().and_then(Path::parent) {
        remap(sysroot, "rust");
    }
    if let Some(home) = probe::cargo_home() {
        remap(&home, "cargo");
    }
    remap(root, ".");
    flags
}

/// One target directory for the programs of every profile, beside the outer build's profiles:
/// `target/bpf`. The outer cargo holds a lock on its own.
fn target_dir(out: &Path) -> PathBuf {
    // target/PROFILE/build/gateway-HASH/out
    out.ancestors().nth(4).unwrap_or(out).join("bpf")
}

fn write(object: &Path, octets: &[u8]) -> Result<(), String> {
    fs::write(object, octets).map_err(|error| format!("{}: {error}", object.display()))
}

fn dir(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}"))
}
