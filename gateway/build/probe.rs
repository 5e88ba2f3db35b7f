//! Finds what compiles the BPF programs: a Rust compiler with a `core` for BPF, and bpf-linker.
//!
//! One file for `gateway/build.rs`, which builds with what is found, and for `cargo xtask doctor`,
//! which prints it; each includes it by path, so it uses the standard library alone.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the programs on a little-endian machine.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The oldest compiler that the workspace promises to build with.
const OLDEST: (u32, u32) = (1, 95);

/// Where a compiler gets `core` for BPF from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// It is there, compiled (Debian's `libstd-rust-web-dev-bpf`).
    Prebuilt,
    /// It is compiled along with the programs (rustup's component `rust-src`).
    Source,
}

/// A Rust compiler.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// Its real path: a proxy of rustup would choose another by the environment.
    pub(crate) rustc: PathBuf,
    /// Its release, as it prints it: `1.96.0`.
    pub(crate) release: String,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// Its `core` for BPF; none means that it cannot build the programs.
    pub(crate) core: Option<Core>,
}

/// bpf-linker.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The major version of its LLVM, if the file tells.
    pub(crate) llvm: Option<u32>,
}

/// There is no bpf-linker whose LLVM is as new as the compiler's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoLinker {
    /// The LLVM it needs.
    llvm: u32,
    /// A linker that was found and is too old.
    too_old: Option<PathBuf>,
}

impl fmt::Display for NoLinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { llvm, too_old } = self;
        match too_old {
            None => write!(f, "bpf-linker (with LLVM {llvm} or newer) is not installed"),
            Some(path) => {
                write!(f, "{} is too old: the compiler needs LLVM {llvm}", path.display())
            }
        }
    }
}

impl Compiler {
    /// Asks a compiler about itself; none if it does not run.
    pub(crate) fn ask(rustc: &Path) -> Option<Self> {
        let said = output(Command::new(rustc).arg("-vV"))?;
        let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
        let sysroot =
            PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?.trim());
        let own = sysroot.join("bin/rustc");
        Some(Self {
            rustc: if own.is_file() { own } else { rustc.to_path_buf() },
            release: field("release: ")?.to_owned(),
            llvm: major(field("LLVM version: ")?)?,
            core: find_core(&sysroot.join("lib/rustlib")),
        })
    }

    /// Whether it is new enough for the workspace.
    pub(crate) fn is_new_enough(&self) -> bool {
        let mut numbers = self.release.split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(second))) => (first, second) >= OLDEST,
            _ => false,
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (LLVM {})", self.rustc.display(), self.release, self.llvm)?;
        match self.core {
            Some(Core::Prebuilt) => f.write_str(", core prebuilt"),
            Some(Core::Source) => f.write_str(", core from rust-src"),
            None => f.write_str(", no core for BPF"),
        }?;
        if self.is_new_enough() {
            return Ok(());
        }
        write!(f, ", older than {}.{}", OLDEST.0, OLDEST.1)
    }
}

/// Every compiler of this machine: the one in use, the system's, then rustup's with the nightlies
/// first, since they are the ones that usually have `rust-src`.
pub(crate) fn compilers() -> Vec<Compiler> {
    let mut found: Vec<Compiler> = Vec::new();
    for candidate in candidates() {
        if let Some(compiler) = Compiler::ask(&candidate)
            && found.iter().all(|known| known.rustc != compiler.rustc)
        {
            found.push(compiler);
        }
    }
    found
}

/// The first compiler that can build the programs; one with a prebuilt `core` is preferred, since
/// it takes half the time.
pub(crate) fn choose(compilers: &[Compiler]) -> Option<&Compiler> {
    let with = |core| {
        compilers.iter().find(move |known| known.core == Some(core) && known.is_new_enough())
    };
    with(Core::Prebuilt).or_else(|| with(Core::Source))
}

/// A bpf-linker whose LLVM can read what a compiler of this LLVM version writes.
pub(crate) fn linker(llvm: u32) -> Result<Linker, NoLinker> {
    let mut too_old = None;
    for path in linker_paths().into_iter().filter(|path| path.is_file()) {
        let found = linked_llvm(&path);
        if found.is_none_or(|version| version >= llvm) {
            return Ok(Linker { path, llvm: found });
        }
        too_old.get_or_insert(path);
    }
    Err(NoLinker { llvm, too_old })
}

/// Where `cargo xtask setup` puts the tools that it builds: outside of the checkout, so that they
/// outlive it, and out of the way of anything the user installed.
pub(crate) fn tools_dir() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("GATEWAY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("gateway")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/gateway")))
        .map(|cache| cache.join("tools"))
}

fn linker_paths() -> Vec<PathBuf> {
    let own = tools_dir().map(|dir| dir.join("bin"));
    let cargo = cargo_home().map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(env::split_paths(&path))
        .chain(cargo)
        .map(|dir| dir.join("bpf-linker"))
        .collect()
}

/// Cargo's home.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn home(variable: &str, name: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(name)))
}

fn candidates() -> Vec<PathBuf> {
    let in_use = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let mut found = vec![PathBuf::from(in_use), PathBuf::from("/usr/bin/rustc")];
    let toolchains = home("RUSTUP_HOME", ".rustup").map(|dir| dir.join("toolchains"));
    let mut installed: Vec<PathBuf> = toolchains
        .and_then(|dir| fs::read_dir(dir).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    installed.sort_by_key(|dir| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (!name.starts_with("nightly"), !name.starts_with("stable"), name)
    });
    found.extend(installed.into_iter().map(|dir| dir.join("bin/rustc")));
    found
}

fn find_core(rustlib: &Path) -> Option<Core> {
    let prebuilt = fs::read_dir(rustlib.join(TARGET).join("lib")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    });
    if prebuilt {
        return Some(Core::Prebuilt);
    }
    let source = rustlib.join("src/rust/library/core/src/lib.rs").is_file();
    source.then_some(Core::Source)
}

/// The LLVM that a program is linked with: the shared library's name (`libLLVM.so.22.1`,
/// `libLLVM-19.so`), or the producer string that a static one carries (`LLVM22.1.8`).
fn linked_llvm(program: &Path) -> Option<u32> {
    let octets = fs::read(program).ok()?;
    let after = |mark: &[u8]| {
        let starts = octets.windows(mark.len()).enumerate().filter(|(_, at)| *at == mark);
        starts.map(|(start, _)| start).find_map(|start| {
            let rest = octets.get(start..)?.get(mark.len()..)?;
            let digits: String = rest
                .iter()
                .take_while(|octet| octet.is_ascii_digit())
                .map(|octet| char::from(*octet))
                .collect();
            digits.parse::<u32>().ok().filter(|version| (10..100).contains(version))
        })
    };
    after(b"libLLVM.so.").or_else(|| after(b"libLLVM-")).or_else(|| after(b"LLVM"))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
