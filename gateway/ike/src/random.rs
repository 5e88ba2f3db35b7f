//! The source of everything unpredictable: a seam, so that a simulation can be replayed.

use ring::rand::{SecureRandom as _, SystemRandom};

/// The operating system gave no randomness. Nothing that needs some may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random octets")]
pub struct RandomFailed;

/// Fills buffers with unpredictable octets: SPIs, nonces, IVs, cookies, jitter.
pub trait Random: Send {
    /// Fills the whole buffer.
    ///
    /// # Errors
    /// [`RandomFailed`]: the buffer's content must not be used.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed>;
}

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemSource(SystemRandom);

impl Default for SystemSource {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Random for SystemSource {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed> {
        self.0.fill(buffer).map_err(|ring::error::Unspecified| RandomFailed)
    }
}
