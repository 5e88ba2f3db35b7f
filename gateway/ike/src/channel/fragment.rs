//! Messages in fragments (RFC 7383): into which pieces one is cut, and how they are put together.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use gateway_wire::{EncryptedFragment, ExchangeType, Header, PayloadType};
use zeroize::Zeroizing;

use crate::config::{EndpointConfig, SMALLEST_FRAGMENT};
use crate::counters::Counter;
use crate::io::Path;

/// What one fragment costs us beside its octets, about.
const BOOKKEEPING: usize = 64;
/// The UDP header, and the non-ESP marker of port 4500, which a message may come to need.
const UDP_AND_MARKER: usize = 8 + 4;

/// One message as it travels: in one datagram, or in several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagrams(pub(super) Vec<Vec<u8>>);

impl Datagrams {
    /// In the order in which they are sent.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = Vec<u8>> {
        self.0.into_iter()
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is one of at most so many octets.
    pub(super) fn is_short(&self, most: usize) -> bool {
        matches!(self.0.as_slice(), [one] if one.len() <= most)
    }
}

impl From<Vec<u8>> for Datagrams {
    fn from(datagram: Vec<u8>) -> Self {
        Self(vec![datagram])
    }
}

/// That an IKE SA may fragment its messages, as both ends have said, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragmentation {
    /// Octets of the longest IKE message that is sent in one datagram.
    pub(super) longest: usize,
    /// Octets of what is kept of a message of which fragments are missing.
    pub(super) limit: usize,
    /// How long that is kept.
    pub(super) timeout: Duration,
}

impl Fragmentation {
    /// As the operator wants it on a path; `None`: not at all.
    pub(crate) fn new(config: &EndpointConfig, path: Path) -> Option<Self> {
        if config.fragment_size == 0 {
            return None;
        }
        let ip_header = if path.remote.is_ipv4() { 20_usize } else { 40 };
        let packet = config.fragment_size.max(SMALLEST_FRAGMENT);
        let longest = packet.saturating_sub(ip_header.saturating_add(UDP_AND_MARKER));
        Some(Self { longest, limit: config.reassembly_limit, timeout: config.reassembly_timeout })
    }
}

/// The fragments of one message that have come so far. Each has been authenticated.
pub(super) struct Reassembly {
    id: u32,
    exchange: ExchangeType,
    total: u16,
    /// What is not whole by then is dropped.
    pub(super) until: Instant,
    parts: BTreeMap<u16, Zeroizing<Vec<u8>>>,
    /// What fragment 1 says of the first payload, and fragment 1 itself: by it a repeated request
    /// is known.
    first: Option<(PayloadType, Vec<u8>)>,
    octets: usize,
}

/// A message that is whole again.
pub(super) struct Whole {
    pub(super) first: PayloadType,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
    pub(super) first_fragment: Vec<u8>,
}

impl Reassembly {
    fn new(header: &Header, total: u16, until: Instant) -> Self {
        Self {
            id: header.message_id.0,
            exchange: header.exchange,
            total,
            until,
            parts: BTreeMap::new(),
            first: None,
            octets: 0,
        }
    }

    /// Whether a fragment is worth being decrypted, by what nothing authenticates yet: nothing is
    /// changed (RFC 7383 2.6).
    pub(super) fn check(
        collected: Option<&Self>,
        limit: usize,
        header: &Header,
        fragment: &EncryptedFragment<'_>,
    ) -> Result<(), Counter> {
        if usize::from(fragment.total).saturating_mul(BOOKKEEPING) > limit {
            return Err(Counter::FragmentLimit);
        }
        let Some(collected) = collected.filter(|c| c.id == header.message_id.0) else {
            return Ok(());
        };
        if collected.exchange != header.exchange || fragment.total < collected.total {
            return Err(Counter::FragmentMismatch);
        }
        if fragment.total == collected.total && collected.parts.contains_key(&fragment.number) {
            return Err(Counter::FragmentDuplicate);
        }
        Ok(())
    }

    /// Keeps an authentic fragment that [`Self::check`] has let pass; gives the message if that
    /// was the last one. A larger total means that the peer has cut the message anew, into
    /// smaller pieces: those of before are worthless (RFC 7383 2.5.2, 2.6). It is kept until a
    /// moment that only its first fragment sets: a peer cannot put that off by sending more.
    pub(super) fn add(
        slot: &mut Option<Box<Self>>,
        (limit, until): (usize, Instant),
        header: &Header,
        fragment: &EncryptedFragment<'_>,
        plaintext: Zeroizing<Vec<u8>>,
        datagram: &[u8],
    ) -> Result<Option<Whole>, Counter> {
        let mut collected = match slot.take() {
            Some(c) if c.id == header.message_id.0 && c.total == fragment.total => c,
            Some(c) if c.id == header.message_id.0 => {
                Box::new(Self::new(header, fragment.total, c.until))
            }
            _ => Box::new(Self::new(header, fragment.total, until)),
        };
        let kept = if fragment.number == 1 { datagram.len() } else { 0 };
        let cost = plaintext.len().saturating_add(kept).saturating_add(BOOKKEEPING);
        collected.octets = collected.octets.saturating_add(cost);
        if collected.octets > limit {
            return Err(Counter::FragmentLimit); // It cannot become whole: all of it goes.
        }
        if fragment.number == 1 {
            collected.first = Some((fragment.first, datagram.to_vec()));
        }
        collected.parts.insert(fragment.number, plaintext);
        if collected.parts.len() < usize::from(collected.total) {
            *slot = Some(collected);
            return Ok(None);
        }
        let Self { parts, first, .. } = *collected;
        let (first, first_fragment) = first.ok_or(Counter::FragmentMismatch)?;
        let length = parts.values().map(|p| p.len()).sum();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(length));
        parts.values().for_each(|part| plaintext.extend_from_slice(part));
        Ok(Some(Whole { first, plaintext, first_fragment }))
    }
}
