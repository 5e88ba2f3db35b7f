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
use gateway_ike::crypto::x509::{
    Certificate, CertificateFault, Credential, Trust, certificates_from_pem,
};
use gateway_ike::error::{AuthenticationFault, EapFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::reason::{Cause, FieldName};
use gateway_ike::testing::{Faults, Forge, Simulation, peer, policies, protect};
use gateway_wire::{NotifyType, Payload};

use self::certificates::{Authority, CERTIFIABLE, NOW, Subject, key, lists, trust};

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

/// Trust in an authority that has revoked these.
fn revoked(authority: &Authority, serials: &[u64]) -> Trust {
    Trust { lists: lists(&[authority.revoke(serials, 10)]), ..trust(authority) }
}

/// The same end, which believes something else.
fn believing(end: EapTls, trust: Trust) -> EapTls {
    EapTls { trust: Arc::new(trust), ..end }
}

fn configure(a: EapTls, b: EapTls, alone: bool) -> [PolicySet; 2] {
    between(["a.test", "b.test"], a, b, alone)
}

/// Policies of ends with these names.
fn between([name_a, name_b]: [&str; 2], a: EapTls, b: EapTls, alone: bool) -> [PolicySet; 2] {
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
    let mut at_a = peer("b", name_a, name_b, Some(B));
    let mut at_b = peer("a", name_b, name_a, Some(A));
    at_a.local_auth = ours(name_b, a.clone(), name_a);
    at_b.remote_auth = theirs(b.clone());
    if alone {
        at_a.remote_auth = theirs(a);
        at_b.local_auth = ours(name_a, b, name_b);
    }
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    [
        policies(vec![at_a], vec![protect("to-b", "b", left, right, Start::OnDemand)]),
        policies(vec![at_b], vec![protect("to-a", "a", right, left, Start::Respond)]),
    ]
}

fn begin(
    policies: [PolicySet; 2],
    config: &EndpointConfig,
    faults: Faults,
    seed: u64,
) -> Simulation {
    begin_at(NOW, policies, config, faults, seed)
}

fn begin_at(
    now: Duration,
    [a, b]: [PolicySet; 2],
    config: &EndpointConfig,
    faults: Faults,
    seed: u64,
) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, faults, seed);
    for node in [0, 1] {
        simulation.input(node, Input::WallClock(now));
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
            assert!(simulation.has_one_child_each().unwrap(), "{kind} {alone}");
            let status = simulation.nodes[1].endpoint.status(simulation.now);
            assert_eq!(status.ike_sas[0].user.as_deref(), Some("a.test"));
            let proof = status.ike_sas[0].remote_auth.as_ref().unwrap();
            assert_eq!(proof.method(), "eap-tls");
            let shown = proof.certificate.as_ref().unwrap();
            assert!(shown.subject.to_string().contains("a.test"), "{shown:?}");
        }
    }
}

/// ring does not verify what such keys sign, and so rustls with ring alone does not.
#[test]
fn a_certificate_of_a_p521_key_authenticates_either_end() {
    let [ca, leaf] =
        [include_bytes!("keys/p521-ca.pem").as_slice(), include_bytes!("keys/p521.sha512.pem")]
            .map(|pem| certificates_from_pem(pem).unwrap());
    let now = Duration::from_secs(Certificate::from_der(&leaf[0]).unwrap().not_before().0 + 1);
    let root = Authority::new("Root");
    let p521 = EapTls {
        credential: Arc::new(
            Credential::new(leaf, SigningKey::from_pem(key(KeyKind::P521)).unwrap()).unwrap(),
        ),
        trust: Arc::new(trust(&root)),
    };
    let other = |name| {
        let subject = Subject { days: (-10, 1000), ..Subject::new(name, KeyKind::P256) };
        believing(tls(&root, &subject, &root), certificates::trust_in(&ca))
    };
    for (names, a, b) in [
        (["p521.test", "b.test"], p521.clone(), other("b.test")),
        (["a.test", "p521.test"], other("a.test"), p521),
    ] {
        let policies = between(names, a, b, true);
        let mut simulation =
            begin_at(now, policies, &EndpointConfig::default(), Faults::default(), 1);
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap(), "{names:?}");
    }
}

#[test]
fn a_certificate_that_is_not_believed_is_named_and_the_other_end_hears_an_alert() {
    let (root, other) = (Authority::new("Root"), Authority::new("Other"));
    let a = || Subject::new("a.test", KeyKind::P256);
    let b = || Subject::new("b.test", KeyKind::P256);
    let expired = Subject { days: (-10, -1), ..a() };
    let revoking = believing(tls(&root, &a(), &root), revoked(&root, &[b().serial]));
    let identity = Cause::IdentityNotInCertificate;
    for (at_a, at_b, finder, words, cause) in [
        (tls(&other, &a(), &root), tls(&root, &b(), &root), 1, "no chain leads", Cause::Chain),
        (tls(&root, &expired, &root), tls(&root, &b(), &root), 1, "expired", Cause::Validity),
        (revoking, tls(&root, &b(), &root), 0, "revoked", Cause::Revocation),
        (
            tls(&root, &Subject::new("c.test", KeyKind::P256), &root),
            tls(&root, &b(), &root),
            1,
            "does not hold the identity a.test",
            identity,
        ),
        (tls(&root, &a(), &root), tls(&other, &b(), &root), 0, "no chain leads", Cause::Chain),
        (
            tls(&root, &a(), &root),
            tls(&root, &Subject::new("c.test", KeyKind::P256), &root),
            0,
            "does not hold the identity b.test",
            identity,
        ),
    ] {
        let simulation = connect(configure(at_a, at_b, true));
        let EapFault::Certificate(found) = fault(&simulation, finder) else {
            panic!("{:?}", fault(&simulation, finder))
        };
        assert!(found.to_string().contains(words), "{found}");
        // Ours beside theirs, as without EAP; and who it is.
        let node = &simulation.nodes[finder];
        assert_eq!(node.endpoint.counters().refusals(cause), 1, "{words}");
        assert_eq!(node.endpoint.counters().refusals(Cause::Eap), 0, "{words}");
        let refusal = node.events.iter().find_map(|e| e.refusal.as_deref()).unwrap();
        let fields = &refusal.nearest_candidate().unwrap().fields;
        let unfit = fields.iter().filter(|f| f.fits == Some(false)).count();
        assert!(unfit == 1 && fields.iter().any(|f| f.name == FieldName::User), "{fields:?}");
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

/// Either end wants EAP alone, or does not.
fn connect_wanting(alone: [bool; 2]) -> Simulation {
    let root = Authority::new("Root");
    let end = |name| tls(&root, &Subject::new(name, KeyKind::P256), &root);
    let [a, b] = alone.map(|alone| configure(end("a.test"), end("b.test"), alone));
    let ([a, _], [_, b]) = (a, b);
    connect([a, b])
}

#[test]
fn who_does_not_want_eap_alone_is_not_made_to() {
    let simulation = connect_wanting([false, true]);
    assert!(!simulation.has_one_child_each().unwrap());
    let failed = |e: &EventKind| {
        matches!(e, EventKind::Failed(Error::Authentication(AuthenticationFault::EapNotAlone)))
    };
    assert!(simulation.nodes[1].events.iter().any(|e| failed(&e.kind)));
}

/// The mirrored case: AUTH is no substitute for the EAP that is demanded.
#[test]
fn who_wants_eap_alone_takes_no_auth_in_its_place() {
    let simulation = connect_wanting([true, false]);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    let failed = |e: &EventKind| {
        matches!(e, EventKind::Failed(Error::Authentication(AuthenticationFault::EapDemanded)))
    };
    assert!(simulation.nodes[0].events.iter().any(|e| failed(&e.kind)));
    assert_eq!(simulation.nodes[0].endpoint.counters().refusals(Cause::Method), 1);
    assert_eq!(simulation.nodes[0].sent.len(), 2, "no answer to the first question");
}

/// RFC 5998 3: who takes EAP alone says so in the first request of IKE_AUTH; AUTH then comes from
/// both ends at the end only, and else from the responder in its first answer too.
#[test]
fn auth_is_left_out_of_the_first_answer_where_the_request_allows_that() {
    let root = Authority::new("Root");
    let end = |name| tls(&root, &Subject::new(name, KeyKind::P256), &root);
    for alone in [true, false] {
        let simulation = connect(configure(end("a.test"), end("b.test"), alone));
        assert!(simulation.has_one_child_each().unwrap());
        let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
        let said = |node: usize, at: usize| {
            let (_, datagram) = &simulation.nodes[node].sent[at];
            let opened = forge.open(datagram).unwrap();
            let payloads = opened.payloads().unwrap();
            let only = |p: &Payload<'_>| {
                let kind = NotifyType::EAP_ONLY_AUTHENTICATION;
                matches!(p, Payload::Notify(n) if n.kind == kind && n.data.is_empty())
            };
            let proves = |p: &Payload<'_>| matches!(p, Payload::Authentication(_));
            (payloads.iter().any(only), payloads.iter().any(proves))
        };
        assert_eq!(said(0, 1), (alone, false));
        assert_eq!(said(1, 1), (false, !alone));
        for node in 0..2 {
            let last = simulation.nodes[node].sent.len() - 1;
            assert_eq!(said(node, last), (false, true));
        }
    }
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
        up += usize::from(simulation.has_one_child_each().unwrap());
    }
    assert!(up > 20, "only {up} of 30 came up");
}

#[test]
fn a_reload_ends_only_what_is_not_believed_any_more() {
    let root = Authority::new("Root");
    let end = |name, serial, lists: Option<&[u64]>| {
        let subject = Subject { serial, ..Subject::new(name, KeyKind::P256) };
        let end = tls(&root, &subject, &root);
        match lists {
            Some(serials) => believing(end, revoked(&root, serials)),
            None => end,
        }
    };
    for alone in [false, true] {
        for (finder, serial) in [(1, 7), (0, 8)] {
            let with = |a: Option<&[u64]>, b: Option<&[u64]>| {
                configure(end("a.test", 7, a), end("b.test", 8, b), alone)
            };
            let mut simulation = connect(with(None, None));
            assert!(simulation.has_one_child_each().unwrap());
            let installed: Vec<_> = simulation.nodes[0].kernel.children.keys().copied().collect();
            // Lists that revoke others, and another certificate of one's own.
            let [_, b] = with(None, Some(&[9]));
            simulation.configure(1, b);
            let [a, _] = configure(end("a.test", 10, Some(&[9])), end("b.test", 8, None), alone);
            simulation.configure(0, a);
            simulation.run(MINUTE);
            assert!(simulation.has_one_child_each().unwrap(), "{alone} {finder}");
            let children = &simulation.nodes[0].kernel.children;
            assert!(children.keys().eq(&installed), "{alone} {finder}");
            let [a, b] = with(Some(&[serial]), Some(&[serial]));
            simulation.configure(finder, if finder == 0 { a } else { b });
            simulation.run(MINUTE);
            assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
            let counters = simulation.nodes[finder].endpoint.counters();
            assert_eq!(counters.refusals(Cause::Revocation), 1, "{alone} {finder}");
        }
    }
}

#[test]
fn more_or_larger_certificates_than_allowed_are_counted_as_without_eap() {
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let small = EndpointConfig { certificate_size_limit: 100, ..EndpointConfig::default() };
    let few = EndpointConfig { certificate_chain_limit: 1, ..EndpointConfig::default() };
    for (config, many) in [(few, true), (small, false)] {
        let a = tls(&middle, &Subject::new("a.test", KeyKind::P256), &root);
        let b = tls(&root, &Subject::new("b.test", KeyKind::P256), &root);
        // Both ends have these limits: one certificate of B is not too many, but too large at A already.
        let mut simulation = begin(configure(a, b, false), &config, Faults::default(), 1);
        simulation.run(MINUTE);
        let finder = usize::from(many);
        let EapFault::Certificate(found) = fault(&simulation, finder) else {
            panic!("{:?}", fault(&simulation, finder))
        };
        if many {
            assert_eq!(*found, CertificateFault::TooMany { found: 2, limit: 1 });
        } else {
            assert!(matches!(*found, CertificateFault::TooLarge { limit: 100, .. }), "{found}");
        }
        let counters = simulation.nodes[finder].endpoint.counters();
        assert_eq!((counters.refusals(Cause::Limit), counters.refusals(Cause::Eap)), (1, 0));
    }
}

#[test]
fn an_ike_sa_ends_with_the_certificate_of_either_end_of_eap() {
    let root = Authority::new("Root");
    let day = Duration::from_secs(86_400);
    for alone in [false, true] {
        for finder in [0, 1] {
            let end = |name, is_short| {
                let days = if is_short { (-10, 1) } else { (-10, 20) };
                tls(&root, &Subject { days, ..Subject::new(name, KeyKind::P256) }, &root)
            };
            let policies = configure(end("a.test", finder == 1), end("b.test", finder == 0), alone);
            let mut simulation = connect(policies);
            simulation.run(day - 2 * MINUTE);
            assert!(simulation.has_one_child_each().unwrap(), "{alone} {finder}");
            simulation.run(2 * MINUTE);
            assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
            let counters = simulation.nodes[finder].endpoint.counters();
            assert_eq!(counters.refusals(Cause::Validity), 1, "{alone} {finder}");
        }
    }
}
