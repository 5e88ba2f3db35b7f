//! The frame of the Encrypted payload (RFC 7296 3.14).
#![no_main]

use gateway_fuzz::in_datagram;
use gateway_wire::{Payload, PayloadType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| in_datagram(PayloadType::SK, body, |datagram, payload| {
    let Payload::Encrypted(sk) = payload else { panic!("{payload:?}") };
    assert_eq!(sk.body, body);
    // Decryption in place relies on it.
    assert_eq!(datagram.get(sk.body_offset..), Some(body));
}));
