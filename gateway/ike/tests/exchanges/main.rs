//! The exchanges one by one, on a good network: what each leaves in both kernels, and what
//! happens when something is wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

mod agreement;
mod expected;
mod installation;
mod life;
mod packet;
mod reload;
mod surplus;
mod unprotected;

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::algorithms::{Encryption, Group, Integrity, Prf};
use gateway_ike::config::{
    Action, Identity, LocalAuth, Mode, PolicySet, RemoteAuth, Renewal, Secret, Start,
};
use gateway_ike::counters::Counter;
use gateway_ike::event::EventKind;
use gateway_ike::io::{KernelError, KernelEvent};
use gateway_ike::testing::{Faults, Refusal, Simulation, peer, policies, protect};
use gateway_ike::{Input, Output};
use gateway_wire::{Header, IkeSpi, NotifyType, Payload};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);

fn policies_of_a() -> PolicySet {
    let rule = protect(
        "to-b",
        "b",
        "10.1.0.0/24".parse().unwrap(),
        "10.2.0.0/24".parse().unwrap(),
        Start::OnDemand,
    );
    policies(vec![peer("b", "a.test", "b.test", Some(B))], vec![rule])
}

fn policies_of_b() -> PolicySet {
    let rule = protect(
        "to-a",
        "a",
        "10.2.0.0/24".parse().unwrap(),
        "10.1.0.0/24".parse().unwrap(),
        Start::Respond,
    );
    policies(vec![peer("a", "b.test", "a.test", Some(A))], vec![rule])
}

/// Two hosts on a good network with these policies.
fn pair(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation
}

fn connect(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = pair(a, b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// Changes the one peer of some policies.
fn with_peer(
    mut policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::PeerConfig),
) -> PolicySet {
    for peer in policies.peers.values_mut() {
        change(std::sync::Arc::make_mut(peer));
    }
    policies
}

/// Changes the one rule of some policies.
fn with_rule(
    mut policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::Rule),
) -> PolicySet {
    for rule in policies.rules.values_mut() {
        change(std::sync::Arc::make_mut(rule));
    }
    policies
}

fn with_protect(
    policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::Protect),
) -> PolicySet {
    with_rule(policies, |rule| {
        if let Action::Protect(protect) = &mut rule.action {
            change(protect);
        }
    })
}

fn has_event(simulation: &Simulation, node: usize, is: impl Fn(&EventKind) -> bool) -> bool {
    simulation.nodes[node].events.iter().any(|e| is(&e.kind))
}
