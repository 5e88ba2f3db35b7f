//! CREATE_CHILD_SA: new and successive Child SAs, new keys for the IKE SA (RFC 7296 1.3, 2.8, 2.9.2,
//! 2.18, 2.25). What crosses is in `collisions.rs`.

use gateway_ike::algorithms::Group;
use gateway_ike::io::KernelEvent;
use gateway_wire::{
    Delete, KeMethod, KeyExchange, Nonce, PayloadType, Proposal, SecurityAssociation,
    TrafficSelectors, TransformType,
};

use super::*;

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const HOUR: Duration = Duration::from_secs(3600);

/// A request of A for a Child SA for one of its prefixes, perhaps in place of another.
pub(super) fn child_request(simulation: &Simulation, net: &str, replaces: Option<u32>) -> Vec<u8> {
    let forge = forge(simulation, 0);
    let auth = forge.open(&simulation.nodes[0].sent[1].1).unwrap();
    let mut payloads = auth.payloads().unwrap();
    use PayloadType as P;
    payloads.retain(|p| matches!(p.payload_type(), P::SA | P::TS_I | P::TS_R));
    for payload in &mut payloads {
        match payload {
            Payload::TsInitiator(ts) => {
                *ts = TrafficSelectors::new(vec![selectors::selector(net)]);
            }
            Payload::SecurityAssociation(sa) => {
                sa.proposals.iter_mut().for_each(|p| p.spi = vec![0x77; 4]);
            }
            _ => {}
        }
    }
    payloads.push(Payload::Nonce(Nonce(&[0x5a; 32])));
    let spi = replaces.map(u32::to_be_bytes);
    if let Some(spi) = &spi {
        let kind = NotifyType::REKEY_SA;
        let rekey = Notify { protocol: ProtocolId::ESP, spi, kind, data: &[] };
        payloads.insert(0, Payload::Notify(rekey));
    }
    forge.seal(&forge.header(EXCHANGE, false, NEXT_OF_A), &payloads).unwrap()
}

/// Hands B a request of A; gives the answer.
pub(super) fn send(simulation: &mut Simulation, request: &[u8]) -> Opened {
    let forge = forge(simulation, 0);
    forge.open(&only(deliver(simulation, 1, request))).unwrap()
}

fn sa_of<'a>(payloads: &'a [Payload<'_>]) -> &'a SecurityAssociation {
    let sa = payloads.iter().find_map(|p| match p {
        Payload::SecurityAssociation(sa) => Some(sa),
        _ => None,
    });
    sa.unwrap()
}

fn kinds(payloads: &[Payload<'_>]) -> Vec<PayloadType> {
    payloads.iter().map(Payload::payload_type).collect()
}

pub(super) fn inbound(simulation: &Simulation, node: usize) -> u32 {
    simulation.nodes[node].kernel.children.values().next().unwrap().inbound.spi
}

/// A's Child SA is to be replaced; gives the request.
pub(super) fn rekeying_child(simulation: &mut Simulation) -> Vec<u8> {
    let before = simulation.nodes[0].sent.len();
    let expire = KernelEvent::Expire { spi: inbound(simulation, 0), destination: A, hard: false };
    simulation.input(0, Input::Kernel(expire));
    only(simulation.nodes[0].sent[before..].iter().map(|(_, o)| o.clone()).collect())
}

/// A's IKE SA is to get new keys; gives the request.
pub(super) fn rekeying_ike(a: PolicySet, b: PolicySet) -> (Simulation, Vec<u8>) {
    let a = with_peer(a, |p| p.lifetime = HOUR);
    let mut simulation = connect(a, b);
    let before = simulation.nodes[0].sent.len();
    simulation.now += HOUR;
    simulation.input(0, Input::Timeout);
    let sent = simulation.nodes[0].sent[before..].iter().map(|(_, o)| o.clone()).collect();
    (simulation, only(sent))
}

fn with_pfs(policies: PolicySet, groups: &[Group]) -> PolicySet {
    with_protect(policies, |p| p.proposals[0].groups = groups.to_vec())
}

#[test]
fn a_rekey_names_the_old_child_sa_by_our_inbound_spi_and_asks_for_the_same() {
    let mut simulation = connected();
    let spi = inbound(&simulation, 0).to_be_bytes();
    let request = rekeying_child(&mut simulation);
    let forge = forge(&simulation, 0);
    let (auth, rekey) = (&simulation.nodes[0].sent[1].1, forge.open(&request).unwrap());
    let payloads = rekey.payloads().unwrap();
    let expected =
        Notify { protocol: ProtocolId::ESP, spi: &spi, kind: NotifyType::REKEY_SA, data: &[] };
    assert_eq!(payloads[0], Payload::Notify(expected));
    let auth = forge.open(auth).unwrap();
    let of = |payloads: &[Payload<'_>], kind| match payloads
        .iter()
        .find(|p| p.payload_type() == kind)
        .unwrap()
    {
        Payload::TsInitiator(ts) | Payload::TsResponder(ts) => ts.entries.clone(),
        other => panic!("{other:?}"),
    };
    for kind in [PayloadType::TS_I, PayloadType::TS_R] {
        // But for the packet that waited then, which was named first.
        assert_eq!(of(&payloads, kind), of(&auth.payloads().unwrap(), kind)[1..]);
    }
}

#[test]
fn a_rekey_of_a_child_sa_that_is_not_there_is_told_so_with_its_spi() {
    let mut simulation = connected();
    let request = child_request(&simulation, "10.1.0.0/24", Some(0xdead_beef));
    let answer = send(&mut simulation, &request);
    let payloads = answer.payloads().unwrap();
    let [Payload::Notify(notify)] = &payloads[..] else { panic!("a notification") };
    assert_eq!(notify.kind, NotifyType::CHILD_SA_NOT_FOUND);
    assert_eq!((notify.protocol, notify.spi), (ProtocolId::ESP, &[0xde, 0xad, 0xbe, 0xef][..]));
    assert_eq!(states(&simulation, 1), ["established"]);
}

/// B's answer to a request of A: one notification.
fn refuse(simulation: &mut Simulation, request: &[u8], kind: NotifyType) -> Vec<Vec<u8>> {
    let forge = forge(simulation, 1);
    let id = header(request).message_id.0;
    let answer = forge.seal(&forge.header(EXCHANGE, true, id), &[notification(kind, &[])]).unwrap();
    deliver(simulation, 0, &answer)
}

#[test]
fn after_child_sa_not_found_another_is_made_from_scratch() {
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    let old = inbound(&simulation, 0);
    let mut sent = refuse(&mut simulation, &request, NotifyType::CHILD_SA_NOT_FOUND);
    simulation.run(MINUTE);
    let gone = simulation.nodes[0].kernel.children.values().all(|c| c.inbound.spi != old);
    assert!(gone, "silently");
    sent.extend(simulation.nodes[0].sent.iter().map(|(_, octets)| octets.clone()));
    let forge = forge(&simulation, 0);
    let last = forge.open(sent.last().unwrap()).unwrap();
    assert!(!notified(&last.payloads().unwrap()).contains(&NotifyType::REKEY_SA));
}

#[test]
fn after_temporary_failure_nothing_is_tried_at_once() {
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    assert!(refuse(&mut simulation, &request, NotifyType::TEMPORARY_FAILURE).is_empty());
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_millis(200));
    assert_eq!(simulation.nodes[0].sent.len(), before);
    simulation.run(MINUTE);
    assert!(simulation.nodes[0].sent.len() > before, "but later");

    let (mut simulation, request) = rekeying_ike(policies_of_a(), policies_of_b());
    assert!(refuse(&mut simulation, &request, NotifyType::TEMPORARY_FAILURE).is_empty());
    let before = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_millis(200));
    assert_eq!(simulation.nodes[0].sent.len(), before);
}

#[test]
fn new_keys_of_an_ike_sa_come_with_a_key_exchange_and_new_spis_and_numbers() {
    let (mut simulation, request) = rekeying_ike(policies_of_a(), policies_of_b());
    let old = forge(&simulation, 0);
    let opened = old.open(&request).unwrap();
    let payloads = opened.payloads().unwrap();
    use PayloadType as P;
    assert_eq!(kinds(&payloads), [P::SA, P::NONCE, P::KE]);
    assert!(sa_of(&payloads).proposals.iter().all(|p| p.spi.len() == 8));
    let has_group = |p: &Proposal| p.transforms.iter().any(|t| t.kind == TransformType::KE);
    let is_none = |p: &Proposal| {
        p.transforms.iter().any(|t| t.kind == TransformType::KE && t.id == KeMethod::NONE.0)
    };
    assert!(sa_of(&payloads).proposals.iter().all(|p| has_group(p) && !is_none(p)));
    let answer = deliver(&mut simulation, 1, &request).remove(0);
    let opened = old.open(&answer).unwrap();
    assert_eq!(kinds(&opened.payloads().unwrap()), [P::SA, P::NONCE, P::KE]);
    // The last request on the old one deletes it; it has the next number there.
    let mut sent = deliver(&mut simulation, 0, &answer);
    let opened = old.open(&sent.remove(0)).unwrap();
    assert_eq!(opened.header.message_id.0, header(&request).message_id.0 + 1);
    let delete = Delete { protocol: ProtocolId::IKE, spis: Vec::new() };
    assert_eq!(opened.payloads().unwrap(), [Payload::Delete(delete)]);
    // The new one has the Child SA, other SPIs, and begins with number 0 each way; its first
    // request brings a token of crash detection.
    let first = header(&only(sent));
    assert_eq!(first.message_id.0, 0);
    assert!(first.flags.initiator);
    assert_ne!(first.initiator_spi, header(&request).initiator_spi);
    assert_ne!(first.responder_spi, header(&request).responder_spi);
}

#[test]
fn new_keys_without_a_key_exchange_are_refused() {
    let none = |payloads: &mut Vec<Payload<'_>>| {
        payloads.retain(|p| p.payload_type() != PayloadType::KE);
        for payload in payloads.iter_mut() {
            if let Payload::SecurityAssociation(sa) = payload {
                for transform in sa.proposals.iter_mut().flat_map(|p| &mut p.transforms) {
                    if transform.kind == TransformType::KE {
                        transform.id = KeMethod::NONE.0;
                    }
                }
            }
        }
    };
    let (mut simulation, request) = rekeying_ike(policies_of_a(), policies_of_b());
    let old = forge(&simulation, 0);
    let without = resealed(&simulation, 0, &request, none);
    let answer = old.open(&only(deliver(&mut simulation, 1, &without))).unwrap();
    assert!(kinds(&answer.payloads().unwrap()).iter().all(|k| *k == PayloadType::NOTIFY));
    // Also with a value that belongs to nothing in the offer.
    let (mut simulation, request) = rekeying_ike(policies_of_a(), policies_of_b());
    let old = forge(&simulation, 0);
    let with_value = resealed(&simulation, 0, &request, |payloads| {
        none(payloads);
        let method = KeMethod::CURVE25519;
        payloads.push(Payload::KeyExchange(KeyExchange { method, data: &[9; 32] }));
    });
    let answer = old.open(&only(deliver(&mut simulation, 1, &with_value))).unwrap();
    assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::NO_PROPOSAL_CHOSEN]);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn a_child_sa_of_its_own_exchange_has_a_value_of_a_group_that_it_offers() {
    let groups = [Group::X25519, Group::EcpP384];
    let a = with_pfs(policies_of_a(), &groups);
    let mut simulation = connect(a, with_pfs(policies_of_b(), &groups));
    let request = rekeying_child(&mut simulation);
    let forge = forge(&simulation, 0);
    let opened = forge.open(&request).unwrap();
    let payloads = opened.payloads().unwrap();
    let ke = payloads.iter().find_map(|p| match p {
        Payload::KeyExchange(ke) => Some(ke.method.0),
        _ => None,
    });
    let offered = |t: &gateway_wire::Transform| t.kind == TransformType::KE && Some(t.id) == ke;
    assert!(sa_of(&payloads).proposals[0].transforms.iter().any(offered));
    let answer = forge.open(&only(deliver(&mut simulation, 1, &request))).unwrap();
    let payloads = answer.payloads().unwrap();
    let answered =
        payloads.iter().any(|p| matches!(p, Payload::KeyExchange(ke) if ke.data.len() == 32));
    assert!(answered);
}

#[test]
fn a_child_sa_with_the_wrong_group_is_refused_with_the_right_one() {
    let a = with_pfs(policies_of_a(), &[Group::X25519, Group::EcpP384]);
    let mut simulation = connect(a, with_pfs(policies_of_b(), &[Group::EcpP384]));
    let request = rekeying_child(&mut simulation);
    let forge = forge(&simulation, 0);
    let answer = deliver(&mut simulation, 1, &request).remove(0);
    let opened = forge.open(&answer).unwrap();
    let wanted = Group::EcpP384.id().0.to_be_bytes();
    let expected = [notification(NotifyType::INVALID_KE_PAYLOAD, &wanted)];
    assert_eq!(opened.payloads().unwrap(), expected);
    // And then it is that one.
    let again = forge.open(&only(deliver(&mut simulation, 0, &answer))).unwrap();
    let payloads = again.payloads().unwrap();
    let right =
        |p: &Payload<'_>| matches!(p, Payload::KeyExchange(ke) if ke.method == Group::EcpP384.id());
    assert!(payloads.iter().any(right));
}

#[test]
fn where_the_child_sa_needs_no_key_exchange_the_value_is_ignored() {
    // A offers a group or none; B has none for it.
    let a = with_pfs(policies_of_a(), &[Group::X25519]);
    let mut simulation = connect(a, policies_of_b());
    let request = rekeying_child(&mut simulation);
    let with_none = resealed(&simulation, 0, &request, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::SecurityAssociation(sa) = payload {
                let transforms = &mut sa.proposals[0].transforms;
                let ke = transforms.iter().find(|t| t.kind == TransformType::KE).copied().unwrap();
                transforms.push(gateway_wire::Transform { id: KeMethod::NONE.0, ..ke });
            }
        }
    });
    let answer = send(&mut simulation, &with_none);
    let payloads = answer.payloads().unwrap();
    let mut chosen = sa_of(&payloads).proposals[0].transforms.iter();
    assert!(chosen.any(|t| t.kind == TransformType::KE && t.id == KeMethod::NONE.0));
    assert!(!kinds(&payloads).contains(&PayloadType::KE));
}

#[test]
fn after_no_additional_sas_another_ike_sa_takes_over() {
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    let sent = refuse(&mut simulation, &request, NotifyType::NO_ADDITIONAL_SAS);
    let exchanges = sent.iter().map(|m| header(m).exchange).collect::<Vec<_>>();
    assert_eq!(exchanges, [ExchangeType::IKE_SA_INIT]);
    // The old ones stay until the new ones stand, and then go.
    assert_eq!(children(&simulation, 0), 1);
    let old = inbound(&simulation, 0);
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(states(&simulation, 0), ["established"]);
    assert_ne!(inbound(&simulation, 0), old);
}

#[test]
fn a_successor_narrower_than_what_it_replaces_is_not_taken() {
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    let old = inbound(&simulation, 0);
    let answer = only(deliver(&mut simulation, 1, &request));
    let narrower = resealed(&simulation, 1, &answer, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::TsResponder(ts) = payload {
                *ts = TrafficSelectors::new(vec![selectors::selector("10.2.0.0/25")]);
            }
        }
    });
    let sent = deliver(&mut simulation, 0, &narrower);
    assert_eq!(inbound(&simulation, 0), old, "it goes on");
    assert_eq!(children(&simulation, 0), 1);
    let forge = forge(&simulation, 0);
    let delete = forge.open(&only(sent)).unwrap();
    assert_eq!(kinds(&delete.payloads().unwrap()), [PayloadType::DELETE], "of the new one");
    assert_eq!(states(&simulation, 0), ["established"]);
}

#[test]
fn nothing_is_narrowed_below_what_is_in_use() {
    // The rule covers less than before: what is in use ends with it, and has no successor.
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    let less = with_rule(policies_of_b(), |rule| {
        rule.local = vec!["10.2.0.0/25".parse().unwrap()];
    });
    let forge = forge(&simulation, 1);
    simulation.configure(1, less);
    let answer = deliver(&mut simulation, 1, &request);
    let answer = forge.open(answer.last().unwrap()).unwrap();
    assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::TEMPORARY_FAILURE]);
    assert_eq!(children(&simulation, 1), 0);
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn a_peer_that_puts_off_for_minutes_loses_the_ike_sa() {
    let mut simulation = connected();
    let mut request = rekeying_child(&mut simulation);
    let begun = simulation.now;
    for _attempt in 0..100 {
        refuse(&mut simulation, &request, NotifyType::TEMPORARY_FAILURE);
        if states(&simulation, 0) == ["closing"] {
            let time = simulation.now - begun;
            assert!(time >= 5 * MINUTE && time < 7 * MINUTE, "{time:?}");
            return;
        }
        let before = simulation.nodes[0].sent.len();
        while simulation.nodes[0].sent.len() == before {
            assert!(simulation.step(simulation.now + MINUTE));
        }
        request = simulation.nodes[0].sent[before].1.clone();
    }
    panic!("it is put off for ever");
}

#[test]
fn what_was_put_off_hours_ago_and_not_asked_for_again_does_not_count() {
    let mut simulation = connected();
    for _isolated in 0..3 {
        let request = rekeying_child(&mut simulation);
        refuse(&mut simulation, &request, NotifyType::TEMPORARY_FAILURE);
        assert_eq!(states(&simulation, 0), ["established"]);
        // The machine sleeps: nothing is asked meanwhile.
        simulation.now += 60 * MINUTE;
    }
}

#[test]
fn what_goes_well_in_between_ends_the_minutes() {
    let mut simulation = connected();
    for _round in 0..20 {
        let request = rekeying_child(&mut simulation);
        refuse(&mut simulation, &request, NotifyType::TEMPORARY_FAILURE);
        assert_eq!(states(&simulation, 0), ["established"]);
        // B has not seen it: it would take the next one for too new.
        let answer = forge(&simulation, 0).open(&request).unwrap();
        deliver(&mut simulation, 1, &request);
        assert_eq!(answer.header.exchange, EXCHANGE);
        simulation.network.set_faults(Faults::default());
        simulation.run(MINUTE);
        simulation.network.set_faults(CUT);
    }
    assert_eq!(states(&simulation, 0), ["established"]);
}

#[test]
fn where_rekeying_fails_up_to_the_hard_limit_the_ike_sa_is_closed() {
    let hard = |simulation: &mut Simulation| {
        let spi = inbound(simulation, 0);
        let expire = KernelEvent::Expire { spi, destination: A, hard: true };
        simulation.input(0, Input::Kernel(expire));
    };
    let mut simulation = connected();
    let request = rekeying_child(&mut simulation);
    refuse(&mut simulation, &request, NotifyType::NO_PROPOSAL_CHOSEN);
    assert_eq!(states(&simulation, 0), ["established"], "not yet");
    hard(&mut simulation);
    assert_eq!(states(&simulation, 0), ["closing"]);
    assert_eq!(children(&simulation, 0), 0);
    // Where nothing has failed, the Child SA alone goes.
    let mut simulation = connected();
    hard(&mut simulation);
    assert_eq!(states(&simulation, 0), ["established"]);
}

#[test]
fn a_group_for_a_child_sa_that_was_not_offered_or_makes_no_sense_is_not_followed() {
    let groups = [Group::X25519, Group::EcpP384];
    let sent = Group::X25519.id().0.to_be_bytes();
    for data in [&[0, 14][..], &sent, &[20], &[], &[0, 0, 20]] {
        let a = with_pfs(policies_of_a(), &groups);
        let mut simulation = connect(a, with_pfs(policies_of_b(), &groups));
        let request = rekeying_child(&mut simulation);
        let old = inbound(&simulation, 0);
        let forge = forge(&simulation, 1);
        let header = forge.header(EXCHANGE, true, header(&request).message_id.0);
        let demand = notification(NotifyType::INVALID_KE_PAYLOAD, data);
        let answer = forge.seal(&header, &[demand]).unwrap();
        assert!(deliver(&mut simulation, 0, &answer).is_empty(), "{data:?}");
        assert_eq!(states(&simulation, 0), ["established"]);
        assert_eq!((children(&simulation, 0), inbound(&simulation, 0)), (1, old));
    }
}

/// A's IKE SA has new keys at both ends and B is still to hear that the old ones go; gives the old
/// keys, and the number of A's next request by them.
pub(super) fn rekeyed() -> (Simulation, Forge, u32) {
    let (mut simulation, request) = rekeying_ike(policies_of_a(), policies_of_b());
    let old = forge(&simulation, 0);
    let answer = deliver(&mut simulation, 1, &request).remove(0);
    deliver(&mut simulation, 0, &answer);
    (simulation, old, header(&request).message_id.0 + 1)
}

#[test]
fn on_an_ike_sa_that_has_been_replaced_nothing_is_obeyed_but_its_delete() {
    let exchange = ExchangeType::INFORMATIONAL;
    let delete = |protocol, spis| Payload::Delete(Delete { protocol, spis });
    let (mut simulation, old, next) = rekeyed();
    let spis = vec![inbound(&simulation, 0)];
    let say = |simulation: &mut Simulation, id, payload| {
        let request = old.seal(&old.header(exchange, false, id), &[payload]).unwrap();
        let answer = old.open(&only(deliver(simulation, 1, &request))).unwrap();
        assert!(answer.payloads().unwrap().is_empty());
    };
    say(&mut simulation, next, delete(ProtocolId::ESP, spis));
    assert_eq!(children(&simulation, 1), 1, "it has gone to the new one");
    say(&mut simulation, next + 1, delete(ProtocolId::IKE, Vec::new()));
    assert_eq!(children(&simulation, 1), 1);
    assert!(states(&simulation, 1).contains(&"established"), "the new one");
    // Nor is anything made by it.
    let (mut simulation, old, next) = rekeyed();
    let payloads = [Payload::Nonce(Nonce(&[0x5a; 32]))];
    let request = old.seal(&old.header(EXCHANGE, false, next), &payloads).unwrap();
    let answer = old.open(&only(deliver(&mut simulation, 1, &request))).unwrap();
    assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::TEMPORARY_FAILURE]);
}

#[test]
fn a_new_ike_sa_takes_no_request_that_goes_on_with_the_numbers_of_the_old_one() {
    let (mut simulation, old, next) = rekeyed();
    let delete = Delete { protocol: ProtocolId::IKE, spis: Vec::new() };
    let header = old.header(ExchangeType::INFORMATIONAL, false, next);
    let goodbye = old.seal(&header, &[Payload::Delete(delete)]).unwrap();
    let answer = only(deliver(&mut simulation, 1, &goodbye));
    deliver(&mut simulation, 0, &answer);
    let new = forge(&simulation, 0);
    assert_ne!(new.header(EXCHANGE, false, 0).initiator_spi, header.initiator_spi);
    let outside = counter(&simulation, 1, Counter::OutsideWindow);
    for (id, is_taken) in [(next + 1, false), (1, false), (0, true), (1, true), (3, false)] {
        let header = new.header(ExchangeType::INFORMATIONAL, false, id);
        let request = new.seal(&header, &[]).unwrap();
        assert_eq!(deliver(&mut simulation, 1, &request).len(), usize::from(is_taken), "{id}");
    }
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), outside + 3);
}
