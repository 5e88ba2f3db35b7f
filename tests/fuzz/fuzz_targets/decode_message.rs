//! A datagram as it comes from the network: what anybody can send.
#![no_main]

use gateway_wire::natt::{self, Datagram};
use gateway_wire::{Message, Payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    decode(datagram);
    if let Datagram::Ike(message) = natt::classify(datagram) {
        decode(message);
    }
});

fn decode(datagram: &[u8]) {
    let Ok(message) = Message::decode(datagram) else { return };
    for (i, payload) in message.payloads.iter().enumerate() {
        let (body, offset) = match payload {
            Payload::Encrypted(sk) => (sk.body, sk.body_offset),
            Payload::EncryptedFragment(skf) => (skf.body, skf.body_offset),
            _ => continue,
        };
        // Decryption in place relies on both.
        assert_eq!(datagram.get(offset..), Some(body));
        assert_eq!(i + 1, message.payloads.len());
    }
}
