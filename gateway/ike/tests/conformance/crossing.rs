//! A peer that does not do what RFC 7296 asks of it where both ends want something at once (2.3, 2.8,
//! 2.8.2, 2.25). That both ends agree where both do it is in `collisions.rs`.

use gateway_ike::event::EventKind;
use gateway_wire::{Delete, Nonce};

use super::rekey::{child_request, inbound};
use super::window::asking;
use super::*;

const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const HOUR: Duration = Duration::from_secs(3600);

fn delete(protocol: ProtocolId, spis: Vec<u32>) -> Payload<'static> {
    Payload::Delete(Delete { protocol, spis })
}

fn sent_since(simulation: &Simulation, node: usize, before: usize) -> Vec<Vec<u8>> {
    simulation.nodes[node].sent[before..].iter().map(|(_, octets)| octets.clone()).collect()
}

/// It asks and asks, and leaves what we ask unanswered: that holds none of its answers back, and all
/// that it asks does not stand for an answer.
#[test]
fn a_peer_that_asks_and_never_answers_is_answered_until_it_is_given_up() {
    let (mut simulation, waiting) = asking();
    let first = |(_, octets): &(_, Vec<u8>)| *octets == waiting;
    let before = simulation.nodes[0].sent.iter().position(first).unwrap();
    let at_b = forge(&simulation, 1);
    let mut answered = 0;
    for id in 0..200 {
        let request = at_b.seal(&at_b.header(INFORMATIONAL, false, id), &[]).unwrap();
        let sent = deliver(&mut simulation, 0, &request);
        if states(&simulation, 0) != ["established"] {
            break;
        }
        let answer = at_b.open(&only(sent)).unwrap();
        assert!(answer.header.flags.response && answer.header.message_id.0 == id);
        answered += 1;
        simulation.run(Duration::from_secs(2));
    }
    assert!(answered > 5, "{answered}");
    let asked = sent_since(&simulation, 0, before);
    let asked: Vec<_> = asked.iter().filter(|m| !header(m).flags.response).collect();
    assert!(asked.len() > 3 && asked.iter().all(|m| **m == waiting), "again and again the same");
    let dead = |kind: &EventKind| matches!(kind, EventKind::PeerDead { .. });
    assert!(simulation.nodes[0].events.iter().any(|event| dead(&event.kind)));
    assert_eq!(children(&simulation, 0), 0);
}

/// It makes two Child SAs for the same, and deletes one for the other's sake: that one goes, the
/// other stays, and nothing is made in its place.
#[test]
fn a_peer_that_deletes_a_child_sa_because_another_is_the_same_keeps_the_other() {
    let mut simulation = connected();
    let first = inbound(&simulation, 0);
    let of_first = inbound(&simulation, 1);
    let request = child_request(&simulation, "10.1.0.0/24", None);
    let at_a = forge(&simulation, 0);
    at_a.open(&only(deliver(&mut simulation, 1, &request))).unwrap();
    assert_eq!(children(&simulation, 1), 2);
    let goes = [delete(ProtocolId::ESP, vec![first])];
    let answer = ask(&mut simulation, 0, INFORMATIONAL, NEXT_OF_A + 1, &goes);
    assert_eq!(answer.payloads().unwrap(), [delete(ProtocolId::ESP, vec![of_first])]);
    let before = simulation.nodes[1].sent.len();
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 1), 1);
    assert_ne!(inbound(&simulation, 1), of_first);
    assert_eq!(sent_since(&simulation, 1, before), Vec::<Vec<u8>>::new());
}

/// A and B have rekeyed the IKE SA at once and each has the other's answer. Gives whether A's is to
/// stay, and B's end of the other one.
fn both_rekeyed(seed: u64) -> (bool, Simulation, Forge) {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), seed);
    let aging = |policies| with_peer(policies, |p| p.lifetime = HOUR);
    simulation.configure(1, aging(policies_of_b()));
    simulation.configure(0, aging(policies_of_a()));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation.network.set_faults(CUT);
    simulation.now += HOUR;
    let requests = [0, 1].map(|node| {
        let before = simulation.nodes[node].sent.len();
        simulation.input(node, Input::Timeout);
        only(sent_since(&simulation, node, before))
    });
    let of_a = only(deliver(&mut simulation, 0, &requests[1]));
    let of_b = only(deliver(&mut simulation, 1, &requests[0]));
    deliver(&mut simulation, 0, &of_b);
    deliver(&mut simulation, 1, &of_a);
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    let stays = status.ike_sas.iter().find(|sa| sa.state == "established").unwrap();
    // Whoever made it is its initiator; what is redundant is the youngest of B's.
    let redundant = forge(&simulation, 1);
    assert_ne!(redundant.header(INFORMATIONAL, false, 0).initiator_spi, stays.initiator_spi);
    (stays.initiator, simulation, redundant)
}

/// B leaves its redundant IKE SA standing, and would use it: there is nothing on it, all that it asks
/// there changes nothing, and it goes in the end. The one that won has the Child SAs all the time.
#[test]
fn a_redundant_ike_sa_that_the_peer_leaves_standing_has_nothing_and_goes() {
    let found = (0..16).map(both_rekeyed).filter(|(ours, ..)| *ours);
    let mut seen = 0;
    for (_, mut simulation, redundant) in found {
        seen += 1;
        let children_of_both = [0, 1].map(|node| inbound(&simulation, node));
        let say = |simulation: &mut Simulation, exchange, id, payload| {
            let header = redundant.header(exchange, false, id);
            let request = redundant.seal(&header, &[payload]).unwrap();
            redundant.open(&only(deliver(simulation, 0, &request))).unwrap()
        };
        let spis = vec![children_of_both[1]];
        let answer = say(&mut simulation, INFORMATIONAL, 0, delete(ProtocolId::ESP, spis));
        assert!(answer.payloads().unwrap().is_empty());
        let nonce = Payload::Nonce(Nonce(&[0x5a; 32]));
        let answer = say(&mut simulation, CREATE_CHILD_SA, 1, nonce);
        assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::TEMPORARY_FAILURE]);
        assert_eq!([0, 1].map(|node| inbound(&simulation, node)), children_of_both);
        // B's own Delete of it has a number that is taken: it never comes.
        simulation.network.set_faults(Faults::default());
        simulation.run(10 * MINUTE);
        assert_eq!(states(&simulation, 0), ["established"]);
        assert_eq!(states(&simulation, 1), ["established"]);
        assert_eq!([0, 1].map(|node| inbound(&simulation, node)), children_of_both);
        assert_eq!(simulation.exchange_traffic(), []);
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
    assert!(seen > 2, "{seen}");
}

/// It says goodbye too, and never answers ours: its own is answered, and ours is forgotten.
#[test]
fn a_peer_that_deletes_the_ike_sa_too_need_not_answer_our_delete() {
    let mut simulation = connected();
    simulation.input(0, Input::Shutdown);
    let ours = simulation.nodes[0].sent.last().unwrap().1.clone();
    assert!(!header(&ours).flags.response);
    let goodbye = [delete(ProtocolId::IKE, Vec::new())];
    let answer = ask(&mut simulation, 1, INFORMATIONAL, NEXT_OF_B, &goodbye);
    assert!(answer.payloads().unwrap().is_empty());
    let before = simulation.nodes[0].sent.len();
    simulation.run(10 * MINUTE);
    assert_eq!(sent_since(&simulation, 0, before), Vec::<Vec<u8>>::new());
    assert!(simulation.nodes[0].endpoint.is_closed());
    let dead = |kind: &EventKind| matches!(kind, EventKind::PeerDead { .. });
    assert!(!simulation.nodes[0].events.iter().any(|event| dead(&event.kind)));
}

/// It takes no notice of TEMPORARY_FAILURE, and asks for Child SAs again and again while we rekey
/// the IKE SA: each is put off, and the rekeying comes to its end.
#[test]
fn a_peer_that_asks_again_at_once_is_put_off_again_and_the_rekeying_goes_on() {
    let b = with_peer(policies_of_b(), |p| p.lifetime = HOUR);
    let mut simulation = connect(policies_of_a(), b);
    let before = simulation.nodes[1].sent.len();
    simulation.now += HOUR;
    simulation.input(1, Input::Timeout);
    let rekeying = only(sent_since(&simulation, 1, before));
    assert_eq!(header(&rekeying).exchange, CREATE_CHILD_SA);
    let at_a = forge(&simulation, 0);
    let spi = inbound(&simulation, 0);
    for (n, replaces) in [None, Some(spi), None, None, Some(spi)].into_iter().enumerate() {
        let request = at_a.open(&child_request(&simulation, "10.1.0.0/24", replaces)).unwrap();
        let id = NEXT_OF_A + u32::try_from(n).unwrap();
        let header = at_a.header(CREATE_CHILD_SA, false, id);
        let request = at_a.seal(&header, &request.payloads().unwrap()).unwrap();
        let answer = at_a.open(&only(deliver(&mut simulation, 1, &request))).unwrap();
        assert_eq!(notified(&answer.payloads().unwrap()), [NotifyType::TEMPORARY_FAILURE]);
        assert_eq!(children(&simulation, 1), 1);
    }
    assert_eq!(counter(&simulation, 1, Counter::TemporaryFailure), 5);
    let answer = deliver(&mut simulation, 0, &rekeying).remove(0);
    deliver(&mut simulation, 1, &answer);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaRekeyed), 1);
    assert_eq!(children(&simulation, 1), 1);
}
