//! The data of an EAP message (RFC 3748 5); the first octet is its code.
#![no_main]

use gateway_ike::testing::eap;
use gateway_wire::EapCode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((code, data)) = input.split_first() else { return };
    let code = EapCode(*code);
    let Ok(written) = eap::rewritten(code, data) else { return };
    assert_eq!(eap::rewritten(code, &written).as_ref(), Ok(&written));
});
