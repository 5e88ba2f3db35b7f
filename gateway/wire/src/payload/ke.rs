//! Key Exchange (RFC 7296 3.4).

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, KeMethod};

/// One side's public value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyExchange<'a> {
    /// The method that it is for.
    pub method: KeMethod,
    /// The public value. Its length is the method's affair and is not checked here.
    pub data: &'a [u8],
}

impl<'a> KeyExchange<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let method = KeMethod(body.u16()?);
        let _reserved: [u8; 2] = body.array()?;
        Ok(Self { method, data: body.rest() })
    }

    pub(crate) fn encode(&self, body: &mut Writer) {
        body.u16(self.method.0);
        body.u16(0);
        body.octets(self.data);
    }
}
