//! IKE_FOLLOWUP_KE, both roles: the additional key exchanges that follow a CREATE_CHILD_SA
//! (RFC 9370 2.2.4). This is the initiator's part and what both have in common; the responder's is
//! in [`theirs`].
//!
//! There is nothing new before the last of them: what is replaced goes on meanwhile, and a series
//! that breaks off leaves it as it is.

mod theirs;

use std::collections::VecDeque;
use std::time::Instant;

use gateway_wire::{ExchangeType, IkeSpi, KeyExchange, NotifyType, Payload};

pub(super) use self::theirs::{TheirGoal, TheirSeries};
use super::derive::Agreed;
use super::intermediate::value_for;
use super::jobs::Current;
use super::offer::{ChildAnswer, ChildOffer};
use super::{IkeSa, State, notify};
use crate::algorithms::{Additional, Group, IkeSuite};
use crate::channel::Opened;
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::error::Error;
use crate::keys::Key;
use crate::payloads::Payloads;
use crate::shared::Shared;

/// The data of our ADDITIONAL_KEY_EXCHANGE notifications; random, and another for each exchange.
pub(super) type Link = [u8; 8];

/// A link as it is sent.
pub(super) fn link_payload(link: &Link) -> Payload<'_> {
    notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link)
}

/// The key exchanges of one CREATE_CHILD_SA, of which some are still to come. No secret octet is
/// printed, since nothing is.
pub(super) struct Series {
    /// The secret of CREATE_CHILD_SA.
    first: Key,
    /// Those after it, one after the other.
    additional: Key,
    /// The nonces of the initiator and of the responder.
    nonces: (Vec<u8>, Vec<u8>),
    /// What is still to come, in order; at most seven.
    rounds: VecDeque<Group>,
}

impl Series {
    /// CREATE_CHILD_SA is done; these are to follow.
    pub(super) fn new(first: Key, nonces: (&[u8], &[u8]), additional: Additional) -> Self {
        Self {
            first,
            additional: Key::default(),
            nonces: (nonces.0.to_vec(), nonces.1.to_vec()),
            rounds: additional.iter().map(|(_, group)| group).collect(),
        }
    }

    /// What all have agreed on, once none is to come any more.
    fn agreed(&self) -> Agreed<'_> {
        Agreed::new(Some(&self.first), (&self.nonces.0, &self.nonces.1))
            .with_additional(&self.additional)
    }

    /// RFC 7296 2.8.1: decides between two that are to replace the same SA.
    pub(super) fn lowest_nonce(&self) -> &[u8] {
        self.agreed().lowest_nonce()
    }

    /// The next one is done.
    fn add(&mut self, secret: &Key) {
        self.rounds.pop_front();
        // Not extended in place, lest octets be left behind unwiped.
        self.additional = Key::new([self.additional.as_slice(), secret].concat());
    }
}

/// Our series: an IKE_FOLLOWUP_KE is sent.
pub(super) struct FollowUp {
    series: Series,
    pending: Box<dyn PendingKeyExchange>,
    pub(super) goal: Goal,
}

/// What our series is for.
pub(super) enum Goal {
    /// A Child SA.
    Child(Box<(ChildOffer, ChildAnswer)>),
    /// New keys of the IKE SA, with these SPIs: ours first.
    Ike {
        /// Ours and the peer's.
        spis: (IkeSpi, IkeSpi),
        /// What was negotiated.
        suite: IkeSuite,
    },
}

impl Goal {
    /// Our request for a Child SA, if that is it.
    pub(super) fn offer(&self) -> Option<&ChildOffer> {
        if let Self::Child(child) = self { Some(&child.0) } else { None }
    }

    /// The same, to be changed.
    pub(super) fn offer_mut(&mut self) -> Option<&mut ChildOffer> {
        if let Self::Child(child) = self { Some(&mut child.0) } else { None }
    }
}

impl IkeSa {
    /// Initiator: sends the next IKE_FOLLOWUP_KE, with what links it to the exchange before.
    pub(super) fn send_follow_up(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        series: Series,
        goal: Goal,
        link: &[u8],
    ) {
        let next = series.rounds.front().ok_or(Error::Internal("no key exchange is to follow"));
        let pending = next.and_then(|group| Ok(shared.key_exchange.generate(*group)?));
        let pending = match pending {
            Ok(pending) => pending,
            Err(error) => return self.series_failed(now, shared, goal, false, error),
        };
        // Once more, for the time that the last exchange takes.
        if let Some(offer) = goal.offer().filter(|_| series.rounds.len() == 1) {
            self.expect(shared, offer);
        }
        let (method, public) = (pending.group().id(), pending.public().to_vec());
        self.set_current(Current::FollowUp(Box::new(FollowUp { series, pending, goal })));
        let payloads = [
            Payload::KeyExchange(KeyExchange { method, data: &public }),
            notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link),
        ];
        if let Err(error) = self.send_request(now, shared, ExchangeType::IKE_FOLLOWUP_KE, &payloads)
        {
            self.fail(shared, error);
        }
    }

    /// Initiator: the authentic answer.
    pub(super) fn follow_up_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        follow_up: FollowUp,
    ) {
        let FollowUp { mut series, pending, goal } = follow_up;
        let last = series.rounds.len() <= 1;
        let checked = opened.payloads().map_err(Error::from).and_then(|payloads| {
            let payloads = Payloads::collect(ExchangeType::IKE_FOLLOWUP_KE, &payloads)?;
            let value = value_for(pending.group(), &payloads)?;
            let secret = pending.agree(value)?;
            let link = if last { &[] } else { payloads.require_link()? };
            Ok((secret, link.to_vec()))
        });
        match checked {
            Err(error) => self.series_failed(now, shared, goal, last, error),
            Ok((secret, link)) => {
                series.add(&secret);
                if last {
                    self.series_done(now, shared, &series, goal);
                } else {
                    self.send_follow_up(now, shared, series, goal, &link);
                }
            }
        }
    }

    /// Initiator: both ends have all secrets.
    fn series_done(&mut self, now: Instant, shared: &mut Shared, series: &Series, goal: Goal) {
        self.not_put_off();
        match goal {
            Goal::Child(child) => {
                let (offer, answer) = *child;
                self.install_answered(now, shared, offer, answer, series.agreed(), false);
            }
            Goal::Ike { spis, suite } => {
                let State::Established(established) = &self.state else { return };
                match series.agreed().successor(&established.channel, spis, true, suite) {
                    Ok(channel) => self.move_to_ours(now, shared, channel),
                    Err(error) => self.rekey_ike_failed(now, shared, None, error),
                }
            }
        }
    }

    /// Initiator: nothing comes of it. Only after the last exchange may the peer believe that
    /// there is something new.
    fn series_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        goal: Goal,
        last: bool,
        error: Error,
    ) {
        match goal {
            Goal::Child(child) => self.child_refused(now, shared, child.0, None, error),
            Goal::Ike { .. } if last => self.rekey_ike_failed(now, shared, None, error),
            Goal::Ike { .. } => self.rekey_put_off(now, shared, error),
        }
    }
}
