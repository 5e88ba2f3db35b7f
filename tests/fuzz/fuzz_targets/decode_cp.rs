//! The Configuration payload (RFC 7296 3.15).
#![no_main]

use gateway_fuzz::payload;
use gateway_wire::PayloadType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| payload(PayloadType::CP, body));
