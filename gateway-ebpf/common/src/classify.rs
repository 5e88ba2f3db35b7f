//! Finds the rule of a packet: run by the programs, and by the daemon to explain a decision.

use crate::{Action, Address, Alternative, Entry, Family, RuleKey, Tuples};

/// What rules select packets by. Every octet of it is set: a program hands it from one function to
/// another by reference, and the kernel checks that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The address on our side.
    pub local: Address,
    /// The address on the peer's side.
    pub remote: Address,
    /// What the ports can be.
    pub ports: Ports,
    /// The family of both addresses.
    pub family: Family,
    /// The IP protocol, after the extension headers.
    pub protocol: u8,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<Flow>() == 48);

/// What is known of the ports of a packet: ranges, inclusive, in which they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ports {
    /// The lowest that the local port can be.
    local_low: u16,
    /// The highest.
    local_high: u16,
    /// The lowest that the remote port can be.
    remote_low: u16,
    /// The highest.
    remote_high: u16,
    /// 1 if there are ports, but not to be seen; else 0.
    hidden: u16,
}

impl Ports {
    /// The protocol has none: only a rule for every port matches.
    pub const NONE: Self = Self {
        local_low: 0,
        local_high: u16::MAX,
        remote_low: 0,
        remote_high: u16::MAX,
        hidden: 0,
    };

    /// There are ports, but this packet does not show them: a fragment other than the first, or a
    /// first one that ends before them.
    ///
    /// A rule for some ports then matches if it protects or discards, so that nothing of a
    /// selected flow leaks, and does not match if it bypasses.
    pub const HIDDEN: Self = Self { hidden: 1, ..Self::NONE };

    /// They are known.
    #[inline(always)]
    #[must_use]
    pub const fn known(local: u16, remote: u16) -> Self {
        Self {
            local_low: local,
            local_high: local,
            remote_low: remote,
            remote_high: remote,
            hidden: 0,
        }
    }
}

/// The rule that decides about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its identifier.
    pub rule: u32,
    /// The number of an [`Action`].
    pub action: u32,
    /// Its precedence within the generation.
    pub precedence: u32,
}

/// A generation of rules.
pub trait Rules {
    /// The tuples of a family.
    fn tuples(&self, family: Family) -> Option<&Tuples>;

    /// The first rule under a key that matches the ports of a flow.
    fn find(&self, key: &RuleKey, flow: &Flow) -> Option<Match>;
}

/// The matching rule with the lowest precedence, over all tuples.
#[inline(always)]
#[must_use]
pub fn classify<R: Rules>(rules: &R, flow: &Flow) -> Option<Match> {
    let tuples = rules.tuples(flow.family)?;
    // Plain numbers: an Option would be one more thing that the verifier tells ways apart by.
    let mut best = Match { rule: 0, action: 0, precedence: u32::MAX };
    // The constant bound is what lets the kernel's verifier see the end of the loop.
    for (place, tuple) in (0_u32..).zip(&tuples.tuples) {
        if place >= tuples.count || best.precedence <= tuple.best {
            break;
        }
        let key = RuleKey::entry(tuple, flow.local, flow.remote, flow.protocol);
        if let Some(found) = rules.find(&key, flow)
            && found.precedence < best.precedence
        {
            best = found;
        }
    }
    (best.precedence != u32::MAX).then_some(best)
}

impl Entry {
    /// The place of the first rule that matches the ports of a flow.
    #[inline(always)]
    #[must_use]
    pub fn first(&self, flow: &Flow) -> Option<u32> {
        for (place, alternative) in (0_u32..).zip(&self.alternatives) {
            if place >= self.count {
                break;
            }
            if alternative.matches(&flow.ports) {
                return Some(place);
            }
        }
        None
    }

    /// The rule at a place.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, place: u32) -> Option<Match> {
        let place = usize::try_from(place).ok()?;
        self.alternatives.get(place).map(Match::from)
    }
}

impl Alternative {
    /// Whether it matches a packet of which this is known.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, ports: &Ports) -> bool {
        let margin = |low: u16, high: u16| i32::from(high).wrapping_sub(i32::from(low));
        // One sign for all four comparisons: the verifier follows every way through a program, and
        // with a branch for each they were most of what there is to follow.
        let margins = margin(self.local_low, ports.local_low)
            | margin(ports.local_high, self.local_high)
            | margin(self.remote_low, ports.remote_low)
            | margin(ports.remote_high, self.remote_high);
        let certain = margins >= 0;
        certain || (ports.hidden != 0 && self.action != Action::Bypass.number())
    }
}

impl From<&Alternative> for Match {
    #[inline(always)]
    fn from(alternative: &Alternative) -> Self {
        let Alternative { rule, action, precedence, .. } = *alternative;
        Self { rule, action, precedence }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use super::*;
    use crate::Tuple;

    #[derive(Default)]
    struct Table {
        v4: Option<Tuples>,
        v6: Option<Tuples>,
        entries: HashMap<RuleKey, Entry>,
    }

    impl Rules for Table {
        fn tuples(&self, family: Family) -> Option<&Tuples> {
            match family {
                Family::V4 => self.v4.as_ref(),
                Family::V6 => self.v6.as_ref(),
            }
        }

        fn find(&self, key: &RuleKey, flow: &Flow) -> Option<Match> {
            let entry = self.entries.get(key)?;
            entry.at(entry.first(flow)?)
        }
    }

    fn rule(precedence: u32, action: Action, remote: std::ops::RangeInclusive<u16>) -> Alternative {
        Alternative {
            local_low: 0,
            local_high: u16::MAX,
            remote_low: *remote.start(),
            remote_high: *remote.end(),
            precedence,
            rule: 100_u32.saturating_add(precedence),
            action: action.number(),
        }
    }

    fn flow(remote: [u8; 4], ports: Ports) -> Flow {
        Flow {
            local: Address::v4([10, 0, 0, 1]),
            remote: Address::v4(remote),
            ports,
            family: Family::V4,
            protocol: 6,
            zero: 0,
        }
    }

    /// Bypass 22 to 10.1.0.0/16 (0), protect 10.1.0.0/16 (1), discard 10.0.0.0/8 protocol 6 (2).
    fn table() -> Table {
        let mut table = Table::default();
        let narrow = Tuple { best: 0, local_length: 96, remote_length: 112, ..Tuple::default() };
        let wide = Tuple {
            best: 2,
            local_length: 96,
            remote_length: 104,
            one_protocol: 1,
            ..Tuple::default()
        };
        let mut tuples = Tuples { count: 2, ..Tuples::EMPTY };
        tuples.tuples[0] = narrow;
        tuples.tuples[1] = wide;
        table.v4 = Some(tuples);
        let local = Address::v4([0; 4]);
        let mut entry = Entry { count: 2, ..Entry::EMPTY };
        entry.alternatives[0] = rule(0, Action::Bypass, 22..=22);
        entry.alternatives[1] = rule(1, Action::Protect, 0..=u16::MAX);
        let key = RuleKey::entry(&narrow, local, Address::v4([10, 1, 0, 0]), 0);
        table.entries.insert(key, entry);
        let mut entry = Entry { count: 1, ..Entry::EMPTY };
        entry.alternatives[0] = rule(2, Action::Discard, 80..=90);
        let key = RuleKey::entry(&wide, local, Address::v4([10, 0, 0, 0]), 6);
        table.entries.insert(key, entry);
        table
    }

    fn decided(remote: [u8; 4], ports: Ports) -> Option<u32> {
        classify(&table(), &flow(remote, ports)).map(|found| found.action)
    }

    const SSH: Ports = Ports::known(40_000, 22);
    const WEB: Ports = Ports::known(40_000, 80);
    const ABOVE: Ports = Ports::known(40_000, 91);

    #[test]
    fn the_lowest_precedence_wins_within_an_entry_and_over_tuples() {
        assert_eq!(decided([10, 1, 9, 9], SSH), Some(Action::Bypass.number()));
        assert_eq!(decided([10, 1, 9, 9], WEB), Some(Action::Protect.number()));
        assert_eq!(decided([10, 2, 9, 9], WEB), Some(Action::Discard.number()));
    }

    #[test]
    fn a_port_outside_every_range_matches_no_rule() {
        assert_eq!(decided([10, 2, 9, 9], ABOVE), None);
        assert_eq!(decided([11, 2, 9, 9], WEB), None);
    }

    #[test]
    fn hidden_ports_never_match_a_bypass_for_some_ports() {
        assert_eq!(decided([10, 1, 9, 9], Ports::HIDDEN), Some(Action::Protect.number()));
        assert_eq!(decided([10, 2, 9, 9], Ports::HIDDEN), Some(Action::Discard.number()));
    }

    #[test]
    fn a_protocol_without_ports_matches_only_rules_for_every_port() {
        assert_eq!(decided([10, 1, 9, 9], Ports::NONE), Some(Action::Protect.number()));
        assert_eq!(decided([10, 2, 9, 9], Ports::NONE), None);
    }

    #[test]
    fn a_rule_for_another_protocol_or_family_does_not_match() {
        let mut other = flow([10, 2, 9, 9], WEB);
        other.protocol = 17;
        assert_eq!(classify(&table(), &other), None);
        let mut other = flow([10, 1, 9, 9], WEB);
        other.family = Family::V6;
        assert_eq!(classify(&table(), &other), None);
    }
}
