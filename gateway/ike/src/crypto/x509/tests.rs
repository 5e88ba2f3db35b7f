//! Certificates that OpenSSL has made; chains, faults and lists are in `tests/authentication.rs`,
//! where an authority issues what a test needs.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Identity;
use crate::crypto::signature::{KeyKind, SigningKey};

const CA: &[u8] = include_bytes!("../../../tests/keys/p521-ca.pem");
const LEAF: &[u8] = include_bytes!("../../../tests/keys/p521.sha512.pem");
const KEY: &[u8] = include_bytes!("../../../tests/keys/p521.pem");

fn der(pem: &[u8]) -> Vec<u8> {
    certificates_from_pem(pem).unwrap().remove(0)
}

fn leaf() -> Certificate {
    Certificate::from_der(&der(LEAF)).unwrap()
}

fn trust() -> Trust {
    Trust {
        anchors: TrustAnchors::new(&[der(CA)]).unwrap(),
        revocation: Revocation::IfAvailable,
        lists: Vec::new(),
        responses: Vec::new(),
    }
}

fn within() -> Duration {
    Duration::from_secs(leaf().not_before().0.saturating_add(1))
}

#[test]
fn a_certificate_says_whose_it_is_and_until_when() {
    let leaf = leaf();
    assert_eq!(leaf.subject().to_string(), "O=Test, CN=p521.test");
    assert_eq!(leaf.issuer().to_string(), "CN=P-521 CA");
    assert_eq!(leaf.key().kind(), KeyKind::P521);
    assert!(leaf.not_after() > leaf.not_before());
    let held: Vec<_> = leaf.identities().map(|id| id.to_string()).collect();
    assert_eq!(held, ["O=Test, CN=p521.test", "p521.test"]);
    assert!(leaf.holds(&Identity::Fqdn("P521.test".to_owned())));
    assert!(leaf.holds(&Identity::Dn("O=test, CN=p521.test".parse().unwrap())));
    for other in ["p521.tes", "521.test", "x.p521.test", "p521.test."] {
        assert!(!leaf.holds(&Identity::Fqdn(other.to_owned())), "{other}");
    }
    assert!(!leaf.holds(&Identity::Email("p521.test".to_owned())));
    assert!(!leaf.holds(&Identity::KeyId(b"p521.test".to_vec())));
}

#[test]
fn an_authority_with_a_p521_key_is_believed() {
    assert_eq!(trust().verify(&[&der(LEAF)], within()).unwrap(), leaf());
    for other in [
        &include_bytes!("../../../tests/keys/p521.sha256.pem")[..],
        include_bytes!("../../../tests/keys/p521.sha384.pem"),
    ] {
        trust().verify(&[&der(other)], within() + Duration::from_secs(60)).unwrap();
    }
    let late = Duration::from_secs(leaf().not_after().0 + 1);
    let CertificateFault::Expired { since, .. } = trust().verify(&[&der(LEAF)], late).unwrap_err()
    else {
        panic!("it has expired")
    };
    assert_eq!(since, leaf().not_after());
    assert_eq!(trust().verify(&[], within()), Err(CertificateFault::Absent));
    // The authority itself is no peer.
    let found = trust().verify(&[&der(CA)], within());
    assert!(matches!(found, Err(CertificateFault::Usage { .. })), "{found:?}");
}

#[test]
fn what_is_certified_with_sha1_is_refused_and_named() {
    let sha1 = der(include_bytes!("../../../tests/keys/p521.sha1.pem"));
    let found = trust().verify(&[&sha1], within() + Duration::from_secs(60));
    let Err(CertificateFault::Algorithm { algorithm, .. }) = found else { panic!("{found:?}") };
    assert_eq!(algorithm, "ecdsa-with-SHA1");
}

#[test]
fn a_credential_is_a_certificate_for_its_key() {
    let key = || SigningKey::from_pem(KEY).unwrap();
    let credential = Credential::new(vec![der(LEAF), der(CA)], key()).unwrap();
    assert_eq!(credential.chain().collect::<Vec<_>>(), [der(LEAF), der(CA)]);
    let found = Credential::new(vec![der(CA), der(LEAF)], key()).unwrap_err();
    assert!(matches!(found, CredentialError::OtherKey(_)), "{found}");
    assert!(Credential::new(Vec::new(), key()).is_err());
}

/// RFC 7296 3.7: SHA-1 of the SubjectPublicKeyInfo, as
/// `openssl x509 -pubkey | openssl pkey -pubin -outform DER | openssl sha1` gives it.
#[test]
fn an_authority_is_named_by_the_hash_of_its_key() {
    let spki = Certificate::from_der(&der(CA)).unwrap().key().spki().to_vec();
    let expected = crate::crypto::prf::sha1(&[&spki]);
    assert_eq!(trust().anchors.key_hashes(), [expected]);
}

#[test]
fn files_without_what_is_sought_are_named() {
    let words = |found: CertificateFault| found.to_string();
    assert!(words(certificates_from_pem(KEY).unwrap_err()).contains("\"CERTIFICATE\""));
    assert!(words(certificates_from_pem(b"").unwrap_err()).contains("\"CERTIFICATE\""));
    assert!(words(RevocationList::from_file(CA).unwrap_err()).contains("\"X509 CRL\""));
    assert!(RevocationList::from_file(&der(CA)).is_err());
    assert!(certificates_from_pem(&LEAF[..LEAF.len() - 40]).is_err());
}

#[test]
fn dates_are_those_of_rfc_3339() {
    assert_eq!(Date(0).to_string(), "1970-01-01T00:00:00Z");
    assert_eq!(Date(1_780_272_000).to_string(), "2026-06-01T00:00:00Z");
    assert!(Date(u64::MAX).to_string().ends_with("after 1970"));
}

#[test]
fn no_truncated_certificate_is_taken() {
    let whole = der(LEAF);
    for end in 0..whole.len() {
        assert!(Certificate::from_der(&whole[..end]).is_err(), "{end}");
        assert!(TrustAnchors::new(&[whole[..end].to_vec()]).is_err(), "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is changed in a certificate, the signature of its authority does not fit it.
    #[test]
    fn no_changed_certificate_is_believed(at in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let mut changed = der(LEAF);
        let at = at.index(changed.len());
        changed[at] ^= bits;
        prop_assert!(trust().verify(&[&changed], within()).is_err());
    }

    #[test]
    fn no_octets_do_harm(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Certificate::from_der(&octets).is_err());
        prop_assert!(trust().verify(&[&octets], within()).is_err());
        prop_assert!(RevocationList::from_file(&octets).is_err());
    }
}
