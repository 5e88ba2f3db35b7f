//! The protected channel of one IKE SA: keys, SPIs, message IDs and retransmission live here
//! and nowhere else (RFC 7296 2.1 to 2.3, 3.14).

use core::time::Duration;
use std::time::Instant;

use gateway_wire::{
    ChainError, ExchangeType, Flags, Header, IkeSpi, Message, MessageId, Payload, PayloadType,
    decode_chain, encode_chain, encode_sk_prefix,
};
use zeroize::Zeroizing;

use crate::algorithms::IkeSuite;
use crate::config::EndpointConfig;
use crate::crypto::prf::sha1;
use crate::crypto::protect::{Opener, Sealer};
use crate::error::Error;
use crate::keys::IkeKeys;
use crate::random::Random;
use crate::time::after;

/// A message whose integrity has been verified: only [`Channel::open`] makes one.
pub(crate) struct Opened {
    pub(crate) header: Header,
    first: PayloadType,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// The payloads inside the SK payload.
    pub(crate) fn payloads(&self) -> Result<Vec<Payload<'_>>, ChainError> {
        decode_chain(self.first, &self.plaintext)
    }
}

/// What a message's number says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// The request that comes next.
    NextRequest,
    /// The request that was answered last, octet for octet: the answer to send again.
    Repeated(&'a [u8]),
    /// The response that we wait for.
    AwaitedResponse,
    /// None of these.
    Outside,
}

/// A request that waits for its response.
struct Awaiting {
    id: u32,
    exchange: ExchangeType,
    datagram: Vec<u8>,
    backoff: Backoff,
}

/// When a request is sent again.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Instant,
    interval: Duration,
    sent_again: u32,
}

/// What is to be done with a request whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Not yet.
    Wait,
    /// Send it again.
    Again,
    /// The peer does not answer.
    GiveUp {
        /// How often it was sent again.
        tries: u32,
    },
}

impl Backoff {
    pub(crate) fn new(now: Instant, config: &EndpointConfig) -> Self {
        Self {
            next: after(now, config.retransmit_initial),
            interval: config.retransmit_initial,
            sent_again: 0,
        }
    }

    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// RFC 7296 2.4: with growing intervals, and not for ever.
    pub(crate) fn poll(&mut self, now: Instant, config: &EndpointConfig) -> Retry {
        if now < self.next {
            return Retry::Wait;
        }
        if self.sent_again >= config.retransmit_tries {
            return Retry::GiveUp { tries: self.sent_again };
        }
        self.sent_again = self.sent_again.saturating_add(1);
        let longer = self.interval.saturating_mul(config.retransmit_factor_percent);
        self.interval = longer.checked_div(100).unwrap_or(longer);
        self.next = after(now, self.interval);
        Retry::Again
    }
}

/// The answer to the peer's last request, kept to be sent again.
struct Answered {
    id: u32,
    /// Only the very same request gets it.
    request: [u8; 20],
    response: Vec<u8>,
}

/// The protected channel of one IKE SA. The window is one message each way (RFC 7296 2.3).
pub(crate) struct Channel {
    initiator_spi: IkeSpi,
    responder_spi: IkeSpi,
    /// Whether we are the *original* initiator of the IKE SA.
    pub(crate) initiator: bool,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    sealer: Sealer,
    opener: Opener,
    next_request: u32,
    awaiting: Option<Awaiting>,
    next_expected: u32,
    answered: Option<Answered>,
}

impl Channel {
    /// A channel for fresh keys. Message 0 of each side was IKE_SA_INIT: the initiator's next
    /// request is 1, the responder's is 0 (RFC 7296 2.2).
    pub(crate) fn new(
        spis: (IkeSpi, IkeSpi),
        initiator: bool,
        suite: IkeSuite,
        keys: IkeKeys,
    ) -> Result<Self, Error> {
        let (ours, theirs) = if initiator {
            ((keys.sk_ei(), keys.sk_ai()), (keys.sk_er(), keys.sk_ar()))
        } else {
            ((keys.sk_er(), keys.sk_ar()), (keys.sk_ei(), keys.sk_ai()))
        };
        let bad_key = |_| Error::Internal("a derived key has the wrong length");
        let sealer =
            Sealer::new(suite.encryption, suite.integrity, ours.0, ours.1).map_err(bad_key)?;
        let opener =
            Opener::new(suite.encryption, suite.integrity, theirs.0, theirs.1).map_err(bad_key)?;
        Ok(Self {
            initiator_spi: spis.0,
            responder_spi: spis.1,
            initiator,
            suite,
            keys,
            sealer,
            opener,
            next_request: u32::from(initiator),
            awaiting: None,
            next_expected: u32::from(!initiator),
            answered: None,
        })
    }

    /// Where a message stands, from its header alone; nothing is changed.
    pub(crate) fn place(&self, header: &Header, datagram: &[u8]) -> Place<'_> {
        let id = header.message_id.0;
        if header.flags.response {
            let awaited = |a: &Awaiting| a.id == id && a.exchange == header.exchange;
            return if self.awaiting.as_ref().is_some_and(awaited) {
                Place::AwaitedResponse
            } else {
                Place::Outside
            };
        }
        if id == self.next_expected {
            return Place::NextRequest;
        }
        match &self.answered {
            Some(a) if a.id == id && a.request == sha1(&[datagram]) => Place::Repeated(&a.response),
            _ => Place::Outside,
        }
    }

    /// Verifies and decrypts; nothing is changed, whatever the datagram holds. `None`: it has no
    /// SK payload, or does not authenticate. What is wrong inside is found by
    /// [`Opened::payloads`].
    pub(crate) fn open(&self, header: Header, datagram: &[u8]) -> Option<Opened> {
        let message = Message::decode(datagram).ok()?;
        // RFC 7296 3.14: SK is the last payload; nothing outside it is trusted, so nothing is read.
        let Some(Payload::Encrypted(sk)) = message.payloads.last() else { return None };
        let (first, offset) = (sk.first, sk.body_offset);
        let mut copy = datagram.to_vec();
        let plaintext = self.opener.open(&mut copy, offset).ok()?.to_vec();
        Some(Opened { header, first, plaintext: Zeroizing::new(plaintext) })
    }

    /// Sends the next request: seals it, keeps it for retransmission, and gives the datagram.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        random: &mut dyn Random,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, Error> {
        let id = self.next_request;
        // RFC 7296 2.2: message IDs must not wrap; the SA is long rekeyed before.
        let following = id.checked_add(1).ok_or(Error::Internal("message IDs are used up"))?;
        let datagram = self.seal(random, exchange, false, id, payloads)?;
        self.next_request = following;
        let backoff = Backoff::new(now, config);
        self.awaiting = Some(Awaiting { id, exchange, datagram: datagram.clone(), backoff });
        Ok(datagram)
    }

    /// Whether a request of ours is under way: then no other may be sent.
    pub(crate) const fn is_busy(&self) -> bool {
        self.awaiting.is_some()
    }

    /// The awaited response has come and was authentic.
    pub(crate) fn response_received(&mut self) {
        self.awaiting = None;
    }

    /// When the request under way is due again.
    pub(crate) fn next_retransmission(&self) -> Option<Instant> {
        self.awaiting.as_ref().map(|a| a.backoff.next())
    }

    /// The request under way, if it is to be sent again now; or how often it was, in vain.
    pub(crate) fn poll_retransmission(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
    ) -> Option<Result<&[u8], (ExchangeType, u32)>> {
        let awaiting = self.awaiting.as_mut()?;
        match awaiting.backoff.poll(now, config) {
            Retry::Wait => None,
            Retry::Again => Some(Ok(&awaiting.datagram)),
            Retry::GiveUp { tries } => Some(Err((awaiting.exchange, tries))),
        }
    }

    /// Answers the request that came as `datagram`: seals the response, keeps it for
    /// repetitions, and moves the window.
    pub(crate) fn respond(
        &mut self,
        random: &mut dyn Random,
        request: RequestId,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, Error> {
        let response = self.seal(random, request.exchange, true, request.id, payloads)?;
        self.next_expected = request.id.saturating_add(1);
        self.answered =
            Some(Answered { id: request.id, request: request.digest, response: response.clone() });
        Ok(response)
    }

    fn seal(
        &mut self,
        random: &mut dyn Random,
        exchange: ExchangeType,
        response: bool,
        id: u32,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, Error> {
        let too_long = |_| Error::Internal("the message is too long");
        let header = Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            flags: Flags { response, version: false, initiator: self.initiator },
            message_id: MessageId(id),
        };
        let (first, plaintext) = encode_chain(payloads).map_err(too_long)?;
        let plaintext = Zeroizing::new(plaintext);
        let mut message = encode_sk_prefix(&header, first, self.sealer.body_len(plaintext.len()))
            .map_err(too_long)?;
        self.sealer
            .seal(random, &mut message, &plaintext)
            .map_err(|_sealing| Error::Internal("the message could not be encrypted"))?;
        Ok(message)
    }
}

/// Names a request that is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId {
    pub(crate) exchange: ExchangeType,
    id: u32,
    digest: [u8; 20],
}

impl RequestId {
    pub(crate) fn new(opened: &Opened, datagram: &[u8]) -> Self {
        Self {
            exchange: opened.header.exchange,
            id: opened.header.message_id.0,
            digest: sha1(&[datagram]),
        }
    }
}

#[cfg(test)]
mod tests;
