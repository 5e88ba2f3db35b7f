//! The XDP and TC programs of the gateway.
//!
//! - [`natt`]: XDP, takes the UDP header off ESP of a known SA; [`endpoint`] notes from where it
//!   came; what has no SA ends there (`unknown`); [`cpu`] hands the others to the CPU of
//!   their SA; [`ike`] protects the daemon's ports.
//! - [`steer`]: TC egress, sends selected traffic into the XFRM interface; [`mss`] lowers the
//!   segment size of its TCP connections.
//! - [`guard`]: TC ingress, drops clear packets that should have been encrypted.
//!
//! [`trace`] tells whoever wants to know what was decided.
//!
//! Each is a function from a packet to `Result<(), Reason>`: `Ok` means that the packet is none of
//! its business, an error names what was decided, and [`count::verdict`] is the one place that
//! counts it and looks up what becomes of the packet. The programs are pinned and outlive the
//! daemon, so none of them needs it to run.

#![no_std]
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "lengths and addresses change width at the helpers' interfaces"
)]

pub mod bench;
pub mod checksum;
pub mod count;
pub mod cpu;
pub mod decide;
pub mod endpoint;
pub mod guard;
pub mod header;
pub mod ike;
pub mod maps;
pub mod mss;
pub mod nat;
pub mod natt;
pub mod packet;
pub mod steer;
pub mod trace;

mod number;
mod read;
mod unknown;
