//! Addresses from a pool for a peer that asks (RFC 7296 2.19). The initiator is forged, so that it
//! asks in any way; how ours asks is in `assigned.rs`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{PeerConfig, PolicySet, Pool, Start};
use gateway_ike::io::Path;
use gateway_ike::testing::{Faults, Forge, Opened, Simulation, peer, policies, protect};
use gateway_wire::{
    Configuration, ConfigurationAttribute, CpAttribute, CpType, ExchangeType, Header, NotifyType,
    Payload, PayloadType,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn policies_of_b(pool: &[&str]) -> PolicySet {
    let pool = Pool {
        name: "pool".into(),
        addresses: pool.iter().map(|n| n.parse().unwrap()).collect(),
        dns: vec![B],
    };
    let peer = PeerConfig { pool: Some(Arc::new(pool)), ..peer("a", "b.test", "a.test", None) };
    let (own, remote) = ("10.2.0.0/24".parse().unwrap(), "10.9.0.0/24".parse().unwrap());
    policies(vec![peer], vec![protect("to-a", "a", own, remote, Start::Respond)])
}

/// A, which wants any address of its own to reach B's network.
fn policies_of_a() -> PolicySet {
    let (any, remote) = ("0.0.0.0/0".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let peer = peer("b", "a.test", "b.test", Some(B));
    policies(vec![peer], vec![protect("to-b", "b", any, remote, Start::OnDemand)])
}

const ASKS: &[ConfigurationAttribute<'_>] = &[
    ConfigurationAttribute { kind: CpAttribute::INTERNAL_IP4_ADDRESS, value: &[] },
    ConfigurationAttribute { kind: CpAttribute::INTERNAL_IP4_DNS, value: &[] },
];

/// Runs A up to its IKE_AUTH request, which reaches B with what `attributes` ask for; gives B's
/// answer.
fn ask(simulation: &mut Simulation, attributes: &[ConfigurationAttribute<'_>]) -> Opened {
    simulation.acquire(0, "to-b");
    let (there, request) = simulation.nodes[0].sent.last().unwrap().clone();
    let to_b = |path: Path| Path { local: path.remote, remote: path.local };
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.input(1, Input::Datagram { path: to_b(there), octets: &request });
    let (back, answer) = simulation.nodes[1].sent.last().unwrap().clone();
    simulation.input(0, Input::Datagram { path: to_b(back), octets: &answer });

    let (there, request) = simulation.nodes[0].sent.last().unwrap().clone();
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let opened = at_b.open(&request).unwrap();
    let mut payloads = opened.payloads().unwrap();
    if !attributes.is_empty() {
        let kind = CpType::CFG_REQUEST;
        payloads
            .push(Payload::Configuration(Configuration { kind, attributes: attributes.to_vec() }));
    }
    let (header, ..) = Header::decode(&request).unwrap();
    assert_eq!(header.exchange, ExchangeType::IKE_AUTH);
    let sealed = at_a.seal(&header, &payloads).unwrap();
    simulation.input(1, Input::Datagram { path: to_b(there), octets: &sealed });
    let (_, answer) = simulation.nodes[1].sent.last().unwrap();
    at_a.open(answer).unwrap()
}

fn simulation(pool: &[&str]) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b(pool));
    simulation.configure(0, policies_of_a());
    simulation
}

fn refusal(answer: &Opened) -> Option<NotifyType> {
    answer.payloads().unwrap().iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        notify.kind.is_error().then_some(notify.kind)
    })
}

#[test]
fn a_peer_is_given_an_address_and_nothing_but_that_address_is_agreed_on() {
    let mut simulation = simulation(&["10.9.0.0/24"]);
    let answer = ask(&mut simulation, ASKS);
    let payloads = answer.payloads().unwrap();
    let given = payloads.iter().find_map(|payload| {
        let Payload::Configuration(given) = payload else { return None };
        Some(given)
    });
    let given = given.unwrap();
    let place = |kind| payloads.iter().position(|p| p.payload_type() == kind).unwrap();
    assert!(place(PayloadType::CP) < place(PayloadType::SA));
    assert_eq!(given.kind, CpType::CFG_REPLY);
    let address =
        ConfigurationAttribute { kind: CpAttribute::INTERNAL_IP4_ADDRESS, value: &[10, 9, 0, 1] };
    let dns =
        ConfigurationAttribute { kind: CpAttribute::INTERNAL_IP4_DNS, value: &[192, 0, 2, 2] };
    assert_eq!(given.attributes, [address, dns]);
    let narrowed = payloads.iter().find_map(|payload| {
        let Payload::TsInitiator(ts) = payload else { return None };
        ts.known().next().copied()
    });
    let narrowed = narrowed.unwrap();
    let own: IpAddr = [10, 9, 0, 1].into();
    assert_eq!((narrowed.start, narrowed.end), (own, own));

    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    assert_eq!(child.selectors[0].0.remote, "10.9.0.1/32".parse().unwrap());
    let status = simulation.nodes[1].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas.last().unwrap().assigned, [own]);
}

#[test]
fn a_peer_that_does_not_ask_gets_no_child_sa() {
    let mut simulation = simulation(&["10.9.0.0/24"]);
    let answer = ask(&mut simulation, &[]);
    assert_eq!(refusal(&answer), Some(NotifyType::FAILED_CP_REQUIRED));
    let unasked = |p: &Payload<'_>| matches!(p, Payload::Configuration(_));
    assert!(!answer.payloads().unwrap().iter().any(unasked));
    assert!(simulation.nodes[1].kernel.children.is_empty());
    let status = simulation.nodes[1].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].state, "established");
    assert_eq!(status.ike_sas[0].assigned, Vec::<IpAddr>::new());
}

#[test]
fn a_pool_without_the_family_is_an_address_failure() {
    let mut simulation = simulation(&["2001:db8:9::/64"]);
    let answer = ask(&mut simulation, ASKS);
    assert_eq!(refusal(&answer), Some(NotifyType::INTERNAL_ADDRESS_FAILURE));
    assert!(simulation.nodes[1].kernel.children.is_empty());
}

#[test]
fn the_address_stays_with_the_peer() {
    let mut simulation = simulation(&["10.9.0.0/24"]);
    ask(&mut simulation, ASKS);
    // A starts anew: the same address, and the old Child SA goes.
    simulation.crash(0, 5);
    simulation.configure(0, policies_of_a());
    ask(&mut simulation, ASKS);
    simulation.run(Duration::from_secs(1));
    let remotes: Vec<_> = simulation.nodes[1]
        .kernel
        .children
        .values()
        .map(|c| c.selectors[0].0.remote.to_string())
        .collect();
    assert_eq!(remotes, ["10.9.0.1/32"]);
}
