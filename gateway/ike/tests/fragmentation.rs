//! IKE messages in fragments (RFC 7383), between two endpoints.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{EndpointConfig, PeerConfig, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{KernelEvent, Path};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};
use gateway_wire::{ExchangeType, Message, Payload};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);
/// Nothing arrives unless a test hands it over.
const CUT: Faults = Faults { loss: 100, duplication: 0, reordering: 0, corruption: 0 };

/// Two hosts that send no IP packet of more than so many octets, about to connect.
fn pair(fragment_size: usize, faults: Faults, seed: u64) -> Simulation {
    let config = EndpointConfig { fragment_size, ..EndpointConfig::default() };
    pair_with(&config, faults, seed)
}

fn pair_with(config: &EndpointConfig, faults: Faults, seed: u64) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, faults, seed);
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let live = |peer| PeerConfig { liveness_interval: Duration::from_secs(20), ..peer };
    let peer_a = live(peer("a", "b.test", "a.test", Some(A)));
    let rule_a = protect("to-a", "a", b_net, a_net, Start::Respond);
    simulation.configure(1, policies(vec![peer_a], vec![rule_a]));
    let peer_b = live(peer("b", "a.test", "b.test", Some(B)));
    let rule_b = protect("to-b", "b", a_net, b_net, Start::OnDemand);
    simulation.configure(0, policies(vec![peer_b], vec![rule_b]));
    simulation
}

fn connect(fragment_size: usize, faults: Faults, seed: u64) -> Simulation {
    let mut simulation = pair(fragment_size, faults, seed);
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(10));
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// The number and total of a fragment.
fn fragment(datagram: &[u8]) -> Option<(u16, u16)> {
    match Message::decode(datagram).unwrap().payloads.last() {
        Some(Payload::EncryptedFragment(f)) => Some((f.number, f.total)),
        _ => None,
    }
}

#[test]
fn long_messages_travel_in_fragments_and_short_ones_do_not() {
    let simulation = connect(200, Faults::default(), 1);
    assert!(simulation.has_one_child_each().unwrap());
    for (node, total) in simulation.nodes.iter().zip([3, 2]) {
        let sent: Vec<&[u8]> = node.sent.iter().map(|(_, d)| d.as_slice()).collect();
        assert!(sent[1..].iter().all(|d| d.len() <= 200 - 20 - 8 - 4));
        assert_eq!(fragment(sent[0]), None, "IKE_SA_INIT is never fragmented");
        let of_auth = (1..=total).map(|number| Some((number, total)));
        assert!(sent[1..].iter().map(|d| fragment(d)).eq(of_auth), "IKE_AUTH is");
        assert!(node.endpoint.status(simulation.now).ike_sas[0].fragmentation);
    }
    assert_eq!(counter(&simulation, 0, Counter::MessageFragmented), 1);
    assert_eq!(counter(&simulation, 1, Counter::FragmentReceived), 2, "before the last one");

    let simulation = connect(1280, Faults::default(), 1);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[0].sent.len(), 2, "nothing is as long as that");
}

#[test]
fn one_end_that_does_not_want_fragments_is_enough() {
    for unwilling in [0, 1] {
        let mut simulation = pair(200, Faults::default(), 1);
        let other = pair(0, Faults::default(), 2);
        let policies = simulation.nodes[unwilling].kernel.classified.clone().unwrap();
        simulation.nodes[unwilling] = other.nodes.into_iter().nth(unwilling).unwrap();
        simulation.input(unwilling, Input::Policies(policies));
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap());
        for node in &simulation.nodes {
            assert!(node.sent.iter().all(|(_, d)| fragment(d).is_none()));
            assert!(!node.endpoint.status(simulation.now).ike_sas[0].fragmentation);
        }
    }
}

#[test]
fn a_bad_network_loses_time_and_nothing_else() {
    let faults = Faults { loss: 20, duplication: 20, reordering: 20, corruption: 5 };
    let mut up = 0;
    for seed in 0..300 {
        let mut simulation = connect(200, faults, seed);
        simulation.run(2 * MINUTE);
        simulation.network.set_faults(Faults::default());
        simulation.run(2 * MINUTE);
        up += u32::from(simulation.has_one_child_each().unwrap());
    }
    assert!(up > 270, "only {up} of 300 were established");
}

#[test]
fn a_repeated_fragment_gets_the_whole_answer_only_if_it_is_the_first() {
    let mut simulation = connect(200, Faults::default(), 1);
    let to_b = |path: Path| Path { local: path.remote, remote: path.local };
    let sent = simulation.nodes[0].sent.clone();
    let answers = simulation.nodes[1].sent.len();
    simulation.input(1, Input::Datagram { path: to_b(sent[2].0), octets: &sent[2].1 });
    assert_eq!(simulation.nodes[1].sent.len(), answers);
    assert_eq!(counter(&simulation, 1, Counter::FragmentDuplicate), 1);
    simulation.input(1, Input::Datagram { path: to_b(sent[1].0), octets: &sent[1].1 });
    assert_eq!(simulation.nodes[1].sent.len(), answers + 2);
    assert_eq!(simulation.nodes[1].sent[answers..], simulation.nodes[1].sent[answers - 2..answers]);
}

#[test]
fn fragments_whose_others_never_come_do_not_stay() {
    let reassembly_timeout = Duration::from_secs(10);
    let config =
        EndpointConfig { fragment_size: 200, reassembly_timeout, ..EndpointConfig::default() };
    let mut simulation = pair_with(&config, Faults::default(), 1);
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(5));
    simulation.network.set_faults(CUT);
    // A begins to replace its Child SA; the first fragment arrives, time and again.
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    let before = simulation.nodes[0].sent.len();
    simulation.input(0, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
    let (path, first) = simulation.nodes[0].sent[before].clone();
    assert!(matches!(fragment(&first), Some((1, total)) if total > 1));
    let path = Path { local: path.remote, remote: path.local };
    for round in 0..3 {
        assert_eq!(counter(&simulation, 1, Counter::FragmentTimeout), round);
        simulation.input(1, Input::Datagram { path, octets: &first });
        if round == 0 {
            // It does not wait for another reason to look.
            let due = simulation.nodes[1].endpoint.next_timeout().unwrap();
            assert_eq!(due.duration_since(simulation.now), reassembly_timeout);
        }
        simulation.run(Duration::from_secs(9));
        assert_eq!(counter(&simulation, 1, Counter::FragmentTimeout), round);
        simulation.run(Duration::from_secs(2));
    }
    assert_eq!(counter(&simulation, 1, Counter::FragmentTimeout), 3);
    assert_eq!(counter(&simulation, 1, Counter::FragmentReceived), 2 + 3);
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn forged_fragments_leave_no_trace() {
    let mut simulation = connect(200, Faults::default(), 1);
    let (path, mut forged) = simulation.nodes[0].sent[1].clone();
    forged[23] = 2; // the next request
    forged[18] = ExchangeType::INFORMATIONAL.0;
    let before = simulation.nodes[1].endpoint.status(simulation.now);
    let answers = simulation.nodes[1].sent.len();
    for (number, total) in [(1, 2), (2, 2), (0, 2), (3, 2), (1, 1), (1, 200), (255, 255)] {
        (forged[33], forged[35]) = (number, total);
        let path = Path { local: path.remote, remote: path.local };
        simulation.input(1, Input::Datagram { path, octets: &forged });
    }
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now), before);
    assert_eq!(simulation.nodes[1].sent.len(), answers);
    assert_eq!(counter(&simulation, 1, Counter::NotAuthentic), 7);
}
