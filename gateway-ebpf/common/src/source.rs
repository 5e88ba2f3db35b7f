//! From where ESP comes, and the events that tell of it.

use crate::{Address, SaKey};

/// From where a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// The outer source.
    pub address: Address,
    /// The source port of ESP in UDP; 0 for bare ESP.
    pub port: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<Source>() == 24);

impl Source {
    /// An address, with a port of UDP or 0.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port: port as u32, zero: 0 }
    }

    /// Whether it is the same. Word by word: a comparison of arrays may become a call, which the
    /// programs have nobody for.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        let ([high, low], [other_high, other_low]) = (self.address.words(), other.address.words());
        low == other_low && high == other_high && self.port == other.port
    }
}

/// What the daemon is told of ESP that has come in. Nobody has authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EspSeen {
    /// The SA, or what would be its name.
    pub sa: SaKey,
    /// From where.
    pub source: Source,
    /// [`EspSeen::MOVED`] or [`EspSeen::UNKNOWN`].
    pub kind: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<EspSeen>() == 56);

impl EspSeen {
    /// An inbound SA's has come from elsewhere than before.
    pub const MOVED: u32 = 1;
    /// We have no such SA: it was dropped.
    pub const UNKNOWN: u32 = 2;

    /// Such an event.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: u32, sa: SaKey, source: Source) -> Self {
        Self { sa, source, kind, zero: 0 }
    }

    /// Reads an event as it lies in the ring; `None`: it has another length.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; size_of::<Self>()] = octets.try_into().ok()?;
        let (words, _) = octets.as_chunks::<8>();
        let word = |at: usize| words.get(at).copied().map(u64::from_ne_bytes);
        let half = |at: usize| {
            let (halves, _) = octets.as_chunks::<4>();
            halves.get(at).copied().map(u32::from_ne_bytes)
        };
        let sa = SaKey {
            destination: Address::from_words([word(0)?, word(1)?]),
            spi: half(4)?,
            zero: 0,
        };
        let address = Address::from_words([word(3)?, word(4)?]);
        Some(Self::new(half(12)?, sa, Source { address, port: half(10)?, zero: 0 }))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn an_event_is_read_as_the_program_writes_it() {
        let sa = SaKey::new(Address::v4([192, 0, 2, 1]), [0xc1, 2, 3, 4]);
        let source = Source::new(Address::v6([7; 16]), 31_000);
        let event = EspSeen::new(EspSeen::UNKNOWN, sa, source);
        // SAFETY: it is repr(C), numbers only, without padding.
        let octets: [u8; 56] = unsafe { core::mem::transmute(event) };
        assert_eq!(EspSeen::from_octets(&octets), Some(event));
        assert_eq!(EspSeen::from_octets(&octets[1..]), None);
    }

    #[test]
    fn a_source_is_another_by_address_or_port() {
        let source = Source::new(Address::v4([192, 0, 2, 1]), 4500);
        assert!(source.is(source));
        assert!(!source.is(Source::new(Address::v4([192, 0, 2, 2]), 4500)));
        assert!(!source.is(Source::new(Address::v4([192, 0, 2, 1]), 4501)));
        let half = Address::from_words([1, source.address.words()[1]]);
        assert!(!source.is(Source::new(half, 4500)));
    }
}
