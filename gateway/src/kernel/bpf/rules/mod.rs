//! Turns rules into the octets of a generation's map (see [`gateway_common`] for its form).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use gateway_common::{
    Action, Address, Alternative, Entry, Family, Flow, Match, RuleKey, Rules, Tuple, Tuples,
    classify,
};
use ipnet::IpNet;

use super::error::RuleError;

/// A rule of the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    /// Its identifier, by which its counters are found; several may share one.
    pub id: u32,
    /// Lower wins; the lower identifier among equals.
    pub precedence: u32,
    /// The addresses on our side.
    pub local: IpNet,
    /// The addresses on the peer's side.
    pub remote: IpNet,
    /// The IP protocol; any if absent.
    pub protocol: Option<u8>,
    /// The ports on our side; all of them for every protocol, also those without ports.
    pub local_ports: RangeInclusive<u16>,
    /// The ports on the peer's side.
    pub remote_ports: RangeInclusive<u16>,
    /// What becomes of a packet.
    pub action: Action,
}

/// A generation of rules, as the maps hold it.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    v4: Option<Tuples>,
    v6: Option<Tuples>,
    entries: HashMap<RuleKey, Entry>,
}

impl Generation {
    /// Compiles rules.
    ///
    /// # Errors
    /// A rule contradicts itself, or there is no room for it.
    pub fn new(rules: &[ClassRule]) -> Result<Self, RuleError> {
        let mut sorted: Vec<&ClassRule> = rules.iter().collect();
        sorted.sort_by_key(|rule| (rule.precedence, rule.id));
        let mut generation = Self::default();
        // For each family the tuples in use; the first rule seen is the best.
        let mut tuples: BTreeMap<(u8, u8, u8, u8), Tuple> = BTreeMap::new();
        for (rank, rule) in (0_u32..).zip(sorted) {
            let (family, tuple) = tuple(rule, rank)?;
            let number = match family {
                Family::V4 => 4,
                Family::V6 => 6,
            };
            let lengths = (tuple.local_length, tuple.remote_length, tuple.one_protocol);
            tuples.entry((number, lengths.0, lengths.1, lengths.2)).or_insert(tuple);
            generation.add(rule, &tuple, rank)?;
        }
        generation.v4 = list(Family::V4, tuples.range((4, 0, 0, 0)..(5, 0, 0, 0)))?;
        generation.v6 = list(Family::V6, tuples.range((6, 0, 0, 0)..(7, 0, 0, 0)))?;
        Ok(generation)
    }

    /// The rule that decides about a flow, found as the programs find it.
    #[must_use]
    pub fn classify(&self, flow: &Flow) -> Option<Match> {
        classify(self, flow)
    }

    /// The lists of tuples, under their keys.
    pub(super) fn lists(&self) -> impl Iterator<Item = (RuleKey, &Tuples)> {
        let v4 = self.v4.iter().map(|list| (RuleKey::tuples(Family::V4), list));
        let v6 = self.v6.iter().map(|list| (RuleKey::tuples(Family::V6), list));
        v4.chain(v6)
    }

    /// The rules, under their keys.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = (&RuleKey, &Entry)> {
        self.entries.iter()
    }

    fn add(&mut self, rule: &ClassRule, tuple: &Tuple, rank: u32) -> Result<(), RuleError> {
        let (local, remote) = (address(rule.local.network()), address(rule.remote.network()));
        let key = RuleKey::entry(tuple, local, remote, rule.protocol.unwrap_or(0));
        let entry = self.entries.entry(key).or_insert(Entry::EMPTY);
        let place = usize::try_from(entry.count).ok();
        let Some(free) = place.and_then(|place| entry.alternatives.get_mut(place)) else {
            return Err(RuleError::Alternatives { rule: rule.id });
        };
        *free = Alternative {
            local_low: *rule.local_ports.start(),
            local_high: *rule.local_ports.end(),
            remote_low: *rule.remote_ports.start(),
            remote_high: *rule.remote_ports.end(),
            precedence: rank,
            rule: rule.id,
            action: rule.action.number(),
        };
        entry.count = entry.count.saturating_add(1);
        Ok(())
    }
}

impl Rules for Generation {
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

/// An address in the form of the maps.
#[must_use]
pub(super) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

fn tuple(rule: &ClassRule, rank: u32) -> Result<(Family, Tuple), RuleError> {
    if rule.local_ports.is_empty() || rule.remote_ports.is_empty() {
        return Err(RuleError::Ports(rule.id));
    }
    let (family, more) = match (rule.local, rule.remote) {
        (IpNet::V4(_), IpNet::V4(_)) => (Family::V4, Address::MAPPED_BITS),
        (IpNet::V6(_), IpNet::V6(_)) => (Family::V6, 0),
        _ => return Err(RuleError::Families(rule.id)),
    };
    let tuple = Tuple {
        best: rank,
        local_length: rule.local.prefix_len().saturating_add(more),
        remote_length: rule.remote.prefix_len().saturating_add(more),
        one_protocol: u8::from(rule.protocol.is_some()),
        zero: 0,
    };
    Ok((family, tuple))
}

/// The list of a family's tuples, the one with the best rule first; none if there is no tuple.
fn list<'a, K: 'a>(
    family: Family,
    tuples: impl Iterator<Item = (K, &'a Tuple)>,
) -> Result<Option<Tuples>, RuleError> {
    let mut sorted: Vec<Tuple> = tuples.map(|(_, tuple)| *tuple).collect();
    sorted.sort_by_key(|tuple| tuple.best);
    let mut list = Tuples::EMPTY;
    if sorted.len() > list.tuples.len() {
        return Err(RuleError::Tuples { family, count: sorted.len() });
    }
    for (place, tuple) in list.tuples.iter_mut().zip(&sorted) {
        *place = *tuple;
        list.count = list.count.saturating_add(1);
    }
    Ok((list.count > 0).then_some(list))
}

#[cfg(test)]
mod tests;
