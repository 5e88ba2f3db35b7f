//! The source of everything unpredictable: a seam, so that a simulation can be replayed.

use core::fmt;

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

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

/// Octets that [`SystemSource`] asks the operating system for at once: what some handshakes need.
const STOCK: usize = 512;

/// The operating system's generator, asked for many octets at once: a handshake needs a dozen small
/// numbers, and a system call for each costs more than they do. No octet is given twice or kept once
/// it is given. Private keys do not come from here: `ring` asks for each.
pub struct SystemSource {
    generator: SystemRandom,
    stock: Zeroizing<[u8; STOCK]>,
    /// How many of the stock's first octets are still to be given.
    left: usize,
}

impl Default for SystemSource {
    fn default() -> Self {
        Self { generator: SystemRandom::new(), stock: Zeroizing::new([0; STOCK]), left: 0 }
    }
}

impl fmt::Debug for SystemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemSource").field("left", &self.left).finish_non_exhaustive()
    }
}

fn ask(generator: &SystemRandom, buffer: &mut [u8]) -> Result<(), RandomFailed> {
    generator.fill(buffer).map_err(|ring::error::Unspecified| RandomFailed)
}

impl SystemSource {
    /// The next octets of the stock, if it has as many.
    fn take(&mut self, octets: usize) -> Option<&mut [u8]> {
        let left = self.left.checked_sub(octets)?;
        let taken = self.stock.get_mut(left..self.left)?;
        self.left = left;
        Some(taken)
    }
}

impl Random for SystemSource {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed> {
        if buffer.len() > STOCK / 4 {
            return ask(&self.generator, buffer);
        }
        if self.left < buffer.len() {
            // Nothing is given of a stock that is filled in part.
            self.left = 0;
            ask(&self.generator, &mut *self.stock)?;
            self.left = STOCK;
        }
        let taken = self.take(buffer.len()).ok_or(RandomFailed)?;
        buffer.copy_from_slice(taken);
        taken.zeroize();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_given_twice_and_nothing_is_left_of_what_was_given() {
        let mut source = SystemSource::default();
        let mut seen = BTreeSet::new();
        // Across several stocks, with an end that does not fit.
        for length in (8..=24).cycle().take(500) {
            let mut octets = [0; 24];
            let octets = octets.get_mut(..length).unwrap_or_default();
            source.fill(octets).unwrap();
            let first: [u8; 8] = octets.first_chunk().copied().unwrap();
            assert!(seen.insert(first), "{first:?} again");
            let given = source.stock.get(source.left..).unwrap();
            assert!(given.iter().all(|octet| *octet == 0), "{given:?} of {}", source.left);
        }
    }

    #[test]
    fn what_is_longer_than_the_stock_is_asked_for_by_itself() {
        let mut source = SystemSource::default();
        let mut octets = [0; 2 * STOCK];
        source.fill(&mut octets).unwrap();
        assert_eq!(source.left, 0);
        assert!(octets.chunks(32).all(|part| part.iter().any(|octet| *octet != 0)));
    }

    #[test]
    fn the_stock_is_not_shown() {
        let mut source = SystemSource::default();
        source.fill(&mut [0; 1]).unwrap();
        assert_eq!(format!("{source:?}"), "SystemSource { left: 511, .. }");
    }
}
