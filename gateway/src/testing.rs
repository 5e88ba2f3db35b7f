//! For unit tests: network namespaces, and lines of the log.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, unshare};

/// Says so when a test cannot run here, and gives `false`.
pub(crate) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

/// Gives the calling thread a network namespace of its own, with the loopback interface up. The
/// thread must not be used for anything else afterwards.
pub(crate) fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A runtime of one thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a function gives, and how many lines it has logged in this thread.
pub(crate) fn lines_of<T>(act: impl FnOnce() -> T) -> (T, usize) {
    struct Lines(Arc<AtomicUsize>);
    impl io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let ends = octets.iter().filter(|octet| **octet == b'\n');
            self.0.fetch_add(ends.count(), Ordering::Relaxed);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lines);
    let log = tracing_subscriber::fmt().with_writer(move || Lines(Arc::clone(&counted))).finish();
    let given = tracing::subscriber::with_default(log, act);
    (given, lines.load(Ordering::Relaxed))
}
