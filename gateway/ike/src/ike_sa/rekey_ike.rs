//! New keys for an IKE SA, by either end (RFC 7296 1.3.2, 2.8, 2.18).
//!
//! The IKE SA stays what it is, with its number, its Child SAs and all that waits for it, and gets
//! another channel: keys, SPIs and message IDs. The old channel, and one that a collision has made
//! redundant, become IKE SAs of their own whose only business is to be deleted.

use core::mem;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    ExchangeType, IkeSpi, KeyExchange, Nonce, NotifyType, Payload, SecurityAssociation,
};

use super::collision::{Asked, Verdict, verdict};
use super::create_child::{MOST_GROUPS, NONCE_LEN, Refusal};
use super::derive::Agreed;
use super::jobs::Current;
use super::{Closing, IkeSa, Job, State, notify};
use crate::algorithms::{Group, IkeSuite};
use crate::assignment::Assignment;
use crate::channel::{Channel, Opened, RequestId};
use crate::config::{PeerConfig, Renewal};
use crate::counters::Counter;
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{IkeSaId, Path};
use crate::leases::Lease;
use crate::payloads::Payloads;
use crate::proposal::{self, Rounds};
use crate::shared::{Effect, Shared};
use crate::time::after;

/// Our request for new keys that is under way.
pub(super) struct RekeyingIke {
    pending: Box<dyn PendingKeyExchange>,
    nonce: [u8; NONCE_LEN],
    /// Our SPI of the new IKE SA.
    spi: IkeSpi,
    /// The peer has rekeyed the same IKE SA meanwhile: what that exchange has made.
    collided: Option<Successor>,
}

/// A channel that can take the place of the one in use.
struct Successor {
    channel: Channel,
    /// RFC 7296 2.8.1: decides between two of them.
    lowest_nonce: Vec<u8>,
}

/// A channel that is not used any more.
enum Leftover {
    /// We delete it.
    Ours(Channel),
    /// The peer deletes it.
    Theirs(Channel),
    /// The peer has deleted it.
    Deleted(Channel),
}

/// The responder's good answer.
struct Words {
    sa: SecurityAssociation,
    nonce: [u8; NONCE_LEN],
    group: Group,
    public: Vec<u8>,
}

impl IkeSa {
    /// Initiator: asks for new keys.
    pub(super) fn send_rekey_ike(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let peer = self.peer.clone().ok_or(Error::Internal("no peer to rekey with"))?;
        let State::Established(established) = &self.state else { return Ok(()) };
        // The method that the peer asked for, or the one that it surely knows, or our best.
        let wanted = established.rekey_group.map(|(group, _)| group);
        let group = first_of(&peer, wanted.or(Some(established.channel.suite.group)))?;
        let pending = shared.key_exchange.generate(group)?;
        let nonce: [u8; NONCE_LEN] = shared.octets()?;
        let spi = shared.ike_spi()?;
        let payloads = [
            Payload::SecurityAssociation(proposal::offer_successor(&peer.proposals, spi)),
            Payload::Nonce(Nonce(&nonce)),
            Payload::KeyExchange(KeyExchange { method: group.id(), data: pending.public() }),
        ];
        self.send_request(now, shared, ExchangeType::CREATE_CHILD_SA, &payloads)?;
        let rekeying = RekeyingIke { pending, nonce, spi, collided: None };
        self.set_current(Current::RekeyIke(Box::new(rekeying)));
        Ok(())
    }

    /// Whether an IKE SA with this SPI of ours may come of a rekeying that is under way.
    pub(crate) fn may_get_spi(&self, spi: IkeSpi) -> bool {
        let State::Established(established) = &self.state else { return false };
        let Some(Current::RekeyIke(ours)) = &established.current else { return false };
        let theirs = ours.collided.as_ref().map(|c| c.channel.our_spi());
        ours.spi == spi || theirs == Some(spi)
    }

    /// Initiator: the authentic answer.
    pub(super) fn rekey_ike_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        rekeying: RekeyingIke,
    ) {
        let sent = rekeying.pending.group();
        let (ours, collided) = self.check_rekeyed(opened, rekeying);
        match (ours, collided) {
            (Ok(ours), None) => self.move_to(now, shared, ours.channel, Leftover::Ours, None),
            // RFC 7296 2.8.2: the survivor gets the Child SAs, and who made it deletes the old one;
            // the redundant one is deleted by who made that.
            (Ok(ours), Some(theirs)) if ours.lowest_nonce < theirs.lowest_nonce => {
                shared.count(Counter::RekeyCollision);
                let redundant = Some(Leftover::Ours(ours.channel));
                self.move_to(now, shared, theirs.channel, Leftover::Theirs, redundant);
            }
            (Ok(ours), Some(theirs)) => {
                shared.count(Counter::RekeyCollision);
                let redundant = Some(Leftover::Theirs(theirs.channel));
                self.move_to(now, shared, ours.channel, Leftover::Ours, redundant);
            }
            // The peer's rekeying alone has succeeded.
            (Err(_), Some(theirs)) => {
                self.move_to(now, shared, theirs.channel, Leftover::Theirs, None);
            }
            (Err(error), None) => self.rekey_ike_failed(now, shared, sent, error),
        }
    }

    /// The successor that the answer makes, and the peer's if there is one.
    fn check_rekeyed(
        &self,
        opened: &Opened,
        rekeying: RekeyingIke,
    ) -> (Result<Successor, Error>, Option<Successor>) {
        let RekeyingIke { pending, nonce, spi, collided } = rekeying;
        let check = || {
            let State::Established(established) = &self.state else {
                return Err(Error::Internal("no IKE SA"));
            };
            let peer = self.peer.as_ref().ok_or(Error::Internal("no peer"))?;
            let inner = opened.payloads()?;
            let payloads = Payloads::collect(ExchangeType::CREATE_CHILD_SA, &inner)?;
            if payloads.sa.is_none()
                && let Some(error) = payloads.error()
            {
                return Err(Refusal::of(error));
            }
            let chosen = payloads.require_sa()?;
            let suite = proposal::accept_ike(&peer.proposals, chosen, Rounds::Impossible)?;
            let ke = payloads.require_ke()?;
            if suite.group != pending.group() || ke.method != suite.group.id() {
                return Err(Error::BadAnswer("another key exchange method than the one we sent"));
            }
            let peer_spi = proposal::ike_spi(chosen, chosen)?;
            let their_nonce = payloads.require_nonce()?;
            let secret = pending.agree(ke.data)?;
            let agreed = Agreed::new(Some(&secret), (&nonce, their_nonce));
            let channel = agreed.successor(&established.channel, (spi, peer_spi), true, suite)?;
            Ok(Successor { channel, lowest_nonce: agreed.lowest_nonce().to_vec() })
        };
        (check(), collided)
    }

    /// Initiator: the IKE SA keeps its keys for now.
    fn rekey_ike_failed(&mut self, now: Instant, shared: &mut Shared, sent: Group, error: Error) {
        let peer = self.peer.clone();
        let State::Established(established) = &mut self.state else { return };
        let tries = established.rekey_group.map_or(0, |(_, tries)| tries);
        if let Error::InvalidKePayload { wanted } = &error
            && *wanted != sent
            && tries < MOST_GROUPS
            && peer.as_ref().is_some_and(|p| p.proposals.iter().any(|x| x.groups.contains(wanted)))
        {
            established.rekey_group = Some((*wanted, tries.saturating_add(1)));
            self.event(shared, EventKind::OtherGroup(wanted.to_string()));
            self.jobs.push_front(Job::RekeyIke);
            return;
        }
        let wait = shared.backoff(established.failures);
        established.failures = established.failures.saturating_add(1);
        established.rekey_group = None;
        established.renew_at = Some(after(now, wait));
        if matches!(error, Error::Refused(NotifyType::TEMPORARY_FAILURE)) {
            return self.event(shared, EventKind::PutOff(error));
        }
        let refused = matches!(error, Error::Refused(_) | Error::InvalidKePayload { .. });
        self.event(shared, EventKind::RekeyFailed(error));
        if refused {
            // The peer cannot or will not: from scratch, then.
            self.reauthenticate(shared);
        } else {
            // The peer believes that it has rekeyed: the two ends are out of step for good.
            self.delete_ike(now, shared, "the peer's answer to the rekeying is invalid");
        }
    }

    /// Responder: the peer wants new keys.
    pub(super) fn rekey_ike_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        request: RequestId,
        payloads: &Payloads<'_>,
    ) {
        let decided = verdict(self.doing(None), Asked::RekeyIke);
        let agreed = match decided {
            Verdict::NotNow(why) => Err(Error::TemporaryFailure(why)),
            Verdict::AsUsual | Verdict::Compare | Verdict::WithoutDelete | Verdict::ForgetOurs => {
                self.agree_rekey(shared, payloads)
            }
        };
        let words = agreed.as_ref().err().and_then(notification_for);
        let answer = match &agreed {
            Ok((_, words)) => words.payloads(),
            Err(_) => words.iter().map(|w| notify(w.kind, &w.data)).collect(),
        };
        let State::Established(established) = &mut self.state else { return };
        match established.channel.respond(shared.random.as_mut(), request, &answer) {
            Ok(answer) => shared.transmit(path, answer),
            Err(error) => return self.fail(shared, error),
        }
        match agreed {
            Ok((successor, _)) => match &mut established.current {
                Some(Current::RekeyIke(ours)) => ours.collided = Some(successor),
                Some(Current::CreateChild(_) | Current::DeleteChild { .. } | Current::Liveness)
                | None => self.move_to(now, shared, successor.channel, Leftover::Theirs, None),
            },
            Err(error @ Error::TemporaryFailure(_)) => {
                shared.count(Counter::TemporaryFailure);
                self.event(shared, EventKind::PutOff(error));
            }
            Err(error) => {
                self.event(shared, EventKind::RekeyFailed(error));
                // RFC 7296 2.21.3: that one is fatal at both ends, without a Delete.
                if words.is_some_and(|w| w.kind == NotifyType::INVALID_SYNTAX) {
                    return self.end(now, shared, "the peer sent an invalid message");
                }
            }
        }
        self.next_job(now, shared);
    }

    fn agree_rekey(
        &self,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<(Successor, Words), Error> {
        let State::Established(established) = &self.state else {
            return Err(Error::Internal("no IKE SA"));
        };
        let peer = self.peer.as_ref().ok_or(Error::Internal("no peer"))?;
        let (offered, ke) = (payloads.require_sa()?, payloads.require_ke()?);
        let their_nonce = payloads.require_nonce()?;
        let (chosen, suite) =
            proposal::select_ike(&peer.proposals, offered, ke.method, Rounds::Impossible)
                .ok_or_else(|| Error::NoProposalChosen {
                    ours: proposal::describe(&proposal::offer_ike(&peer.proposals)),
                    theirs: proposal::describe(offered),
                })?;
        if suite.group.id() != ke.method {
            return Err(Error::InvalidKePayload { wanted: suite.group });
        }
        let peer_spi = proposal::ike_spi(offered, &chosen)?;
        let exchanged = shared.key_exchange.respond(suite.group, ke.data)?;
        let (nonce, spi): ([u8; NONCE_LEN], _) = (shared.octets()?, shared.ike_spi()?);
        let agreed = Agreed::new(Some(&exchanged.secret), (their_nonce, &nonce));
        let channel = agreed.successor(&established.channel, (peer_spi, spi), false, suite)?;
        let successor = Successor { channel, lowest_nonce: agreed.lowest_nonce().to_vec() };
        let sa = proposal::with_ike_spi(chosen, spi);
        Ok((successor, Words { sa, nonce, group: suite.group, public: exchanged.value }))
    }

    /// The peer has deleted the IKE SA that both of us are rekeying: it has not noticed our
    /// request, and only its own counts (RFC 7296 2.8.2). `false`: it has not rekeyed it.
    pub(super) fn adopt_collided(&mut self, now: Instant, shared: &mut Shared) -> bool {
        let State::Established(established) = &mut self.state else { return false };
        let Some(Current::RekeyIke(ours)) = &mut established.current else { return false };
        let Some(theirs) = ours.collided.take() else { return false };
        self.move_to(now, shared, theirs.channel, Leftover::Deleted, None);
        self.next_job(now, shared);
        true
    }

    /// From now on this IKE SA uses another channel. `old` says who deletes the one until now.
    fn move_to(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        old: fn(Channel) -> Leftover,
        redundant: Option<Leftover>,
    ) {
        let peer = self.peer.clone();
        let State::Established(established) = &mut self.state else { return };
        let (suite, spi): (IkeSuite, _) = (channel.suite, channel.our_spi());
        (self.initiator_spi, self.responder_spi) = channel.spis();
        let old = old(mem::replace(&mut established.channel, channel));
        established.current = None;
        // A token is of the SPIs: the old one proves nothing any more, and once the old IKE SA is
        // gone anybody can have it (RFC 6290 4.3).
        if established.peer_token.take().is_some() {
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

    /// What is left of a channel, with our SPI; the endpoint gives it a number.
    fn remnant(&self, now: Instant, shared: &mut Shared, leftover: Leftover) -> (IkeSpi, Self) {
        let (closing, goodbye) = match leftover {
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
        let (spis, ours) = (closing.channel.spis(), closing.channel.our_spi());
        let mut remnant = Self {
            assignment: Assignment::default(),
            keep: Lease::default(),
            id: IkeSaId(0),
            peer: self.peer.as_ref().map(Arc::clone),
            proof: None,
            user: self.user.clone(),
            path: self.path,
            initiator_spi: spis.0,
            responder_spi: spis.1,
            begun: self.begun,
            jobs: VecDeque::new(),
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

impl Words {
    fn payloads(&self) -> Vec<Payload<'_>> {
        vec![
            Payload::SecurityAssociation(self.sa.clone()),
            Payload::Nonce(Nonce(&self.nonce)),
            Payload::KeyExchange(KeyExchange { method: self.group.id(), data: &self.public }),
        ]
    }
}

/// A method that a peer's proposals have, `wanted` if it is one of them.
fn first_of(peer: &PeerConfig, wanted: Option<Group>) -> Result<Group, Error> {
    let ours = || peer.proposals.iter().flat_map(|p| p.groups.iter().copied());
    let found = ours().find(|g| Some(*g) == wanted).or_else(|| ours().next());
    found.ok_or(Error::Internal("a peer has no proposal"))
}
