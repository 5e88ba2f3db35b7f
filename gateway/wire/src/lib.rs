//! IKEv2 messages: octets to types and back (RFC 7296 section 3).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod code;

pub use code::*;
