//! The data of AUTH as a digital signature (RFC 7427 3).
#![no_main]

use gateway_wire::SignatureAuthentication;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(signature) = SignatureAuthentication::decode(data) else { return };
    assert_eq!(signature.encode().as_deref(), Ok(data));
});
