//! What the tests and the demo need of a machine: namespaces joined into a small internet,
//! captures on its wires, traffic through it, our daemon and strongSwan's in its gateways.
#![cfg_attr(
    test,
    expect(unused_crate_dependencies, reason = "the test targets of this package use them")
)]

pub mod capture;
pub mod certificates;
pub mod chroot;
pub mod crash;
pub mod daemon;
pub mod error;
pub mod frame;
pub mod gateway;
pub mod libreswan;
pub mod mobility;
pub mod namespace;
pub mod noise;
pub mod nonces;
pub mod packet;
pub mod pair;
pub mod reach;
pub mod requirements;
pub mod scenario;
pub mod strongswan;
pub mod topology;
pub mod traffic;

pub use error::{Context, Error, Result};
