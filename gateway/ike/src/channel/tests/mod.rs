//! Windows, retransmission, and what is opened.

mod fragments;
mod int_auth;
mod set_ids;

use core::time::Duration;

use gateway_wire::{Delete, Flags, MessageId, Nonce, ProtocolId, encode_sk_prefix};
use proptest::prelude::*;

use super::*;
use crate::algorithms::{Additional, Encryption, Group, Integrity, Prf};
use crate::config::EndpointConfig;
use crate::testing::SeededRandom;
use crate::time::start;

const SPIS: (IkeSpi, IkeSpi) = (IkeSpi([1; 8]), IkeSpi([2; 8]));

/// Both ends of one IKE SA, the initiator first.
fn ends(encryption: Encryption) -> (Channel, Channel) {
    let integrity = (!encryption.is_aead()).then_some(Integrity::HmacSha256);
    let suite = IkeSuite {
        encryption,
        integrity,
        prf: Prf::HmacSha256,
        group: Group::X25519,
        additional: Additional::NONE,
    };
    let end = |initiator| {
        let keys = IkeKeys::derive(suite, &[7; 32], &[8; 32], &[9; 32], SPIS.0, SPIS.1);
        Channel::new(SPIS, initiator, suite, keys).unwrap()
    };
    (end(true), end(false))
}

fn random() -> SeededRandom {
    SeededRandom::new(1)
}

fn request(from: &mut Channel) -> Vec<u8> {
    let config = EndpointConfig::default();
    let exchange = ExchangeType::INFORMATIONAL;
    whole(from.request(start(), &config, &mut random(), exchange, &[]).unwrap())
}

/// The one datagram of a message.
fn whole(message: Datagrams) -> Vec<u8> {
    let [datagram] = <[_; 1]>::try_from(message.0).unwrap();
    datagram
}

fn open(channel: &mut Channel, header: Header, datagram: &[u8]) -> Option<Opened> {
    match channel.receive(start(), header, datagram) {
        Received::Message(opened) => Some(opened),
        Received::Fragment => panic!("no fragment was sent"),
        Received::Dropped(reason) => {
            assert_eq!(reason, Counter::NotAuthentic);
            None
        }
    }
}

fn header(datagram: &[u8]) -> Header {
    Header::decode(datagram).unwrap().0
}

/// Takes a request and answers it.
fn answer(to: &mut Channel, datagram: &[u8]) -> Vec<u8> {
    let opened = open(to, header(datagram), datagram).unwrap();
    whole(to.respond(&mut random(), RequestId::new(&opened, datagram), &[]).unwrap())
}

fn place<'a>(channel: &'a Channel, datagram: &[u8]) -> Place<'a> {
    channel.place(&header(datagram), datagram)
}

#[test]
fn retransmissions_come_after_growing_intervals_and_end() {
    let config = EndpointConfig { retransmit_tries: 4, ..EndpointConfig::default() };
    let begin = start();
    let mut backoff = Backoff::new(begin, &config);
    let mut at = begin;
    // 1 s, then each 1.8 times the one before.
    for micros in [1_000_000, 1_800_000, 3_240_000, 5_832_000] {
        at += Duration::from_micros(micros);
        assert_eq!(backoff.next(), at);
        assert_eq!(backoff.poll(at - Duration::from_nanos(1), &config), Retry::Wait);
        assert_eq!(backoff.poll(at, &config), Retry::Again);
        assert_eq!(backoff.poll(at, &config), Retry::Wait, "once each time");
    }
    at += Duration::from_nanos(10_497_600_000);
    assert_eq!(backoff.next(), at);
    assert_eq!(backoff.poll(at - Duration::from_nanos(1), &config), Retry::Wait);
    assert_eq!(backoff.poll(at, &config), Retry::GiveUp { tries: 4 });
}

#[test]
fn a_late_retransmission_counts_its_interval_from_when_it_was_sent() {
    let config = EndpointConfig::default();
    let begin = start();
    let mut backoff = Backoff::new(begin, &config);
    let late = begin + Duration::from_secs(30);
    assert_eq!(backoff.poll(late, &config), Retry::Again);
    assert_eq!(backoff.next(), late + Duration::from_millis(1800));
}

#[test]
fn no_retransmission_is_allowed_where_there_shall_be_none() {
    let config = EndpointConfig { retransmit_tries: 0, ..EndpointConfig::default() };
    let begin = start();
    let mut backoff = Backoff::new(begin, &config);
    let due = begin + Duration::from_secs(1);
    assert_eq!(backoff.poll(due, &config), Retry::GiveUp { tries: 0 });
}

#[test]
fn the_initiator_begins_with_message_1_and_the_responder_with_0() {
    let (mut initiator, mut responder) = ends(Encryption::Aes256Gcm16);
    let (to, fro) = (request(&mut initiator), request(&mut responder));
    assert_eq!((header(&to).message_id.0, header(&fro).message_id.0), (1, 0));
    assert_eq!(place(&responder, &to), Place::NextRequest);
    assert_eq!(place(&initiator, &fro), Place::NextRequest);
}

#[test]
fn the_request_that_was_answered_last_gets_the_same_answer_again() {
    let (mut initiator, mut responder) = ends(Encryption::Aes256Gcm16);
    let first = request(&mut initiator);
    let response = answer(&mut responder, &first);
    assert_eq!(place(&responder, &first), Place::Repeated(&response.into()));
    // The same number is not enough.
    let mut other = first.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(place(&responder, &other), Place::Outside);
    initiator.response_received();
    let second = request(&mut initiator);
    assert_eq!(place(&responder, &second), Place::NextRequest);
    answer(&mut responder, &second);
    assert_eq!(place(&responder, &first), Place::Outside);
}

#[test]
fn a_request_beyond_the_window_is_outside() {
    let (mut initiator, responder) = ends(Encryption::Aes256Gcm16);
    let first = request(&mut initiator);
    let ahead = Header { message_id: MessageId(2), ..header(&first) };
    assert_eq!(responder.place(&ahead, &first), Place::Outside);
    let before = Header { message_id: MessageId(0), ..header(&first) };
    assert_eq!(responder.place(&before, &first), Place::Outside);
}

#[test]
fn only_the_awaited_response_is_awaited_and_only_once() {
    let (mut initiator, mut responder) = ends(Encryption::Aes256Gcm16);
    let first = request(&mut initiator);
    let response = answer(&mut responder, &first);
    assert!(initiator.is_busy());
    assert_eq!(place(&initiator, &response), Place::AwaitedResponse);
    let good = header(&response);
    let other_id = Header { message_id: MessageId(2), ..good };
    assert_eq!(initiator.place(&other_id, &response), Place::Outside);
    let other_exchange = Header { exchange: ExchangeType::CREATE_CHILD_SA, ..good };
    assert_eq!(initiator.place(&other_exchange, &response), Place::Outside);
    initiator.response_received();
    assert!(!initiator.is_busy());
    assert_eq!(place(&initiator, &response), Place::Outside);
}

#[test]
fn a_response_to_nothing_is_outside() {
    let (initiator, _) = ends(Encryption::Aes256Gcm16);
    let response = Header {
        initiator_spi: SPIS.0,
        responder_spi: SPIS.1,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { response: true, version: false, initiator: false },
        message_id: MessageId(0),
    };
    assert_eq!(initiator.place(&response, &[]), Place::Outside);
}

#[test]
fn the_request_under_way_is_sent_again_octet_for_octet_until_it_is_given_up() {
    let config = EndpointConfig { retransmit_tries: 1, ..EndpointConfig::default() };
    let (mut initiator, _) = ends(Encryption::Aes256Gcm16);
    let mut now = start();
    assert_eq!(initiator.poll_retransmission(now, &config, Duration::ZERO), None);
    let sent =
        initiator.request(now, &config, &mut random(), ExchangeType::INFORMATIONAL, &[]).unwrap();
    assert_eq!(initiator.poll_retransmission(now, &config, Duration::ZERO), None);
    now = initiator.next_retransmission().unwrap();
    assert_eq!(initiator.poll_retransmission(now, &config, Duration::ZERO), Some(Ok(&sent)));
    now = initiator.next_retransmission().unwrap();
    let given_up = Some(Err((ExchangeType::INFORMATIONAL, 1)));
    assert_eq!(initiator.poll_retransmission(now, &config, Duration::ZERO), given_up);
    initiator.response_received();
    assert_eq!(initiator.next_retransmission(), None);
}

#[test]
fn message_numbers_never_wrap() {
    let (mut initiator, _) = ends(Encryption::Aes256Gcm16);
    initiator.next_request = u32::MAX;
    let config = EndpointConfig::default();
    let refused =
        initiator.request(start(), &config, &mut random(), ExchangeType::INFORMATIONAL, &[]);
    assert_eq!(refused, Err(Error::Internal("message IDs are used up")));
    assert!(!initiator.is_busy());
}

#[test]
fn what_one_end_seals_the_other_opens_and_itself_does_not() {
    for encryption in Encryption::ALL {
        let (mut initiator, mut responder) = ends(*encryption);
        let delete = Delete { protocol: ProtocolId::ESP, spis: vec![0x1234] };
        let payloads = [Payload::Nonce(Nonce(&[5; 32])), Payload::Delete(delete)];
        let config = EndpointConfig::default();
        let exchange = ExchangeType::CREATE_CHILD_SA;
        let sealed =
            whole(initiator.request(start(), &config, &mut random(), exchange, &payloads).unwrap());
        let opened = open(&mut responder, header(&sealed), &sealed).unwrap();
        assert_eq!(opened.payloads().unwrap(), payloads, "{encryption}");
        // RFC 7296 2.21.2: one's own messages, sent back, are nobody's.
        assert!(open(&mut initiator, header(&sealed), &sealed).is_none());
    }
}

#[test]
fn a_message_without_an_sk_payload_is_not_opened() {
    let (_, mut responder) = ends(Encryption::Aes256Gcm16);
    let header = Header {
        initiator_spi: SPIS.0,
        responder_spi: SPIS.1,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { response: false, version: false, initiator: true },
        message_id: MessageId(1),
    };
    let plain = [Payload::Nonce(Nonce(&[5; 32]))];
    let datagram = gateway_wire::encode_message(&header, &plain).unwrap();
    assert!(open(&mut responder, header, &datagram).is_none());
}

#[test]
fn the_last_number_is_not_taken_twice() {
    let (mut initiator, mut responder) = ends(Encryption::Aes256Gcm16);
    responder.next_expected = Some(u32::MAX);
    let mut last = || {
        let exchange = ExchangeType::INFORMATIONAL;
        let nothing = PayloadType::NONE;
        whole(initiator.seal(&mut random(), exchange, false, u32::MAX, nothing, &[]).unwrap())
    };
    let first = last();
    assert_eq!(place(&responder, &first), Place::NextRequest);
    answer(&mut responder, &first);
    assert!(matches!(place(&responder, &first), Place::Repeated(_)));
    assert_eq!(place(&responder, &last()), Place::Outside, "it has another IV");
}

#[test]
fn an_authentic_message_with_wrong_padding_is_malformed() {
    let (initiator, mut responder) = ends(Encryption::Aes256Gcm16);
    let header = Header {
        initiator_spi: SPIS.0,
        responder_spi: SPIS.1,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { response: false, version: false, initiator: true },
        message_id: MessageId(1),
    };
    // The plaintext is a pad length, and nothing that it could count.
    let (key, salt) = initiator.keys.sk_ei().split_at(32);
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key).unwrap();
    let key = ring::aead::LessSafeKey::new(key);
    let nonce = [salt, &[0; 8]].concat().try_into().unwrap();
    let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
    let mut message = encode_sk_prefix(&header, PayloadType::NONE, 8 + 1 + 16).unwrap();
    let mut text = vec![9];
    let covered = ring::aead::Aad::from(message.as_slice());
    key.seal_in_place_append_tag(nonce, covered, &mut text).unwrap();
    message.extend([0; 8]);
    message.extend(text);
    let opened = open(&mut responder, header, &message).unwrap();
    assert_eq!(opened.payloads(), Err(ChainError::Decode(BAD_PADDING)));
}

proptest! {
    #[test]
    fn a_changed_or_cut_message_is_not_opened(
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
        cut in any::<prop::sample::Index>(),
        encryption in prop::sample::select(Encryption::ALL),
    ) {
        let (mut initiator, mut responder) = ends(encryption);
        let good = request(&mut initiator);
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= change;
        prop_assert!(open(&mut responder, header(&good), &bad).is_none());
        let cut = &good[..cut.index(good.len())];
        prop_assert!(open(&mut responder, header(&good), cut).is_none());
    }
}
