//! The daemon around the pure IKE core `gateway_ike`: sockets, clock, kernel, policy files and
//! the control socket, metrics. Only [`driver`] knows all of them.

pub mod cli;
pub mod clock;
pub mod complaints;
pub mod control;
pub mod driver;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod net;
pub mod policy;
#[cfg(test)]
mod testing;
pub mod trace;
