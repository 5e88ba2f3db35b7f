//! What a packet that waits has a peer asked for (RFC 7296 2.9), and what becomes of the rest of the
//! rule where the peer narrows to that.

use std::collections::BTreeSet;

use gateway_ike::config::EndpointConfig;
use gateway_ike::io::ChildSpec;
use gateway_ike::testing::Forge;
use gateway_wire::TrafficSelector;

use super::*;

pub(super) const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 9));

/// A host of B's network.
pub(super) fn host(number: u8) -> IpAddr {
    IpAddr::from([10, 2, 0, number])
}

/// B has a rule for each of these hosts, and none for all of the network.
pub(super) fn narrowing(hosts: &[u8]) -> PolicySet {
    let rule = |number: &u8| {
        let (local, remote) = (host(*number).into(), "10.1.0.0/24".parse().unwrap());
        protect(&format!("host-{number}"), "a", local, remote, Start::Respond)
    };
    policies(vec![peer("a", "b.test", "a.test", Some(A))], hosts.iter().map(rule).collect())
}

/// A has a Child SA for each of these hosts of B's, which has no more.
pub(super) fn narrowed(hosts: &[u8]) -> Simulation {
    let mut simulation = pair(policies_of_a(), narrowing(hosts));
    for number in hosts {
        assert!(simulation.send(0, "to-b", HOST, host(*number)), "it waits");
        simulation.run(MINUTE);
    }
    assert_eq!(protected(&simulation), hosts.iter().copied().map(host).collect());
    simulation
}

/// The hosts of B's that A has a Child SA with, each but one; both ends agree.
pub(super) fn protected(simulation: &Simulation) -> BTreeSet<IpAddr> {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    let children = simulation.nodes[0].kernel.children.values();
    let pairs: Vec<_> = children.map(|c| c.selectors.as_slice()).collect();
    let remote = |pairs: &[(gateway_ike::io::Selector, u32)]| {
        assert_eq!(pairs.len(), 1);
        pairs[0].0.remote
    };
    let hosts: BTreeSet<_> = pairs.iter().map(|pairs| remote(pairs).network()).collect();
    assert_eq!(hosts.len(), pairs.len(), "none twice");
    assert!(pairs.iter().all(|pairs| remote(pairs).prefix_len() == 32));
    hosts
}

/// The selectors that A has sent last: TSi and TSr.
pub(super) fn asked(simulation: &Simulation) -> [Vec<TrafficSelector>; 2] {
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let opened = forge.open(&simulation.nodes[0].sent.last().unwrap().1).unwrap();
    let mut found = [Vec::new(), Vec::new()];
    for payload in opened.payloads().unwrap() {
        if let Payload::TsInitiator(ts) = &payload {
            found[0] = ts.known().copied().collect();
        }
        if let Payload::TsResponder(ts) = &payload {
            found[1] = ts.known().copied().collect();
        }
    }
    found
}

/// Addresses of TCP with a port, or of anything.
pub(super) fn selector(net: &str, port: Option<u16>) -> TrafficSelector {
    let net: ipnet::IpNet = net.parse().unwrap();
    TrafficSelector {
        protocol: if port.is_some() { 6 } else { 0 },
        start_port: port.unwrap_or(0),
        end_port: port.unwrap_or(u16::MAX),
        start: net.network(),
        end: net.broadcast(),
    }
}

pub(super) fn expire(simulation: &mut Simulation, remote: IpAddr, hard: bool) {
    let spi = with(simulation, remote).inbound.spi;
    simulation.input(0, Input::Kernel(KernelEvent::Expire { spi, destination: A, hard }));
}

/// What A's kernel has for this address of B's, or for the network that begins with it.
pub(super) fn with(simulation: &Simulation, remote: IpAddr) -> &ChildSpec {
    let mut children = simulation.nodes[0].kernel.children.values();
    children.find(|child| child.selectors[0].0.remote.network() == remote).unwrap()
}

#[test]
fn the_packet_that_waits_is_named_first_and_the_rule_after_it() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    let expected = [
        vec![selector("10.1.0.9/32", Some(40_000)), selector("10.1.0.0/24", None)],
        vec![selector("10.2.0.5/32", Some(443)), selector("10.2.0.0/24", None)],
    ];
    assert!(simulation.send(0, "to-b", HOST, host(5)));
    for to in [1, 0] {
        simulation.deliver(to, false);
    }
    assert_eq!(asked(&simulation), expected, "in IKE_AUTH");
    simulation.run(MINUTE);
    // B takes the whole rule, and neither end has the packet's selectors beside it.
    assert!(simulation.has_one_child_each().unwrap());
    for (node, remote) in [(0, "10.2.0.0/24"), (1, "10.1.0.0/24")] {
        let child = simulation.nodes[node].kernel.children.values().next().unwrap();
        let remotes: Vec<_> = child.selectors.iter().map(|(s, _)| s.remote.to_string()).collect();
        assert_eq!(remotes, [remote]);
    }
    assert!(!simulation.send(0, "to-b", HOST, host(6)), "the rest of the rule is protected");
    // Its successor is for the rule.
    expire(&mut simulation, host(0), false);
    assert_eq!(asked(&simulation), expected.map(|selectors| vec![selectors[1]]));
}

#[test]
fn a_packet_that_the_rule_does_not_select_is_not_named() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    assert!(simulation.send(0, "to-b", HOST, IpAddr::from([10, 3, 0, 1])));
    for to in [1, 0] {
        simulation.deliver(to, false);
    }
    assert_eq!(asked(&simulation).map(|selectors| selectors.len()), [1, 1]);
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    // Nor is there anything to ask for once the rule has its Child SA.
    let sent = simulation.nodes[0].sent.len();
    assert!(simulation.send(0, "to-b", HOST, IpAddr::from([10, 3, 0, 1])));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
}

#[test]
fn where_the_peer_narrows_to_the_packet_the_next_one_gets_a_child_sa_of_its_own() {
    let mut simulation = narrowed(&[5, 6]);
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas.len(), 1);
    let sent = simulation.nodes[0].sent.len();
    for number in [5, 6] {
        assert!(!simulation.send(0, "to-b", HOST, host(number)));
    }
    // The same packet again, and another, while the first is asked for.
    let mut more = narrowed(&[5]);
    more.configure(1, narrowing(&[5, 6, 7]));
    let before = more.nodes[0].sent.len();
    for number in [6, 6, 7] {
        assert!(more.send(0, "to-b", HOST, host(number)));
    }
    assert_eq!(more.nodes[0].sent.len(), before + 1, "one request");
    more.run(MINUTE);
    assert_eq!(protected(&more), BTreeSet::from([host(5), host(6)]));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
}

/// Else there would be one more with each packet that the peer does not want.
#[test]
fn what_the_peer_narrows_to_what_is_there_already_is_not_there_twice() {
    let mut simulation = narrowed(&[5, 6]);
    for _ in 0..3 {
        assert!(simulation.send(0, "to-b", HOST, host(7)));
        simulation.run(MINUTE);
        assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
    }
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 3);
}

#[test]
fn what_is_narrowed_is_renewed_each_by_itself() {
    let mut simulation = narrowed(&[5, 6]);
    let hosts = BTreeSet::from([host(5), host(6)]);
    let spis = |simulation: &Simulation| -> BTreeSet<u32> {
        simulation.nodes[0].kernel.children.values().map(|c| c.inbound.spi).collect()
    };
    // In place, which names first what is to stay.
    assert!(!simulation.send(0, "to-b", HOST, host(6)), "it is in use");
    let before = spis(&simulation);
    expire(&mut simulation, host(6), false);
    let [_, tsr] = asked(&simulation);
    assert_eq!(tsr, [selector("10.2.0.6/32", None), selector("10.2.0.0/24", None)]);
    simulation.run(MINUTE);
    assert_eq!(protected(&simulation), hosts);
    assert_eq!(before.intersection(&spis(&simulation)).count(), 1);
    // From scratch, though another Child SA of the rule is there.
    let before = spis(&simulation);
    expire(&mut simulation, host(5), true);
    simulation.run(MINUTE);
    assert_eq!(protected(&simulation), hosts);
    assert_eq!(before.intersection(&spis(&simulation)).count(), 1);
}

#[test]
fn another_ike_sa_takes_over_all_that_is_narrowed() {
    let of_a = with_peer(policies_of_a(), |p| {
        (p.lifetime, p.renewal) = (MINUTE * 10, Renewal::Reauthenticate);
    });
    let mut simulation = pair(of_a, narrowing(&[5, 6]));
    for number in [5, 6] {
        assert!(simulation.send(0, "to-b", HOST, host(number)));
        simulation.run(MINUTE);
    }
    let ike_sa = |simulation: &Simulation| {
        let status = simulation.nodes[0].endpoint.status(simulation.now);
        assert_eq!(status.ike_sas.len(), 1);
        status.ike_sas[0].initiator_spi
    };
    let before = ike_sa(&simulation);
    simulation.run(MINUTE * 10);
    assert_ne!(ike_sa(&simulation), before);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
}

#[test]
fn what_the_peer_deletes_is_gone_though_the_rule_has_another_and_comes_again_with_a_packet() {
    let mut simulation = narrowed(&[5, 6]);
    simulation.configure(1, narrowing(&[6]));
    simulation.run(Duration::from_millis(500));
    assert_eq!(protected(&simulation), BTreeSet::from([host(6)]));
    simulation.configure(1, narrowing(&[5, 6]));
    assert!(simulation.send(0, "to-b", HOST, host(5)));
    simulation.run(MINUTE);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
}

/// Each packet to another host would have us make another one.
#[test]
fn those_that_are_made_for_packets_are_as_many_as_a_peer_may_have() {
    let limit = |limit: fn(&mut EndpointConfig)| {
        let mut config = EndpointConfig::default();
        limit(&mut config);
        config
    };
    for (config, counted) in [
        (limit(|c| c.child_sa_limit = 3), Counter::RuleChildSaLimit),
        (limit(|c| c.peer_child_sa_limit = 2), Counter::PeerChildSaLimit),
    ] {
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
        simulation.configure(1, narrowing(&[5, 6, 7]));
        simulation.configure(0, policies_of_a());
        for number in [5, 6] {
            assert!(simulation.send(0, "to-b", HOST, host(number)));
            simulation.run(MINUTE);
        }
        let sent = simulation.nodes[0].sent.len();
        assert!(simulation.send(0, "to-b", HOST, host(7)));
        assert_eq!(simulation.nodes[0].sent.len(), sent, "nothing is asked for");
        assert_eq!(counter(&simulation, 0, counted), 1);
        simulation.run(MINUTE);
        assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
    }
}

/// B has a rule for each of these hosts, and begins what it has for these others.
fn narrowing_and_beginning(hosts: &[u8], begun: &[u8]) -> PolicySet {
    let rule = |number: &u8| {
        let (local, remote) = (host(*number).into(), "10.1.0.0/24".parse().unwrap());
        protect(&format!("host-{number}"), "a", local, remote, Start::OnDemand)
    };
    let mut of_b = narrowing(hosts);
    let begun = begun.iter().map(rule);
    of_b.rules.extend(begun.map(|rule| (std::sync::Arc::clone(&rule.name), rule.into())));
    of_b
}

/// They may have half of what the peer may have.
#[test]
fn only_what_packets_of_ours_have_asked_for_and_what_is_to_stay_counts_as_made_for_packets() {
    let config = EndpointConfig { child_sa_limit: 6, ..EndpointConfig::default() };
    let refused = |simulation: &Simulation| counter(simulation, 0, Counter::RuleChildSaLimit);
    // B has begun these three.
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    simulation.configure(1, narrowing_and_beginning(&[4, 5, 6, 7], &[1, 2, 3]));
    simulation.configure(0, policies_of_a());
    for number in 1..=3 {
        simulation.acquire(1, &format!("host-{number}"));
        simulation.run(MINUTE);
    }
    for number in 4..=7 {
        assert_eq!(refused(&simulation), 0, "{number}");
        assert!(simulation.send(0, "to-b", HOST, host(number)));
        simulation.run(MINUTE);
    }
    assert_eq!(refused(&simulation), 1);
    assert_eq!(protected(&simulation), (1..=6).map(host).collect());
    // B is replacing one of them.
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    simulation.configure(1, narrowing(&[4, 5, 6, 7]));
    simulation.configure(0, policies_of_a());
    for number in 4..=6 {
        assert!(simulation.send(0, "to-b", HOST, host(number)));
        simulation.run(MINUTE);
    }
    let spi = with(&simulation, host(5)).outbound.spi;
    let event = KernelEvent::Expire { spi, destination: B, hard: false };
    simulation.input(1, Input::Kernel(event));
    simulation.deliver(0, false);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 4);
    assert!(simulation.send(0, "to-b", HOST, host(7)));
    simulation.run(MINUTE);
    assert_eq!(refused(&simulation), 0);
    assert_eq!(protected(&simulation), (4..=7).map(host).collect());
}

/// Else each Child SA that begins would have the kernel ask once more for what another is being made
/// for, or for what the peer does not want.
#[test]
fn an_acquire_is_forgotten_when_a_child_sa_begins_that_sends_its_packet_and_not_before() {
    let mut simulation = pair(policies_of_a(), narrowing_and_beginning(&[5, 6], &[7]));
    let forgotten = |simulation: &Simulation| {
        let history = &simulation.nodes[0].kernel.history;
        history.iter().filter(|done| done.starts_with("forget acquire")).count()
    };
    let children = |simulation: &Simulation| simulation.nodes[0].kernel.children.len();
    assert!(simulation.send(0, "to-b", HOST, host(5)));
    simulation.run(MINUTE);
    assert_eq!((children(&simulation), forgotten(&simulation)), (1, 1));
    // B's own stands before that for the packet does.
    assert!(simulation.send(0, "to-b", HOST, host(6)));
    simulation.acquire(1, "host-7");
    simulation.deliver(0, false);
    assert_eq!((children(&simulation), forgotten(&simulation)), (2, 1));
    simulation.run(MINUTE);
    assert_eq!((children(&simulation), forgotten(&simulation)), (3, 2));
    // B narrows to what is there.
    assert!(simulation.send(0, "to-b", HOST, host(8)));
    simulation.run(MINUTE);
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 1);
    assert_eq!((children(&simulation), forgotten(&simulation)), (3, 2));
}
