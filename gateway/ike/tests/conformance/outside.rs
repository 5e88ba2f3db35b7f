//! Messages outside of an IKE SA, and unprotected ones about one (RFC 7296 1.5, 2.4, 2.5, 2.21.1,
//! 2.21.4).

use gateway_ike::config::{EndpointConfig, Identity};

use super::*;

#[test]
fn a_request_for_an_unknown_ike_sa_is_told_so_with_its_own_header() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    for (exchange, id) in [(ExchangeType::INFORMATIONAL, 7), (ExchangeType::IKE_AUTH, 1)] {
        let mut request = forge.seal(&forge.header(exchange, false, id), &[]).unwrap();
        request[8..16].fill(0x77);
        let path = Path { remote: SocketAddr::new(A, 4711), ..path_to(1) };
        let answer = only(deliver_by(&mut simulation, 1, path, &request));
        assert_eq!(simulation.nodes[1].sent.last().unwrap().0, path);
        let (asked, message) = (header(&request), Message::decode(&answer).unwrap());
        assert_eq!(message.header.initiator_spi, asked.initiator_spi);
        assert_eq!(message.header.responder_spi, asked.responder_spi);
        assert_eq!((message.header.exchange, message.header.message_id.0), (exchange, id));
        assert!(message.header.flags.response);
        assert_eq!(message.payloads[0], notification(NotifyType::INVALID_IKE_SPI, &[]));
        assert_eq!(notified(&message.payloads), [NotifyType::INVALID_IKE_SPI]);
    }
    assert_eq!(counter(&simulation, 1, Counter::UnknownIkeSpi), 2);
}

#[test]
fn a_response_for_an_unknown_ike_sa_is_not_answered() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let mut response =
        forge.seal(&forge.header(ExchangeType::INFORMATIONAL, true, 2), &[]).unwrap();
    response[8..16].fill(0x77);
    assert!(deliver(&mut simulation, 1, &response).is_empty());
    assert_eq!(counter(&simulation, 1, Counter::UnknownIkeSpi), 1);
}

#[test]
fn the_answer_to_another_version_has_ours_in_its_header_and_all_else_of_the_request() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for version in [0x30, 0x21, 0xff] {
        let mut request = init.clone();
        request[17] = version;
        request[18] = 77;
        request[23] = 9;
        let sent = deliver(&mut simulation, 1, &request);
        if version == 0x21 {
            assert!(sent.is_empty(), "version 2.1 is 2.0 for us, with an unknown exchange");
            continue;
        }
        let answer = only(sent);
        assert_eq!(answer[17], 0x20);
        let message = Message::decode(&answer).unwrap();
        assert_eq!(message.header.initiator_spi, header(&init).initiator_spi);
        assert_eq!((message.header.exchange.0, message.header.message_id.0), (77, 9));
        assert!(message.header.flags.response);
        assert_eq!(message.payloads, [notification(NotifyType::INVALID_MAJOR_VERSION, &[])]);
    }
}

#[test]
fn a_response_of_another_version_is_not_answered() {
    let (mut simulation, mut init) = begun(policies_of_a(), policies_of_b());
    init[17] = 0x30;
    init[19] |= 0x20;
    assert!(deliver(&mut simulation, 1, &init).is_empty());
    assert_eq!(counter(&simulation, 1, Counter::LaterVersion), 1);
}

#[test]
fn answers_to_strangers_have_a_limit() {
    let mut simulation = connected();
    let mut request = simulation.nodes[0].sent[1].1.clone();
    request[8..16].fill(0x77);
    let mut later = request.clone();
    later[17] = 0x30;
    let unsuitable = rewritten(&simulation.nodes[0].sent[0].1, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::SecurityAssociation(sa) = payload {
                sa.proposals.iter_mut().for_each(|p| p.transforms[0].id = 4711);
                sa.proposals.iter_mut().for_each(|p| p.transforms.truncate(1));
            }
        }
    });
    // A demand for a cookie is shorter than what it answers, and no error.
    let is_cookie = |answer: &[u8]| {
        notified(&Message::decode(answer).unwrap().payloads) == [NotifyType::COOKIE]
    };
    let errors = |answers: Vec<Vec<u8>>| answers.iter().filter(|a| !is_cookie(a)).count();
    let count = |simulation: &mut Simulation| {
        (0..200)
            .map(|_| [&request, &later, &unsuitable].map(|m| errors(deliver(simulation, 1, m))))
            .fold([0; 3], |sum, each| [sum[0] + each[0], sum[1] + each[1], sum[2] + each[2]])
    };
    let each = count(&mut simulation);
    assert_eq!(each.iter().sum::<usize>(), 100);
    assert!(each.iter().all(|n| *n > 0), "all share it: {each:?}");
    let silent = counter(&simulation, 1, Counter::UnprotectedAnswerLimited);
    let cookies = counter(&simulation, 1, Counter::CookieDemanded);
    assert_eq!(silent + cookies, 500);
    assert!(cookies > 100, "requests are refused no more: {cookies}");
    simulation.run(Duration::from_secs(2));
    assert_eq!(count(&mut simulation).iter().sum::<usize>(), 100);
    // What leads on to an IKE SA, or belongs to one, has no part in it (nor, after a while, cookies).
    simulation.now += Duration::from_secs(30);
    let init = simulation.nodes[0].sent[0].1.clone();
    let other_group = rewritten(&init, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::KeyExchange(ke) = payload {
                ke.method = gateway_wire::KeMethod(14);
            }
        }
    });
    let answer = only(deliver(&mut simulation, 1, &other_group));
    let payloads = Message::decode(&answer).unwrap().payloads;
    assert_eq!(notified(&payloads), [NotifyType::INVALID_KE_PAYLOAD]);
    ask(&mut simulation, 0, ExchangeType::INFORMATIONAL, NEXT_OF_A, &[]);
}

#[test]
fn unprotected_errors_about_an_ike_sa_change_nothing_and_are_not_answered() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(12));
    let question = header(&simulation.nodes[0].sent[before].1);
    let kinds = [
        NotifyType::INVALID_IKE_SPI,
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_MAJOR_VERSION,
        NotifyType::INVALID_SPI,
    ];
    for kind in kinds {
        let mut answer = question;
        answer.flags.response = true;
        answer.flags.initiator = false;
        for header in [answer, Header { flags: question.flags, ..answer }] {
            let forged = encode_message(&header, &[notification(kind, &[])]).unwrap();
            assert!(deliver(&mut simulation, 0, &forged).is_empty());
        }
    }
    assert_eq!(states(&simulation, 0), ["established"]);
    assert!(counter(&simulation, 0, Counter::NotAuthentic) > 0);
    // Until the peer is heard, it is asked as before: what it was told was a hint at most.
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(states(&simulation, 0), ["established"]);
}

#[test]
fn an_unprotected_message_about_an_unknown_spi_is_not_answered() {
    // RFC 7296 1.5: it looks like a request, and an answer could begin a loop.
    let mut simulation = connected();
    let header = Header {
        initiator_spi: gateway_wire::IkeSpi::ZERO,
        responder_spi: gateway_wire::IkeSpi::ZERO,
        exchange: ExchangeType::INFORMATIONAL,
        flags: gateway_wire::Flags { response: false, version: false, initiator: true },
        message_id: MessageId(0),
    };
    let hint = notification(NotifyType::INVALID_SPI, &[0, 0, 1, 2]);
    let message = encode_message(&header, &[hint]).unwrap();
    assert!(deliver(&mut simulation, 1, &message).is_empty());
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn an_unprotected_error_to_ike_sa_init_is_not_believed() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for kind in [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::INVALID_SYNTAX,
        NotifyType::INVALID_MAJOR_VERSION,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType(8191),
    ] {
        let mut header = header(&init);
        header.flags.response = true;
        header.flags.initiator = false;
        let forged = encode_message(&header, &[notification(kind, &[])]).unwrap();
        assert!(deliver(&mut simulation, 0, &forged).is_empty());
    }
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 0), 1);
}

#[test]
fn strangers_that_are_refused_take_nobodys_place() {
    let config = EndpointConfig { ike_sa_limit: 8, ..EndpointConfig::default() };
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    let stranger = |n: u32| {
        with_peer(policies_of_a(), |peer| {
            peer.local_id = Identity::Fqdn(format!("stranger-{n}.test"));
        })
    };
    simulation.configure(1, policies_of_b());
    // All of them within the time for which an answer is kept.
    for n in 0..300 {
        simulation.configure(0, stranger(n));
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_millis(90));
    }
    assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), 300);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaLimit), 0);
    assert_eq!(states(&simulation, 1).len(), 256, "of the last ones");
    assert_eq!(counter(&simulation, 1, Counter::RefusedForgotten), 300 - 256);
    simulation.configure(0, policies_of_a());
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert_eq!(children(&simulation, 1), 1);
    simulation.run(MINUTE);
    assert_eq!(states(&simulation, 1), ["established"], "the rest is forgotten");
}
