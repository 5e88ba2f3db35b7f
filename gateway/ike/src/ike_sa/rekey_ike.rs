//! New keys for an IKE SA, by either end (RFC 7296 1.3.2, 2.8, 2.18).
//!
//! The IKE SA stays what it is, with its number, its Child SAs and all that waits for it, and gets
//! another channel: keys, SPIs and message IDs. The old channel, and one that a collision has made
//! redundant, become IKE SAs of their own whose only business is to be deleted.

use std::time::Instant;

use gateway_wire::{ExchangeType, IkeSpi, KeyExchange, Nonce, NotifyType, Payload};

use super::collision::{Asked, Verdict, verdict};
use super::create_child::{MOST_GROUPS, NONCE_LEN, refused};
use super::derive::Agreed;
use super::follow_up::{Goal, Link, Series, TheirGoal, TheirSeries};
use super::jobs::Current;
use super::leftover::Leftover;
use super::put_off::puts_off;
use super::successor::{Made, Successor, Words, first_of, proposals_for};
use super::{IkeSa, Job, State, notify};
use crate::algorithms::{Group, IkeProposal};
use crate::channel::{Channel, Opened, RequestId};
use crate::counters::Counter;
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::Path;
use crate::payloads::Payloads;
use crate::proposal::{self, Rounds};
use crate::reason::{Offer, bad_choice, no_common_proposal};
use crate::shared::Shared;
use crate::time::after;

/// Our request for new keys that is under way.
pub(super) struct RekeyingIke {
    pending: Box<dyn PendingKeyExchange>,
    nonce: [u8; NONCE_LEN],
    /// What we offered.
    proposals: Vec<IkeProposal>,
    /// Our SPI of the new IKE SA.
    spi: IkeSpi,
    /// The peer has rekeyed the same IKE SA meanwhile: what that exchange has made.
    collided: Option<Successor>,
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
        let proposals = proposals_for(shared, &peer, established);
        // The method that the peer asked for, or the one that it surely knows, or our best.
        let wanted = established.rekey_group.map(|(group, _)| group);
        let wanted = wanted.or(Some(established.channel.suite.group));
        let Some(group) = first_of(&proposals, wanted) else {
            // What the rules demand now can only be had from scratch.
            self.reauthenticate(shared);
            return Ok(());
        };
        let pending = shared.key_exchange.generate(group)?;
        let nonce: [u8; NONCE_LEN] = shared.octets()?;
        let spi = shared.ike_spi()?;
        let payloads = [
            Payload::SecurityAssociation(proposal::with_ike_spi(
                proposal::offer_ike(&proposals),
                spi,
            )),
            Payload::Nonce(Nonce(&nonce)),
            Payload::KeyExchange(KeyExchange { method: group.id(), data: pending.public() }),
        ];
        self.send_request(now, shared, ExchangeType::CREATE_CHILD_SA, &payloads)?;
        let rekeying = RekeyingIke { pending, nonce, proposals, spi, collided: None };
        self.set_current(Current::RekeyIke(Box::new(rekeying)));
        Ok(())
    }

    /// Whether an IKE SA with this SPI of ours may come of a rekeying that is under way.
    pub(crate) fn may_get_spi(&self, spi: IkeSpi) -> bool {
        let State::Established(established) = &self.state else { return false };
        let here = match &established.current {
            Some(Current::RekeyIke(ours)) => {
                let theirs = ours.collided.as_ref().map(|c| c.channel.our_spi());
                ours.spi == spi || theirs == Some(spi)
            }
            Some(Current::FollowUp(ours)) => {
                matches!(ours.goal, Goal::Ike { spis, .. } if spis.0 == spi)
            }
            Some(
                Current::CreateChild(_)
                | Current::DeleteChild { .. }
                | Current::Liveness
                | Current::Probe
                | Current::CheckPath { .. }
                | Current::UpdateAddresses(_)
                | Current::TellAddresses { .. },
            )
            | None => false,
        };
        here || established.theirs.iter().any(|series| series.makes_ike(spi))
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
        let made = match ours {
            Ok(made) => made,
            Err(error) => {
                return match collided {
                    // The peer's rekeying alone has succeeded, or may yet.
                    Some(theirs) => {
                        self.move_to(now, shared, theirs.channel, Leftover::Theirs, None);
                    }
                    None => self.rekey_ike_failed(now, shared, Some(sent), error),
                };
            }
        };
        // What the peer has begun meanwhile, if there are more key exchanges to come.
        let State::Established(established) = &self.state else { return };
        let series = established.theirs.iter().find(|s| s.is_of_ike_sa());
        let their_lowest = collided.as_ref().map(|c| c.lowest_nonce.as_slice());
        let their_lowest = their_lowest.or_else(|| series.map(TheirSeries::lowest_nonce));
        // RFC 7296 2.8.2: the survivor gets the Child SAs, and who made it deletes the old one;
        // the redundant one is deleted by who made that. Where there is nothing to delete yet it
        // just does not go on (RFC 9370 2.2.4). A series of the peer's that has come to its end
        // stands at both ends: the peer had begun it before it knew of our request.
        let stands = collided.as_ref().is_some_and(|c| c.of_series);
        let yields = their_lowest.is_some_and(|lowest| stands || made.lowest_nonce() < lowest);
        if their_lowest.is_some() {
            shared.count(Counter::RekeyCollision);
        }
        match (made, collided) {
            (Made::Successor(ours), Some(theirs)) if yields => {
                let redundant = Some(Leftover::Ours(ours.channel));
                self.move_to(now, shared, theirs.channel, Leftover::Theirs, redundant);
            }
            (Made::Successor(ours), None) if yields => {
                self.leave(now, shared, Leftover::Ours(ours.channel));
                self.renew_later(now, shared);
            }
            (Made::Successor(ours), theirs) => {
                let redundant = theirs.map(|theirs| Leftover::Theirs(theirs.channel));
                self.move_to(now, shared, ours.channel, Leftover::Ours, redundant);
            }
            (Made::Series { .. }, Some(theirs)) if yields => {
                self.move_to(now, shared, theirs.channel, Leftover::Theirs, None);
            }
            (Made::Series { .. }, None) if yields => self.renew_later(now, shared),
            (Made::Series { series, goal, link }, theirs) => {
                if let Some(theirs) = theirs {
                    self.leave(now, shared, Leftover::Theirs(theirs.channel));
                }
                self.drop_series(shared, TheirSeries::is_of_ike_sa);
                self.send_follow_up(now, shared, series, goal, &link);
            }
        }
    }

    /// Initiator: our own successor has come about by IKE_FOLLOWUP_KE.
    pub(super) fn move_to_ours(&mut self, now: Instant, shared: &mut Shared, channel: Channel) {
        self.move_to(now, shared, channel, Leftover::Ours, None);
    }

    /// What the answer makes, and the peer's successor if there is one.
    fn check_rekeyed(
        &self,
        opened: &Opened,
        rekeying: RekeyingIke,
    ) -> (Result<Made, Error>, Option<Successor>) {
        let RekeyingIke { pending, nonce, proposals, spi, collided } = rekeying;
        let check = || {
            let State::Established(established) = &self.state else {
                return Err(Error::Internal("no IKE SA"));
            };
            let inner = opened.payloads()?;
            let payloads = Payloads::collect(ExchangeType::CREATE_CHILD_SA, &inner)?;
            if payloads.sa.is_none()
                && let Some(error) = payloads.error()
            {
                return Err(refused(error));
            }
            let chosen = payloads.require_sa()?;
            let suite = proposal::accept_ike(&proposals, chosen, Rounds::Possible);
            let suite = suite.map_err(|error| {
                let peer = self.peer.as_ref().map(|peer| &peer.name);
                let offer = Offer { peer, rule: None, sa: proposal::offer_ike(&proposals) };
                bad_choice(error, offer, chosen, Rounds::Possible)
            })?;
            let ke = payloads.require_ke()?;
            if suite.group != pending.group() || ke.method != suite.group.id() {
                return Err(Error::BadAnswer("another key exchange method than the one we sent"));
            }
            let spis = (spi, proposal::ike_spi(chosen, chosen)?);
            let nonces = (nonce.as_slice(), payloads.require_nonce()?);
            let secret = pending.agree(ke.data)?;
            if !suite.additional.is_empty() {
                let link = payloads.require_link()?.to_vec();
                let series = Series::new(secret, nonces, suite.additional);
                return Ok(Made::Series { series, goal: Goal::Ike { spis, suite }, link });
            }
            let agreed = Agreed::new(Some(&secret), nonces);
            let channel = agreed.successor(&established.channel, spis, true, suite)?;
            let lowest_nonce = agreed.lowest_nonce().to_vec();
            Ok(Made::Successor(Box::new(Successor { channel, lowest_nonce, of_series: false })))
        };
        (check(), collided)
    }

    /// Initiator: the IKE SA keeps its keys for now.
    pub(super) fn rekey_ike_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        sent: Option<Group>,
        error: Error,
    ) {
        let peer = self.peer.clone();
        let State::Established(established) = &mut self.state else { return };
        let tries = established.rekey_group.map_or(0, |(_, tries)| tries);
        if let Error::InvalidKePayload { wanted } = &error
            && sent != Some(*wanted)
            && tries < MOST_GROUPS
            && peer.as_ref().is_some_and(|p| p.proposals.iter().any(|x| x.groups.contains(wanted)))
        {
            established.rekey_group = Some((*wanted, tries.saturating_add(1)));
            self.event(shared, EventKind::OtherGroup(wanted.to_string()));
            self.jobs.push_front(Job::RekeyIke);
            return;
        }
        if puts_off(&error) {
            return self.rekey_put_off(now, shared, error);
        }
        self.renew_later(now, shared);
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

    /// Initiator: the IKE SA keeps its keys for now, and the peer has no others either.
    pub(super) fn rekey_put_off(&mut self, now: Instant, shared: &mut Shared, error: Error) {
        self.renew_later(now, shared);
        if puts_off(&error) {
            self.put_off(now, shared, error);
            return;
        }
        let refused = matches!(error, Error::Refused(_));
        self.event(shared, EventKind::RekeyFailed(error));
        if refused {
            self.reauthenticate(shared);
        }
    }

    /// Another attempt, unless there is a successor by then.
    fn renew_later(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        let wait = shared.backoff(established.failures);
        established.failures = established.failures.saturating_add(1);
        established.rekey_group = None;
        established.renew_at = Some(after(now, wait));
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
                self.agree_rekey(now, shared, payloads)
            }
        };
        self.answer_rekey(now, shared, path, request, agreed);
    }

    /// Responder: answers about new keys, and goes on with them if there is a successor.
    pub(super) fn answer_rekey(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        request: RequestId,
        agreed: Result<(Option<Successor>, Words), Error>,
    ) {
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
            Ok((None, _)) => {}
            Ok((Some(successor), _)) => match &mut established.current {
                Some(Current::RekeyIke(ours)) => ours.collided = Some(successor),
                Some(
                    Current::CreateChild(_)
                    | Current::DeleteChild { .. }
                    | Current::FollowUp(_)
                    | Current::Liveness
                    | Current::Probe
                    | Current::CheckPath { .. }
                    | Current::UpdateAddresses(_)
                    | Current::TellAddresses { .. },
                )
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
        &mut self,
        now: Instant,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<(Option<Successor>, Words), Error> {
        let State::Established(established) = &self.state else {
            return Err(Error::Internal("no IKE SA"));
        };
        let peer = self.peer.as_ref().ok_or(Error::Internal("no peer"))?;
        let (offered, ke) = (payloads.require_sa()?, payloads.require_ke()?);
        let their_nonce = payloads.require_nonce()?;
        let ours = proposals_for(shared, peer, established);
        let (chosen, suite) = proposal::select_ike(&ours, offered, ke.method, Rounds::Possible)
            .ok_or_else(|| {
                let sa = proposal::offer_ike(&ours);
                let offer = Offer { peer: Some(&peer.name), rule: None, sa };
                let refusal = no_common_proposal(&[offer], offered, Rounds::Possible);
                Error::NoProposalChosen(Box::new(refusal))
            })?;
        if suite.group.id() != ke.method {
            return Err(Error::InvalidKePayload { wanted: suite.group });
        }
        let peer_spi = proposal::ike_spi(offered, &chosen)?;
        let exchanged = shared.key_exchange.respond(suite.group, ke.data)?;
        let (nonce, spi): ([u8; NONCE_LEN], _) = (shared.octets()?, shared.ike_spi()?);
        let (nonces, spis) = ((their_nonce, nonce.as_slice()), (peer_spi, spi));
        let terms = Some((proposal::with_ike_spi(chosen, spi), nonce));
        let ke = (suite.group, exchanged.value);
        if suite.additional.is_empty() {
            let agreed = Agreed::new(Some(&exchanged.secret), nonces);
            let channel = agreed.successor(&established.channel, spis, false, suite)?;
            let lowest_nonce = agreed.lowest_nonce().to_vec();
            let successor = Successor { channel, lowest_nonce, of_series: false };
            return Ok((Some(successor), Words { terms, ke, link: None }));
        }
        let link: Link = shared.octets()?;
        let series = Series::new(exchanged.secret, nonces, suite.additional);
        self.keep_series(now, shared, (series, link), TheirGoal::Ike { spis, suite });
        Ok((None, Words { terms, ke, link: Some(link) }))
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
}
