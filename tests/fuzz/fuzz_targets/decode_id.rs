//! The Identification payloads, of either end (RFC 7296 3.5).
#![no_main]

use gateway_fuzz::decoded;
use gateway_wire::{Payload, PayloadType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for kind in [PayloadType::ID_I, PayloadType::ID_R] {
        decoded(kind, body, |payload| match payload {
            // AUTH covers the body as it came (RFC 7296 2.15).
            Payload::IdInitiator(id) | Payload::IdResponder(id) => assert_eq!(id.body(), body),
            other => panic!("{other:?}"),
        });
    }
});
