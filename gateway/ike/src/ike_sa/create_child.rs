//! CREATE_CHILD_SA: Child SAs beyond the first, and their successors (RFC 7296 1.3).

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{ExchangeType, Nonce, Notify, NotifyType, Payload, ProtocolId};

use super::child::{self, ChildOffer, Withheld};
use super::jobs::{Current, Wish};
use super::{IkeSa, Job, State};
use crate::channel::{Opened, RequestId};
use crate::counters::Counter;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{ChildId, Path};
use crate::payloads::Payloads;
use crate::shared::Shared;

use super::notify;

/// Octets of our nonces.
const NONCE_LEN: usize = 32;

impl IkeSa {
    /// Initiator: asks for a Child SA.
    pub(super) fn send_create_child(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        wish: Wish,
    ) -> Result<(), Error> {
        let Some(offer) = ChildOffer::new(shared, self.id, wish)? else { return Ok(()) };
        let nonce: [u8; NONCE_LEN] = shared.octets()?;
        // RFC 7296 1.3.3: the SPI is the one that *we* expect in ESP of the SA replaced.
        let old = self.child(offer.wish.replaces).map(|c| c.inbound_spi.to_be_bytes());
        let rekey = old.as_ref().map(|spi| {
            Payload::Notify(Notify {
                protocol: ProtocolId::ESP,
                spi,
                kind: NotifyType::REKEY_SA,
                data: &[],
            })
        });
        let mut payloads: Vec<Payload<'_>> = rekey.into_iter().collect();
        payloads.extend(offer.payloads());
        payloads.push(Payload::Nonce(Nonce(&nonce)));
        // RFC 7296 1.3.1 gives the order SA, Ni, TSi, TSr; receivers must take any (2.5), but
        // some old ones do not.
        payloads.sort_by_key(order);
        self.send_request(now, shared, ExchangeType::CREATE_CHILD_SA, &payloads)?;
        self.set_current(Current::CreateChild { offer: Box::new(offer), nonce: nonce.to_vec() });
        Ok(())
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
        offer: ChildOffer,
        our_nonce: &[u8],
    ) {
        let nat = self.negotiated().1;
        let checked = opened.payloads().map_err(Error::from).and_then(|payloads| {
            let payloads = Payloads::collect(ExchangeType::CREATE_CHILD_SA, &payloads)?;
            let answer = offer.check_answer(&payloads, nat)?;
            Ok((answer, payloads.require_nonce()?.to_vec()))
        });
        match checked {
            Ok((answer, their_nonce)) => {
                self.install_offered(now, shared, offer, answer, (our_nonce, &their_nonce));
            }
            Err(error) => self.offer_failed(now, shared, offer, error),
        }
    }

    /// Responder: the peer asks for a Child SA.
    pub(super) fn create_child_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        let request = RequestId::new(opened, datagram);
        let withheld = Withheld::new(now, request, path, None);
        let inner = match opened.payloads() {
            Ok(inner) => inner,
            Err(error) => {
                return self.refuse_request(
                    now,
                    shared,
                    path,
                    opened,
                    datagram,
                    &Error::from(error),
                );
            }
        };
        let negotiated =
            Payloads::collect(ExchangeType::CREATE_CHILD_SA, &inner).and_then(|payloads| {
                if payloads.require_sa()?.proposals.iter().any(|p| p.protocol == ProtocolId::IKE) {
                    return Err(Error::NoAdditionalSas("rekeying of the IKE SA"));
                }
                let their_nonce = payloads.require_nonce()?;
                let our_nonce: [u8; NONCE_LEN] = shared.octets()?;
                child::negotiate(
                    shared,
                    self,
                    &payloads,
                    (their_nonce, &our_nonce),
                    Some(our_nonce.to_vec()),
                )
            });
        match negotiated {
            Ok(negotiated) => self.install_withheld(now, shared, withheld, negotiated),
            Err(error) => self.release_answer(now, shared, withheld, Err(error)),
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

    /// A soft limit was reached, or a hard one: the Child SA gets a successor.
    pub(crate) fn child_expired(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        hard: bool,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let Some(expired) = established.children.get_mut(&child) else { return };
        if hard {
            return self.delete_child(now, shared, child, "expired");
        }
        if !expired.successor_wanted {
            expired.successor_wanted = true;
            let rule = Arc::clone(&expired.rule.name);
            let wish = Wish { rule, acquire_seq: None, replaces: Some(child) };
            self.add_job(now, shared, Job::CreateChild(wish));
        }
    }
}

/// The order in which RFC 7296 1.3.1 writes the payloads.
const fn order(payload: &Payload<'_>) -> u8 {
    if matches!(payload, Payload::Notify(_)) {
        0
    } else if matches!(payload, Payload::SecurityAssociation(_)) {
        1
    } else if matches!(payload, Payload::Nonce(_)) {
        2
    } else {
        3 // TSi and TSr, in this order already: the sort is stable
    }
}
