//! A peer that takes Child SAs of a single pair of addresses only (RFC 7296 2.9, 3.10.1): it is asked again
//! for that of the packet which waits, and from then on for no more.

use std::time::Instant;

use gateway_wire::{NotifyType, TrafficSelector};

use super::offer::ChildOffer;
use super::{IkeSa, Job};
use crate::config::RuleName;
use crate::error::Error;
use crate::event::EventKind;
use crate::selector::{self, Sides};
use crate::shared::Shared;

/// What a rule's selectors, ours and the peer's, have at the two addresses of what is wanted: with all of
/// their protocols and ports, which nobody has asked to be single. `None`: that is not two addresses, or the
/// rule does not select them.
pub(super) fn of(
    (local, remote): (&[TrafficSelector], &[TrafficSelector]),
    (ours, theirs): &Sides,
) -> Option<Sides> {
    let at = |all: &[TrafficSelector], address: &TrafficSelector| {
        let any = selector::of_packet(0, address.start, 0);
        let narrowed = selector::narrow(1, all, &[any]);
        narrowed.first().copied().filter(|_| address.start == address.end)
    };
    at(local, ours).zip(at(remote, theirs))
}

impl IkeSa {
    /// Whether the peer takes single pairs only for a rule.
    pub(super) fn owes_single_pairs(&self, shared: &Shared, rule: &RuleName) -> bool {
        self.holder().is_some_and(|holder| shared.single_pairs.are_demanded(&holder, rule))
    }

    /// Initiator: the peer has answered SINGLE_PAIR_REQUIRED. Once it is asked again, if there is a pair;
    /// a peer that refuses that too is not asked a third time.
    pub(super) fn single_pair_required(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
    ) {
        let rule = RuleName::clone(&offer.rule.name);
        let is_the_same = shared.policies.rules.get(&rule) == Some(&offer.rule);
        if offer.is_single_pair() || !is_the_same {
            let error = Error::Refused(NotifyType::SINGLE_PAIR_REQUIRED);
            return self.offer_failed(now, shared, offer, error);
        }
        if let Some(holder) = self.holder() {
            shared.single_pairs.demand(holder, &rule);
        }
        if !offer.has_single_pair() {
            return self.give_up(now, shared, offer, Error::SinglePairs);
        }
        self.event(shared, EventKind::SinglePair { rule });
        shared.release_spi(offer.spi);
        self.jobs.push_front(Job::CreateChild(offer.wish));
    }
}
