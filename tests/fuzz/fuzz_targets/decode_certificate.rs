//! A certificate of a peer (RFC 5280 4.1).
#![no_main]

use gateway_ike::crypto::x509::Certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    assert_eq!(certificate.der(), der);
    for identity in certificate.identities() {
        assert!(certificate.holds(&identity), "{identity}");
    }
});
