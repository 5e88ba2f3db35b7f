//! Nonce (RFC 7296 3.9).

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError};

/// Random octets of one side: [`Self::MIN`] to [`Self::MAX`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce<'a>(pub &'a [u8]);

impl<'a> Nonce<'a> {
    /// The fewest octets.
    pub const MIN: usize = 16;
    /// The most octets.
    pub const MAX: usize = 256;

    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let nonce = Self(body.rest());
        body.require_length(nonce.is_valid())?;
        Ok(nonce)
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if !self.is_valid() {
            return Err(EncodeError::bad_value("NONCE"));
        }
        body.octets(self.0);
        Ok(())
    }

    const fn is_valid(&self) -> bool {
        Self::MIN <= self.0.len() && self.0.len() <= Self::MAX
    }
}
