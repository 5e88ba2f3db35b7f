//! The rules for which a peer takes Child SAs of a single pair of addresses only (SINGLE_PAIR_REQUIRED,
//! RFC 7296 3.10.1). It is not asked for more again as long as an IKE SA with it stands: after that it may
//! have been configured anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{PeerName, RuleName};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SinglePairs(BTreeMap<PeerName, BTreeSet<RuleName>>);

impl SinglePairs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peer has said so.
    pub(crate) fn demand(&mut self, peer: &PeerName, rule: &RuleName) {
        let rules = self.0.entry(PeerName::clone(peer)).or_default();
        rules.insert(RuleName::clone(rule));
    }

    pub(crate) fn are_demanded(&self, peer: &PeerName, rule: &RuleName) -> bool {
        self.0.get(peer).is_some_and(|rules| rules.contains(rule))
    }

    /// No IKE SA with the peer stands.
    pub(crate) fn disconnected(&mut self, peer: &PeerName) {
        self.0.remove(peer);
    }

    /// Rules are gone, or other ones by now: only these are as they were.
    pub(crate) fn retain(&mut self, stays: impl Fn(&RuleName) -> bool) {
        self.0.retain(|_, rules| {
            rules.retain(&stays);
            !rules.is_empty()
        });
    }
}
