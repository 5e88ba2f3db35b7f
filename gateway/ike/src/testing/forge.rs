//! Authentic messages that no good peer sends: made with the keys of an endpoint under test.

use gateway_wire::{
    ChainError, ExchangeType, Flags, Header, IkeSpi, Message, MessageId, Payload, PayloadType,
    decode_chain, encode_chain, encode_sk_prefix,
};

use super::SeededRandom;
use crate::Endpoint;
use crate::algorithms::IkeSuite;
use crate::crypto::protect::{Opener, Sealer};
use crate::ike_sa::IkeSa;
use crate::keys::{IkeKeys, signed_octets};

/// The keys of one end of an IKE SA, to read and to write messages in its name. What is written
/// leaves no trace in that end: its own next request has the number that a forged one may have
/// taken.
#[derive(Debug, Clone)]
pub struct Forge {
    spis: (IkeSpi, IkeSpi),
    initiator: bool,
    suite: IkeSuite,
    keys: IkeKeys,
}

/// A message as it is inside the SK payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The IKE header.
    pub header: Header,
    /// The type of the first payload inside.
    pub first: PayloadType,
    /// The payloads inside, as octets.
    pub plaintext: Vec<u8>,
}

impl Opened {
    /// The payloads inside.
    ///
    /// # Errors
    /// As [`decode_chain`].
    pub fn payloads(&self) -> Result<Vec<Payload<'_>>, ChainError> {
        decode_chain(self.first, &self.plaintext)
    }
}

impl Forge {
    /// The end that `endpoint` holds of the youngest IKE SA that has keys.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.sas().filter_map(Self::of_sa).last()
    }

    /// The end that is this one; `None`: it has no keys yet.
    pub(super) fn of_sa(sa: &IkeSa) -> Option<Self> {
        let channel = sa.state.channel()?;
        Some(Self {
            spis: (sa.initiator_spi, sa.responder_spi),
            initiator: channel.initiator,
            suite: channel.suite,
            keys: channel.keys.clone(),
        })
    }

    /// A header in the name of this end.
    #[must_use]
    pub const fn header(&self, exchange: ExchangeType, response: bool, id: u32) -> Header {
        Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            exchange,
            flags: Flags { response, version: false, initiator: self.initiator },
            message_id: MessageId(id),
        }
    }

    /// Reads a message of either end; `None` if it is not authentic.
    #[must_use]
    pub fn open(&self, datagram: &[u8]) -> Option<Opened> {
        let message = Message::decode(datagram).ok()?;
        let Some(Payload::Encrypted(sk)) = message.payloads.last() else { return None };
        let (encryption, integrity) = self.keys_of(message.header.flags.initiator);
        let opener =
            Opener::new(self.suite.encryption, self.suite.integrity, encryption, integrity).ok()?;
        let mut copy = datagram.to_vec();
        let plaintext = opener.open(&mut copy, sk.body_offset).ok()?.to_vec();
        Some(Opened { header: message.header, first: sk.first, plaintext })
    }

    /// Writes a message with these payloads; `None` if they have no encoding.
    #[must_use]
    pub fn seal(&self, header: &Header, payloads: &[Payload<'_>]) -> Option<Vec<u8>> {
        let (first, plaintext) = encode_chain(payloads).ok()?;
        self.seal_octets(header, first, &plaintext)
    }

    /// Writes a message whose SK payload holds any octets at all.
    #[must_use]
    pub fn seal_octets(
        &self,
        header: &Header,
        first: PayloadType,
        plaintext: &[u8],
    ) -> Option<Vec<u8>> {
        let len = self.sealer(header)?.body_len(plaintext.len());
        self.seal_behind(header, encode_sk_prefix(header, first, len).ok()?, plaintext)
    }

    /// Encrypts behind any prefix, whose lengths must count [`Self::body_len`] octets more.
    #[must_use]
    pub fn seal_behind(
        &self,
        header: &Header,
        mut prefix: Vec<u8>,
        plaintext: &[u8],
    ) -> Option<Vec<u8>> {
        self.sealer(header)?.seal(&mut SeededRandom::new(7), &mut prefix, plaintext).ok()?;
        Some(prefix)
    }

    /// Octets that [`Self::seal_behind`] appends.
    #[must_use]
    pub fn body_len(&self, plaintext_len: usize) -> Option<usize> {
        let header = self.header(ExchangeType::INFORMATIONAL, false, 0);
        Some(self.sealer(&header)?.body_len(plaintext_len))
    }

    /// What AUTH of this end covers (RFC 7296 2.15): its first message, the other end's nonce, and
    /// the body of its identification.
    #[must_use]
    pub fn signed_octets(&self, message: &[u8], nonce: &[u8], id: &[u8]) -> Vec<u8> {
        let sk_p = if self.initiator { self.keys.sk_pi() } else { self.keys.sk_pr() };
        signed_octets(self.suite.prf, sk_p, message, nonce, id, &[])
    }

    fn sealer(&self, header: &Header) -> Option<Sealer> {
        let (encryption, integrity) = self.keys_of(header.flags.initiator);
        Sealer::new(self.suite.encryption, self.suite.integrity, encryption, integrity).ok()
    }

    fn keys_of(&self, initiator: bool) -> (&[u8], &[u8]) {
        if initiator {
            (self.keys.sk_ei(), self.keys.sk_ai())
        } else {
            (self.keys.sk_er(), self.keys.sk_ar())
        }
    }
}
