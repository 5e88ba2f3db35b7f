//! What the programs log, for the logger of this process.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::error::BpfError;

/// What the programs log. Readable when there is something.
pub struct BpfLog {
    readable: OwnedFd,
    flush: Box<dyn FnMut() + Send>,
}

impl AsFd for BpfLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl BpfLog {
    /// Hands what is there to the logger of the crate `log`.
    pub fn flush(&mut self) {
        (self.flush)();
    }

    /// Does so a few times a second, for ever: it is for debugging only.
    pub(in crate::kernel) async fn follow(mut self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            self.flush();
        }
    }
}

/// Begins to collect what the programs log.
pub(super) fn logger(ebpf: &mut Ebpf) -> Result<BpfLog, BpfError> {
    const WHAT: &str = "the programs' log cannot be read";
    let mut logger = EbpfLogger::init(ebpf).map_err(|error| BpfError::kernel(WHAT, &error))?;
    let readable = logger.as_fd().try_clone_to_owned();
    let readable = readable.map_err(|error| BpfError::kernel(WHAT, &error))?;
    Ok(BpfLog { readable, flush: Box::new(move || logger.flush()) })
}
