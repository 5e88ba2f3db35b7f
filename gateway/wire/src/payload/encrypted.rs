//! The frame of the Encrypted payload (RFC 7296 3.14) and of its fragments (RFC 7383 2.5). What
//! is inside is opaque here: the sizes of IV and ICV depend on the negotiated algorithms.

use crate::EncodeError;
use crate::PayloadType;
use crate::writer::Writer;

/// An Encrypted and Authenticated payload, the last of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encrypted<'a> {
    /// The type of the first payload inside; [`PayloadType::NONE`] when there is none.
    pub first: PayloadType,
    /// IV, ciphertext and ICV.
    pub body: &'a [u8],
    /// Where `body` begins in the datagram: what stands before is the associated data of an AEAD.
    /// Ignored when the payload is written.
    pub body_offset: usize,
}

/// One fragment of an Encrypted and Authenticated payload, the last payload of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptedFragment<'a> {
    /// In fragment 1 the type of the first payload inside the whole; else [`PayloadType::NONE`].
    pub first: PayloadType,
    /// Which fragment this is, from 1.
    pub number: u16,
    /// How many there are: `number` at least.
    pub total: u16,
    /// IV, ciphertext and ICV.
    pub body: &'a [u8],
    /// Where `body` begins in the datagram. Ignored when the payload is written.
    pub body_offset: usize,
}

impl EncryptedFragment<'_> {
    /// RFC 7383 2.5: both count from one.
    pub(crate) const fn is_valid(number: u16, total: u16) -> bool {
        0 < number && number <= total
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if !Self::is_valid(self.number, self.total) {
            return Err(EncodeError::bad_value("SKF"));
        }
        body.u16(self.number);
        body.u16(self.total);
        body.octets(self.body);
        Ok(())
    }
}
