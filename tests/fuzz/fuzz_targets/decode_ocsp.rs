//! A file with an OCSP response (RFC 6960 4.2), and what comes of it for a chain of certificates.
#![no_main]

use gateway_fuzz::chain_of_trust::chain;
use gateway_ike::crypto::x509::{OcspResponse, Revocation, RevocationList};
use libfuzzer_sys::fuzz_target;

/// Covers the upper one of the two certificates.
const LIST: &[u8] = include_bytes!("../../../gateway/ike/tests/ocsp/ca.crl");

fuzz_target!(|der: &[u8]| {
    let Ok(response) = OcspResponse::from_der(der) else { return };
    let responses = || vec![response.clone()];
    let lists = || RevocationList::from_file(LIST).unwrap();
    for revocation in [Revocation::Strict, Revocation::IfAvailable] {
        let _verdict = chain().verify(revocation, lists(), responses());
    }
    // No authority has signed for both certificates.
    assert!(chain().verify(Revocation::Strict, Vec::new(), responses()).is_err());
    assert!(chain().verify(Revocation::Off, Vec::new(), responses()).is_ok());
});
