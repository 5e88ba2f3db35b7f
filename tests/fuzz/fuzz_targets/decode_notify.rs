//! The Notify payload (RFC 7296 3.10), and the list of hashes in one (RFC 7427 4).
#![no_main]

use gateway_fuzz::decoded;
use gateway_wire::{HashAlgorithm, Payload, PayloadType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    decoded(PayloadType::NOTIFY, body, |payload| {
        let Payload::Notify(notify) = payload else { panic!("{payload:?}") };
        if let Ok(hashes) = notify.hash_algorithms() {
            assert_eq!(HashAlgorithm::encode_list(&hashes), notify.data);
        }
    });
});
