//! Deletes (RFC 7296 1.4.1, 2.4, 2.25.1, 2.25.2, 3.11).

use gateway_ike::io::KernelEvent;
use gateway_wire::{Delete, PayloadType};

use super::*;

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn delete(protocol: ProtocolId, spis: Vec<u32>) -> Payload<'static> {
    Payload::Delete(Delete { protocol, spis })
}

/// The inbound SPI of a node's one Child SA.
fn inbound(simulation: &Simulation, node: usize) -> u32 {
    simulation.nodes[node].kernel.children.values().next().unwrap().inbound.spi
}

/// A's Child SA reaches its end; gives the request that says so.
fn expired(simulation: &mut Simulation) -> Vec<u8> {
    let before = simulation.nodes[0].sent.len();
    let expire = KernelEvent::Expire { spi: inbound(simulation, 0), destination: A, hard: true };
    simulation.input(0, Input::Kernel(expire));
    only(simulation.nodes[0].sent[before..].iter().map(|(_, o)| o.clone()).collect())
}

#[test]
fn a_delete_closes_the_pair_and_is_answered_with_the_other_half() {
    let mut simulation = connected();
    let (of_a, of_b) = (inbound(&simulation, 0), inbound(&simulation, 1));
    let request = expired(&mut simulation);
    assert_eq!(children(&simulation, 0), 0, "both directions are gone");
    let forge = forge(&simulation, 0);
    let sent = forge.open(&request).unwrap();
    assert_eq!(sent.header.exchange, INFORMATIONAL);
    assert_eq!(sent.payloads().unwrap(), [delete(ProtocolId::ESP, vec![of_a])]);
    let answer = forge.open(&only(deliver(&mut simulation, 1, &request))).unwrap();
    assert_eq!(answer.payloads().unwrap(), [delete(ProtocolId::ESP, vec![of_b])]);
    assert_eq!(children(&simulation, 1), 0);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn deletes_that_cross_are_answered_without_a_delete() {
    let mut simulation = connected();
    let of_b = inbound(&simulation, 1);
    expired(&mut simulation);
    let crossing = [delete(ProtocolId::ESP, vec![of_b])];
    let answer = ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &crossing);
    assert!(answer.payloads().unwrap().is_empty());
}

#[test]
fn a_delete_of_what_is_not_there_is_answered_without_a_delete() {
    let mut simulation = connected();
    let (of_a, of_b) = (inbound(&simulation, 0), inbound(&simulation, 1));
    // Not there, of another protocol, and named from the wrong end.
    let spis = vec![of_a ^ 1, of_b];
    let payloads = [delete(ProtocolId::ESP, spis), delete(ProtocolId::AH, vec![of_a])];
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &payloads);
    assert!(answer.payloads().unwrap().is_empty());
    assert_eq!(children(&simulation, 1), 1);
}

/// Policies of A and B with a second rule.
fn with_two_rules() -> (PolicySet, PolicySet) {
    let (net_a, net_b) = ("10.1.9.0/24".parse().unwrap(), "10.2.9.0/24".parse().unwrap());
    let of_a = protect("more", "b", net_a, net_b, Start::Always);
    let of_b = protect("more", "a", net_b, net_a, Start::Respond);
    (with_more(policies_of_a(), of_a), with_more(policies_of_b(), of_b))
}

#[test]
fn a_delete_may_name_several_and_there_may_be_several() {
    let (a, b) = with_two_rules();
    for together in [true, false] {
        let mut simulation = connect(a.clone(), b.clone());
        assert_eq!(children(&simulation, 1), 2);
        let of = |node: usize| {
            let children = simulation.nodes[node].kernel.children.values();
            children.map(|c| c.inbound.spi).collect::<std::collections::BTreeSet<_>>()
        };
        let (spis, expected) = (of(0), of(1));
        let payloads = if together {
            vec![delete(ProtocolId::ESP, spis.iter().copied().collect())]
        } else {
            spis.iter().map(|spi| delete(ProtocolId::ESP, vec![*spi])).collect()
        };
        // IKE_AUTH was 1 and the second Child SA 2.
        let answer = ask(&mut simulation, 0, INFORMATIONAL, 3, &payloads);
        let payloads = answer.payloads().unwrap();
        let [Payload::Delete(answer)] = &payloads[..] else { panic!("one Delete") };
        assert_eq!(
            answer.spis.iter().copied().collect::<std::collections::BTreeSet<_>>(),
            expected
        );
        assert_eq!(children(&simulation, 1), 0);
    }
}

/// SPIs of another protocol than the payload says, which 3.11 forbids: where their size gives it away
/// the message is none, and the IKE SA ends (2.21.3); where it does not, no such SA is found.
#[test]
fn a_delete_with_spis_of_another_protocol_takes_nothing_by_them() {
    let (esp, ike) = ([0x11, 0x22, 0x33, 0x44], [0x55; 8]);
    let mixed: [(ProtocolId, u8, &[u8]); 5] = [
        (ProtocolId::IKE, 4, &esp),
        (ProtocolId::IKE, 8, &ike),
        (ProtocolId::ESP, 8, &ike),
        (ProtocolId::ESP, 0, &[]),
        (ProtocolId::AH, 8, &ike),
    ];
    for (protocol, size, spi) in mixed {
        let mut simulation = connected();
        let body = [&[protocol.0, size, 0, 1], spi].concat();
        let length = u8::try_from(4 + body.len()).unwrap();
        let payload = [&[0, 0, 0, length], body.as_slice()].concat();
        let answer = ask_octets(&mut simulation, INFORMATIONAL, PayloadType::DELETE, &payload);
        let payloads = answer.payloads().unwrap();
        assert_eq!(notified(&payloads), [NotifyType::INVALID_SYNTAX], "{protocol:?} {size}");
        assert_eq!(states(&simulation, 1), ["closing"]);
    }
    // One SPI of AH among those of ESP, and one of ESP among those of AH, in payloads that are whole.
    let mut simulation = connected();
    let (of_a, of_b) = (inbound(&simulation, 0), inbound(&simulation, 1));
    let of_ah = [delete(ProtocolId::AH, vec![0x1234, of_a])];
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &of_ah);
    assert!(answer.payloads().unwrap().is_empty());
    assert_eq!(children(&simulation, 1), 1);
    let of_esp = [delete(ProtocolId::ESP, vec![0x1234, of_a])];
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A + 1, &of_esp);
    assert_eq!(answer.payloads().unwrap(), [delete(ProtocolId::ESP, vec![of_b])]);
    assert_eq!(children(&simulation, 1), 0);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn a_delete_of_the_ike_sa_closes_its_children_and_gets_an_empty_answer() {
    let mut simulation = connected();
    let spis = vec![inbound(&simulation, 0)];
    let payloads = [delete(ProtocolId::ESP, spis), delete(ProtocolId::IKE, Vec::new())];
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &payloads);
    assert!(answer.payloads().unwrap().is_empty());
    assert_eq!(children(&simulation, 1), 0);
    assert_eq!(states(&simulation, 1), ["closing"], "to repeat its last answer");
    simulation.run(MINUTE);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn closing_an_ike_sa_says_so() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    simulation.input(0, Input::Shutdown);
    let opened = forge.open(&simulation.nodes[0].sent.last().unwrap().1).unwrap();
    assert_eq!(opened.payloads().unwrap(), [delete(ProtocolId::IKE, Vec::new())]);
}

#[test]
fn deletes_of_the_ike_sa_that_cross_are_both_answered() {
    let mut simulation = connected();
    simulation.network.set_faults(Faults::default());
    simulation.input(0, Input::Shutdown);
    simulation.input(1, Input::Shutdown);
    simulation.run(Duration::from_secs(1));
    for node in &simulation.nodes {
        let sent = node.sent.iter().filter(|(_, octets)| {
            let header = header(octets);
            header.exchange == INFORMATIONAL && header.flags.response
        });
        assert_eq!(sent.count(), 1);
        assert!(node.endpoint.is_closed());
    }
}

#[test]
fn nothing_is_left_of_an_sa_once_its_delete_is_answered() {
    let mut simulation = connected();
    let request = expired(&mut simulation);
    let answer = only(deliver(&mut simulation, 1, &request));
    deliver(&mut simulation, 0, &answer);
    let ends = [delete(ProtocolId::IKE, Vec::new())];
    // B's first request; A goes with it, and then holds neither an SA nor an SPI.
    ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &ends);
    simulation.run(MINUTE);
    assert!(simulation.nodes[0].endpoint.is_empty());
}

#[test]
fn whatever_answers_a_delete_the_pair_is_gone_and_nothing_else() {
    let (a, b) = with_two_rules();
    for case in 0..4 {
        let mut simulation = connect(a.clone(), b.clone());
        let (gone, stays) = (inbound(&simulation, 0), {
            let last = simulation.nodes[0].kernel.children.values().last().unwrap();
            (last.inbound.spi, last.outbound.spi)
        });
        let request = expired(&mut simulation);
        assert_ne!(gone, stays.0);
        // Nothing, what is not there, the other pair, and the whole IKE SA.
        let answer = match case {
            0 => Vec::new(),
            1 => vec![delete(ProtocolId::ESP, vec![1234]), delete(ProtocolId::AH, vec![stays.1])],
            2 => vec![delete(ProtocolId::ESP, vec![stays.1])],
            _ => vec![delete(ProtocolId::IKE, Vec::new())],
        };
        let forge = forge(&simulation, 1);
        let place = forge.header(INFORMATIONAL, true, header(&request).message_id.0);
        let answer = forge.seal(&place, &answer).unwrap();
        // The rule whose Child SA has gone gets another.
        let sent = only(deliver(&mut simulation, 0, &answer));
        assert_eq!(header(&sent).exchange, ExchangeType::CREATE_CHILD_SA, "{case}");
        assert_eq!(states(&simulation, 0), ["established"], "{case}");
        let left: Vec<_> =
            simulation.nodes[0].kernel.children.values().map(|c| c.inbound.spi).collect();
        assert_eq!(left, [stays.0], "{case}");
    }
}
