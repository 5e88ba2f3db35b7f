//! INFORMATIONAL: deletes, liveness, and what a peer has to tell (RFC 7296 1.4).

use std::mem;
use std::time::Instant;

use gateway_wire::{Delete, ExchangeType, NotifyType, Payload, ProtocolId};

use super::jobs::Current;
use super::mobility::mobike;
use super::{Closing, IkeSa, State};
use crate::channel::{Opened, RequestId};
use crate::crash;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, Path};
use crate::payloads::Payloads;
use crate::shared::Shared;

impl IkeSa {
    /// An authentic INFORMATIONAL request. It is answered in any case: an empty one asks just
    /// for that.
    pub(super) fn informational_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
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
        let payloads = match Payloads::collect(ExchangeType::INFORMATIONAL, &inner) {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse_request(now, shared, path, opened, datagram, &error),
        };
        self.keep_token(crash::given(payloads.notify(NotifyType::QUICK_CRASH_DETECTION)));
        let mobility = self.mobility_request(now, shared, path, &payloads);
        let ends = payloads.deletes.iter().any(|d| d.protocol == ProtocolId::IKE);
        let State::Established(established) = &mut self.state else { return };
        let failed = mem::take(&mut established.unconfirmed)
            .then(|| payloads.notifies.iter().map(|n| n.kind).find(|k| refuses_auth(*k)))
            .flatten();
        let deleted = if ends { Vec::new() } else { self.delete_named(now, shared, &payloads) };
        // After the Deletes: one of them may be for the very SA that we were about to send by.
        self.peer_has_answers(shared);
        let mut answer: Vec<_> = mobike::payloads(&mobility).collect();
        if !deleted.is_empty() {
            answer.push(Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: deleted }));
        }
        let State::Established(established) = &mut self.state else { return };
        match established.channel.respond(
            shared.random.as_mut(),
            RequestId::new(opened, datagram),
            &answer,
        ) {
            Ok(answer) => shared.transmit(path, answer),
            Err(error) => return self.fail(shared, error),
        }
        if let Some(kind) = failed {
            self.event(shared, EventKind::Failed(Error::Refused(kind)));
            self.end(now, shared, "the peer did not accept our IKE_AUTH");
        } else if ends && !self.adopt_collided(now, shared) {
            self.end(now, shared, "deleted by the peer");
        } else {
            self.next_job(now, shared);
        }
    }

    /// Gives up the Child SAs that a Delete names by the peer's inbound SPIs, our outbound ones;
    /// gives our inbound SPIs, which the answer names in turn (RFC 7296 1.4.1).
    fn delete_named(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Vec<u32> {
        let named = |spi: u32| {
            payloads.deletes.iter().any(|d| d.protocol == ProtocolId::ESP && d.spis.contains(&spi))
        };
        let found: Vec<(ChildId, u32)> = self
            .children()
            .filter(|c| named(c.outbound_spi))
            .map(|c| (c.id, c.outbound_spi))
            .collect();
        if let State::Established(established) = &mut self.state
            && let Some(offer) = established.current.as_mut().and_then(Current::offer_mut)
        {
            let deletes = payloads.deletes.iter().filter(|d| d.protocol == ProtocolId::ESP);
            let spis = deletes.flat_map(|d| d.spis.iter().copied());
            let unknown = spis.filter(|spi| !found.iter().any(|(_, known)| known == spi));
            offer.note_deleted(shared, unknown);
        }
        found
            .into_iter()
            .filter_map(|(child, _)| self.deleted_by_peer(now, shared, child))
            .collect()
    }

    /// The IKE SA is over, and the peer knows; what is left repeats the last answer.
    pub(super) fn end(&mut self, now: Instant, shared: &mut Shared, reason: &'static str) {
        self.abandon(shared, reason, None);
        self.event(shared, EventKind::Closed(reason));
        if let State::Established(mut established) = mem::replace(&mut self.state, State::Closed) {
            established.channel.response_received();
            self.state = State::Closing(Box::new(Closing::new(now, shared, established.channel)));
        }
    }
}

/// The errors that end an IKE SA without a Delete when they follow IKE_AUTH at once; later they
/// change nothing (RFC 7296 2.21.2, 2.21.4).
pub(super) const fn refuses_auth(kind: NotifyType) -> bool {
    matches!(
        kind,
        NotifyType::AUTHENTICATION_FAILED
            | NotifyType::INVALID_SYNTAX
            | NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD
    )
}
