//! EAP-TLS in IKE_AUTH: A is the initiator, B asks; beside another proof of B, and alone.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    dead_code,
    reason = "This is test code, and shares what issues certificates."
)]

mod certificates;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, EndpointConfig, Identity, LocalAuth,
    PolicySet, RemoteAuth, Start,
};
use gateway_ike::crypto::signature::{KeyKind, SigningKey};
use gateway_ike::crypto::x509::Credential;
use gateway_ike::error::{AuthenticationFault, EapFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::reason::Cause;
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};

use self::certificates::{Authority, CERTIFIABLE, NOW, Subject, key, trust};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);

/// What an end shows and believes.
fn tls(own: &Authority, subject: &Subject, other: &Authority) -> EapTls {
    let key = SigningKey::from_pem(key(subject.key)).unwrap();
    EapTls {
        credential: Arc::new(Credential::new(own.issue(subject), key).unwrap()),
        trust: Arc::new(trust(other)),
    }
}

fn configure(a: EapTls, b: EapTls, alone: bool) -> [PolicySet; 2] {
    let fqdn = |name: &str| Identity::Fqdn(name.to_owned());
    let ours = |authenticator: &str, tls: EapTls, identity: &str| {
        LocalAuth::Eap(Arc::new(EapPeerConfig {
            identity: identity.to_owned(),
            methods: vec![EapMethod::Tls],
            password: None,
            tls: Some(tls),
            authenticator: fqdn(authenticator),
        }))
    };
    let theirs = |tls: EapTls| {
        RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
            methods: vec![EapMethod::Tls],
            tls: Some(tls),
            ask_identity: false,
            any_ike_identity: false,
        }))
    };
    let mut at_a = peer("b", "a.test", "b.test", Some(B));
    let mut at_b = peer("a", "b.test", "a.test", Some(A));
    at_a.local_auth = ours("b.test", a.clone(), "a.test");
    at_b.remote_auth = theirs(b.clone());
    if alone {
        at_a.remote_auth = theirs(a);
        at_b.local_auth = ours("a.test", b, "b.test");
    }
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    [
        policies(vec![at_a], vec![protect("to-b", "b", left, right, Start::OnDemand)]),
        policies(vec![at_b], vec![protect("to-a", "a", right, left, Start::Respond)]),
    ]
}

fn begin([a, b]: [PolicySet; 2], config: &EndpointConfig, faults: Faults, seed: u64) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, faults, seed);
    for node in [0, 1] {
        simulation.input(node, Input::WallClock(NOW));
    }
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation
}

fn connect(policies: [PolicySet; 2]) -> Simulation {
    let mut simulation = begin(policies, &EndpointConfig::default(), Faults::default(), 1);
    simulation.run(MINUTE);
    simulation
}

fn established(simulation: &Simulation) -> bool {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
}

/// What a node says of EAP's end.
fn fault(simulation: &Simulation, node: usize) -> EapFault {
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    let fault = |kind: &EventKind| {
        let EventKind::Failed(Error::Authentication(AuthenticationFault::Eap { fault, .. })) = kind
        else {
            return None;
        };
        Some(fault.clone())
    };
    let events = &simulation.nodes[node].events;
    let found = events.iter().find_map(|e| fault(&e.kind));
    found.unwrap_or_else(|| {
        let words: Vec<_> = events.iter().map(ToString::to_string).collect();
        panic!("node {node} says {words:#?}")
    })
}

#[test]
fn certificates_of_every_kind_authenticate_beside_another_proof_and_alone() {
    let root = Authority::new("Root");
    let authority = root.intermediate("Users").intermediate("Staff");
    for kind in CERTIFIABLE {
        for alone in [false, true] {
            let a = tls(&authority, &Subject::new("a.test", kind), &root);
            let b = tls(&authority, &Subject::new("b.test", KeyKind::P256), &root);
            let simulation = connect(configure(a, b, alone));
            assert!(established(&simulation), "{kind} {alone}");
            let status = simulation.nodes[1].endpoint.status(simulation.now);
            assert_eq!(status.ike_sas[0].user.as_deref(), Some("a.test"));
            let proof = status.ike_sas[0].remote_auth.as_ref().unwrap();
            assert_eq!(proof.method(), "eap-tls");
        }
    }
}

#[test]
fn a_certificate_that_is_not_believed_is_named_and_the_other_end_hears_an_alert() {
    let (root, other) = (Authority::new("Root"), Authority::new("Other"));
    let a = || Subject::new("a.test", KeyKind::P256);
    let b = || Subject::new("b.test", KeyKind::P256);
    let expired = Subject { days: (-10, -1), ..a() };
    for (at_a, at_b, finder, words) in [
        (tls(&other, &a(), &root), tls(&root, &b(), &root), 1, "no chain leads"),
        (tls(&root, &expired, &root), tls(&root, &b(), &root), 1, "expired"),
        (
            tls(&root, &Subject::new("c.test", KeyKind::P256), &root),
            tls(&root, &b(), &root),
            1,
            "does not hold the identity a.test",
        ),
        (tls(&root, &a(), &root), tls(&other, &b(), &root), 0, "no chain leads"),
        (
            tls(&root, &a(), &root),
            tls(&root, &Subject::new("c.test", KeyKind::P256), &root),
            0,
            "does not hold the identity b.test",
        ),
    ] {
        let simulation = connect(configure(at_a, at_b, true));
        let EapFault::Certificate(found) = fault(&simulation, finder) else {
            panic!("{:?}", fault(&simulation, finder))
        };
        assert!(found.contains(words), "{found}");
        let heard = fault(&simulation, 1 - finder);
        assert!(matches!(heard, EapFault::TlsAlert(_)), "{heard:?}");
    }
}

#[test]
fn without_the_time_of_day_no_certificate_is_believed() {
    let root = Authority::new("Root");
    let end = |name| tls(&root, &Subject::new(name, KeyKind::P256), &root);
    let [a, b] = configure(end("a.test"), end("b.test"), true);
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(fault(&simulation, 1), EapFault::NotConfigured("the time of day"));
}

#[test]
fn who_does_not_want_eap_alone_is_not_made_to() {
    let root = Authority::new("Root");
    let end = |name| tls(&root, &Subject::new(name, KeyKind::P256), &root);
    let [a, _] = configure(end("a.test"), end("b.test"), false);
    let [_, b] = configure(end("a.test"), end("b.test"), true);
    let simulation = connect([a, b]);
    assert!(!established(&simulation));
    let failed = |e: &EventKind| {
        matches!(e, EventKind::Failed(Error::Authentication(AuthenticationFault::EapNotAlone)))
    };
    assert!(simulation.nodes[1].events.iter().any(|e| failed(&e.kind)));
}

#[test]
fn a_chain_that_is_too_long_is_not_collected() {
    let root = Authority::new("Root");
    let deep = root.intermediate("1").intermediate("2").intermediate("3");
    let a = tls(&deep, &Subject::new("a.test", KeyKind::Rsa(2048)), &root);
    let b = tls(&root, &Subject::new("b.test", KeyKind::P256), &root);
    let config = EndpointConfig { eap_message_limit: 1000, ..EndpointConfig::default() };
    let policies = configure(a, b, true);
    let mut simulation = begin(policies, &config, Faults::default(), 1);
    simulation.run(MINUTE);
    assert_eq!(fault(&simulation, 1), EapFault::TooLong(1000));
    let counters = simulation.nodes[1].endpoint.counters();
    assert_eq!(counters.refusals(Cause::EapLimit), 1);
    assert_eq!(counters.refusals(Cause::Eap), 0);
}

#[test]
fn a_lossy_network_costs_time_only() {
    let root = Authority::new("Root");
    let authority = root.intermediate("Users");
    let bad = Faults { loss: 15, duplication: 20, reordering: 20, corruption: 5 };
    let mut up = 0;
    for seed in 0..30 {
        let a = tls(&authority, &Subject::new("a.test", KeyKind::P256), &root);
        let b = tls(&authority, &Subject::new("b.test", KeyKind::P256), &root);
        let policies = configure(a, b, seed % 2 == 0);
        let mut simulation = begin(policies, &EndpointConfig::default(), bad, seed);
        simulation.run(Duration::from_secs(200));
        simulation.network.set_faults(Faults::default());
        simulation.run(Duration::from_secs(200));
        assert_eq!(simulation.violations(), Vec::<String>::new(), "seed {seed}");
        up += usize::from(established(&simulation));
    }
    assert!(up > 20, "only {up} of 30 came up");
}
