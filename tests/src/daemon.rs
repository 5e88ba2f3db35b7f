//! A long-running process in a namespace, with its log in a file.

use core::time::Duration;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context as _, Error, Result};
use crate::namespace::Namespace;

/// A running daemon. Dropping it kills it; in a failing test it shows the end of its log first.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: usize,
}

/// Calls `check` until it gives a value.
///
/// # Errors
/// It gives none within the time, or fails; `what` was waited for.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            return Err(Error::new(format!("{what}: not within {} s", limit.as_secs())));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

impl Daemon {
    /// Starts a command made by [`Namespace::command`] with its output in a log file of that
    /// namespace's directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(namespace: &Namespace, name: &str, command: &mut Command) -> Result<Self> {
        let log = namespace.directory().join(format!("{name}.log"));
        let name = format!("{name} in {}", namespace.name());
        let file = File::options().create(true).append(true).open(&log).context(log.display())?;
        let log_start = file.metadata().context(log.display())?.len();
        let log_start = usize::try_from(log_start).context(log.display())?;
        let both = file.try_clone().context(log.display())?;
        let child =
            command.stdin(Stdio::null()).stdout(file).stderr(both).spawn().context(&name)?;
        Ok(Self { name, child, log, log_start })
    }

    /// What it is, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its log is.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its log so far. What earlier daemons of the name wrote is in the file before it.
    #[must_use]
    pub fn log(&self) -> String {
        let octets = fs::read(&self.log).unwrap_or_default();
        let own = octets.get(self.log_start..).unwrap_or_default();
        String::from_utf8_lossy(own).into_owned()
    }

    /// Waits until a line with this text is in the log after the first `skip` octets, and gives
    /// the line.
    ///
    /// # Errors
    /// There is none within the time, or the daemon ends first.
    pub fn wait_for_log(&mut self, text: &str, skip: usize, limit: Duration) -> Result<String> {
        let what = format!("`{text}` in the log of {}", self.name);
        wait_for(&what, limit, || {
            // Ask before reading: its last words count.
            let ended = self.child.try_wait().context(&what)?;
            let log = self.log();
            let new = log.get(skip..).unwrap_or_default();
            let line = new.lines().find(|line| line.contains(text)).map(str::to_owned);
            match (line, ended) {
                (None, Some(status)) => {
                    Err(Error::new(format!("{what}: it ended with {status}:\n{}", tail(&log))))
                }
                (line, _) => Ok(line),
            }
        })
        .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.log()))))
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> Result {
        if !self.is_running() {
            return Err(Error::new(format!("{} has ended", self.name)));
        }
        let id = i32::try_from(self.child.id()).context("a process number")?;
        kill(Pid::from_raw(id), signal).context(format_args!("{signal} to {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within the time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, limit, || self.child.try_wait().context(&what))
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.log()))))
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It has ended before, or does not end within the time.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- {}:\n{}", self.name, tail(&self.log()));
        }
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}
