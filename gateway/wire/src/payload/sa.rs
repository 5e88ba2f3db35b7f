//! Security Association: proposals of transforms with attributes (RFC 7296 3.3).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, ProtocolId, TransformType};

/// What one side offers, best first, or the one proposal that the other has chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityAssociation {
    /// One at least.
    pub proposals: Vec<Proposal>,
}

/// One way to protect an SA: one transform of each type is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// From 1, in order; the answer has the number of the proposal that was chosen.
    pub number: u8,
    /// What the SA is for.
    pub protocol: ProtocolId,
    /// The sender's SPI: for IKE none at first and 8 octets in a rekey, for AH and ESP 4 octets.
    pub spi: Vec<u8>,
    /// One at least, 255 at most.
    pub transforms: Vec<Transform>,
}

/// One algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    /// What the algorithm is for.
    pub kind: TransformType,
    /// The algorithm, by the numbers of its `kind`.
    pub id: u16,
    /// The key's length in bits, for an algorithm that has several.
    pub key_length: Option<u16>,
    /// Whether there was an attribute that is not known here. Such a transform must not be chosen
    /// (RFC 7296 3.3.6), and cannot be written.
    pub unknown_attribute: bool,
}

/// The first octet of a proposal or transform that is the last of its kind …
const LAST: u8 = 0;
/// … of a proposal that is not …
const MORE_PROPOSALS: u8 = 2;
/// … and of a transform that is not.
const MORE_TRANSFORMS: u8 = 3;

/// The bit before an attribute's type that says that the value follows at once, in two octets,
/// and no length.
const SHORT_FORM: u16 = 0x8000;
/// The attribute type of the key length.
const KEY_LENGTH: u16 = 14;

impl SecurityAssociation {
    pub(crate) fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut proposals = Vec::new();
        loop {
            let ([more, _reserved], mut proposal) = body.framed("proposal")?;
            proposal.require(more == LAST || more == MORE_PROPOSALS)?;
            proposals.push(Proposal::decode(&mut proposal)?);
            proposal.finish()?;
            if more == LAST {
                return Ok(Self { proposals });
            }
        }
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        let (last, others) = self.proposals.split_last().ok_or(EncodeError::bad_value("SA"))?;
        for proposal in others {
            body.framed("proposal", [MORE_PROPOSALS, 0], |body| proposal.encode(body))?;
        }
        body.framed("proposal", [LAST, 0], |body| last.encode(body))
    }
}

impl Proposal {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [number, protocol, spi_size, count] = body.array()?;
        let spi = body.take(usize::from(spi_size))?.to_vec();
        let mut transforms = Vec::with_capacity(usize::from(count));
        for left in (0..count).rev() {
            let ([more, _reserved], mut transform) = body.framed("transform")?;
            transform.require(more == if left == 0 { LAST } else { MORE_TRANSFORMS })?;
            transforms.push(Transform::decode(&mut transform)?);
        }
        let proposal = Self { number, protocol: ProtocolId(protocol), spi, transforms };
        body.require_length(proposal.is_valid())?;
        Ok(proposal)
    }

    fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        let bad_value = EncodeError::bad_value("proposal");
        let (last, others) = self.transforms.split_last().ok_or(bad_value)?;
        if !self.is_valid() {
            return Err(bad_value);
        }
        body.octets(&[self.number, self.protocol.0]);
        body.count_u8("proposal", self.spi.len())?;
        body.count_u8("proposal", self.transforms.len())?;
        body.octets(&self.spi);
        for transform in others {
            body.framed("transform", [MORE_TRANSFORMS, 0], |body| transform.encode(body))?;
        }
        body.framed("transform", [LAST, 0], |body| last.encode(body))
    }

    /// A proposal for a protocol that is not known may have any SPI: it is not chosen, and the
    /// others beside it may be.
    fn is_valid(&self) -> bool {
        let spi = match self.protocol {
            ProtocolId::IKE => matches!(self.spi.len(), 0 | 8),
            ProtocolId::AH | ProtocolId::ESP => self.spi.len() == 4,
            _ => true,
        };
        spi && !self.transforms.is_empty()
    }
}

impl Transform {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [kind, _reserved] = body.array()?;
        let id = body.u16()?;
        let mut transform =
            Self { kind: TransformType(kind), id, key_length: None, unknown_attribute: false };
        while !body.is_empty() {
            transform.decode_attribute(body)?;
        }
        Ok(transform)
    }

    fn decode_attribute(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        let kind = body.u16()?;
        let short = body.u16()?;
        if kind == SHORT_FORM | KEY_LENGTH {
            // RFC 7296 3.3.5: no attribute twice.
            let repeated = self.key_length.replace(short).is_some();
            return body.require(!repeated);
        }
        self.unknown_attribute = true;
        if kind & SHORT_FORM == 0 {
            body.take(usize::from(short))?;
        }
        Ok(())
    }

    fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if self.unknown_attribute {
            return Err(EncodeError::bad_value("transform"));
        }
        body.octets(&[self.kind.0, 0]);
        body.u16(self.id);
        if let Some(bits) = self.key_length {
            body.u16(SHORT_FORM | KEY_LENGTH);
            body.u16(bits);
        }
        Ok(())
    }
}
