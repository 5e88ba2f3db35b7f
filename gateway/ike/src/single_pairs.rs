//! The rules for which a peer takes Child SAs of a single pair of addresses only (SINGLE_PAIR_REQUIRED,
//! RFC 7296 3.10.1). It is not asked for more again as long as an IKE SA with it stands: after that it may
//! have been configured anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{PeerName, RuleName};
use crate::leases::Holder;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SinglePairs(BTreeMap<Holder, BTreeSet<RuleName>>);

impl SinglePairs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peer has said so.
    pub(crate) fn demand(&mut self, holder: Holder, rule: &RuleName) {
        self.0.entry(holder).or_default().insert(RuleName::clone(rule));
    }

    pub(crate) fn are_demanded(&self, holder: &Holder, rule: &RuleName) -> bool {
        self.0.get(holder).is_some_and(|rules| rules.contains(rule))
    }

    /// Whether anybody who comes as this peer has said so.
    pub(crate) fn are_demanded_by_any(&self, peer: &PeerName, rule: &RuleName) -> bool {
        let first = Holder { peer: PeerName::clone(peer), user: None };
        let mut holders = self.0.range(first..).take_while(|(holder, _)| holder.peer == *peer);
        holders.any(|(_, rules)| rules.contains(rule))
    }

    /// No IKE SA with the peer stands; gives the rules, which may fare better with the next one.
    pub(crate) fn disconnected(&mut self, holder: &Holder) -> BTreeSet<RuleName> {
        self.0.remove(holder).unwrap_or_default()
    }

    /// Rules are gone, or other ones by now: only these are as they were.
    pub(crate) fn retain(&mut self, stays: impl Fn(&RuleName) -> bool) {
        self.0.retain(|_, rules| {
            rules.retain(&stays);
            !rules.is_empty()
        });
    }
}
