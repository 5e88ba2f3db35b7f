//! Whose the pin directory is. A gateway holds it as long as it runs, `gateway guard` and `gateway
//! unguard` while they work: nobody puts other programs in the place of those of another.

use core::time::Duration;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::attach::pin_error;
use super::check_capabilities;
use super::error::BpfError;
use super::pins::{is_empty, make_pin_dir};

/// Between two looks whether the directory is free.
const PAUSE: Duration = Duration::from_millis(20);

/// The pin directory is ours until this is dropped. It is an advisory lock on the directory itself,
/// so that it ends with the process, whichever way that ends.
#[derive(Debug)]
pub struct Claim {
    is_new: bool,
    _lock: Flock<File>,
}

impl Claim {
    /// Takes the pin directory, which is made if it is not there. Who has it now is waited for at
    /// most so long.
    ///
    /// # Errors
    /// [`BpfError::Claimed`] if somebody keeps it; or it cannot be made.
    pub async fn take(pin_dir: &Path, patience: Duration) -> Result<Self, BpfError> {
        check_capabilities()?;
        let mut waited = Duration::ZERO;
        loop {
            // Only where there is none: who removes it now, removes the directory itself last.
            if !pin_dir.exists() {
                make_pin_dir(pin_dir)?;
            }
            match Self::of_existing(pin_dir) {
                Ok(claim) => return Ok(claim),
                Err(error) if waited < patience && is_passing(&error) => {
                    tokio::time::sleep(PAUSE).await;
                    waited = waited.saturating_add(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the pin directory if it is there and nobody has it.
    ///
    /// # Errors
    /// [`BpfError::Claimed`] if somebody has it; or it cannot be opened.
    pub fn of_existing(pin_dir: &Path) -> Result<Self, BpfError> {
        let failed = |error| pin_error(pin_dir, error);
        let directory = File::open(pin_dir).map_err(failed)?;
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| {
            let claimed = errno == Errno::EWOULDBLOCK;
            if claimed { BpfError::Claimed(pin_dir.to_owned()) } else { failed(errno.into()) }
        })?;
        // Whoever had it may have removed it, and somebody else made another.
        let is_the_same = match (lock.metadata(), fs::metadata(pin_dir)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            (Ok(_) | Err(_), _) => false,
        };
        if !is_the_same {
            return Err(BpfError::Claimed(pin_dir.to_owned()));
        }
        Ok(Self { is_new: is_empty(pin_dir), _lock: lock })
    }

    /// Whether nothing was pinned there when it was taken.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Whether it may be otherwise in a moment: somebody has the directory, or has just removed it.
fn is_passing(error: &BpfError) -> bool {
    matches!(error, BpfError::Claimed(_))
        || matches!(error, BpfError::Pin { error, .. } if error.kind() == io::ErrorKind::NotFound)
}
