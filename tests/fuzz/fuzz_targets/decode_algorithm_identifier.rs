//! The AlgorithmIdentifier of a signature (RFC 7427 3).
#![no_main]

use gateway_ike::crypto::signature::identifier;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|identifier: &[u8]| {
    let Some(scheme) = identifier::to_scheme(identifier) else { return };
    assert_eq!(identifier::to_scheme(identifier::of_scheme(scheme)), Some(scheme));
});
