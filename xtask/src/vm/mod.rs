//! `cargo xtask vm`: runs a command in a throw-away virtual machine with a stock Debian kernel.
//!
//! The guest sees this machine's root file system, read-only under an overlay that lives in its
//! memory. So what is installed and built here runs there, at the same paths, as root.

mod accel;
mod cpio;
mod image;
mod kernel;
mod modules;
mod package;
mod qemu;
mod share;

use std::env;
use std::fmt::Write as _;
use std::io::{Write as _, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

pub(crate) use self::accel::Accel;
pub(crate) use self::qemu::{Outcome, Stream};

use self::qemu::{Guest, Share};
use crate::error::{Context as _, Error, Result};
use crate::progress::say;
use crate::shell::{join, quote};

/// The exit status when the time limit passed, as coreutils' timeout has it.
const TIMED_OUT: u8 = 124;
/// The exit status when the guest failed before the command ended.
const DIED: u8 = 125;

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm -- uname -r
  cargo xtask vm -k 6.1 -- sh -c 'modprobe esp4 && ip xfrm state'
  cargo xtask vm --rw /tmp/captures --timeout 60 -- tcpdump -c 1 -i lo -w /tmp/captures/lo.pcap
  cargo xtask vm --env RUST_LOG=debug -- target/debug/gateway --help

The exit status is the command's own; 124 if the time limit passed, 125 if the guest failed.
Kernels are kept in $GATEWAY_CACHE, or gateway in the user's cache directory; delete
kernels/ there to fetch newer ones.")]
pub(crate) struct Args {
    #[command(flatten)]
    machine: Machine,

    /// Share this directory writable, at the same path (may be repeated).
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,

    /// Set a variable for the command; without a value, pass on our own (may be repeated).
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Print the kernel's log at the end.
    #[arg(short, long)]
    verbose: bool,

    /// Only fetch and unpack the kernel.
    #[arg(long, conflicts_with = "command")]
    fetch: bool,

    /// The command and its arguments.
    #[arg(last = true, required_unless_present = "fetch")]
    command: Vec<String>,
}

/// What the guest is made of.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Machine {
    /// Debian kernel series, such as 6.1 or 6.12.
    #[arg(short, long, value_name = "SERIES", default_value = "6.12")]
    pub(crate) kernel: String,

    /// Memory, such as 512M or 2G.
    #[arg(long = "mem", value_name = "SIZE", default_value = "2G")]
    memory: String,

    /// Number of processors; by default one under emulation, else this machine's, at most two.
    #[arg(long, value_name = "N")]
    smp: Option<u32>,

    /// Seconds until the guest is stopped.
    #[arg(long, value_name = "S", default_value = "600")]
    timeout: u64,

    /// What runs the guest; by default KVM if it works here, else emulation.
    #[arg(long, value_name = "HOW")]
    accel: Option<Accel>,
}

impl Machine {
    /// A machine with a kernel of this series, so many processors, and room for the tests.
    pub(crate) fn with_kernel(series: &str, smp: Option<u32>, timeout: Duration) -> Self {
        Self {
            kernel: series.to_owned(),
            memory: "2G".to_owned(),
            smp,
            timeout: timeout.as_secs(),
            accel: None,
        }
    }
}

/// What to run in a guest.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// The command and its arguments.
    pub(crate) command: Vec<String>,
    /// Variables to set.
    pub(crate) env: Vec<(String, String)>,
    /// Directories that the guest may write to.
    pub(crate) writable: Vec<PathBuf>,
    /// Print the kernel's log at the end.
    pub(crate) verbose: bool,
}

/// Runs the command of `cargo xtask vm`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.fetch {
        let kernel = prepare(&args.machine)?.0;
        println!("{}", kernel.tree.display());
        return Ok(ExitCode::SUCCESS);
    }
    let env = args.env.iter().filter_map(|setting| match setting.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => env::var(setting).ok().map(|value| (setting.clone(), value)),
    });
    let job = Job {
        command: args.command.clone(),
        env: env.collect(),
        writable: args.rw.clone(),
        verbose: args.verbose,
    };
    let outcome = execute(&args.machine, &job, &mut pass_on)?;
    Ok(exit_code(&outcome, &args.machine))
}

/// Writes what the guest prints to our own streams.
pub(crate) fn pass_on(stream: Stream, data: &[u8]) {
    let written = match stream {
        Stream::Out => stdout().write_all(data).and_then(|()| stdout().flush()),
        Stream::Err => stderr().write_all(data),
    };
    // Whoever read our output has gone; the command goes on all the same.
    drop(written);
}

/// The exit status that stands for an outcome, with a word about a failed guest.
pub(crate) fn exit_code(outcome: &Outcome, machine: &Machine) -> ExitCode {
    match outcome {
        Outcome::Exited(code) => ExitCode::from(*code),
        Outcome::TimedOut(log) => {
            eprintln!("{log}");
            say(format!("the time limit of {} s passed", machine.timeout));
            ExitCode::from(TIMED_OUT)
        }
        Outcome::Died(log) => {
            eprintln!("{log}");
            say("the guest ended before the command did; above is the end of its kernel's log");
            ExitCode::from(DIED)
        }
    }
}

/// Boots a machine, runs a job, and passes its output on as it comes.
pub(crate) fn execute(
    machine: &Machine,
    job: &Job,
    on_output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Outcome> {
    let (kernel, share) = prepare(machine)?;
    let accel = match machine.accel {
        Some(accel) => accel,
        None => accel::choose(&kernel)?,
    };
    let writable = job
        .writable
        .iter()
        .map(|dir| dir.canonicalize().context(|| format!("cannot share {}", dir.display())))
        .collect::<Result<Vec<_>>>()?;
    let processors = machine.smp.unwrap_or_else(|| match accel {
        Accel::Kvm if thread::available_parallelism().is_ok_and(|here| here.get() > 1) => 2,
        Accel::Kvm => 1,
        // More would share its one thread.
        Accel::Tcg => 1,
    });
    let guest = Guest {
        kernel: &kernel,
        accel,
        share,
        job: &script(job)?,
        writable: &writable,
        memory: &machine.memory,
        processors,
        timeout: Duration::from_secs(machine.timeout),
        verbose: job.verbose,
    };
    qemu::run(&guest, on_output)
}

/// Gets all that a machine is made of, so that machines can start side by side.
pub(crate) fn fetch(machine: &Machine) -> Result {
    let (kernel, _) = prepare(machine)?;
    if machine.accel.is_none() {
        accel::choose(&kernel)?;
    }
    Ok(())
}

/// The kernel, and how it will see our files.
fn prepare(machine: &Machine) -> Result<(kernel::Kernel, Share)> {
    if env::consts::ARCH != "x86_64" {
        return Err(Error::new("the virtual machine needs an x86-64 host"));
    }
    // The cloud kernel is half the size and boots faster, but has no 9p.
    let (share, flavour) = match share::daemon() {
        Some(_) => (Share::Virtiofs, "cloud-amd64"),
        None => (Share::NineP, "amd64"),
    };
    Ok((kernel::get(&machine.kernel, flavour)?, share))
}

/// The shell script that the guest runs.
fn script(job: &Job) -> Result<String> {
    let cwd = env::current_dir().context(|| "no current directory")?;
    let own = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut script = String::new();
    let base = [
        ("PATH".to_owned(), own("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")),
        ("HOME".to_owned(), own("HOME", "/root")),
        ("TERM".to_owned(), "dumb".to_owned()),
        ("GATEWAY_VM".to_owned(), "1".to_owned()),
    ];
    for (name, value) in base.iter().chain(&job.env) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            return Err(Error::new(format!("{name:?} is not the name of a variable")));
        }
        writeln!(script, "export {name}={}", quote(value)).context(|| "cannot write the job")?;
    }
    writeln!(script, "cd {} || exit {DIED}", quote(&cwd.to_string_lossy()))
        .and_then(|()| writeln!(script, "exec {}", join(&job.command)))
        .context(|| "cannot write the job")?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(command: &[&str], env: &[(&str, &str)]) -> Job {
        Job {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: env.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect(),
            ..Job::default()
        }
    }

    #[test]
    fn the_job_keeps_arguments_and_variables_whole() {
        let script = script(&job(&["printf", "%s|%s", "a b", "it's"], &[("X", "1 2")])).unwrap();
        let script =
            format!("{script}\n").replace("exec ", "printf '%s|' \"$X\" $GATEWAY_VM; exec ");
        let out = crate::shell::capture(std::process::Command::new("sh").args(["-c", &script]));
        assert_eq!(out.unwrap(), "1 2|1|a b|it's");
    }

    #[test]
    fn a_variable_with_a_bad_name_is_refused() {
        for name in ["", "A B", "A;reboot", "A-B"] {
            assert!(script(&job(&["true"], &[(name, "x")])).is_err());
        }
    }
}
