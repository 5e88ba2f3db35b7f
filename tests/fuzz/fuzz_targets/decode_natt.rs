//! What comes to port 4500 (RFC 3948 2).
#![no_main]

use gateway_wire::natt::{Datagram, classify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| match classify(datagram) {
    Datagram::Ike(message) => assert_eq!([&[0; 4], message].concat(), datagram),
    Datagram::Esp { spi } => {
        assert_ne!(spi, 0);
        assert!(datagram.starts_with(&spi.to_be_bytes()) && datagram.len() >= 8);
    }
    Datagram::Keepalive => assert_eq!(datagram, [0xff]),
    Datagram::Short => assert!(datagram.len() < 8),
});
