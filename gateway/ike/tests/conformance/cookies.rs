//! Cookies and the method of key exchange that the responder wants (RFC 7296 1.2, 2.6, 2.6.1).

use gateway_ike::algorithms::Group;
use gateway_ike::event::EventKind;

use super::*;

/// The octets of each payload of an unprotected message, in order.
fn bodies(datagram: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let message = Message::decode(datagram).unwrap();
    let each = |p: &Payload<'_>| {
        let (kind, octets) = gateway_wire::encode_chain(std::slice::from_ref(p)).unwrap();
        (kind.0, octets)
    };
    message.payloads.iter().map(each).collect()
}

/// B demands cookies, since it has many half-open IKE SAs.
fn flooded(simulation: &mut Simulation, init: &[u8]) {
    for n in 0..64_u8 {
        let mut other = init.to_vec();
        other[..8].fill(n + 1);
        let path = Path { remote: SocketAddr::new(A, 1000 + u16::from(n)), ..path_to(1) };
        deliver_by(simulation, 1, path, &other);
    }
}

fn cookie_of(datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::decode(datagram).unwrap();
    match &message.payloads[0] {
        Payload::Notify(n) if n.kind == NotifyType::COOKIE => Some(n.data.to_vec()),
        _ => None,
    }
}

/// The answer of a responder that wants something first.
fn demand(init: &[u8], kind: NotifyType, data: &[u8]) -> Vec<u8> {
    let mut header = header(init);
    header.flags.response = true;
    header.flags.initiator = false;
    encode_message(&header, &[notification(kind, data)]).unwrap()
}

#[test]
fn a_cookie_comes_back_first_and_all_else_is_as_it_was() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for data in [&[1][..], &[2; 64]] {
        let request = demand(&init, NotifyType::COOKIE, data);
        let again = only(deliver(&mut simulation, 0, &request));
        assert_eq!(cookie_of(&again).as_deref(), Some(data));
        assert_eq!(bodies(&again)[1..], bodies(&init));
        assert_eq!(header(&again), header(&init));
    }
}

#[test]
fn a_cookie_of_no_octets_or_more_than_64_is_not_returned() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for data in [&[][..], &[2; 65], &[2; 3000]] {
        assert!(deliver(&mut simulation, 0, &demand(&init, NotifyType::COOKIE, data)).is_empty());
    }
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 0), 1, "and the true answer is still awaited");
}

#[test]
fn demands_are_not_followed_for_ever() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let followed = (0..50_u8)
        .filter(|n| {
            !deliver(&mut simulation, 0, &demand(&init, NotifyType::COOKIE, &[*n])).is_empty()
        })
        .count();
    assert!((1..10).contains(&followed), "{followed}");
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 0), 1, "a forger cannot keep the true responder away");
}

#[test]
fn a_cookie_is_demanded_of_many_and_keeps_no_state() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    flooded(&mut simulation, &init);
    let half_open = simulation.nodes[1].endpoint.status(simulation.now).half_open;
    let answer = only(deliver(&mut simulation, 1, &init));
    let cookie = cookie_of(&answer).unwrap();
    assert!((1..=64).contains(&cookie.len()));
    assert!(header(&answer).responder_spi.is_zero());
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, half_open);
    let again = only(deliver(&mut simulation, 0, &answer));
    let answer = only(deliver(&mut simulation, 1, &again));
    assert!(!header(&answer).responder_spi.is_zero());
}

#[test]
fn a_wrong_cookie_counts_as_none() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    fn with(init: &[u8], cookie: &[u8]) -> Vec<u8> {
        rewritten(init, |p| p.insert(0, notification(NotifyType::COOKIE, cookie)))
    }
    // Where none is demanded, the message is processed.
    let answer = only(deliver(&mut simulation, 1, &with(&init, b"nonsense")));
    assert!(!header(&answer).responder_spi.is_zero());
    // Where one is, a new one is sent.
    flooded(&mut simulation, &init);
    let good = cookie_of(&only(deliver(&mut simulation, 1, &with(&init, b"other")))).unwrap();
    let mut bad = good.clone();
    bad[3] ^= 1;
    let answer = only(deliver(&mut simulation, 1, &with(&init, &bad)));
    assert_eq!(cookie_of(&answer), Some(good));
}

#[test]
fn a_cookie_and_another_group_may_both_be_demanded() {
    let a = with_peer(policies_of_a(), |p| {
        p.proposals[0].groups = vec![Group::X25519, Group::EcpP384];
    });
    let b = with_peer(policies_of_b(), |p| p.proposals[0].groups = vec![Group::EcpP384]);
    let (mut simulation, init) = begun(a, b);
    // B refuses the group of each of these; then it is A's turn with a demand for a cookie.
    let cookie = demand(&init, NotifyType::COOKIE, b"cookie of b");
    let second = only(deliver(&mut simulation, 0, &cookie));
    let group = only(deliver(&mut simulation, 1, &second));
    let third = only(deliver(&mut simulation, 0, &group));
    assert_eq!(cookie_of(&third).unwrap(), b"cookie of b", "the shorter exchange of 2.6.1");
    // A responder that cannot do it demands another cookie.
    let cookie = demand(&init, NotifyType::COOKIE, b"another");
    let fourth = only(deliver(&mut simulation, 0, &cookie));
    assert_eq!(cookie_of(&fourth).unwrap(), b"another");
    let answer = only(deliver(&mut simulation, 1, &fourth));
    deliver(&mut simulation, 0, &answer);
    assert_eq!(states(&simulation, 0), ["authenticating"]);
}

#[test]
fn another_group_is_followed_with_the_full_offer() {
    let a = with_peer(policies_of_a(), |p| {
        p.proposals[0].groups = vec![Group::X25519, Group::EcpP384];
    });
    let b = with_peer(policies_of_b(), |p| p.proposals[0].groups = vec![Group::EcpP384]);
    let (mut simulation, init) = begun(a, b);
    let answer = only(deliver(&mut simulation, 1, &init));
    let message = Message::decode(&answer).unwrap();
    let Payload::Notify(notify) = &message.payloads[0] else { panic!("a notification") };
    assert_eq!(notify.kind, NotifyType::INVALID_KE_PAYLOAD);
    assert_eq!(notify.data, Group::EcpP384.id().0.to_be_bytes());
    let again = only(deliver(&mut simulation, 0, &answer));
    let (first, second) = (bodies(&init), bodies(&again));
    assert_eq!(first[0], second[0], "SA");
    assert_ne!(first[1], second[1], "KE");
    assert_eq!(first[2..], second[2..]);
}

#[test]
fn a_group_that_was_not_offered_or_makes_no_sense_is_not_followed() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let sent = 31_u16; // X25519
    for data in [&[0, 14][..], &sent.to_be_bytes(), &[0], &[], &[0, 0, 19]] {
        let refused = demand(&init, NotifyType::INVALID_KE_PAYLOAD, data);
        assert!(deliver(&mut simulation, 0, &refused).is_empty(), "{data:?}");
    }
    let noted = |e: &EventKind| matches!(e, EventKind::UnauthenticatedError(_));
    assert!(simulation.nodes[0].events.iter().any(|e| noted(&e.kind)));
}
