//! Cookies for IKE_SA_INIT (RFC 7296 2.6), which the program and the daemon make and accept alike:
//! proof that an initiator receives what is sent to its address.
//!
//! `Cookie = version of the secret | MAC(secret, IPi | SPIi | porti)`. RFC 7296 proposes to have Ni
//! in it too. A program would have to find that behind two payloads of any length, and it would
//! prove no more: whoever sees a cookie on its way is at the address, or on the way to it, and can
//! have a cookie for any nonce. What can be done with one is bounded where requests with a cookie
//! are counted, by prefix and by address.
//!
//! The MAC is SipHash-2-4 (Aumasson and Bernstein), made for short inputs under a secret key. A
//! program can compute it in little time and without memory, which none of the hashes of IKE
//! allows; 64 bits are enough for what can only be guessed by asking, and is of no use two minutes
//! later.

use crate::Address;

/// What cookies are made with for a while.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CookieSecret {
    /// The key.
    pub key: [u64; 2],
    /// Which secret it is, as it stands in its cookies; 0 for none.
    pub version: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<CookieSecret>() == 24);

impl core::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CookieSecret").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Whom a cookie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Initiator {
    /// Its address.
    pub address: Address,
    /// Its SPI, the octets in network order.
    pub spi: u64,
    /// Its UDP port, the octets in network order.
    pub port: u64,
}

const _: () = assert!(size_of::<Initiator>() == 32);

impl Initiator {
    /// An initiator with this address, UDP port and SPI.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16, spi: [u8; 8]) -> Self {
        Self { address, spi: u64::from_ne_bytes(spi), port: (port as u64).to_be() }
    }
}

/// A cookie, as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cookie {
    /// The version of the secret, in network order.
    pub version: [u8; 4],
    /// The MAC.
    pub mac: [u8; 8],
}

impl Cookie {
    /// Octets of a cookie.
    pub const LENGTH: usize = 12;

    /// The octets.
    #[must_use]
    pub fn octets(self) -> [u8; Self::LENGTH] {
        let [a, b, c, d] = self.version;
        let [e, f, g, h, i, j, k, l] = self.mac;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

const _: () = assert!(size_of::<Cookie>() == Cookie::LENGTH);

impl CookieSecret {
    /// The cookie of an initiator.
    #[must_use]
    pub fn cookie(&self, initiator: &Initiator) -> Cookie {
        Cookie { version: self.version.to_be_bytes(), mac: self.mac(initiator).to_ne_bytes() }
    }

    /// The MAC in it, its octets in memory as in the message.
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self, initiator: &Initiator) -> u64 {
        let [high, low] = initiator.address.words();
        siphash(self.key, [high, low, initiator.spi, initiator.port]).to_le()
    }
}

/// SipHash-2-4 of words, each as its octets lie in memory.
#[inline(always)]
const fn siphash<const N: usize>([k0, k1]: [u64; 2], words: [u64; N]) -> u64 {
    let mut state = SipState(
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    );
    let mut rest = words.as_slice();
    while let [word, after @ ..] = rest {
        state = state.absorb(u64::from_le(*word));
        rest = after;
    }
    // Whole words leave nothing for the last one but the length.
    let SipState(a, b, c, d) = state.absorb(((N as u64) << 3) << 56);
    let SipState(a, b, c, d) = SipState(a, b, c ^ 0xff, d).round().round().round().round();
    a ^ b ^ c ^ d
}

/// The four words that SipHash stirs.
#[derive(Clone, Copy)]
struct SipState(u64, u64, u64, u64);

impl SipState {
    #[inline(always)]
    const fn absorb(self, word: u64) -> Self {
        let Self(a, b, c, d) = self;
        let Self(a, b, c, d) = Self(a, b, c, d ^ word).round().round();
        Self(a ^ word, b, c, d)
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self(a, b, c, d) = self;
        let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
        let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
        let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
        let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
        Self(a, b, c.rotate_left(32), d)
    }
}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for CookieSecret {}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::hash::Hasher as _;
    use std::collections::BTreeSet;
    use std::format;

    use super::*;

    const SECRET: CookieSecret = CookieSecret { key: [7, 8], version: 9, zero: 0 };

    /// The vectors of the reference implementation (`vectors_sip64` in its `vectors.h`) for inputs
    /// that are whole words.
    #[test]
    fn the_mac_is_siphash_2_4_as_published() {
        let word = |first: u8| u64::from_ne_bytes(core::array::from_fn(|i| first + i as u8));
        let key = [0, 8].map(|first| word(first).to_le());
        let macs = [siphash(key, []), siphash(key, [word(0)]), siphash(key, [word(0), word(8)])];
        let published = [
            [0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72],
            [0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93],
            [0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f],
        ];
        assert_eq!(macs.map(u64::to_le_bytes), published);
    }

    #[expect(deprecated, reason = "for hash tables there is a better one; this one has a name")]
    #[test]
    fn the_mac_of_an_initiator_is_that_of_another_implementation() {
        let address = Address::v6([0x20, 1, 0xd, 0xb8, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let spi = [0xa1, 2, 3, 4, 5, 6, 7, 8];
        let mut hasher = core::hash::SipHasher::new_with_keys(7, 8);
        hasher.write(&address.octets());
        hasher.write(&spi);
        hasher.write(&[0, 0, 0, 0, 0, 0, 0x11, 0x94]);
        let initiator = Initiator::new(address, 4500, spi);
        assert_eq!(SECRET.cookie(&initiator).mac, hasher.finish().to_le_bytes());
    }

    #[test]
    fn a_cookie_says_the_version_first() {
        let initiator = Initiator::new(Address::v4([192, 0, 2, 1]), 500, [3; 8]);
        let cookie = SECRET.cookie(&initiator).octets();
        assert_eq!(cookie[..4], [0, 0, 0, 9]);
        assert_eq!(format!("{SECRET:?}"), "CookieSecret { version: 9, .. }");
    }

    #[test]
    fn whatever_differs_makes_another_mac() {
        let mut macs = BTreeSet::new();
        let others = [SECRET, CookieSecret { key: [8, 7], ..SECRET }];
        for secret in others {
            for address in [Address::v4([192, 0, 2, 1]), Address::v4([192, 0, 2, 2])] {
                for port in [500, 501] {
                    for spi in [[3; 8], [3, 3, 3, 3, 3, 3, 3, 4]] {
                        macs.insert(secret.cookie(&Initiator::new(address, port, spi)).mac);
                    }
                }
            }
        }
        assert_eq!(macs.len(), 16);
    }
}
