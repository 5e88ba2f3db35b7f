//! The protected channel of one IKE SA: keys, SPIs, message IDs, retransmission and fragments
//! live here and nowhere else (RFC 7296 2.1 to 2.3, 3.14, RFC 7383).

mod backoff;
mod fragment;
mod int_auth;
mod outgoing;
mod set_ids;

use core::mem;
use std::time::Instant;

use gateway_wire::{
    ChainError, DecodeError, DecodeErrorKind, EncryptedFragment, ExchangeType, Header, IkeSpi,
    Message, Payload, PayloadType, decode_chain,
};
use zeroize::Zeroizing;

pub(crate) use self::backoff::{Backoff, Retry};
pub(crate) use self::fragment::{Datagrams, Fragmentation};
use self::fragment::{Reassembly, Whole};
use self::int_auth::IntAuth;
pub(crate) use self::outgoing::RequestId;
use self::outgoing::{Answered, Awaiting};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::set_ids::Ids;
use crate::algorithms::IkeSuite;
use crate::config::EndpointConfig;
use crate::counters::Counter;
use crate::crypto::prf::sha1;
use crate::crypto::protect::{OpenError, Opener, Sealer};
use crate::error::Error;
use crate::io::Path;
use crate::keys::IkeKeys;
use crate::time::{after, earlier};

/// A message whose integrity has been verified: only [`Channel::receive`] makes one.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) header: Header,
    content: Result<(PayloadType, Zeroizing<Vec<u8>>), ChainError>,
    /// Its first datagram, by which a repetition is known, if it came in several.
    first_fragment: Option<Vec<u8>>,
}

/// What a datagram that has its place in the window turns out to be.
pub(crate) enum Received {
    /// A whole message.
    Message(Opened),
    /// A fragment; others are missing.
    Fragment,
    /// Nothing of use, for a reason that is counted.
    Dropped(Counter),
}

impl Opened {
    /// The payloads inside the SK payload.
    pub(crate) fn payloads(&self) -> Result<Vec<Payload<'_>>, ChainError> {
        match &self.content {
            Ok((first, plaintext)) => decode_chain(*first, plaintext),
            Err(error) => Err(*error),
        }
    }

    /// The datagram that stands for the whole message, given the one that came last.
    pub(crate) fn representative<'a>(&'a self, last: &'a [u8]) -> &'a [u8] {
        self.first_fragment.as_deref().unwrap_or(last)
    }
}

/// What a message's number says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// The request that comes next.
    NextRequest,
    /// The request that was answered last: the answer to send again.
    Repeated(&'a Datagrams),
    /// A later fragment of the request that was answered last: its first one gets the answer.
    RepeatedInPart,
    /// The response that we wait for.
    AwaitedResponse,
    /// A request beside the window, which may set the message IDs anew (RFC 6311).
    PerhapsSetsIds,
    /// None of these.
    Outside,
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
    /// Opens the request that was answered last, if the keys have changed since; hardly ever there,
    /// and of half a kilobyte.
    opener_before: Option<Box<Opener>>,
    int_auth: IntAuth,
    next_request: u32,
    awaiting: Option<Awaiting>,
    /// `None`: the peer's numbers are used up (RFC 7296 2.2).
    next_expected: Option<u32>,
    answered: Option<Answered>,
    /// Whether both ends fragment (RFC 7383 2.3).
    fragmentation: Option<Fragmentation>,
    /// Whether the peer may set the message IDs anew (RFC 6311 6.1).
    peer_sets_ids: bool,
    /// What has come of the request that is next, and of the response that we wait for.
    request_parts: Option<Box<Reassembly>>,
    response_parts: Option<Box<Reassembly>>,
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
        let (sealer, opener) = ciphers(initiator, suite, &keys)?;
        Ok(Self {
            initiator_spi: spis.0,
            responder_spi: spis.1,
            initiator,
            suite,
            keys,
            sealer,
            opener,
            opener_before: None,
            int_auth: IntAuth::default(),
            next_request: u32::from(initiator),
            awaiting: None,
            next_expected: Some(u32::from(!initiator)),
            answered: None,
            fragmentation: None,
            peer_sets_ids: false,
            request_parts: None,
            response_parts: None,
        })
    }

    /// Both ends have said that they fragment; an IKE SA that replaces another inherits it.
    pub(crate) const fn set_fragmentation(&mut self, fragmentation: Option<Fragmentation>) {
        self.fragmentation = fragmentation;
    }

    /// Fragments are as long as a path lets them be, if they are agreed on at all.
    pub(crate) fn use_path(&mut self, config: &EndpointConfig, path: Path) {
        self.fragmentation = self.fragmentation.and_then(|_| Fragmentation::new(config, path));
    }

    pub(crate) const fn fragmentation(&self) -> Option<Fragmentation> {
        self.fragmentation
    }

    /// A channel for the keys of an IKE SA that takes the place of another: the first request of
    /// each side has the number 0 (RFC 7296 2.2, 2.18).
    pub(crate) fn rekeyed(
        spis: (IkeSpi, IkeSpi),
        initiator: bool,
        suite: IkeSuite,
        keys: IkeKeys,
    ) -> Result<Self, Error> {
        let fresh = Self::new(spis, initiator, suite, keys)?;
        Ok(Self { next_request: 0, next_expected: Some(0), ..fresh })
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
        match &self.answered {
            Some(a) if a.id == id && a.request == sha1(&[datagram]) => Place::Repeated(&a.response),
            _ if Some(id) == self.next_expected => Place::NextRequest,
            _ if self.may_set_ids(header, datagram) => Place::PerhapsSetsIds,
            Some(a) if a.id == id => self.place_fragment(datagram, &a.response),
            _ => Place::Outside,
        }
    }

    /// A fragment of the request that was answered last. Only its first one gets the answer
    /// again, or as many answers as there are fragments would leave (RFC 7383 2.6.1). It need not
    /// be the one of before, since the peer may have cut its request anew: authentic is enough.
    fn place_fragment<'a>(&self, datagram: &[u8], response: &'a Datagrams) -> Place<'a> {
        let Ok(message) = Message::decode(datagram) else { return Place::Outside };
        let Some(Payload::EncryptedFragment(fragment)) = message.payloads.last() else {
            return Place::Outside;
        };
        if self.fragmentation.is_none() {
            Place::Outside
        } else if fragment.number != 1 {
            Place::RepeatedInPart
        } else if self.was_sealed_by_peer(datagram, fragment.body_offset) {
            Place::Repeated(response)
        } else {
            Place::Outside
        }
    }

    /// Verifies and decrypts a datagram that [`Self::place`] has found to be the next request or
    /// the awaited response. What is not authentic changes nothing, and of what is authentic only
    /// a fragment is kept. What is wrong inside is found by [`Opened::payloads`].
    pub(crate) fn receive(&mut self, now: Instant, header: Header, datagram: &[u8]) -> Received {
        let Ok(message) = Message::decode(datagram) else {
            return Received::Dropped(Counter::NotAuthentic);
        };
        // RFC 7296 3.14: SK is the last payload; nothing outside it is trusted, so nothing is read.
        // In IKE_INTERMEDIATE AUTH would have to cover it (RFC 9242 3.3.2), and nobody sends any.
        if header.exchange == ExchangeType::IKE_INTERMEDIATE && message.payloads.len() > 1 {
            return Received::Dropped(Counter::NotAuthentic);
        }
        match message.payloads.last() {
            Some(Payload::Encrypted(sk)) => {
                let decrypted = self.decrypt(datagram, sk.body_offset);
                let content = match (decrypted, refused_outside(&message)) {
                    (Err(OpenError::TooShort | OpenError::NotAuthentic), _) => {
                        return Received::Dropped(Counter::NotAuthentic);
                    }
                    (_, Some(kind)) => Err(ChainError::UnsupportedCritical(kind)),
                    (Err(OpenError::BadPadding), None) => Err(BAD_PADDING.into()),
                    (Ok(plaintext), None) => Ok((sk.first, plaintext)),
                };
                Received::Message(Opened { header, content, first_fragment: None })
            }
            Some(Payload::EncryptedFragment(fragment)) => {
                match self.receive_fragment(now, &header, datagram, fragment) {
                    Ok(Some(Whole { first, plaintext, first_fragment })) => {
                        let (content, first_fragment) =
                            (Ok((first, plaintext)), Some(first_fragment));
                        Received::Message(Opened { header, content, first_fragment })
                    }
                    Ok(None) => Received::Fragment,
                    Err(counter) => Received::Dropped(counter),
                }
            }
            _ => Received::Dropped(Counter::NotAuthentic),
        }
    }

    fn receive_fragment(
        &mut self,
        now: Instant,
        header: &Header,
        datagram: &[u8],
        fragment: &EncryptedFragment<'_>,
    ) -> Result<Option<Whole>, Counter> {
        let Fragmentation { limit, timeout, .. } =
            self.fragmentation.ok_or(Counter::FragmentNotNegotiated)?;
        let response = header.flags.response;
        let parts = if response { &self.response_parts } else { &self.request_parts };
        Reassembly::check(parts.as_deref(), limit, header, fragment)?;
        let plaintext =
            self.decrypt(datagram, fragment.body_offset).ok().ok_or(Counter::NotAuthentic)?;
        let parts = if response { &mut self.response_parts } else { &mut self.request_parts };
        Reassembly::add(parts, (limit, after(now, timeout)), header, fragment, plaintext, datagram)
    }

    /// When a message of which fragments are missing has waited long enough.
    pub(crate) fn parts_due(&self) -> Option<Instant> {
        let until = |parts: &Option<Box<Reassembly>>| parts.as_ref().map(|parts| parts.until);
        earlier(until(&self.request_parts), until(&self.response_parts))
    }

    /// Drops messages that have waited long enough for their fragments; gives how many.
    pub(crate) fn drop_stale_parts(&mut self, now: Instant) -> usize {
        let slots = [&mut self.request_parts, &mut self.response_parts].into_iter();
        slots.filter_map(|parts| parts.take_if(|parts| parts.until <= now)).count()
    }

    /// The plaintext of an SK or SKF payload whose body begins at `offset`, if it is authentic.
    fn decrypt(&self, datagram: &[u8], offset: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        decrypt(&self.opener, datagram, offset)
    }

    /// Whether a message with the number of the last request is authentic, under the keys that
    /// were in force then.
    fn was_sealed_by_peer(&self, datagram: &[u8], offset: usize) -> bool {
        let opener = self.opener_before.as_deref().unwrap_or(&self.opener);
        decrypt(opener, datagram, offset).is_ok()
    }

    /// The secret of one more key exchange goes into all keys; numbers and the answer that is kept
    /// stay (RFC 9370 2.2.2). The nonces are those of IKE_SA_INIT.
    pub(crate) fn add_secret(&mut self, secret: &[u8], ni: &[u8], nr: &[u8]) -> Result<(), Error> {
        let (suite, spis) = (self.suite, (self.initiator_spi, self.responder_spi));
        let keys = self.keys.derive_rekeyed(suite.prf, suite, secret, ni, nr, &[], spis.0, spis.1);
        let (sealer, opener) = ciphers(self.initiator, suite, &keys)?;
        self.opener_before = Some(Box::new(mem::replace(&mut self.opener, opener)));
        self.sealer = sealer;
        self.keys = keys;
        Ok(())
    }

    /// Mixes a PPK into the keys; gives those of before (RFC 8784 3).
    pub(crate) fn mix_ppk(&mut self, ppk: &[u8]) -> IkeKeys {
        let mixed = self.keys.with_ppk(self.suite, ppk);
        mem::replace(&mut self.keys, mixed)
    }

    /// Whether the Child SAs of this IKE SA stay secret when there are quantum computers.
    pub(crate) const fn is_quantum_safe(&self) -> bool {
        self.keys.is_quantum_safe()
    }

    /// The peer's message of IKE_INTERMEDIATE becomes part of what AUTH covers, under the keys
    /// that it came with.
    pub(crate) fn intermediate_received(&mut self, opened: &Opened) -> Result<(), Error> {
        let (first, plaintext) = opened.content.as_ref().map_err(|error| Error::from(*error))?;
        self.cover(!self.initiator, &opened.header, *first, plaintext)
    }

    /// What IKE_INTERMEDIATE adds to the octets that AUTH signs: for the initiator just before it
    /// sends its first IKE_AUTH request, for the responder just before it answers that. It is not
    /// kept any longer.
    pub(crate) fn take_int_auth(&mut self) -> Vec<u8> {
        let expected = self.next_expected.unwrap_or(u32::MAX);
        let first_auth = if self.initiator { self.next_request } else { expected };
        mem::take(&mut self.int_auth).octets(first_auth)
    }

    fn cover(
        &mut self,
        initiator: bool,
        header: &Header,
        first: PayloadType,
        plaintext: &[u8],
    ) -> Result<(), Error> {
        let sk_p = if initiator { self.keys.sk_pi() } else { self.keys.sk_pr() };
        self.int_auth.cover(self.suite.prf, sk_p, initiator, header, first, plaintext)
    }

    /// Whether a request of ours is under way: then no other may be sent.
    pub(crate) const fn is_busy(&self) -> bool {
        self.awaiting.is_some()
    }

    /// The SPIs of the initiator and of the responder.
    pub(crate) const fn spis(&self) -> (IkeSpi, IkeSpi) {
        (self.initiator_spi, self.responder_spi)
    }

    /// Our own SPI, by which the peer's messages find us.
    pub(crate) const fn our_spi(&self) -> IkeSpi {
        if self.initiator { self.initiator_spi } else { self.responder_spi }
    }
}

/// What is wrong with a message that is authentic and has more padding than octets.
const BAD_PADDING: DecodeError =
    DecodeError { what: "SK padding", kind: DecodeErrorKind::BadValue };

/// The payload before SK that is not known and must not be passed over (RFC 7296 2.5).
fn refused_outside(message: &Message<'_>) -> Option<PayloadType> {
    message.payloads.iter().find_map(|payload| {
        let Payload::Unknown(unknown) = payload else { return None };
        unknown.critical.then_some(unknown.kind)
    })
}

fn decrypt(
    opener: &Opener,
    datagram: &[u8],
    offset: usize,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut copy = Zeroizing::new(datagram.to_vec());
    let plaintext = opener.open(&mut copy, offset)?.to_vec();
    Ok(Zeroizing::new(plaintext))
}

/// What seals our messages and opens the peer's.
fn ciphers(initiator: bool, suite: IkeSuite, keys: &IkeKeys) -> Result<(Sealer, Opener), Error> {
    let (ours, theirs) = if initiator {
        ((keys.sk_ei(), keys.sk_ai()), (keys.sk_er(), keys.sk_ar()))
    } else {
        ((keys.sk_er(), keys.sk_ar()), (keys.sk_ei(), keys.sk_ai()))
    };
    let bad_key = |_| Error::Internal("a derived key has the wrong length");
    let sealer = Sealer::new(suite.encryption, suite.integrity, ours.0, ours.1).map_err(bad_key)?;
    let opener =
        Opener::new(suite.encryption, suite.integrity, theirs.0, theirs.1).map_err(bad_key)?;
    Ok((sealer, opener))
}

#[cfg(test)]
mod tests;
