//! Identities as ID payloads (RFC 7296 3.5).

use core::net::IpAddr;

use gateway_wire::{IdType, Identification};

use crate::config::Identity;
use crate::crypto::x509::{DistinguishedName, NormalName};

impl Identity {
    /// The type and data of the ID payload.
    pub(crate) fn to_wire(&self) -> (IdType, Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(ip)) => (IdType::IPV4_ADDR, ip.octets().to_vec()),
            Self::Address(IpAddr::V6(ip)) => (IdType::IPV6_ADDR, ip.octets().to_vec()),
            Self::Fqdn(name) => (IdType::FQDN, name.as_bytes().to_vec()),
            Self::Email(address) => (IdType::RFC822_ADDR, address.as_bytes().to_vec()),
            Self::KeyId(octets) => (IdType::KEY_ID, octets.clone()),
            Self::Dn(name) => (IdType::DER_ASN1_DN, name.der().to_vec()),
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
        IdentityKey::from(self) == IdentityKey::from(id)
    }
}

/// What an identity is found by: an identity with everything taken away that makes no difference.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IdentityKey {
    /// Its type and octets.
    Octets(IdType, Vec<u8>),
    /// A distinguished name.
    Name(NormalName),
}

impl From<&Identification<'_>> for IdentityKey {
    fn from(id: &Identification<'_>) -> Self {
        match id.kind {
            IdType::FQDN | IdType::RFC822_ADDR => {
                Self::Octets(id.kind, id.data.to_ascii_lowercase())
            }
            IdType::DER_ASN1_DN => NormalName::from_der(id.data)
                .map_or_else(|| Self::Octets(id.kind, id.data.to_vec()), Self::Name),
            kind => Self::Octets(kind, id.data.to_vec()),
        }
    }
}

impl From<&Identity> for IdentityKey {
    fn from(identity: &Identity) -> Self {
        let (kind, data) = identity.to_wire();
        Self::from(&Identification::new(kind, &data))
    }
}

/// Octets of a received identity that are shown.
const MOST_SHOWN: usize = 256;

/// A received identity in words; it has not been verified and may hold any octets, of which the
/// first are shown.
pub(crate) fn describe(id: &Identification<'_>) -> String {
    let text = || match id.data.get(..MOST_SHOWN) {
        Some(first) if first.len() < id.data.len() => format!("{}…", first.escape_ascii()),
        _ => id.data.escape_ascii().to_string(),
    };
    match id.kind {
        IdType::IPV4_ADDR => {
            <[u8; 4]>::try_from(id.data).map_or_else(|_| text(), |o| IpAddr::from(o).to_string())
        }
        IdType::IPV6_ADDR => {
            <[u8; 16]>::try_from(id.data).map_or_else(|_| text(), |o| IpAddr::from(o).to_string())
        }
        IdType::FQDN | IdType::RFC822_ADDR => text(),
        IdType::DER_ASN1_DN => DistinguishedName::from_der(id.data)
            .map_or_else(|_| text(), |name| Identity::Dn(name).to_string()),
        kind => format!("{kind}:{}", text()),
    }
}

/// The name of the user that an initiator says it is, where it is to be told by IDi. One without a
/// realm comes as a key ID (RFC 7296 3.5).
pub(crate) fn user_name(id: &Identification<'_>) -> String {
    let is_name = matches!(id.kind, IdType::FQDN | IdType::RFC822_ADDR | IdType::KEY_ID);
    match core::str::from_utf8(id.data) {
        Ok(name) if is_name && name.len() <= MOST_SHOWN => name.to_owned(),
        Ok(_) | Err(_) => describe(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(identity: &Identity, kind: IdType, data: &[u8]) -> bool {
        identity.is(&Identification::new(kind, data))
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        let name = Identity::Fqdn("Gate.Example".to_owned());
        assert!(is(&name, IdType::FQDN, b"gATE.eXAMPLE"));
        assert!(!is(&name, IdType::FQDN, b"gate.example."));
        assert!(!is(&name, IdType::FQDN, b"gate.exampl"));
        let address = Identity::Email("Me@Example".to_owned());
        assert!(is(&address, IdType::RFC822_ADDR, b"me@example"));
    }

    /// RFC 7296 3.5: they have none, so that what has one is something else.
    #[test]
    fn a_name_with_a_terminator_is_another_name() {
        let names = ["gate.example", "me@example"].map(str::to_owned);
        let [domain, address] = names;
        for name in [Identity::Fqdn(domain), Identity::Email(address)] {
            let (kind, data) = name.to_wire();
            assert!(is(&name, kind, &data));
            for terminator in *b"\0\r\n" {
                assert!(!is(&name, kind, &[data.as_slice(), &[terminator]].concat()));
            }
        }
    }

    #[test]
    fn key_ids_are_compared_octet_for_octet() {
        let key = Identity::KeyId(b"Key".to_vec());
        assert!(is(&key, IdType::KEY_ID, b"Key"));
        assert!(!is(&key, IdType::KEY_ID, b"key"));
    }

    #[test]
    fn the_same_octets_of_another_type_are_another_identity() {
        let name = Identity::Fqdn("abcd".to_owned());
        for kind in [IdType::RFC822_ADDR, IdType::KEY_ID, IdType::IPV4_ADDR] {
            assert!(!is(&name, kind, b"abcd"));
        }
        let address = Identity::Address("97.98.99.100".parse().unwrap());
        assert!(is(&address, IdType::IPV4_ADDR, b"abcd"));
        assert!(!is(&address, IdType::FQDN, b"abcd"));
    }

    #[test]
    fn addresses_of_both_families_are_compared_whole() {
        let v6 = Identity::Address("2001:db8::1".parse().unwrap());
        let (kind, data) = v6.to_wire();
        assert_eq!((kind, data.len()), (IdType::IPV6_ADDR, 16));
        assert!(is(&v6, kind, &data));
        assert!(!is(&v6, kind, &data[..15]));
        assert!(!is(&v6, IdType::IPV4_ADDR, &data[..4]));
    }

    #[test]
    fn every_identity_is_what_it_sends() {
        for identity in [
            Identity::Address("192.0.2.1".parse().unwrap()),
            Identity::Address("2001:db8::1".parse().unwrap()),
            Identity::Fqdn("gate.example".to_owned()),
            Identity::Email("me@example".to_owned()),
            Identity::KeyId(vec![0, 255]),
        ] {
            let (kind, data) = identity.to_wire();
            assert!(is(&identity, kind, &data));
            assert_eq!(identity.body(), [&[kind.0, 0, 0, 0], data.as_slice()].concat());
        }
    }

    #[test]
    fn a_user_is_named_by_each_type_that_holds_a_name() {
        let name = |kind, data: &[u8]| user_name(&Identification::new(kind, data));
        assert_eq!(name(IdType::KEY_ID, b"alice"), "alice");
        assert_eq!(name(IdType::RFC822_ADDR, "zoë@example".as_bytes()), "zoë@example");
        assert_eq!(name(IdType::FQDN, b"alice"), "alice");
        assert_eq!(name(IdType::IPV4_ADDR, b"four"), "102.111.117.114");
        for none in [&[0xff; 3][..], &[b'a'; 257]] {
            assert_ne!(name(IdType::KEY_ID, none).as_bytes(), none);
        }
    }

    #[test]
    fn a_received_identity_is_described_whatever_it_holds() {
        let words = |kind, data: &[u8]| describe(&Identification::new(kind, data));
        assert_eq!(words(IdType::IPV4_ADDR, &[192, 0, 2, 1]), "192.0.2.1");
        assert_eq!(words(IdType::IPV4_ADDR, b"abc"), "abc");
        assert_eq!(words(IdType::IPV6_ADDR, &[0; 16]), "::");
        assert_eq!(words(IdType::FQDN, b"a\nb\xff"), "a\\nb\\xff");
        assert!(words(IdType::KEY_ID, b"k\0").ends_with(":k\\x00"));
        assert_eq!(words(IdType::FQDN, &[b'a'; 256]).len(), 256);
        assert_eq!(words(IdType::FQDN, &[b'a'; 60_000]).chars().count(), 257);
    }
}
