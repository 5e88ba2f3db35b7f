//! Retransmission, message IDs, the window and liveness (RFC 7296 2.1 to 2.4).

use gateway_ike::event::EventKind;
use gateway_wire::{Delete, IkeSpi};

use super::*;

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

#[test]
fn a_retransmission_is_the_same_octet_for_octet_and_gets_the_same_answer() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    simulation.run(Duration::from_secs(10));
    let sent = &simulation.nodes[0].sent;
    assert!(sent.len() > 2, "it is sent again");
    assert!(sent.iter().all(|(_, octets)| *octets == init));
    let answer = only(deliver(&mut simulation, 1, &init));
    assert_eq!(only(deliver(&mut simulation, 1, &init)), answer);

    let auth = only(deliver(&mut simulation, 0, &answer));
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(10));
    let again = &simulation.nodes[0].sent[before..];
    assert!(!again.is_empty() && again.iter().all(|(_, octets)| *octets == auth));
    let answer = only(deliver(&mut simulation, 1, &auth));
    assert_eq!(only(deliver(&mut simulation, 1, &auth)), answer);
    assert_eq!(children(&simulation, 1), 1, "and does nothing else");
}

#[test]
fn a_response_is_not_sent_unasked() {
    let mut simulation = connected();
    let sent = simulation.nodes[1].sent.len();
    simulation.run(10 * MINUTE);
    assert_eq!(simulation.nodes[1].sent.len(), sent);
}

#[test]
fn a_late_init_request_is_ignored_once_ike_auth_has_come() {
    let (mut simulation, auth) = half_open();
    let init = simulation.nodes[0].sent[0].1.clone();
    assert_eq!(deliver(&mut simulation, 1, &init).len(), 1, "before IKE_AUTH it is answered");
    deliver(&mut simulation, 1, &auth);
    assert!(deliver(&mut simulation, 1, &init).is_empty());
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 0);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn another_init_request_with_the_same_spi_begins_another_ike_sa() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let first = only(deliver(&mut simulation, 1, &init));
    let other = rewritten(&init, |payloads| payloads.push(Payload::VendorId(b"another")));
    let second = only(deliver(&mut simulation, 1, &other));
    assert_ne!(header(&first).responder_spi, header(&second).responder_spi);
    // The same from another port is another peer behind the same NAT.
    let path = Path { remote: SocketAddr::new(A, 501), ..path_to(1) };
    let third = only(deliver_by(&mut simulation, 1, path, &init));
    assert_ne!(header(&first).responder_spi, header(&third).responder_spi);
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 3);
    simulation.run(MINUTE);
    assert!(simulation.nodes[1].endpoint.is_empty(), "and none is kept for ever");
}

#[test]
fn an_answer_that_was_forgotten_is_not_made_again() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let request = |id| forge.seal(&forge.header(INFORMATIONAL, false, id), &[]).unwrap();
    assert_eq!(deliver(&mut simulation, 1, &request(2)).len(), 1);
    assert_eq!(deliver(&mut simulation, 1, &request(3)).len(), 1);
    assert!(deliver(&mut simulation, 1, &request(2)).is_empty());
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 1);
}

#[test]
fn another_request_under_an_answered_number_is_not_obeyed() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let header = forge.header(INFORMATIONAL, false, NEXT_OF_A);
    let request = forge.seal(&header, &[]).unwrap();
    let answer = only(deliver(&mut simulation, 1, &request));
    let spis = vec![simulation.nodes[0].kernel.children.values().next().unwrap().inbound.spi];
    for (protocol, spis) in [(ProtocolId::ESP, spis), (ProtocolId::IKE, Vec::new())] {
        let delete = Payload::Delete(Delete { protocol, spis });
        let other = forge.seal(&header, &[delete]).unwrap();
        assert!(deliver(&mut simulation, 1, &other).is_empty());
    }
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 2);
    assert_eq!(states(&simulation, 1), ["established"]);
    assert_eq!(children(&simulation, 1), 1);
    assert_eq!(only(deliver(&mut simulation, 1, &request)), answer, "the first one is kept");
}

#[test]
fn who_does_not_answer_is_given_up_with_all_that_it_had() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    simulation.run(10 * MINUTE);
    assert!(simulation.nodes[0].endpoint.is_empty());
    assert_eq!(children(&simulation, 0), 0);
    let dead = |e: &EventKind| matches!(e, EventKind::PeerDead { .. });
    assert!(simulation.nodes[0].events.iter().any(|e| dead(&e.kind)));
}

#[test]
fn requests_are_numbered_one_by_one_and_responses_like_them() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let simulation = connect(a, policies_of_b());
    let ids = |node: usize, response| {
        let sent = simulation.nodes[node].sent.iter().map(|(_, octets)| header(octets));
        sent.filter(|h| h.flags.response == response).map(|h| h.message_id.0).collect::<Vec<_>>()
    };
    let requests = ids(0, false);
    assert!(requests.len() > 4);
    assert!(requests.iter().zip(0..).all(|(id, n)| *id == n), "{requests:?}");
    assert_eq!(ids(1, true), requests);
}

#[test]
fn every_retry_of_ike_sa_init_has_the_number_zero() {
    let groups = gateway_ike::algorithms::Group::ALL.to_vec();
    let a = with_peer(policies_of_a(), |p| p.proposals[0].groups.clone_from(&groups));
    let b = with_peer(policies_of_b(), |p| {
        p.proposals[0].groups = vec![gateway_ike::algorithms::Group::EcpP384];
    });
    let simulation = connect(a, b);
    let sent = simulation.nodes[0].sent.iter().map(|(_, octets)| header(octets));
    let inits = sent.filter(|h| h.exchange == ExchangeType::IKE_SA_INIT).collect::<Vec<_>>();
    assert_eq!(inits.len(), 2);
    assert!(inits.iter().all(|h| h.message_id.0 == 0 && h.responder_spi == IkeSpi::ZERO));
}

#[test]
fn ike_auth_under_another_number_than_one_is_not_taken() {
    let (mut simulation, auth) = half_open();
    let forge = forge(&simulation, 0);
    let opened = forge.open(&auth).unwrap();
    for id in [0, 2, 3, u32::MAX] {
        let header = forge.header(ExchangeType::IKE_AUTH, false, id);
        let other = forge.seal(&header, &opened.payloads().unwrap()).unwrap();
        assert!(deliver(&mut simulation, 1, &other).is_empty(), "{id}");
    }
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 4);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 0);
    assert_eq!(deliver(&mut simulation, 1, &auth).len(), 1);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 1);
}

/// A has another rule with B, that is to be up always.
fn one_more(policies: PolicySet, n: u8) -> PolicySet {
    let local = format!("10.1.{n}.0/24").parse().unwrap();
    let remote = format!("10.2.{n}.0/24").parse().unwrap();
    with_more(policies, protect(&format!("more-{n}"), "b", local, remote, Start::Always))
}

#[test]
fn one_request_is_under_way_at_a_time() {
    let mut simulation = connected();
    let before = simulation.nodes[0].sent.len();
    simulation.configure(0, (1..4).fold(policies_of_a(), one_more));
    simulation.run(Duration::from_secs(20));
    let sent = &simulation.nodes[0].sent[before..];
    assert!(sent.len() > 1);
    assert!(sent.iter().all(|(_, octets)| *octets == sent[0].1), "and again the same");
}

/// A asks whether B lives, and its question is under way.
pub(super) fn asking() -> (Simulation, Vec<u8>) {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(15));
    let waiting = simulation.nodes[0].sent[before].1.clone();
    assert!(!header(&waiting).flags.response, "a question is under way");
    (simulation, waiting)
}

#[test]
fn a_request_is_answered_while_one_of_ours_is_under_way() {
    let (mut simulation, _waiting) = asking();
    let answer = ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &[]);
    assert!(answer.header.flags.response && answer.payloads().unwrap().is_empty());
}

#[test]
fn a_request_beyond_the_window_gets_no_answer_and_no_notification() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    for id in [NEXT_OF_A + 1, NEXT_OF_A + 2, u32::MAX, 0] {
        let request = forge.seal(&forge.header(INFORMATIONAL, false, id), &[]).unwrap();
        assert!(deliver(&mut simulation, 1, &request).is_empty(), "{id}");
    }
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 4);
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
}

#[test]
fn a_wider_window_of_the_peer_is_not_used_and_does_no_harm() {
    let mut simulation = connected();
    let wide = notification(NotifyType::SET_WINDOW_SIZE, &[0, 0, 0, 8]);
    let answer = ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &[wide]);
    assert!(answer.payloads().unwrap().is_empty());
    assert_eq!(states(&simulation, 0), ["established"]);
    let before = simulation.nodes[0].sent.len();
    simulation.configure(0, (1..4).fold(policies_of_a(), one_more));
    simulation.run(Duration::from_secs(20));
    let sent = &simulation.nodes[0].sent[before..];
    assert!(sent.len() > 1 && sent.iter().all(|(_, octets)| *octets == sent[0].1));
}

#[test]
fn an_empty_request_gets_an_empty_answer() {
    let mut simulation = connected();
    for (from, id) in [(0, NEXT_OF_A), (1, NEXT_OF_B)] {
        let answer = ask(&mut simulation, from, INFORMATIONAL, id, &[]);
        assert_eq!(answer.header.message_id.0, id);
        assert_eq!(answer.header.exchange, INFORMATIONAL);
        assert!(answer.payloads().unwrap().is_empty());
    }
}

#[test]
fn only_ike_auth_is_taken_while_half_open() {
    let (mut simulation, auth) = half_open();
    let forge = forge(&simulation, 0);
    let delete = Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() });
    for exchange in [INFORMATIONAL, ExchangeType::CREATE_CHILD_SA, ExchangeType(99)] {
        let header = forge.header(exchange, false, 1);
        let early = forge.seal(&header, std::slice::from_ref(&delete)).unwrap();
        assert!(deliver(&mut simulation, 1, &early).is_empty());
    }
    deliver(&mut simulation, 1, &auth);
    assert_eq!(states(&simulation, 1), ["established"], "and it comes as if nothing had been");
}

#[test]
fn initial_contact_is_sent_in_the_first_ike_auth_only() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let auth = forge.open(&simulation.nodes[0].sent[1].1).unwrap();
    assert!(notified(&auth.payloads().unwrap()).contains(&NotifyType::INITIAL_CONTACT));
    // A second IKE SA with the same peer does not say so.
    simulation.network.set_faults(Faults::default());
    let a = with_peer(policies_of_a(), |p| p.lifetime = MINUTE / 2);
    let simulation = connect(a, policies_of_b());
    let contacts = simulation.nodes[0].sent.iter().filter(|(_, octets)| {
        let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
        let opened = forge.open(octets);
        opened.is_some_and(|o| {
            o.payloads().is_ok_and(|p| notified(&p).contains(&NotifyType::INITIAL_CONTACT))
        })
    });
    assert_eq!(contacts.count(), 0, "the youngest IKE SA came beside another");
}

#[test]
fn initial_contact_outside_of_ike_auth_is_ignored() {
    let mut simulation = connected();
    let contact = notification(NotifyType::INITIAL_CONTACT, &[]);
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[contact]);
    assert_eq!(states(&simulation, 1), ["established"]);
    assert_eq!(children(&simulation, 1), 1);
}
