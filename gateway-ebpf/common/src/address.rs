//! Addresses, in the form that keys of maps have them.

/// An IPv6 address, or an IPv4 address mapped into one (RFC 4291 2.5.5.2), so that one map serves
/// both families. The octets are in network order; they are kept as two words, since BPF handles
/// octets one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Address([u64; 2]);

/// The family of a packet or of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl Address {
    /// The bits that an IPv4 prefix grows by when it is mapped.
    pub const MAPPED_BITS: u8 = 96;

    /// The address `::`.
    pub const ZERO: Self = Self([0; 2]);

    /// Maps an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self([0, (0xffff_0000_0000 | u32::from_be_bytes(octets) as u64).to_be()])
    }

    /// An IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(octets);
        Self([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
    }

    /// An IPv6 address from two words whose octets are in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The address as two words whose octets are in network order; the last four of them are an
    /// IPv4 address that is mapped.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    /// The octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [high, low] = self.0;
        ((u64::from_be(high) as u128) << 64 | u64::from_be(low) as u128).to_be_bytes()
    }

    /// The address with all but its first `length` bits zero, for a length of at most 128. Without
    /// a branch, since the kernel's verifier follows each.
    #[inline(always)]
    #[must_use]
    pub const fn masked(self, length: u8) -> Self {
        let length = length as u64;
        // Within the half in which the prefix ends.
        let ones = (u64::MAX << 1) << (63 ^ (length & 63));
        let is_beyond_first_half = ((length >> 6) | (length >> 7)) & 1;
        let beyond = 0_u64.wrapping_sub(is_beyond_first_half);
        let all = 0_u64.wrapping_sub((length >> 7) & 1);
        let [high, low] = self.0;
        Self([high & (ones | beyond).to_be(), low & ((ones & beyond) | all).to_be()])
    }
}

#[cfg(feature = "user")]
// SAFETY: it is two numbers, without padding.
unsafe impl aya::Pod for Address {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_octets() {
        let octets = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(Address::v6(octets).octets(), octets);
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(Address::v4([192, 0, 2, 1]).octets(), mapped);
        assert_eq!(Address::v6(mapped), Address::v4([192, 0, 2, 1]));
    }

    #[test]
    fn a_mask_keeps_exactly_the_first_bits() {
        let all = Address::v6([0xff; 16]);
        assert_eq!(all.masked(0), Address::ZERO);
        assert_eq!(all.masked(128), all);
        for length in 0..=128_u8 {
            let masked = u128::from_be_bytes(all.masked(length).octets());
            assert_eq!(masked.leading_ones(), u32::from(length), "length {length}");
            assert_eq!(masked.count_ones(), u32::from(length), "length {length}");
        }
    }

    #[test]
    fn a_mapped_address_is_masked_within_its_last_32_bits() {
        assert_eq!(Address::v4([10, 1, 2, 3]).masked(96 + 8), Address::v4([10, 0, 0, 0]));
        assert_eq!(Address::v4([10, 1, 2, 3]).masked(96), Address::v4([0; 4]));
    }
}
