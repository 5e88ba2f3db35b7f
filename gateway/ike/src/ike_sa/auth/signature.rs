//! AUTH as a digital signature: by RFC 7427, and by the methods before it.

use std::collections::BTreeSet;

use gateway_wire::{AuthMethod, Authentication, HashAlgorithm, SignatureAuthentication};

use crate::algorithms::SignatureScheme;
use crate::crypto::signature::{BadSignature, PublicKey, SigningKey, identifier};
use crate::error::{AuthenticationFault, Error};

/// The hashes that either end may sign with, as SIGNATURE_HASH_ALGORITHMS lists them
/// (RFC 7427 4).
pub(in crate::ike_sa) fn hash_list(hashes: &BTreeSet<HashAlgorithm>) -> Vec<u8> {
    hashes.iter().flat_map(|h| h.0.to_be_bytes()).collect()
}

/// The hashes that a peer lists; what does not fill two octets is dropped.
pub(in crate::ike_sa) fn parse_hash_list(data: &[u8]) -> Vec<HashAlgorithm> {
    let (pairs, _) = data.as_chunks::<2>();
    let mut hashes: Vec<_> = pairs.iter().map(|p| HashAlgorithm(u16::from_be_bytes(*p))).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Signs with the best scheme that our key can do, our policy allows and the peer can verify; with
/// an older method if the peer does not know RFC 7427.
pub(super) fn sign(
    key: &SigningKey,
    schemes: &[SignatureScheme],
    peer_hashes: Option<&[HashAlgorithm]>,
    octets: &[u8],
) -> Result<(AuthMethod, Vec<u8>), Error> {
    let failed = |_failed| Error::Internal("the private key does not sign");
    let not_negotiated = |theirs: String| {
        let ours = key.schemes().iter().filter(|s| schemes.contains(s)).map(ToString::to_string);
        Error::Authentication(AuthenticationFault::NoScheme {
            key: key.public().kind().to_string(),
            ours: ours.collect::<Vec<_>>().join(", "),
            theirs,
        })
    };
    let Some(hashes) = peer_hashes else {
        if !key.old_scheme().is_some_and(|scheme| schemes.contains(&scheme)) {
            return Err(not_negotiated("none of RFC 7427".to_owned()));
        }
        return key
            .sign_old(octets)
            .map_err(|_failed| not_negotiated("none of RFC 7427".to_owned()));
    };
    let good = |s: &&SignatureScheme| key.schemes().contains(s) && hashes.contains(&s.hash());
    let scheme = *schemes.iter().find(good).ok_or_else(|| {
        not_negotiated(hashes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    })?;
    let signature = key.sign(scheme, octets).map_err(failed)?;
    let algorithm_identifier = identifier::of_scheme(scheme);
    let data = SignatureAuthentication { algorithm_identifier, signature: &signature }.encode();
    let data = data.map_err(|_long| Error::Internal("an AlgorithmIdentifier is too long"))?;
    Ok((AuthMethod::DIGITAL_SIGNATURE, data))
}

/// Whether the owner of a key has signed these octets, in a way that policy allows. Gives the
/// scheme. `whose` is for the operator.
pub(super) fn verify(
    key: &PublicKey,
    whose: &str,
    schemes: &[SignatureScheme],
    peer_knows_rfc7427: bool,
    auth: &Authentication<'_>,
    octets: &[u8],
) -> Result<SignatureScheme, AuthenticationFault> {
    let fault = |fault: BadSignature| match fault {
        BadSignature::OtherKey => AuthenticationFault::SchemeOfOtherKey {
            key: key.kind().to_string(),
            method: auth.method,
        },
        BadSignature::Wrong => AuthenticationFault::WrongSignature(whose.to_owned()),
        BadSignature::Sha1 => AuthenticationFault::Sha1,
    };
    let allowed = |scheme: SignatureScheme| {
        if schemes.contains(&scheme) {
            return Ok(scheme);
        }
        Err(AuthenticationFault::SchemeNotAllowed(scheme))
    };
    match auth.method {
        // RFC 7427 3: only where both ends have said that they know it, and then nothing else.
        found @ AuthMethod::DIGITAL_SIGNATURE if !peer_knows_rfc7427 => {
            Err(AuthenticationFault::Method { found, expected: "a method older than RFC 7427" })
        }
        AuthMethod::DIGITAL_SIGNATURE => {
            let data = SignatureAuthentication::decode(auth.data)
                .map_err(|_malformed| AuthenticationFault::MalformedSignature)?;
            let scheme = identifier::to_scheme(data.algorithm_identifier).ok_or_else(|| {
                let octets = data.algorithm_identifier.iter();
                AuthenticationFault::UnknownScheme(octets.map(|o| format!("{o:02x}")).collect())
            })?;
            allowed(scheme)?;
            key.verify(scheme, octets, data.signature).map_err(fault)?;
            Ok(scheme)
        }
        AuthMethod::RSA
        | AuthMethod::ECDSA_SHA256_P256
        | AuthMethod::ECDSA_SHA384_P384
        | AuthMethod::ECDSA_SHA512_P521 => {
            if peer_knows_rfc7427 {
                return Err(AuthenticationFault::OldMethod(auth.method));
            }
            allowed(key.verify_old(auth.method, octets, auth.data).map_err(fault)?)
        }
        found => Err(AuthenticationFault::Method { found, expected: "a digital signature" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: &[u8] = b"octets";

    fn key(pem: &[u8]) -> SigningKey {
        SigningKey::from_pem(pem).unwrap()
    }

    fn rsa() -> SigningKey {
        key(include_bytes!("../../../tests/keys/rsa-2048.pem"))
    }

    fn p256() -> SigningKey {
        key(include_bytes!("../../../tests/keys/p256.pem"))
    }

    fn ed25519() -> SigningKey {
        key(include_bytes!("../../../tests/keys/ed25519.pem"))
    }

    /// What comes of AUTH, from a peer that knows RFC 7427 or does not.
    fn check(
        key: &SigningKey,
        rfc7427: bool,
        method: AuthMethod,
        data: &[u8],
    ) -> Result<SignatureScheme, AuthenticationFault> {
        let auth = Authentication { method, data };
        verify(key.public(), "it", SignatureScheme::ALL, rfc7427, &auth, OCTETS)
    }

    fn digital(identifier: &[u8], signature: &[u8]) -> Vec<u8> {
        let length = u8::try_from(identifier.len()).unwrap();
        [&[length], identifier, signature].concat()
    }

    #[test]
    fn the_list_of_hashes_has_each_once_and_in_order() {
        let list = hash_list(&SignatureScheme::ALL.iter().map(|scheme| scheme.hash()).collect());
        assert_eq!(list, [0, 2, 0, 3, 0, 4, 0, 5]);
        let odd = [list.as_slice(), &[0, 2, 0xff, 0xff, 1]].concat();
        let found = parse_hash_list(&odd);
        let known = [2, 3, 4, 5, 0xffff].map(HashAlgorithm);
        assert_eq!(found, known, "an unknown one is kept, half a one is not");
        assert_eq!(parse_hash_list(&[]), []);
    }

    #[test]
    fn the_best_scheme_that_both_ends_have_is_used() {
        let sign_for = |hashes: &[HashAlgorithm], schemes: &[SignatureScheme]| {
            sign(&rsa(), schemes, Some(hashes), OCTETS)
                .and_then(|(method, data)| Ok(check(&rsa(), true, method, &data)?))
        };
        let all = SignatureScheme::ALL;
        let (sha256, sha512) = (HashAlgorithm::SHA2_256, HashAlgorithm::SHA2_512);
        let [pss256, pkcs512] = [SignatureScheme::RsaPssSha256, SignatureScheme::RsaPkcs1Sha512];
        assert_eq!(sign_for(&[sha256, sha512], all), Ok(pss256));
        assert_eq!(sign_for(&[sha512], all), Ok(SignatureScheme::RsaPssSha512));
        assert_eq!(sign_for(&[sha256, sha512], &[pkcs512, pss256]), Ok(pkcs512));
        assert!(sign_for(&[HashAlgorithm::SHA1, HashAlgorithm::IDENTITY], all).is_err());
        assert!(sign_for(&[], all).is_err());
    }

    #[test]
    fn a_signature_of_another_key_is_refused() {
        let (method, data) =
            sign(&p256(), SignatureScheme::ALL, Some(&[HashAlgorithm::SHA2_256]), OCTETS).unwrap();
        assert_eq!(check(&p256(), true, method, &data), Ok(SignatureScheme::EcdsaSha256));
        let other = check(&rsa(), true, method, &data).unwrap_err();
        assert!(matches!(other, AuthenticationFault::SchemeOfOtherKey { .. }), "{other}");
        let mut wrong = data;
        *wrong.last_mut().unwrap() ^= 1;
        let fault = check(&p256(), true, method, &wrong).unwrap_err();
        assert_eq!(fault, AuthenticationFault::WrongSignature("it".to_owned()));
    }

    #[test]
    fn every_fault_of_the_data_has_its_name() {
        let method = AuthMethod::DIGITAL_SIGNATURE;
        for data in [&[][..], &[0], &[5, 1, 2]] {
            let fault = check(&p256(), true, method, data).unwrap_err();
            assert_eq!(fault, AuthenticationFault::MalformedSignature);
        }
        // sha1WithRSAEncryption
        let sha1 = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00";
        let fault = check(&rsa(), true, method, &digital(sha1, b"x")).unwrap_err();
        let AuthenticationFault::UnknownScheme(octets) = fault else { panic!("{fault}") };
        assert_eq!(octets, "300d06092a864886f70d0101050500");
        for method in [AuthMethod::SHARED_KEY, AuthMethod::NULL, AuthMethod::DSS] {
            let fault = check(&rsa(), true, method, b"x").unwrap_err();
            assert!(matches!(fault, AuthenticationFault::Method { .. }), "{fault}");
        }
    }

    #[test]
    fn the_older_methods_are_for_peers_that_know_no_other() {
        for key in [rsa(), p256()] {
            let (method, data) = sign(&key, SignatureScheme::ALL, None, OCTETS).unwrap();
            assert!(check(&key, false, method, &data).is_ok());
            let known = check(&key, true, method, &data);
            assert_eq!(known, Err(AuthenticationFault::OldMethod(method)));
        }
        // They are schemes as well, and what is not allowed is not used.
        let (p256s, rsas) = ([SignatureScheme::EcdsaSha256], [SignatureScheme::RsaPkcs1Sha256]);
        assert!(sign(&p256(), &p256s, None, OCTETS).is_ok());
        assert!(sign(&rsa(), &rsas, None, OCTETS).is_ok());
        for (key, schemes) in [(p256(), rsas), (rsa(), [SignatureScheme::RsaPssSha512])] {
            let fault = sign(&key, &schemes, None, OCTETS).unwrap_err();
            assert!(fault.to_string().contains("none of RFC 7427"), "{fault}");
        }
        let fault = sign(&ed25519(), SignatureScheme::ALL, None, OCTETS).unwrap_err();
        assert!(fault.to_string().contains("none of RFC 7427"), "{fault}");
        let sha1 = include_bytes!("../../../tests/keys/octets.sha1");
        let fault = check(&rsa(), false, AuthMethod::RSA, sha1).unwrap_err();
        assert_eq!(fault, AuthenticationFault::Sha1);
        // What the policy does not allow is not allowed in an older form either.
        let (method, data) = sign(&p256(), SignatureScheme::ALL, None, OCTETS).unwrap();
        let auth = Authentication { method, data: &data };
        let only = [SignatureScheme::Ed25519];
        let fault = verify(p256().public(), "it", &only, false, &auth, OCTETS).unwrap_err();
        assert_eq!(fault, AuthenticationFault::SchemeNotAllowed(SignatureScheme::EcdsaSha256));
    }
}
