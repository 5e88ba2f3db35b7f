//! The kernel's side of the gateway.
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
