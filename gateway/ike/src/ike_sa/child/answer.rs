//! A responder's answer about a Child SA, withheld until the kernel has what it promises.

use std::time::Instant;

use gateway_wire::{
    KeyExchange, Notify, NotifyType, Payload, ProtocolId, SecurityAssociation, TrafficSelector,
    TrafficSelectors,
};

use super::super::auth::AuthAnswer;
use super::super::established::AnsweredChild;
use super::super::follow_up::{self, Link};
use super::super::mobility::mobike;
use super::super::{IkeSa, State, notify};
use crate::algorithms::Group;
use crate::channel::RequestId;
use crate::counters::Counter;
use crate::crash;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{ChildId, ChildSpec, Path};
use crate::leases::Reply;
use crate::shared::Shared;
use crate::time::after;

/// The responder's answer about the Child SA.
#[derive(Debug, Clone)]
pub(in crate::ike_sa) struct ChildWords {
    pub(super) spi: u32,
    /// What was negotiated; the last IKE_FOLLOWUP_KE does not say it again.
    pub(super) terms: Option<Box<TermsWords>>,
    /// Our public value, if the Child SA has a key exchange of its own.
    pub(super) ke: Option<(Group, Vec<u8>)>,
    /// There are more key exchanges to come before there is a Child SA.
    pub(super) link: Option<Link>,
}

/// What was negotiated, in the responder's words.
#[derive(Debug, Clone)]
pub(super) struct TermsWords {
    pub(super) sa: SecurityAssociation,
    pub(super) ts_i: Vec<TrafficSelector>,
    pub(super) ts_r: Vec<TrafficSelector>,
    pub(super) transport: bool,
    /// Our nonce, in CREATE_CHILD_SA.
    pub(super) nonce: Option<Vec<u8>>,
}

/// A good answer that waits until the kernel has what it promises.
pub(in crate::ike_sa) struct Withheld {
    request: RequestId,
    path: Path,
    pub(in crate::ike_sa) deadline: Instant,
    identity: Option<AuthAnswer>,
    /// The addresses that the peer has asked for.
    pub(in crate::ike_sa) configuration: Option<Reply>,
    pub(super) child: Option<(ChildId, ChildWords)>,
    /// What the kernel is asked to install.
    pub(super) spec: Option<Box<ChildSpec>>,
    /// SPIs that the kernel would not take.
    pub(super) taken: u32,
}

impl Withheld {
    pub(in crate::ike_sa) const fn new(
        now: Instant,
        request: RequestId,
        path: Path,
        identity: Option<AuthAnswer>,
    ) -> Self {
        Self {
            request,
            path,
            deadline: now,
            identity,
            configuration: None,
            child: None,
            spec: None,
            taken: 0,
        }
    }

    pub(in crate::ike_sa) fn child(&self) -> Option<ChildId> {
        self.child.as_ref().map(|(id, _)| *id)
    }
}

impl IkeSa {
    /// Responder: the answer goes out, with the Child SA or with the reason why there is none.
    pub(in crate::ike_sa) fn release_answer(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        withheld: Withheld,
        child: Result<Option<ChildWords>, Error>,
    ) {
        let State::Established(established) = &mut self.state else { return };
        if let (Err(_), Some(refused)) = (&child, withheld.child()) {
            established.forget_collided(refused);
        }
        let id = withheld.identity.as_ref().map(AuthAnswer::id);
        let mut payloads = Vec::new();
        if let (Some(answer), Some((kind, data))) = (&withheld.identity, &id) {
            payloads.extend(answer.payloads(*kind, data));
        }
        let token = withheld
            .identity
            .as_ref()
            .and_then(|_| shared.crash_tokens.token((self.initiator_spi, self.responder_spi)));
        payloads.extend(token.iter().map(|token| crash::payload(token)));
        if withheld.identity.is_some() && established.channel.peer_sets_ids() {
            payloads.push(notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]));
        }
        payloads.extend(withheld.configuration.iter().map(|c| Payload::Configuration(c.payload())));
        let mobility = match (&withheld.identity, &self.peer, &established.mobike) {
            (Some(_), Some(peer), Some(_)) => mobike::announcement(shared, peer, self.path),
            _ => Vec::new(),
        };
        payloads.extend(mobike::payloads(&mobility));
        let error = child.as_ref().err().and_then(notification_for);
        let named = match &child {
            // RFC 7296 2.25: the SPI field is copied from the REKEY_SA notification.
            Err(Error::ChildSaNotFound(spi)) => Some(spi.to_be_bytes()),
            Ok(_) | Err(_) => None,
        };
        match &child {
            Ok(Some(words)) => payloads.extend(words.payloads()),
            Ok(None) => {}
            Err(_) => payloads.extend(error.iter().map(|e| match &named {
                Some(spi) => Payload::Notify(Notify {
                    protocol: ProtocolId::ESP,
                    spi,
                    kind: e.kind,
                    data: &e.data,
                }),
                None => notify(e.kind, &e.data),
            })),
        }
        match established.channel.respond(shared.random.as_mut(), withheld.request, &payloads) {
            Ok(answer) => shared.transmit(withheld.path, answer),
            Err(error) => return self.fail(shared, error),
        }
        // RFC 7296 2.21.2, 2.21.3: that one is fatal at both ends, without a Delete.
        let fatal = error.is_some_and(|e| e.kind == NotifyType::INVALID_SYNTAX);
        if fatal && let Err(error) = child {
            self.child_failed(shared, None, false, error);
            return self.end(now, shared, "the peer sent an invalid message");
        }
        match child {
            Ok(Some(words)) if words.makes_one() => {
                let spi = words.spi;
                let until = after(now, shared.config.patience());
                if let State::Established(established) = &mut self.state {
                    established.answered = Some(AnsweredChild { spi, until });
                }
            }
            Ok(_) => {}
            Err(error @ (Error::TemporaryFailure(_) | Error::ChildSaNotFound(_))) => {
                // The ends were out of step for a moment: nothing is wrong.
                shared.count(Counter::TemporaryFailure);
                self.event(shared, EventKind::PutOff(error));
            }
            Err(error @ Error::StateNotFound) => {
                shared.count(Counter::StateNotFound);
                self.event(shared, EventKind::PutOff(error));
            }
            Err(error) => {
                if matches!(error, Error::NoAdditionalSas { .. }) {
                    shared.count(Counter::NoAdditionalSas);
                }
                if matches!(error, Error::NoAdditionalSasOfPeer { .. }) {
                    shared.count(Counter::PeerChildSaLimit);
                }
                self.child_failed(shared, None, false, error);
            }
        }
        self.next_job(now, shared);
    }
}

impl ChildWords {
    /// The answer to an IKE_FOLLOWUP_KE that is not the last one.
    pub(in crate::ike_sa) const fn more(value: (Group, Vec<u8>), link: Link) -> Self {
        Self { spi: 0, terms: None, ke: Some(value), link: Some(link) }
    }

    /// Another inbound SPI, before anybody has seen the first.
    pub(super) fn set_spi(&mut self, spi: u32) {
        self.spi = spi;
        for proposal in self.terms.iter_mut().flat_map(|terms| &mut terms.sa.proposals) {
            proposal.spi = spi.to_be_bytes().to_vec();
        }
    }

    /// Whether it names its SPI: the last IKE_FOLLOWUP_KE does not, it has been named before.
    pub(super) const fn names_spi(&self) -> bool {
        self.terms.is_some()
    }

    /// Whether the peer has a new Child SA with this answer, beside the first.
    fn makes_one(&self) -> bool {
        self.link.is_none() && self.terms.as_ref().is_none_or(|terms| terms.nonce.is_some())
    }

    fn payloads(&self) -> Vec<Payload<'_>> {
        let ke = self
            .ke
            .as_ref()
            .map(|(group, data)| Payload::KeyExchange(KeyExchange { method: group.id(), data }));
        let link = self.link.as_ref().map(follow_up::link_payload);
        let Some(terms) = &self.terms else { return ke.into_iter().chain(link).collect() };
        let transport = terms.transport.then(|| notify(NotifyType::USE_TRANSPORT_MODE, &[]));
        let nonce = terms.nonce.as_deref().map(|n| Payload::Nonce(gateway_wire::Nonce(n)));
        transport
            .into_iter()
            .chain([Payload::SecurityAssociation(terms.sa.clone())])
            .chain(nonce)
            .chain(ke)
            .chain([
                Payload::TsInitiator(TrafficSelectors::new(terms.ts_i.clone())),
                Payload::TsResponder(TrafficSelectors::new(terms.ts_r.clone())),
            ])
            .chain(link)
            .collect()
    }
}
