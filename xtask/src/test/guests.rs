//! The third level: stock Debian kernels in QEMU, side by side.

use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

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
/// one busy, but waits for timers and peers during a third to half of its time. The first prints as
/// it goes, each other one when those before it have ended.
pub(super) fn run(built: &Built, args: &Args) -> Vec<Row> {
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
}
