//! What others can make us keep has a bound, and a counter says that it was met.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod kept;
mod peers;
mod strangers;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{EndpointConfig, PolicySet, Renewal, Start};
use gateway_ike::counters::Counter;
use gateway_ike::event::{Event, EventKind};
use gateway_ike::io::{KernelEvent, Path};
use gateway_ike::reason::{Cause, Kind};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};
use gateway_wire::{
    Message, Notify, NotifyType, Payload, Proposal, ProtocolId, Transform, TransformType,
    encode_message,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
const SECOND: Duration = Duration::from_secs(1);
/// Nothing arrives unless a test hands it over.
const CUT: Faults = Faults { loss: 100, duplication: 0, reordering: 0, corruption: 0 };

/// A has so many rules with B, `to-b-1` and so on.
fn policies_of_a(rules: u8) -> PolicySet {
    let rule = |n| {
        let (local, remote) = (format!("10.1.{n}.0/24"), format!("10.2.{n}.0/24"));
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        protect(&format!("to-b-{n}"), "b", local, remote, Start::OnDemand)
    };
    policies(vec![peer("b", "a.test", "b.test", Some(B))], (1..=rules).map(rule).collect())
}

/// B takes A from any address.
fn policies_of_b(rules: u8) -> PolicySet {
    let rule = |n| {
        let (local, remote) = (format!("10.2.{n}.0/24"), format!("10.1.{n}.0/24"));
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        protect(&format!("to-a-{n}"), "a", local, remote, Start::Respond)
    };
    policies(vec![peer("a", "b.test", "a.test", None)], (1..=rules).map(rule).collect())
}

fn pair(config: &EndpointConfig, rules: u8) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, Faults::default(), 1);
    simulation.configure(1, policies_of_b(rules));
    simulation.configure(0, policies_of_a(rules));
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn states(simulation: &Simulation, node: usize) -> Vec<(u64, &'static str)> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    status.ike_sas.iter().map(|sa| (sa.id.0, sa.state)).collect()
}

fn children(simulation: &Simulation, node: usize) -> usize {
    simulation.nodes[node].kernel.children.len()
}

/// Hands what a node has sent last to the other one.
fn pass_on(simulation: &mut Simulation, from: usize) {
    let (path, octets) = simulation.nodes[from].sent.last().unwrap().clone();
    let path = Path { local: path.remote, remote: path.local };
    simulation.input(1 - from, Input::Datagram { path, octets: &octets });
}

/// The hard limit of the oldest Child SA of a node.
fn expire_oldest(simulation: &mut Simulation, node: usize) {
    let child = simulation.nodes[node].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(node, Input::Kernel(KernelEvent::Expire { spi, destination, hard: true }));
}
