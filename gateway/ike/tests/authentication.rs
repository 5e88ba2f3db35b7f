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
mod certificates;

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
use gateway_ike::crypto::x509::{CertificateFault, Credential, Revocation};
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

fn run([a, b]: [PolicySet; 2]) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    for node in [0, 1] {
        simulation.input(node, Input::WallClock(NOW));
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

fn established(simulation: &Simulation) -> bool {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
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
            F::NoChain { .. } => Cause::Chain,
            F::Revoked(_)
            | F::RevocationUnknown(_)
            | F::StatusUnknown { .. }
            | F::RevocationListExpired { .. } => Cause::Revocation,
            F::Usage { .. } => Cause::Usage,
            F::NameConstraints(_) => Cause::NameConstraints,
            F::Identity { .. } => Cause::IdentityNotInCertificate,
            F::Algorithm { .. } | F::WrongSignature(_) => Cause::CertifiedBy,
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
        assert!(established(&simulation), "{kind}");
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

#[test]
fn every_kind_of_key_authenticates_as_a_raw_public_key() {
    for kind in KEYS {
        let simulation = connect(ends(raw(kind), raw(kind)));
        assert!(established(&simulation), "{kind}");
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
            assert!(established(&simulation), "{n} {m}");
        }
    }
}

#[test]
fn with_pre_shared_keys_alone_nothing_is_said_of_signatures() {
    let simulation = connect(ends(psk(), psk()));
    assert!(established(&simulation));
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
        assert!(established(&simulation), "{scheme}");
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
    assert!(established(&connect(ends(trusting(a.0), trusting(b.0)))));
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
        assert!(established(&connect([a, b])));
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
    assert!(established(&connect(ends(a, psk()))));
}

/// A shows a certificate that B will not have.
fn refused(subject: &Subject) -> CertificateFault {
    let authority = Authority::new("Root");
    let a = certified(&authority, subject);
    let as_initiator = certificate_fault(&mut connect(ends(a, psk())), 1);
    // The same, shown by the responder: its identity is then b.test.
    if subject.name == "a.test" {
        let subject = Subject { name: "b.test", ..subject.clone() };
        let b = certified(&authority, &subject);
        let as_responder = certificate_fault(&mut connect(ends(psk(), b)), 0);
        assert_eq!(core::mem::discriminant(&as_initiator), core::mem::discriminant(&as_responder));
    }
    as_initiator
}

#[test]
fn an_expired_certificate_is_named_with_its_date() {
    let expired = Subject { days: (-20, -10), ..Subject::new("a.test", KeyKind::P256) };
    let CertificateFault::Expired { subject, since } = refused(&expired) else { panic!() };
    assert_eq!(subject, "O=Test, CN=a.test");
    assert_eq!(since.0, NOW.as_secs() - 10 * 86_400);
    let early = Subject { days: (10, 20), ..Subject::new("a.test", KeyKind::P256) };
    assert!(matches!(refused(&early), CertificateFault::NotYetValid { .. }));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
    let a = certified(&other, &Subject::new("a.test", KeyKind::P256));
    let a = (a.0, RemoteAuth::Certificate(Arc::new(trust(&ours))));
    let found = certificate_fault(&mut connect(ends(a, psk())), 1);
    let CertificateFault::NoChain { issuer, anchors, .. } = found else { panic!("{found}") };
    assert_eq!((issuer.to_string().as_str(), anchors.as_str()), ("CN=Other", "CN=Ours"));
    // The same name does not make it the same authority.
    let impostor = Authority::new("Ours");
    let a = certified(&impostor, &Subject::new("a.test", KeyKind::P256));
    let a = (a.0, RemoteAuth::Certificate(Arc::new(trust(&ours))));
    let found = certificate_fault(&mut connect(ends(a, psk())), 1);
    assert!(matches!(found, CertificateFault::WrongSignature(_)), "{found}");
}

#[test]
fn an_identity_that_is_not_in_the_certificate_is_refused_and_what_is_in_it_is_listed() {
    let found = refused(&Subject::new("c.test", KeyKind::P256));
    let CertificateFault::Identity { identity, found, .. } = found else { panic!("{found}") };
    assert_eq!(identity, "a.test");
    assert!(found.contains("c.test") && found.contains("ops@c.test"), "{found}");
    // Neither a wildcard nor the common name alone counts.
    let wildcard =
        Subject { alternative: names(&["*.test"]), ..Subject::new("a.test", KeyKind::P256) };
    assert!(matches!(refused(&wildcard), CertificateFault::Identity { .. }));
    let common = Subject { alternative: Vec::new(), ..Subject::new("a.test", KeyKind::P256) };
    assert!(matches!(refused(&common), CertificateFault::Identity { .. }));
}

#[test]
fn a_certificate_for_other_purposes_is_refused() {
    for (purpose, good) in [
        (&[1, 3, 6, 1, 5, 5, 7, 3, 3][..], false),
        (&[1, 3, 6, 1, 5, 5, 7, 3, 17], true),
        (&[1, 3, 6, 1, 5, 5, 8, 2, 2], true),
        (&[1, 3, 6, 1, 5, 5, 7, 3, 1], true),
        (&[2, 5, 29, 37, 0], true),
    ] {
        let subject =
            Subject { purpose: Some(purpose.to_vec()), ..Subject::new("a.test", KeyKind::P256) };
        if good {
            let a = certified(&Authority::new("Root"), &subject);
            assert!(established(&connect(ends(a, psk()))), "{purpose:?}");
        } else {
            let CertificateFault::Usage { reason, .. } = refused(&subject) else { panic!() };
            assert!(reason.contains("1.3.6.1.5.5.7.3.3"), "{reason}");
        }
    }
    let key = SigningKey::from_pem(key(KeyKind::P256)).unwrap();
    let encrypting = Subject { encrypts: true, ..Subject::new("a.test", KeyKind::P256) };
    let chain = Authority::new("Root").issue(&encrypting);
    assert!(Credential::new(chain, key).unwrap_err().to_string().contains("key usage"));
}

#[test]
fn name_constraints_of_an_authority_hold() {
    let root = Authority::new("Root");
    let middle = root.constrained("Middle", "other.test");
    let a = certified(&middle, &Subject::new("a.test", KeyKind::P256));
    let a = (a.0, RemoteAuth::Certificate(Arc::new(trust(&root))));
    let found = certificate_fault(&mut connect(ends(a, psk())), 1);
    assert!(matches!(found, CertificateFault::NameConstraints(_)), "{found}");
}

#[test]
fn revocation_lists_are_consulted_as_the_policy_says() {
    let authority = Authority::new("Root");
    let subject = Subject::new("a.test", KeyKind::P256);
    let try_with = |revocation, lists: Vec<Vec<u8>>| {
        let (local, _) = certified(&authority, &subject);
        let mut trust = trust(&authority);
        trust.revocation = revocation;
        trust.lists = certificates::lists(&lists);
        connect(ends((local, RemoteAuth::Certificate(Arc::new(trust))), psk()))
    };
    let (good, bad, old) = (
        authority.revoke(&[], 10),
        authority.revoke(&[subject.serial], 10),
        authority.revoke(&[], -1),
    );
    assert!(established(&try_with(Revocation::Strict, vec![good])));
    assert!(established(&try_with(Revocation::IfAvailable, vec![])));
    assert!(established(&try_with(Revocation::IfAvailable, vec![old.clone()])));
    assert!(established(&try_with(Revocation::Off, vec![bad.clone()])));
    let fault = |revocation, list| certificate_fault(&mut try_with(revocation, vec![list]), 1);
    for revocation in [Revocation::Strict, Revocation::IfAvailable] {
        assert!(matches!(fault(revocation, bad.clone()), CertificateFault::Revoked(_)));
    }
    let other = Authority::new("Other").revoke(&[], 10);
    assert!(matches!(fault(Revocation::Strict, other), CertificateFault::RevocationUnknown(_)));
    let found = fault(Revocation::Strict, old);
    assert!(matches!(found, CertificateFault::RevocationListExpired { .. }), "{found}");
}

/// What a reload does to a connection that stands.
#[test]
fn a_new_revocation_list_ends_only_what_it_revokes() {
    let authority = Authority::new("Root");
    let subject = Subject::new("a.test", KeyKind::P256);
    let policies_with = |lists: Vec<Vec<u8>>| {
        let (local, _) = certified(&authority, &subject);
        let mut trust = trust(&authority);
        trust.lists = certificates::lists(&lists);
        let a = (local, RemoteAuth::Certificate(Arc::new(trust)));
        configure(|_, _| {}, ends(a, psk()))
    };
    let mut simulation = run(policies_with(vec![authority.revoke(&[], 10)]));
    assert!(established(&simulation));
    let before = simulation.nodes[1].kernel.history.len();
    let [_, b] = policies_with(vec![authority.revoke(&[subject.serial + 1], 10)]);
    simulation.configure(1, b);
    simulation.run(MINUTE);
    assert!(established(&simulation));
    assert_eq!(simulation.nodes[1].kernel.history.len(), before + 1, "only the classifier");
    let [_, b] = policies_with(vec![authority.revoke(&[subject.serial], 10)]);
    simulation.configure(1, b);
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    let named = simulation.nodes[1].events.iter().any(|e| {
        matches!(
            e.kind,
            EventKind::NoLongerBelieved(AuthenticationFault::Certificate(
                CertificateFault::Revoked(_)
            ))
        )
    });
    assert!(named);
}

#[test]
fn a_renewed_certificate_of_ours_leaves_what_stands() {
    let authority = Authority::new("Root");
    let policies_with = |serial| {
        let subject = Subject { serial, ..Subject::new("a.test", KeyKind::P256) };
        configure(|_, _| {}, ends(certified(&authority, &subject), psk()))
    };
    let mut simulation = run(policies_with(1));
    let sent = simulation.nodes[0].sent.len();
    let [a, _] = policies_with(2);
    simulation.configure(0, a);
    simulation.run(MINUTE);
    assert!(established(&simulation));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
}

#[test]
fn another_key_than_the_one_that_is_known_is_refused() {
    let a = (raw(KeyKind::P256).0, raw(KeyKind::Ed25519).1);
    let found = fault(&mut connect(ends(a, psk())), 1);
    assert_eq!(found, AuthenticationFault::OtherPublicKey);
}

#[test]
fn chains_that_are_too_long_or_certificates_too_large_are_refused() {
    let limited = |chain, size| {
        let root = Authority::new("Root");
        let middle = root.intermediate("Middle");
        let (local, _) = certified(&middle, &Subject::new("a.test", KeyKind::P256));
        let a = (local, RemoteAuth::Certificate(Arc::new(trust(&root))));
        let config = EndpointConfig {
            certificate_chain_limit: chain,
            certificate_size_limit: size,
            ..EndpointConfig::default()
        };
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
        simulation.input(1, Input::WallClock(NOW));
        let [a, b] = configure(|_, _| {}, ends(a, psk()));
        simulation.configure(1, b);
        simulation.configure(0, a);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        simulation
    };
    assert!(established(&limited(2, 2000)));
    let found = certificate_fault(&mut limited(1, 2000), 1);
    assert_eq!(found, CertificateFault::TooMany { found: 2, limit: 1 });
    let found = certificate_fault(&mut limited(2, 100), 1);
    assert!(matches!(found, CertificateFault::TooLarge { limit: 100, .. }), "{found}");
}

#[test]
fn without_the_time_of_day_no_certificate_is_believed() {
    let a = certified(&Authority::new("Root"), &Subject::new("a.test", KeyKind::P256));
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let [a, b] = configure(|_, _| {}, ends(a, psk()));
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(certificate_fault(&mut simulation, 1), CertificateFault::NoTime);
}

#[test]
fn time_goes_on_after_the_wall_clock_was_read() {
    let soon = Subject { days: (-10, 1), ..Subject::new("a.test", KeyKind::P256) };
    let a = certified(&Authority::new("Root"), &soon);
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.input(1, Input::WallClock(NOW));
    let [a, b] = configure(|_, _| {}, ends(a, psk()));
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.run(Duration::from_secs(2 * 86_400));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(matches!(certificate_fault(&mut simulation, 1), CertificateFault::Expired { .. }));
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
    assert!(established(&connect(ends(a, b))));
}

/// RFC 7296 1.2, 2.15.
#[test]
fn the_responder_may_have_a_certificate_and_the_initiator_a_shared_key() {
    let authority = Authority::new("Root");
    let b = certified(&authority, &Subject::new("b.test", KeyKind::Rsa(2048)));
    let simulation = connect(ends(psk(), b));
    assert!(established(&simulation));
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
        assert!(established(&simulation), "seed {seed}");
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
        assert!(established(&run(configure(with_ppk, ends))), "{mixed}");
    }
}
