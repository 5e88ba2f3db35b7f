//! Errors in and after IKE_AUTH (RFC 7296 1.2, 2.21.2, 2.21.3, 3.10.1).

use gateway_ike::algorithms::{Encryption, Integrity};
use gateway_ike::config::{LocalAuth, RemoteAuth, Secret};
use gateway_wire::{AuthMethod, Authentication, PayloadType};

use super::*;

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

/// A chain that claims to be longer than it is.
const MALFORMED: (PayloadType, &[u8]) = (PayloadType::NOTIFY, &[0, 0, 1, 0, 0, 0]);

#[test]
fn a_malformed_ike_auth_request_is_refused_whole() {
    let (mut simulation, auth) = half_open();
    let forge = forge(&simulation, 0);
    let opened = forge.open(&auth).unwrap();
    // All that is needed stands there, and then something that does not fit.
    let mut octets = opened.plaintext.clone();
    octets.extend(MALFORMED.1);
    let bad = forge.seal_octets(&opened.header, opened.first, &octets).unwrap();
    let answer = forge.open(&only(deliver(&mut simulation, 1, &bad))).unwrap();
    assert_eq!(answer.payloads().unwrap(), [notification(NotifyType::INVALID_SYNTAX, &[])]);
    assert_eq!(states(&simulation, 1), ["closing"]);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 0);
}

#[test]
fn a_failed_authentication_is_answered_with_that_alone() {
    let (mut simulation, auth) = half_open();
    let wrong = resealed(&simulation, 0, &auth, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::Authentication(auth) = payload {
                auth.data = &[0; 32];
            }
        }
    });
    let forge = forge(&simulation, 0);
    let answer = only(deliver(&mut simulation, 1, &wrong));
    let opened = forge.open(&answer).unwrap();
    assert_eq!(opened.payloads().unwrap(), [notification(NotifyType::AUTHENTICATION_FAILED, &[])]);
    assert_eq!(children(&simulation, 1), 0);
    // The initiator knows from it that there is no IKE SA, and sends nothing more.
    assert!(deliver(&mut simulation, 0, &answer).is_empty());
    assert!(states(&simulation, 0).is_empty());
}

#[test]
fn an_authentication_by_another_method_is_refused() {
    let (mut simulation, auth) = half_open();
    let wrong = resealed(&simulation, 0, &auth, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::Authentication(Authentication { method, .. }) = payload {
                *method = AuthMethod::DIGITAL_SIGNATURE;
            }
        }
    });
    deliver(&mut simulation, 1, &wrong);
    assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), 1);
    assert_eq!(children(&simulation, 1), 0);
}

#[test]
fn an_ike_auth_request_without_a_needed_payload_is_refused() {
    for (kind, expected) in [
        (PayloadType::ID_I, NotifyType::INVALID_SYNTAX),
        (PayloadType::TS_I, NotifyType::INVALID_SYNTAX),
        (PayloadType::TS_R, NotifyType::INVALID_SYNTAX),
    ] {
        let (mut simulation, auth) = half_open();
        let without = resealed(&simulation, 0, &auth, |p| p.retain(|p| p.payload_type() != kind));
        let answer = only(deliver(&mut simulation, 1, &without));
        let opened = forge(&simulation, 0).open(&answer).unwrap();
        assert_eq!(notified(&opened.payloads().unwrap()), [expected], "{kind}");
        assert_eq!(children(&simulation, 1), 0);
    }
}

#[test]
fn a_child_sa_that_fails_does_not_touch_the_authentication() {
    let b = with_protect(policies_of_b(), |p| {
        p.proposals[0].encryption = vec![Encryption::ChaCha20Poly1305];
    });
    let (mut simulation, auth) = half_open_with(policies_of_a(), b);
    let answer = only(deliver(&mut simulation, 1, &auth));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    let payloads = opened.payloads().unwrap();
    let mut kinds = payloads.iter().map(Payload::payload_type).collect::<Vec<_>>();
    kinds.retain(|kind| *kind != PayloadType::NOTIFY);
    assert_eq!(kinds, [PayloadType::ID_R, PayloadType::AUTH]);
    assert_eq!(notified(&payloads), [NotifyType::NO_PROPOSAL_CHOSEN]);
    deliver(&mut simulation, 0, &answer);
    assert_eq!(states(&simulation, 0), ["established"]);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn a_responder_that_cannot_prove_itself_is_told_in_an_exchange_of_its_own() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let wrong = resealed(&simulation, 1, &answer, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::Authentication(auth) = payload {
                auth.data = &[0; 32];
            }
        }
    });
    let sent = only(deliver(&mut simulation, 0, &wrong));
    let opened = forge(&simulation, 1).open(&sent).unwrap();
    assert_eq!((opened.header.exchange, opened.header.message_id.0), (INFORMATIONAL, NEXT_OF_A));
    assert_eq!(opened.payloads().unwrap(), [notification(NotifyType::AUTHENTICATION_FAILED, &[])]);
    assert_eq!(children(&simulation, 0), 0);
    // And B takes it without a Delete.
    deliver(&mut simulation, 1, &sent);
    assert_eq!(states(&simulation, 1), ["closing"]);
    assert_eq!(children(&simulation, 1), 0);
}

#[test]
fn right_after_ike_auth_three_errors_end_the_ike_sa_and_others_do_not() {
    for (kind, ends) in [
        (NotifyType::AUTHENTICATION_FAILED, true),
        (NotifyType::INVALID_SYNTAX, true),
        (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, true),
        (NotifyType::INVALID_IKE_SPI, false),
        (NotifyType::NO_PROPOSAL_CHOSEN, false),
    ] {
        let mut simulation = connected();
        let words = [notification(kind, &[])];
        let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &words);
        assert!(answer.payloads().unwrap().is_empty());
        let expected = if ends { "closing" } else { "established" };
        assert_eq!(states(&simulation, 1), [expected], "{kind}");
    }
}

#[test]
fn later_errors_in_requests_change_nothing() {
    for kind in [
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_SYNTAX,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
        NotifyType::INVALID_SPI,
        NotifyType::INVALID_SELECTORS,
    ] {
        let words = [notification(kind, &[])];
        let mut simulation = connected();
        // A request for a Child SA that no rule covers is the first thing after IKE_AUTH.
        let other = rekey::child_request(&simulation, "10.9.0.0/24", None);
        let answer = rekey::send(&mut simulation, &other);
        assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
        ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A + 1, &words);
        assert_eq!(states(&simulation, 1), ["established"], "{kind}");

        let mut simulation = connected();
        ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
        let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A + 1, &words);
        assert!(answer.payloads().unwrap().is_empty());
        assert_eq!(states(&simulation, 1), ["established"], "{kind}");
        // The initiator never waits for such a thing.
        ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &words);
        assert_eq!(states(&simulation, 0), ["established"], "{kind}");
    }
}

#[test]
fn a_malformed_request_is_answered_and_ends_the_ike_sa_at_both_ends() {
    for exchange in [INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
        let mut simulation = connected();
        let answer = ask_octets(&mut simulation, exchange, MALFORMED.0, MALFORMED.1);
        assert_eq!(answer.payloads().unwrap(), [notification(NotifyType::INVALID_SYNTAX, &[])]);
        assert_eq!(states(&simulation, 1), ["closing"]);
        assert_eq!(children(&simulation, 1), 0);
        simulation.run(MINUTE);
        let sent = simulation.nodes[1].sent.iter().map(|(_, octets)| header(octets));
        assert!(sent.into_iter().all(|h| h.flags.response), "without a Delete");
    }
}

#[test]
fn invalid_syntax_in_a_response_ends_the_ike_sa() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(12));
    let question = header(&simulation.nodes[0].sent[before].1);
    let forge = forge(&simulation, 1);
    let answer = forge.header(question.exchange, true, question.message_id.0);
    let answer = forge.seal(&answer, &[notification(NotifyType::INVALID_SYNTAX, &[])]).unwrap();
    assert!(deliver(&mut simulation, 0, &answer).is_empty(), "without a Delete");
    assert!(states(&simulation, 0).is_empty());
    assert_eq!(children(&simulation, 0), 0);
}

#[test]
fn an_unknown_exchange_is_answered_with_an_error() {
    let mut simulation = connected();
    let answer = ask(&mut simulation, 0, ExchangeType(99), NEXT_OF_A, &[]);
    assert_eq!(answer.header.exchange, ExchangeType(99));
    assert_eq!(answer.payloads().unwrap(), [notification(NotifyType::INVALID_SYNTAX, &[])]);
}

#[test]
fn a_create_child_sa_request_without_a_needed_payload_is_malformed() {
    let mut simulation = connected();
    let answer = ask(&mut simulation, 0, ExchangeType::CREATE_CHILD_SA, NEXT_OF_A, &[]);
    assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::INVALID_SYNTAX]);
    assert_eq!(states(&simulation, 1), ["closing"]);
    assert_eq!(children(&simulation, 1), 0);
}

#[test]
fn fatal_errors_in_ike_auth_leave_no_ike_sa_whatever_stands_beside_them() {
    for kind in [
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
    ] {
        let (mut simulation, auth) = half_open();
        let answer = only(deliver(&mut simulation, 1, &auth));
        let with = resealed(&simulation, 1, &answer, |p| p.push(notification(kind, &[])));
        assert!(deliver(&mut simulation, 0, &with).is_empty(), "{kind}");
        assert!(states(&simulation, 0).is_empty());
    }
}

#[test]
fn a_malformed_response_is_not_answered_and_its_child_sa_is_deleted() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let without = resealed(&simulation, 1, &answer, |p| {
        p.retain(|p| p.payload_type() != PayloadType::TS_I);
    });
    let sent = only(deliver(&mut simulation, 0, &without));
    given_up(&simulation, 0, &sent);
    deliver(&mut simulation, 1, &sent);
    assert_eq!(children(&simulation, 1), 0);
}

#[test]
fn every_cipher_protects_all_messages_after_ike_sa_init() {
    for encryption in Encryption::ALL {
        let change = |p: &mut PeerConfig| {
            p.proposals[0].encryption = vec![*encryption];
            p.proposals[0].integrity =
                if encryption.is_aead() { Vec::new() } else { vec![Integrity::HmacSha256] };
        };
        let simulation =
            connect(with_peer(policies_of_a(), change), with_peer(policies_of_b(), change));
        assert_eq!(children(&simulation, 1), 1);
        let forge = forge(&simulation, 0);
        for (_, octets) in simulation.nodes.iter().flat_map(|n| &n.sent) {
            let outside = Message::decode(octets).unwrap().payloads;
            if header(octets).exchange == ExchangeType::IKE_SA_INIT {
                continue;
            }
            assert!(matches!(outside[..], [Payload::Encrypted(_)]));
            assert!(forge.open(octets).is_some());
            for at in 0..octets.len() {
                let mut changed = octets.clone();
                changed[at] ^= 1;
                assert!(forge.open(&changed).is_none(), "octet {at}");
            }
        }
    }
}

/// HMAC fills short keys up with zeros, so that only of a key as long as a block it shows whether
/// somebody has put one behind it.
#[test]
fn a_key_with_a_terminator_is_another_key() {
    let key = |octets: &[u8]| Secret::new(octets.to_vec());
    let long = b"sixty-four octets, as many as the hash function takes in a block";
    for (terminator, expected) in [(&b""[..], 1), (b"\0", 0), (b"\n", 0)] {
        let other = [&long[..], terminator].concat();
        let a = with_peer(policies_of_a(), |p| p.local_auth = LocalAuth::Psk(key(long)));
        let b = with_peer(policies_of_b(), |p| p.remote_auth = RemoteAuth::Psk(key(&other)));
        let simulation = connect(a, b);
        assert_eq!(children(&simulation, 1), expected);
        let failed = counter(&simulation, 1, Counter::AuthenticationFailed);
        assert_eq!(failed, u64::from(expected == 0));
    }
}

#[test]
fn an_error_about_the_ike_sa_counts_though_it_names_an_spi() {
    for spi in [&[0x55; 8][..], &[0x55; 4]] {
        let (mut simulation, auth) = half_open();
        let answer = only(deliver(&mut simulation, 1, &auth));
        let kind = NotifyType::AUTHENTICATION_FAILED;
        let words = Notify { protocol: ProtocolId::IKE, spi, kind, data: &[] };
        let refusal = resealed(&simulation, 1, &answer, |payloads| {
            *payloads = vec![Payload::Notify(words)];
        });
        assert!(deliver(&mut simulation, 0, &refusal).is_empty());
        assert!(states(&simulation, 0).is_empty());
    }
}
