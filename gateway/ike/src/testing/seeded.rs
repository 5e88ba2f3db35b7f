//! Randomness from a seed, and a key exchange that costs nothing.

use zeroize::Zeroizing;

use crate::algorithms::{Group, Prf};
use crate::crypto::key_exchange::{Agreed, KeyExchange, KeyExchangeError, PendingKeyExchange};
use crate::crypto::prf::prf;
use crate::random::{Random, RandomFailed};

/// SplitMix64: the same seed gives the same octets. Not for secrets.
#[derive(Debug, Clone)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// A generator for a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// As [`Choices::below`].
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// As [`Choices::percent`].
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What decides where a test has a choice: a seed, or the input of a fuzzer.
pub trait Choices {
    /// A number below `limit`; 0 for a limit of 0.
    fn below(&mut self, limit: u64) -> u64;

    /// True in `percent` of 100 cases.
    fn percent(&mut self, percent: u64) -> bool;
}

impl Choices for SeededRandom {
    fn below(&mut self, limit: u64) -> u64 {
        Self::below(self, limit)
    }

    fn percent(&mut self, percent: u64) -> bool {
        Self::percent(self, percent)
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed> {
        for chunk in buffer.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// Both ends get the hash of both values: no secret, but equal, and fast. The values have the
/// lengths of the real ones.
#[derive(Debug)]
pub struct FastKeyExchange(std::sync::atomic::AtomicU64);

impl FastKeyExchange {
    /// Values follow from the seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }

    /// What both ends get from the value of the initiator and that of the responder.
    #[must_use]
    pub fn secret(initiator: &[u8], responder: &[u8]) -> Zeroizing<Vec<u8>> {
        prf(Prf::HmacSha256, b"fast", &[initiator, responder])
    }

    fn value(&self, length: usize) -> Result<Vec<u8>, KeyExchangeError> {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut random = SeededRandom::new(count ^ 0x5eed);
        let mut value = vec![0; length];
        random.fill(&mut value).map_err(|RandomFailed| KeyExchangeError::RandomFailed)?;
        Ok(value)
    }
}

struct Pending {
    group: Group,
    public: Vec<u8>,
}

impl KeyExchange for FastKeyExchange {
    fn generate(&self, group: Group) -> Result<Box<dyn PendingKeyExchange>, KeyExchangeError> {
        Ok(Box::new(Pending { group, public: self.value(group.public_len())? }))
    }

    fn respond(&self, group: Group, initiator: &[u8]) -> Result<Agreed, KeyExchangeError> {
        if initiator.len() != group.public_len() {
            return Err(KeyExchangeError::InvalidPublicValue);
        }
        let value = self.value(group.answer_len())?;
        Ok(Agreed { secret: Self::secret(initiator, &value), value })
    }
}

impl PendingKeyExchange for Pending {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        if peer.len() != self.group.answer_len() {
            return Err(KeyExchangeError::InvalidPublicValue);
        }
        Ok(FastKeyExchange::secret(&self.public, peer))
    }
}
