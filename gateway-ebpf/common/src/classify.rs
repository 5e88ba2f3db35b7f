//! Finds the rule of a packet: run by the programs, and by the daemon to explain a decision.

use crate::{Address, Alternative, Entry, Family, RuleKey, Tuples};

/// What rules select packets by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Flow {
    /// The address on our side.
    pub local: Address,
    /// The address on the peer's side.
    pub remote: Address,
    /// The family of both.
    pub family: Family,
    /// The IP protocol, after the extension headers.
    pub protocol: u8,
    /// The ports.
    pub ports: Ports,
}

/// The ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// They are these.
    Known {
        /// The port on our side.
        local: u16,
        /// The port on the peer's side.
        remote: u16,
    },
    /// The protocol has none: only a rule for every port matches.
    None,
    /// It has ports, but this packet does not show them: a fragment other than the first, or a
    /// first one that ends before them.
    ///
    /// A rule for some ports then matches if it protects or discards, so that nothing of a
    /// selected flow leaks, and does not match if it bypasses.
    Hidden,
}

/// The rule that decides about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its identifier.
    pub rule: u32,
    /// The number of an [`Action`](crate::Action).
    pub action: u32,
    /// Its precedence within the generation.
    pub precedence: u32,
}

/// A generation of rules.
pub trait Rules {
    /// The tuples of a family.
    fn tuples(&self, family: Family) -> Option<&Tuples>;

    /// The rules under a key.
    fn entry(&self, key: &RuleKey) -> Option<&Entry>;
}

/// The matching rule with the lowest precedence, over all tuples.
#[inline(always)]
#[must_use]
pub fn classify<R: Rules>(rules: &R, flow: &Flow) -> Option<Match> {
    let tuples = rules.tuples(flow.family)?;
    let mut best: Option<Match> = None;
    // The constant bound is what lets the kernel's verifier see the end of the loop.
    for (place, tuple) in (0_u32..).zip(&tuples.tuples) {
        if place >= tuples.count || best.is_some_and(|best| best.precedence <= tuple.best) {
            break;
        }
        let key = RuleKey::entry(tuple, &flow.local, &flow.remote, flow.protocol);
        if let Some(entry) = rules.entry(&key)
            && let Some(found) = first(entry, flow.ports)
            && best.is_none_or(|best| found.precedence < best.precedence)
        {
            best = Some(found);
        }
    }
    best
}

/// The first rule of an entry that matches the ports.
#[inline(always)]
fn first(entry: &Entry, ports: Ports) -> Option<Match> {
    for (place, alternative) in (0_u32..).zip(&entry.alternatives) {
        if place >= entry.count {
            break;
        }
        if alternative.matches(ports) {
            return Some(Match {
                rule: alternative.rule,
                action: alternative.action,
                precedence: alternative.precedence,
            });
        }
    }
    None
}

impl Alternative {
    /// Whether it is for every port.
    #[inline(always)]
    #[must_use]
    pub const fn is_for_every_port(&self) -> bool {
        self.local_low == 0
            && self.local_high == u16::MAX
            && self.remote_low == 0
            && self.remote_high == u16::MAX
    }

    /// Whether it matches a packet with these ports.
    #[inline(always)]
    #[must_use]
    pub const fn matches(&self, ports: Ports) -> bool {
        match ports {
            Ports::Known { local, remote } => {
                self.local_low <= local
                    && local <= self.local_high
                    && self.remote_low <= remote
                    && remote <= self.remote_high
            }
            Ports::None => self.is_for_every_port(),
            Ports::Hidden => {
                self.action != crate::Action::Bypass.number() || self.is_for_every_port()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use super::*;
    use crate::{Action, Tuple, mapped};

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

        fn entry(&self, key: &RuleKey) -> Option<&Entry> {
            self.entries.get(key)
        }
    }

    fn rule(precedence: u32, action: Action, remote: std::ops::RangeInclusive<u16>) -> Alternative {
        Alternative {
            local_low: 0,
            local_high: u16::MAX,
            remote_low: *remote.start(),
            remote_high: *remote.end(),
            precedence,
            rule: precedence + 100,
            action: action.number(),
        }
    }

    fn flow(remote: [u8; 4], ports: Ports) -> Flow {
        Flow {
            local: mapped([10, 0, 0, 1]),
            remote: mapped(remote),
            family: Family::V4,
            protocol: 6,
            ports,
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
        let local = mapped([0; 4]);
        let mut entry = Entry { count: 2, ..Entry::EMPTY };
        entry.alternatives[0] = rule(0, Action::Bypass, 22..=22);
        entry.alternatives[1] = rule(1, Action::Protect, 0..=u16::MAX);
        let key = RuleKey::entry(&narrow, &local, &mapped([10, 1, 0, 0]), 0);
        table.entries.insert(key, entry);
        let mut entry = Entry { count: 1, ..Entry::EMPTY };
        entry.alternatives[0] = rule(2, Action::Discard, 80..=90);
        let key = RuleKey::entry(&wide, &local, &mapped([10, 0, 0, 0]), 6);
        table.entries.insert(key, entry);
        table
    }

    fn decided(remote: [u8; 4], ports: Ports) -> Option<u32> {
        classify(&table(), &flow(remote, ports)).map(|found| found.action)
    }

    const SSH: Ports = Ports::Known { local: 40_000, remote: 22 };
    const WEB: Ports = Ports::Known { local: 40_000, remote: 80 };
    const ABOVE: Ports = Ports::Known { local: 40_000, remote: 91 };

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
        assert_eq!(decided([10, 1, 9, 9], Ports::Hidden), Some(Action::Protect.number()));
        assert_eq!(decided([10, 2, 9, 9], Ports::Hidden), Some(Action::Discard.number()));
    }

    #[test]
    fn a_protocol_without_ports_matches_only_rules_for_every_port() {
        assert_eq!(decided([10, 1, 9, 9], Ports::None), Some(Action::Protect.number()));
        assert_eq!(decided([10, 2, 9, 9], Ports::None), None);
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
