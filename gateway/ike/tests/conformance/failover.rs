//! A peer that is a cluster, one member of which takes over from another (RFC 6311): `tests/rfc6311.md` has
//! the table. The new member is a forge with the keys of the old one.

use gateway_ike::event::EventKind;
use gateway_ike::testing::Refusal;
use gateway_wire::{Delete, TrafficSelectors};

use super::rekey::{child_request, inbound, rekeyed, rekeying_child, rekeying_ike};
use super::*;

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const SUPPORTED: NotifyType = NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED;
const NONCE: [u8; 4] = [9, 8, 7, 6];

/// What the notification carries: the sender's next request, and the other end's.
fn ids(next_request: u32, next_expected: u32) -> Vec<u8> {
    [NONCE, next_request.to_be_bytes(), next_expected.to_be_bytes()].concat()
}

fn set_ids(data: &[u8]) -> Payload<'_> {
    notification(NotifyType::IKEV2_MESSAGE_ID_SYNC, data)
}

/// A request with the number 0 in the name of a node.
fn request(simulation: &Simulation, from: usize, payloads: &[Payload<'_>]) -> Vec<u8> {
    let forge = forge(simulation, from);
    forge.seal(&forge.header(INFORMATIONAL, false, 0), payloads).unwrap()
}

/// The new member in the place of a node sets the message IDs; gives what the other end sends.
fn take_over(simulation: &mut Simulation, from: usize, ids: &[u8]) -> Vec<Vec<u8>> {
    let request = request(simulation, from, &[set_ids(ids)]);
    deliver(simulation, 1 - from, &request)
}

/// What an answer to the new member in the place of a node says.
fn says(simulation: &Simulation, from: usize, answer: &[u8]) -> Vec<u8> {
    let opened = forge(simulation, from).open(answer).unwrap();
    assert_eq!((opened.header.message_id.0, opened.header.exchange), (0, INFORMATIONAL));
    assert!(opened.header.flags.response);
    let payloads = opened.payloads().unwrap();
    let one = match &payloads[..] {
        [Payload::Notify(notify)] => Some((notify.kind, notify.data.to_vec())),
        _ => None,
    };
    let (kind, data) = one.unwrap();
    assert_eq!(kind, NotifyType::IKEV2_MESSAGE_ID_SYNC);
    data
}

/// The new member has not been heard: nothing is said, and A's next request is what it was.
fn is_not_heard(simulation: &mut Simulation, request: &[u8]) {
    let before = counter(simulation, 1, Counter::MessageIdsNotSet);
    assert!(deliver(simulation, 1, request).is_empty());
    assert_eq!(counter(simulation, 1, Counter::MessageIdsNotSet), before + 1);
}

fn last_sent(simulation: &Simulation, node: usize) -> Vec<u8> {
    simulation.nodes[node].sent.last().unwrap().1.clone()
}

/// B asks whether A lives, and nothing answers; gives the request.
fn asking() -> (Simulation, Vec<u8>) {
    let b = with_peer(policies_of_b(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(policies_of_a(), b);
    simulation.run(Duration::from_secs(11));
    let asked = last_sent(&simulation, 1);
    assert!(!header(&asked).flags.response);
    (simulation, asked)
}

#[test]
fn each_end_says_in_ike_auth_that_message_ids_may_be_set_and_the_responder_if_the_initiator_has() {
    let (mut simulation, auth) = half_open();
    let supported = notification(SUPPORTED, &[]);
    let opened = forge(&simulation, 0).open(&auth).unwrap();
    assert!(opened.payloads().unwrap().contains(&supported));
    let answer = only(deliver(&mut simulation, 1, &auth));
    assert!(forge(&simulation, 0).open(&answer).unwrap().payloads().unwrap().contains(&supported));

    let (mut simulation, auth) = half_open();
    let without = resealed(&simulation, 0, &auth, |payloads| payloads.retain(|p| *p != supported));
    let answer = only(deliver(&mut simulation, 1, &without));
    assert!(!forge(&simulation, 0).open(&answer).unwrap().payloads().unwrap().contains(&supported));
}

#[test]
fn after_a_failover_both_ends_go_on_and_no_child_sa_is_lost() {
    for (from, next) in [(0, NEXT_OF_A), (1, NEXT_OF_B)] {
        let mut simulation = connected();
        let to = 1 - from;
        // The number of the next request of the end that stays: the other one's of the two.
        let own = NEXT_OF_A + NEXT_OF_B - next;
        let answer = only(take_over(&mut simulation, from, &ids(next + 40, own + 7)));
        assert_eq!(says(&simulation, from, &answer), ids(own + 7, next + 40));
        assert_eq!(counter(&simulation, to, Counter::MessageIdsSet), 1);
        let set = EventKind::MessageIdsSet { next_request: own + 7, next_expected: next + 40 };
        assert!(simulation.nodes[to].events.iter().any(|e| e.kind == set));
        // The numbers of before are over.
        let forge = forge(&simulation, from);
        let old = forge.seal(&forge.header(INFORMATIONAL, false, next), &[]).unwrap();
        assert!(deliver(&mut simulation, to, &old).is_empty());
        for id in [next + 40, next + 41] {
            assert_eq!(ask(&mut simulation, from, INFORMATIONAL, id, &[]).header.message_id.0, id);
        }
        assert_eq!(children(&simulation, to), 1);
        let before = simulation.nodes[to].sent.len();
        simulation.input(to, Input::Shutdown);
        let goodbye = simulation.nodes[to].sent[before].1.clone();
        assert_eq!(header(&goodbye).message_id.0, own + 7);
        let header = forge.header(INFORMATIONAL, true, own + 7);
        deliver(&mut simulation, to, &forge.seal(&header, &[]).unwrap());
        assert!(simulation.nodes[to].endpoint.is_empty());
    }
}

#[test]
fn a_member_that_knows_all_numbers_changes_none() {
    let mut simulation = connected();
    let answer = only(take_over(&mut simulation, 0, &ids(NEXT_OF_A, NEXT_OF_B)));
    assert_eq!(says(&simulation, 0, &answer), ids(NEXT_OF_B, NEXT_OF_A));
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
}

#[test]
fn a_child_sa_is_made_under_the_new_numbers() {
    let mut simulation = connected();
    take_over(&mut simulation, 0, &ids(20, 0));
    let request = child_request(&simulation, "10.1.0.0/25", None);
    let opened = forge(&simulation, 0).open(&request).unwrap();
    let payloads = opened.payloads().unwrap();
    let exchange = ExchangeType::CREATE_CHILD_SA;
    let answer = ask(&mut simulation, 0, exchange, 20, &payloads);
    let is_ts = |p: &Payload<'_>| matches!(p, Payload::TsResponder(TrafficSelectors { .. }));
    assert!(answer.payloads().unwrap().iter().any(is_ts));
    assert_eq!(children(&simulation, 1), 2);
}

#[test]
fn a_request_under_way_goes_on_by_a_new_number() {
    for ahead in [0, 20] {
        let (mut simulation, asked) = asking();
        let id = header(&asked).message_id.0;
        // The member knows nothing of it, or has left room.
        let sent = take_over(&mut simulation, 0, &ids(50, id + ahead));
        let next = (id + 1).max(id + ahead);
        let [answer, again] = &sent[..] else { panic!("an answer and the request") };
        assert_eq!(says(&simulation, 0, answer), ids(next, 50));
        let by_a = forge(&simulation, 0);
        let (first, second) = (by_a.open(&asked).unwrap(), by_a.open(again).unwrap());
        assert_eq!(second.header, Header { message_id: MessageId(next), ..first.header });
        assert_eq!(second.plaintext, first.plaintext);
        // Only the answer to that counts.
        let mut answered = |id| {
            let response = by_a.seal(&by_a.header(INFORMATIONAL, true, id), &[]).unwrap();
            deliver(&mut simulation, 1, &response);
            let before = simulation.nodes[1].sent.len();
            simulation.run(Duration::from_secs(2));
            let again = &simulation.nodes[1].sent[before..];
            assert!(again.iter().all(|(_, octets)| header(octets).message_id.0 == next));
            again.is_empty()
        };
        assert!(!answered(id), "it is sent again");
        assert!(answered(next));
    }
}

#[test]
fn a_repeated_request_to_set_ids_changes_nothing_and_gets_the_same_answer_until_another_comes() {
    let mut simulation = connected();
    let data = ids(10, 5);
    let asks = request(&simulation, 0, &[set_ids(&data)]);
    let answer = only(deliver(&mut simulation, 1, &asks));
    assert_eq!(only(deliver(&mut simulation, 1, &asks)), answer);
    assert_eq!(counter(&simulation, 1, Counter::MessageIdsSet), 1);
    // Another one that says the same is not new, however fresh its nonce.
    let mut fresh = data;
    fresh[0] ^= 1;
    let fresh = request(&simulation, 0, &[set_ids(&fresh)]);
    is_not_heard(&mut simulation, &fresh);
    ask(&mut simulation, 0, INFORMATIONAL, 10, &[]);
    is_not_heard(&mut simulation, &asks);
    is_not_heard(&mut simulation, &fresh);
    ask(&mut simulation, 0, INFORMATIONAL, 11, &[]);
}

#[test]
fn a_request_to_set_ids_that_somebody_has_kept_back_is_not_heard_later() {
    let mut simulation = connected();
    let data = ids(6, 3);
    let kept = request(&simulation, 0, &[set_ids(&data)]);
    // The member has tried again, with higher numbers.
    take_over(&mut simulation, 0, &ids(8, 3));
    is_not_heard(&mut simulation, &kept);
    for id in 8..12 {
        ask(&mut simulation, 0, INFORMATIONAL, id, &[]);
        is_not_heard(&mut simulation, &kept);
    }
    // The next failover is heard.
    assert_eq!(take_over(&mut simulation, 0, &ids(13, 4)).len(), 1);
    ask(&mut simulation, 0, INFORMATIONAL, 13, &[]);
}

#[test]
fn numbers_never_go_down() {
    let (mut simulation, asked) = asking();
    let own = header(&asked).message_id.0;
    for next in [0, 1] {
        let data = ids(next, 100);
        let lower = request(&simulation, 0, &[set_ids(&data)]);
        is_not_heard(&mut simulation, &lower);
    }
    // What it does not know of our numbers it is told.
    let sent = take_over(&mut simulation, 0, &ids(NEXT_OF_A, 0));
    assert_eq!(says(&simulation, 0, &sent[0]), ids(own + 1, NEXT_OF_A));
}

#[test]
fn what_is_malformed_sets_nothing() {
    let mut simulation = connected();
    let data = ids(10, 5);
    let spis = vec![inbound(&simulation, 0)];
    let beside = Payload::Delete(Delete { protocol: ProtocolId::ESP, spis });
    let longer = [&data[..], &[0]].concat();
    let of_a_child = Notify {
        protocol: ProtocolId::ESP,
        spi: &[1, 2, 3, 4],
        kind: NotifyType::IKEV2_MESSAGE_ID_SYNC,
        data: &data,
    };
    let (last, our_last) = (ids(u32::MAX, 5), ids(10, u32::MAX));
    let malformed = [
        vec![set_ids(&data[..11])],
        vec![set_ids(&longer)],
        vec![set_ids(&[])],
        vec![set_ids(&data), set_ids(&data)],
        vec![set_ids(&data), beside.clone()],
        vec![beside, set_ids(&data)],
        vec![set_ids(&data), notification(NotifyType::INITIAL_CONTACT, &[])],
        vec![Payload::Notify(of_a_child)],
        vec![set_ids(&last)],
        vec![set_ids(&our_last)],
    ];
    for payloads in malformed {
        let request = request(&simulation, 0, &payloads);
        is_not_heard(&mut simulation, &request);
    }
    assert_eq!(children(&simulation, 1), 1, "nor is what stands beside it obeyed");
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
    assert_eq!(counter(&simulation, 1, Counter::MessageIdsSet), 0);
}

#[test]
fn who_has_no_keys_sets_nothing() {
    let mut simulation = connected();
    let data = ids(10, 5);
    let mut forged = request(&simulation, 0, &[set_ids(&data)]);
    *forged.last_mut().unwrap() ^= 1;
    assert!(deliver(&mut simulation, 1, &forged).is_empty());
    assert_eq!(counter(&simulation, 1, Counter::NotAuthentic), 1);
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
}

#[test]
fn number_0_is_for_nothing_else() {
    let mut simulation = connected();
    let delete = || Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() });
    for payloads in [vec![], vec![delete()]] {
        let request = request(&simulation, 0, &payloads);
        assert!(deliver(&mut simulation, 1, &request).is_empty());
    }
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 2);
    assert_eq!(states(&simulation, 1), ["established"]);
    // Outside of it the notification is one that nobody knows.
    let data = ids(10, 5);
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[set_ids(&data)]);
    assert_eq!(answer.payloads().unwrap(), []);
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A + 1, &[]);
}

#[test]
fn a_peer_that_has_not_said_so_in_ike_auth_sets_nothing() {
    let supported = notification(SUPPORTED, &[]);
    let data = ids(10, 5);
    // To the responder …
    let (mut simulation, auth) = half_open();
    let without = resealed(&simulation, 0, &auth, |payloads| payloads.retain(|p| *p != supported));
    let answer = only(deliver(&mut simulation, 1, &without));
    deliver(&mut simulation, 0, &answer);
    assert!(take_over(&mut simulation, 0, &data).is_empty());
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 1);
    ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A, &[]);
    // … and to the initiator, to whom number 0 is the responder's first request.
    let answer = ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &[set_ids(&data)]);
    assert_eq!(answer.payloads().unwrap(), []);
    ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B + 1, &[]);
    for node in 0..2 {
        assert_eq!(counter(&simulation, node, Counter::MessageIdsSet), 0);
    }
}

#[test]
fn new_keys_of_the_ike_sa_keep_what_was_agreed_and_take_nothing_that_was_set_under_the_old_ones() {
    let (mut simulation, old, next) = rekeyed();
    let goodbye = Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() });
    let goodbye = old.seal(&old.header(INFORMATIONAL, false, next), &[goodbye]).unwrap();
    let answer = only(deliver(&mut simulation, 1, &goodbye));
    deliver(&mut simulation, 0, &answer);
    let data = ids(20, 5);
    let by_the_old = old.seal(&old.header(INFORMATIONAL, false, 0), &[set_ids(&data)]).unwrap();
    deliver(&mut simulation, 1, &by_the_old);
    // The new ones have numbers of their own.
    ask(&mut simulation, 0, INFORMATIONAL, 0, &[]);
    let sent = take_over(&mut simulation, 0, &ids(30, 9));
    assert_eq!(says(&simulation, 0, &sent[0]), ids(9, 30));
    // B is about to tell its token of the new keys.
    assert!(sent[1..].iter().all(|again| header(again).message_id.0 == 9));
    ask(&mut simulation, 0, INFORMATIONAL, 30, &[]);
}

#[test]
fn an_answer_that_the_new_member_may_not_know_is_no_proof_of_a_successor() {
    for failover in [false, true] {
        let mut simulation = connected();
        let before = simulation.nodes[1].kernel.outbound.clone();
        let rekey = rekeying_child(&mut simulation);
        deliver(&mut simulation, 1, &rekey);
        let id = header(&rekey).message_id.0 + 1;
        let old = inbound(&simulation, 0);
        if failover {
            take_over(&mut simulation, 0, &ids(id, 0));
        }
        ask(&mut simulation, 0, INFORMATIONAL, id, &[]);
        assert_eq!(
            simulation.nodes[1].kernel.outbound == before,
            failover,
            "B sends by the old one"
        );
        // The old one is deleted by who has another.
        let delete = Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![old] });
        ask(&mut simulation, 0, INFORMATIONAL, id + 1, &[delete]);
        assert_ne!(simulation.nodes[1].kernel.outbound, before);
    }
}

#[test]
fn a_successor_that_the_new_member_does_not_know_goes_when_it_asks_for_another() {
    const ANOTHER: u32 = 0x1234_5678;
    let mut simulation = connected();
    let old = inbound(&simulation, 0);
    let rekey = rekeying_child(&mut simulation);
    deliver(&mut simulation, 1, &rekey);
    let id = header(&rekey).message_id.0 + 1;
    take_over(&mut simulation, 0, &ids(id, 0));
    let opened = forge(&simulation, 0).open(&rekey).unwrap();
    let mut payloads = opened.payloads().unwrap();
    for payload in &mut payloads {
        if let Payload::SecurityAssociation(sa) = payload {
            sa.proposals.iter_mut().for_each(|p| p.spi = ANOTHER.to_be_bytes().to_vec());
        }
    }
    ask(&mut simulation, 0, ExchangeType::CREATE_CHILD_SA, id, &payloads);
    let delete = Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![old] });
    ask(&mut simulation, 0, INFORMATIONAL, id + 1, &[delete]);
    let kernel = &simulation.nodes[1].kernel;
    let sending = kernel.outbound.iter().map(|child| kernel.children[child].outbound.spi);
    assert_eq!(sending.collect::<Vec<_>>(), [ANOTHER]);
    assert!(kernel.children.values().all(|c| [ANOTHER, old].contains(&c.outbound.spi)));
}

#[test]
fn a_child_sa_that_the_new_member_does_not_know_goes_when_it_asks_for_it_again() {
    let mut simulation = connected();
    let request = child_request(&simulation, "10.1.0.0/25", None);
    deliver(&mut simulation, 1, &request);
    assert_eq!(children(&simulation, 1), 2);
    take_over(&mut simulation, 0, &ids(20, 0));
    let opened = forge(&simulation, 0).open(&request).unwrap();
    let by_a = forge(&simulation, 0);
    let header = by_a.header(ExchangeType::CREATE_CHILD_SA, false, 20);
    let again = by_a.seal(&header, &opened.payloads().unwrap()).unwrap();
    // Its Delete goes before the answer.
    let answer = by_a.open(deliver(&mut simulation, 1, &again).last().unwrap()).unwrap();
    let is_ts = |p: &Payload<'_>| matches!(p, Payload::TsResponder(TrafficSelectors { .. }));
    assert!(answer.payloads().unwrap().iter().any(is_ts));
    assert_eq!(children(&simulation, 1), 2, "in its place");
}

#[test]
fn a_peer_that_has_not_shown_who_it_is_sets_no_ids() {
    let (mut simulation, auth) = half_open();
    let wrong = resealed(&simulation, 0, &auth, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::Authentication(auth) = payload {
                auth.data = &[0; 32];
            }
        }
    });
    assert_eq!(deliver(&mut simulation, 1, &wrong).len(), 1, "it is refused");
    let asks = request(&simulation, 0, &[set_ids(&ids(10, 5))]);
    is_not_heard(&mut simulation, &asks);
}

#[test]
fn a_goodbye_under_way_is_said_again_to_the_new_member() {
    let mut simulation = connected();
    simulation.input(1, Input::Shutdown);
    let goodbye = last_sent(&simulation, 1);
    let sent = take_over(&mut simulation, 0, &ids(9, 4));
    assert_eq!(sent.len(), 2);
    let by_a = forge(&simulation, 0);
    assert_eq!(by_a.open(&sent[1]).unwrap().plaintext, by_a.open(&goodbye).unwrap().plaintext);
    let response = by_a.seal(&by_a.header(INFORMATIONAL, true, 4), &[]).unwrap();
    deliver(&mut simulation, 1, &response);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

/// It would be put off for minutes, and its peer without a Child SA before it noticed.
#[test]
fn a_member_that_does_not_have_the_new_keys_hears_at_once_that_the_old_ones_are_over() {
    let always = with_protect(policies_of_a(), |protect| protect.start = Start::Always);
    let (mut simulation, request) = rekeying_ike(always, policies_of_b());
    // B goes on by the new ones, and its answer is lost.
    deliver(&mut simulation, 1, &request);
    simulation.fail_over(0, 3);
    simulation.network.set_faults(Faults::default());
    simulation.run(Duration::from_secs(10));
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    for node in 0..2 {
        assert_eq!(children(&simulation, node), 1);
        assert_eq!(counter(&simulation, node, Counter::IkeSaEstablished), 2, "from scratch");
        assert_eq!(states(&simulation, node).iter().filter(|s| **s == "established").count(), 1);
    }
}

#[test]
fn while_an_answer_waits_for_the_kernel_no_ids_are_set() {
    let mut simulation = connected();
    simulation.nodes[1].kernel.refusals.push_back(Refusal::Silence);
    let asked = child_request(&simulation, "10.1.0.0/25", None);
    assert!(deliver(&mut simulation, 1, &asked).is_empty());
    let data = ids(10, 5);
    let asks = request(&simulation, 0, &[set_ids(&data)]);
    is_not_heard(&mut simulation, &asks);
    simulation.run(MINUTE);
    assert_eq!(deliver(&mut simulation, 1, &asks).len(), 1, "the peer asks again");
    ask(&mut simulation, 0, INFORMATIONAL, 10, &[]);
}
