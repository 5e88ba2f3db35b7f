//! A piece of TLS in EAP (RFC 5216 3.1).
#![no_main]

use gateway_ike::testing::eap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(written) = eap::rewritten_tls_piece(data) else { return };
    assert_eq!(eap::rewritten_tls_piece(&written).as_ref(), Ok(&written));
});
