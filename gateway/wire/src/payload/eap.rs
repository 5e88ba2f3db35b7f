//! Extensible Authentication (RFC 7296 3.16, RFC 3748 4). Methods are carried, not read.

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EapCode, EncodeError};

/// One EAP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eap<'a> {
    /// Request, response, success or failure.
    pub code: EapCode,
    /// Matches a response to its request.
    pub identifier: u8,
    /// In a request or response its type, one octet, and what belongs to the type; in a success
    /// or failure nothing.
    pub data: &'a [u8],
}

impl<'a> Eap<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let ([code, identifier], mut message) = body.framed("EAP")?;
        let eap = Self { code: EapCode(code), identifier, data: message.rest() };
        body.require_length(eap.is_valid())?;
        Ok(eap)
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if !self.is_valid() {
            return Err(EncodeError::bad_value("EAP"));
        }
        body.framed("EAP", [self.code.0, self.identifier], |message| {
            message.octets(self.data);
            Ok(())
        })
    }

    const fn is_valid(&self) -> bool {
        match self.code {
            EapCode::REQUEST | EapCode::RESPONSE => !self.data.is_empty(),
            EapCode::SUCCESS | EapCode::FAILURE => self.data.is_empty(),
            _ => true,
        }
    }
}
