//! What a channel sends: requests, which are kept until they are answered, and answers, which are kept
//! to be sent again; each sealed in one datagram or several.

use core::time::Duration;
use std::time::Instant;

use gateway_wire::{
    EncodeError, ExchangeType, Flags, Header, MessageId, Payload, PayloadType, encode_chain,
    encode_sk_prefix, encode_skf_prefix,
};
use zeroize::Zeroizing;

use super::backoff::{Backoff, Retry};
use super::{Channel, Datagrams, Opened};
use crate::config::EndpointConfig;
use crate::crypto::prf::sha1;
use crate::error::Error;
use crate::random::Random;

/// Octets before the body of an SK payload: the IKE header and the generic payload header.
const SK_PREFIX: usize = Header::LEN + 4;
/// The same of a fragment, which has its number and their total too (RFC 7383 2.5).
const SKF_PREFIX: usize = SK_PREFIX + 4;

/// A request that waits for its response.
pub(super) struct Awaiting {
    pub(super) id: u32,
    pub(super) exchange: ExchangeType,
    /// What is in it: the type of the first payload and all of them.
    pub(super) content: (PayloadType, Zeroizing<Vec<u8>>),
    pub(super) datagrams: Datagrams,
    /// `None`: it rests, and is not sent again.
    pub(super) backoff: Option<Backoff>,
}

/// The answer to the peer's last request, kept to be sent again.
pub(super) struct Answered {
    pub(super) id: u32,
    /// Only the very same request gets it; of one in fragments this is the first one's digest.
    pub(super) request: [u8; 20],
    pub(super) response: Datagrams,
    /// Whether it set the message IDs (RFC 6311).
    pub(super) set_ids: bool,
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

impl Channel {
    /// Sends the next request: seals it, keeps it for retransmission, and gives the datagrams.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        random: &mut dyn Random,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<Datagrams, Error> {
        let id = self.next_request;
        // RFC 7296 2.2: message IDs must not wrap; the SA is long rekeyed before.
        let following = id.checked_add(1).ok_or(Error::Internal("message IDs are used up"))?;
        let (first, plaintext) = encode_chain(payloads).map_err(too_long)?;
        let plaintext = Zeroizing::new(plaintext);
        let datagrams = self.seal(random, exchange, false, id, first, &plaintext)?;
        self.next_request = following;
        let backoff = Some(Backoff::new(now, config));
        let content = (first, plaintext);
        let awaiting = Awaiting { id, exchange, content, datagrams: datagrams.clone(), backoff };
        self.awaiting = Some(awaiting);
        Ok(datagrams)
    }

    /// The awaited response has come and was authentic.
    pub(crate) fn response_received(&mut self) {
        self.awaiting = None;
        self.response_parts = None;
    }

    /// When the request under way is due again.
    pub(crate) fn next_retransmission(&self) -> Option<Instant> {
        self.awaiting.as_ref().and_then(|a| a.backoff.as_ref()).map(Backoff::next)
    }

    /// The request under way, if it is to be sent again now; or how often it was, in vain, and for
    /// `least` at the least.
    pub(crate) fn poll_retransmission(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        least: Duration,
    ) -> Option<Result<&Datagrams, (ExchangeType, u32)>> {
        let awaiting = self.awaiting.as_mut()?;
        match awaiting.backoff.as_mut()?.poll_for(now, config, least) {
            Retry::Wait => None,
            Retry::Again => Some(Ok(&awaiting.datagrams)),
            Retry::GiveUp { tries } => Some(Err((awaiting.exchange, tries))),
        }
    }

    /// How often the request under way has been sent again.
    pub(crate) fn retransmissions(&self) -> u32 {
        let backoff = self.awaiting.as_ref().and_then(|a| a.backoff.as_ref());
        backoff.map_or(0, Backoff::sent_again)
    }

    /// The request under way is not sent again until [`Self::send_anew`].
    pub(crate) fn rest(&mut self) {
        if let Some(awaiting) = &mut self.awaiting {
            awaiting.backoff = None;
        }
    }

    /// Whether it is not sent again.
    pub(crate) fn rests(&self) -> bool {
        self.awaiting.as_ref().is_some_and(|awaiting| awaiting.backoff.is_none())
    }

    /// The request under way, which is repeated from now on as if it were sent for the first time.
    pub(crate) fn send_anew(&mut self, now: Instant, config: &EndpointConfig) -> Option<Datagrams> {
        let awaiting = self.awaiting.as_mut()?;
        awaiting.backoff = Some(Backoff::new(now, config));
        Some(awaiting.datagrams.clone())
    }

    /// The request under way, if it is one datagram of at most so many octets.
    pub(crate) fn short_request(&self, most: usize) -> Option<Datagrams> {
        let datagrams = &self.awaiting.as_ref()?.datagrams;
        datagrams.is_short(most).then(|| datagrams.clone())
    }

    /// Answers the request that came as `datagram`: seals the response, keeps it for
    /// repetitions, and moves the window.
    pub(crate) fn respond(
        &mut self,
        random: &mut dyn Random,
        request: RequestId,
        payloads: &[Payload<'_>],
    ) -> Result<Datagrams, Error> {
        let response = self.seal_answer(random, request, payloads)?;
        self.next_expected = request.id.checked_add(1);
        self.answered_with(request, response.clone(), false);
        Ok(response)
    }

    /// The answer to a request, which is not kept yet.
    pub(super) fn seal_answer(
        &mut self,
        random: &mut dyn Random,
        request: RequestId,
        payloads: &[Payload<'_>],
    ) -> Result<Datagrams, Error> {
        let (first, plaintext) = encode_chain(payloads).map_err(too_long)?;
        let plaintext = Zeroizing::new(plaintext);
        self.seal(random, request.exchange, true, request.id, first, &plaintext)
    }

    /// From now on this is the answer to the peer's last request.
    pub(super) fn answered_with(&mut self, request: RequestId, response: Datagrams, set_ids: bool) {
        self.request_parts = None;
        self.opener_before = None;
        let RequestId { id, digest: request, .. } = request;
        self.answered = Some(Answered { id, request, response, set_ids });
    }

    pub(super) fn seal(
        &mut self,
        random: &mut dyn Random,
        exchange: ExchangeType,
        response: bool,
        id: u32,
        first: PayloadType,
        plaintext: &[u8],
    ) -> Result<Datagrams, Error> {
        let header = Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            flags: Flags { response, version: false, initiator: self.initiator },
            message_id: MessageId(id),
        };
        if exchange == ExchangeType::IKE_INTERMEDIATE {
            self.cover(self.initiator, &header, first, plaintext)?;
        }
        let prefix = encode_sk_prefix(&header, first, self.sealer.body_len(plaintext.len()));
        let whole_len = self.sealer.body_len(plaintext.len()).saturating_add(SK_PREFIX);
        match self.fragmentation {
            Some(fragmentation) if whole_len > fragmentation.longest => {
                let room = fragmentation.longest.saturating_sub(SKF_PREFIX);
                self.seal_fragments(random, &header, first, plaintext, room)
            }
            _ => Ok(self.seal_body(random, prefix.map_err(too_long)?, plaintext)?.into()),
        }
    }

    /// RFC 7383 2.5: the plaintext is cut, and each piece is sealed by itself.
    fn seal_fragments(
        &mut self,
        random: &mut dyn Random,
        header: &Header,
        first: PayloadType,
        plaintext: &[u8],
        room: usize,
    ) -> Result<Datagrams, Error> {
        let pieces = plaintext.chunks(self.sealer.text_room(room).max(1));
        let total = u16::try_from(pieces.len())
            .map_err(|_count| Error::Internal("the message has too many fragments"))?;
        let mut datagrams = Vec::with_capacity(pieces.len());
        for (number, piece) in (1..=total).zip(pieces) {
            let first = if number == 1 { first } else { PayloadType::NONE };
            let body_len = self.sealer.body_len(piece.len());
            let prefix =
                encode_skf_prefix(header, first, number, total, body_len).map_err(too_long)?;
            datagrams.push(self.seal_body(random, prefix, piece)?);
        }
        Ok(Datagrams(datagrams))
    }

    fn seal_body(
        &mut self,
        random: &mut dyn Random,
        mut message: Vec<u8>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.sealer
            .seal(random, &mut message, plaintext)
            .map_err(|_sealing| Error::Internal("the message could not be encrypted"))?;
        Ok(message)
    }
}

const fn too_long(_error: EncodeError) -> Error {
    Error::Internal("the message is too long")
}
