//! IKEv2 (RFC 7296) as a pure state machine.
#![forbid(unsafe_code)]

pub mod algorithms;
pub mod config;
pub mod crypto;
pub mod io;
pub mod keys;
pub mod random;
