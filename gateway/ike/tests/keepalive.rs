//! NAT keepalives (RFC 3948 2.3, 4), through a NAT that forgets.
#![expect(clippy::unwrap_used, reason = "This is test code.")]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::config::{EndpointConfig, PeerConfig, Start};
use gateway_ike::counters::Counter;
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const HOUR: Duration = Duration::from_secs(3600);

/// A behind a NAT that forgets after 30 s (or in the open), and B, which asks after `liveness`.
fn connected(interval: u64, nat: bool, liveness: Duration) -> Simulation {
    let keepalive_interval = Duration::from_secs(interval);
    let config = EndpointConfig { keepalive_interval, ..EndpointConfig::default() };
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    if nat {
        simulation.network.translate_for(A, NAT, Duration::from_secs(30));
    }
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let peer_a = PeerConfig { liveness_interval: liveness, ..peer("a", "b.test", "a.test", None) };
    simulation.configure(
        1,
        policies(vec![peer_a], vec![protect("to-a", "a", b_net, a_net, Start::Respond)]),
    );
    simulation.configure(
        0,
        policies(
            vec![peer("b", "a.test", "b.test", Some(B))],
            vec![protect("to-b", "b", a_net, b_net, Start::OnDemand)],
        ),
    );
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.len() == 1));
    simulation
}

fn stands(simulation: &Simulation) -> bool {
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
}

#[test]
fn behind_nat_an_octet_is_sent_every_twenty_seconds_and_the_mapping_stays() {
    let mut simulation = connected(20, true, Duration::ZERO);
    simulation.run(Duration::from_secs(200));
    let node = &simulation.nodes[0];
    assert_eq!(node.keepalives.len(), 10);
    assert_eq!(node.endpoint.counters().value(Counter::KeepaliveSent), 10);
    assert_eq!(node.sent.len(), 2, "and nothing else");
    assert!(node.keepalives.iter().all(|p| (p.local.port(), p.remote.port()) == (4500, 4500)));
    assert!(simulation.nodes[1].keepalives.is_empty(), "B is not behind NAT");

    // B's question after an hour of silence finds its way.
    let mut simulation = connected(20, true, HOUR);
    simulation.run(2 * HOUR);
    assert!(stands(&simulation));
}

#[test]
fn without_them_the_mapping_is_lost_and_the_peer_with_it() {
    let mut simulation = connected(0, true, HOUR);
    simulation.run(2 * HOUR);
    assert!(simulation.nodes[0].keepalives.is_empty());
    assert!(!stands(&simulation));
}

#[test]
fn nobody_behind_nat_needs_them() {
    let mut simulation = connected(20, false, Duration::ZERO);
    simulation.run(HOUR);
    assert!(simulation.nodes.iter().all(|n| n.keepalives.is_empty()));
}

#[test]
fn ike_messages_take_their_place() {
    // B asks every 15 s, and A's answers keep the mapping.
    let mut simulation = connected(20, true, Duration::from_secs(15));
    simulation.run(HOUR);
    assert!(simulation.nodes[0].keepalives.is_empty());
    assert!(stands(&simulation));
}
