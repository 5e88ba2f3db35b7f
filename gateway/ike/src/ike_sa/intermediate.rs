//! IKE_INTERMEDIATE, both roles: the additional key exchanges between IKE_SA_INIT and IKE_AUTH
//! (RFC 9242, RFC 9370 2.2.2).
//!
//! Nobody is authenticated yet. What somebody in between changes here is found in IKE_AUTH, whose
//! signed octets cover these messages.

use core::mem;
use std::collections::VecDeque;
use std::time::Instant;

use gateway_wire::{ExchangeType, KeyExchange, Payload, PayloadType};

use super::auth::Transcript;
use super::{HalfOpen, IkeSa, State};
use crate::algorithms::Group;
use crate::channel::{Channel, Datagrams, Opened, RequestId};
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::error::Error;
use crate::io::Path;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::shared::Shared;
use crate::time::after;

/// What IKE_SA_INIT leaves to an initiator.
pub(crate) struct KeyRounds {
    pub(super) channel: Channel,
    pub(super) transcript: Transcript,
    pub(super) nat: NatDetected,
    /// Whether IKE_AUTH leaves the first Child SA out (RFC 6023).
    pub(super) childless: bool,
    /// The key exchanges that are still to come, in order; at most seven.
    pub(super) rounds: VecDeque<Group>,
}

/// Initiator: IKE_INTERMEDIATE is sent.
pub(crate) struct AwaitIntermediate {
    pub(super) rounds: KeyRounds,
    pending: Box<dyn PendingKeyExchange>,
}

impl IkeSa {
    /// Initiator: begins the next additional key exchange, or IKE_AUTH after the last one.
    pub(super) fn next_round(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        mut rounds: KeyRounds,
    ) -> Result<(), Error> {
        let Some(group) = rounds.rounds.pop_front() else {
            return self.send_auth(now, shared, rounds);
        };
        let pending = shared.key_exchange.generate(group)?;
        let public = pending.public().to_vec();
        let ke = Payload::KeyExchange(KeyExchange { method: group.id(), data: &public });
        self.state = State::AwaitIntermediate(Box::new(AwaitIntermediate { rounds, pending }));
        self.send_request(now, shared, ExchangeType::IKE_INTERMEDIATE, &[ke])
    }

    /// Initiator: the answer to IKE_INTERMEDIATE.
    pub(super) fn intermediate_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
    ) {
        let State::AwaitIntermediate(waiting) = mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let AwaitIntermediate { mut rounds, pending } = *waiting;
        let next =
            agree(&mut rounds, pending, opened).and_then(|()| self.next_round(now, shared, rounds));
        if let Err(error) = next {
            self.fail(shared, error);
        }
    }

    /// Responder: the next additional key exchange. It is answered under the keys that the
    /// request has, and then the keys change.
    pub(super) fn intermediate_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        let State::HalfOpen(half_open) = &mut self.state else { return };
        let request = RequestId::new(opened, datagram);
        match answer(shared, half_open, request, opened) {
            Ok(answer) => {
                half_open.deadline = after(now, shared.config.half_open_timeout);
                // RFC 7296 2.23: an initiator that has found NAT has moved to port 4500.
                self.path = path;
                shared.transmit(path, answer);
            }
            Err(error) => {
                self.path = path;
                let Some(half_open) = self.take_half_open(shared) else { return };
                self.refuse_initiator(now, shared, half_open.channel, request, error);
            }
        }
    }
}

/// The responder's value completes the key exchange that we began.
fn agree(
    rounds: &mut KeyRounds,
    pending: Box<dyn PendingKeyExchange>,
    opened: &Opened,
) -> Result<(), Error> {
    let payloads = opened.payloads()?;
    let payloads = Payloads::collect(ExchangeType::IKE_INTERMEDIATE, &payloads)?;
    let value = value_for(pending.group(), &payloads)?;
    let secret = pending.agree(value)?;
    let KeyRounds { channel, transcript, .. } = rounds;
    channel.intermediate_received(opened)?;
    channel.add_secret(&secret, &transcript.initiator_nonce, &transcript.responder_nonce)
}

/// Does the responder's part of a round, and gives the answer.
fn answer(
    shared: &mut Shared,
    half_open: &mut HalfOpen,
    request: RequestId,
    opened: &Opened,
) -> Result<Datagrams, Error> {
    let HalfOpen { channel, transcript, rounds, .. } = half_open;
    let group = *rounds.front().ok_or(Error::UnexpectedExchange)?;
    let payloads = opened.payloads()?;
    let payloads = Payloads::collect(ExchangeType::IKE_INTERMEDIATE, &payloads)?;
    let value = value_for(group, &payloads)?;
    let agreed = shared.key_exchange.respond(group, value)?;
    channel.intermediate_received(opened)?;
    let ke = Payload::KeyExchange(KeyExchange { method: group.id(), data: &agreed.value });
    let answer = channel.respond(shared.random.as_mut(), request, &[ke])?;
    channel.add_secret(&agreed.secret, &transcript.initiator_nonce, &transcript.responder_nonce)?;
    rounds.pop_front();
    Ok(answer)
}

/// The peer's value for the method whose turn it is, or what it says instead.
pub(super) fn value_for<'a>(agreed: Group, payloads: &Payloads<'a>) -> Result<&'a [u8], Error> {
    let Some(ke) = payloads.ke else {
        let missing = Error::MissingPayload(PayloadType::KE);
        return Err(payloads.error().map_or(missing, |error| Error::Refused(error.kind)));
    };
    if ke.method != agreed.id() {
        return Err(Error::WrongKeyExchange { found: ke.method, agreed });
    }
    Ok(ke.data)
}
