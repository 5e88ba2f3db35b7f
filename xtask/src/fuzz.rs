//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz` for a bounded time.
//!
//! The crate has cargo-fuzz's layout, and `cargo +nightly fuzz run --fuzz-dir tests/fuzz` works on it. Here the same
//! instrumentation is asked of the stable compiler: what needs a nightly is the address
//! sanitizer, and the code under test forbids `unsafe`. The search is for panics, endless
//! loops and exhausted memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::error::{Context as _, Error, Result};
use crate::progress::{Step, heading, say, seconds};
use crate::shell::{cargo, find_tool, root, run as run_command, target_dir};
use crate::test::Tally;

/// What cargo-fuzz asks of the compiler for libFuzzer: counters at every edge, a table of their
/// places, and a trace of comparisons.
const INSTRUMENTATION: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
];

/// With `--target`, build scripts and macros stay without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                                every target for 20 seconds
  cargo xtask fuzz --seconds 600 decode_message   one target for ten minutes
  cargo xtask fuzz --replay crash-1234 endpoint   one input, to see how it fails

What was found is kept under target/fuzz: corpus/ and artifacts/.")]
pub(crate) struct Args {
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value = "20")]
    seconds: u32,

    /// Run this input only, instead of searching.
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,

    /// Targets to run; all by default.
    targets: Vec<String>,
}

impl Args {
    /// All targets for this time each.
    pub(crate) const fn for_seconds(seconds: u32) -> Self {
        Self { seconds, replay: None, targets: Vec::new() }
    }
}

/// Runs the command of `cargo xtask fuzz`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tally = search(args)?;
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the targets; each counts as one test. Without a C++ compiler, for libFuzzer itself, all
/// are skipped.
pub(crate) fn search(args: &Args) -> Result<Tally> {
    let all = targets(&root().join("tests/fuzz/fuzz_targets"))?;
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        return Err(Error::new(format!("no fuzz target {unknown}; there are: {}", all.join(", "))));
    }
    let chosen = if args.targets.is_empty() { all } else { args.targets.clone() };
    if !["c++", "g++", "clang++"].iter().any(|name| find_tool(name).is_some()) {
        say("no C++ compiler for libFuzzer: the fuzz targets are skipped; install g++ to run them");
        return Ok(chosen.iter().map(|_| Tally::SKIPPED).sum());
    }
    build()?;
    let mut tally = Tally::default();
    for target in &chosen {
        heading(&format!("fuzz: {target}"));
        let started = Instant::now();
        let found = !quiet(target, args)?;
        tally.add(if found { Tally::FAILED } else { Tally::PASSED });
        let outcome = if found { "FAILED" } else { "nothing found" };
        println!("fuzz {target}: {outcome} in {}", seconds(started.elapsed()));
    }
    Ok(tally)
}

/// The names of the targets, sorted.
fn targets(dir: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(dir).context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file.context(|| format!("cannot read {}", dir.display()))?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn directory() -> PathBuf {
    target_dir().join("fuzz")
}

fn build() -> Result {
    run_command(
        cargo(["build", "--release", "--bins", "--target", TARGET])
            .arg("--manifest-path")
            .arg(root().join("tests/fuzz/Cargo.toml"))
            .arg("--target-dir")
            .arg(directory())
            .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}")),
    )
}

/// Runs one target; whether it found nothing.
fn quiet(target: &str, args: &Args) -> Result<bool> {
    let dir = directory();
    let mut command = Command::new(dir.join(TARGET).join("release").join(target));
    command.current_dir(root()).stdin(Stdio::null());
    if let Some(input) = &args.replay {
        command.arg(input.canonicalize().context(|| format!("no file {}", input.display()))?);
        return Ok(command.status().context(|| target)?.success());
    }
    let (corpus, artifacts) = (dir.join("corpus").join(target), dir.join("artifacts").join(target));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).context(|| format!("cannot create {}", dir.display()))?;
    }
    command
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        // New inputs go to the first directory; the one in the checkout is only read.
        .arg(corpus);
    let seeds = root().join("tests/fuzz/corpus").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let step = Step::start(format!("{target} for {} s", args.seconds));
    // libFuzzer says everything on standard error, a line for each new input.
    let output = command.stdout(Stdio::null()).output().context(|| target)?;
    let log = String::from_utf8_lossy(&output.stderr);
    step.done();
    if output.status.success() {
        println!("{}", log.lines().find(|line| line.starts_with("Done ")).unwrap_or_default());
    } else {
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with('#')).collect();
        println!("{}", lines.join("\n"));
        println!("to see it again: cargo xtask fuzz --replay FILE {target}");
    }
    Ok(output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_rust_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b.rs", "a.rs", "README.md"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(targets(dir.path()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let text = targets(Path::new("/no/such")).unwrap_err().to_string();
        assert!(text.contains("cannot read /no/such"), "{text}");
    }
}
