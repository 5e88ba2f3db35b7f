//! `cargo xtask check`: all that continuous integration does before the tests, in order of cost.
//!
//! A failed step does not keep the later ones from running: one run shows all that is wrong.

mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::fuzz;
use crate::progress::{heading, seconds};
use crate::test::Tally;

/// Arguments of `cargo xtask check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Formatting, lints, documentation, dependencies (licences, bans, sources), and the fuzz targets for
some seconds each. The last line is the sum of fuzz targets and failed steps: `N passed, N failed,
N skipped`.")]
pub(crate) struct Args {
    /// Seconds for each fuzz target, instead of its own time.
    #[arg(long, value_name = "N")]
    fuzz_seconds: Option<u32>,
}

/// The outcome of one step.
struct Step {
    name: &'static str,
    ok: bool,
    took: Duration,
}

/// Runs the command of `cargo xtask check`.
pub(crate) fn run(args: &Args) -> ExitCode {
    let mut steps = Vec::new();
    let mut total = Tally::default();
    let checks: [(_, fn() -> Result); 5] = [
        ("format", steps::format),
        ("scripts", steps::scripts),
        ("clippy", steps::clippy),
        ("documentation", steps::documentation),
        ("dependencies", steps::dependencies),
    ];
    for (name, check) in checks {
        // What passes here is not a test: only failures count.
        total.add(step(&mut steps, name, || check().map(|()| Tally::default())));
    }
    let fuzzing = fuzz::Args::all(args.fuzz_seconds);
    total.add(step(&mut steps, "fuzz targets", || fuzz::search(&fuzzing)));

    heading("steps");
    for step in &steps {
        let outcome = if step.ok { "ok" } else { "FAILED" };
        println!("{:<30} {outcome:<8} {:>12}", step.name, seconds(step.took));
    }
    let sum = steps.iter().map(|step| step.took).sum();
    println!("{:<30} {:<8} {:>12}\n", "all", "", seconds(sum));
    println!("{total}");
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one step and notes how it went. A step that could not do its work is one failure.
fn step(steps: &mut Vec<Step>, name: &'static str, work: impl FnOnce() -> Result<Tally>) -> Tally {
    heading(name);
    let started = Instant::now();
    let tally = work().unwrap_or_else(|error| {
        println!("{name}: {error}");
        Tally::FAILED
    });
    let (ok, took) = (tally.failed == 0, started.elapsed());
    println!("{name}: {} in {}", if ok { "ok" } else { "FAILED" }, seconds(took));
    steps.push(Step { name, ok, took });
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_step_that_fails_counts_as_one_failure() {
        let mut steps = Vec::new();
        assert_eq!(step(&mut steps, "a", || Err(Error::new("no"))), Tally::FAILED);
        assert_eq!(step(&mut steps, "b", || Ok(Tally::default())), Tally::default());
        assert_eq!(step(&mut steps, "c", || Ok(Tally::FAILED)), Tally::FAILED);
        assert_eq!(steps.iter().map(|step| step.ok).collect::<Vec<_>>(), [false, true, false]);
    }
}
