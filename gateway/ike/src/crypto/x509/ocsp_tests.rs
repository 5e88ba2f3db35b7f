//! OCSP responses that OpenSSL has made (`tests/ocsp/make.sh`), for a chain of an authority, one
//! below it, and a leaf.

use core::time::Duration;

use super::*;

const CA: &[u8] = include_bytes!("../../../tests/ocsp/ca.pem");
const SUB: &[u8] = include_bytes!("../../../tests/ocsp/sub.pem");
const LEAF: &[u8] = include_bytes!("../../../tests/ocsp/leaf.pem");
const LIST: &[u8] = include_bytes!("../../../tests/ocsp/ca.crl");

const GOOD: &[u8] = include_bytes!("../../../tests/ocsp/good.der");
const SHA256: &[u8] = include_bytes!("../../../tests/ocsp/sha256.der");
const REVOKED: &[u8] = include_bytes!("../../../tests/ocsp/revoked.der");
const UNKNOWN: &[u8] = include_bytes!("../../../tests/ocsp/unknown.der");
/// Good for a minute.
const SHORT: &[u8] = include_bytes!("../../../tests/ocsp/expired.der");
const ENDLESS: &[u8] = include_bytes!("../../../tests/ocsp/endless.der");
const WRONG_SIGNER: &[u8] = include_bytes!("../../../tests/ocsp/wrong-signer.der");
const DELEGATED: &[u8] = include_bytes!("../../../tests/ocsp/delegated.der");
const NOT_DELEGATED: &[u8] = include_bytes!("../../../tests/ocsp/not-delegated.der");
const NO_SIGNER: &[u8] = include_bytes!("../../../tests/ocsp/no-signer.der");
const CRITICAL: &[u8] = include_bytes!("../../../tests/ocsp/critical.der");
/// About the authority in between.
const SUB_GOOD: &[u8] = include_bytes!("../../../tests/ocsp/sub-good.der");

const HOUR: Duration = Duration::from_secs(3600);

fn der(pem: &[u8]) -> Vec<u8> {
    certificates_from_pem(pem).unwrap().remove(0)
}

/// A moment after all of them were made.
fn now() -> Duration {
    let leaf = Certificate::from_der(&der(LEAF)).unwrap();
    Duration::from_secs(leaf.not_before().0).saturating_add(HOUR)
}

fn trust(revocation: Revocation, responses: &[&[u8]], lists: &[u8]) -> Trust {
    Trust {
        anchors: TrustAnchors::new(&[der(CA)]).unwrap(),
        revocation,
        lists: if lists.is_empty() {
            Vec::new()
        } else {
            RevocationList::from_file(lists).unwrap()
        },
        responses: responses.iter().map(|r| OcspResponse::from_der(r).unwrap()).collect(),
    }
}

fn verify(
    revocation: Revocation,
    responses: &[&[u8]],
    lists: &[u8],
    at: Duration,
) -> Result<(), CertificateFault> {
    trust(revocation, responses, lists).verify(&[&der(LEAF), &der(SUB)], at).map(drop)
}

/// Why a chain is not believed under the strict policy.
fn strict_fault(responses: &[&[u8]], lists: &[u8], at: Duration) -> String {
    match verify(Revocation::Strict, responses, lists, at) {
        Err(CertificateFault::StatusUnknown { subject, reason }) => format!("{subject}: {reason}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_chain_whose_certificates_are_all_good_passes_the_strict_policy() {
    for leaf in [GOOD, SHA256, DELEGATED] {
        assert_eq!(verify(Revocation::Strict, &[leaf, SUB_GOOD], &[], now()), Ok(()));
        // A list for one, a response for the other.
        assert_eq!(verify(Revocation::Strict, &[leaf], LIST, now()), Ok(()));
        assert_eq!(verify(Revocation::IfAvailable, &[leaf], &[], now()), Ok(()));
    }
}

#[test]
fn what_a_response_revokes_is_refused_unless_nobody_asks() {
    let revoked = |result| matches!(result, Err(CertificateFault::Revoked(_)));
    for revocation in [Revocation::Strict, Revocation::IfAvailable] {
        assert!(revoked(verify(revocation, &[REVOKED, SUB_GOOD], LIST, now())));
        // Old as it is.
        let late = now() + 100_000 * HOUR;
        assert!(revoked(verify(revocation, &[REVOKED], LIST, late)));
    }
    assert_eq!(verify(Revocation::Off, &[REVOKED], &[], now()), Ok(()));
}

#[test]
fn what_no_good_response_covers_does_not_pass_the_strict_policy() {
    let late = now() + 24 * HOUR;
    for (response, at, why) in [
        (UNKNOWN, now(), "does not know it"),
        (SHORT, late, "should have been replaced by"),
        (ENDLESS, now(), "does not say until when"),
        (WRONG_SIGNER, now(), "is not of the authority"),
        (NOT_DELEGATED, now(), "is not for OCSP"),
        (NO_SIGNER, now(), "is not for signatures"),
        (CRITICAL, now(), "has the critical extension 1.2.3.4"),
        (SUB_GOOD, now(), "no response is about it"),
    ] {
        let fault = strict_fault(&[response, SUB_GOOD], LIST, at);
        assert!(fault.contains("leaf.test") && fault.contains(why), "{why}: {fault}");
        assert_eq!(verify(Revocation::IfAvailable, &[response], &[], at), Ok(()));
    }
    // Nothing is about the authority in between, or its list is too old.
    let fault = strict_fault(&[GOOD], &[], now());
    assert!(fault.contains("sub CA"), "{fault}");
    let fault = strict_fault(&[GOOD], LIST, now() + 31 * 24 * HOUR);
    assert!(fault.contains("sub CA"), "{fault}");
}

#[test]
fn the_youngest_answer_counts() {
    let late = now() + 24 * HOUR;
    // The one with SHA-256 was made after the others, and those within a second.
    assert_eq!(verify(Revocation::Strict, &[REVOKED, SHA256], LIST, late), Ok(()));
    let found = verify(Revocation::Strict, &[GOOD, REVOKED], LIST, late);
    assert!(matches!(found, Err(CertificateFault::Revoked(_))), "{found:?}");
    assert_eq!(verify(Revocation::Strict, &[SHORT, GOOD], LIST, late), Ok(()));
    assert_eq!(
        verify(Revocation::Strict, &[WRONG_SIGNER, NOT_DELEGATED, GOOD], LIST, late),
        Ok(())
    );
}

#[test]
fn what_is_no_response_is_refused_whole() {
    let text = |der: &[u8]| OcspResponse::from_der(der).unwrap_err().to_string();
    // tryLater
    assert!(text(&[0x30, 3, 0x0a, 1, 3]).contains("could not answer"));
    assert!(text(&[0x30, 3, 0x0a, 1, 0]).contains("holds no response"));
    for length in 0..GOOD.len() {
        OcspResponse::from_der(&GOOD[..length]).unwrap_err();
    }
    // No octet can be changed unseen: it does not read, is about another, or is not signed.
    // The certificate of the signer, which is the authority itself, decides nothing.
    let sub = der(SUB);
    let start = GOOD.windows(sub.len()).position(|window| window == sub).unwrap();
    for at in (0..GOOD.len()).filter(|at| !(start..start + sub.len()).contains(at)) {
        let mut changed = GOOD.to_vec();
        changed[at] ^= 0x04;
        if let Ok(response) = OcspResponse::from_der(&changed)
            && response != OcspResponse::from_der(GOOD).unwrap()
        {
            let fault = strict_fault(&[&changed], LIST, now());
            assert!(fault.contains("leaf.test") || fault.contains("revoked"), "{at}: {fault}");
        }
    }
}
