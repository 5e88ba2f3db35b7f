//! AlgorithmIdentifiers of signatures, as AUTH names them (RFC 7427 3 and A, RFC 8420).

use pkcs1::RsaPssParamsOwned;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::spki::AlgorithmIdentifierRef;

use crate::algorithms::SignatureScheme;

const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// The octets that stand for a scheme (RFC 7427 A).
#[must_use]
pub const fn of_scheme(scheme: SignatureScheme) -> &'static [u8] {
    match scheme {
        SignatureScheme::RsaPssSha256 => PSS_SHA256,
        SignatureScheme::RsaPssSha384 => PSS_SHA384,
        SignatureScheme::RsaPssSha512 => PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => {
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"
        }
        SignatureScheme::RsaPkcs1Sha384 => {
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00"
        }
        SignatureScheme::RsaPkcs1Sha512 => {
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00"
        }
        SignatureScheme::EcdsaSha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
        SignatureScheme::EcdsaSha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
        SignatureScheme::EcdsaSha512 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
        SignatureScheme::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
    }
}

/// RFC 7427 A.4.3, and the same with the other hashes.
const PSS_SHA256: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\xa2\x03\x02\x01\x20";
const PSS_SHA384: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30";
const PSS_SHA512: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\xa2\x03\x02\x01\x40";

/// The scheme that a peer's AlgorithmIdentifier stands for, or `None` for one that we do not
/// have.
///
/// All but RSASSA-PSS have one encoding each. The parameters of RSASSA-PSS may leave NULL out
/// after a hash (RFC 4055 2.1) and spell out the trailer field, as some implementations do; but
/// both hashes must be the same one and the salt of its length.
#[must_use]
pub fn to_scheme(identifier: &[u8]) -> Option<SignatureScheme> {
    let exact = SignatureScheme::ALL.iter().copied().find(|s| of_scheme(*s) == identifier);
    exact.or_else(|| pss(identifier))
}

fn pss(identifier: &[u8]) -> Option<SignatureScheme> {
    let outer = AlgorithmIdentifierRef::from_der(identifier).ok()?;
    let parameters =
        outer.parameters.filter(|p| outer.oid == RSA_PSS && p.tag() == Tag::Sequence)?;
    let parameters: RsaPssParamsOwned = parameters.decode_as().ok()?;
    let (hash, mask) = (&parameters.hash, &parameters.mask_gen);
    let mask_hash = mask.parameters.as_ref().filter(|_| mask.oid == MGF1)?;
    let plain = |p: &Option<Any>| p.as_ref().is_none_or(|p| *p == Any::null());
    if mask_hash.oid != hash.oid || !plain(&hash.parameters) || !plain(&mask_hash.parameters) {
        return None;
    }
    match (hash.oid, parameters.salt_len) {
        (SHA256, 32) => Some(SignatureScheme::RsaPssSha256),
        (SHA384, 48) => Some(SignatureScheme::RsaPssSha384),
        (SHA512, 64) => Some(SignatureScheme::RsaPssSha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::hex;

    #[test]
    fn every_scheme_is_known_by_its_identifier() {
        for scheme in SignatureScheme::ALL {
            assert_eq!(to_scheme(of_scheme(*scheme)), Some(*scheme));
        }
    }

    /// RFC 7427 A.1 to A.4, RFC 8410.
    #[test]
    fn the_identifiers_are_those_of_the_rfc() {
        for (scheme, octets) in [
            (SignatureScheme::RsaPkcs1Sha256, "300d06092a864886f70d01010b0500"),
            (SignatureScheme::RsaPkcs1Sha384, "300d06092a864886f70d01010c0500"),
            (SignatureScheme::RsaPkcs1Sha512, "300d06092a864886f70d01010d0500"),
            (SignatureScheme::EcdsaSha256, "300a06082a8648ce3d040302"),
            (SignatureScheme::EcdsaSha384, "300a06082a8648ce3d040303"),
            (SignatureScheme::EcdsaSha512, "300a06082a8648ce3d040304"),
            (
                SignatureScheme::RsaPssSha256,
                "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
                 a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020120",
            ),
            (SignatureScheme::Ed25519, "300506032b6570"),
        ] {
            assert_eq!(of_scheme(scheme), hex(octets), "{scheme}");
        }
    }

    #[test]
    fn the_parameters_of_pss_may_be_written_in_other_ways() {
        for octets in [
            // without NULL
            "303d 06092a864886f70d01010a 3030 a00d300b0609608648016503040201
             a11a301806092a864886f70d010108300b0609608648016503040201 a203020120",
            // with the trailer field
            "3046 06092a864886f70d01010a 3039 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020120 a303020101",
        ] {
            assert_eq!(to_scheme(&hex(octets)), Some(SignatureScheme::RsaPssSha256), "{octets}");
        }
    }

    #[test]
    fn what_is_weak_or_uneven_is_not_known() {
        for octets in [
            "",
            "3000",
            // SHA-1 with RSA, with ECDSA
            "300d06092a864886f70d0101050500",
            "300906072a8648ce3d0401",
            // PSS without parameters (SHA-1), and with empty ones
            "300b06092a864886f70d01010a",
            "300d06092a864886f70d01010a3000",
            // a salt of 20 octets, of another hash's length, and a negative one
            "303c 06092a864886f70d01010a 302f a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500",
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020130",
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500 a2030201e0",
            // two hashes
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402020500 a203020120",
            // another trailer
            "3046 06092a864886f70d01010a 3039 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020120 a303020102",
            // an octet too many
            "300506032b657000",
            // a length in two octets
            "30810506032b6570",
            // Ed25519 with NULL
            "300706032b65700500",
        ] {
            assert_eq!(to_scheme(&hex(octets)), None, "{octets}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(octets in proptest::collection::vec(any::<u8>(), 0..255)) {
            let scheme = to_scheme(&octets);
            prop_assert!(scheme.is_none_or(|s| of_scheme(s) == octets || octets.len() > 50));
        }

        #[test]
        fn one_changed_octet_never_gives_another_scheme(
            n in 0..SignatureScheme::ALL.len(), at in any::<prop::sample::Index>(), bits in 1..=255_u8,
        ) {
            let scheme = SignatureScheme::ALL[n];
            let mut octets = of_scheme(scheme).to_vec();
            let at = at.index(octets.len());
            octets[at] ^= bits;
            if let Some(other) = to_scheme(&octets) {
                prop_assert_eq!(of_scheme(other), octets);
            }
        }
    }
}
