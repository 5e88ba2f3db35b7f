//! Post-quantum pre-shared keys (RFC 8784) and the demand for quantum safety.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "This is test code."
)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::algorithms::{Group, Round};
use gateway_ike::config::{Action, PeerConfig, PolicySet, Ppk, Secret, Start};
use gateway_ike::counters::Counter;
use gateway_ike::error::{AuthenticationFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::io::Path;
use gateway_ike::testing::{Faults, Forge, Simulation, peer, policies, protect};
use gateway_wire::{ExchangeType, Header, Message, NotifyType, Payload};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn ppk(id: &str, key: u8, required: bool) -> Option<Ppk> {
    Some(Ppk { id: id.as_bytes().to_vec(), key: Secret::new(vec![key; 32]), required })
}

fn good(required: bool) -> Option<Ppk> {
    ppk("key of 2026", 1, required)
}

fn policies_of_a(ppk: Option<Ppk>) -> PolicySet {
    let nets = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let b = PeerConfig { ppk, ..peer("b", "a.test", "b.test", Some(B)) };
    policies(vec![b], vec![protect("to-b", "b", nets.0, nets.1, Start::OnDemand)])
}

fn policies_of_b(ppk: Option<Ppk>) -> PolicySet {
    let nets = ("10.2.0.0/24".parse().unwrap(), "10.1.0.0/24".parse().unwrap());
    let a = PeerConfig { ppk, ..peer("a", "b.test", "a.test", Some(A)) };
    policies(vec![a], vec![protect("to-a", "a", nets.0, nets.1, Start::Respond)])
}

fn connect(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation
}

/// Whether the IKE SA at each end is quantum-safe; `None`: there is none.
fn quantum_safe(simulation: &Simulation) -> Option<bool> {
    let of = |node: usize| {
        let status = simulation.nodes[node].endpoint.status(simulation.now);
        status.ike_sas.iter().find_map(|sa| sa.quantum_safe)
    };
    assert_eq!(of(0), of(1));
    of(0)
}

fn served(simulation: &Simulation) -> bool {
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
}

/// The error that a node has reported, in words.
fn error(simulation: &Simulation, node: usize) -> String {
    let mut words = simulation.nodes[node].events.iter().filter_map(|e| match &e.kind {
        EventKind::Failed(error) | EventKind::ChildFailed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    words.next_back().unwrap_or_default()
}

/// Whether a message of IKE_SA_INIT says that its sender uses PPKs.
fn says_use_ppk(simulation: &Simulation, node: usize) -> bool {
    let init = &simulation.nodes[node].sent[0].1;
    let uses = |p: &Payload<'_>| matches!(p, Payload::Notify(n) if n.kind == NotifyType::USE_PPK);
    Message::decode(init).unwrap().payloads.iter().any(uses)
}

#[test]
fn the_same_ppk_makes_the_ike_sa_quantum_safe() {
    for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
        let simulation = connect(policies_of_a(good(a)), policies_of_b(good(b)));
        assert!(served(&simulation));
        assert_eq!(quantum_safe(&simulation), Some(true), "{a} {b}");
        assert_eq!(simulation.nodes[0].sent.len(), 2, "without a further message");
    }
}

#[test]
fn the_keys_of_the_child_sa_depend_on_the_ppk() {
    let keys = |key| {
        let ppk = || ppk("k", key, true);
        let simulation = connect(policies_of_a(ppk()), policies_of_b(ppk()));
        let child = simulation.nodes[0].kernel.children.values().next().unwrap();
        child.inbound.encryption_key.to_vec()
    };
    // All else is the same, from one seed.
    assert_eq!(keys(1), keys(1));
    assert_ne!(keys(1), keys(2));
}

#[test]
fn it_is_not_mentioned_to_a_peer_without_one() {
    let simulation = connect(policies_of_a(None), policies_of_b(good(false)));
    assert!(!says_use_ppk(&simulation, 0) && !says_use_ppk(&simulation, 1));
    let simulation = connect(policies_of_a(good(false)), policies_of_b(None));
    assert!(says_use_ppk(&simulation, 0) && !says_use_ppk(&simulation, 1));
}

#[test]
fn an_optional_ppk_is_left_out_where_the_peer_has_none() {
    for (a, b) in [(good(false), None), (None, good(false))] {
        let simulation = connect(policies_of_a(a), policies_of_b(b));
        assert!(served(&simulation));
        assert_eq!(quantum_safe(&simulation), Some(false));
    }
}

/// The responder then checks the AUTH data without the PPK, which the initiator sends along.
#[test]
fn an_optional_ppk_that_the_peer_calls_otherwise_is_left_out() {
    let other = ppk("key of 2025", 1, false);
    let simulation = connect(policies_of_a(good(false)), policies_of_b(other));
    assert!(served(&simulation));
    assert_eq!(quantum_safe(&simulation), Some(false));
}

#[test]
fn a_required_ppk_that_the_peer_does_not_have_ends_the_attempt_with_that_reason() {
    let unsupported = "does not support PPKs";
    let unknown = "the PPK is required, and the peer does not have it";
    let other = |required| ppk("key of 2025", 1, required);
    for (a, b, at, words) in [
        (good(true), None, 0, unsupported),
        (None, good(true), 1, unsupported),
        (good(true), other(false), 1, unknown),
        (good(false), other(true), 1, unknown),
        (good(true), other(true), 1, unknown),
    ] {
        let mut simulation = connect(policies_of_a(a), policies_of_b(b));
        assert!(!served(&simulation));
        assert!(error(&simulation, at).contains(words), "{}", error(&simulation, at));
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
    }
}

/// RFC 8784 3: an initiator that requires its PPK does not go on with a responder that answers
/// without one, though AUTH is right. Such an answer comes from B to an A that can do without: from
/// one seed it is authentic for the A that cannot.
#[test]
fn an_answer_without_the_ppk_that_is_required_ends_the_attempt_though_auth_is_right() {
    let other = || ppk("key of 2025", 1, false);
    let without = connect(policies_of_a(good(false)), policies_of_b(other()));
    assert!(served(&without));
    let mut simulation = Simulation::new(&[A, B], Faults { loss: 100, ..Faults::default() }, 1);
    simulation.configure(1, policies_of_b(other()));
    simulation.configure(0, policies_of_a(good(true)));
    simulation.acquire(0, "to-b");
    for (path, octets) in &without.nodes[1].sent {
        let path = Path { local: path.remote, remote: path.local };
        simulation.input(0, Input::Datagram { path, octets });
    }
    assert_eq!(simulation.nodes[0].sent[0], without.nodes[0].sent[0], "the same IKE_SA_INIT");
    let failed = |kind: &EventKind| match kind {
        EventKind::Failed(error) => Some(error.clone()),
        _ => None,
    };
    let failed: Vec<_> =
        simulation.nodes[0].events.iter().filter_map(|event| failed(&event.kind)).collect();
    assert_eq!(failed, [Error::Authentication(AuthenticationFault::PpkUnknown)]);
    assert!(simulation.nodes[0].kernel.children.is_empty());
    // RFC 7296 2.21.2: B believes that the IKE SA stands, and hears that it does not.
    let (_, last) = simulation.nodes[0].sent.last().unwrap();
    let told = Forge::of(&simulation.nodes[0].endpoint).unwrap().open(last).unwrap();
    assert_eq!(told.header.exchange, ExchangeType::INFORMATIONAL);
    let payloads = told.payloads().unwrap();
    let [Payload::Notify(notify)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!(notify.kind, NotifyType::AUTHENTICATION_FAILED);
}

#[test]
fn a_ppk_of_the_same_name_and_another_value_is_no_ppk() {
    let simulation =
        connect(policies_of_a(good(false)), policies_of_b(ppk("key of 2026", 2, false)));
    assert!(!served(&simulation));
    assert_eq!(simulation.nodes[1].endpoint.counters().value(Counter::AuthenticationFailed), 1);
}

/// A rule that demands quantum safety.
fn demanding(mut policies: PolicySet) -> PolicySet {
    for rule in policies.rules.values_mut() {
        if let Action::Protect(protect) = &mut Arc::make_mut(rule).action {
            protect.quantum_safe = true;
        }
    }
    policies
}

/// With ML-KEM beside X25519.
fn hybrid(mut policies: PolicySet) -> PolicySet {
    for peer in policies.peers.values_mut() {
        let proposals = &mut Arc::make_mut(peer).proposals;
        proposals[0].additional.insert(Round::Ke1, vec![Some(Group::MlKem768)]);
    }
    policies
}

#[test]
fn a_rule_that_demands_quantum_safety_gets_no_child_sa_without_it() {
    for (a, b, at) in [
        (demanding(policies_of_a(None)), policies_of_b(None), 0),
        (policies_of_a(None), demanding(policies_of_b(None)), 1),
    ] {
        let simulation = connect(a, b);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
        assert_eq!(quantum_safe(&simulation), Some(false), "the IKE SA stands");
        let words =
            "demands a quantum-safe IKE SA, and this one is not: aes256gcm16-prfsha256-x25519";
        assert!(error(&simulation, at).contains(words), "{}", error(&simulation, at));
    }
}

#[test]
fn a_child_sa_that_could_not_stand_is_not_asked_for() {
    let mut simulation = connect(demanding(policies_of_a(None)), policies_of_b(None));
    simulation.acquire(0, "to-b");
    simulation.run(HOUR);
    let exchange = |octets: &[u8]| Header::decode(octets).unwrap().0.exchange;
    let mut sent = simulation.nodes[0].sent.iter().map(|(_, octets)| exchange(octets));
    assert!(sent.all(|exchange| exchange != ExchangeType::CREATE_CHILD_SA));
    assert!(error(&simulation, 0).contains("demands a quantum-safe IKE SA"));
}

#[test]
fn a_reload_that_demands_quantum_safety_ends_what_has_none() {
    for node in [0, 1] {
        let mut simulation = connect(policies_of_a(None), policies_of_b(None));
        assert!(served(&simulation));
        let [a, b] = [policies_of_a(None), policies_of_b(None)];
        simulation.configure(node, demanding(if node == 0 { a } else { b }));
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    }
    let (a, b) = (|| hybrid(policies_of_a(None)), || hybrid(policies_of_b(None)));
    let mut simulation = connect(a(), b());
    let before = spis(&simulation);
    simulation.configure(0, demanding(a()));
    simulation.run(MINUTE);
    assert_eq!(spis(&simulation), before, "it is quantum-safe already");
}

/// The inbound SPIs of all Child SAs.
fn spis(simulation: &Simulation) -> Vec<u32> {
    let children = simulation.nodes.iter().flat_map(|n| n.kernel.children.values());
    children.map(|child| child.inbound.spi).collect()
}

#[test]
fn ml_kem_or_a_ppk_is_what_such_a_rule_wants() {
    let ppk = || good(true);
    for (a, b) in [
        (demanding(hybrid(policies_of_a(None))), demanding(hybrid(policies_of_b(None)))),
        (demanding(policies_of_a(ppk())), demanding(policies_of_b(ppk()))),
        (demanding(hybrid(policies_of_a(ppk()))), demanding(hybrid(policies_of_b(ppk())))),
    ] {
        let simulation = connect(a, b);
        assert!(served(&simulation));
        assert_eq!(quantum_safe(&simulation), Some(true));
    }
}

/// The keys of a rekeyed IKE SA come from SK_d, into which the PPK went; additional key exchanges are
/// done again.
#[test]
fn a_renewed_ike_sa_stays_quantum_safe() {
    let short = |mut policies: PolicySet| {
        for peer in policies.peers.values_mut() {
            Arc::make_mut(peer).lifetime = MINUTE;
        }
        policies
    };
    for (a, b) in [
        (hybrid(policies_of_a(None)), hybrid(policies_of_b(None))),
        (policies_of_a(good(true)), policies_of_b(good(true))),
    ] {
        let mut simulation = connect(short(demanding(a)), demanding(b));
        simulation.run(5 * MINUTE);
        for node in &simulation.nodes {
            assert!(node.endpoint.counters().value(Counter::IkeSaRekeyed) > 1);
        }
        assert!(served(&simulation));
        assert_eq!(quantum_safe(&simulation), Some(true));
    }
}
