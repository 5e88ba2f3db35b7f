//! The IKE header (RFC 7296 3.1).
#![no_main]

use gateway_wire::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Ok((header, first, rest)) = Header::decode(datagram) else { return };
    let length = u32::try_from(datagram.len()).unwrap();
    let written = [&header.encode(first, length), rest].concat();
    assert_eq!(Header::decode(&written), Ok((header, first, rest)));
});
