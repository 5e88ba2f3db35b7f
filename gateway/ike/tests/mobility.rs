//! A peer behind NAT comes by another address or port (RFC 7296 2.23): the IKE SA and its Child
//! SAs follow, and nobody else moves them.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "This is test code.")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway_ike::config::{EndpointConfig, PeerConfig, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{Input, KernelError, Path};
use gateway_ike::testing::{Faults, Refusal, Simulation, peer, policies, protect};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const OTHER_NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
const A_LIVENESS: Duration = Duration::from_secs(30);

/// A and B with a Child SA, with a NAT in front of A or without.
fn connected(nat: bool) -> Simulation {
    let config = EndpointConfig::default();
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    if nat {
        simulation.network.translate(A, NAT);
    }
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    simulation.configure(
        1,
        policies(
            vec![peer("a", "b.test", "a.test", None)],
            vec![protect("to-a", "a", b_net, a_net, Start::Respond)],
        ),
    );
    let to_b =
        PeerConfig { liveness_interval: A_LIVENESS, ..peer("b", "a.test", "b.test", Some(B)) };
    simulation.configure(
        0,
        policies(vec![to_b], vec![protect("to-b", "b", a_net, b_net, Start::OnDemand)]),
    );
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert_eq!(simulation.exchange_traffic(), []);
    simulation
}

fn path_of(simulation: &Simulation, node: usize) -> Path {
    simulation.nodes[node].endpoint.status(simulation.now).ike_sas[0].path
}

fn count(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn moves(simulation: &Simulation, node: usize) -> usize {
    simulation.nodes[node].kernel.history.iter().filter(|h| h.starts_with("move child")).count()
}

/// What B sends by.
fn sent_to(simulation: &Simulation) -> SocketAddr {
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    SocketAddr::new(child.outbound.destination, child.encapsulation.unwrap().remote_port)
}

#[test]
fn the_child_sas_follow_a_peer_whose_nat_has_forgotten_it() {
    for outside in [None, Some(OTHER_NAT)] {
        let mut simulation = connected(true);
        let before = path_of(&simulation, 1);
        simulation.network.rebind(outside);
        assert_eq!(simulation.exchange_traffic().len(), 1, "B still sends to the old mapping");
        simulation.run(A_LIVENESS + Duration::from_secs(2));
        let after = path_of(&simulation, 1);
        assert_ne!(before, after);
        assert_eq!(after.remote.ip(), outside.unwrap_or(NAT));
        assert_eq!(sent_to(&simulation), after.remote);
        assert_eq!(simulation.exchange_traffic(), []);
        assert_eq!((moves(&simulation, 0), moves(&simulation, 1)), (0, 1));
        assert_eq!(count(&simulation, 1, Counter::PathChanged), 1);
        let said = simulation.nodes[1]
            .events
            .iter()
            .any(|e| e.to_string().contains("has changed its mapping"));
        assert!(said, "the log says why");
        // What is negotiated now is for the new mapping too.
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_secs(2));
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}

#[test]
fn nobody_follows_what_is_forged_or_repeated_from_elsewhere() {
    let mut simulation = connected(true);
    let before = path_of(&simulation, 1);
    // Every request of A, and each with an octet changed, from an address of somebody else.
    simulation.run(A_LIVENESS + Duration::from_secs(2));
    let sent = simulation.nodes[0].sent.clone();
    let thief: SocketAddr = "203.0.113.9:4500".parse().unwrap();
    for (path, octets) in &sent {
        let mut forged = octets.clone();
        *forged.last_mut().unwrap() ^= 1;
        for octets in [octets, &forged] {
            let path = Path { local: path.remote, remote: thief };
            simulation.input(1, Input::Datagram { path, octets });
        }
    }
    assert_eq!(path_of(&simulation, 1), before);
    assert_eq!(moves(&simulation, 1), 0);
    assert_eq!(simulation.exchange_traffic(), []);
}

#[test]
fn who_is_behind_nat_does_not_follow_nor_does_anybody_without_nat() {
    for (nat, node) in [(true, 0), (false, 0), (false, 1)] {
        let mut simulation = connected(nat);
        let before = path_of(&simulation, node);
        simulation.run(A_LIVENESS);
        // The next authentic message comes from elsewhere: A's request, or B's answer to it.
        if node == 0 {
            simulation.deliver(1, false);
        }
        let last = simulation.nodes[1 - node].sent.last().unwrap().1.clone();
        let path = Path { local: before.local, remote: "203.0.113.9:4500".parse().unwrap() };
        simulation.input(node, Input::Datagram { path, octets: &last });
        assert_eq!(path_of(&simulation, node), before);
        assert_eq!(moves(&simulation, node), 0);
        simulation.run(Duration::from_secs(5));
        assert_eq!(simulation.exchange_traffic(), []);
    }
}

#[test]
fn a_child_sa_that_the_kernel_cannot_move_goes_and_its_rule_gets_another() {
    let mut simulation = connected(true);
    let refusal = KernelError::Refused("no".to_owned());
    simulation.nodes[1].kernel.refusals.push_back(Refusal::Error(refusal));
    simulation.network.rebind(None);
    simulation.run(A_LIVENESS + Duration::from_secs(2));
    assert_eq!(count(&simulation, 1, Counter::ChildSaNotMoved), 1);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "A is told");
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(2));
    assert_eq!(simulation.exchange_traffic(), []);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.len() == 1));
}

#[test]
fn a_request_under_way_to_the_old_mapping_is_sent_again_to_the_new() {
    let mut simulation = connected(true);
    simulation.network.rebind(None);
    // B deletes its Child SA: the Delete is lost until A has said something.
    let child = *simulation.nodes[1].kernel.children.keys().next().unwrap();
    let vanished = gateway_ike::io::KernelEvent::Vanished { child };
    simulation.input(1, Input::Kernel(vanished));
    simulation.run(A_LIVENESS + Duration::from_secs(20));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "the Delete has come");
    assert!(path_of(&simulation, 1).remote.port() > 4500);
}
