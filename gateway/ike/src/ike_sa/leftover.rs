//! An IKE SA goes on with another channel; what is left of the one before, and of one that a collision
//! has made redundant, becomes an IKE SA of its own.

use core::mem;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::IkeSpi;

use super::jobs::Current;
use super::{Closing, IkeSa, Job, State};
use crate::algorithms::IkeSuite;
use crate::assignment::Assignment;
use crate::channel::Channel;
use crate::config::Renewal;
use crate::counters::Counter;
use crate::effect::Effect;
use crate::event::EventKind;
use crate::io::IkeSaId;
use crate::leases::Lease;
use crate::shared::Shared;

/// A channel that is not used any more.
pub(super) enum Leftover {
    /// We delete it.
    Ours(Channel),
    /// The peer deletes it.
    Theirs(Channel),
    /// The peer has deleted it.
    Deleted(Channel),
}

impl IkeSa {
    /// From now on this IKE SA uses another channel. `old` says who deletes the one until now.
    pub(super) fn move_to(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        old: fn(Channel) -> Leftover,
        redundant: Option<Leftover>,
    ) {
        let peer = self.peer.clone();
        // What was begun under the old keys cannot end under the new ones.
        self.drop_series(shared, |_| true);
        self.jobs.retain(|job| !matches!(job, Job::RekeyIke));
        self.not_put_off();
        let State::Established(established) = &mut self.state else { return };
        let (suite, spi): (IkeSuite, _) = (channel.suite, channel.our_spi());
        (self.initiator_spi, self.responder_spi) = channel.spis();
        let old = old(mem::replace(&mut established.channel, channel));
        // What was under way about addresses ends with the old keys.
        match established.current.take() {
            Some(Current::UpdateAddresses(_)) => self.want(Job::UpdateAddresses),
            Some(Current::CheckPath { .. }) => self.want(Job::CheckPath),
            Some(Current::TellAddresses { .. }) => self.want(Job::TellAddresses),
            Some(_) | None => {}
        }
        let State::Established(established) = &mut self.state else { return };
        if let Some(mobike) = &mut established.mobike {
            mobike.rekeyed(matches!(old, Leftover::Theirs(_)));
            // The peer lives, but may send ESP to where our NAT mapped us before (RFC 4555 3.8). Who
            // rekeys more often than it checks whether the peer lives would never hear of it.
            if established.nat.local && !self.jobs.contains(&Job::Liveness) {
                self.jobs.push_back(Job::Liveness);
            }
        }
        // A token is of the SPIs: the old one proves nothing any more, and once the old IKE SA is
        // gone anybody can have it (RFC 6290 4.3). A peer that has no use for ours ignores it.
        established.peer_token = None;
        if shared.crash_tokens.is_used() && !self.jobs.contains(&Job::CrashToken) {
            self.jobs.push_back(Job::CrashToken);
        }
        established.failures = 0;
        established.rekey_group = None;
        // Who is to prove anew who it is does so in its time, however often there are new keys.
        if let Some(peer) = peer.filter(|p| p.renewal == Renewal::Rekey) {
            established.begin_life(now, shared, &peer);
        }
        let leftovers = [Some(old), redundant].into_iter().flatten();
        let remnants = leftovers.map(|l| self.remnant(now, shared, l)).collect();
        shared.effects.push(Effect::Rekeyed { ike_sa: self.id, spi, remnants });
        shared.count(Counter::IkeSaRekeyed);
        self.event(shared, EventKind::Rekeyed { suite });
    }

    /// A successor that came to nothing is left to be deleted; this IKE SA stays what it is.
    pub(super) fn leave(&self, now: Instant, shared: &mut Shared, leftover: Leftover) {
        let State::Established(established) = &self.state else { return };
        let spi = established.channel.our_spi();
        let remnants = vec![self.remnant(now, shared, leftover)];
        shared.effects.push(Effect::Rekeyed { ike_sa: self.id, spi, remnants });
    }

    /// What is left of a channel, with our SPI; the endpoint gives it a number.
    fn remnant(&self, now: Instant, shared: &mut Shared, leftover: Leftover) -> (IkeSpi, Self) {
        let (mut closing, goodbye) = match leftover {
            Leftover::Ours(channel) => (Closing::remnant(now, shared, channel), true),
            Leftover::Theirs(mut channel) => {
                // Nobody waits for the answer to what was under way on it.
                channel.response_received();
                (Closing::remnant(now, shared, channel), false)
            }
            Leftover::Deleted(mut channel) => {
                channel.response_received();
                (Closing::new(now, shared, channel), false)
            }
        };
        closing.mobike = self.mobike().map(|mobike| mobike.decides);
        let (spis, ours) = (closing.channel.spis(), closing.channel.our_spi());
        let mut remnant = Self {
            assignment: Assignment::default(),
            keep: Lease::default(),
            id: IkeSaId(0),
            peer: self.peer.as_ref().map(Arc::clone),
            proof: None,
            reauthenticate_at: None,
            user: self.user.clone(),
            path: self.path,
            initiator_spi: spis.0,
            responder_spi: spis.1,
            begun: self.begun,
            jobs: VecDeque::new(),
            claimed: None,
            supersedes: None,
            remnant_of: Some(self.id),
            init_request: None,
            state: State::Closing(Box::new(closing)),
        };
        if goodbye {
            remnant.say_goodbye(now, shared);
        }
        (ours, remnant)
    }
}
