//! A peer that is a cluster: what changes when another member of it takes an IKE SA over (RFC 6311).

use std::time::Instant;

use gateway_wire::{NotifyType, SecurityAssociation};

use super::{ChildState, Established, IkeSa, Job, State};
use crate::channel::Opened;
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, Path};
use crate::shared::Shared;

impl Established {
    /// The member that has taken over may not know of our last answer, and its next request does not
    /// say that it does. A packet does, and so does what it asks about the Child SA.
    pub(crate) fn doubt_answer(&mut self) {
        let unproven = self.children.values_mut().filter(|c| c.state == ChildState::Receiving);
        unproven.for_each(|child| child.doubtful = true);
    }
}

impl IkeSa {
    /// A Child SA gets a successor once more: the member that has taken over does not know of the one
    /// that was agreed on with its predecessor, which goes.
    pub(super) fn delete_doubtful(&mut self, now: Instant, shared: &mut Shared, old: ChildId) {
        let State::Established(established) = &self.state else { return };
        let children = established.children.values();
        let doubtful = children.filter(|c| c.doubtful && c.replaces == Some(old));
        let doubtful: Vec<_> = doubtful.map(|c| c.id).collect();
        for child in doubtful {
            self.delete_child(now, shared, child, "the peer asks for another");
        }
    }

    /// A Child SA beside the others is asked for by an SPI of the peer's that one of them has: the peer has
    /// given it to none, since the member that has taken over does not know our answer to its predecessor.
    pub(super) fn delete_unknown(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        asked: Option<&SecurityAssociation>,
    ) {
        let named = |spi: u32| {
            let spi = spi.to_be_bytes();
            asked.is_some_and(|sa| sa.proposals.iter().any(|p| p.spi == spi))
        };
        let unknown = self.children().find(|c| named(c.outbound_spi)).map(|c| c.id);
        if let Some(unknown) = unknown {
            self.delete_child(now, shared, unknown, "the peer asks for it again");
        }
    }

    /// The peer does not know the key exchanges that a Child SA of ours was to come from. A member that has
    /// taken over may know none under way, and have the Child SA all the same: its predecessor has answered
    /// the last of them, and we have not heard it.
    pub(super) fn delete_forgotten(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        error: &Error,
        spi: u32,
    ) {
        if *error == Error::Refused(NotifyType::STATE_NOT_FOUND) {
            self.add_job(now, shared, Job::DeleteChild { spi, peer_spi: 0 });
        }
    }

    /// An authentic request of the peer to go on from other message IDs (RFC 6311 5.1). What is wrong with
    /// it is told to nobody: it may be an old one that somebody has kept. Nor is it told of a request with
    /// the number 0 that is none of these: of a responder its first was one, which anybody can repeat, and
    /// INVALID_SYNTAX ends an IKE SA at both ends (RFC 7296 2.21.3).
    pub(super) fn set_ids(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        let channel = match &mut self.state {
            // Else an answer waits for the kernel, to a request that has its number: the peer asks again.
            State::Established(established) if established.withheld.is_none() => {
                Some(&mut established.channel)
            }
            // A peer that has not shown who it is has agreed to nothing.
            State::Closing(closing) if self.proof.is_some() || self.remnant_of.is_some() => {
                Some(&mut closing.channel)
            }
            State::Established(_)
            | State::Closing(_)
            | State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::AwaitAuth(_)
            | State::HalfOpen(_)
            | State::Closed => None,
        };
        let set = channel.map_or(Ok(None), |channel| {
            channel.set_ids(now, &shared.config, shared.random.as_mut(), opened, datagram)
        });
        let set = match set {
            Ok(Some(set)) => set,
            Ok(None) => return shared.count(Counter::MessageIdsNotSet),
            Err(error) => return self.fail(shared, error),
        };
        shared.count(Counter::MessageIdsSet);
        let (next_request, next_expected) = (set.next_request, set.next_expected);
        self.event(shared, EventKind::MessageIdsSet { next_request, next_expected });
        if let State::Established(established) = &mut self.state {
            established.heard(now);
            established.unconfirmed = false;
            established.doubt_answer();
        }
        self.follow(now, shared, path, false);
        shared.transmit(path, set.answer);
        self.sent(now);
        if let Some(request) = set.again {
            shared.count(Counter::Retransmitted);
            self.expect_again(shared);
            shared.transmit(self.path, request);
        }
        // The member may not know that this is over, nor have the keys that have taken its place: it hears
        // so at once and begins anew, or it would be put off for minutes while we find out that it is not
        // there by the new ones.
        if matches!(&self.state, State::Closing(closing) if !closing.awaits_answer()) {
            self.say_goodbye(now, shared);
        }
    }
}
