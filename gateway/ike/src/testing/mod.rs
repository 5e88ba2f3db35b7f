//! Endpoints joined by a simulated network under a virtual clock, for tests and benches.
//!
//! Everything follows from a seed: randomness, loss, duplication, order. A run that fails is
//! replayed by its seed.

mod course;
pub mod eap;
mod failover;
mod forge;
mod kernel;
mod network;
mod seeded;
mod simulation;
mod wishes;

pub use course::Course;
pub use forge::{Forge, Opened};
pub use kernel::{FakeKernel, Refusal};
pub use network::{Faults, Network};
pub use seeded::{Choices, FastKeyExchange, SeededRandom};
pub use simulation::{Node, NodeId, Simulation};
pub use wishes::{peer, policies, proposals, protect};
