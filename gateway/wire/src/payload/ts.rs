//! Traffic Selectors (RFC 7296 3.13).

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, TsType};

/// What traffic one end of a Child SA may carry: one selector at least, 255 at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSelectors {
    /// The selectors in order.
    pub entries: Vec<TsEntry>,
}

/// One selector of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TsEntry {
    /// A range of addresses.
    Known(TrafficSelector),
    /// Of a type that is not known here: it selects nothing.
    Unknown(UnknownTrafficSelector),
}

/// A range of addresses with a protocol and a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// The IP protocol; 0 for any.
    pub protocol: u8,
    /// The first port; not above `end_port` unless the selector [is opaque](Self::is_opaque).
    /// For ICMP the type is in the upper octet and the code in the lower (RFC 7296 3.13.1).
    pub start_port: u16,
    /// The last port.
    pub end_port: u16,
    /// The first address; not above `end`, and of the same family.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
}

/// A selector of a type that is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTrafficSelector {
    /// Its type.
    pub kind: TsType,
    /// The octet where the others have the IP protocol.
    pub protocol: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

impl TrafficSelectors {
    const WHAT: &'static str = "traffic selectors";

    /// Selectors to send.
    #[must_use]
    pub fn new(selectors: Vec<TrafficSelector>) -> Self {
        Self { entries: selectors.into_iter().map(TsEntry::Known).collect() }
    }

    /// The selectors of known types, in order.
    pub fn known(&self) -> impl Iterator<Item = &TrafficSelector> {
        self.entries.iter().filter_map(|entry| match entry {
            TsEntry::Known(selector) => Some(selector),
            TsEntry::Unknown(_) => None,
        })
    }

    pub(crate) fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [count, _, _, _] = body.array()?;
        body.require_length(count != 0)?;
        let entries = (0..count).map(|_| TsEntry::decode(body)).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if self.entries.is_empty() {
            return Err(EncodeError::bad_value(Self::WHAT));
        }
        body.count_u8(Self::WHAT, self.entries.len())?;
        body.octets(&[0; 3]);
        self.entries.iter().try_for_each(|entry| entry.encode(body))
    }
}

impl TsEntry {
    const WHAT: &'static str = "traffic selector";

    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ([kind, protocol], mut selector) = body.framed(Self::WHAT)?;
        let entry = match TsType(kind) {
            TsType::IPV4_ADDR_RANGE => {
                Self::Known(TrafficSelector::decode::<4>(protocol, &mut selector)?)
            }
            TsType::IPV6_ADDR_RANGE => {
                Self::Known(TrafficSelector::decode::<16>(protocol, &mut selector)?)
            }
            kind => {
                let body = selector.rest().to_vec();
                Self::Unknown(UnknownTrafficSelector { kind, protocol, body })
            }
        };
        selector.finish()?;
        Ok(entry)
    }

    fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Known(selector) => selector.encode(body),
            Self::Unknown(unknown) => {
                let known = [TsType::IPV4_ADDR_RANGE, TsType::IPV6_ADDR_RANGE];
                if known.contains(&unknown.kind) {
                    return Err(EncodeError::bad_value(Self::WHAT));
                }
                body.framed(Self::WHAT, [unknown.kind.0, unknown.protocol], |selector| {
                    selector.octets(&unknown.body);
                    Ok(())
                })
            }
        }
    }
}

impl TrafficSelector {
    /// Whether it is for packets whose ports cannot be seen, such as fragments after the first
    /// (RFC 7296 3.13.1: start port 65535, end port 0).
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    fn decode<const N: usize>(protocol: u8, body: &mut Reader<'_>) -> Result<Self, DecodeError>
    where
        IpAddr: From<[u8; N]>,
    {
        let (start_port, end_port) = (body.u16()?, body.u16()?);
        let (start, end) = (body.array()?.into(), body.array()?.into());
        let selector = Self { protocol, start_port, end_port, start, end };
        body.require(selector.is_valid())?;
        Ok(selector)
    }

    fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        if !self.is_valid() {
            return Err(EncodeError::bad_value(TsEntry::WHAT));
        }
        let kind = match self.start {
            IpAddr::V4(_) => TsType::IPV4_ADDR_RANGE,
            IpAddr::V6(_) => TsType::IPV6_ADDR_RANGE,
        };
        body.framed(TsEntry::WHAT, [kind.0, self.protocol], |selector| {
            selector.u16(self.start_port);
            selector.u16(self.end_port);
            for address in [self.start, self.end] {
                match address {
                    IpAddr::V4(address) => selector.octets(&address.octets()),
                    IpAddr::V6(address) => selector.octets(&address.octets()),
                }
            }
            Ok(())
        })
    }

    fn is_valid(&self) -> bool {
        let ports = self.start_port <= self.end_port || self.is_opaque();
        ports && self.start.is_ipv4() == self.end.is_ipv4() && self.start <= self.end
    }
}
