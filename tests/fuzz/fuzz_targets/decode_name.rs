//! A distinguished name in an Identification payload (RFC 7296 3.5).
#![no_main]

use gateway_ike::crypto::x509::DistinguishedName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let Ok(name) = DistinguishedName::from_der(der) else { return };
    assert!(name.is(der), "{name}");
    assert_eq!(name.der(), der);
});
