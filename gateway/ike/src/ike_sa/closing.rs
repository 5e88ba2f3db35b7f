//! The last words of an IKE SA (RFC 7296 1.4.1, 2.25.2).

use core::time::Duration;
use std::time::Instant;

use gateway_wire::{Delete, ExchangeType, NotifyType, Payload, ProtocolId};

use super::collision::{Asked, Doing, Verdict, verdict};
use super::mobility::{Said, Saying, mobike};
use super::{IkeSa, State, notify};
use crate::channel::{Channel, Opened, RequestId};
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::{Error, notification_for};
use crate::io::Path;
use crate::payloads::Payloads;
use crate::shared::Shared;
use crate::time::after;

/// How long a peer may repeat a request: with MOBIKE, what RFC 4555 3.11 suggests; others that are
/// known give up before.
const PEERS_PATIENCE: Duration = Duration::from_secs(300);

/// What is left of an IKE SA: our own goodbye that waits for its answer, or the answer to the
/// peer's, kept in case it asks again; after a rekey, old keys that the peer is still to delete.
pub(crate) struct Closing {
    pub(super) channel: Channel,
    pub(super) until: Instant,
    /// Our Delete is still to be sent.
    owes_delete: bool,
    /// The request under way is not the last: the peer is to delete it yet.
    pub(super) says_more: bool,
    /// What is to be said when that one has been answered.
    pub(super) unsaid: Option<Saying>,
    /// With MOBIKE, of keys that have been replaced: whether we choose the addresses of what goes on.
    pub(super) mobike: Option<bool>,
}

impl Closing {
    /// Long enough for the peer's retransmissions, or ours, to end.
    pub(super) fn new(now: Instant, shared: &Shared, channel: Channel) -> Self {
        let until = after(now, shared.config.half_open_timeout);
        Self { channel, until, owes_delete: false, says_more: false, unsaid: None, mobike: None }
    }

    /// The peer is to delete it, as soon as it has our answer: it may take as long to get that as
    /// it repeats its request.
    pub(super) fn remnant(now: Instant, shared: &Shared, channel: Channel) -> Self {
        Self { until: after(now, PEERS_PATIENCE), ..Self::new(now, shared, channel) }
    }

    /// The peer has newer keys than these: what either end says of addresses is said under those.
    fn end_of_words(&mut self) {
        (self.mobike, self.unsaid) = (None, None);
    }

    /// Whether a goodbye of ours has not been answered yet.
    pub(crate) const fn awaits_answer(&self) -> bool {
        self.channel.is_busy()
    }
}

impl IkeSa {
    /// Sends the Delete of an IKE SA that is closing. With a request under way it waits for that
    /// one's response: the window is one message (RFC 7296 2.3), and a peer that has not seen the
    /// earlier request could not take this one.
    pub(super) fn say_goodbye(&mut self, now: Instant, shared: &mut Shared) {
        let State::Closing(closing) = &mut self.state else { return };
        closing.owes_delete = closing.channel.is_busy();
        if closing.owes_delete {
            if closing.channel.rests()
                && let Some(request) = closing.channel.send_anew(now, &shared.config)
            {
                shared.transmit(self.path, request);
            }
            return;
        }
        closing.until = after(now, shared.config.half_open_timeout);
        let delete = Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() });
        if self.send_request(now, shared, ExchangeType::INFORMATIONAL, &[delete]).is_err() {
            self.state = State::Closed;
        }
    }

    /// Old keys, and the peer is known to have newer ones. Who stands in between and has kept a
    /// message back could else move the IKE SA by it long after.
    pub(crate) fn peer_has_newer_keys(&mut self) {
        if let State::Closing(closing) = &mut self.state {
            closing.end_of_words();
        }
    }

    /// The answer to our goodbye, or to the request before it.
    pub(super) fn closing_response(&mut self, now: Instant, shared: &mut Shared) {
        let State::Closing(closing) = &mut self.state else { return };
        if closing.owes_delete {
            self.say_goodbye(now, shared);
        } else if closing.says_more {
            closing.says_more = false;
            if let Some(saying) = closing.unsaid.take() {
                self.say(now, shared, saying);
            }
        } else {
            self.state = State::Closed;
        }
    }

    /// An authentic request on an IKE SA that is closing: the peer has not heard yet, or says
    /// goodbye itself. What would make something new is put off for good.
    pub(super) fn closing_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        let State::Closing(closing) = &mut self.state else { return };
        let inner = opened.payloads().map_err(Error::from);
        // RFC 7296 2.5: what is unknown and critical is named whatever else is under way.
        let fault = inner.as_ref().err().and_then(notification_for);
        let ends = inner.is_ok_and(|inner| {
            inner.iter().any(|p| matches!(p, Payload::Delete(d) if d.protocol == ProtocolId::IKE))
        });
        let asked = if opened.header.exchange == ExchangeType::CREATE_CHILD_SA {
            Asked::CreateChild
        } else if ends {
            Asked::DeleteIke
        } else {
            Asked::DeleteChild
        };
        let decides = closing.mobike.filter(|_| !ends);
        let mobility = decides.map(|decides| self.hear_for_heir(shared, path, opened, decides));
        let mobility = mobility.unwrap_or_default();
        let State::Closing(closing) = &mut self.state else { return };
        // Its Child SAs are gone or have moved on: there is nothing to name in an answer.
        let refusal = match verdict(Doing::DeleteIke, asked) {
            Verdict::NotNow(_) => {
                shared.count(Counter::TemporaryFailure);
                Some(notify(NotifyType::TEMPORARY_FAILURE, &[]))
            }
            Verdict::ForgetOurs => {
                closing.owes_delete = false;
                closing.end_of_words();
                // From here on it only repeats this answer.
                closing.until = after(now, shared.config.half_open_timeout);
                closing.channel.response_received();
                None
            }
            Verdict::AsUsual | Verdict::Compare | Verdict::WithoutDelete => None,
        };
        let refusal = fault.as_ref().map(|fault| notify(fault.kind, &fault.data)).or(refusal);
        let request = RequestId::new(opened, datagram);
        let words: Vec<_> = refusal.into_iter().chain(mobike::payloads(&mobility)).collect();
        match closing.channel.respond(shared.random.as_mut(), request, &words) {
            Ok(answer) => shared.transmit(path, answer),
            Err(_cannot) => self.state = State::Closed,
        }
    }

    /// What a peer that has not heard of the new keys says of addresses counts for what goes on by
    /// them; gives what the answer says of it.
    fn hear_for_heir(
        &self,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        decides: bool,
    ) -> Vec<Said> {
        let Ok(inner) = opened.payloads() else { return Vec::new() };
        let exchange = ExchangeType::INFORMATIONAL;
        let Ok(payloads) = Payloads::collect(exchange, &inner) else { return Vec::new() };
        if opened.header.exchange != exchange {
            return Vec::new();
        }
        let (words, heard) = self.hear(shared, path, &payloads, decides);
        if let (Some(heir), Some(heard)) = (self.remnant_of, heard) {
            shared.effects.push(Effect::Heard { ike_sa: heir, heard });
        }
        words
    }
}
