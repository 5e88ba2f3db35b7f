//! The third level: stock Debian kernels in QEMU, side by side.

use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use std::vec::IntoIter;

use super::build::{Built, Guests};
use super::reader::Reader;
use super::script::{Program, script};
use super::{Args, Row, Tally, environment, names};
use crate::error::Result;
use crate::progress::{heading, say, seconds};
use crate::shell::root;
use crate::{peers, vm};

/// How long all tests may take on one kernel of the third level.
const VM_LIMIT: Duration = Duration::from_secs(3000);

/// A virtual machine and what runs in it.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    /// As which it is reported.
    name: String,
    /// Its kernel.
    series: String,
    /// Its processors, if that is not left to the machine.
    processors: Option<u32>,
    programs: Vec<Program>,
}

/// Kernel series in which everything runs: those of Debian 12 and 13.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// A newer series, in which the verifier and the hooks of eBPF are looked at.
const NEWEST: &str = "6.18";

/// One guest with each kernel for what each is to show, another with each for what takes two
/// processors, and one more, with the last, for what needs only one kernel; without a choice of
/// kernels, another for the eBPF programs in a newer one.
/// `is_wanted` says whether anything of a program is asked for.
fn guests(built: &Built, chosen: &[String], is_wanted: impl Fn(&Program) -> bool) -> Vec<Guest> {
    let of = |wanted: &[Guests]| {
        let those = built.programs.iter().filter(|(_, places)| wanted.contains(&places.guests));
        those.map(|(program, _)| program).filter(|p| is_wanted(p)).cloned().collect()
    };
    let kernels: Vec<&str> = match chosen {
        [] => KERNELS.to_vec(),
        chosen => chosen.iter().map(String::as_str).collect(),
    };
    let each = [Guests::Each, Guests::EachAndNewest];
    let mut guests: Vec<(String, &str, Option<u32>, Vec<Program>)> =
        kernels.iter().map(|series| (format!("vm {series}"), *series, None, of(&each))).collect();
    let one = kernels.last().map(|last| (*last, of(&[Guests::One])));
    guests.extend(one.map(|(last, programs)| (format!("vm {last} ike"), last, None, programs)));
    guests.extend(kernels.iter().map(|series| {
        (format!("vm {series} smp"), *series, Some(2), of(&[Guests::TwoProcessors]))
    }));
    if chosen.is_empty() {
        guests.push((format!("vm {NEWEST} bpf"), NEWEST, None, of(&[Guests::EachAndNewest])));
    }
    guests
        .into_iter()
        .map(|(name, series, processors, programs)| Guest {
            name,
            series: series.to_owned(),
            processors,
            programs,
        })
        .filter(|guest| !guest.programs.is_empty())
        .collect()
}

/// A guest that is to run, where it prints, and where its outcome is awaited.
struct Job<'a> {
    guest: &'a Guest,
    fetched: Result,
    printer: Sender<String>,
    outcome: Sender<Row>,
}

/// Runs the guests side by side, three for every two processors: under emulation a guest keeps
/// one busy, but waits for timers and peers during a third to half of its time. When one ends the
/// next begins. The first prints as it goes, each other one when those before it have ended.
pub(super) fn run(built: &Built, args: &Args) -> Vec<Row> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let abreast = processors.saturating_add(processors / 2);
    // Tests that need them say so and are skipped.
    let newer = peers::ensure().inspect_err(|error| say(error.to_string())).ok();
    let newer = newer.as_deref();
    let is_wanted = |program: &Program| {
        // One that cannot be asked is run, and says why.
        names(program, args).map_or(true, |names| !names.is_empty())
    };
    let guests = guests(built, &args.kernels, is_wanted);
    let mut jobs = Vec::new();
    let mut awaited = Vec::new();
    for guest in &guests {
        let (printer, lines) = channel();
        let (outcome, row) = channel();
        // One at a time: what is fetched goes to the same places.
        let fetched = vm::fetch(&machine(guest));
        jobs.push(Job { guest, fetched, printer, outcome });
        awaited.push((guest, lines, row));
    }
    let jobs = Arc::new(Mutex::new(jobs.into_iter()));
    let work = |jobs: &Mutex<IntoIter<Job<'_>>>| {
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(Job { guest, fetched, printer, outcome }) = next() {
            let run = |reader: &mut Reader| {
                fetched?;
                run_guest(built, guest, newer, args, reader, &printer)
            };
            let row = Row::of(&guest.name, run);
            drop(printer);
            // Nobody stops waiting before it has come.
            drop(outcome.send(row));
        }
    };
    thread::scope(|scope| {
        // What nobody is left to run, after panics, goes with the last of them: it is not awaited.
        for _ in 0..abreast {
            let jobs = Arc::clone(&jobs);
            scope.spawn(move || work(&jobs));
        }
        drop(jobs);
        let mut rows = Vec::new();
        for (guest, lines, row) in awaited {
            heading(&format!("{}: Debian kernel {}", guest.name, guest.series));
            lines.iter().for_each(|line: String| println!("{line}"));
            // None comes from a thread that has panicked, which the scope does after it.
            rows.extend(row.recv().ok().map(Row::shown));
        }
        rows
    })
}

fn machine(guest: &Guest) -> vm::Machine {
    vm::Machine::with_kernel(&guest.series, guest.processors, VM_LIMIT)
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
    let outcome = vm::execute(&machine(guest), &job, &mut |stream, data| match stream {
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
    use super::super::build::Places;
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
        let all = [
            ("host_a", Guests::None),
            ("bpf_a", Guests::EachAndNewest),
            ("ike_a", Guests::One),
            ("smp_a", Guests::TwoProcessors),
            ("vm_x", Guests::Each),
        ];
        let built = Built { gateway: "gateway".into(), programs: all.map(program).to_vec() };
        let found = |chosen: &[&str], wanted: &str| -> Vec<(String, Vec<String>)> {
            let chosen: Vec<String> = chosen.iter().map(|&series| series.to_owned()).collect();
            let guests = guests(&built, &chosen, |program| program.name.starts_with(wanted));
            let names = |guest: Vec<Program>| guest.into_iter().map(|p| p.name).collect();
            guests.into_iter().map(|guest| (guest.name, names(guest.programs))).collect()
        };
        let guest = |name: &str, programs: &[&str]| {
            (name.to_owned(), programs.iter().map(|&name| name.to_owned()).collect())
        };
        let usual: Vec<(String, Vec<String>)> = vec![
            guest("vm 6.1", &["bpf_a", "vm_x"]),
            guest("vm 6.12", &["bpf_a", "vm_x"]),
            guest("vm 6.12 ike", &["ike_a"]),
            guest("vm 6.1 smp", &["smp_a"]),
            guest("vm 6.12 smp", &["smp_a"]),
            guest("vm 6.18 bpf", &["bpf_a"]),
        ];
        assert_eq!(found(&[], ""), usual);
        let one = vec![
            guest("vm 6.1", &["bpf_a", "vm_x"]),
            guest("vm 6.1 ike", &["ike_a"]),
            guest("vm 6.1 smp", &["smp_a"]),
        ];
        assert_eq!(found(&["6.1"], ""), one);
        assert_eq!(found(&[], "ike"), [guest("vm 6.12 ike", &["ike_a"])]);
        assert_eq!(found(&[], "other"), []);
    }
}
