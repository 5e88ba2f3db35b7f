//! Identification (RFC 7296 3.5).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, IdType};

/// Who one side says it is. Nothing is verified before AUTH is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identification<'a> {
    /// How `data` is to be read.
    pub kind: IdType,
    /// Three octets without meaning, kept because AUTH covers them as they were sent.
    pub reserved: [u8; 3],
    /// The identity: 4 and 16 octets for the two address types, any number for the others.
    pub data: &'a [u8],
}

impl<'a> Identification<'a> {
    /// An identity to send.
    #[must_use]
    pub const fn new(kind: IdType, data: &'a [u8]) -> Self {
        Self { kind, reserved: [0; 3], data }
    }

    /// The octets that AUTH covers: the payload as it is on the wire, without its generic header
    /// (RFC 7296 2.15, RestOfInitIDPayload).
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        [&[self.kind.0], self.reserved.as_slice(), self.data].concat()
    }

    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = IdType(body.u8()?);
        let id = Self { kind, reserved: body.array()?, data: body.rest() };
        body.require_length(id.is_valid())?;
        Ok(id)
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if !self.is_valid() {
            return Err(EncodeError::bad_value("identification"));
        }
        body.octets(&self.body());
        Ok(())
    }

    const fn is_valid(&self) -> bool {
        match self.kind {
            IdType::IPV4_ADDR => self.data.len() == 4,
            IdType::IPV6_ADDR => self.data.len() == 16,
            _ => true,
        }
    }
}
