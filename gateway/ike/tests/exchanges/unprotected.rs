//! What nothing protects: forged messages, errors, cookies, other versions.

use super::*;

#[test]
fn a_forged_message_leaves_no_trace() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let before = simulation.nodes[1].endpoint.status(simulation.now);
    let (path, genuine) = simulation.nodes[0].sent[1].clone();
    let to_b = gateway_ike::io::Path { local: path.remote, remote: path.local };
    // The next request in the window, with a body that nobody has the keys for.
    let mut forged = genuine;
    forged[23] = 2;
    forged[18] = 37;
    for sent in [&forged[..], &forged[..40], &[], &[0; 28]] {
        simulation.input(1, Input::Datagram { path: to_b, octets: sent });
    }
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now), before);
    assert!(counter(&simulation, 1, Counter::NotAuthentic) > 0);
    assert_eq!(simulation.nodes[1].sent.len(), 2, "and no answer");
}

#[test]
fn an_unauthenticated_error_does_not_stop_the_initiator() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    let (header, ..) = Header::decode(&request).unwrap();
    let mut answer = header;
    answer.flags.response = true;
    answer.flags.initiator = false;
    let refusal = Payload::Notify(gateway_wire::Notify {
        protocol: gateway_wire::ProtocolId::NONE,
        spi: &[],
        kind: NotifyType::NO_PROPOSAL_CHOSEN,
        data: &[],
    });
    let forged = gateway_wire::encode_message(&answer, &[refusal]).unwrap();
    simulation.input(0, Input::Datagram { path, octets: &forged });
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::UnauthenticatedError(_))));
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn cookies_are_demanded_above_the_threshold_and_cost_one_round_trip() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    // Half-open SAs from many addresses that never go on.
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    for n in 0..200_u8 {
        let mut other = request.clone();
        other[..8].copy_from_slice(&IkeSpi([n + 1; 8]).0);
        let flood = gateway_ike::io::Path {
            local: path.remote,
            remote: std::net::SocketAddr::new(A, 1000 + u16::from(n)),
        };
        simulation.input(1, Input::Datagram { path: flood, octets: &other });
    }
    assert!(counter(&simulation, 1, Counter::CookieDemanded) > 100);
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 64);
    simulation.run(Duration::from_secs(20));
    assert!(simulation.has_one_child_each().unwrap(), "who returns the cookie gets in");
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::CookieReceived)));
    // Without IKE_AUTH the flood is forgotten, and cookies with it.
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 0);
    assert!(has_event(&simulation, 1, |e| matches!(e, EventKind::CookieMode(false))));
}

#[test]
fn other_versions_are_answered_counted_and_named() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    let to_b = gateway_ike::io::Path { local: path.remote, remote: path.local };
    let before = simulation.nodes[1].sent.len();
    let mut first = request.clone();
    first[17] = 0x10;
    first[18] = 2; // Identity Protection, "main mode"
    simulation.input(1, Input::Datagram { path: to_b, octets: &first });
    assert_eq!(counter(&simulation, 1, Counter::IkeV1), 1);
    let named = simulation.nodes[1].events.iter().any(|e| {
        e.to_string().contains("peer speaks IKEv1") || e.to_string().contains("Peer speaks IKEv1")
    });
    assert!(named);
    let mut third = request;
    third[17] = 0x30;
    simulation.input(1, Input::Datagram { path: to_b, octets: &third });
    assert_eq!(counter(&simulation, 1, Counter::LaterVersion), 1);
    assert_eq!(simulation.nodes[1].sent.len(), before + 2);
    for (_, answer) in &simulation.nodes[1].sent[before..] {
        let message = gateway_wire::Message::decode(answer).unwrap();
        let Payload::Notify(notify) = &message.payloads[0] else { panic!("a notification") };
        assert_eq!(notify.kind, NotifyType::INVALID_MAJOR_VERSION);
        assert!(message.header.flags.response);
    }
}
