//! IKEv2 (RFC 7296) as a pure state machine: no sockets, no clock, no kernel.
//!
//! An [`Endpoint`] is every IKE SA of one host. Its methods are of four kinds:
//!
//! - [`Endpoint::handle`] takes one [`Input`]: a datagram, the kernel's answer to a command, an
//!   event of the kernel, new policies, or the passing of time. Time is an argument.
//! - [`Endpoint::poll_output`] gives the next [`Output`]: a datagram to send, a command for the
//!   kernel, an event for the log. There is one queue, in order; drain it after every input,
//!   and hand in the result of each command before going on to what stands behind it.
//! - [`Endpoint::next_timeout`] says when to hand in [`Input::Timeout`] at the latest.
//! - [`Endpoint::status`] and [`Endpoint::counters`] look and change nothing.
//!
//! Two rules hold throughout. What is not authenticated changes no state: it is counted (see
//! [`counters`]) and dropped, except for the IKE_SA_INIT exchange, which RFC 7296 leaves open.
//! And a positive answer is withheld until the kernel has the SA that it promises.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod algorithms;
pub mod assignment;
mod channel;
mod children;
pub mod config;
mod contacts;
mod cookie;
pub mod counters;
mod crash;
pub mod crypto;
mod eap;
mod effect;
mod endpoint;
pub mod error;
pub mod event;
mod identity;
mod ike_sa;
pub mod io;
pub mod keys;
mod leases;
mod natt;
mod payloads;
mod policies;
mod proposal;
pub mod random;
pub mod reason;
mod reqids;
mod selector;
mod senders;
mod shared;
mod single_pairs;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;

pub use endpoint::Endpoint;
pub use io::{Input, Output};
