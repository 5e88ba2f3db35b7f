//! What RFC 7296 demands, sentence by sentence: `tests/rfc7296.md` has the table. Most of it is
//! about messages that no good peer sends, so they are forged with a peer's keys.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod auth;
mod broken_off;
mod childless;
mod configuration;
mod cookies;
mod crossing;
mod deletes;
mod errors;
mod extensions;
mod failover;
mod follow_up;
mod header;
mod negotiation;
mod older_signatures;
mod other_algorithms;
mod outside;
mod rekey;
mod renewal;
mod selectors;
mod series;
mod single_pair;
mod transport;
mod window;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{Action, PeerConfig, PolicySet, Protect, Rule, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::Path;
use gateway_ike::testing::{Faults, Forge, Opened, Simulation, peer, policies, protect};
use gateway_wire::{
    ExchangeType, Header, Message, MessageId, Notify, NotifyType, Payload, ProtocolId,
    encode_message,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);
/// Nothing arrives unless a test hands it over.
const CUT: Faults = Faults { loss: 100, duplication: 0, reordering: 0, corruption: 0 };

fn policies_of_a() -> PolicySet {
    let (local, remote) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let rule = protect("to-b", "b", local, remote, Start::OnDemand);
    policies(vec![peer("b", "a.test", "b.test", Some(B))], vec![rule])
}

fn policies_of_b() -> PolicySet {
    let (local, remote) = ("10.2.0.0/24".parse().unwrap(), "10.1.0.0/24".parse().unwrap());
    let rule = protect("to-a", "a", local, remote, Start::Respond);
    policies(vec![peer("a", "b.test", "a.test", Some(A))], vec![rule])
}

fn with_peer(mut policies: PolicySet, change: impl Fn(&mut PeerConfig)) -> PolicySet {
    policies.peers.values_mut().for_each(|peer| change(Arc::make_mut(peer)));
    policies
}

fn with_rule(mut policies: PolicySet, change: impl Fn(&mut Rule)) -> PolicySet {
    policies.rules.values_mut().for_each(|rule| change(Arc::make_mut(rule)));
    policies
}

fn with_protect(policies: PolicySet, change: impl Fn(&mut Protect)) -> PolicySet {
    with_rule(policies, |rule| {
        if let Action::Protect(protect) = &mut rule.action {
            change(protect);
        }
    })
}

/// Another rule beside the one that is there.
fn with_more(mut policies: PolicySet, rule: Rule) -> PolicySet {
    policies.rules.insert(Arc::clone(&rule.name), Arc::new(rule));
    policies
}

/// A, the initiator, and B on a good network.
fn pair(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation
}

/// A and B with an IKE SA and a Child SA, and nothing arrives any more.
fn connected() -> Simulation {
    connect(policies_of_a(), policies_of_b())
}

fn connect(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = pair(a, b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation.network.set_faults(CUT);
    simulation
}

/// A has sent IKE_SA_INIT; nothing arrives.
fn begun(a: PolicySet, b: PolicySet) -> (Simulation, Vec<u8>) {
    let mut simulation = pair(a, b);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b");
    let request = simulation.nodes[0].sent[0].1.clone();
    (simulation, request)
}

/// B has answered IKE_SA_INIT and A has sent IKE_AUTH; nothing arrives.
fn half_open() -> (Simulation, Vec<u8>) {
    half_open_with(policies_of_a(), policies_of_b())
}

fn half_open_with(a: PolicySet, b: PolicySet) -> (Simulation, Vec<u8>) {
    let (mut simulation, request) = begun(a, b);
    let answer = only(deliver(&mut simulation, 1, &request));
    let auth = only(deliver(&mut simulation, 0, &answer));
    (simulation, auth)
}

/// The way of a message that comes to a node.
fn path_to(node: usize) -> Path {
    let ends = [SocketAddr::new(A, 500), SocketAddr::new(B, 500)];
    Path { local: ends[node], remote: ends[1 - node] }
}

/// Hands a message to a node; gives what it sends at once.
fn deliver(simulation: &mut Simulation, node: usize, octets: &[u8]) -> Vec<Vec<u8>> {
    deliver_by(simulation, node, path_to(node), octets)
}

fn deliver_by(simulation: &mut Simulation, node: usize, path: Path, octets: &[u8]) -> Vec<Vec<u8>> {
    let before = simulation.nodes[node].sent.len();
    simulation.input(node, Input::Datagram { path, octets });
    simulation.nodes[node].sent[before..].iter().map(|(_, octets)| octets.clone()).collect()
}

fn only(mut sent: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(sent.len(), 1, "one message");
    sent.remove(0)
}

fn forge(simulation: &Simulation, node: usize) -> Forge {
    Forge::of(&simulation.nodes[node].endpoint).unwrap()
}

/// A node has no Child SA, and what it sent tells the other end so.
fn given_up(simulation: &Simulation, node: usize, sent: &[u8]) {
    let opened = forge(simulation, node).open(sent).unwrap();
    assert!(matches!(opened.payloads().unwrap()[..], [Payload::Delete(_)]));
    assert_eq!(children(simulation, node), 0);
}

/// Sends an authentic request in the name of a node to the other, which must answer it first.
fn ask(
    simulation: &mut Simulation,
    from: usize,
    exchange: ExchangeType,
    id: u32,
    payloads: &[Payload<'_>],
) -> Opened {
    let forge = forge(simulation, from);
    let request = forge.seal(&forge.header(exchange, false, id), payloads).unwrap();
    let sent = deliver(simulation, 1 - from, &request);
    forge.open(&sent[0]).unwrap()
}

/// The same with any octets inside the SK payload.
fn ask_octets(
    simulation: &mut Simulation,
    exchange: ExchangeType,
    first: gateway_wire::PayloadType,
    plaintext: &[u8],
) -> Opened {
    let forge = forge(simulation, 0);
    let header = forge.header(exchange, false, NEXT_OF_A);
    let request = forge.seal_octets(&header, first, plaintext).unwrap();
    let sent = deliver(simulation, 1, &request);
    forge.open(&sent[0]).unwrap()
}

/// The number of A's next request after IKE_AUTH, and of B's.
const NEXT_OF_A: u32 = 2;
const NEXT_OF_B: u32 = 0;

/// The same message with other payloads inside; the sender's end gives the keys.
fn resealed(
    simulation: &Simulation,
    sender: usize,
    datagram: &[u8],
    change: impl FnOnce(&mut Vec<Payload<'_>>),
) -> Vec<u8> {
    let forge = forge(simulation, sender);
    let opened = forge.open(datagram).unwrap();
    let mut payloads = opened.payloads().unwrap();
    change(&mut payloads);
    forge.seal(&opened.header, &payloads).unwrap()
}

/// The same unprotected message with other payloads.
fn rewritten<'a>(datagram: &'a [u8], change: impl FnOnce(&mut Vec<Payload<'a>>)) -> Vec<u8> {
    let mut message = Message::decode(datagram).unwrap();
    change(&mut message.payloads);
    encode_message(&message.header, &message.payloads).unwrap()
}

const fn notification(kind: NotifyType, data: &[u8]) -> Payload<'_> {
    Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: &[], kind, data })
}

/// The types of the notifications among payloads, but for those of extensions to RFC 7296, which
/// are not the matter here.
fn notified(payloads: &[Payload<'_>]) -> Vec<NotifyType> {
    payloads
        .iter()
        .filter_map(|p| match p {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        })
        .filter(|kind| *kind <= NotifyType::NON_FIRST_FRAGMENTS_ALSO)
        .collect()
}

fn header(datagram: &[u8]) -> Header {
    Header::decode(datagram).unwrap().0
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// The states of a node's IKE SAs.
fn states(simulation: &Simulation, node: usize) -> Vec<&'static str> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    status.ike_sas.iter().map(|sa| sa.state).collect()
}

fn children(simulation: &Simulation, node: usize) -> usize {
    simulation.nodes[node].kernel.children.len()
}
