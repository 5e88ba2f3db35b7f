//! The kernel's side of the gateway.
pub mod bpf;
mod claims;
mod monitor;
mod netlink;
mod network;
mod overhead;
mod ports;
#[cfg(test)]
mod testing;
mod transaction;
pub mod xfrm;
pub use monitor::*;
