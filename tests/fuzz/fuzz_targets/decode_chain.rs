//! The payloads inside an Encrypted payload; the first octet is the type of the first (RFC 7296 3.2).
#![no_main]

use gateway_fuzz::written_and_read;
use gateway_wire::{PayloadType, decode_chain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else { return };
    if let Ok(payloads) = decode_chain(PayloadType(*first), octets) {
        written_and_read(&payloads);
    }
});
