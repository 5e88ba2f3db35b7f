//! A raw public key of a peer (RFC 7670).
#![no_main]

use gateway_ike::crypto::signature::PublicKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|spki: &[u8]| {
    let Ok(key) = PublicKey::from_spki(spki) else { return };
    assert_eq!(key.spki(), spki);
});
