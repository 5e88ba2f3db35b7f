//! Notify (RFC 7296 3.10).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, HashAlgorithm, NotifyType, ProtocolId};

/// An error or a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify<'a> {
    /// The protocol of the SA that `spi` names; without an SPI it is sent as
    /// [`ProtocolId::NONE`] and means nothing.
    pub protocol: ProtocolId,
    /// The SPI of the SA concerned; empty when it is the IKE SA of the message, or none.
    pub spi: &'a [u8],
    /// What is notified.
    pub kind: NotifyType,
    /// What `kind` wants to have said beside.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [protocol, spi_size] = body.array()?;
        let kind = NotifyType(body.u16()?);
        let spi = body.take(usize::from(spi_size))?;
        Ok(Self { protocol: ProtocolId(protocol), spi, kind, data: body.rest() })
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        body.u8(self.protocol.0);
        body.count_u8("NOTIFY", self.spi.len())?;
        body.u16(self.kind.0);
        body.octets(self.spi);
        body.octets(self.data);
        Ok(())
    }

    /// The data of SIGNATURE_HASH_ALGORITHMS: what the sender can verify signatures with
    /// (RFC 7427 4). Unknown algorithms are among them and are to be ignored.
    ///
    /// # Errors
    /// When the data has an odd number of octets.
    pub fn hash_algorithms(&self) -> Result<Vec<HashAlgorithm>, DecodeError> {
        let mut reader = Reader::new("SIGNATURE_HASH_ALGORITHMS", self.data);
        let mut algorithms = Vec::new();
        while !reader.is_empty() {
            algorithms.push(HashAlgorithm(reader.u16()?));
        }
        Ok(algorithms)
    }
}

impl HashAlgorithm {
    /// The data of a SIGNATURE_HASH_ALGORITHMS notification, see [`Notify::hash_algorithms`].
    #[must_use]
    pub fn encode_list(algorithms: &[Self]) -> Vec<u8> {
        algorithms.iter().flat_map(|algorithm| algorithm.0.to_be_bytes()).collect()
    }
}
