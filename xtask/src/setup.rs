//! `cargo xtask setup`: installs what `cargo xtask doctor` misses.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::doctor::{CORE_PACKAGES, Item, Mend, Purpose, inventory};
use crate::ebpf;
use crate::error::{Context as _, Error, Result};
use crate::progress::{Step, say};
use crate::shell::{capture, find_tool, is_root, succeeds};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Installs Debian's packages (as root, or by sudo; strongSwan without its service) and builds bpf-linker in the cache directory
($GATEWAY_CACHE, or gateway in the user's cache directory). What is there is left alone: a second
run does nothing. On a terminal it asks first, unless --yes is given.

Examples:
  cargo xtask setup --yes
  cargo xtask setup --for build")]
pub(crate) struct Args {
    /// Do not ask.
    #[arg(long)]
    yes: bool,

    /// Install what this needs, and no more.
    #[arg(long = "for", value_name = "PURPOSE", default_value = "test")]
    purpose: Purpose,
}

/// Runs the command of `cargo xtask setup`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if mend(args.purpose, args.yes)? {
        say("everything is there");
    } else {
        say("nothing was missing");
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs what a purpose needs and the machine lacks.
pub(crate) fn ensure(purpose: Purpose) -> Result {
    mend(purpose, false).map(|_changed| ())
}

/// Installs what is missing for a purpose. Whether anything was.
fn mend(purpose: Purpose, yes: bool) -> Result<bool> {
    let items = missing(purpose);
    if items.is_empty() {
        return Ok(false);
    }
    for item in &items {
        say(format!("missing: {} -> {}", item.name, item.remedy()));
    }
    if !yes && !agreed()? {
        return Err(Error::new("nothing was installed"));
    }
    if find_tool("apt-get").is_some() {
        install(&items)?;
    }
    finish_bpf(purpose)?;
    let left = missing(purpose);
    if left.is_empty() {
        return Ok(true);
    }
    let lines: Vec<String> =
        left.iter().map(|item| format!("\n  {}: {}", item.name, item.remedy())).collect();
    Err(Error::new(format!("still missing:{}", lines.concat())))
}

fn missing(purpose: Purpose) -> Vec<Item> {
    inventory().into_iter().filter(|item| item.purpose <= purpose && item.found.is_err()).collect()
}

/// Installs the packages that mend what packages can mend.
fn install(items: &[Item]) -> Result {
    let by_package =
        |item: &Item| !matches!(item.mend, Mend::Linker(llvm) if ebpf::llvm_prefix(llvm).is_some());
    if !items.iter().any(by_package) {
        return Ok(());
    }
    // A fresh machine has no lists, and what it can install is looked up in them.
    let step = Step::start("fetching the package lists");
    capture(apt().args(["update", "--quiet"]))?;
    step.done();
    let mut packages: Vec<String> = items.iter().flat_map(packages).collect();
    packages.sort();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    say(format!("packages: {}", packages.join(" ")));
    let step = Step::start("installing the packages and what they need");
    let mut install = apt();
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&packages);
    capture(&mut install)?;
    step.done();
    if packages.iter().any(|package| package == STRONGSWAN)
        && Path::new("/run/systemd/system").exists()
    {
        give_ports_back();
    }
    Ok(())
}

/// The package of strongSwan's daemon.
const STRONGSWAN: &str = "charon-systemd";

/// Stops strongSwan's service, which Debian starts when it installs the package: the tests run
/// strongSwan themselves, and a gateway on this machine needs ports 500 and 4500.
fn give_ports_back() {
    const COMMAND: [&str; 4] = ["systemctl", "disable", "--now", "strongswan.service"];
    match capture(&mut privileged(&COMMAND)) {
        Ok(_) => say("stopped strongSwan's service: the tests start strongSwan themselves"),
        Err(error) => say(format!("strongSwan's service may have UDP ports 500 and 4500: {error}")),
    }
}

/// The packages that mend an item, if packages do.
fn packages(item: &Item) -> Vec<String> {
    match &item.mend {
        Mend::Packages(names) => names.iter().map(|name| available(name).to_owned()).collect(),
        Mend::Core if has_candidate(CORE_PACKAGES) => {
            CORE_PACKAGES.iter().map(ToString::to_string).collect()
        }
        // By rustup, later.
        Mend::Core => Vec::new(),
        Mend::Linker(llvm) => match ebpf::llvm_prefix(*llvm) {
            Some(_) => Vec::new(),
            None => vec![format!("llvm-{llvm}-dev")],
        },
    }
}

/// Of alternatives, the first that this release of Debian has.
fn available(names: &str) -> &str {
    let alternatives = || names.split(" | ");
    let found = alternatives().find(|name| has_candidate(&[name]));
    found.or_else(|| alternatives().last()).unwrap_or(names)
}

fn has_candidate(packages: &[&str]) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages))
}

/// Whether to go on: yes where nobody can answer.
fn agreed() -> Result<bool> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(true);
    }
    eprint!("xtask: install it? [Y/n] ");
    stderr().flush().context(|| "the terminal")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context(|| "the terminal")?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// `apt-get` with the rights that it needs.
fn apt() -> Command {
    privileged(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
}

/// A command as root, by sudo if need be.
fn privileged(words: &[&str]) -> Command {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let mut command = Command::new("env");
    command.args([sudo, words].concat());
    command
}

/// What no package has: a compiler's sources by rustup, and bpf-linker.
fn finish_bpf(purpose: Purpose) -> Result {
    let needs_core = |item: &Item| matches!(item.mend, Mend::Core);
    if missing(purpose).iter().any(needs_core) && find_tool("rustup").is_some() {
        let step = Step::start("fetching a nightly compiler and the sources of core by rustup");
        let args = ["toolchain", "install", "nightly", "--profile", "minimal", "--component"];
        capture(Command::new("rustup").args(args).arg("rust-src"))?;
        step.done();
    }
    let linker = missing(purpose).into_iter().find(|item| matches!(item.mend, Mend::Linker(_)));
    let Some(item) = linker else { return Ok(()) };
    // Only now is it known which LLVM it is to have.
    if find_tool("apt-get").is_some() {
        install(std::slice::from_ref(&item))?;
    }
    match item.mend {
        Mend::Linker(llvm) => ebpf::install_linker(llvm),
        Mend::Packages(_) | Mend::Core => Ok(()),
    }
}
