//! Authentication (RFC 7296 3.8) and the form of its data for digital signatures (RFC 7427 3).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{AuthMethod, DecodeError, EncodeError};

/// The proof of one side's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// How it was made.
    pub method: AuthMethod,
    /// The proof; for [`AuthMethod::DIGITAL_SIGNATURE`] a [`SignatureAuthentication`].
    pub data: &'a [u8],
}

impl<'a> Authentication<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let method = AuthMethod(body.u8()?);
        let _reserved: [u8; 3] = body.array()?;
        Ok(Self { method, data: body.rest() })
    }

    pub(crate) fn encode(&self, body: &mut Writer) {
        body.octets(&[self.method.0, 0, 0, 0]);
        body.octets(self.data);
    }
}

/// The data of AUTH when its method is [`AuthMethod::DIGITAL_SIGNATURE`] (RFC 7427 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureAuthentication<'a> {
    /// A DER AlgorithmIdentifier, at least one and at most 255 octets; to be compared octet for
    /// octet.
    pub algorithm_identifier: &'a [u8],
    /// The signature in the algorithm's own form.
    pub signature: &'a [u8],
}

impl<'a> SignatureAuthentication<'a> {
    const WHAT: &'static str = "signature AUTH";

    /// Reads the data of an AUTH payload.
    ///
    /// # Errors
    /// When the AlgorithmIdentifier is empty or ends after the data.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Self::WHAT, data);
        let length = reader.u8()?;
        reader.require_length(length != 0)?;
        let algorithm_identifier = reader.take(usize::from(length))?;
        Ok(Self { algorithm_identifier, signature: reader.rest() })
    }

    /// The data of an AUTH payload.
    ///
    /// # Errors
    /// When the AlgorithmIdentifier is empty or longer than 255 octets.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if self.algorithm_identifier.is_empty() {
            return Err(EncodeError::bad_value(Self::WHAT));
        }
        let mut writer = Writer::default();
        writer.count_u8(Self::WHAT, self.algorithm_identifier.len())?;
        writer.octets(self.algorithm_identifier);
        writer.octets(self.signature);
        Ok(writer.finish())
    }
}
