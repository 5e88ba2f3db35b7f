//! Proposals, key exchange, nonces, identities, NAT (RFC 7296 1.2, 2.7, 2.10, 2.23, 3.3 to 3.5,
//! 3.9).

use std::collections::BTreeSet;

use gateway_ike::algorithms::{Encryption, Group, IkeProposal, Integrity, Prf};
use gateway_ike::config::Identity;
use gateway_ike::reason::Cause;
use gateway_wire::{PayloadType, SecurityAssociation, TransformType};

use super::auth::nonce_of;
use super::*;

fn sa_of<'a>(payloads: &'a [Payload<'_>]) -> &'a SecurityAssociation {
    let sa = payloads.iter().find_map(|p| match p {
        Payload::SecurityAssociation(sa) => Some(sa),
        _ => None,
    });
    sa.unwrap()
}

/// An AEAD and a classical proposal.
fn two_proposals(peer: &mut PeerConfig) {
    let cbc = IkeProposal {
        encryption: vec![Encryption::Aes256Cbc, Encryption::Aes128Cbc],
        integrity: vec![Integrity::HmacSha256],
        ..peer.proposals[0].clone()
    };
    peer.proposals.push(cbc);
}

#[test]
fn offers_are_numbered_from_one_and_the_first_has_no_spi() {
    let (_, init) = begun(with_peer(policies_of_a(), two_proposals), policies_of_b());
    let message = Message::decode(&init).unwrap();
    let sa = sa_of(&message.payloads);
    assert_eq!(sa.proposals.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
    assert!(sa.proposals.iter().all(|p| p.spi.is_empty() && p.protocol == ProtocolId::IKE));
    // The AEADs with no integrity, the others with some (RFC 7296 3.3, 2.7).
    let has_integrity =
        |n: usize| sa.proposals[n].transforms.iter().any(|t| t.kind == TransformType::INTEG);
    assert_eq!((has_integrity(0), has_integrity(1)), (false, true));
    let ke = message.payloads.iter().find_map(|p| match p {
        Payload::KeyExchange(ke) => Some(ke.method.0),
        _ => None,
    });
    let groups = |t: &&gateway_wire::Transform| t.kind == TransformType::KE;
    assert_eq!(sa.proposals[0].transforms.iter().find(groups).map(|t| t.id), ke);
}

#[test]
fn the_answer_is_one_proposal_with_the_number_of_the_one_that_was_offered() {
    let b = with_peer(policies_of_b(), |p| {
        two_proposals(p);
        p.proposals.remove(0);
    });
    let (mut simulation, init) = begun(with_peer(policies_of_a(), two_proposals), b);
    let answer = only(deliver(&mut simulation, 1, &init));
    let message = Message::decode(&answer).unwrap();
    let [chosen] = &sa_of(&message.payloads).proposals[..] else { panic!("one proposal") };
    assert_eq!(chosen.number, 2);
    let kinds = chosen.transforms.iter().map(|t| t.kind.0).collect::<BTreeSet<_>>();
    assert_eq!(kinds.len(), chosen.transforms.len(), "one transform of each type");
    assert_eq!(chosen.transforms[0].key_length, Some(256), "attributes come back unchanged");
}

#[test]
fn an_answer_that_was_not_offered_is_not_taken() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let answer = only(deliver(&mut simulation, 1, &init));
    let changed = |change: &dyn Fn(&mut SecurityAssociation)| {
        rewritten(&answer, |payloads| {
            for payload in payloads.iter_mut() {
                if let Payload::SecurityAssociation(sa) = payload {
                    change(sa);
                }
            }
        })
    };
    for wrong in [
        changed(&|sa| sa.proposals[0].number = 3),
        changed(&|sa| sa.proposals[0].transforms[0].key_length = Some(192)),
        changed(&|sa| sa.proposals[0].transforms.truncate(1)),
        changed(&|sa| sa.proposals.push(sa.proposals[0].clone())),
        changed(&|sa| sa.proposals[0].protocol = ProtocolId(4)),
    ] {
        assert!(deliver(&mut simulation, 0, &wrong).is_empty());
    }
    assert_eq!(counter(&simulation, 0, Counter::InvalidInit), 5);
    assert_eq!(deliver(&mut simulation, 0, &answer).len(), 1);
}

#[test]
fn an_answer_that_is_of_no_use_is_named_when_the_peer_is_given_up() {
    let number = |_: &[u8], answer: Vec<u8>| {
        let changed = rewritten(&answer, |payloads| {
            for payload in payloads.iter_mut() {
                if let Payload::SecurityAssociation(sa) = payload {
                    sa.proposals[0].number = 3;
                }
            }
        });
        vec![changed]
    };
    let transforms = |_: &[u8], answer: Vec<u8>| {
        vec![rewritten(&answer, |payloads| {
            for payload in payloads.iter_mut() {
                if let Payload::SecurityAssociation(sa) = payload {
                    sa.proposals[0].transforms[0].key_length = Some(192);
                }
            }
        })]
    };
    let nonce = |_: &[u8], answer: Vec<u8>| {
        let is_nonce = |payload: &Payload<'_>| matches!(payload, Payload::Nonce(_));
        vec![rewritten(&answer, |payloads| payloads.retain(|p| !is_nonce(p)))]
    };
    let cookies = |init: &[u8], _: Vec<u8>| {
        let mut header = header(init);
        header.flags.response = true;
        header.flags.initiator = false;
        let cookie =
            |n| encode_message(&header, &[notification(NotifyType::COOKIE, &[n])]).unwrap();
        (0..9).map(cookie).collect()
    };
    type Answers<'a> = &'a dyn Fn(&[u8], Vec<u8>) -> Vec<Vec<u8>>;
    let cases: [(Answers<'_>, &str); 4] = [
        (&transforms, "no common proposal: "),
        (&number, "a proposal number that we did not offer"),
        (&nonce, "is missing"),
        (&cookies, "one more cookie or key exchange method demanded"),
    ];
    for (answers, expected) in cases {
        let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
        let answer = only(deliver(&mut simulation, 1, &init));
        for answer in answers(&init, answer) {
            deliver(&mut simulation, 0, &answer);
        }
        let last_error = |simulation: &Simulation| {
            let status = simulation.nodes[0].endpoint.status(simulation.now);
            status.rules[0].last_error.clone()
        };
        assert_eq!(last_error(&simulation), None, "the true answer may still come");
        simulation.run(3 * MINUTE);
        let error = last_error(&simulation).unwrap();
        assert!(error.contains(expected), "{expected}: {error}");
        let events = simulation.nodes[0].events.iter();
        let failed: Vec<_> = events.filter(|e| e.kind.to_string().contains(expected)).collect();
        assert_eq!(failed.len(), 1, "{expected}");
        let record = failed[0].refusal.as_ref().map(|refusal| refusal.cause);
        let of_transforms = expected.starts_with("no common").then_some(Cause::Encryption);
        assert_eq!(record, of_transforms, "{expected}");
    }
}

#[test]
fn a_key_exchange_of_another_method_than_the_chosen_one_is_refused_with_the_right_one() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let other = rewritten(&init, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::KeyExchange(ke) = payload {
                ke.method = gateway_wire::KeMethod(14);
            }
        }
    });
    let answer = only(deliver(&mut simulation, 1, &other));
    let wanted = Group::X25519.id().0.to_be_bytes();
    let expected = [notification(NotifyType::INVALID_KE_PAYLOAD, &wanted)];
    assert_eq!(Message::decode(&answer).unwrap().payloads, expected);
}

#[test]
fn an_init_request_without_a_needed_payload_is_refused() {
    for kind in [PayloadType::SA, PayloadType::KE, PayloadType::NONCE] {
        let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
        let without = rewritten(&init, |p| p.retain(|p| p.payload_type() != kind));
        // Without a word: INVALID_SYNTAX is for encrypted messages only (3.10.1).
        assert!(deliver(&mut simulation, 1, &without).is_empty(), "{kind}");
        assert_eq!(counter(&simulation, 1, Counter::InvalidInit), 1);
        assert!(simulation.nodes[1].endpoint.is_empty());
    }
}

#[test]
fn nonces_are_fresh_and_long_enough_for_every_prf() {
    let mut nonces = BTreeSet::new();
    for seed in 0..50 {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), seed);
        simulation.configure(1, policies_of_b());
        simulation.configure(0, policies_of_a());
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        for node in &simulation.nodes {
            nonces.insert(nonce_of(&node.sent[0].1));
        }
    }
    assert_eq!(nonces.len(), 100, "none is used twice");
    let longest = Prf::ALL.iter().map(|prf| prf.output_len()).max().unwrap();
    assert!(nonces.iter().all(|n| 2 * n.len() >= longest && (16..=256).contains(&n.len())));
}

#[test]
fn a_nonce_of_a_wrong_length_is_refused() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for len in [0, 15, 257] {
        // Written by hand, since the codec would not: a Nonce payload at the end of the message.
        let mut long = rewritten(&init, |p| p.retain(|p| p.payload_type() != PayloadType::NONCE));
        let first = long[16];
        long[16] = PayloadType::NONCE.0;
        let nonce = vec![0x5a; len];
        let frame = u16::try_from(len + 4).unwrap().to_be_bytes();
        let payload = [&[first, 0], frame.as_slice(), nonce.as_slice()].concat();
        long.splice(28..28, payload);
        let total = u32::try_from(long.len()).unwrap();
        long[24..28].copy_from_slice(&total.to_be_bytes());
        assert!(deliver(&mut simulation, 1, &long).is_empty(), "{len}");
        assert!(simulation.nodes[1].endpoint.is_empty());
    }
    for len in [16, 256] {
        let nonce = vec![0x5a; len];
        let good = rewritten(&init, |payloads| {
            for payload in payloads.iter_mut() {
                if let Payload::Nonce(n) = payload {
                    n.0 = &nonce;
                }
            }
        });
        assert!(!header(&only(deliver(&mut simulation, 1, &good))).responder_spi.is_zero());
    }
}

#[test]
fn ike_auth_offers_no_key_exchange() {
    let simulation = connected();
    let opened = forge(&simulation, 0).open(&simulation.nodes[0].sent[1].1).unwrap();
    let payloads = opened.payloads().unwrap();
    let mut transforms = sa_of(&payloads).proposals.iter().flat_map(|p| &p.transforms);
    assert!(transforms.all(|t| t.kind != TransformType::KE));
}

#[test]
fn a_value_of_a_key_exchange_that_no_proposal_has_is_passed_over() {
    let mut simulation = connected();
    let request = rekey::child_request(&simulation, "10.1.0.0/24", None);
    let with_value = resealed(&simulation, 0, &request, |payloads| {
        let method = gateway_wire::KeMethod::CURVE25519;
        let ke = gateway_wire::KeyExchange { method, data: &[9; 32] };
        payloads.push(Payload::KeyExchange(ke));
    });
    let answer = rekey::send(&mut simulation, &with_value);
    let payloads = answer.payloads().unwrap();
    assert!(payloads.iter().all(|p| p.payload_type() != PayloadType::KE));
    let mut transforms = sa_of(&payloads).proposals.iter().flat_map(|p| &p.transforms);
    assert!(transforms.all(|t| t.kind != TransformType::KE));
    assert_eq!(children(&simulation, 1), 2);
}

#[test]
fn both_nat_hashes_follow_the_nonce_in_both_messages() {
    use NotifyType as N;
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    // Also to an initiator that sends none itself.
    let without = rewritten(&init, |p| p.retain(|p| p.payload_type() != PayloadType::NOTIFY));
    let answers = [&init, &without].map(|m| only(deliver(&mut simulation, 1, m)));
    for message in [&init, &answers[0], &answers[1]] {
        let payloads = Message::decode(message).unwrap().payloads;
        assert_eq!(payloads[2].payload_type(), PayloadType::NONCE);
        let expected = [N::NAT_DETECTION_SOURCE_IP, N::NAT_DETECTION_DESTINATION_IP];
        assert_eq!(notified(&payloads[3..5]), expected);
    }
}

#[test]
fn no_esp_is_wrapped_in_udp_on_port_500() {
    // A is behind NAT, and sends IKE_AUTH to port 500 all the same.
    let any_a = with_peer(policies_of_b(), |p| p.remote_address = None);
    let (mut simulation, init) = begun(policies_of_a(), any_a);
    let nat = SocketAddr::new(IpAddr::from([198, 51, 100, 1]), 40_001);
    let path = Path { remote: nat, ..path_to(1) };
    let answer = only(deliver_by(&mut simulation, 1, path, &init));
    let auth = only(deliver(&mut simulation, 0, &answer));
    deliver_by(&mut simulation, 1, path, &auth);
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    assert_eq!(child.encapsulation, None);
    let at_a = simulation.nodes[0].sent.last().unwrap().0;
    assert_eq!((at_a.local.port(), at_a.remote.port()), (4500, 4500), "A had gone to 4500");
}

#[test]
fn the_identity_types_are_all_sent_and_accepted() {
    let identities = [
        Identity::Address(A),
        Identity::Address("2001:db8::1".parse().unwrap()),
        Identity::Fqdn("gate.example".to_owned()),
        Identity::Email("gate@example".to_owned()),
        Identity::KeyId(vec![0, 1, 255]),
    ];
    for identity in &identities {
        let a = with_peer(policies_of_a(), |p| p.local_id = identity.clone());
        let b = with_peer(policies_of_b(), |p| p.remote_id = identity.clone());
        assert_eq!(children(&connect(a, b), 1), 1, "{identity}");
        let a = with_peer(policies_of_a(), |p| p.remote_id = identity.clone());
        let b = with_peer(policies_of_b(), |p| p.local_id = identity.clone());
        assert_eq!(children(&connect(a, b), 1), 1, "{identity}");
    }
    for (identity, other) in identities.iter().zip(identities.iter().skip(1)) {
        let a = with_peer(policies_of_a(), |p| p.local_id = identity.clone());
        let b = with_peer(policies_of_b(), |p| p.remote_id = other.clone());
        assert_eq!(children(&connect(a, b), 1), 0, "{identity} is not {other}");
    }
}

/// The numbers of an SA without extended ones would be used up, and nothing go by it any more.
#[test]
fn an_sa_without_esn_is_replaced_before_its_numbers_are_used_up() {
    let limit = |wanted: u64, esn: bool| {
        let b = with_protect(policies_of_b(), |p| p.lifetime.packets = wanted);
        let (mut simulation, auth) = half_open_with(policies_of_a(), b);
        let auth = resealed(&simulation, 0, &auth, |payloads| {
            for payload in payloads.iter_mut() {
                if let Payload::SecurityAssociation(sa) = payload {
                    let offered = sa.proposals.iter_mut().map(|p| &mut p.transforms);
                    for transforms in offered {
                        transforms.retain(|t| t.kind != TransformType::ESN || (t.id == 1) == esn);
                    }
                }
            }
        });
        deliver(&mut simulation, 1, &auth);
        let child = simulation.nodes[1].kernel.children.values().next().unwrap();
        assert_eq!(child.suite.esn, esn);
        child.lifetime.packets
    };
    let most = 1 << 32;
    assert_eq!(limit(0, true), 0, "no limit");
    assert!((most..=2 * most).contains(&limit(2 * most, true)));
    assert!((900..=1000).contains(&limit(1000, false)));
    for wanted in [0, 2 * most] {
        // The kernel's hard limit is a tenth above.
        let packets = limit(wanted, false);
        assert!((most / 2..most - most / 8).contains(&packets), "{packets}");
    }
}
