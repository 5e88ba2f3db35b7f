//! Identities as ID payloads (RFC 7296 3.5).

use core::net::IpAddr;

use gateway_wire::{IdType, Identification};

use crate::config::Identity;

impl Identity {
    /// The type and data of the ID payload.
    pub(crate) fn to_wire(&self) -> (IdType, Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(ip)) => (IdType::IPV4_ADDR, ip.octets().to_vec()),
            Self::Address(IpAddr::V6(ip)) => (IdType::IPV6_ADDR, ip.octets().to_vec()),
            Self::Fqdn(name) => (IdType::FQDN, name.as_bytes().to_vec()),
            Self::Email(address) => (IdType::RFC822_ADDR, address.as_bytes().to_vec()),
            Self::KeyId(octets) => (IdType::KEY_ID, octets.clone()),
        }
    }

    /// The octets of the ID payload that AUTH covers: type, three reserved octets, data
    /// (RFC 7296 2.15).
    pub(crate) fn body(&self) -> Vec<u8> {
        let (kind, data) = self.to_wire();
        let mut body = vec![kind.0, 0, 0, 0];
        body.extend_from_slice(&data);
        body
    }

    /// Whether an ID payload says that it is this identity. Names are compared without regard
    /// to case, as in DNS; only the domain part of an e-mail address is a DNS name, but nobody
    /// gives two people the same address in different case.
    pub(crate) fn is(&self, id: &Identification<'_>) -> bool {
        let (kind, data) = self.to_wire();
        kind == id.kind
            && match self {
                Self::Fqdn(_) | Self::Email(_) => data.eq_ignore_ascii_case(id.data),
                Self::Address(_) | Self::KeyId(_) => data == id.data,
            }
    }
}

/// A received identity in words; it has not been verified and may hold any octets.
pub(crate) fn describe(id: &Identification<'_>) -> String {
    let text = || id.data.escape_ascii().to_string();
    match id.kind {
        IdType::IPV4_ADDR => <[u8; 4]>::try_from(id.data).map_or_else(|_| text(), |o| IpAddr::from(o).to_string()),
        IdType::IPV6_ADDR => <[u8; 16]>::try_from(id.data).map_or_else(|_| text(), |o| IpAddr::from(o).to_string()),
        IdType::FQDN | IdType::RFC822_ADDR => text(),
        kind => format!("{kind}:{}", text()),
    }
}
