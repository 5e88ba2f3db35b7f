//! The kernel's side of the gateway: IPsec databases, BPF programs, interfaces and routes.
//!
//! [`LinuxKernel`] executes the commands of the IKE core, each as one transaction over all of
//! these: BPF entries first, then SAs, policies and routes, and on failure back again
//! (`transaction`). [`Monitor`] tells what the kernel says by itself. [`probe()`] finds out what
//! this kernel can do. `links` looks after the interfaces, which come and go.

pub mod bpf;
mod claims;
mod esp;
mod executor;
mod guard;
mod ike;
mod limits;
mod links;
mod linux;
mod monitor;
mod mtu;
pub mod nat;
mod netlink;
mod network;
mod overhead;
mod ports;
mod probe;
mod relocation;
mod routing;
mod rules;
mod setup;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod testing;
mod transaction;
mod usage;
pub mod xfrm;

pub use esp::RENEWAL;
pub use guard::{Guarded, put_up};
pub use limits::{Excess, beyond_limits};
pub use links::{LinkChange, LinkStatus};
pub use linux::LinuxKernel;
pub use monitor::{Monitor, Notice};
pub use mtu::ChildMtu;
pub use overhead::{Overhead, overhead, worst_overhead};
pub use probe::{Capabilities, Feature, probe};
pub use setup::{KernelConfig, KernelSetupError};
