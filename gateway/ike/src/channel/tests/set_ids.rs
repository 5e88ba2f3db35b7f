//! Message IDs that the peer sets anew.

use gateway_wire::{Notify, NotifyType};

use super::*;
use crate::channel::set_ids::{Ids, IdsSet};

/// What one end of an IKE SA whose peer is a cluster meets.
#[derive(Debug, Clone)]
enum Step {
    /// Message IDs, so far from those in use.
    SetIds(i64, i64),
    /// The next request of the peer.
    Request,
    /// A request of ours, if none is under way.
    OurRequest,
    /// The answer to it.
    Answer,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let distance = || prop_oneof![-3_i64..6, Just(i64::from(u32::MAX))];
    let step = prop_oneof![
        (distance(), distance()).prop_map(|(ours, theirs)| Step::SetIds(ours, theirs)),
        Just(Step::Request),
        Just(Step::OurRequest),
        Just(Step::Answer),
    ];
    proptest::collection::vec(step, 0..20)
}

fn beside(number: u32, distance: i64) -> u32 {
    let moved = i64::from(number).saturating_add(distance).clamp(0, u32::MAX.into());
    u32::try_from(moved).unwrap()
}

/// A message of the peer, under any number.
fn sealed(peer: &mut Channel, response: bool, id: u32, payloads: &[Payload<'_>]) -> Vec<u8> {
    let (first, plaintext) = gateway_wire::encode_chain(payloads).unwrap();
    let exchange = ExchangeType::INFORMATIONAL;
    whole(peer.seal(&mut random(), exchange, response, id, first, &plaintext).unwrap())
}

fn asking(peer: &mut Channel, data: &[u8]) -> Vec<u8> {
    let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC;
    let notify = Notify { protocol: ProtocolId::NONE, spi: &[], kind, data };
    sealed(peer, false, 0, &[Payload::Notify(notify)])
}

fn set(channel: &mut Channel, datagram: &[u8]) -> Option<IdsSet> {
    let opened = open(channel, header(datagram), datagram)?;
    assert!(channel.is_to_set_ids(&opened));
    let config = EndpointConfig::default();
    channel.set_ids(start(), &config, &mut random(), &opened, datagram).unwrap()
}

/// The peer, and the end that is tested.
fn with_cluster() -> (Channel, Channel) {
    let (peer, mut ours) = ends(Encryption::Aes256Gcm16);
    ours.peer_sets_ids = true;
    (peer, ours)
}

#[test]
fn ids_are_a_nonce_and_two_numbers() {
    let data = [1, 2, 3, 4, 0, 0, 1, 0, 0, 0, 0, 7];
    let ids = Ids { nonce: [1, 2, 3, 4], next_request: 256, next_expected: 7 };
    assert_eq!(Ids::decode(&data), Some(ids));
    assert_eq!(ids.encode(), data);
}

#[test]
fn what_may_set_ids_is_told_by_its_header() {
    let (mut peer, mut ours) = with_cluster();
    let asks = asking(&mut peer, &[0; 12]);
    assert_eq!(place(&ours, &asks), Place::PerhapsSetsIds);
    let other = sealed(&mut peer, false, 5, &[]);
    assert_eq!(place(&ours, &other), Place::Outside, "another number");
    let header = Header { exchange: ExchangeType::CREATE_CHILD_SA, ..header(&asks) };
    assert_eq!(ours.place(&header, &asks), Place::Outside);
    ours.peer_sets_ids = false;
    assert_eq!(place(&ours, &asks), Place::Outside, "it was not agreed");
}

proptest! {
    #[test]
    fn ids_are_read_as_they_are_written(data in proptest::collection::vec(any::<u8>(), 0..32)) {
        let read = Ids::decode(&data);
        prop_assert_eq!(read.is_some(), data.len() == Ids::LEN);
        if let Some(ids) = read {
            prop_assert_eq!(&ids.encode()[..], data);
        }
    }

    /// Whatever comes, no number is used again, by either end.
    #[test]
    fn numbers_only_go_up(steps in steps()) {
        let (mut peer, mut ours) = with_cluster();
        let mut highest_seen = ours.next_expected.unwrap().checked_sub(1);
        let mut used = Vec::new();
        for step in steps {
            let (expected, next) = (ours.next_expected.unwrap(), ours.next_request);
            match step {
                Step::SetIds(to_us, from_us) => {
                    let (theirs, our_next) = (beside(expected, to_us), beside(next, from_us));
                    let ids = Ids { nonce: [7; 4], next_request: theirs, next_expected: our_next };
                    let datagram = asking(&mut peer, &ids.encode());
                    if matches!(place(&ours, &datagram), Place::Repeated(_)) {
                        continue; // it is the same as before
                    }
                    let under_way = ours.awaiting.as_ref().map(|a| a.exchange);
                    let answered = set(&mut ours, &datagram);
                    let is_new = highest_seen.is_none_or(|seen| theirs > seen);
                    let last = theirs == u32::MAX || our_next == u32::MAX;
                    prop_assert_eq!(answered.is_some(), is_new && !last);
                    let Some(answered) = answered else {
                        prop_assert_eq!((ours.next_expected, ours.next_request), (Some(expected), next));
                        continue;
                    };
                    highest_seen = Some(theirs);
                    prop_assert_eq!(answered.next_request, next.max(our_next));
                    prop_assert_eq!(answered.next_expected, theirs);
                    prop_assert_eq!(answered.again.is_some(), under_way.is_some());
                    used.extend(answered.again.map(|_| answered.next_request));
                    let answer = whole(answered.answer);
                    prop_assert_eq!(header(&answer).message_id.0, 0);
                    prop_assert_eq!(place(&ours, &datagram), Place::Repeated(&answer.into()));
                }
                Step::Request => {
                    let datagram = sealed(&mut peer, false, expected, &[]);
                    answer(&mut ours, &datagram);
                    highest_seen = Some(expected);
                }
                Step::OurRequest if !ours.is_busy() => {
                    used.push(header(&request(&mut ours)).message_id.0);
                }
                Step::Answer if ours.is_busy() => {
                    let datagram = sealed(&mut peer, true, *used.last().unwrap(), &[]);
                    prop_assert_eq!(place(&ours, &datagram), Place::AwaitedResponse);
                    ours.response_received();
                }
                Step::OurRequest | Step::Answer => {}
            }
            prop_assert!(ours.next_expected.unwrap() >= expected && ours.next_request >= next);
        }
        prop_assert!(used.is_sorted_by(|a, b| a < b), "{:?}", used);
    }
}
