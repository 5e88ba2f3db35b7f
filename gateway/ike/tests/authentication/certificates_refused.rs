//! Certificates that are not believed, each for a reason of its own.

use gateway_ike::testing::Forge;
use gateway_wire::{CertEncoding, Certificate, NotifyType, Payload};
use rcgen::{CidrSubnet, DistinguishedName, DnType, GeneralSubtree};

use super::*;

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
            assert!(connect(ends(a, psk())).has_one_child_each().unwrap(), "{purpose:?}");
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

fn domain(name: &str) -> GeneralSubtree {
    GeneralSubtree::DnsName(name.to_owned())
}

#[test]
fn name_constraints_of_an_authority_hold() {
    let root = Authority::new("Root");
    let middle = root.constrained("Middle", &[domain("other.test")], &[]);
    let a = certified(&middle, &Subject::new("a.test", KeyKind::P256));
    let a = (a.0, RemoteAuth::Certificate(Arc::new(trust(&root))));
    let found = certificate_fault(&mut connect(ends(a, psk())), 1);
    assert!(matches!(found, CertificateFault::NameConstraints(_)), "{found}");
}

/// RFC 5280 4.2.1.10, for a certificate of a domain name, an address of each family and an e-mail
/// address, and for one of a domain name alone. What webpki does not judge, constraints on e-mail
/// addresses and on distinguished names, refuses every certificate that has such a name.
#[test]
fn each_kind_of_name_constraint_permits_and_excludes_or_refuses_all() {
    let net = |text: &str| {
        let net: ipnet::IpNet = text.parse().unwrap();
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(net.addr(), net.prefix_len()))
    };
    let email = |host: &str| GeneralSubtree::Rfc822Name(host.to_owned());
    let directory = |organization: &str| {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, organization);
        GeneralSubtree::DirectoryName(name)
    };
    let whole = Subject::new("a.test", KeyKind::P256);
    let bare = Subject { alternative: names(&["a.test"]), ..whole.clone() };
    let root = Authority::new("Root");
    let believed = |authority: &Authority, subject: &Subject| {
        let chain = authority.issue(subject);
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        match trust(&root).verify(&chain, NOW) {
            Ok(_) => true,
            Err(CertificateFault::NameConstraints(named)) => {
                assert_eq!(named.to_string(), "O=Test, CN=a.test");
                false
            }
            Err(fault) => panic!("{fault}"),
        }
    };
    let both = [net("192.0.2.0/24"), net("2001:db8::/32")];
    // What is permitted and excluded, and whether each of the two certificates is good then.
    for (permitted, excluded, good) in [
        (&[domain("a.test")][..], &[][..], [true, true]),
        (&[domain("test")], &[], [true, true]),
        (&[domain("other.test"), domain("test")], &[], [true, true]),
        (&[domain("b.a.test")], &[], [false, false]),
        (&[domain("other.test")], &[], [false, false]),
        (&[domain("est")], &[], [false, false]),
        (&[], &[domain("other.test")], [true, true]),
        (&[], &[domain("a.test")], [false, false]),
        (&[domain("test")], &[domain("a.test")], [false, false]),
        (&both, &[], [true, true]),
        (&both[..1], &[], [false, true]),
        (&[net("192.0.2.1/32"), net("2001:db8::1/128")], &[], [true, true]),
        (&[net("192.0.2.2/31"), net("2001:db8::/32")], &[], [false, true]),
        (&[], &[net("198.51.100.0/24")], [true, true]),
        (&[], &both[1..], [false, true]),
        (&[domain("test"), net("192.0.2.0/24"), net("2001:db8::/64")], &[], [true, true]),
        (&[email("a.test")], &[], [false, true]),
        (&[], &[email("other.test")], [false, true]),
        (&[directory("Test")], &[], [false, false]),
        (&[], &[directory("Other")], [false, false]),
    ] {
        let middle = root.constrained("Middle", permitted, excluded);
        let found = [&whole, &bare].map(|subject| believed(&middle, subject));
        assert_eq!(found, good, "{permitted:?} {excluded:?}");
        // Nobody below is freed from it.
        let below = middle.intermediate("Below");
        assert_eq!([&whole, &bare].map(|subject| believed(&below, subject)), good);
    }
    // Below two of them, what both permit.
    let [one, other] = [domain("a.test"), domain("b.test")].map(|name| [name]);
    let middle = root.constrained("Middle", &one, &[]);
    assert!(believed(&middle.constrained("Below", &one, &[]), &whole));
    assert!(!believed(&middle.constrained("Below", &other, &[]), &whole));
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
    assert!(try_with(Revocation::Strict, vec![good]).has_one_child_each().unwrap());
    assert!(try_with(Revocation::IfAvailable, vec![]).has_one_child_each().unwrap());
    assert!(try_with(Revocation::IfAvailable, vec![old.clone()]).has_one_child_each().unwrap());
    assert!(try_with(Revocation::Off, vec![bad.clone()]).has_one_child_each().unwrap());
    let fault = |revocation, list| certificate_fault(&mut try_with(revocation, vec![list]), 1);
    for revocation in [Revocation::Strict, Revocation::IfAvailable] {
        assert!(matches!(fault(revocation, bad.clone()), CertificateFault::Revoked(_)));
    }
    let other = Authority::new("Other").revoke(&[], 10);
    assert!(matches!(fault(Revocation::Strict, other), CertificateFault::RevocationUnknown(_)));
    let found = fault(Revocation::Strict, old);
    assert!(matches!(found, CertificateFault::RevocationListExpired { .. }), "{found}");
}

/// RFC 5280 6.3: each certificate below the root has a list of its own issuer.
#[test]
fn revocation_lists_are_consulted_for_every_certificate_of_a_chain() {
    use Revocation::{IfAvailable, Strict};
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let (local, _) = certified(&middle, &Subject::new("a.test", KeyKind::P256));
    let try_with = |revocation, lists: &[&Vec<u8>]| {
        let lists: Vec<_> = lists.iter().copied().cloned().collect();
        let trust = Trust { revocation, lists: certificates::lists(&lists), ..trust(&root) };
        connect(ends((local.clone(), RemoteAuth::Certificate(Arc::new(trust))), psk()))
    };
    let fault = |revocation, lists: &[&Vec<u8>]| {
        let mut simulation = try_with(revocation, lists);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
        certificate_fault(&mut simulation, 1)
    };
    let (of_middle, of_root) = (middle.revoke(&[], 10), root.revoke(&[], 10));
    assert!(try_with(Strict, &[&of_middle, &of_root]).has_one_child_each().unwrap());
    for some in [&of_middle, &of_root] {
        assert!(try_with(IfAvailable, &[some]).has_one_child_each().unwrap());
        let found = fault(Strict, &[some]);
        assert!(matches!(found, CertificateFault::RevocationUnknown(_)), "{found}");
    }
    let revoking = root.revoke(&[certificates::INTERMEDIATE], 10);
    for revocation in [Strict, IfAvailable] {
        let found = fault(revocation, &[&of_middle, &revoking]);
        assert!(matches!(found, CertificateFault::Revoked(_)), "{found}");
    }
    let found = fault(IfAvailable, &[&revoking]);
    assert!(matches!(found, CertificateFault::Revoked(_)), "{found}");
    let expired = root.revoke(&[], -1);
    let found = fault(Strict, &[&of_middle, &expired]);
    let CertificateFault::RevocationListExpired { since, .. } = found else { panic!("{found}") };
    assert_eq!(since.0, NOW.as_secs() - 86_400);
    assert!(try_with(IfAvailable, &[&of_middle, &expired]).has_one_child_each().unwrap());
    // The name of an issuer does not make a list its own, whether it revokes anything or not.
    for impostor in [Authority::new("Root"), Authority::new("Middle")] {
        for serials in [&[][..], &[7, certificates::INTERMEDIATE]] {
            let forged = impostor.revoke(serials, 10);
            for revocation in [Strict, IfAvailable] {
                let found = fault(revocation, &[&forged, &of_middle, &of_root]);
                assert!(matches!(found, CertificateFault::Other { .. }), "{found}");
            }
        }
    }
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
    assert!(limited(2, 2000).has_one_child_each().unwrap());
    let found = certificate_fault(&mut limited(1, 2000), 1);
    assert_eq!(found, CertificateFault::TooMany { found: 2, limit: 1 });
    let found = certificate_fault(&mut limited(2, 100), 1);
    assert!(matches!(found, CertificateFault::TooLarge { limit: 100, .. }), "{found}");
}

/// The longest chain that the default allows is followed to its root, and a longer one is refused for
/// its length, with what is allowed beside it.
#[test]
fn seven_certificates_lead_to_a_root_and_eight_are_refused() {
    let of_length = |length: usize| {
        let root = Authority::new("Root");
        let mut lowest = root.intermediate("1");
        for n in 2..length {
            lowest = lowest.intermediate(&n.to_string());
        }
        let (local, _) = certified(&lowest, &Subject::new("a.test", KeyKind::P256));
        let LocalAuth::Certificate(credential) = &local else { panic!("a certificate") };
        assert_eq!(credential.chain().count(), length);
        let a = (local, RemoteAuth::Certificate(Arc::new(trust(&root))));
        run(configure(|_, _| {}, ends(a, psk())))
    };
    assert!(of_length(7).has_one_child_each().unwrap());
    let found = certificate_fault(&mut of_length(8), 1);
    assert_eq!(found, CertificateFault::TooMany { found: 8, limit: 7 });
}

/// One end proves who it is with these certificates in place of its own; gives what the other one says
/// to that.
fn shown_instead(
    simulation: &mut Simulation,
    from: usize,
    certificates: &[Certificate<'_>],
) -> Vec<NotifyType> {
    // Until it has sent its IKE_AUTH: the other end gets another one, with the same proof.
    let end = simulation.now + MINUTE;
    while simulation.nodes[from].sent.len() < 2 && simulation.step(end) {}
    let forge = Forge::of(&simulation.nodes[from].endpoint).unwrap();
    let (path, octets) = simulation.nodes[from].sent[1].clone();
    let message = forge.open(&octets).unwrap();
    let mut payloads = message.payloads().unwrap();
    let is_certificate = |p: &Payload<'_>| matches!(p, Payload::Certificate(_));
    let place = payloads.iter().position(is_certificate).unwrap();
    payloads.retain(|p| !is_certificate(p));
    payloads.splice(place..place, certificates.iter().map(|c| Payload::Certificate(*c)));
    let forged = forge.seal(&message.header, &payloads).unwrap();
    let path = gateway_ike::io::Path { local: path.remote, remote: path.local };
    simulation.input(1 - from, Input::Datagram { path, octets: &forged });
    let answer = forge.open(&simulation.nodes[1 - from].sent.last().unwrap().1).unwrap();
    let kind = |p: &Payload<'_>| match p {
        Payload::Notify(n) => n.kind,
        other => panic!("{other:?}"),
    };
    answer.payloads().unwrap().iter().map(kind).collect()
}

/// About to connect, up to the IKE_AUTH of either.
fn beginning(ends: [End; 2]) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    for node in [0, 1] {
        simulation.input(node, Input::WallClock(NOW));
    }
    let [a, b] = configure(|_, _| {}, ends);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation
}

/// RFC 7296 3.6: who names the address of a certificate instead of sending one is told what is
/// missing, and nothing is fetched; also if the certificates of authorities come with it.
#[test]
fn hash_and_url_is_refused_by_its_name() {
    let authority = Authority::new("Root").intermediate("Middle");
    let subject = Subject::new("a.test", KeyKind::P256);
    let chain = authority.issue(&subject);
    let middle = Certificate { encoding: CertEncoding::X509_SIGNATURE, data: &chain[1] };
    for encoding in [CertEncoding::HASH_AND_URL, CertEncoding::HASH_AND_URL_BUNDLE] {
        let data = [&[7; 20][..], b"http://192.0.2.9/a.der"].concat();
        let by_url = Certificate { encoding, data: &data };
        for shown in [&[by_url][..], &[by_url, middle]] {
            let a = certified(&authority, &subject);
            let mut simulation = beginning(ends(a, psk()));
            let said = shown_instead(&mut simulation, 0, shown);
            assert_eq!(said, [NotifyType::AUTHENTICATION_FAILED]);
            assert_eq!(counter(&simulation, 1, Counter::CertificateIgnored), 1);
            let found = certificate_fault(&mut simulation, 1);
            assert_eq!(found, CertificateFault::ByUrl);
        }
    }
}

/// RFC 7296 3.6: who authenticates by a certificate shows it.
#[test]
fn who_leaves_its_certificate_out_is_told_that_there_is_none() {
    for (from, name) in [(0, "a.test"), (1, "b.test")] {
        let shows = certified(&Authority::new("Root"), &Subject::new(name, KeyKind::P256));
        let both = if from == 0 { ends(shows, psk()) } else { ends(psk(), shows) };
        let mut simulation = beginning(both);
        let said = shown_instead(&mut simulation, from, &[]);
        assert_eq!(said, [NotifyType::AUTHENTICATION_FAILED]);
        simulation.run(MINUTE);
        let found = certificate_fault(&mut simulation, 1 - from);
        assert_eq!(found, CertificateFault::Absent);
    }
}

/// RFC 7296 1.2, 3.6: the certificate whose key has made AUTH is the first one. No other is looked for
/// among those that come behind it.
#[test]
fn the_certificate_of_auth_is_no_other_than_the_first_one() {
    let encoding = CertEncoding::X509_SIGNATURE;
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    for (from, name) in [(0, "a.test"), (1, "b.test")] {
        let subject = Subject::new(name, KeyKind::P256);
        let beginning = || {
            let (local, _) = certified(&middle, &subject);
            let shows = (local, RemoteAuth::Certificate(Arc::new(trust(&root))));
            beginning(if from == 0 { ends(shows, psk()) } else { ends(psk(), shows) })
        };
        let chain = middle.issue(&subject);
        let of = |order: &[&Vec<u8>], simulation: &mut Simulation| {
            let order: Vec<_> = order.iter().map(|data| Certificate { encoding, data }).collect();
            let said = shown_instead(simulation, from, &order);
            assert_eq!(said, [NotifyType::AUTHENTICATION_FAILED], "{name}");
            simulation.run(MINUTE);
            fault(simulation, 1 - from)
        };
        // The authority's, and then that of the end.
        let found = of(&[&chain[1], &chain[0]], &mut beginning());
        let AuthenticationFault::Certificate(CertificateFault::Usage { subject: whose, .. }) =
            found
        else {
            panic!("{found}")
        };
        assert_eq!(whose.to_string(), "CN=Middle");
        // One that is good and of another key, and then that of the end.
        let other = middle.issue(&Subject { key: KeyKind::P384, ..subject.clone() });
        let found = of(&[&other[0], &chain[0], &chain[1]], &mut beginning());
        assert!(matches!(found, AuthenticationFault::WrongSignature(_)), "{found}");
    }
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
