//! What the driver wants of the kernel: a seam, so that the loop runs in tests without one that
//! has ESP.

use std::collections::BTreeMap;
use std::future::Future;

use gateway_ike::io::{Done, KernelCommand, KernelError, KernelEvent};

use crate::control::CapabilityReport;
use crate::kernel::Notice;

/// Executes commands.
pub trait Kernel {
    /// Does what the command says, whole or not at all.
    ///
    /// # Errors
    /// The kernel refuses; nothing has changed.
    fn execute(
        &mut self,
        command: KernelCommand,
    ) -> impl Future<Output = Result<Done, KernelError>>;

    /// Finds out what has changed while events were lost.
    fn resync(&mut self) -> impl Future<Output = Vec<KernelEvent>>;

    /// What was probed at start, for status.
    fn capabilities(&self) -> Vec<CapabilityReport>;

    /// The counters of the eBPF programs by reason.
    fn counters(&mut self) -> BTreeMap<String, u64>;

    /// Takes away SAs, policies and routes; the guard against clear text stays.
    fn clean_up(&mut self) -> impl Future<Output = ()>;
}

/// Tells what the kernel says by itself.
pub trait Monitor {
    /// The next notice. Cancelling it loses nothing.
    fn next(&mut self) -> impl Future<Output = Notice>;
}
