//! CREATE_CHILD_SA for Child SAs: those beyond the first, and successors (RFC 7296 1.3.1, 1.3.3).

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    ExchangeType, KeMethod, KeyExchange, Nonce, Notify, NotifyType, Payload, ProtocolId,
};

use super::child::{self, ChildRequest, ChildWords, Negotiated, Withheld};
use super::collision::{Asked, Collided, Doing, Verdict, verdict};
use super::derive::Agreed;
use super::follow_up::{Goal, Link, Series, TheirGoal};
use super::jobs::{Current, Wish};
use super::offer::ChildOffer;
use super::put_off::puts_off;
use super::{IkeSa, Job, State, notify};
use crate::algorithms::Group;
use crate::channel::{Opened, RequestId};
use crate::config::Rule;
use crate::counters::Counter;
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::effect::Effect;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{ChildId, Path};
use crate::payloads::Payloads;
use crate::proposal::ChildExchange;
use crate::shared::Shared;
use crate::time::after;

/// Octets of our nonces.
pub(super) const NONCE_LEN: usize = 32;
/// Changes of the key exchange method that we follow in one go.
pub(super) const MOST_GROUPS: u32 = 3;

/// How often we ask for a new Child SA that the peer puts off: for some minutes (RFC 7296 2.25).
const MOST_FAILURES: u32 = 8;

/// Our request for a Child SA that is under way.
pub(super) struct CreatingChild {
    pub(super) offer: ChildOffer,
    nonce: [u8; NONCE_LEN],
    /// Our half of its own key exchange, if it has one.
    pending: Option<Box<dyn PendingKeyExchange>>,
    /// The peer has replaced the same Child SA meanwhile.
    pub(super) collided: Option<Collided>,
}

/// What a request for a Child SA leads to.
enum Answer {
    /// A Child SA, with the answer.
    Whole(Box<Negotiated>),
    /// More key exchanges.
    More(ChildWords),
}

impl IkeSa {
    /// Initiator: asks for a Child SA.
    pub(super) fn send_create_child(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        wish: Wish,
    ) -> Result<(), Error> {
        let State::Established(established) = &self.state else { return Ok(()) };
        if wish.replaces.is_some_and(|old| !established.wants_successor(old)) {
            return Ok(());
        }
        let group_of_ike_sa = established.channel.suite.group;
        let ours = Some(self.assignment.lease);
        let in_udp = self.ends(&shared.config).encapsulation.is_some();
        let Some(offer) = ChildOffer::new(shared, self, ours, in_udp, wish)? else {
            return Ok(());
        };
        if self.is_needless(&offer) {
            shared.release_spi(offer.spi);
            return Ok(());
        }
        if offer.protect.quantum_safe && !established.channel.is_quantum_safe() {
            // What the peer would agree to would have to be deleted at once.
            let error = Error::NotQuantumSafe(established.channel.suite);
            self.give_up(now, shared, offer, error);
            return Ok(());
        }
        let demanded = self.owes_single_pairs(shared, &offer.rule.name);
        if demanded && !offer.is_single_pair() && offer.wish.replaces.is_none() {
            self.give_up(now, shared, offer, Error::SinglePairs);
            return Ok(());
        }
        if let Err(error) = offer.check_addresses(self.path) {
            self.give_up(now, shared, offer, error);
            return Ok(());
        }
        let nonce: [u8; NONCE_LEN] = shared.octets()?;
        let group = offer.group(group_of_ike_sa);
        let pending = group.map(|g| shared.key_exchange.generate(g)).transpose()?;
        // RFC 7296 1.3.3: the SPI is the one that *we* expect in ESP of the SA replaced.
        let old = self.child(offer.wish.replaces);
        let offer = offer.keeping(old.map(|c| c.pairs.clone()).unwrap_or_default());
        let old = old.map(|c| c.inbound_spi.to_be_bytes());
        let rekey = old.as_ref().map(|spi| {
            Payload::Notify(Notify {
                protocol: ProtocolId::ESP,
                spi,
                kind: NotifyType::REKEY_SA,
                data: &[],
            })
        });
        let ke = pending.as_ref().map(|p| {
            Payload::KeyExchange(KeyExchange { method: p.group().id(), data: p.public() })
        });
        let mut payloads: Vec<Payload<'_>> = rekey.into_iter().collect();
        payloads.extend(offer.payloads_with(true));
        payloads.push(Payload::Nonce(Nonce(&nonce)));
        payloads.extend(ke);
        // RFC 7296 1.3.1 gives the order SA, Ni, KEi, TSi, TSr; receivers must take any (2.5),
        // but some old ones do not.
        payloads.sort_by_key(order);
        self.expect(shared, &offer);
        self.send_request(now, shared, ExchangeType::CREATE_CHILD_SA, &payloads)?;
        let creating = CreatingChild { offer, nonce, pending, collided: None };
        self.set_current(Current::CreateChild(Box::new(creating)));
        Ok(())
    }

    /// Whether a Child SA of the rule protects by now what one is wanted for, or no other would.
    fn is_needless(&self, offer: &ChildOffer) -> bool {
        let Wish { first, replaces, .. } = &offer.wish;
        let (Some(first), None) = (first, replaces) else { return false };
        let mut others = self.children().filter(|c| c.is_live() && c.rule.name == offer.rule.name);
        others.any(|c| c.protects(Some(first)) || !offer.names_first())
    }

    fn child(&self, id: Option<ChildId>) -> Option<&super::ChildSa> {
        let id = id?;
        self.children().find(|c| c.id == id)
    }

    /// Initiator: the authentic answer.
    pub(super) fn create_child_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        creating: CreatingChild,
    ) {
        let CreatingChild { offer, nonce, pending, collided } = creating;
        let sent = pending.as_ref().map(|p| p.group());
        let through = (self.negotiated().1, self.path);
        let checked = opened.payloads().map_err(Error::from).and_then(|payloads| {
            let payloads = Payloads::collect(ExchangeType::CREATE_CHILD_SA, &payloads)?;
            if payloads.sa.is_none()
                && let Some(error) = payloads.error()
            {
                return Err(refused(error));
            }
            let answer = offer.check_created(&payloads, through, sent.map(Group::id))?;
            let secret = match (answer.choice.key_exchange, pending) {
                (Some(chosen), Some(pending)) => {
                    let ke = payloads.require_ke()?;
                    if ke.method != chosen.group.id() {
                        return Err(Error::BadAnswer("a value for another key exchange method"));
                    }
                    Some(pending.agree(ke.data)?)
                }
                (Some(_) | None, _) => None,
            };
            let more = answer.choice.key_exchange.is_some_and(|k| !k.additional.is_empty());
            let link = more.then(|| payloads.require_link()).transpose()?;
            let link = link.map(<[u8]>::to_vec);
            Ok((answer, secret, payloads.require_nonce()?.to_vec(), link))
        });
        let (answer, secret, their_nonce, link) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.child_refused(now, shared, offer, sent, error),
        };
        let nonces = (nonce.as_slice(), their_nonce.as_slice());
        if let (Some(link), Some(secret), Some(chosen)) =
            (link, secret.as_ref(), answer.choice.key_exchange)
        {
            let series = Series::new(secret.clone(), nonces, chosen.additional);
            if collided.is_some_and(|c| self.yields(now, shared, &c, series.lowest_nonce())) {
                // RFC 9370 2.2.4: there is nothing to delete yet, it just does not go on.
                shared.release_spi(offer.spi);
                return self.rekey_failed(now, shared, offer.wish.replaces);
            }
            let goal = Goal::Child(Box::new((offer, answer)));
            return self.send_follow_up(now, shared, series, goal, &link);
        }
        self.not_put_off();
        let agreed = Agreed::new(secret.as_ref().map(|s| s.as_slice()), nonces);
        // RFC 7296 2.8.1: of two successors the one made with the lowest nonce goes, by the hand of
        // whoever made it; who made the other deletes the old one.
        let redundant =
            collided.is_some_and(|theirs| self.yields(now, shared, &theirs, agreed.lowest_nonce()));
        let rule = Arc::clone(&offer.wish.rule);
        self.install_answered(now, shared, offer, answer, agreed, redundant);
        if redundant && !self.will_serve(&rule, None) {
            shared.effects.push(Effect::RuleLost { rule, error: None });
        }
    }

    /// Initiator: there is no Child SA; what follows depends on why.
    pub(super) fn child_refused(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        sent: Option<Group>,
        error: Error,
    ) {
        let replaces = offer.wish.replaces;
        if !puts_off(&error) {
            self.not_put_off();
        }
        match (&error, replaces) {
            (Error::InvalidKePayload { wanted }, _)
                if offer.may_use(*wanted)
                    && sent != Some(*wanted)
                    && offer.wish.tries < MOST_GROUPS =>
            {
                self.event(shared, EventKind::OtherGroup(wanted.to_string()));
                shared.release_spi(offer.spi);
                let tries = offer.wish.tries.saturating_add(1);
                let wish = Wish { group: Some(*wanted), tries, ..offer.wish };
                self.jobs.push_front(Job::CreateChild(wish));
            }
            (Error::InvalidKePayload { .. }, _) => {
                let error = Error::Refused(NotifyType::INVALID_KE_PAYLOAD);
                self.offer_failed(now, shared, offer, error);
            }
            (error, Some(_)) if puts_off(error) => {
                shared.release_spi(offer.spi);
                if self.put_off(now, shared, error.clone()) {
                    return;
                }
                self.delete_forgotten(now, shared, error, offer.spi);
                self.rekey_failed(now, shared, replaces);
            }
            (error, None) if puts_off(error) && offer.wish.failures < MOST_FAILURES => {
                shared.release_spi(offer.spi);
                if self.put_off(now, shared, error.clone()) {
                    return shared.effects.push(Effect::RuleLost {
                        rule: offer.wish.rule,
                        error: Some(error.to_string()),
                    });
                }
                let wait = shared.backoff(offer.wish.failures);
                let failures = offer.wish.failures.saturating_add(1);
                let State::Established(established) = &mut self.state else { return };
                established.later.push((after(now, wait), Wish { failures, ..offer.wish }));
                self.delete_forgotten(now, shared, error, offer.spi);
            }
            (Error::Refused(NotifyType::CHILD_SA_NOT_FOUND), Some(old)) => {
                shared.release_spi(offer.spi);
                self.replaced_is_unknown(now, shared, old);
            }
            (Error::Refused(NotifyType::SINGLE_PAIR_REQUIRED), _) => {
                self.single_pair_required(now, shared, offer);
            }
            // RFC 7296 1.3: a peer that has but one Child SA an IKE SA wants another IKE SA.
            (Error::Refused(NotifyType::NO_ADDITIONAL_SAS), Some(_)) => {
                self.offer_failed(now, shared, offer, error);
                self.reauthenticate(shared);
            }
            _ => self.offer_failed(now, shared, offer, error),
        }
    }

    /// Responder: the peer asks for a Child SA, or for new keys of the IKE SA.
    pub(super) fn create_child_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        self.peer_has_answers(shared);
        let request = RequestId::new(opened, datagram);
        let inner = match opened.payloads() {
            Ok(inner) => inner,
            Err(error) => {
                let error = Error::from(error);
                return self.refuse_request(now, shared, path, opened, datagram, &error);
            }
        };
        let payloads = match Payloads::collect(ExchangeType::CREATE_CHILD_SA, &inner) {
            Ok(payloads) => payloads,
            Err(error) => {
                let withheld = Withheld::new(now, request, path, None);
                return self.release_answer(now, shared, withheld, Err(error));
            }
        };
        let of_ike = |sa: &gateway_wire::SecurityAssociation| {
            sa.proposals.iter().any(|p| p.protocol == ProtocolId::IKE)
        };
        if payloads.sa.is_some_and(of_ike) {
            return self.rekey_ike_request(now, shared, path, request, &payloads);
        }
        let withheld = Withheld::new(now, request, path, None);
        match self.negotiate_child(now, shared, &payloads) {
            Ok(Answer::Whole(negotiated)) => {
                self.install_withheld(now, shared, withheld, *negotiated);
            }
            Ok(Answer::More(words)) => {
                self.release_answer(now, shared, withheld, Ok(Some(words)));
            }
            Err(error) => self.release_answer(now, shared, withheld, Err(error)),
        }
    }

    fn negotiate_child(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<Answer, Error> {
        let rekey = payloads.notify(NotifyType::REKEY_SA);
        let named = match rekey.map(|n| <[u8; 4]>::try_from(n.spi)) {
            None => None,
            Some(Ok(spi)) => Some(u32::from_be_bytes(spi)),
            Some(Err(_)) => return Err(Error::BadRequest("REKEY_SA without the SPI of an ESP SA")),
        };
        let asked = if named.is_some() { Asked::RekeyChild } else { Asked::CreateChild };
        let decided = verdict(self.doing(named), asked);
        if let Verdict::NotNow(why) = decided {
            return Err(Error::TemporaryFailure(why));
        }
        let replaces = named.map(|spi| self.to_be_replaced(spi)).transpose()?;
        if let Some((old, _)) = &replaces {
            self.delete_doubtful(now, shared, *old);
        } else {
            self.delete_unknown(now, shared, payloads.sa);
        }
        self.check_room(shared, replaces.is_some())?;
        let their_nonce = payloads.require_nonce()?;
        let our_nonce: [u8; NONCE_LEN] = shared.octets()?;
        let request = ChildRequest {
            payloads,
            nonces: (their_nonce, &our_nonce),
            exchange: ChildExchange::CreateChild(payloads.ke.map(|ke| ke.method)),
            replaces,
            initial_contact: false,
        };
        let nonces = request.nonces;
        let agreement = child::negotiate(shared, self, &request)?;
        let child = agreement.terms.id;
        let series = agreement.series(nonces);
        let collided = (decided == Verdict::Compare).then(|| {
            let lowest_nonce = their_nonce.min(our_nonce.as_slice()).to_vec();
            Collided { child, lowest_nonce, series: series.is_some() }
        });
        let Some(series) = series else {
            let negotiated = agreement.conclude(shared, self, nonces)?;
            self.collide(collided);
            return Ok(Answer::Whole(Box::new(negotiated)));
        };
        let link: Link = match shared.octets() {
            Ok(link) => link,
            Err(error) => {
                shared.release_spi(agreement.terms.spi);
                return Err(error.into());
            }
        };
        let (terms, words) = agreement.more(link);
        self.keep_series(now, shared, (series, link), TheirGoal::Child(Box::new(terms)));
        self.collide(collided);
        Ok(Answer::More(words))
    }

    /// The Child SA that a REKEY_SA notification names by the peer's inbound SPI, our outbound one.
    fn to_be_replaced(&self, spi: u32) -> Result<(ChildId, Arc<Rule>), Error> {
        let found = self.children().find(|c| c.outbound_spi == spi && c.is_live());
        if let Some(found) = found {
            return Ok((found.id, Arc::clone(&found.rule)));
        }
        // The peer may have agreed to it in an answer that is still to come: it would give up what
        // we install then.
        let current = if let State::Established(e) = &self.state { &e.current } else { &None };
        Err(if current.as_ref().and_then(Current::offer).is_some() {
            Error::TemporaryFailure("a Child SA is being made")
        } else {
            Error::ChildSaNotFound(spi)
        })
    }

    /// What we are doing, as seen by a request about the Child SA with this outbound SPI.
    pub(super) fn doing(&self, outbound_spi: Option<u32>) -> Doing {
        let State::Established(established) = &self.state else { return Doing::DeleteIke };
        // As good as closed: what is made on it now would go with it.
        if established.superseded {
            return Doing::DeleteIke;
        }
        // A Delete that waits for its turn is as good as sent.
        let queued = self.jobs.iter().filter_map(|job| match job {
            Job::DeleteChild { peer_spi, .. } => Some(*peer_spi),
            Job::CreateChild(_)
            | Job::RekeyIke
            | Job::DeleteIke { .. }
            | Job::Liveness
            | Job::Probe
            | Job::CheckPath
            | Job::UpdateAddresses
            | Job::TellAddresses
            | Job::CrashToken => None,
        });
        let sent = match &established.current {
            Some(Current::DeleteChild { peer_spi, .. }) => Some(*peer_spi),
            _ => None,
        };
        let deleting: Vec<u32> = queued.chain(sent).collect();
        if outbound_spi.is_some_and(|spi| deleting.contains(&spi)) {
            return Doing::DeleteChild { same: true };
        }
        let named = self.children().find(|c| Some(c.outbound_spi) == outbound_spi).map(|c| c.id);
        match &established.current {
            Some(Current::CreateChild(ours)) => match ours.offer.wish.replaces {
                None => Doing::CreateChild,
                Some(old) => Doing::RekeyChild { same: named == Some(old) },
            },
            Some(Current::RekeyIke(_)) => Doing::RekeyIke,
            Some(Current::FollowUp(ours)) => match ours.goal.offer().map(|o| o.wish.replaces) {
                None => Doing::FollowUpIke,
                Some(None) => Doing::CreateChild,
                Some(Some(old)) => Doing::FollowUpChild { same: named == Some(old) },
            },
            Some(
                Current::DeleteChild { .. }
                | Current::Liveness
                | Current::Probe
                | Current::CheckPath { .. }
                | Current::UpdateAddresses(_)
                | Current::TellAddresses { .. },
            )
            | None => {
                if deleting.is_empty() {
                    Doing::Nothing
                } else {
                    Doing::DeleteChild { same: false }
                }
            }
        }
    }

    /// Answers an authentic request that breaks the protocol. A critical payload that we do not
    /// know costs only the request; anything else means that one of the two ends is broken, and
    /// the IKE SA ends (RFC 7296 2.21.3).
    pub(super) fn refuse_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
        error: &Error,
    ) {
        shared.count(Counter::InvalidMessage);
        self.event(shared, EventKind::Invalid(error.clone()));
        let words = notification_for(error);
        let payloads: Vec<Payload<'_>> = words.iter().map(|w| notify(w.kind, &w.data)).collect();
        let State::Established(established) = &mut self.state else { return };
        let request = RequestId::new(opened, datagram);
        match established.channel.respond(shared.random.as_mut(), request, &payloads) {
            Ok(answer) => shared.transmit(path, answer),
            Err(error) => return self.fail(shared, error),
        }
        if matches!(error, Error::UnsupportedCriticalPayload(_)) {
            return;
        }
        self.end(now, shared, "the peer sent an invalid message");
    }
}

/// What an error notification in an answer means to us: INVALID_KE_PAYLOAD with a method that we
/// have is a demand, all else a refusal.
pub(super) fn refused(error: &Notify<'_>) -> Error {
    let wanted = (error.kind == NotifyType::INVALID_KE_PAYLOAD)
        .then(|| <[u8; 2]>::try_from(error.data).ok())
        .flatten()
        .and_then(|id| Group::from_wire(KeMethod(u16::from_be_bytes(id))));
    wanted.map_or(Error::Refused(error.kind), |wanted| Error::InvalidKePayload { wanted })
}

/// The order in which RFC 7296 1.3.1 writes the payloads.
const fn order(payload: &Payload<'_>) -> u8 {
    if matches!(payload, Payload::Notify(_)) {
        0
    } else if matches!(payload, Payload::SecurityAssociation(_)) {
        1
    } else if matches!(payload, Payload::Nonce(_)) {
        2
    } else if matches!(payload, Payload::KeyExchange(_)) {
        3
    } else {
        4 // TSi and TSr, in this order already: the sort is stable
    }
}
