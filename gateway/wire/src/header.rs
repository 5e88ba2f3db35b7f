//! The IKE header (RFC 7296 3.1).

use core::fmt;

use crate::reader::Reader;
use crate::{ExchangeType, HeaderError, OtherVersion, PayloadType};

/// Major version 2 in the upper half, minor version 0 in the lower.
const VERSION: u8 = 0x20;

/// The SPI of one end of an IKE SA: eight octets, never zero once it is chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub [u8; 8]);

impl IkeSpi {
    /// What stands for the responder's SPI before the responder has chosen it.
    pub const ZERO: Self = Self([0; 8]);

    /// Whether it is [`Self::ZERO`].
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a request, and of the response to it (RFC 7296 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The flags of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags {
    /// R: this is the response to a request with the same message ID.
    pub response: bool,
    /// V: the sender could speak a higher major version. Sent clear, ignored when received.
    pub version: bool,
    /// I: the sender is the original initiator of the IKE SA.
    pub initiator: bool,
}

impl Flags {
    const RESPONSE: u8 = 0x20;
    const VERSION: u8 = 0x10;
    const INITIATOR: u8 = 0x08;

    const fn from_octet(octet: u8) -> Self {
        Self {
            response: octet & Self::RESPONSE != 0,
            version: octet & Self::VERSION != 0,
            initiator: octet & Self::INITIATOR != 0,
        }
    }

    const fn to_octet(self) -> u8 {
        let response = if self.response { Self::RESPONSE } else { 0 };
        let version = if self.version { Self::VERSION } else { 0 };
        let initiator = if self.initiator { Self::INITIATOR } else { 0 };
        response | version | initiator
    }
}

/// The header of a message. Its version and length are checked and not kept; the type of the
/// first payload belongs to the payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the original initiator.
    pub initiator_spi: IkeSpi,
    /// Chosen by the original responder; zero in its first message's request.
    pub responder_spi: IkeSpi,
    /// What the message is for.
    pub exchange: ExchangeType,
    /// Request or response, and whose.
    pub flags: Flags,
    /// Which request, or the response to which.
    pub message_id: MessageId,
}

impl Header {
    /// Octets of the header.
    pub const LEN: usize = 28;

    /// Reads the header of a datagram (without non-ESP marker); gives it with the type of the
    /// first payload and the octets after the header.
    ///
    /// The minor version is ignored, as RFC 7296 2.5 asks.
    ///
    /// # Errors
    /// [`HeaderError::Version`] when the major version is not 2, whatever the length field says.
    /// [`HeaderError::Decode`] when the datagram is shorter than a header or its length differs
    /// from the length field.
    pub fn decode(datagram: &[u8]) -> Result<(Self, PayloadType, &[u8]), HeaderError> {
        let mut reader = Reader::new("IKE header", datagram);
        let initiator_spi = IkeSpi(reader.array()?);
        let responder_spi = IkeSpi(reader.array()?);
        let [first, version, exchange, flags] = reader.array()?;
        let header = Self {
            initiator_spi,
            responder_spi,
            exchange: ExchangeType(exchange),
            flags: Flags::from_octet(flags),
            message_id: MessageId(reader.u32()?),
        };
        let length = reader.u32()?;
        let (major, minor) = (version >> 4, version & 0x0f);
        if major != VERSION >> 4 {
            return Err(HeaderError::Version(OtherVersion { major, minor, header }));
        }
        reader.require_length(usize::try_from(length) == Ok(datagram.len()))?;
        Ok((header, PayloadType(first), reader.rest()))
    }

    /// The header's octets, for a message whose first payload is of type `first` and which has
    /// `total_len` octets with its header. The version written is 2.0.
    #[must_use]
    pub fn encode(&self, first: PayloadType, total_len: u32) -> [u8; Self::LEN] {
        let fields = self
            .initiator_spi
            .0
            .into_iter()
            .chain(self.responder_spi.0)
            .chain([first.0, VERSION, self.exchange.0, self.flags.to_octet()])
            .chain(self.message_id.0.to_be_bytes())
            .chain(total_len.to_be_bytes());
        let mut octets = [0; Self::LEN];
        for (octet, field) in octets.iter_mut().zip(fields) {
            *octet = field;
        }
        octets
    }
}
