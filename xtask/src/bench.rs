//! `cargo xtask bench`: the benchmarks, each beside the floor of its group.
//!
//! Times depend on the machine, ratios hardly do. So a group of benchmarks has one called
//! `floor`, the least that the work can cost (its cryptographic primitives, an empty program),
//! and the others are printed as multiples of it.
//!
//! Those of `gateway-ike` take theirs in turn with the floor, print themselves and fail when they
//! miss their goal.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::error::{Context as _, Result};
use crate::progress::heading;
use crate::shell::{cargo, run as run_command, target_dir};

/// The name of the benchmark that the others of its group are compared with.
const FLOOR: &str = "floor";

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                all benchmarks; those of the eBPF programs need root
  cargo xtask bench handshake      those whose name has `handshake`

Each benchmark is printed with its multiple of a floor. Those of IKE fail if a handshake costs more
than 1.5 times its cryptography, with the crates that are used here, or an IKE SA with a Child SA
more than 6 KiB of the state machine alone, at 10,000 of them.")]
pub(crate) struct Args {
    /// Part of the names of the benchmarks to run.
    filter: Option<String>,
}

/// Runs the command of `cargo xtask bench`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = cargo([
        "bench",
        "--no-fail-fast",
        "--benches",
        "--package=gateway-ike",
        "--package=gateway-tests",
    ]);
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    let outcome = run_command(&mut command);
    heading("medians, and multiples of each group's floor");
    for group in groups(&target_dir().join("criterion"))? {
        print!("{}", table(&group));
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// Benchmarks that belong together.
#[derive(Debug, PartialEq)]
struct Group {
    name: String,
    /// Name and median in nanoseconds, sorted by name.
    benches: Vec<(String, f64)>,
}

/// What criterion has stored, by `<group>/<benchmark>/new/estimates.json`.
fn groups(criterion: &Path) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for name in directories(criterion)? {
        let mut benches = Vec::new();
        for bench in directories(&criterion.join(&name))? {
            let file = criterion.join(&name).join(&bench).join("new/estimates.json");
            let median = fs::read_to_string(file).ok().and_then(|text| median(&text));
            benches.extend(median.map(|median| (bench, median)));
        }
        if !benches.is_empty() {
            groups.push(Group { name, benches });
        }
    }
    Ok(groups)
}

fn directories(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn median(estimates: &str) -> Option<f64> {
    serde_json::from_str::<Value>(estimates).ok()?.get("median")?.get("point_estimate")?.as_f64()
}

fn table(group: &Group) -> String {
    let floor = group.benches.iter().find(|(name, _)| name == FLOOR).map(|(_, median)| *median);
    group
        .benches
        .iter()
        .map(|(name, median)| {
            let time = time(*median);
            let full = format!("{}/{name}", group.name);
            match floor {
                Some(floor) if name != FLOOR => {
                    format!("{full:<44} {time:>12}  {:>6.2} x floor\n", median / floor)
                }
                _ => format!("{full:<44} {time:>12}\n"),
            }
        })
        .collect()
}

/// Nanoseconds in a unit that fits.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_shown_as_a_multiple_of_its_floor() {
        let dir = tempfile::tempdir().unwrap();
        for (bench, ns) in [("floor", "50000.0"), ("responder", "75000.0")] {
            let new = dir.path().join("handshake").join(bench).join("new");
            fs::create_dir_all(&new).unwrap();
            let text = format!(r#"{{"median":{{"point_estimate":{ns}}}}}"#);
            fs::write(new.join("estimates.json"), text).unwrap();
        }
        fs::create_dir_all(dir.path().join("report/x")).unwrap();
        let groups = groups(dir.path()).unwrap();
        assert_eq!(groups.len(), 1);
        let table = table(&groups[0]);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("handshake/floor") && lines[0].ends_with("50.00 us"));
        assert!(lines[1].ends_with("75.00 us    1.50 x floor"), "{}", lines[1]);
    }

    #[test]
    fn a_group_without_a_floor_has_times_only() {
        let group = Group { name: "g".into(), benches: vec![("a".into(), 38.25)] };
        assert!(table(&group).trim_end().ends_with("38.2 ns"));
    }

    #[test]
    fn broken_estimates_are_passed_over() {
        assert_eq!(median("{}"), None);
        assert_eq!(median("no json"), None);
    }
}
