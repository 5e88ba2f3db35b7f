//! IKE_SA_INIT requests: repeated ones, limits, cookies, other versions (RFC 7296 2.5, 2.6, 2.21.1).

use core::time::Duration;
use std::time::Instant;

use gateway_wire::{
    ExchangeType, Flags, Header, IkeSpi, Message, MessageError, NotifyType, OtherVersion, Payload,
    PayloadType, SecurityAssociation, encode_message,
};
use zeroize::Zeroizing;

use super::Endpoint;
use crate::counters::Counter;
use crate::crash;
use crate::crypto::prf::sha1;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::ike_sa::{IkeSa, State, answer_init, init_header, notify};
use crate::io::Path;
use crate::payloads::Payloads;
use crate::proposal::Rounds;
use crate::reason::no_common_ike_proposal;
use crate::time::after;

/// After more refusals than may be answered cookies are demanded for so long.
const REFUSING: Duration = Duration::from_secs(30);

impl Endpoint {
    pub(super) fn init_request(
        &mut self,
        now: Instant,
        header: &Header,
        path: Path,
        datagram: &[u8],
    ) {
        // RFC 7296 2.2, 3.1: the first message of an initiator, with nothing in our name yet.
        let first =
            header.flags.initiator && header.message_id.0 == 0 && header.responder_spi.is_zero();
        if !first || header.initiator_spi.is_zero() || self.shutting_down {
            return self.shared.count(Counter::InvalidInit);
        }
        // RFC 7296 2.1: told apart by the whole request, since peers behind one NAT may choose the
        // same SPI.
        let digest = sha1(&[datagram]);
        if let Some(id) = self.half_open.get(&(digest, path)) {
            return self.repeated_init(id, path, datagram);
        }
        if let Some(id) = self.answered.get(&digest)
            && self.sas.get(id).is_some_and(|sa| !matches!(sa.state, State::HalfOpen(_)))
        {
            return self.shared.count(Counter::OutsideWindow);
        }
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => return self.refuse_init(now, header, path, &Error::from(error)),
        };
        let payloads = match Payloads::collect(ExchangeType::IKE_SA_INIT, &message.payloads) {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse_init(now, header, path, &error),
        };
        let known = self.sas.len().saturating_sub(self.refused.len());
        let no_room = known >= self.shared.config.ike_sa_limit;
        if no_room && self.half_open.is_empty() {
            return self.shared.count(Counter::IkeSaLimit);
        }
        self.watch_half_open(now);
        let of_address = self.half_open.of_network(path.remote.ip());
        let limit = self.shared.config.half_open_address_limit;
        // What is half-open may be nobody's who will ever stand: it keeps no place from the next one.
        let full = no_room || self.half_open.len() >= self.shared.config.half_open_limit;
        let demanding = self.demanding_cookies || full || of_address.all >= limit;
        let shown = self.has_returned_cookie(now, header, path, &payloads);
        if demanding && !shown {
            return self.demand_cookie(now, header, path, &payloads);
        }
        // Only now it is known that this is not somebody else in the name of that address.
        if of_address.shown >= limit {
            return self.shared.count(Counter::HalfOpenAddressLimit);
        }
        let found = payloads.require_sa().map_or(0, count_transforms);
        let limit = self.shared.config.init_transform_limit;
        if found > limit {
            let error = Error::TooManyTransforms { found, limit };
            return self.refuse_init(now, header, path, &error);
        }
        let id = self.sa_id();
        match answer_init(now, &mut self.shared, id, header, path, datagram, &payloads) {
            Ok(None) => self.refuse_proposals(now, header, path, &payloads),
            Ok(Some(sa)) => {
                if full && let Some(oldest) = self.half_open.to_displace() {
                    let limit = if no_room { Counter::IkeSaLimit } else { Counter::HalfOpenLimit };
                    self.shared.count(limit);
                    self.with_sa(oldest, |sa, shared| {
                        sa.close(shared, "another initiator needs its place");
                    });
                }
                self.by_spi.insert(sa.responder_spi, id);
                self.half_open.insert((digest, path), id, shown);
                self.answered.insert(digest, id);
                self.put_new(sa);
                self.watch_half_open(now);
            }
            Err(error) => self.refuse_init(now, header, path, &error),
        }
    }

    /// The very same request again gets the very same answer (RFC 7296 2.1).
    fn repeated_init(&mut self, id: crate::io::IkeSaId, path: Path, datagram: &[u8]) {
        let answer = self.sas.get(&id).and_then(|sa| {
            let State::HalfOpen(half_open) = &sa.state else { return None };
            half_open.repeated(datagram).map(<[u8]>::to_vec)
        });
        match answer {
            Some(answer) => {
                self.shared.count(Counter::Retransmission);
                self.shared.transmit(path, answer);
            }
            None => self.shared.count(Counter::InvalidInit),
        }
    }

    /// Whether the initiator has returned our cookie, which shows that it is at its address.
    fn has_returned_cookie(
        &self,
        now: Instant,
        header: &Header,
        path: Path,
        payloads: &Payloads<'_>,
    ) -> bool {
        let returned = payloads.notify(NotifyType::COOKIE).map(|cookie| cookie.data);
        returned.is_some_and(|returned| {
            self.cookies.check(now, returned, header.initiator_spi, path.remote)
        })
    }

    /// Sends the initiator a cookie, and forgets it.
    fn demand_cookie(
        &mut self,
        now: Instant,
        header: &Header,
        path: Path,
        payloads: &Payloads<'_>,
    ) {
        // Else it is no request that could lead on.
        if payloads.require_nonce().is_err() {
            return self.shared.count(Counter::InvalidInit);
        }
        if payloads.notify(NotifyType::COOKIE).is_some() {
            self.shared.count(Counter::CookieInvalid);
        }
        let (spi, from) = (header.initiator_spi, path.remote);
        if let Ok(cookie) = self.cookies.make(now, self.shared.random.as_mut(), spi, from) {
            self.shared.count(Counter::CookieDemanded);
            self.answer_outside(header, path, &[notify(NotifyType::COOKIE, &cookie)]);
        }
    }

    /// Cookies are demanded above the threshold, and until the number has halved; and for a while
    /// after more refusals than could be answered, which leave nothing half-open.
    pub(super) fn watch_half_open(&mut self, now: Instant) {
        let (count, threshold) = (self.half_open.len(), self.shared.config.cookie_threshold);
        let refusing = self.refusing_until.is_some_and(|until| now < until);
        let many = if self.demanding_cookies {
            count.saturating_mul(2) > threshold
        } else {
            count >= threshold
        };
        let demand = many || refusing;
        if demand != self.demanding_cookies {
            self.demanding_cookies = demand;
            self.shared.report(None, EventKind::CookieMode(demand));
        }
    }

    /// RFC 7296 2.21.1: the answer is not protected and leaves nothing behind.
    fn refuse_init(&mut self, now: Instant, header: &Header, path: Path, error: &Error) {
        let limited = matches!(error, Error::TooManyTransforms { .. });
        self.shared.count(if limited { Counter::TransformLimit } else { Counter::InvalidInit });
        // The method that we want is, like a cookie, a step on the way and shorter than what it
        // answers: a flood of nonsense must not keep it from those who need it.
        let leads_on = matches!(error, Error::InvalidKePayload { .. });
        // RFC 7296 3.10.1: INVALID_SYNTAX only ever goes to, and in, an encrypted message.
        let words = notification_for(error).filter(|w| w.kind != NotifyType::INVALID_SYNTAX);
        if let Some(words) = words {
            if !leads_on && !self.may_refuse(now) {
                return;
            }
            self.answer_outside(header, path, &[notify(words.kind, &words.data)]);
        }
        self.shared.report_stray(header, path, EventKind::InitRefused(error.clone()));
    }

    /// No proposal in common: said, and explained in a record, no more often than may be answered.
    fn refuse_proposals(
        &mut self,
        now: Instant,
        header: &Header,
        path: Path,
        payloads: &Payloads<'_>,
    ) {
        self.shared.count(Counter::NoProposalChosen);
        let Ok(offered) = payloads.require_sa() else { return };
        if !self.may_refuse(now) {
            return;
        }
        self.answer_outside(header, path, &[notify(NotifyType::NO_PROPOSAL_CHOSEN, &[])]);
        let mut refusal = no_common_ike_proposal(
            &mut self.shared.policies.candidates(path),
            offered,
            Rounds::of(payloads),
        );
        refusal.name_rules(&self.shared.policies, None, None);
        let error = Error::NoProposalChosen(Box::new(refusal));
        self.shared.report_stray(header, path, EventKind::InitRefused(error));
    }

    /// Whether one more request may be refused in words. If not, initiators must show from now on
    /// that they are where they say, before any more is spent on them; unless none ever may be,
    /// which says nothing of a flood.
    fn may_refuse(&mut self, now: Instant) -> bool {
        let allowed = self.may_answer(now);
        if !allowed && self.shared.config.unprotected_answers_per_second != 0 {
            self.refusing_until = Some(after(now, REFUSING));
            self.watch_half_open(now);
        }
        allowed
    }

    fn answer_outside(&mut self, header: &Header, path: Path, payloads: &[Payload<'_>]) {
        let answer = init_header(header.initiator_spi, IkeSpi::ZERO, true);
        if let Ok(octets) = encode_message(&answer, payloads) {
            self.shared.transmit(path, octets);
        }
    }

    /// Whether there may be one more answer to a message that nothing protects.
    fn may_answer(&mut self, now: Instant) -> bool {
        let allowed = self.unprotected.take(now, self.shared.config.unprotected_answers_per_second);
        if !allowed {
            self.shared.count(Counter::UnprotectedAnswerLimited);
        }
        allowed
    }

    /// RFC 7296 1.5, 2.21.4: an encrypted request for an IKE SA that we do not have is told so,
    /// which may be what a peer needs to know after we lost our state. A response never is, and
    /// what is not encrypted may be such a notification itself.
    pub(super) fn unknown_spi(
        &mut self,
        now: Instant,
        header: &Header,
        first: PayloadType,
        path: Path,
    ) {
        self.shared.count(Counter::UnknownIkeSpi);
        let encrypted = matches!(first, PayloadType::SK | PayloadType::SKF);
        if header.flags.response || !encrypted || !self.may_answer(now) {
            return;
        }
        let flags = Flags { response: true, version: false, initiator: !header.flags.initiator };
        let mut words = vec![notify(NotifyType::INVALID_IKE_SPI, &[])];
        let token = self.token_of_lost(header);
        words.extend(token.iter().map(|token| crash::payload(token)));
        if let Ok(octets) = encode_message(&Header { flags, ..*header }, &words) {
            if token.is_some() {
                self.shared.count(Counter::CrashTokenShown);
            }
            self.shared.transmit(path, octets);
        }
    }

    /// RFC 6290 4.5: the proof that we have lost the IKE SA. Whoever gets the token of an IKE SA
    /// that stands can end it; so *neither* SPI may be known here, whichever side the message
    /// says that it comes from.
    fn token_of_lost(&self, header: &Header) -> Option<Zeroizing<Vec<u8>>> {
        let spis = (header.initiator_spi, header.responder_spi);
        let known = |spi: IkeSpi| {
            let soon = |sa: &IkeSa| sa.may_get_spi(spi);
            spi.is_zero() || self.by_spi.contains_key(&spi) || self.sas.values().any(soon)
        };
        if known(spis.0) || known(spis.1) {
            return None;
        }
        self.shared.crash_tokens.token(spis)
    }

    /// RFC 7296 2.5: a request of another major version is answered with the version that we
    /// speak, which stands in the header (1.5). Nothing else is, so that two ends never answer
    /// each other for ever.
    pub(super) fn other_version(&mut self, now: Instant, path: Path, version: &OtherVersion) {
        if version.major == 0 {
            return self.shared.count(Counter::MalformedHeader);
        }
        let old = version.major < 2;
        self.shared.count(if old { Counter::IkeV1 } else { Counter::LaterVersion });
        let header = &version.header;
        // IKEv1 has no response flag; its first message has no responder cookie (RFC 2408 3.1).
        let request = if old { header.responder_spi.is_zero() } else { !header.flags.response };
        if !request || !self.may_answer(now) {
            return;
        }
        let answer =
            Header { flags: Flags { response: true, version: false, initiator: false }, ..*header };
        let notification = notify(NotifyType::INVALID_MAJOR_VERSION, &[]);
        if let Ok(octets) = encode_message(&answer, &[notification]) {
            self.shared.transmit(path, octets);
        }
        self.shared.report_stray(header, path, EventKind::OtherVersion(version.major));
    }
}

/// Proposals and transforms, together.
fn count_transforms(sa: &SecurityAssociation) -> usize {
    sa.proposals.iter().map(|proposal| proposal.transforms.len().saturating_add(1)).sum()
}

impl From<MessageError> for Error {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Header(_) => Self::BadAnswer("malformed header"),
            MessageError::Chain(error) => Self::from(error),
        }
    }
}
