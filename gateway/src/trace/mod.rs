//! `gateway trace`: shows what the eBPF programs decide about packets, as they decide it.
//!
//! What they tell is read from the pinned maps, so that a guard without a gateway can be traced
//! too; the names of rules and peers are the gateway's, and are asked for again every second.

mod capture;
mod keys;
mod line;
mod names;

use core::time::Duration;
use std::io::{self, Write as _};
use std::path::Path;

use gateway_common::Reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::TraceArgs;
use crate::control::QueryError;
use crate::kernel::bpf::{BpfError, Decided, Tracer, Wish};

use capture::Capture;
use keys::KeyFile;
use line::Line;
use names::Names;

/// Between two renewals of what is asked of the programs.
const RENEWAL: Duration = Duration::from_secs(1);
/// Octets of a packet that tell what a line shows: the headers, with every tag and option.
const HEADERS: u32 = 192;
/// Octets of a packet for a file: all that the programs can give.
const WHOLE: u32 = 2048;

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The programs cannot be asked.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The gateway does not tell what is behind a name.
    #[error("--peer, --rule and --keys need a gateway that runs: {0}")]
    NoNames(QueryError),
    /// It tells something else.
    #[error("the gateway does not tell its names: {0}")]
    Refused(String),
    /// There is no such thing.
    #[error("there is no {kind} {name:?}; there is: {}", list(.known))]
    Unknown {
        /// `peer`, `rule` or `reason`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A file, or the runtime.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// What a trace came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    shown: u64,
    over_rate: u64,
    full: u64,
}

/// Shows decisions until it is interrupted or has shown enough.
///
/// # Errors
/// [`TraceError`]. A reader of the output who has gone away ends the trace, and is none.
pub fn run(args: &TraceArgs) -> Result<(), TraceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| system("cannot start the runtime", source))?;
    let sums = runtime.block_on(follow(args))?;
    if let Some(text) = summary(&sums, args.rate) {
        // Where standard error is gone there is nobody to tell.
        drop(writeln!(io::stderr(), "{text}"));
    }
    Ok(())
}

async fn follow(args: &TraceArgs) -> Result<Sums, TraceError> {
    let reasons = reasons(args)?;
    let mut names = Names::ask(args)?;
    let mut capture = args.write.as_deref().map(create).transpose()?;
    let mut keys = args.keys.as_deref().map(|directory| key_file(directory, &names)).transpose()?;
    let mut tracer = Tracer::open(&args.pinned.pin_dir)?;
    let before = tracer.untold()?;
    let mut wish = Wish {
        reasons,
        passed: args.reason.is_empty() && !args.drops,
        selected: names.select(args)?,
        rate: args.rate,
        octets: if capture.is_some() { WHOLE } else { HEADERS },
    };
    let on = |kind| signal(kind).map_err(|source| system("cannot wait for signals", source));
    let (mut interrupt, mut terminate) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut renewal = interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0_u64;
    while args.count.is_none_or(|count| shown < count) {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = renewal.tick() => {
                // A gateway that ends meanwhile leaves what was known of it.
                if names.renew(args) {
                    wish.selected = names.select(args)?;
                }
                tracer.wish(&wish)?;
                if let Some(keys) = &mut keys {
                    keys.add_new().map_err(|source| system("cannot write keys", source))?;
                }
            }
            decided = tracer.next() => {
                let decided = decided?;
                if !show(args, &decided, &names, capture.as_mut())? {
                    break;
                }
                shown = shown.saturating_add(1);
            }
        }
    }
    if let Some(capture) = &mut capture {
        capture.finish().map_err(|source| system("cannot write", source))?;
    }
    let (over, full) = tracer.untold()?;
    let (over_before, full_before) = before;
    Ok(Sums {
        shown,
        over_rate: over.saturating_sub(over_before),
        full: full.saturating_sub(full_before),
    })
}

/// Whether there still is somebody to show it to.
fn show(
    args: &TraceArgs,
    decided: &Decided,
    names: &Names,
    capture: Option<&mut Capture>,
) -> Result<bool, TraceError> {
    let line = Line::new(decided, names);
    if let Some(capture) = capture {
        capture.add(decided, &line).map_err(|source| system("cannot write", source))?;
    }
    let text = if args.json { line.json() } else { line.to_string() };
    let mut out = io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(system("cannot write to standard output", source)),
    }
}

fn reasons(args: &TraceArgs) -> Result<Vec<Reason>, TraceError> {
    let named = |name: &String| {
        Reason::ALL.iter().copied().find(|reason| reason.name() == name).ok_or_else(|| {
            let known = Reason::ALL.iter().map(|reason| reason.name().to_owned()).collect();
            TraceError::Unknown { kind: "reason", name: name.clone(), known }
        })
    };
    let mut reasons = args.reason.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    if args.drops {
        let is_drop = |reason: &Reason| reason.verdict() == gateway_common::Verdict::Drop;
        reasons.extend(Reason::ALL.iter().copied().filter(is_drop));
    } else if reasons.is_empty() {
        reasons = Reason::ALL.to_vec();
    }
    Ok(reasons)
}

fn create(path: &Path) -> Result<Capture, TraceError> {
    Capture::create(path)
        .map_err(|source| system(&format!("cannot write {}", path.display()), source))
}

fn key_file(directory: &Path, names: &Names) -> Result<KeyFile, TraceError> {
    KeyFile::create(directory, names.if_id()).map_err(|source| {
        system(&format!("cannot write keys into {}", directory.display()), source)
    })
}

fn system(what: &str, source: io::Error) -> TraceError {
    TraceError::System { what: what.to_owned(), source }
}

/// What was not shown, if something was not.
fn summary(sums: &Sums, rate: u32) -> Option<String> {
    let parts = [
        (sums.over_rate, format!("above {rate} a second of one CPU (--rate)")),
        (sums.full, "faster than they could be shown".to_owned()),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, why)| format!("{number} {why}"))
        .collect();
    (!parts.is_empty())
        .then(|| format!("{} decisions shown; not shown: {}", sums.shown, parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> TraceArgs {
        let cli = Cli::try_parse_from(format!("gateway trace {line}").split_whitespace()).unwrap();
        let Command::Trace(args) = cli.command else { panic!("another command") };
        args
    }

    #[test]
    fn reasons_are_all_or_the_drops_or_the_named_ones() {
        assert_eq!(reasons(&args("")).unwrap(), Reason::ALL);
        assert_eq!(reasons(&args("--reason ingress_clear")).unwrap(), [Reason::ClearInbound]);
        let drops = reasons(&args("--drops")).unwrap();
        assert!(drops.contains(&Reason::ClearInbound) && !drops.contains(&Reason::Stripped));
        let both = reasons(&args("--drops --reason egress_bypassed")).unwrap();
        assert!(both.contains(&Reason::BypassedOut) && both.contains(&Reason::ClearInbound));
        let error = reasons(&args("--reason ingress")).unwrap_err().to_string();
        assert!(
            error.contains("no reason \"ingress\"") && error.contains("ingress_clear"),
            "{error}"
        );
    }

    #[test]
    fn the_sum_tells_what_was_not_shown() {
        let sums = Sums { shown: 5, ..Sums::default() };
        assert_eq!(summary(&sums, 100), None);
        let sums = Sums { over_rate: 7, full: 2, ..sums };
        let text = "5 decisions shown; not shown: 7 above 100 a second of one CPU (--rate), 2 \
                    faster than they could be shown";
        assert_eq!(summary(&sums, 100).as_deref(), Some(text));
    }
}
