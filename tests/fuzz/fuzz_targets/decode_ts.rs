//! The Traffic Selector payloads, of either end (RFC 7296 3.13).
#![no_main]

use gateway_fuzz::payload;
use gateway_wire::PayloadType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    payload(PayloadType::TS_I, body);
    payload(PayloadType::TS_R, body);
});
