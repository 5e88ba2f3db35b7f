//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz` for a bounded time.
//!
//! The crate has cargo-fuzz's layout, and `cargo +nightly fuzz run --fuzz-dir tests/fuzz` works on it. Here the same
//! instrumentation is asked of the stable compiler: what needs a nightly is the address
//! sanitizer, and the code under test forbids `unsafe`. The search is for panics, endless
//! loops and exhausted memory.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::error::{Context as _, Error, Result};
use crate::progress::{say, seconds};
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

/// What the names of the targets begin with that take one decoder.
const DECODER: &str = "decode_";

/// With `--target`, build scripts and macros stay without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                              every target for its own time
  cargo xtask fuzz --seconds 600 decode_sa      one target for ten minutes
  cargo xtask fuzz --replay crash-1234 endpoint one input, to see how it fails

There is a target for each decoder (decode_...), which runs for 2 seconds unless told otherwise,
and one each for the codec and for the endpoint as a whole: round_trip runs for 10, endpoint for 50.
As many run at once as there are processors.

What was found is kept under target/fuzz: corpus/ and artifacts/.")]
pub(crate) struct Args {
    /// Seconds for each target, instead of its own time.
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,

    /// Run this input only, instead of searching.
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,

    /// Targets to run; all by default.
    targets: Vec<String>,
}

impl Args {
    /// All targets, for this time each, or for their own.
    pub(crate) const fn all(seconds: Option<u32>) -> Self {
        Self { seconds, replay: None, targets: Vec::new() }
    }

    /// Seconds that a target runs. What a single decoder can do with some octets is soon seen; most
    /// of the time is for two endpoints.
    fn seconds(&self, target: &str) -> u32 {
        self.seconds.unwrap_or_else(|| match target {
            "endpoint" => 50,
            _ if target.starts_with(DECODER) => 2,
            _ => 10,
        })
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
    let started = Instant::now();
    build()?;
    println!("built in {}", seconds(started.elapsed()));
    abreast(chosen, args)
}

/// Runs as many targets at once as there are processors, since each keeps one busy; those that
/// take longest begin first.
fn abreast(mut targets: Vec<String>, args: &Args) -> Result<Tally> {
    targets.sort_by_key(|target| args.seconds(target));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let whole: u32 = targets.iter().map(|target| args.seconds(target)).sum();
    if args.replay.is_none() {
        say(format!("{} fuzz targets, {whole} s of {processors} processors", targets.len()));
    }
    let queue = Mutex::new(targets);
    let next = || queue.lock().ok()?.pop();
    let work = || {
        let mut tally = Tally::default();
        while let Some(target) = next() {
            let started = Instant::now();
            let (quiet, words) = run_target(&target, args)?;
            tally.add(if quiet { Tally::PASSED } else { Tally::FAILED });
            let outcome = if quiet { "nothing found" } else { "FAILED" };
            println!("fuzz {target}: {outcome} in {}: {words}", seconds(started.elapsed()));
        }
        Ok(tally)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| match worker.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ends.sum()
    })
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

/// Runs one target; whether it found nothing, and what it says.
fn run_target(target: &str, args: &Args) -> Result<(bool, String)> {
    let dir = directory();
    let mut command = Command::new(dir.join(TARGET).join("release").join(target));
    command.current_dir(root()).stdin(Stdio::null());
    if let Some(input) = &args.replay {
        command.arg(input.canonicalize().context(|| format!("no file {}", input.display()))?);
        return Ok((command.status().context(|| target)?.success(), "replayed".to_owned()));
    }
    let (corpus, artifacts) = (dir.join("corpus").join(target), dir.join("artifacts").join(target));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).context(|| format!("cannot create {}", dir.display()))?;
    }
    command
        .arg(format!("-max_total_time={}", args.seconds(target)))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        // New inputs go to the first directory; the one in the checkout is only read.
        .arg(corpus);
    command.arg(root().join("tests/fuzz/corpus").join(target));
    // libFuzzer says everything on standard error, a line for each new input.
    let output = command.stdout(Stdio::null()).output().context(|| target)?;
    let log = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let done = log.lines().find(|line| line.starts_with("Done ")).unwrap_or_default();
        return Ok((true, done.to_owned()));
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with('#')).collect();
    let again = format!("to see it again: cargo xtask fuzz --replay FILE {target}");
    Ok((false, format!("\n{}\n{again}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_begins_with_what_was_found_before() {
        let fuzz = root().join("tests/fuzz");
        for target in targets(&fuzz.join("fuzz_targets")).unwrap() {
            let corpus = fs::read_dir(fuzz.join("corpus").join(&target));
            assert!(corpus.is_ok_and(|mut files| files.next().is_some()), "{target}");
        }
    }

    #[test]
    fn targets_are_the_rust_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b.rs", "a.rs", "README.md"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(targets(dir.path()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn every_payload_decoder_has_a_target() {
        let targets = targets(&root().join("tests/fuzz/fuzz_targets")).unwrap();
        let decoders = fs::read_dir(root().join("gateway/wire/src/payload")).unwrap();
        for file in decoders {
            let file = file.unwrap().path();
            let decoder = file.file_stem().unwrap().to_str().unwrap();
            let target = format!("{DECODER}{decoder}");
            assert!(decoder == "mod" || targets.contains(&target), "no fuzz target {target}");
        }
    }

    #[test]
    fn every_target_is_built() {
        let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
        for target in targets(&root().join("tests/fuzz/fuzz_targets")).unwrap() {
            let named = format!("name = \"{target}\", path = \"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&named), "{target} is not in the manifest");
        }
    }

    #[test]
    fn a_target_runs_for_its_own_time_unless_told_otherwise() {
        let seconds = |asked, target| Args::all(asked).seconds(target);
        assert_eq!((seconds(None, "decode_sa"), seconds(None, "round_trip")), (2, 10));
        assert_eq!(seconds(None, "endpoint"), 50);
        assert_eq!((seconds(Some(7), "decode_sa"), seconds(Some(7), "endpoint")), (7, 7));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let text = targets(Path::new("/no/such")).unwrap_err().to_string();
        assert!(text.contains("cannot read /no/such"), "{text}");
    }
}
