//! How many Child SAs a peer may have, on one IKE SA and on all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{IkeSa, Job, State};
use crate::config::RuleName;
use crate::counters::Counter;
use crate::error::Error;
use crate::io::ChildId;
use crate::shared::Shared;

/// What those that packets have asked for beside the first of their rules may be of what a peer may
/// have, in percent.
const SHARE_PERCENT: usize = 50;

impl IkeSa {
    /// Whether we may ask for one more Child SA of a rule that has one: a peer that narrows each to
    /// the packet that asks for it has us make them. A share of what it may have is left to other rules.
    pub(crate) fn has_room_for_more(
        &self,
        now: Instant,
        shared: &mut Shared,
        rule: &RuleName,
    ) -> bool {
        if self.children().any(|c| c.rule.name == *rule && c.alone_until.is_some_and(|t| t > now)) {
            return false;
        }
        let more = self.asked_beside_the_first().saturating_add(1);
        let share = shared.config.child_sa_limit.saturating_mul(SHARE_PERCENT);
        if more.saturating_mul(100) > share {
            shared.count(Counter::RuleChildSaLimit);
            return false;
        }
        if self.check_room(shared, false).is_err() {
            shared.count(Counter::NoAdditionalSas);
            return false;
        }
        if self.check_room_of_peer(shared, false).is_err() {
            shared.count(Counter::PeerChildSaLimit);
            return false;
        }
        true
    }

    /// How many packets have asked for beside the first of their rules. Those that go are none of
    /// them, and one with its successor is one.
    fn asked_beside_the_first(&self) -> usize {
        let live = || self.children().filter(|c| c.is_live());
        let replaced: BTreeSet<ChildId> = live().filter_map(|c| c.replaces).collect();
        let mut rules: BTreeMap<&RuleName, (usize, usize)> = BTreeMap::new();
        for child in live().filter(|c| !replaced.contains(&c.id)) {
            let (all, asked) = rules.entry(&child.rule.name).or_default();
            *all = all.saturating_add(1);
            *asked = asked.saturating_add(usize::from(child.for_packet));
        }
        rules.values().map(|(all, asked)| *asked.min(&all.saturating_sub(1))).sum()
    }

    /// What the peer can make us keep on an IKE SA is bounded. What is gone here but not there
    /// takes room too, or a peer that keeps us from deleting it could have any number of them.
    pub(super) fn check_room(&self, shared: &Shared, successor: bool) -> Result<(), Error> {
        let State::Established(established) = &self.state else { return Ok(()) };
        let undeleted = self.jobs.iter().filter(
            |job| matches!(job, Job::DeleteChild { spi, .. } if !shared.spis.contains_key(spi)),
        );
        let present = established.children.len().saturating_add(established.theirs.len());
        let present = present.saturating_add(undeleted.count());
        let limit = room(shared.config.child_sa_limit, successor);
        if present < limit { Ok(()) } else { Err(Error::NoAdditionalSas { present, limit }) }
    }

    /// And on all its IKE SAs. `successor`: it is to take the place of what the peer has, on this
    /// IKE SA or on one that this one replaces.
    pub(super) fn check_room_of_peer(&self, shared: &Shared, successor: bool) -> Result<(), Error> {
        let present = self.holder().map_or(0, |holder| shared.children.count(&holder));
        let limit = room(shared.config.peer_child_sa_limit, successor);
        if present < limit { Ok(()) } else { Err(Error::NoAdditionalSasOfPeer { present, limit }) }
    }
}

/// Successors need room beside those that they replace.
const fn room(limit: usize, successor: bool) -> usize {
    if successor { limit.saturating_mul(2) } else { limit }
}
