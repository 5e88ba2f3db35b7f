//! What others can make us keep has a bound, and a counter says that it was met.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{EndpointConfig, PolicySet, Start};
use gateway_ike::counters::Counter;
use gateway_ike::event::{Event, EventKind};
use gateway_ike::io::{KernelEvent, Path};
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

/// B with this configuration, and the request with which A begins, which never arrives.
fn begun(config: &EndpointConfig) -> (Simulation, Vec<u8>) {
    let mut simulation = pair(config, 1);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b-1");
    let request = simulation.nodes[0].sent[0].1.clone();
    (simulation, request)
}

/// B gets a request like that one, of another initiator, from an address; gives the cookie that
/// it demands, if it answers with one.
fn request(
    simulation: &mut Simulation,
    init: &[u8],
    from: IpAddr,
    number: u16,
    cookie: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let mut octets = init.to_vec();
    octets[..2].copy_from_slice(&number.to_be_bytes());
    let mut message = Message::decode(&octets).unwrap();
    if let Some(data) = cookie {
        let (protocol, kind) = (ProtocolId::NONE, NotifyType::COOKIE);
        message.payloads.insert(0, Payload::Notify(Notify { protocol, spi: &[], kind, data }));
    }
    let octets = encode_message(&message.header, &message.payloads).unwrap();
    let path = Path { local: SocketAddr::new(B, 500), remote: SocketAddr::new(from, 500) };
    let before = simulation.nodes[1].sent.len();
    simulation.input(1, Input::Datagram { path, octets: &octets });
    let (_, answer) = simulation.nodes[1].sent.get(before)?;
    let Payload::Notify(notify) = Message::decode(answer).unwrap().payloads.remove(0) else {
        return None;
    };
    (notify.kind == NotifyType::COOKIE).then(|| notify.data.to_vec())
}

/// The same, of an initiator that is where it says: it returns the cookie if it must.
fn honest_request(simulation: &mut Simulation, init: &[u8], from: IpAddr, number: u16) {
    if let Some(cookie) = request(simulation, init, from, number, None) {
        assert_eq!(request(simulation, init, from, number, Some(&cookie)), None);
    }
}

fn half_open(simulation: &Simulation) -> usize {
    simulation.nodes[1].endpoint.status(simulation.now).half_open
}

const OF_ADDRESS: Counter = Counter::HalfOpenAddressLimit;

#[test]
fn an_address_has_so_many_half_open_ike_sas_and_with_cookies_as_many_again() {
    let config = EndpointConfig { half_open_address_limit: 3, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &init, A, number, None), None, "no cookie yet");
    }
    for number in 4..=9 {
        honest_request(&mut simulation, &init, A, number);
    }
    assert_eq!(half_open(&simulation), 3 + 3);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 3);
    assert_eq!(counter(&simulation, 1, Counter::CookieDemanded), 6);
    // Another address has room of its own and needs no cookie.
    assert_eq!(request(&mut simulation, &init, OTHER, 10, None), None);
    assert_eq!(half_open(&simulation), 6 + 1);
    // Of IPv6 all of one /64 share it.
    for number in 11..=20 {
        let from = format!("2001:db8::{number}").parse().unwrap();
        honest_request(&mut simulation, &init, from, number);
    }
    assert_eq!(half_open(&simulation), 7 + 6);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 3 + 4);
    honest_request(&mut simulation, &init, "2001:db8:0:1::1".parse().unwrap(), 21);
    assert_eq!(half_open(&simulation), 7 + 6 + 1);
    // What ends makes room.
    simulation.run(config.half_open_timeout + SECOND);
    assert_eq!(half_open(&simulation), 0);
    assert_eq!(counter(&simulation, 1, Counter::HalfOpenTimeout), 14);
    assert_eq!(request(&mut simulation, &init, A, 22, None), None);
    assert_eq!(half_open(&simulation), 1);
}

#[test]
fn forged_requests_keep_nobody_out() {
    let config = EndpointConfig { half_open_address_limit: 3, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=200 {
        request(&mut simulation, &init, A, number, (number % 2 == 0).then_some(&[7; 21]));
    }
    assert_eq!(half_open(&simulation), 3);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 0, "nobody has shown to be there");
    // Nor does a cookie that was sent to another address help, or one for another SPI.
    let cookie = request(&mut simulation, &init, A, 201, None).unwrap();
    for number in [202, 203] {
        assert!(request(&mut simulation, &init, A, number, Some(&cookie)).is_some());
    }
    assert_eq!(half_open(&simulation), 3);
    assert!(counter(&simulation, 1, Counter::CookieInvalid) >= 2);
    // The one that it is about gets in, by a cookie.
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
}

#[test]
fn above_the_limit_of_all_ike_sas_requests_are_dropped() {
    let config = EndpointConfig { ike_sa_limit: 2, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=5 {
        request(&mut simulation, &init, A, number, None);
    }
    assert_eq!((half_open(&simulation), counter(&simulation, 1, Counter::IkeSaLimit)), (2, 3));
}

#[test]
fn one_host_with_many_networks_keeps_nobody_out() {
    let config = EndpointConfig {
        half_open_limit: 6,
        half_open_address_limit: 2,
        ..EndpointConfig::default()
    };
    let (mut simulation, init) = begun(&config);
    honest_request(&mut simulation, &init, OTHER, 1);
    // A /56 has 256 times a /64.
    for number in 2..=20 {
        let from = format!("2001:db8:0:{number}::1").parse().unwrap();
        honest_request(&mut simulation, &init, from, number);
        assert!(half_open(&simulation) <= 6, "{number}");
    }
    let displaced = |simulation: &Simulation| counter(simulation, 1, Counter::HalfOpenLimit);
    assert_eq!((half_open(&simulation), displaced(&simulation)), (6, 14));
    // Who may be forged displaces nobody.
    assert!(request(&mut simulation, &init, A, 21, None).is_some(), "a cookie is demanded");
    assert_eq!((half_open(&simulation), displaced(&simulation)), (6, 14));
    // The one that was there first still has its place, and A gets one and goes on by it.
    let from: Vec<_> = simulation.nodes[1].endpoint.status(simulation.now).ike_sas;
    assert!(from.iter().any(|sa| sa.path.remote.ip() == OTHER));
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
    assert_eq!(displaced(&simulation), 15);
}

/// The request with so many octets in all.
fn of_size(init: &[u8], size: usize) -> Vec<u8> {
    let mut message = Message::decode(init).unwrap();
    let padding = vec![0; size - init.len() - 4];
    message.payloads.push(Payload::VendorId(&padding));
    let octets = encode_message(&message.header, &message.payloads).unwrap();
    assert_eq!(octets.len(), size);
    octets
}

#[test]
fn a_first_message_has_a_limit_and_what_comes_before_authentication_too() {
    let (mut simulation, init) = begun(&EndpointConfig::default());
    let limited = |simulation: &Simulation| counter(simulation, 1, Counter::InitSizeLimit);
    request(&mut simulation, &of_size(&init, 8193), A, 1, None);
    assert_eq!((half_open(&simulation), limited(&simulation)), (0, 1));
    assert!(simulation.nodes[1].sent.is_empty());
    request(&mut simulation, &of_size(&init, 8192), A, 2, None);
    assert_eq!((half_open(&simulation), limited(&simulation)), (1, 1));
    // IKE_AUTH as a whole has that of one in fragments.
    let (path, answer) = simulation.nodes[1].sent[0].clone();
    for (size, expected) in [(32_769, Counter::FragmentLimit), (32_768, Counter::NotAuthentic)] {
        let mut auth = answer.clone();
        auth.resize(size, 0);
        // SK, of IKE_AUTH, by the initiator, the second message.
        auth[16..24].copy_from_slice(&[46, 0x20, 35, 0x08, 0, 0, 0, 1]);
        auth[24..28].copy_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
        auth[28..30].copy_from_slice(&[35, 0]);
        auth[30..32].copy_from_slice(&u16::try_from(size - 28).unwrap().to_be_bytes());
        let before = counter(&simulation, 1, expected);
        simulation.input(1, Input::Datagram { path, octets: &auth });
        assert_eq!(counter(&simulation, 1, expected), before + 1, "{size}");
    }
}

/// The request with so many proposals, of so many transforms that nobody knows.
fn proposing(init: &[u8], proposals: u8, transforms: u16) -> Vec<u8> {
    let mut message = Message::decode(init).unwrap();
    let transform = |id| Transform {
        kind: TransformType::ENCR,
        id: 60_000 + id,
        key_length: None,
        unknown_attribute: false,
    };
    let proposal = |number| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: (0..transforms).map(transform).collect(),
    };
    for payload in &mut message.payloads {
        if let Payload::SecurityAssociation(sa) = payload {
            sa.proposals = (1..=proposals).map(proposal).collect();
        }
    }
    encode_message(&message.header, &message.payloads).unwrap()
}

/// What B has said of requests that it refused.
fn refusals(simulation: &Simulation) -> Vec<String> {
    let refused = |kind: &EventKind| matches!(kind, EventKind::InitRefused(_));
    let events = simulation.nodes[1].events.iter().filter(|event| refused(&event.kind));
    events.map(|event| event.kind.to_string()).collect()
}

#[test]
fn refusals_above_their_rate_are_only_counted_and_then_cookies_are_demanded() {
    let config = EndpointConfig { unprotected_answers_per_second: 2, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    let init = proposing(&init, 2, 3);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &init, A, number, None), None);
    }
    let seen = |simulation: &Simulation| {
        let refused = counter(simulation, 1, Counter::NoProposalChosen);
        let silent = counter(simulation, 1, Counter::UnprotectedAnswerLimited);
        (refused, silent, simulation.nodes[1].sent.len(), refusals(simulation).len())
    };
    assert_eq!(seen(&simulation), (3, 1, 2, 2), "the third is neither answered nor explained");
    // Whoever forges its address gets no further than this, which costs a hash.
    let cookie = request(&mut simulation, &init, A, 4, None).expect("a cookie is demanded");
    assert_eq!(seen(&simulation), (3, 1, 3, 2));
    assert_eq!(request(&mut simulation, &init, A, 4, Some(&cookie)), None);
    assert_eq!(seen(&simulation), (4, 2, 3, 2));
    // Of everybody, and no longer than it must.
    assert!(request(&mut simulation, &init, OTHER, 5, None).is_some());
    simulation.now += 29 * SECOND;
    assert!(request(&mut simulation, &init, OTHER, 5, None).is_some());
    simulation.now += 2 * SECOND;
    assert_eq!(request(&mut simulation, &init, OTHER, 5, None), None);
    assert_eq!(seen(&simulation), (5, 2, 6, 3));
    let modes = simulation.nodes[1].events.iter().map(|event| &event.kind);
    let modes: Vec<_> = modes.filter(|kind| matches!(kind, EventKind::CookieMode(_))).collect();
    assert_eq!(modes, [&EventKind::CookieMode(true), &EventKind::CookieMode(false)]);
}

#[test]
fn who_never_answers_refusals_demands_no_cookies_for_them() {
    let config = EndpointConfig { unprotected_answers_per_second: 0, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &proposing(&init, 2, 3), A, number, None), None);
    }
    assert_eq!(counter(&simulation, 1, Counter::UnprotectedAnswerLimited), 3);
    assert!(simulation.nodes[1].sent.is_empty());
    // Who proposes what we take is answered at once.
    assert_eq!(request(&mut simulation, &init, A, 4, None), None);
    assert_eq!(simulation.nodes[1].sent.len(), 1);
}

#[test]
fn a_request_that_proposes_too_much_is_refused_unseen() {
    let (mut simulation, init) = begun(&EndpointConfig::default());
    let limited = |simulation: &Simulation| counter(simulation, 1, Counter::TransformLimit);
    request(&mut simulation, &proposing(&init, 2, 255), A, 1, None);
    assert_eq!((limited(&simulation), counter(&simulation, 1, Counter::NoProposalChosen)), (0, 1));
    request(&mut simulation, &proposing(&init, 3, 170), A, 2, None);
    assert_eq!((limited(&simulation), counter(&simulation, 1, Counter::NoProposalChosen)), (1, 1));
    let said = refusals(&simulation);
    assert!(said[1].contains("513 proposals and transforms: 512 are the most"), "{said:?}");
    let (_, answer) = simulation.nodes[1].sent.last().unwrap();
    let payloads = Message::decode(answer).unwrap().payloads;
    let [Payload::Notify(notify)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!(notify.kind, NotifyType::NO_PROPOSAL_CHOSEN);
}

/// So many hosts begin at once in the name of one peer, so that none takes the others for dead;
/// gives node 0 when all have sent IKE_AUTH.
fn hosts_of_one_peer(count: u8, config: &EndpointConfig) -> Simulation {
    let hosts = (11..11 + count).map(|n| [192, 0, 2, n].into());
    let nodes: Vec<IpAddr> = core::iter::once(B).chain(hosts).collect();
    let mut simulation = Simulation::with_config(&nodes, config, Faults::default(), 1);
    simulation.configure(0, policies_of_b(1));
    for node in 1..nodes.len() {
        simulation.configure(node, policies_of_a(1));
        simulation.acquire(node, "to-b-1");
    }
    while simulation.nodes[1..].iter().any(|node| node.sent.len() < 2) {
        let limit = simulation.now + SECOND;
        assert!(simulation.step(limit));
    }
    simulation
}

#[test]
fn of_too_many_ike_sas_with_one_peer_the_oldest_are_deleted() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(3, &config);
    simulation.run(20 * SECOND);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 3);
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 1);
    assert_eq!(states(&simulation, 0), [(2, "established"), (3, "established")]);
    let mut of_hosts: Vec<_> = (1..=3).flat_map(|node| states(&simulation, node)).collect();
    of_hosts.sort_unstable();
    let expected = [(1, "closing"), (1, "established"), (1, "established")];
    assert_eq!(of_hosts, expected, "and its other end knows");
    assert_eq!(simulation.violations(), Vec::<String>::new());
    simulation.wind_up().unwrap();
}

#[test]
fn the_child_sas_of_all_ike_sas_with_one_peer_are_counted() {
    let config = EndpointConfig { peer_child_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(2, &config);
    simulation.configure(0, policies_of_b(2));
    for node in 1..=2 {
        simulation.configure(node, policies_of_a(2));
    }
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 0), 2, "the first of each IKE SA");
    simulation.acquire(1, "to-b-2");
    simulation.run(20 * SECOND);
    let limited = [Counter::PeerChildSaLimit, Counter::NoAdditionalSas];
    assert_eq!(limited.map(|limit| counter(&simulation, 0, limit)), [1, 0]);
    assert_eq!(children(&simulation, 0), 2);
    let words = "the peer has 2 Child SAs on all its IKE SAs: `peer-child-sa-limit` allows no more";
    let said = |event: &Event| event.kind.to_string().contains(words);
    assert_eq!(simulation.nodes[0].events.iter().filter(|event| said(event)).count(), 1);
    // It may replace those that it has.
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(1, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
    simulation.run(20 * SECOND);
    assert_eq!(
        (counter(&simulation, 0, Counter::ChildSaRekeyed), children(&simulation, 0)),
        (1, 2)
    );
    assert_eq!(simulation.violations(), Vec::<String>::new());
}

#[test]
fn the_newest_is_the_one_that_was_established_last() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(3, &config);
    // Whoever began first gets through last.
    let began_first = simulation.nodes[0].sent[0].0.remote.ip();
    let is_first = |node: &usize| simulation.nodes[*node].address == began_first;
    let (first, others): (Vec<usize>, Vec<usize>) = (1..=3).partition(is_first);
    while simulation.under_way(0) > 0 {
        simulation.deliver(0, true);
    }
    for node in others.into_iter().chain(first) {
        let (path, octets) = simulation.nodes[node].sent[1].clone();
        let path = Path { local: path.remote, remote: path.local };
        simulation.now += Duration::from_millis(1);
        simulation.input(0, Input::Datagram { path, octets: &octets });
    }
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 1);
    let expected = [(1, "established"), (2, "closing"), (3, "established")];
    assert_eq!(states(&simulation, 0), expected);
}

#[test]
fn of_those_that_do_not_answer_the_delete_no_more_are_kept_than_may_stand() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(9, &config);
    simulation.network.set_faults(CUT);
    simulation.run(2 * SECOND);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 9);
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 7);
    let count = |state| states(&simulation, 0).iter().filter(|(_, s)| *s == state).count();
    assert_eq!((count("established"), count("closing")), (2, 2));
}

#[test]
fn a_peer_that_begins_and_ends_ike_sas_leaves_no_more_than_may_stand() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 1);
    for _ in 0..6 {
        simulation.configure(0, policies_of_a(1));
        simulation.acquire(0, "to-b-1");
        simulation.run(SECOND);
        assert_eq!(children(&simulation, 1), 1);
        simulation.configure(0, PolicySet::default());
        simulation.run(SECOND);
        assert_eq!(children(&simulation, 1), 0);
    }
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 6);
    assert_eq!(states(&simulation, 1), [(5, "closing"), (6, "closing")]);
    simulation.run(60 * SECOND);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn a_peer_that_has_lost_its_ike_sas_and_says_so_has_not_too_many() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(2, &config);
    simulation.run(20 * SECOND);
    for seed in 0..3 {
        simulation.crash(1, seed);
        simulation.configure(1, policies_of_a(1));
        simulation.acquire(1, "to-b-1");
        simulation.run(20 * SECOND);
        assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 0);
    }
    assert_eq!(states(&simulation, 0).len(), 1);
}

#[test]
fn more_that_is_to_be_made_than_may_wait_is_not_and_may_be_asked_for_again() {
    let config = EndpointConfig { job_limit: 2, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 4);
    for _ in 0..3 {
        for rule in ["to-b-1", "to-b-2", "to-b-3", "to-b-4"] {
            simulation.acquire(0, rule);
        }
    }
    assert_eq!(counter(&simulation, 0, Counter::JobLimit), 3 * 2);
    assert_eq!(
        counter(&simulation, 0, Counter::AcquireIgnored),
        2 * 2,
        "those that wait do so once"
    );
    let refused = simulation.nodes[0].endpoint.status(simulation.now);
    let refused = refused.rules.iter().filter_map(|rule| rule.last_error.as_deref());
    assert_eq!(refused.filter(|error| error.contains("`job-limit`")).count(), 2);
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 1), 2);
    simulation.acquire(0, "to-b-3");
    simulation.acquire(0, "to-b-4");
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 1), 4);
    assert_eq!(counter(&simulation, 0, Counter::JobLimit), 3 * 2);
}

/// A and B with so many Child SAs, and nothing arrives any more.
fn connected(config: &EndpointConfig, rules: u8, served: u8) -> Simulation {
    let mut simulation = pair(config, rules);
    for n in 1..=served {
        simulation.acquire(0, &format!("to-b-{n}"));
        simulation.run(SECOND);
    }
    simulation.network.set_faults(CUT);
    assert_eq!(children(&simulation, 1), usize::from(served));
    simulation
}

#[test]
fn a_peer_that_keeps_too_much_that_was_deleted_loses_the_ike_sa() {
    let config = EndpointConfig { job_limit: 1, ..EndpointConfig::default() };
    let mut simulation = connected(&config, 4, 4);
    // The first Delete is under way, the second one waits.
    expire_oldest(&mut simulation, 1);
    expire_oldest(&mut simulation, 1);
    assert_eq!((children(&simulation, 1), states(&simulation, 1)), (2, vec![(1, "established")]));
    expire_oldest(&mut simulation, 1);
    assert_eq!((children(&simulation, 1), states(&simulation, 1)), (0, vec![(1, "closing")]));
    assert_eq!(counter(&simulation, 1, Counter::JobLimit), 1);
    let words =
        |kind: &EventKind| matches!(kind, EventKind::Closed(why) if why.contains("`job-limit`"));
    assert!(simulation.nodes[1].events.iter().any(|event| words(&event.kind)));
    // The peer hears of it as soon as it listens again.
    simulation.network.set_faults(Faults::default());
    simulation.run(20 * SECOND);
    assert_eq!(states(&simulation, 0), [(1, "closing")]);
    simulation.run(20 * SECOND);
    assert_eq!(states(&simulation, 0), []);
    simulation.wind_up().unwrap();
}

#[test]
fn old_keys_that_nobody_deletes_are_forgotten() {
    const CREATE_CHILD_SA: u8 = 36;
    let mut simulation = pair(&EndpointConfig::default(), 1);
    let mut of_a = policies_of_a(1);
    Arc::make_mut(of_a.peers.values_mut().next().unwrap()).lifetime = 10 * SECOND;
    simulation.configure(0, of_a);
    simulation.acquire(0, "to-b-1");
    simulation.run(SECOND);
    // New keys again and again, while all that is said under old ones is lost, such as their Delete.
    simulation.network.set_faults(CUT);
    let sent = |simulation: &Simulation, node: usize| simulation.nodes[node].sent.clone();
    let mut old_spis = Vec::new();
    let mut read = [0, 1].map(|node| sent(&simulation, node).len());
    for round in 0..7 {
        let asks = |(_, octets): &&(Path, Vec<u8>)| octets[18] == CREATE_CHILD_SA;
        while sent(&simulation, 0).iter().filter(asks).count() == round {
            assert!(simulation.step(simulation.now + 20 * SECOND), "round {round}");
        }
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for from in [0, 1] {
                for (path, octets) in sent(&simulation, from).split_off(read[from]) {
                    read[from] += 1;
                    if octets[18] == CREATE_CHILD_SA && from == 1 {
                        old_spis.push(octets[..8].to_vec());
                    } else if old_spis.contains(&octets[..8].to_vec()) {
                        continue;
                    }
                    quiet = false;
                    let path = Path { local: path.remote, remote: path.local };
                    simulation.input(1 - from, Input::Datagram { path, octets: &octets });
                }
            }
        }
    }
    for node in [0, 1] {
        assert_eq!(counter(&simulation, node, Counter::IkeSaRekeyed), 7);
        assert_eq!(states(&simulation, node).len(), 1 + 4, "node {node}");
        assert_eq!(children(&simulation, node), 1);
    }
    // The one who is to delete them forgets them as soon as nobody answers.
    let forgotten = [0, 1].map(|node| counter(&simulation, node, Counter::OldKeysForgotten));
    assert_eq!(forgotten, [0, 3]);
}

#[test]
fn what_a_peer_keeps_us_from_deleting_counts_as_what_it_has() {
    let config = EndpointConfig { child_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = connected(&config, 4, 2);
    // B's first Delete is under way and is not answered; the second one waits.
    expire_oldest(&mut simulation, 1);
    expire_oldest(&mut simulation, 1);
    assert_eq!(children(&simulation, 1), 0);
    for (rule, served, refused) in [("to-b-3", 1, 0), ("to-b-4", 1, 1)] {
        simulation.acquire(0, rule);
        pass_on(&mut simulation, 0);
        pass_on(&mut simulation, 1);
        assert_eq!(children(&simulation, 1), served);
        assert_eq!(counter(&simulation, 1, Counter::NoAdditionalSas), refused);
    }
}
