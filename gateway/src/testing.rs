//! For unit tests: network namespaces.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::process::Command;

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
