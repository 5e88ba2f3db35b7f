//! The authentication of IKE_INTERMEDIATE messages by IKE_AUTH (RFC 9242 3.3.2).

use gateway_wire::{Header, PayloadType, encode_sk_prefix};

use crate::algorithms::Prf;
use crate::crypto::prf::prf;
use crate::error::Error;
use crate::keys::Key;

/// A chain of hashes over the messages of each side; empty before the first message.
#[derive(Default)]
pub(super) struct IntAuth {
    /// `IntAuth_iN`.
    initiator: Key,
    /// `IntAuth_rN`.
    responder: Key,
}

impl IntAuth {
    /// Adds a message of one side, of which `first` and `plaintext` are what the SK payload has
    /// inside, without padding. `sk_p` is that side's key from before this exchange.
    ///
    /// What is hashed is the message as if the plaintext stood in the SK payload alone: the
    /// lengths count neither IV, padding nor ICV, and fragments are put together.
    pub(super) fn cover(
        &mut self,
        algorithm: Prf,
        sk_p: &[u8],
        initiator: bool,
        header: &Header,
        first: PayloadType,
        plaintext: &[u8],
    ) -> Result<(), Error> {
        let chain = if initiator { &mut self.initiator } else { &mut self.responder };
        let before = encode_sk_prefix(header, first, plaintext.len())
            .map_err(|_too_long| Error::Internal("the message is too long"))?;
        *chain = prf(algorithm, sk_p, &[chain, &before, plaintext]);
        Ok(())
    }

    /// `IntAuth`, with the message ID of the first IKE_AUTH request; nothing if there was no
    /// message.
    pub(super) fn octets(&self, first_auth: u32) -> Vec<u8> {
        if self.initiator.is_empty() && self.responder.is_empty() {
            return Vec::new();
        }
        [&self.initiator, &self.responder, &first_auth.to_be_bytes()[..]].concat()
    }
}
