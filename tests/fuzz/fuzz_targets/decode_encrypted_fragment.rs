//! The frame of an Encrypted Fragment payload (RFC 7383 2.5).
#![no_main]

use gateway_fuzz::in_datagram;
use gateway_wire::{Payload, PayloadType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| in_datagram(PayloadType::SKF, body, |datagram, payload| {
    let Payload::EncryptedFragment(skf) = payload else { panic!("{payload:?}") };
    assert!((1..=skf.total).contains(&skf.number));
    assert_eq!(Some(skf.body), body.get(4..));
    // Decryption in place relies on it.
    assert_eq!(datagram.get(skf.body_offset..), Some(skf.body));
}));
