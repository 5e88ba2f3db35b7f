//! How two ends prove who they are: every method both ways, and every fault by its name.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "This is test code."
)]

#[expect(dead_code, reason = "It issues certificates for other tests too.")]
#[path = "../certificates/mod.rs"]
mod certificates;

mod asked_for;
mod certificates_refused;
mod expiry;
mod renewed;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::algorithms::SignatureScheme;
use gateway_ike::config::{
    EndpointConfig, Identity, LocalAuth, PeerConfig, PolicySet, Ppk, RemoteAuth, Secret, Start,
};
use gateway_ike::counters::Counter;
use gateway_ike::crypto::signature::{KeyKind, SigningKey};
use gateway_ike::crypto::x509::{
    Certificate, CertificateFault, Credential, Revocation, Trust, certificates_from_pem,
};
use gateway_ike::error::{AuthenticationFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::reason::{Cause, FieldName};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};

use self::certificates::{Authority, CERTIFIABLE, KEYS, NOW, Subject, key, names, trust};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);

/// One end: what it shows and what it wants to see.
struct End {
    id: Identity,
    local: LocalAuth,
    remote: RemoteAuth,
}

fn psk() -> (LocalAuth, RemoteAuth) {
    let key = || Secret::new(b"a key that both share".to_vec());
    (LocalAuth::Psk(key()), RemoteAuth::Psk(key()))
}

/// A raw public key of a kind: for its owner, and for the other end.
fn raw(kind: KeyKind) -> (LocalAuth, RemoteAuth) {
    let key = SigningKey::from_pem(key(kind)).unwrap();
    let public = key.public().clone();
    (LocalAuth::PublicKey(Arc::new(key)), RemoteAuth::PublicKey(Arc::new(public)))
}

/// A certificate of the authority: for its owner, and for the other end.
fn certified(authority: &Authority, subject: &Subject) -> (LocalAuth, RemoteAuth) {
    let key = SigningKey::from_pem(key(subject.key)).unwrap();
    let credential = Credential::new(authority.issue(subject), key).unwrap();
    (
        LocalAuth::Certificate(Arc::new(credential)),
        RemoteAuth::Certificate(Arc::new(trust(authority))),
    )
}

fn ends(a: (LocalAuth, RemoteAuth), b: (LocalAuth, RemoteAuth)) -> [End; 2] {
    let fqdn = |name: &str| Identity::Fqdn(name.to_owned());
    [
        End { id: fqdn("a.test"), local: a.0, remote: b.1 },
        End { id: fqdn("b.test"), local: b.0, remote: a.1 },
    ]
}

fn configure(change: impl Fn(&mut PeerConfig, usize), [a, b]: [End; 2]) -> [PolicySet; 2] {
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let of = |n, name: &str, ours: &End, theirs: &End, address| {
        let mut peer = peer(name, "", "", Some(address));
        (peer.local_id, peer.remote_id) = (ours.id.clone(), theirs.id.clone());
        (peer.local_auth, peer.remote_auth) = (ours.local.clone(), ours.remote.clone());
        change(&mut peer, n);
        peer
    };
    let at_a = of(0, "b", &a, &b, B);
    let at_b = of(1, "a", &b, &a, A);
    [
        policies(vec![at_a], vec![protect("to-b", "b", left, right, Start::OnDemand)]),
        policies(vec![at_b], vec![protect("to-a", "a", right, left, Start::Respond)]),
    ]
}

fn run(policies: [PolicySet; 2]) -> Simulation {
    run_at(NOW, policies)
}

fn run_at(now: Duration, [a, b]: [PolicySet; 2]) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    for node in [0, 1] {
        simulation.input(node, Input::WallClock(now));
    }
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

fn connect(ends: [End; 2]) -> Simulation {
    run(configure(|_, _| {}, ends))
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// The fault that a node found, after which neither end holds anything.
fn fault(simulation: &mut Simulation, node: usize) -> AuthenticationFault {
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    let found = simulation.nodes[node].events.iter().find_map(|e| match &e.kind {
        EventKind::Failed(Error::Authentication(fault)) => Some((fault.clone(), e)),
        _ => None,
    });
    if let Some((fault, event)) = &found {
        let refusal = event.refusal.as_ref().unwrap();
        assert_eq!(refusal.cause, cause_of(fault), "{fault}");
        let counters = simulation.nodes[node].endpoint.counters();
        assert_eq!(counters.refusals(refusal.cause), 1);
        let claimed = |f: &&gateway_ike::reason::Field| f.name == FieldName::RemoteIdentity;
        let nearest = refusal.nearest_candidate().unwrap();
        let identity = nearest.fields.iter().find(claimed).map(|f| f.fits);
        // Who cannot prove who it is itself may not have heard from the other end yet.
        if !matches!(fault, AuthenticationFault::NoScheme { .. }) {
            assert_eq!(identity, Some(Some(true)), "the claim itself is right: {refusal:?}");
        }
    }
    let fault = found.map(|(fault, _)| fault);
    let other: Vec<_> = simulation.nodes[1 - node].events.iter().map(ToString::to_string).collect();
    let fault = fault.unwrap_or_else(|| panic!("no fault; the other end: {other:#?}"));
    assert_eq!(counter(simulation, node, Counter::AuthenticationFailed), 1);
    simulation.run(10 * MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()), "nothing is left");
    fault
}

/// The cause that is recorded and counted for a fault.
fn cause_of(fault: &AuthenticationFault) -> Cause {
    use CertificateFault as F;
    match fault {
        AuthenticationFault::Certificate(fault) => match fault {
            F::TooMany { .. } | F::TooLarge { .. } => Cause::Limit,
            F::NoTime | F::Expired { .. } | F::NotYetValid { .. } => Cause::Validity,
            F::Absent | F::ByUrl => Cause::Absent,
            F::NoChain { .. } => Cause::Chain,
            F::Revoked(_)
            | F::RevocationUnknown(_)
            | F::StatusUnknown { .. }
            | F::RevocationListExpired { .. } => Cause::Revocation,
            F::Usage { .. } => Cause::Usage,
            F::NameConstraints(_) => Cause::NameConstraints,
            F::Identity { .. } => Cause::IdentityNotInCertificate,
            F::Algorithm { .. } | F::WrongSignature(_) => Cause::CertifiedBy,
            F::Other { .. } => Cause::OtherCertificate,
            other => panic!("{other}"),
        },
        AuthenticationFault::OtherPublicKey => Cause::PublicKey,
        AuthenticationFault::WrongSignature(_) => Cause::Signature,
        AuthenticationFault::NoScheme { .. } | AuthenticationFault::SchemeNotAllowed(_) => {
            Cause::Scheme
        }
        AuthenticationFault::Method { .. } => Cause::Method,
        other => panic!("{other}"),
    }
}

fn certificate_fault(simulation: &mut Simulation, node: usize) -> CertificateFault {
    match fault(simulation, node) {
        AuthenticationFault::Certificate(fault) => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn every_kind_of_key_authenticates_with_a_certificate_in_both_roles() {
    let authority = Authority::new("Root");
    for kind in CERTIFIABLE {
        let a = certified(&authority, &Subject::new("a.test", kind));
        let b = certified(&authority, &Subject::new("b.test", kind));
        let simulation = connect(ends(a, b));
        assert!(simulation.has_one_child_each().unwrap(), "{kind}");
        for node in &simulation.nodes {
            let status = node.endpoint.status(simulation.now);
            let sa = &status.ike_sas[0];
            assert_eq!(sa.local_auth, Some("certificate"));
            let proof = sa.remote_auth.as_ref().unwrap();
            let certificate = proof.certificate.as_ref().unwrap();
            assert!(certificate.subject.to_string().ends_with(".test"), "{certificate:?}");
            assert!(proof.scheme.is_some());
        }
    }
}

/// The library that issues certificates here knows nothing of P-521; OpenSSL has issued these.
#[test]
fn a_certificate_of_a_p521_key_authenticates_in_both_roles_with_sha512() {
    let [ca, leaf] = [
        include_bytes!("../keys/p521-ca.pem").as_slice(),
        include_bytes!("../keys/p521.sha512.pem"),
    ]
    .map(|pem| certificates_from_pem(pem).unwrap());
    let now = Duration::from_secs(Certificate::from_der(&leaf[0]).unwrap().not_before().0 + 1);
    let pem = SigningKey::from_pem(key(KeyKind::P521)).unwrap();
    let credential = Arc::new(Credential::new(leaf, pem).unwrap());
    let p521 = || {
        let local = LocalAuth::Certificate(Arc::clone(&credential));
        (local, RemoteAuth::Certificate(Arc::new(certificates::trust_in(&ca))))
    };
    for at in [0, 1] {
        let mut both = ends(psk(), psk());
        (both[at].local, both[1 - at].remote) = p521();
        both[at].id = Identity::Fqdn("p521.test".to_owned());
        let simulation = run_at(now, configure(|_, _| {}, both));
        assert!(simulation.has_one_child_each().unwrap(), "{at}");
        let status = simulation.nodes[1 - at].endpoint.status(simulation.now);
        let proof = status.ike_sas[0].remote_auth.as_ref().unwrap();
        assert_eq!(proof.scheme, Some(SignatureScheme::EcdsaSha512));
        let shown = proof.certificate.as_ref().unwrap();
        assert_eq!(shown.subject.to_string(), "O=Test, CN=p521.test");
    }
}

#[test]
fn every_kind_of_key_authenticates_as_a_raw_public_key() {
    for kind in KEYS {
        let simulation = connect(ends(raw(kind), raw(kind)));
        assert!(simulation.has_one_child_each().unwrap(), "{kind}");
    }
}

#[test]
fn each_end_may_have_a_method_of_its_own() {
    let authority = Authority::new("Root");
    let methods = || {
        [
            psk(),
            raw(KeyKind::Ed25519),
            certified(&authority, &Subject::new("a.test", KeyKind::P256)),
        ]
    };
    for n in 0..3 {
        for m in 0..3 {
            let (a, mut b) = (methods().into_iter().nth(n).unwrap(), methods());
            b[2] = certified(&authority, &Subject::new("b.test", KeyKind::Rsa(2048)));
            let simulation = connect(ends(a, b.into_iter().nth(m).unwrap()));
            assert!(simulation.has_one_child_each().unwrap(), "{n} {m}");
        }
    }
}

#[test]
fn with_pre_shared_keys_alone_nothing_is_said_of_signatures() {
    let simulation = connect(ends(psk(), psk()));
    assert!(simulation.has_one_child_each().unwrap());
    for (_, octets) in simulation.nodes.iter().flat_map(|n| &n.sent[..1]) {
        let message = gateway_wire::Message::decode(octets).unwrap();
        let kinds = message.payloads.iter().map(|p| match p {
            gateway_wire::Payload::Notify(n) => n.kind.to_string(),
            other => other.payload_type().to_string(),
        });
        let kinds: Vec<_> = kinds.collect();
        assert!(!kinds.iter().any(|k| k.contains("HASH") || k == "CERTREQ"), "{kinds:?}");
    }
}

#[test]
fn each_scheme_is_used_when_only_it_is_allowed() {
    for scheme in SignatureScheme::ALL {
        let kind = match scheme {
            SignatureScheme::EcdsaSha256 => KeyKind::P256,
            SignatureScheme::EcdsaSha384 => KeyKind::P384,
            SignatureScheme::EcdsaSha512 => KeyKind::P521,
            SignatureScheme::Ed25519 => KeyKind::Ed25519,
            _ => KeyKind::Rsa(2048),
        };
        let only = |p: &mut PeerConfig, _| p.signature_schemes = vec![*scheme];
        let simulation = run(configure(only, ends(raw(kind), raw(kind))));
        assert!(simulation.has_one_child_each().unwrap(), "{scheme}");
        let status = simulation.nodes[1].endpoint.status(simulation.now);
        assert_eq!(status.ike_sas[0].remote_auth.as_ref().unwrap().scheme, Some(*scheme));
    }
}

#[test]
fn a_chain_with_intermediate_authorities_is_followed() {
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let a = certified(&middle, &Subject::new("a.test", KeyKind::P256));
    let b = certified(&middle, &Subject::new("b.test", KeyKind::Ed25519));
    // Both trust the root alone.
    let trusting = |auth: LocalAuth| (auth, RemoteAuth::Certificate(Arc::new(trust(&root))));
    assert!(connect(ends(trusting(a.0), trusting(b.0))).has_one_child_each().unwrap());
}

#[test]
fn every_identity_that_a_certificate_holds_can_be_claimed() {
    let authority = Authority::new("Root");
    for id in [
        Identity::Fqdn("A.test".to_owned()),
        Identity::Email("ops@a.test".to_owned()),
        Identity::Address(A),
        Identity::Address("2001:db8::1".parse().unwrap()),
        Identity::Dn("O=Test, CN=a.test".parse().unwrap()),
    ] {
        let a = certified(&authority, &Subject::new("a.test", KeyKind::P256));
        let [mut a, b] = ends(a, psk());
        a.id = id;
        assert!(connect([a, b]).has_one_child_each().unwrap());
    }
}

#[test]
fn a_pinned_self_signed_certificate_needs_no_authority() {
    let key_of_a = SigningKey::from_pem(key(KeyKind::P256)).unwrap();
    let der = certificates::self_signed(&Subject::new("a.test", KeyKind::P256));
    let trust = certificates::trust_in(core::slice::from_ref(&der));
    let a = (
        LocalAuth::Certificate(Arc::new(Credential::new(vec![der], key_of_a).unwrap())),
        RemoteAuth::Certificate(Arc::new(trust)),
    );
    assert!(connect(ends(a, psk())).has_one_child_each().unwrap());
}

#[test]
fn another_key_than_the_one_that_is_known_is_refused() {
    let a = (raw(KeyKind::P256).0, raw(KeyKind::Ed25519).1);
    let found = fault(&mut connect(ends(a, psk())), 1);
    assert_eq!(found, AuthenticationFault::OtherPublicKey);
}

#[test]
fn a_method_that_is_not_configured_is_refused_and_named() {
    let a = (psk().0, raw(KeyKind::Ed25519).1);
    let found = fault(&mut connect(ends(a, psk())), 1);
    assert!(found.to_string().contains("SHARED_KEY"), "{found}");
    let a = (raw(KeyKind::Ed25519).0, psk().1);
    // A signs for a peer that has not said that it verifies signatures: Ed25519 cannot.
    let found = fault(&mut connect(ends(a, psk())), 0);
    assert!(matches!(found, AuthenticationFault::NoScheme { .. }), "{found}");
}

#[test]
fn a_scheme_that_one_end_does_not_allow_is_not_used() {
    let only = |p: &mut PeerConfig, n| {
        if n == 1 {
            p.signature_schemes = vec![SignatureScheme::RsaPkcs1Sha256];
        }
    };
    // B lists SHA2-256, and A prefers PSS with it.
    let ends_with = || ends(raw(KeyKind::Rsa(2048)), psk());
    let found = fault(&mut run(configure(only, ends_with())), 1);
    assert_eq!(found, AuthenticationFault::SchemeNotAllowed(SignatureScheme::RsaPssSha256));
    let other = |p: &mut PeerConfig, n| {
        if n == 1 {
            p.signature_schemes = vec![SignatureScheme::Ed25519];
        }
    };
    let found = fault(&mut run(configure(other, ends_with())), 0);
    let AuthenticationFault::NoScheme { theirs, .. } = found else { panic!("{found}") };
    assert_eq!(theirs, "IDENTITY");
}

/// RFC 7296 3.6.
#[test]
fn four_certificates_are_sent_and_accepted() {
    let root = Authority::new("Root");
    let lowest = root.intermediate("One").intermediate("Two").intermediate("Three");
    let trusting = |subject: &Subject| {
        let (local, _) = certified(&lowest, subject);
        let LocalAuth::Certificate(credential) = &local else { panic!("a certificate") };
        assert_eq!(credential.chain().count(), 4);
        (local, RemoteAuth::Certificate(Arc::new(trust(&root))))
    };
    let a = trusting(&Subject::new("a.test", KeyKind::P256));
    let b = trusting(&Subject::new("b.test", KeyKind::P384));
    assert!(connect(ends(a, b)).has_one_child_each().unwrap());
}

/// RFC 7296 1.2, 2.15.
#[test]
fn the_responder_may_have_a_certificate_and_the_initiator_a_shared_key() {
    let authority = Authority::new("Root");
    let b = certified(&authority, &Subject::new("b.test", KeyKind::Rsa(2048)));
    let simulation = connect(ends(psk(), b));
    assert!(simulation.has_one_child_each().unwrap());
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].local_auth, Some("psk"));
    assert!(status.ike_sas[0].remote_auth.as_ref().unwrap().certificate.is_some());
}

#[test]
fn certificates_survive_a_bad_network() {
    let authority = Authority::new("Root");
    for seed in 0..20 {
        let a = certified(&authority, &Subject::new("a.test", KeyKind::Ed25519));
        let b = certified(&authority, &Subject::new("b.test", KeyKind::Ed25519));
        let [a, b] = configure(|_, _| {}, ends(a, b));
        let faults = Faults { loss: 20, duplication: 10, reordering: 20, corruption: 2 };
        let mut simulation = Simulation::new(&[A, B], faults, seed);
        for node in [0, 1] {
            simulation.input(node, Input::WallClock(NOW));
        }
        simulation.configure(1, b);
        simulation.configure(0, a);
        simulation.acquire(0, "to-b");
        simulation.run(10 * MINUTE);
        assert!(simulation.has_one_child_each().unwrap(), "seed {seed}");
    }
}

/// RFC 8784 with signatures: under the PPK, and without it where one end has another.
#[test]
fn a_signature_covers_the_ppk() {
    for (ids, mixed) in [([b"one", b"one"], true), ([b"one", b"two"], false)] {
        let with_ppk = |p: &mut PeerConfig, n: usize| {
            let key = Secret::new(vec![7; 32]);
            p.ppk = Some(Ppk { id: ids[n].to_vec(), key, required: mixed });
        };
        let ends = ends(raw(KeyKind::Ed25519), raw(KeyKind::P256));
        assert!(run(configure(with_ppk, ends)).has_one_child_each().unwrap(), "{mixed}");
    }
}
