//! Additional key exchanges (RFC 9370): what is agreed on, what a bad network or a bad peer can do
//! to them, and that nothing is left of those that fail.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "This is test code."
)]

mod rogue;

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::algorithms::{Group, IkeProposal, IkeSuite, Round};
use gateway_ike::config::{EndpointConfig, PeerConfig, PolicySet, Start};
use gateway_ike::counters::Counter;
use gateway_ike::crypto::key_exchange::{
    Agreed, KeyExchange, KeyExchangeError, PendingKeyExchange,
};
use gateway_ike::crypto::protect::{Opener, Sealer};
use gateway_ike::event::EventKind;
use gateway_ike::io::{Input, Path};
use gateway_ike::keys::IkeKeys;
use gateway_ike::testing::{
    FastKeyExchange, Faults, SeededRandom, Simulation, peer, policies, proposals, protect,
};
use gateway_ike::{Endpoint, Output};
use gateway_wire::{
    AuthMethod, Authentication, ExchangeType, Flags, Header, IdType, Identification, IkeSpi,
    KeMethod, KeyExchange as KePayload, Message, MessageId, Nonce, Notify, NotifyType, Payload,
    Proposal, ProtocolId, SecurityAssociation, Transform, TransformType, decode_chain,
    encode_chain, encode_message, encode_sk_prefix,
};
use zeroize::Zeroizing;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const MINUTE: Duration = Duration::from_secs(60);

/// X25519, and then these.
fn with_rounds(rounds: &[(Round, &[Option<Group>])]) -> IkeProposal {
    let mut proposal = proposals().0.remove(0);
    proposal.additional = rounds.iter().map(|(round, m)| (*round, m.to_vec())).collect();
    proposal
}

fn hybrid() -> IkeProposal {
    with_rounds(&[(Round::Ke1, &[Some(Group::MlKem768)])])
}

fn classic() -> IkeProposal {
    with_rounds(&[])
}

fn policies_of_a(proposals: &[IkeProposal]) -> PolicySet {
    let nets = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let b = PeerConfig { proposals: proposals.to_vec(), ..peer("b", "a.test", "b.test", Some(B)) };
    policies(vec![b], vec![protect("to-b", "b", nets.0, nets.1, Start::OnDemand)])
}

/// B takes A from any address.
fn policies_of_b(proposals: &[IkeProposal]) -> PolicySet {
    let nets = ("10.2.0.0/24".parse().unwrap(), "10.1.0.0/24".parse().unwrap());
    let a = PeerConfig { proposals: proposals.to_vec(), ..peer("a", "b.test", "a.test", None) };
    policies(vec![a], vec![protect("to-a", "a", nets.0, nets.1, Start::Respond)])
}

fn pair(a: &[IkeProposal], b: &[IkeProposal], faults: Faults, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], faults, seed);
    simulation.configure(1, policies_of_b(b));
    simulation.configure(0, policies_of_a(a));
    simulation
}

fn connect(a: &[IkeProposal], b: &[IkeProposal]) -> Simulation {
    let mut simulation = pair(a, b, Faults::default(), 1);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

/// What both ends say that they have agreed on.
fn suite(simulation: &Simulation) -> IkeSuite {
    let suites =
        simulation.nodes.iter().map(|n| n.endpoint.status(simulation.now).ike_sas[0].suite);
    let suites: Vec<_> = suites.collect();
    assert_eq!(suites[0], suites[1]);
    suites[0].unwrap()
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn failed_with(simulation: &Simulation, node: usize, part: &str) -> bool {
    simulation.nodes[node]
        .events
        .iter()
        .any(|e| matches!(&e.kind, EventKind::Failed(error) if error.to_string().contains(part)))
}

/// Everything that was held is gone at both ends.
fn nothing_left(simulation: &mut Simulation) {
    simulation.run(MINUTE);
    for node in &simulation.nodes {
        assert!(node.endpoint.is_empty(), "{:#?}", node.endpoint.status(simulation.now));
        assert!(node.kernel.children.is_empty());
    }
}

/// The messages that a node has sent, each once, though it may have gone in fragments.
fn messages(simulation: &Simulation, node: usize) -> Vec<(ExchangeType, u32)> {
    let header = |(_, sent): &(Path, Vec<u8>)| Header::decode(sent).unwrap().0;
    let sent = simulation.nodes[node].sent.iter().map(header);
    let mut messages: Vec<_> = sent.map(|h| (h.exchange, h.message_id.0)).collect();
    messages.dedup();
    messages
}

#[test]
fn a_hybrid_key_exchange_takes_six_messages_and_is_quantum_safe() {
    let simulation = connect(&[hybrid()], &[hybrid()]);
    assert!(simulation.has_one_child_each().unwrap());
    let order = [
        (ExchangeType::IKE_SA_INIT, 0),
        (ExchangeType::IKE_INTERMEDIATE, 1),
        (ExchangeType::IKE_AUTH, 2),
    ];
    assert_eq!(messages(&simulation, 0), order);
    assert_eq!(messages(&simulation, 1), order);
    let suite = suite(&simulation);
    assert_eq!(suite.to_string(), "aes256gcm16-prfsha256-x25519-ke1_mlkem768");
    assert!(suite.is_quantum_safe());
}

#[test]
fn real_key_exchanges_agree_as_the_simulated_ones_do() {
    let mut simulation = pair(&[hybrid()], &[hybrid()], Faults::default(), 1);
    for (node, policies) in [(1, policies_of_b(&[hybrid()])), (0, policies_of_a(&[hybrid()]))] {
        use_key_exchange(
            &mut simulation,
            node,
            gateway_ike::crypto::key_exchange::SystemKeyExchange,
        );
        simulation.configure(node, policies);
    }
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn seven_rounds_are_done_in_the_order_of_their_places() {
    let groups = [
        Group::MlKem1024,
        Group::EcpP521,
        Group::MlKem512,
        Group::EcpP384,
        Group::MlKem768,
        Group::Modp2048,
        Group::EcpP256,
    ];
    let methods = groups.map(|group| [Some(group)]);
    let rounds: Vec<_> = Round::ALL.iter().copied().zip(methods.iter().map(|m| &m[..])).collect();
    let all = with_rounds(&rounds);
    let simulation = connect(std::slice::from_ref(&all), std::slice::from_ref(&all));
    assert!(simulation.has_one_child_each().unwrap());
    let agreed: Vec<_> = suite(&simulation).additional.iter().map(|(_, group)| group).collect();
    assert_eq!(agreed, groups);
    let ids: Vec<_> = messages(&simulation, 0).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, (0..9).collect::<Vec<_>>());
}

#[test]
fn an_end_without_additional_key_exchanges_gets_the_classic_proposal() {
    for (a, b) in
        [(vec![hybrid(), classic()], vec![classic()]), (vec![classic()], vec![hybrid(), classic()])]
    {
        let simulation = connect(&a, &b);
        assert!(simulation.has_one_child_each().unwrap());
        assert_eq!(simulation.nodes[0].sent.len(), 2);
        assert!(!suite(&simulation).is_quantum_safe());
    }
}

#[test]
fn an_end_that_insists_on_them_does_not_get_less() {
    for (a, b) in [(hybrid(), classic()), (classic(), hybrid())] {
        let mut simulation = connect(&[a], &[b]);
        assert!(!simulation.has_one_child_each().unwrap());
        assert!(counter(&simulation, 1, Counter::NoProposalChosen) > 0);
        simulation.run(2 * MINUTE);
        nothing_left(&mut simulation);
    }
}

#[test]
fn behind_nat_they_use_port_4500() {
    let mut simulation = pair(&[hybrid()], &[hybrid()], Faults::default(), 1);
    simulation.network.translate(A, NAT);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    let mut ports = simulation.nodes[0].sent.iter().map(|(p, _)| p.remote.port());
    assert_eq!(ports.next(), Some(500));
    assert!(ports.all(|port| port == 4500));
}

#[test]
fn a_bad_network_delays_them_only() {
    let faults = Faults { loss: 25, duplication: 20, reordering: 20, corruption: 10 };
    let mut up = 0;
    for seed in 0..200 {
        let mut simulation = pair(&[hybrid()], &[hybrid()], faults, seed);
        simulation.acquire(0, "to-b");
        simulation.run(3 * MINUTE);
        if simulation.nodes.iter().all(|n| n.kernel.children.len() == 1) {
            assert!(simulation.has_one_child_each().unwrap(), "seed {seed}");
            up += 1;
        }
    }
    assert!(up > 150, "only {up} of 200 came up");
}

/// Every octet of the request in turn, and of the answer.
#[test]
fn what_was_changed_on_the_way_is_dropped_and_sent_again() {
    for tampered in [0, 1] {
        let mut simulation = pair(&[hybrid()], &[hybrid()], Faults::default(), 1);
        simulation.acquire(0, "to-b");
        // Until that side has sent its IKE_INTERMEDIATE message.
        let limit = simulation.now + MINUTE;
        while simulation.nodes[tampered].sent.len() < 2 {
            assert!(simulation.step(limit));
        }
        let (path, genuine) = simulation.nodes[tampered].sent[1].clone();
        let path = Path { local: path.remote, remote: path.local };
        let before = simulation.nodes[1 - tampered].sent.len();
        // Another version is answered with ours, and an SPI that nobody has with INVALID_IKE_SPI.
        let is_answered = |at: &usize| *at == 17 || (8..16).contains(at);
        for at in (0..genuine.len()).filter(|at| !is_answered(at)) {
            let mut changed = genuine.clone();
            changed[at] ^= 0x40;
            simulation.input(1 - tampered, Input::Datagram { path, octets: &changed });
        }
        assert_eq!(simulation.nodes[1 - tampered].sent.len(), before, "nothing was answered");
        assert!(counter(&simulation, 1 - tampered, Counter::NotAuthentic) > 1000);
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap(), "the genuine message was waited for");
    }
}

/// A key exchange that goes wrong at one end: what it sends is changed so.
struct Misbehaving {
    inner: FastKeyExchange,
    change: fn(&mut Vec<u8>),
}

struct Pending {
    inner: Box<dyn PendingKeyExchange>,
    public: Vec<u8>,
}

impl KeyExchange for Misbehaving {
    fn generate(&self, group: Group) -> Result<Box<dyn PendingKeyExchange>, KeyExchangeError> {
        let inner = self.inner.generate(group)?;
        let mut public = inner.public().to_vec();
        if group != Group::X25519 {
            (self.change)(&mut public);
        }
        Ok(Box::new(Pending { inner, public }))
    }

    fn respond(&self, group: Group, initiator: &[u8]) -> Result<Agreed, KeyExchangeError> {
        let mut agreed = self.inner.respond(group, initiator)?;
        if group != Group::X25519 {
            (self.change)(&mut agreed.value);
        }
        Ok(agreed)
    }
}

impl PendingKeyExchange for Pending {
    fn group(&self) -> Group {
        self.inner.group()
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        self.inner.agree(peer)
    }
}

fn use_key_exchange(
    simulation: &mut Simulation,
    node: usize,
    key_exchange: impl KeyExchange + 'static,
) {
    simulation.nodes[node].endpoint = Endpoint::new(
        EndpointConfig::default(),
        Box::new(SeededRandom::new(77)),
        Box::new(key_exchange),
    );
}

/// One end's additional values are changed; both have forgotten each other a minute later.
fn misbehaving(node: usize, change: fn(&mut Vec<u8>)) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let inner = FastKeyExchange::new(9);
    use_key_exchange(&mut simulation, node, Misbehaving { inner, change });
    simulation.configure(1, policies_of_b(&[hybrid()]));
    simulation.configure(0, policies_of_a(&[hybrid()]));
    simulation.acquire(0, "to-b");
    simulation.run(2 * MINUTE);
    assert!(!simulation.has_one_child_each().unwrap());
    nothing_left(&mut simulation);
    simulation
}

#[test]
fn a_value_of_the_wrong_size_ends_the_attempt_at_both_ends() {
    let changes: [fn(&mut Vec<u8>); 3] = [|v| v.truncate(7), |v| v.push(0), Vec::clear];
    for change in changes {
        let simulation = misbehaving(0, change);
        assert!(failed_with(&simulation, 1, "public value is invalid"));
        assert!(failed_with(&simulation, 0, "INVALID_SYNTAX"), "the refusal is told, encrypted");
        assert!(messages(&simulation, 0).iter().all(|e| e.0 != ExchangeType::IKE_AUTH));

        let simulation = misbehaving(1, change);
        assert!(failed_with(&simulation, 0, "public value is invalid"));
    }
}

/// What somebody in between who had broken X25519 could do: another value, which leads to other
/// secrets at the two ends. A KEM does not say so by itself; IKE_AUTH does.
#[test]
fn different_secrets_do_not_get_through_ike_auth() {
    for node in [0, 1] {
        let simulation = misbehaving(node, |value| value[3] ^= 1);
        assert!(counter(&simulation, 1, Counter::NotAuthentic) > 0);
    }
}

#[test]
fn a_half_open_sa_between_two_rounds_is_forgotten_in_time() {
    let two = with_rounds(&[
        (Round::Ke1, &[Some(Group::MlKem768)]),
        (Round::Ke2, &[Some(Group::EcpP384)]),
    ]);
    let mut simulation = pair(&[two.clone(), classic()], &[two], Faults::default(), 1);
    simulation.acquire(0, "to-b");
    let limit = simulation.now + MINUTE;
    while simulation.nodes[1].sent.len() < 2 {
        assert!(simulation.step(limit));
    }
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.run(2 * MINUTE);
    assert_eq!(counter(&simulation, 1, Counter::HalfOpenTimeout), 1);
    assert_eq!(counter(&simulation, 0, Counter::PeerDead), 1);
    nothing_left(&mut simulation);
}
