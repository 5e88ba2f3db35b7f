//! `cargo xtask test`: the three levels of tests, and their sum.
//!
//! 1. pure: unit, property, vector, simulation and documentation tests; no privileges.
//! 2. host: network namespaces and eBPF on this machine's kernel; root.
//! 3. vm: whole tunnels on stock Debian kernels in QEMU.

mod build;
mod guests;
mod reader;
mod script;
mod tally;

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, stderr};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub(crate) use self::build::release;
pub(crate) use self::script::isolated;
pub(crate) use self::tally::Tally;

use self::build::Built;
use self::reader::Reader;
use self::script::{Program, script};
use crate::doctor::Purpose;
use crate::error::{Context as _, Error, Result};
use crate::progress::{heading, say, seconds};
use crate::setup;
use crate::shell::{capture, cargo, describe, find_tool, is_root, root, succeeds};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                      all three levels
  cargo xtask test pure                 one level
  cargo xtask test vm -k 6.12 -- nat    tests whose name has `nat`, on one kernel
  cargo xtask test vm -k 6.12 -e GATEWAY_REKEY_SECONDS=600 -- we_rekey --nocapture
                                        ten minutes of rekeying

The last line is the sum: `N passed, N failed, N skipped`. A test that cannot run on this
machine says why and counts as skipped. The levels host and vm keep nothing of what a test
leaves behind: each test program has namespaces of its own.")]
pub(crate) struct Args {
    /// Run this level only.
    level: Option<Level>,

    /// Kernel series of the level vm (may be repeated); by default 6.1 and 6.12, and 6.18 for what
    /// depends on the kernel's eBPF alone.
    #[arg(short, long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,

    /// A variable in the environment of the tests of the levels host and vm (may be repeated).
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,

    /// Names or parts of names of the tests to run (of tests, not of test programs); that none is
    /// found is an error.
    #[arg(last = true)]
    filter: Vec<String>,
}

/// A level of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// Unit, property, vector, simulation and documentation tests.
    Pure,
    /// Namespaces and eBPF on this machine's kernel; needs root.
    Host,
    /// Stock Debian kernels in QEMU.
    Vm,
}

/// The outcome of one level, or of one kernel of the third.
#[derive(Debug)]
struct Row {
    name: String,
    tally: Tally,
    took: Duration,
    skips: Vec<String>,
    failures: Vec<String>,
}

/// The outcome of a run.
#[derive(Debug, Default)]
struct Report(Vec<Row>);

impl Report {
    /// The sum over the levels.
    fn tally(&self) -> Tally {
        self.0.iter().map(|row| row.tally).sum()
    }

    /// Prints what was skipped and what failed, then one line per level.
    fn print(&self) {
        heading("tests");
        for row in &self.0 {
            for skip in &row.skips {
                println!("skipped  {}: {skip}", row.name);
            }
        }
        for row in &self.0 {
            for failure in &row.failures {
                println!("FAILED   {}: {failure}", row.name);
            }
        }
        for row in &self.0 {
            println!("{:<11} {} in {}", row.name, row.tally, seconds(row.took));
        }
        println!();
    }
}

/// Runs the command of `cargo xtask test`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    set_up(args.level)?;
    let report = levels(args);
    report.print();
    let total = report.tally();
    println!("{total}");
    if let Some(error) = of_nothing(total, &args.filter) {
        return Err(error);
    }
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong where tests were asked for and there are none.
fn of_nothing(total: Tally, filter: &[String]) -> Option<Error> {
    (total == Tally::default() && !filter.is_empty()).then(|| {
        Error::new(format!(
            "there is no such test: what stands behind `--` (`{}`) is looked for in the names of \
             tests, not of test programs",
            filter.join(" ")
        ))
    })
}

/// Installs what is missing. What only some tests need may stay so: they say it and are skipped.
fn set_up(level: Option<Level>) -> Result {
    let wanted = if level == Some(Level::Pure) { Purpose::Build } else { Purpose::Test };
    setup::ensure(wanted).or_else(|error| {
        say(error.to_string());
        setup::ensure(Purpose::Build)
    })
}

/// Runs the levels asked for. What keeps a level from running is a failure of that level.
fn levels(args: &Args) -> Report {
    let mut report = Report::default();
    let wanted = |level| args.level.is_none_or(|only| only == level);
    if wanted(Level::Pure) {
        heading("pure: unit, property, vector, simulation and documentation tests");
        report.0.push(row("pure", |reader| pure(args, reader)));
    }
    if !wanted(Level::Host) && !wanted(Level::Vm) {
        return report;
    }
    heading("building the daemon and the test programs");
    let started = Instant::now();
    let built = match build::build() {
        Ok(built) => {
            println!("built in {}", seconds(started.elapsed()));
            built
        }
        Err(error) => {
            let name = if wanted(Level::Host) { "host" } else { "vm" };
            report.0.push(row(name, |_| Err(error)));
            return report;
        }
    };
    if wanted(Level::Host) {
        heading("host: namespaces and eBPF on this machine's kernel");
        report.0.push(row("host", |reader| host(&built, args, reader)));
    }
    if wanted(Level::Vm) {
        report.0.extend(guests::run(&built, args));
    }
    report
}

/// The names of the tests of a program that are asked for.
fn names(program: &Program, args: &Args) -> Result<Vec<String>> {
    let list = capture(Command::new(&program.path).arg("--list").args(&args.filter))?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs one level, puts its outcome together, and prints its sum.
fn row(name: &str, level: impl FnOnce(&mut Reader) -> Result<Tally>) -> Row {
    Row::of(name, level).shown()
}

impl Row {
    fn of(name: &str, level: impl FnOnce(&mut Reader) -> Result<Tally>) -> Self {
        let started = Instant::now();
        let mut reader = Reader::default();
        let tally = level(&mut reader).unwrap_or_else(|error| {
            reader.failures.push(error.to_string());
            let mut tally = reader.tally();
            tally.add(Tally::FAILED);
            tally
        });
        let Reader { skips, failures, .. } = reader;
        Self { name: name.to_owned(), tally, took: started.elapsed(), skips, failures }
    }

    fn shown(self) -> Self {
        println!("{}: {} in {}", self.name, self.tally, seconds(self.took));
        self
    }
}

fn pure(args: &Args, reader: &mut Reader) -> Result<Tally> {
    let dir = tempfile::tempdir().context(|| "cannot create a temporary directory")?;
    let skip_log = dir.path().join("skipped");
    // The programs' crate is none that a plain `cargo` builds, but parts of it run anywhere.
    let runs: [&[&str]; 2] = [&[], &["--package", "gateway-ebpf", "--lib"]];
    for which in runs {
        let mut command = cargo(["test", "--no-fail-fast"]);
        command.args(which).env("GATEWAY_SKIP_LOG", &skip_log).arg("--").args(&args.filter);
        let status = read_lines(&mut command, reader)?;
        for line in fs::read_to_string(&skip_log).unwrap_or_default().lines() {
            reader.skip(line);
        }
        drop(fs::remove_file(&skip_log));
        reader.program_ended(status);
    }
    Ok(reader.tally())
}

fn host(built: &Built, args: &Args, reader: &mut Reader) -> Result<Tally> {
    let programs: Vec<Program> = built
        .programs
        .iter()
        .filter(|(_, places)| places.host)
        .map(|(program, _)| program.clone())
        .collect();
    let script = script(&programs, &root().join("tests"), &environment(built, args), &args.filter);
    let mut command = if is_root() {
        Command::new("sh")
    } else if may_sudo() {
        say("the tests on this machine's kernel need root: asking sudo");
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    } else {
        return skip_all(&programs, args, reader);
    };
    let status = read_lines(command.args(["-c", &script]), reader)?;
    Ok(reader.script_ended(&format!("exit status {status}")))
}

/// Whether sudo is there and either needs no password or can ask for one.
fn may_sudo() -> bool {
    find_tool("sudo").is_some()
        && (stderr().is_terminal() || succeeds(Command::new("sudo").args(["-n", "true"])))
}

/// Counts the tests of programs that cannot run.
fn skip_all(programs: &[Program], args: &Args, reader: &mut Reader) -> Result<Tally> {
    let mut tally = Tally::default();
    for program in programs {
        for test in names(program, args)? {
            reader.skips.push(format!("{}: {test}: needs root", program.name));
            tally.add(Tally::SKIPPED);
        }
    }
    say("not root and no sudo: the tests on this machine's kernel are skipped");
    Ok(tally)
}

/// What every test program finds in its environment.
fn environment(built: &Built, args: &Args) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut environment = vec![
        ("GATEWAY_BIN".to_owned(), text(&built.gateway)),
        ("CARGO_MANIFEST_DIR".to_owned(), text(&root().join("tests"))),
        ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
    ];
    environment.extend(args.environment.iter().cloned());
    environment
}

/// Reads `NAME=VALUE`, as a shell can export it.
fn variable(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("there is no `=`")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("{name:?} is no name of a variable"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs a command, shows and reads its output line by line; its exit status.
fn read_lines(command: &mut Command, reader: &mut Reader) -> Result<i32> {
    let what = describe(command);
    let what = what.lines().next().unwrap_or_default();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context(|| what)?;
    let stdout = child.stdout.take().ok_or_else(|| Error::new("no output to read"))?;
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    // Tests may print anything: not everything is UTF-8.
    while 0 < stdout.read_until(b'\n', &mut line).context(|| what)? {
        show(reader, String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    let status = child.wait().context(|| what)?;
    Ok(status.code().unwrap_or(-1))
}

fn show(reader: &mut Reader, line: &str) {
    if reader.line(line) {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_cannot_run_is_a_failure() {
        let row = row("host", |_| Err(Error::new("no such thing")));
        assert_eq!(row.tally, Tally::FAILED);
        assert_eq!(row.failures, ["no such thing"]);
    }

    #[test]
    fn a_filter_that_finds_no_test_is_an_error_and_says_what_it_goes_by() {
        let filter = ["bpf_".to_owned()];
        let error = of_nothing(Tally::default(), &filter).unwrap().to_string();
        assert!(error.contains("(`bpf_`)") && error.contains("not of test programs"), "{error}");
        for some in [Tally::PASSED, Tally::FAILED, Tally::SKIPPED] {
            assert!(of_nothing(some, &filter).is_none(), "{some}");
        }
        assert!(of_nothing(Tally::default(), &[]).is_none());
    }

    #[test]
    fn a_variable_has_a_name_that_a_shell_knows() {
        assert_eq!(variable("A_1=b=c").unwrap(), ("A_1".to_owned(), "b=c".to_owned()));
        for wrong in ["A", "=b", "a b=c", "$(x)=y"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
