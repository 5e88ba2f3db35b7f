//! The rules as the programs see them: a tuple-space search.
//!
//! Rules that select by prefixes of the same lengths, and that all name a protocol or all name
//! none, form a *tuple*. One hash map holds every rule under its masked addresses; a packet is
//! masked once for each tuple in use and looked up. So the cost grows with the number of distinct
//! tuples (a handful in practice), not with the number of rules.
//!
//! The same hash map also holds the list of tuples, one for each family, under keys of their own.
//! So a whole generation of rules is one map, and the outer slot that names it is changed in one
//! write: a packet sees the old rules or the new ones, never a mixture.

use crate::{Address, Family};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// It must be encrypted.
    Protect = 1,
    /// It goes in the clear.
    Bypass = 2,
    /// It is dropped.
    Discard = 3,
}

impl Action {
    /// The action with this number.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Protect),
            2 => Some(Self::Bypass),
            3 => Some(Self::Discard),
            _ => None,
        }
    }

    /// Its number.
    #[expect(clippy::as_conversions, reason = "the discriminant of a repr(u32) enumeration")]
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// What is found under a [`RuleKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// An [`Entry`] of rules for any protocol.
    AnyProtocol = 0,
    /// An [`Entry`] of rules for one protocol.
    OneProtocol = 1,
    /// The [`Tuples`] of IPv4 rules.
    TuplesV4 = 4,
    /// The [`Tuples`] of IPv6 rules.
    TuplesV6 = 6,
}

impl KeyKind {
    /// Its number.
    #[expect(clippy::as_conversions, reason = "the discriminant of a repr(u8) enumeration")]
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The key of a generation's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RuleKey {
    /// The local prefix, the other bits zero.
    pub local: Address,
    /// The remote prefix, the other bits zero.
    pub remote: Address,
    /// The bits of the local prefix; of a mapped IPv4 prefix, 96 more.
    pub local_length: u8,
    /// The bits of the remote prefix.
    pub remote_length: u8,
    /// The IP protocol; 0 with a kind that has none.
    pub protocol: u8,
    /// A [`KeyKind`].
    pub kind: u8,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<RuleKey>() == 40);

impl RuleKey {
    /// The key of the tuples of a family.
    #[inline(always)]
    #[must_use]
    pub const fn tuples(family: Family) -> Self {
        let kind = match family {
            Family::V4 => KeyKind::TuplesV4,
            Family::V6 => KeyKind::TuplesV6,
        };
        Self {
            local: Address::ZERO,
            remote: Address::ZERO,
            local_length: 0,
            remote_length: 0,
            protocol: 0,
            kind: kind.number(),
            zero: 0,
        }
    }

    /// The key of the rules of one tuple that may match these addresses and this protocol.
    #[inline(always)]
    #[must_use]
    pub fn entry(tuple: &Tuple, local: Address, remote: Address, protocol: u8) -> Self {
        Self {
            local: local.masked(tuple.local_length),
            remote: remote.masked(tuple.remote_length),
            local_length: tuple.local_length,
            remote_length: tuple.remote_length,
            // All of it or nothing, without a branch: there would be one for each tuple.
            protocol: protocol & 0_u8.wrapping_sub(tuple.one_protocol),
            kind: tuple.one_protocol,
            zero: 0,
        }
    }
}

const _: () = assert!(KeyKind::AnyProtocol.number() == 0 && KeyKind::OneProtocol.number() == 1);

/// One combination of prefix lengths that rules use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tuple {
    /// The precedence of the best rule in it.
    pub best: u32,
    /// The bits of the local prefix; of a mapped IPv4 prefix, 96 more.
    pub local_length: u8,
    /// The bits of the remote prefix.
    pub remote_length: u8,
    /// 1 if the rules name a protocol, else 0: the number of their [`KeyKind`].
    pub one_protocol: u8,
    /// Always zero.
    pub zero: u8,
}

const _: () = assert!(size_of::<Tuple>() == 8);

/// The tuples of a family, the one with the best rule first: once a rule is found, a tuple whose
/// best is worse ends the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tuples {
    /// How many are in use.
    pub count: u32,
    /// Always zero.
    pub zero: u32,
    /// The tuples.
    pub tuples: [Tuple; Self::MAX],
}

impl Tuples {
    /// The most tuples of one family.
    pub const MAX: usize = 40;

    /// None.
    pub const EMPTY: Self = Self {
        count: 0,
        zero: 0,
        tuples: [Tuple { best: 0, local_length: 0, remote_length: 0, one_protocol: 0, zero: 0 };
            Self::MAX],
    };
}

/// A rule, without what its key says of it. Ranges are inclusive; the full range also matches a
/// packet without ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Alternative {
    /// The lowest local port.
    pub local_low: u16,
    /// The highest local port.
    pub local_high: u16,
    /// The lowest remote port.
    pub remote_low: u16,
    /// The highest remote port.
    pub remote_high: u16,
    /// Lower wins; no two rules of a generation have the same, and none has [`u32::MAX`].
    pub precedence: u32,
    /// The rule's identifier.
    pub rule: u32,
    /// The number of an [`Action`].
    pub action: u32,
}

const _: () = assert!(size_of::<Alternative>() == 20);

/// The rules that differ only by ports, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Entry {
    /// How many are in use.
    pub count: u32,
    /// Always zero.
    pub zero: u32,
    /// The rules.
    pub alternatives: [Alternative; Self::MAX],
}

impl Entry {
    /// The most rules that differ only by ports.
    pub const MAX: usize = 16;

    /// None.
    pub const EMPTY: Self = Self {
        count: 0,
        zero: 0,
        alternatives: [Alternative {
            local_low: 0,
            local_high: 0,
            remote_low: 0,
            remote_high: 0,
            precedence: 0,
            rule: 0,
            action: 0,
        }; Self::MAX],
    };
}

// They are values of one map.
const _: () = assert!(size_of::<Entry>() == 328 && size_of::<Tuples>() == size_of::<Entry>());
const _: () = assert!(align_of::<Tuples>() <= align_of::<Entry>());

#[cfg(feature = "user")]
// SAFETY: it is repr(C), octets only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for RuleKey {}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for Entry {}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for Tuples {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_action_is_refused() {
        for action in [Action::Protect, Action::Bypass, Action::Discard] {
            assert_eq!(Action::new(action.number()), Some(action));
        }
        assert_eq!(Action::new(0), None);
        assert_eq!(Action::new(4), None);
    }
}
