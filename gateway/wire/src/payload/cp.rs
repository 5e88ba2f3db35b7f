//! Configuration (RFC 7296 3.15). The values are carried, not read.

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{CpAttribute, CpType, DecodeError, EncodeError};

/// Settings that one side asks of the other, or gives to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration<'a> {
    /// Request, reply, set or acknowledgement.
    pub kind: CpType,
    /// The attributes in order.
    pub attributes: Vec<ConfigurationAttribute<'a>>,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigurationAttribute<'a> {
    /// Which setting: below 32768.
    pub kind: CpAttribute,
    /// Its value; empty in a request without a wish.
    pub value: &'a [u8],
}

/// The reserved bit above the fifteen of an attribute's type.
const RESERVED: u16 = 0x8000;

impl<'a> Configuration<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [kind, _, _, _] = body.array()?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            let kind = CpAttribute(body.u16()? & !RESERVED);
            let length = body.u16()?;
            let value = body.take(usize::from(length))?;
            attributes.push(ConfigurationAttribute { kind, value });
        }
        Ok(Self { kind: CpType(kind), attributes })
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        body.octets(&[self.kind.0, 0, 0, 0]);
        for attribute in &self.attributes {
            if attribute.kind.0 & RESERVED != 0 {
                return Err(EncodeError::bad_value("CP"));
            }
            body.u16(attribute.kind.0);
            body.count_u16("CP", attribute.value.len())?;
            body.octets(attribute.value);
        }
        Ok(())
    }
}
