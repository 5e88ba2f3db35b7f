//! NAT keepalives (RFC 3948 2.3, 4), through a NAT that forgets.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "This is test code.")]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::config::{EndpointConfig, PeerConfig, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{ChildId, ChildSpec, Input, KernelEvent};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const HOUR: Duration = Duration::from_secs(3600);

/// A behind a NAT that forgets after 30 s (or in the open), and B, which asks after `liveness`.
fn connected(interval: u64, nat: bool, liveness: Duration) -> Simulation {
    let keepalive_interval = Duration::from_secs(interval);
    let config = EndpointConfig { keepalive_interval, ..EndpointConfig::default() };
    connected_with(config, nat.then_some(Duration::from_secs(30)), liveness)
}

fn connected_with(config: EndpointConfig, nat: Option<Duration>, liveness: Duration) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    if let Some(lifetime) = nat {
        simulation.network.translate_for(A, NAT, lifetime);
    }
    configure(&mut simulation, &["to-b"], |peer| PeerConfig {
        liveness_interval: liveness,
        ..peer
    });
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.len() == 1));
    simulation
}

/// Rules of A with these names, each for a prefix of its own, and one of B for all of them.
fn configure(
    simulation: &mut Simulation,
    rules: &[&str],
    change: impl Fn(PeerConfig) -> PeerConfig,
) {
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/16".parse().unwrap());
    let to_a = protect("to-a", "a", b_net, a_net, Start::Respond);
    simulation
        .configure(1, policies(vec![change(peer("a", "b.test", "a.test", None))], vec![to_a]));
    let to_b = (0_u8..).zip(rules).map(|(n, rule)| {
        let b_net = format!("10.2.{n}.0/24").parse().unwrap();
        protect(rule, "b", a_net, b_net, Start::OnDemand)
    });
    let b = PeerConfig {
        mobike: change(peer("b", "a.test", "b.test", None)).mobike,
        ..peer("b", "a.test", "b.test", Some(B))
    };
    simulation.configure(0, policies(vec![b], to_b.collect()));
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

/// On a kernel that can send keepalives. That of the simulation does not.
fn with_such_a_kernel() -> EndpointConfig {
    EndpointConfig { kernel_keepalives: true, ..EndpointConfig::default() }
}

/// After how many seconds the kernel sends a keepalive for a Child SA.
fn keepalive(spec: &ChildSpec) -> Option<u32> {
    spec.encapsulation?.keepalive.map(u32::from)
}

/// The Child SAs by which A sends and for which its kernel sends keepalives.
fn keepers(simulation: &Simulation) -> Vec<ChildId> {
    let kernel = &simulation.nodes[0].kernel;
    let sends = |child: &&ChildId| keepalive(&kernel.children[child]).is_some();
    kernel.outbound.iter().filter(sends).copied().collect()
}

/// A limit of the Child SA that a node has for a rule is reached.
fn expire(simulation: &mut Simulation, node: usize, child: ChildId, hard: bool) {
    let spec = &simulation.nodes[node].kernel.children[&child];
    let (spi, destination) = (spec.inbound.spi, spec.inbound.destination);
    simulation.input(node, Input::Kernel(KernelEvent::Expire { spi, destination, hard }));
}

/// The number that B has for a Child SA of A.
fn of_b(simulation: &Simulation, child: ChildId) -> ChildId {
    let spi = simulation.nodes[0].kernel.children[&child].outbound.spi;
    let mut theirs = simulation.nodes[1].kernel.children.values();
    theirs.find(|c| c.inbound.spi == spi).unwrap().child
}

#[test]
fn the_kernel_sends_them_while_there_is_a_child_sa_and_the_gateway_when_there_is_none() {
    let mut simulation = connected_with(with_such_a_kernel(), Some(3 * HOUR), Duration::ZERO);
    let spec = |n: usize| simulation.nodes[n].kernel.children.values().next().unwrap();
    assert_eq!((keepalive(spec(0)), keepalive(spec(1))), (Some(20), None), "A is behind NAT");
    let child = spec(1).child;
    simulation.run(HOUR);
    assert!(simulation.nodes[0].keepalives.is_empty(), "two would be one too many");

    // B deletes it, and the IKE SA has to be kept alive all the same: from now on.
    expire(&mut simulation, 1, child, true);
    simulation.run(Duration::from_secs(101));
    let node = &simulation.nodes[0];
    assert!(node.kernel.children.is_empty());
    assert_eq!(node.endpoint.status(simulation.now).ike_sas.len(), 1);
    assert_eq!(node.keepalives.len(), 5);

    // And the next one is the kernel's business again.
    simulation.acquire(0, "to-b");
    simulation.run(HOUR);
    assert_eq!(keepers(&simulation).len(), 1);
    assert_eq!(simulation.nodes[0].keepalives.len(), 5);
}

#[test]
fn of_several_child_sas_one_has_the_kernel_send_them_and_then_its_successor() {
    let config = with_such_a_kernel();
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    simulation.network.translate(A, NAT);
    configure(&mut simulation, &["one", "two", "three"], |peer| peer);
    for rule in ["one", "two", "three"] {
        simulation.acquire(0, rule);
        simulation.run(Duration::from_secs(1));
    }
    assert_eq!(simulation.nodes[0].kernel.outbound.len(), 3);
    let first = keepers(&simulation);
    assert_eq!(first.len(), 1);

    // Either end replaces it, once: never do two send.
    for node in [0, 1] {
        let [keeper] = keepers(&simulation)[..] else { unreachable!("checked") };
        let child = if node == 0 { keeper } else { of_b(&simulation, keeper) };
        expire(&mut simulation, node, child, false);
        while simulation.step(simulation.now + Duration::from_secs(10)) {
            assert!(keepers(&simulation).len() <= 1, "{:?}", keepers(&simulation));
        }
        let [successor] = keepers(&simulation)[..] else { unreachable!("one is left") };
        assert_ne!(successor, keeper);
        assert_eq!(simulation.nodes[0].kernel.outbound.len(), 3);
    }
    assert!(simulation.nodes[0].keepalives.is_empty());

    // Without it the gateway sends them, until one of the others is replaced.
    let [keeper] = keepers(&simulation)[..] else { unreachable!("checked") };
    let child = of_b(&simulation, keeper);
    expire(&mut simulation, 1, child, true);
    simulation.run(Duration::from_secs(101));
    assert_eq!((keepers(&simulation).len(), simulation.nodes[0].kernel.outbound.len()), (0, 2));
    let sent = simulation.nodes[0].keepalives.len();
    assert_eq!(sent, 5);
    let other = simulation.nodes[0].kernel.outbound[0];
    expire(&mut simulation, 0, other, false);
    simulation.run(HOUR);
    assert_eq!((keepers(&simulation).len(), simulation.nodes[0].keepalives.len()), (1, sent));
}

#[test]
fn who_comes_behind_nat_has_the_kernel_send_them_from_then_on() {
    let inside: IpAddr = [10, 0, 0, 1].into();
    let config = with_such_a_kernel();
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    simulation.network.translate(inside, NAT);
    simulation.readdress(0, &[A]);
    simulation.readdress(1, &[B]);
    configure(&mut simulation, &["one", "two"], |peer| PeerConfig { mobike: true, ..peer });
    for rule in ["one", "two"] {
        simulation.acquire(0, rule);
        simulation.run(Duration::from_secs(1));
    }
    assert_eq!(simulation.nodes[0].kernel.outbound.len(), 2);
    for (address, expected) in [(inside, 1), (A, 0), (inside, 1)] {
        simulation.readdress(0, &[address]);
        simulation.run(Duration::from_secs(100));
        let children = &simulation.nodes[0].kernel.children;
        assert!(children.values().all(|c| c.outbound.source == address));
        assert_eq!(keepers(&simulation).len(), expected, "{address}");
    }
    assert!(simulation.nodes[0].keepalives.is_empty());
}

#[test]
fn an_interval_below_a_second_is_not_the_kernels() {
    let keepalive_interval = Duration::from_millis(500);
    let config = EndpointConfig { keepalive_interval, ..with_such_a_kernel() };
    let mut simulation = connected_with(config, Some(HOUR), Duration::ZERO);
    assert_eq!(keepers(&simulation), []);
    simulation.run(Duration::from_secs(10));
    assert!(simulation.nodes[0].keepalives.len() >= 19);
}
