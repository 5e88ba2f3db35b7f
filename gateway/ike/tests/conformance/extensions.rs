//! What is not known: payloads, critical ones, notifications, vendor IDs, orders (RFC 7296 2.5,
//! 3.2, 3.10.1, 3.12).

use gateway_wire::{
    Configuration, ConfigurationAttribute, CpAttribute, CpType, Delete, PayloadType, Unknown,
};

use super::*;

const STRANGE: PayloadType = PayloadType(200);

const fn unknown(critical: bool) -> Payload<'static> {
    Payload::Unknown(Unknown { kind: STRANGE, critical, data: &[1, 2, 3] })
}

fn refusal() -> Payload<'static> {
    notification(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[STRANGE.0])
}

#[test]
fn an_unknown_payload_is_skipped_wherever_it_stands() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for at in [0, 2, 5] {
        let with = rewritten(&init, |payloads| payloads.insert(at, unknown(false)));
        let answer = only(deliver(&mut simulation, 1, &with));
        assert!(!header(&answer).responder_spi.is_zero());
    }
    let (mut simulation, auth) = half_open();
    let with = resealed(&simulation, 0, &auth, |payloads| {
        payloads.insert(0, unknown(false));
        payloads.push(unknown(false));
        payloads.push(Payload::VendorId(b"nobody knows"));
    });
    deliver(&mut simulation, 1, &with);
    assert_eq!(children(&simulation, 1), 1);
}

#[test]
fn an_unknown_payload_in_a_response_is_skipped() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let with = resealed(&simulation, 1, &answer, |p| p.insert(1, unknown(false)));
    deliver(&mut simulation, 0, &with);
    assert_eq!(children(&simulation, 0), 1);
}

#[test]
fn an_unknown_critical_payload_is_named_in_the_answer_to_every_exchange() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let with = rewritten(&init, |payloads| payloads.push(unknown(true)));
    let answer = only(deliver(&mut simulation, 1, &with));
    assert_eq!(Message::decode(&answer).unwrap().payloads, [refusal()]);
    assert!(simulation.nodes[1].endpoint.is_empty());

    let (mut simulation, auth) = half_open();
    let with = resealed(&simulation, 0, &auth, |payloads| payloads.push(unknown(true)));
    let answer = only(deliver(&mut simulation, 1, &with));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert_eq!(opened.payloads().unwrap(), [refusal()]);
    assert_eq!(states(&simulation, 1), ["closing"]);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 0, "AUTH is not looked at");

    for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
        let mut simulation = connected();
        let spis = vec![simulation.nodes[0].kernel.children.values().next().unwrap().inbound.spi];
        let delete = Payload::Delete(Delete { protocol: ProtocolId::ESP, spis });
        let answer = ask(&mut simulation, 0, exchange, NEXT_OF_A, &[delete, unknown(true)]);
        assert_eq!(answer.payloads().unwrap(), [refusal()]);
        assert_eq!(children(&simulation, 1), 1, "the rest of the message is not obeyed");
        ask(&mut simulation, 0, ExchangeType::INFORMATIONAL, NEXT_OF_A + 1, &[]);
    }
}

#[test]
fn an_ike_sa_that_is_closing_names_an_unknown_critical_payload_too() {
    let mut simulation = connected();
    simulation.input(1, Input::Shutdown);
    assert_eq!(states(&simulation, 1), ["closing"]);
    for (exchange, id) in
        [(ExchangeType::INFORMATIONAL, NEXT_OF_A), (ExchangeType::CREATE_CHILD_SA, NEXT_OF_A + 1)]
    {
        let answer = ask(&mut simulation, 0, exchange, id, &[unknown(true)]);
        let payloads = answer.payloads().unwrap();
        let expected = notification(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[STRANGE.0]);
        assert_eq!(payloads, [expected]);
    }
}

#[test]
fn an_unknown_critical_payload_before_the_encrypted_one_is_named_if_the_message_is_authentic() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let header = forge.header(ExchangeType::INFORMATIONAL, false, NEXT_OF_A);
    let len = u16::try_from(forge.body_len(0).unwrap()).unwrap() + 4;
    let total = 28 + 5 + u32::from(len);
    let mut prefix = header.encode(STRANGE, total).to_vec();
    prefix.extend([PayloadType::SK.0, 0x80, 0, 5, 0xaa]);
    prefix.extend([PayloadType::NONE.0, 0]);
    prefix.extend(len.to_be_bytes());
    let request = forge.seal_behind(&header, prefix, &[]).unwrap();
    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(deliver(&mut simulation, 1, &forged).is_empty());
    let answer = only(deliver(&mut simulation, 1, &request));
    assert_eq!(forge.open(&answer).unwrap().payloads().unwrap(), [refusal()]);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn an_unknown_critical_payload_in_a_response_makes_it_worthless() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let with = resealed(&simulation, 1, &answer, |payloads| payloads.push(unknown(true)));
    deliver(&mut simulation, 0, &with);
    assert_eq!(children(&simulation, 0), 0);
    assert_ne!(states(&simulation, 0), ["established"]);

    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let answer = only(deliver(&mut simulation, 1, &init));
    let with = rewritten(&answer, |payloads| payloads.push(unknown(true)));
    assert!(deliver(&mut simulation, 0, &with).is_empty());
    assert_eq!(deliver(&mut simulation, 0, &answer).len(), 1, "the true one is still taken");
}

#[test]
fn payloads_in_any_order_are_taken() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let turned = rewritten(&init, |payloads| payloads.reverse());
    let answer = only(deliver(&mut simulation, 1, &turned));
    assert!(!header(&answer).responder_spi.is_zero());

    let (mut simulation, auth) = half_open();
    let turned = resealed(&simulation, 0, &auth, |payloads| payloads.reverse());
    let answer = only(deliver(&mut simulation, 1, &turned));
    let turned = resealed(&simulation, 1, &answer, |payloads| payloads.reverse());
    deliver(&mut simulation, 0, &turned);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
}

#[test]
fn payloads_are_sent_in_the_order_of_the_figures() {
    let simulation = connected();
    let forge = forge(&simulation, 0);
    let kinds = |octets: &[u8]| {
        let opened = forge.open(octets);
        let inside = opened.as_ref().map(|o| o.payloads().unwrap());
        let payloads = inside.unwrap_or_else(|| Message::decode(octets).unwrap().payloads);
        let not_notify = |kind: &PayloadType| *kind != PayloadType::NOTIFY;
        payloads.iter().map(Payload::payload_type).filter(not_notify).collect::<Vec<_>>()
    };
    use PayloadType as P;
    let (a, b) = (&simulation.nodes[0].sent, &simulation.nodes[1].sent);
    assert_eq!(kinds(&a[0].1), [P::SA, P::KE, P::NONCE]);
    assert_eq!(kinds(&b[0].1), [P::SA, P::KE, P::NONCE]);
    assert_eq!(kinds(&a[1].1), [P::ID_I, P::ID_R, P::AUTH, P::SA, P::TS_I, P::TS_R]);
    assert_eq!(kinds(&b[1].1), [P::ID_R, P::AUTH, P::SA, P::TS_I, P::TS_R]);
}

#[test]
fn unknown_notifications_in_a_request_are_ignored() {
    let strange = [notification(NotifyType(8191), &[1]), notification(NotifyType(50_000), &[])];
    let (mut simulation, auth) = half_open();
    let with = resealed(&simulation, 0, &auth, |payloads| payloads.extend(strange.clone()));
    deliver(&mut simulation, 1, &with);
    assert_eq!(children(&simulation, 1), 1);
    let mut simulation = connected();
    let answer = ask(&mut simulation, 0, ExchangeType::INFORMATIONAL, NEXT_OF_A, &strange);
    assert!(answer.payloads().unwrap().is_empty());
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn an_unknown_status_in_a_response_is_ignored_and_an_unknown_error_is_a_failure() {
    for (kind, expected) in [(50_000, 1), (8191, 0), (16_383, 0), (16_384 + 400, 1)] {
        let (mut simulation, auth) = half_open();
        let answer = only(deliver(&mut simulation, 1, &auth));
        let with = resealed(&simulation, 1, &answer, |payloads| {
            payloads.push(notification(NotifyType(kind), &[]));
        });
        let sent = deliver(&mut simulation, 0, &with);
        assert_eq!(children(&simulation, 0), expected, "{kind}");
        if expected == 0 {
            // The Child SA stands at the other end, which must hear that it does not here.
            given_up(&simulation, 0, &only(sent));
            assert_eq!(states(&simulation, 0), ["established"], "AUTH was good");
        }
    }
}

#[test]
fn a_protocol_without_an_spi_means_nothing_in_a_notification() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let with = rewritten(&init, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::Notify(notify) = payload {
                notify.protocol = ProtocolId::IKE;
            }
        }
    });
    let answer = only(deliver(&mut simulation, 1, &with));
    assert!(!header(&answer).responder_spi.is_zero());
    assert!(!simulation.nodes[1].endpoint.status(simulation.now).ike_sas[0].nat_remote);
}

#[test]
fn an_offer_of_compression_is_passed_over() {
    let offer = notification(NotifyType::IPCOMP_SUPPORTED, &[0x12, 0x34, 2]);
    let (mut simulation, auth) = half_open();
    let with = resealed(&simulation, 0, &auth, |payloads| payloads.push(offer.clone()));
    let answer = only(deliver(&mut simulation, 1, &with));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert!(notified(&opened.payloads().unwrap()).is_empty());
    assert_eq!(children(&simulation, 1), 1);
    // Nor is one taken over that the peer adds.
    let with = resealed(&simulation, 1, &answer, |payloads| payloads.push(offer.clone()));
    deliver(&mut simulation, 0, &with);
    assert_eq!(children(&simulation, 0), 1);
}

fn configuration(kind: CpType, attribute: CpAttribute, value: &[u8]) -> Payload<'_> {
    let attributes = vec![ConfigurationAttribute { kind: attribute, value }];
    Payload::Configuration(Configuration { kind, attributes })
}

#[test]
fn a_question_for_our_version_is_answered_without_one() {
    let mut simulation = connected();
    let question = configuration(CpType::CFG_REQUEST, CpAttribute::APPLICATION_VERSION, &[]);
    let exchange = ExchangeType::INFORMATIONAL;
    let answer = ask(&mut simulation, 0, exchange, NEXT_OF_A, &[question]);
    for payload in answer.payloads().unwrap() {
        if let Payload::Configuration(answer) = payload {
            assert!(answer.attributes.iter().all(|a| a.value.is_empty()));
        }
    }
}

#[test]
fn settings_that_the_peer_pushes_are_not_accepted() {
    let mut simulation = connected();
    let push = configuration(CpType::CFG_SET, CpAttribute::INTERNAL_IP4_DNS, &[192, 0, 2, 53]);
    let exchange = ExchangeType::INFORMATIONAL;
    let answer = ask(&mut simulation, 0, exchange, NEXT_OF_A, &[push]);
    for payload in answer.payloads().unwrap() {
        if let Payload::Configuration(answer) = payload {
            assert!(answer.attributes.is_empty());
        }
    }
}
