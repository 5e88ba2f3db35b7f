//! Message IDs that a peer sets anew (RFC 6311). A cluster of gateways may share an IKE SA: after a failover
//! the member that takes over knows its message IDs only as of some moment before, and tells both ends
//! where to go on. We are no cluster: we answer, and never ask.

use std::time::Instant;

use gateway_wire::{ExchangeType, Header, Notify, NotifyType, Payload, PayloadType, ProtocolId};

use super::{Backoff, Channel, Datagrams, Opened, RequestId};
use crate::config::EndpointConfig;
use crate::error::Error;
use crate::random::Random;

/// What IKEV2_MESSAGE_ID_SYNC carries, from its sender's point of view (RFC 6311 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Chosen by who asks, and the same in the answer.
    pub(super) nonce: [u8; 4],
    /// The number of its next request.
    pub(super) next_request: u32,
    /// The number of the other end's.
    pub(super) next_expected: u32,
}

impl Ids {
    pub(super) const LEN: usize = 12;

    /// `None`: it is of another length.
    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let (nonce, data) = data.split_first_chunk()?;
        let (next_request, data) = data.split_first_chunk()?;
        let next_expected = data.try_into().ok()?;
        Some(Self {
            nonce: *nonce,
            next_request: u32::from_be_bytes(*next_request),
            next_expected: u32::from_be_bytes(next_expected),
        })
    }

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut data = [0; Self::LEN];
        let fields =
            [self.nonce, self.next_request.to_be_bytes(), self.next_expected.to_be_bytes()];
        data.copy_from_slice(fields.as_flattened());
        data
    }
}

/// The message IDs have been set anew.
pub(crate) struct IdsSet {
    /// The number of our next request, or of the one under way.
    pub(crate) next_request: u32,
    /// The number of the peer's.
    pub(crate) next_expected: u32,
    pub(crate) answer: Datagrams,
    /// Our request under way under its new number, unless it rests.
    pub(crate) again: Option<Datagrams>,
}

impl Opened {
    fn has(&self, kind: NotifyType) -> bool {
        let is = |payload: &Payload<'_>| matches!(payload, Payload::Notify(n) if n.kind == kind);
        self.payloads().is_ok_and(|payloads| payloads.iter().any(is))
    }

    /// What it sets, if that is all there is in it (RFC 6311 5.1). The counters of ESP, which could
    /// stand beside it, come only from a peer whom we have told that we take them.
    fn ids(&self) -> Option<Ids> {
        let payloads = self.payloads().ok()?;
        let [Payload::Notify(notify)] = payloads.as_slice() else { return None };
        let is_it = notify.kind == NotifyType::IKEV2_MESSAGE_ID_SYNC && notify.spi.is_empty();
        is_it.then(|| Ids::decode(notify.data)).flatten()
    }
}

impl Channel {
    /// A message of IKE_AUTH has come: with EAP any of them may say that the peer sets message IDs. We
    /// say so as initiator in our first, and as responder if the peer has (RFC 6311 6.1).
    pub(crate) fn note_ids_agreement(&mut self, opened: &Opened) {
        self.peer_sets_ids |= opened.has(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED);
    }

    /// What was agreed on in IKE_AUTH holds for the keys that take the place of others.
    pub(crate) const fn inherit_ids_agreement(&mut self, old: &Self) {
        self.peer_sets_ids = old.peer_sets_ids;
    }

    /// Whether the peer may set the message IDs.
    pub(crate) const fn peer_sets_ids(&self) -> bool {
        self.peer_sets_ids
    }

    /// Whether a request may set message IDs, from outside: such a one has the number 0, whatever comes
    /// next, and is far too short for fragments.
    pub(super) fn may_set_ids(&self, header: &Header, datagram: &[u8]) -> bool {
        let first = Header::decode(datagram).map(|(_, first, _)| first);
        self.peer_sets_ids
            && header.message_id.0 == 0
            && header.exchange == ExchangeType::INFORMATIONAL
            && first == Ok(PayloadType::SK)
    }

    /// Whether an authentic request is there to set message IDs, well-formed or not. It may be in the
    /// window by its number, if the peer has sent none before.
    pub(crate) fn is_to_set_ids(&self, opened: &Opened) -> bool {
        self.peer_sets_ids
            && opened.header.message_id.0 == 0
            && opened.header.exchange == ExchangeType::INFORMATIONAL
            && opened.has(NotifyType::IKEV2_MESSAGE_ID_SYNC)
    }

    /// Goes on from the message IDs that an authentic request sets, which [`Self::is_to_set_ids`] has
    /// recognized. `None`: it is malformed, or not new, and nothing has changed.
    ///
    /// Numbers only go up, or what was sent before could be sent again; a repeated request gets its answer
    /// again, as any does, until another has come.
    pub(crate) fn set_ids(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        random: &mut dyn Random,
        opened: &Opened,
        datagram: &[u8],
    ) -> Result<Option<IdsSet>, Error> {
        let (Some(theirs), Some(expected)) = (opened.ids(), self.next_expected) else {
            return Ok(None);
        };
        // RFC 6311 5.1: above all that has been seen, and that includes what was set before.
        let was_set = self.answered.as_ref().is_some_and(|answered| answered.set_ids);
        let is_new =
            if was_set { theirs.next_request > expected } else { theirs.next_request >= expected };
        let next_request = self.next_request.max(theirs.next_expected);
        // RFC 7296 2.2: behind the last number there is none.
        if !is_new || [theirs.next_request, next_request].contains(&u32::MAX) {
            return Ok(None);
        }
        let ours = Ids { nonce: theirs.nonce, next_request, next_expected: theirs.next_request };
        let data = ours.encode();
        let words = Notify {
            protocol: ProtocolId::NONE,
            spi: &[],
            kind: NotifyType::IKEV2_MESSAGE_ID_SYNC,
            data: &data,
        };
        let request = RequestId::new(opened, datagram);
        let answer = self.seal_answer(random, request, &[Payload::Notify(words)])?;
        self.next_expected = Some(ours.next_expected);
        self.next_request = next_request;
        self.answered_with(request, answer.clone(), true);
        self.response_parts = None;
        let again = self.renumber(now, config, random)?;
        Ok(Some(IdsSet { next_request, next_expected: ours.next_expected, answer, again }))
    }

    /// Nothing answers the request under way by its old number any more (RFC 6311 5.1): it goes on by
    /// the next one, as if it were sent for the first time.
    fn renumber(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        random: &mut dyn Random,
    ) -> Result<Option<Datagrams>, Error> {
        let Some(mut awaiting) = self.awaiting.take() else { return Ok(None) };
        let id = self.next_request;
        let (first, plaintext) = &awaiting.content;
        let datagrams = self.seal(random, awaiting.exchange, false, id, *first, plaintext)?;
        self.next_request = id.saturating_add(1);
        let rests = awaiting.backoff.is_none();
        awaiting.backoff = (!rests).then(|| Backoff::new(now, config));
        (awaiting.id, awaiting.datagrams) = (id, datagrams.clone());
        self.awaiting = Some(awaiting);
        Ok((!rests).then_some(datagrams))
    }
}

/// The cluster itself, for simulations.
#[cfg(any(test, feature = "testing"))]
impl Channel {
    /// What a member asks for that takes over from one which may have used so many more of either end's
    /// numbers. `None`: the peer has none left.
    pub(crate) fn ids_after(&self, room: u32) -> Option<Ids> {
        Some(Ids {
            nonce: room.to_be_bytes(),
            next_request: self.next_request.saturating_add(room),
            next_expected: self.next_expected?.saturating_add(room),
        })
    }

    /// Goes on from what the peer has agreed to; gives the request under way under its new number.
    pub(crate) fn adopt_ids(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        random: &mut dyn Random,
        agreed: Ids,
    ) -> Result<Option<Datagrams>, Error> {
        self.next_request = agreed.next_expected;
        self.next_expected = Some(agreed.next_request);
        (self.answered, self.request_parts, self.response_parts) = (None, None, None);
        self.renumber(now, config, random)
    }
}
