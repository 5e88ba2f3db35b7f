//! Delete (RFC 7296 3.11).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, ProtocolId};

/// SAs that the sender has deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// [`ProtocolId::IKE`] for the IKE SA of the message itself, or AH or ESP.
    pub protocol: ProtocolId,
    /// For AH and ESP the sender's inbound SPIs in host order; for IKE none.
    pub spis: Vec<u32>,
}

impl Delete {
    pub(crate) fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [protocol, spi_size] = body.array()?;
        let protocol = ProtocolId(protocol);
        let count = body.u16()?;
        let size = spi_size_of(protocol);
        body.require(size.is_some())?;
        body.require_length(size == Some(spi_size) && (spi_size != 0 || count == 0))?;
        let mut spis = Vec::new();
        for _ in 0..count {
            spis.push(body.u32()?);
        }
        Ok(Self { protocol, spis })
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        let bad_value = EncodeError::bad_value("DELETE");
        let size = spi_size_of(self.protocol).ok_or(bad_value)?;
        if size == 0 && !self.spis.is_empty() {
            return Err(bad_value);
        }
        body.octets(&[self.protocol.0, size]);
        body.count_u16("DELETE", self.spis.len())?;
        for spi in &self.spis {
            body.u32(*spi);
        }
        Ok(())
    }
}

/// RFC 7296 3.11 knows these protocols only.
const fn spi_size_of(protocol: ProtocolId) -> Option<u8> {
    match protocol {
        ProtocolId::IKE => Some(0),
        ProtocolId::AH | ProtocolId::ESP => Some(4),
        _ => None,
    }
}
