//! A file with revocation lists (RFC 5280 5), and what comes of it for a chain of certificates.
#![no_main]

use gateway_fuzz::chain_of_trust::chain;
use gateway_ike::crypto::x509::{OcspResponse, Revocation, RevocationList};
use libfuzzer_sys::fuzz_target;

/// Says of the lower one of the two certificates that it is good.
const RESPONSE: &[u8] = include_bytes!("../../../gateway/ike/tests/ocsp/good.der");

fuzz_target!(|file: &[u8]| {
    let lists = || RevocationList::from_file(file).unwrap_or_default();
    if lists().is_empty() {
        return;
    }
    let response = OcspResponse::from_der(RESPONSE).unwrap();
    for revocation in [Revocation::Strict, Revocation::IfAvailable] {
        let _verdict = chain().verify(revocation, lists(), vec![response.clone()]);
    }
    let _verdict = chain().verify(Revocation::IfAvailable, lists(), Vec::new());
    // The authority of the lower certificate has made no list.
    assert!(chain().verify(Revocation::Strict, lists(), Vec::new()).is_err());
    assert!(chain().verify(Revocation::Off, lists(), Vec::new()).is_ok());
});
