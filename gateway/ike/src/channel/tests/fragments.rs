//! Messages in fragments (RFC 7383).

use super::*;
use crate::io::Path;

const EXCHANGE: ExchangeType = ExchangeType::INFORMATIONAL;
const LIMIT: usize = 32_768;
const TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const ANY: Fragmentation =
    Fragmentation { longest: 1000, limit: LIMIT, timeout: TIMEOUT };

/// Both ends, which send messages of up to `longest` octets whole.
fn fragmenting(encryption: Encryption, longest: usize) -> (Channel, Channel) {
    let (mut initiator, mut responder) = ends(encryption);
    for end in [&mut initiator, &mut responder] {
        end.set_fragmentation(Some(Fragmentation { longest, ..ANY }));
    }
    (initiator, responder)
}

/// A request of one payload with so many octets.
fn send(from: &mut Channel, octets: &[u8]) -> Vec<Vec<u8>> {
    let config = EndpointConfig::default();
    let payload = [Payload::VendorId(octets)];
    from.request(start(), &config, &mut random(), EXCHANGE, &payload).unwrap().0
}

fn receive(to: &mut Channel, datagram: &[u8]) -> Received {
    to.receive(start(), header(datagram), datagram)
}

fn dropped(received: Received) -> Counter {
    match received {
        Received::Dropped(reason) => reason,
        Received::Fragment => panic!("it was kept"),
        Received::Message(_) => panic!("it was whole"),
    }
}

fn kept(received: &Received) -> bool {
    matches!(received, Received::Fragment)
}

/// The octets of the one payload.
fn octets_of(received: Received) -> Vec<u8> {
    let Received::Message(opened) = received else { panic!("the message is not whole") };
    let payloads = opened.payloads().unwrap();
    let [Payload::VendorId(octets)] = payloads.as_slice() else { panic!("{payloads:?}") };
    octets.to_vec()
}

/// The same request, cut into pieces of another size.
fn cut_anew(encryption: Encryption, longest: usize, octets: &[u8]) -> Vec<Vec<u8>> {
    send(&mut fragmenting(encryption, longest).0, octets)
}

#[test]
fn what_is_not_whole_in_time_is_dropped_however_much_comes_late() {
    let encryption = Encryption::Aes256Gcm16;
    let (mut initiator, mut responder) = fragmenting(encryption, 200);
    let sent = send(&mut initiator, &[7; 600]);
    assert!(sent.len() > 3);
    let start = start();
    let at = |seconds| start + Duration::from_secs(seconds);
    let give = |responder: &mut Channel, seconds, datagram: &[u8]| {
        responder.receive(at(seconds), header(datagram), datagram)
    };
    assert_eq!(responder.parts_due(), None);
    assert!(kept(&give(&mut responder, 0, &sent[0])));
    assert!(kept(&give(&mut responder, 30, &sent[1])));
    assert_eq!(responder.parts_due(), Some(at(60)));
    // Nor does it help to cut the message anew.
    let smaller = cut_anew(encryption, 150, &[7; 600]);
    assert!(smaller.len() > sent.len());
    assert!(kept(&give(&mut responder, 40, &smaller[0])));
    assert_eq!(responder.parts_due(), Some(at(60)));
    assert_eq!(responder.drop_stale_parts(at(59)), 0);
    assert_eq!(responder.drop_stale_parts(at(60)), 1);
    assert_eq!((responder.parts_due(), responder.drop_stale_parts(at(61))), (None, 0));
    // The same request may come again, with all of its fragments.
    let (last, before) = sent.split_last().unwrap();
    assert!(before.iter().all(|datagram| kept(&give(&mut responder, 70, datagram))));
    assert_eq!(octets_of(give(&mut responder, 71, last)), [7; 600]);
    assert_eq!(responder.parts_due(), None);
}

#[test]
fn the_size_is_that_of_the_ip_packet_with_a_marker() {
    let path = |a: &str, b: &str| Path { local: a.parse().unwrap(), remote: b.parse().unwrap() };
    let v4 = path("192.0.2.1:500", "192.0.2.2:500");
    let v6 = path("[2001:db8::1]:500", "[2001:db8::2]:500");
    let longest = |fragment_size, path| {
        let config = EndpointConfig { fragment_size, ..EndpointConfig::default() };
        Fragmentation::new(&config, path).map(|f| f.longest)
    };
    assert_eq!(longest(1280, v4), Some(1280 - 20 - 8 - 4));
    assert_eq!(longest(1280, v6), Some(1280 - 40 - 8 - 4));
    assert_eq!(longest(1, v6), Some(200 - 40 - 8 - 4), "no less than the smallest");
    assert_eq!(longest(0, v4), None);
}

#[test]
fn another_path_has_another_length() {
    let path = |a: &str, b: &str| Path { local: a.parse().unwrap(), remote: b.parse().unwrap() };
    let v4 = path("192.0.2.1:4500", "192.0.2.2:4500");
    let v6 = path("[2001:db8::1]:4500", "[2001:db8::2]:4500");
    let config = EndpointConfig::default();
    let (mut channel, _) = ends(Encryption::Aes256Gcm16);
    channel.use_path(&config, v6);
    assert_eq!(channel.fragmentation(), None, "it was not agreed on");
    channel.set_fragmentation(Fragmentation::new(&config, v4));
    channel.use_path(&config, v6);
    assert_eq!(channel.fragmentation(), Fragmentation::new(&config, v6));
    assert_ne!(Fragmentation::new(&config, v4), Fragmentation::new(&config, v6));
}

#[test]
fn a_message_is_cut_only_when_it_is_too_long_and_each_piece_is_as_long_as_may_be() {
    for encryption in Encryption::ALL {
        let (mut initiator, _) = fragmenting(*encryption, 200);
        for length in 1..600 {
            let (mut unlimited, _) = ends(*encryption);
            let whole = send(&mut unlimited, &vec![7; length]).remove(0).len();
            let sent = send(&mut initiator, &vec![7; length]);
            assert_eq!(sent.len() == 1, whole <= 200, "{encryption}, {length}");
            assert!(sent.iter().all(|d| d.len() <= 200), "{encryption}, {length}");
            let (_, before) = sent.split_last().unwrap();
            assert!(before.iter().all(|d| d.len() > 200 - 16), "{encryption}, {length}");
        }
    }
}

#[test]
fn what_is_not_negotiated_is_not_fragmented_and_not_put_together() {
    let (mut whole_only, mut initiator) = ends(Encryption::Aes256Gcm16);
    assert_eq!(send(&mut whole_only, &[7; 5000]).len(), 1);
    initiator.set_fragmentation(Some(Fragmentation { longest: 200, ..ANY }));
    let fragment = &send(&mut initiator, &[7; 500])[0];
    assert_eq!(dropped(receive(&mut whole_only, fragment)), Counter::FragmentNotNegotiated);
    assert!(whole_only.request_parts.is_none());
}

#[test]
fn nothing_is_kept_of_a_fragment_that_is_not_authentic() {
    let (mut initiator, mut responder) = fragmenting(Encryption::Aes256Gcm16, 200);
    let sent = send(&mut initiator, &[7; 500]);
    let mut forged = sent[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(dropped(receive(&mut responder, &forged)), Counter::NotAuthentic);
    assert!(responder.request_parts.is_none());
    // Neither does a forged total, nor number, displace what is there.
    assert!(kept(&receive(&mut responder, &sent[0])));
    for (at, value) in [(33, 3), (35, 9)] {
        let mut forged = sent[1].clone();
        forged[at] = value;
        assert_eq!(dropped(receive(&mut responder, &forged)), Counter::NotAuthentic);
    }
    assert!(kept(&receive(&mut responder, &sent[1])));
    assert!(kept(&receive(&mut responder, &sent[2])));
    assert_eq!(octets_of(receive(&mut responder, &sent[3])), [7; 500]);
}

#[test]
fn a_fragment_numbered_zero_or_beyond_the_total_is_none() {
    let (mut initiator, mut responder) = fragmenting(Encryption::Aes256Gcm16, 200);
    let sent = send(&mut initiator, &[7; 500]);
    for number in [0, 5, 255] {
        let mut bad = sent[0].clone();
        bad[33] = number;
        assert_eq!(dropped(receive(&mut responder, &bad)), Counter::NotAuthentic);
    }
    assert!(responder.request_parts.is_none());
}

#[test]
fn a_larger_total_replaces_and_a_smaller_one_is_ignored() {
    let encryption = Encryption::Aes256Gcm16;
    let (mut initiator, mut responder) = fragmenting(encryption, 300);
    let (large, small) = (send(&mut initiator, &[7; 500]), cut_anew(encryption, 150, &[7; 500]));
    assert!(large.len() < small.len());
    assert!(kept(&receive(&mut responder, &large[0])));
    let (last, before) = small.split_last().unwrap();
    for fragment in before {
        assert!(kept(&receive(&mut responder, fragment)));
    }
    assert_eq!(dropped(receive(&mut responder, &large[1])), Counter::FragmentMismatch);
    assert_eq!(octets_of(receive(&mut responder, last)), [7; 500]);
}

#[test]
fn a_fragment_that_comes_twice_counts_once() {
    let (mut initiator, mut responder) = fragmenting(Encryption::Aes128Cbc, 200);
    let sent = send(&mut initiator, &[7; 300]);
    assert_eq!(sent.len(), 3);
    for fragment in &sent[..2] {
        assert!(kept(&receive(&mut responder, fragment)));
        assert_eq!(dropped(receive(&mut responder, fragment)), Counter::FragmentDuplicate);
    }
    assert_eq!(octets_of(receive(&mut responder, &sent[2])), [7; 300]);
}

#[test]
fn fragments_of_another_exchange_do_not_mix() {
    let encryption = Encryption::Aes256Gcm16;
    let (mut initiator, mut responder) = fragmenting(encryption, 200);
    let sent = send(&mut initiator, &[7; 250]);
    let (mut other, _) = fragmenting(encryption, 200);
    let payload = [Payload::VendorId(&[8; 250])];
    let config = EndpointConfig::default();
    let exchange = ExchangeType::CREATE_CHILD_SA;
    let others = other.request(start(), &config, &mut random(), exchange, &payload).unwrap().0;
    assert!(kept(&receive(&mut responder, &sent[0])));
    assert_eq!(dropped(receive(&mut responder, &others[1])), Counter::FragmentMismatch);
    assert_eq!(octets_of(receive(&mut responder, &sent[1])), [7; 250]);
}

#[test]
fn a_whole_message_is_taken_though_fragments_of_it_have_come() {
    let (mut initiator, mut responder) = fragmenting(Encryption::Aes256Gcm16, 200);
    let fragments = send(&mut initiator, &[7; 300]);
    let (mut unlimited, _) = ends(Encryption::Aes256Gcm16);
    let whole = send(&mut unlimited, &[7; 300]).remove(0);
    assert!(kept(&receive(&mut responder, &fragments[1])));
    let Received::Message(opened) = receive(&mut responder, &whole) else { panic!("not opened") };
    let id = RequestId::new(&opened, opened.representative(&whole));
    responder.respond(&mut random(), id, &[]).unwrap();
    assert!(responder.request_parts.is_none(), "nothing is left of the fragments");
}

#[test]
fn only_the_first_fragment_of_an_answered_request_gets_the_answer_again() {
    let encryption = Encryption::Aes256Gcm16;
    let (mut initiator, mut responder) = fragmenting(encryption, 200);
    let sent = send(&mut initiator, &[7; 500]);
    // The last one to come is not the first one.
    let mut last = None;
    for fragment in sent.iter().rev() {
        assert_eq!(place(&responder, fragment), Place::NextRequest);
        last = Some(receive(&mut responder, fragment));
    }
    let Some(Received::Message(opened)) = last else { panic!("not whole") };
    let id = RequestId::new(&opened, opened.representative(&sent[0]));
    let answer = [Payload::VendorId(&[9; 400])];
    let response = responder.respond(&mut random(), id, &answer).unwrap();
    assert_eq!(response.len(), 3, "the answer is in fragments too");

    assert_eq!(place(&responder, &sent[0]), Place::Repeated(&response));
    assert_eq!(place(&responder, &sent[1]), Place::RepeatedInPart);
    assert_eq!(place(&responder, &sent[2]), Place::RepeatedInPart);
    // Cut anew because nothing came back: authentic, and the first.
    let anew = cut_anew(encryption, 150, &[7; 500]);
    assert_eq!(place(&responder, &anew[0]), Place::Repeated(&response));
    assert_eq!(place(&responder, &anew[1]), Place::RepeatedInPart);
    let mut forged = anew[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(place(&responder, &forged), Place::Outside);

    for fragment in response.into_iter() {
        assert_eq!(place(&initiator, &fragment), Place::AwaitedResponse);
        match receive(&mut initiator, &fragment) {
            Received::Message(_) => initiator.response_received(),
            other @ (Received::Fragment | Received::Dropped(_)) => assert!(kept(&other)),
        }
    }
    assert!(!initiator.is_busy());
    assert!(initiator.response_parts.is_none());
}

#[test]
fn every_fragment_is_sent_again() {
    let config = EndpointConfig::default();
    let (mut initiator, _) = fragmenting(Encryption::Aes256Gcm16, 200);
    let sent = send(&mut initiator, &[7; 500]);
    let due = initiator.next_retransmission().unwrap();
    let again = initiator.poll_retransmission(due, &config, Duration::ZERO).unwrap().unwrap();
    assert_eq!(again.0, sent);
}

#[test]
fn what_is_kept_is_bounded_in_octets_and_in_number() {
    let encryption = Encryption::Aes256Gcm16;
    let (mut initiator, mut responder) = fragmenting(encryption, 1200);
    let sent = send(&mut initiator, &vec![7; LIMIT]);
    let mut refused = 0;
    for fragment in &sent {
        match receive(&mut responder, fragment) {
            Received::Dropped(reason) => {
                assert_eq!(reason, Counter::FragmentLimit);
                assert!(responder.request_parts.is_none(), "it cannot become whole any more");
                refused += 1;
            }
            other @ (Received::Fragment | Received::Message(_)) => assert!(kept(&other)),
        }
    }
    assert_eq!(refused, 1);
    // Many tiny ones cost more than their octets, and are refused before they are decrypted.
    let tiny = cut_anew(encryption, 62, &[7; 600]);
    assert!(tiny.len() > LIMIT / 64);
    let (_, mut responder) = fragmenting(encryption, 1200);
    assert_eq!(dropped(receive(&mut responder, &tiny[0])), Counter::FragmentLimit);
}

proptest! {
    /// Any message, any size of fragments, in any order, each as often as one likes.
    #[test]
    fn the_same_payloads_come_out(
        octets in prop::collection::vec(any::<u8>(), 0..4000),
        longest in 110_usize..1500,
        encryption in prop::sample::select(Encryption::ALL),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
        seed in any::<u64>(),
    ) {
        let (mut initiator, mut responder) = fragmenting(encryption, longest);
        let sent = send(&mut initiator, &octets);
        // Some at random, several times, then all in a random order.
        let mut order: Vec<&Vec<u8>> = picks.iter().map(|p| p.get(&sent)).collect();
        let mut all: Vec<&Vec<u8>> = sent.iter().collect();
        let mut random = SeededRandom::new(seed);
        while !all.is_empty() {
            let at = random.below(u64::try_from(all.len()).unwrap());
            order.push(all.swap_remove(usize::try_from(at).unwrap()));
        }
        let mut came_out = None;
        for fragment in order {
            prop_assert_eq!(place(&responder, fragment), Place::NextRequest);
            match receive(&mut responder, fragment) {
                Received::Message(opened) => {
                    came_out = Some(octets_of(Received::Message(opened)));
                    break;
                }
                Received::Fragment | Received::Dropped(Counter::FragmentDuplicate) => {}
                Received::Dropped(reason) => prop_assert!(false, "{:?}", reason),
            }
        }
        prop_assert_eq!(came_out, Some(octets));
    }

    /// A changed fragment is never taken for a good one, and never does harm.
    #[test]
    fn changed_fragments_change_nothing(
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
        encryption in prop::sample::select(Encryption::ALL),
    ) {
        let (mut initiator, mut responder) = fragmenting(encryption, 200);
        let sent = send(&mut initiator, &[7; 300]);
        prop_assert!(kept(&receive(&mut responder, &sent[0])));
        let mut bad = sent[1].clone();
        let at = at.index(bad.len());
        bad[at] ^= change;
        prop_assert!(matches!(
            responder.receive(start(), header(&sent[1]), &bad),
            Received::Dropped(_)
        ));
        let (last, between) = sent[1..].split_last().unwrap();
        for fragment in between {
            prop_assert!(kept(&receive(&mut responder, fragment)));
        }
        prop_assert_eq!(octets_of(receive(&mut responder, last)), [7; 300]);
    }
}
