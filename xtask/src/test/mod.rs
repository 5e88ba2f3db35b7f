//! `cargo xtask test`: the three levels of tests, and their sum.
//!
//! 1. pure: unit, property, vector, simulation and documentation tests; no privileges.
//! 2. host: network namespaces and eBPF on this machine's kernel; root.
//! 3. vm: whole tunnels on stock Debian kernels in QEMU.

mod build;
mod reader;
mod script;
mod tally;

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, stderr};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::build::release;
pub(crate) use self::script::isolated;
pub(crate) use self::tally::Tally;

use self::build::{Built, Guests};
use self::reader::Reader;
use self::script::{Program, script};
use crate::doctor::Purpose;
use crate::error::{Context as _, Error, Result};
use crate::progress::{heading, say, seconds};
use crate::shell::{capture, cargo, describe, find_tool, is_root, root, succeeds};
use crate::{peers, setup, vm};

/// How long all tests may take on one kernel of the third level.
const VM_LIMIT: Duration = Duration::from_secs(3000);

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

    /// Kernel series of the level vm (may be repeated).
    #[arg(short, long = "kernel", value_name = "SERIES", default_values = ["6.1", "6.12"])]
    kernels: Vec<String>,

    /// A variable in the environment of the tests of the levels host and vm (may be repeated).
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,

    /// Names or parts of names of the tests to run.
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
            println!("{:<8} {} in {}", row.name, row.tally, seconds(row.took));
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
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        report.0.extend(run_guests(&built, args));
    }
    report
}

/// A virtual machine and what runs in it.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    /// As which it is reported.
    name: String,
    /// Its kernel.
    series: String,
    programs: Vec<Program>,
}

/// One guest with each kernel for what each is to show, and one more, with the last kernel, for
/// what needs only one. `is_wanted` says whether anything of a program is asked for.
fn guests(built: &Built, kernels: &[String], is_wanted: impl Fn(&Program) -> bool) -> Vec<Guest> {
    let of = |wanted| {
        let those = built.programs.iter().filter(|(_, places)| places.guests == wanted);
        those.map(|(program, _)| program).filter(|p| is_wanted(p)).cloned().collect()
    };
    let each = kernels.iter().map(|series| (format!("vm {series}"), series, of(Guests::Each)));
    let one = kernels.last().map(|series| (format!("vm {series} ike"), series, of(Guests::One)));
    each.chain(one)
        .map(|(name, series, programs)| Guest { name, series: series.clone(), programs })
        .filter(|guest| !guest.programs.is_empty())
        .collect()
}

/// Runs the guests side by side, three for every two processors: under emulation a guest keeps
/// one busy, but waits for timers and peers during a third of its time. The first prints as it
/// goes, each other one when those before it have ended.
fn run_guests(built: &Built, args: &Args) -> Vec<Row> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let abreast = processors.saturating_add(processors / 2);
    // Tests that need them say so and are skipped.
    let newer = peers::ensure().inspect_err(|error| say(error.to_string())).ok();
    let newer = newer.as_deref();
    let mut rows = Vec::new();
    let is_wanted = |program: &Program| {
        // One that cannot be asked is run, and says why.
        names(program, args).map_or(true, |names| !names.is_empty())
    };
    let guests = guests(built, &args.kernels, is_wanted);
    for group in guests.chunks(abreast) {
        // One at a time: what is fetched goes to the same places.
        let fetched: Vec<_> =
            group.iter().map(|guest| (guest, vm::fetch(&machine(&guest.series)))).collect();
        thread::scope(|scope| {
            let running: Vec<_> = fetched
                .into_iter()
                .map(|(guest, fetched)| {
                    let (printer, lines) = channel();
                    let run = move |reader: &mut Reader| {
                        fetched?;
                        run_guest(built, guest, newer, args, reader, &printer)
                    };
                    (guest, lines, scope.spawn(move || Row::of(&guest.name, run)))
                })
                .collect();
            for (guest, lines, row) in running {
                heading(&format!("{}: Debian kernel {}", guest.name, guest.series));
                lines.iter().for_each(|line: String| println!("{line}"));
                match row.join() {
                    Ok(row) => rows.push(row.shown()),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    rows
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

fn machine(series: &str) -> vm::Machine {
    vm::Machine::with_kernel(series, VM_LIMIT)
}

fn run_guest(
    built: &Built,
    guest: &Guest,
    newer: Option<&Path>,
    args: &Args,
    reader: &mut Reader,
    printer: &Sender<String>,
) -> Result<Tally> {
    let mut environment = environment(built, args);
    environment.extend(newer.map(|dir| ("GATEWAY_PEERS".to_owned(), dir.display().to_string())));
    let script = script(&guest.programs, &root().join("tests"), &environment, &args.filter);
    let job = vm::Job {
        command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..vm::Job::default()
    };
    // Nobody stops listening before the run has ended.
    let print = |line: &str| drop(printer.send(line.to_owned()));
    let mut show = |line: &str| {
        if reader.line(line) {
            print(line);
        }
    };
    let mut lines = Lines::default();
    let outcome = vm::execute(&machine(&guest.series), &job, &mut |stream, data| match stream {
        vm::Stream::Out => lines.take(data, &mut show),
        vm::Stream::Err => vm::pass_on(stream, data),
    })?;
    lines.end(&mut show);
    let how = match outcome {
        vm::Outcome::Exited(status) => format!("exit status {status}"),
        vm::Outcome::TimedOut(log) => {
            print(&log);
            format!("the guest was stopped after {}", seconds(VM_LIMIT))
        }
        vm::Outcome::Died(log) => {
            print(&log);
            "the guest died; the end of its kernel's log is above".to_owned()
        }
    };
    Ok(reader.script_ended(&how))
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

/// Cuts a stream of octets into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, data: &[u8], mut on_line: impl FnMut(&str)) {
        for part in data.split_inclusive(|&octet| octet == b'\n') {
            self.0.extend_from_slice(part);
            if let Some(line) = self.0.strip_suffix(b"\n") {
                on_line(&String::from_utf8_lossy(line));
                self.0.clear();
            }
        }
    }

    /// The end of the stream ends the last line too.
    fn end(&mut self, mut on_line: impl FnMut(&str)) {
        if !self.0.is_empty() {
            on_line(&String::from_utf8_lossy(&self.0));
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::build::Places;
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for piece in ["a", "b\nc\n", "", "\nd", "e"] {
            lines.take(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["ab", "c", "", "de"]);
    }

    #[test]
    fn each_kernel_has_a_guest_and_what_needs_one_only_has_another() {
        let program = |(name, guests): (&str, Guests)| {
            let program = Program { name: name.to_owned(), path: name.into() };
            (program, Places { host: false, guests })
        };
        let all = [("bpf_host", Guests::None), ("ike_a", Guests::One), ("vm_x", Guests::Each)];
        let built = Built { gateway: "gateway".into(), programs: all.map(program).to_vec() };
        let kernels = ["6.1", "6.12"].map(str::to_owned);
        let found = |wanted: &str| -> Vec<(String, String)> {
            let guests = guests(&built, &kernels, |program| program.name.starts_with(wanted));
            let of = |guest: Guest| {
                guest.programs.into_iter().map(move |p| (guest.name.clone(), p.name))
            };
            guests.into_iter().flat_map(of).collect()
        };
        let pair = |guest: &str, program: &str| (guest.to_owned(), program.to_owned());
        let (vm, ike) =
            ([pair("vm 6.1", "vm_x"), pair("vm 6.12", "vm_x")], [pair("vm 6.12 ike", "ike_a")]);
        assert_eq!(found(""), [&vm[..], &ike].concat());
        assert_eq!(
            (found("vm"), found("ike"), found("other")),
            (vm.to_vec(), ike.to_vec(), vec![])
        );
    }

    #[test]
    fn a_variable_has_a_name_that_a_shell_knows() {
        assert_eq!(variable("A_1=b=c").unwrap(), ("A_1".to_owned(), "b=c".to_owned()));
        for wrong in ["A", "=b", "a b=c", "$(x)=y"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_level_that_cannot_run_is_a_failure() {
        let row = row("host", |_| Err(Error::new("no such thing")));
        assert_eq!(row.tally, Tally::FAILED);
        assert_eq!(row.failures, ["no such thing"]);
    }
}
