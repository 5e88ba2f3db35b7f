//! The Key Exchange payload (RFC 7296 3.4).
#![no_main]

use gateway_fuzz::payload;
use gateway_wire::PayloadType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| payload(PayloadType::KE, body));
