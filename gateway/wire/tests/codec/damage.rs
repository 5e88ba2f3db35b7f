//! Good messages, damaged: cut off at each octet, with each octet changed, with something added.

use gateway_wire::{
    ChainError, DecodeErrorKind, Message, MessageError, PayloadType, decode_chain, encode_message,
};
use proptest::prelude::*;

use crate::strategies::payloads;
use crate::vectors::{Vector, all};
use crate::{HEADER, check_any_chain, check_any_datagram, with_true_length};

/// What may stand in the place of an octet.
fn others(octet: u8) -> impl Iterator<Item = u8> {
    let near = [octet.wrapping_sub(1), octet.wrapping_add(1)];
    near.into_iter().chain([0, 1, 3, 4, 7, 8, 0x7f, 0x80, 0xfe, 0xff])
}

#[test]
fn a_sample_cut_off_at_any_octet_is_refused() {
    for vector in all() {
        match &vector {
            Vector::Message(octets) => {
                for length in 0..octets.len() {
                    assert!(Message::decode(&octets[..length]).is_err());
                    if length >= 28 {
                        let shorter = with_true_length(&octets[..length]);
                        assert!(Message::decode(&shorter).is_err(), "{length} of {vector:?}");
                    }
                }
            }
            Vector::Chain(first, octets) => {
                for length in 0..octets.len() {
                    assert!(
                        decode_chain(*first, &octets[..length]).is_err(),
                        "{length} of {vector:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_sample_with_an_octet_too_many_is_refused() {
    let trailing = |error: ChainError| match error {
        ChainError::Decode(error) => error.kind == DecodeErrorKind::TrailingData,
        ChainError::UnsupportedCritical(_) => false,
    };
    for vector in all() {
        match vector {
            Vector::Message(octets) => {
                let longer = [&octets[..], &[0]].concat();
                assert!(matches!(Message::decode(&longer), Err(MessageError::Header(_))));
                let error = Message::decode(&with_true_length(&longer)).unwrap_err();
                assert!(matches!(error, MessageError::Chain(error) if trailing(error)));
            }
            Vector::Chain(first, octets) => {
                assert!(trailing(decode_chain(first, &[&octets[..], &[0]].concat()).unwrap_err()));
            }
        }
    }
}

#[test]
fn a_sample_with_any_octet_changed_is_refused_or_is_another_good_message() {
    for vector in all() {
        let (Vector::Message(octets) | Vector::Chain(_, octets)) = &vector;
        for at in 0..octets.len() {
            for other in others(octets[at]) {
                let mut changed = octets.clone();
                changed[at] = other;
                match &vector {
                    Vector::Message(_) => check_any_datagram(&changed),
                    Vector::Chain(first, _) => check_any_chain(*first, &changed),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_cut_off_at_any_octet_is_refused(payloads in payloads()) {
        let octets = encode_message(&HEADER, &payloads).unwrap();
        for length in 0..octets.len() {
            prop_assert!(Message::decode(&octets[..length]).is_err());
            if length >= 28 {
                prop_assert!(Message::decode(&with_true_length(&octets[..length])).is_err());
            }
        }
    }

    #[test]
    fn a_message_with_octets_changed_is_refused_or_is_another_good_message(
        payloads in payloads(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut octets = encode_message(&HEADER, &payloads).unwrap();
        for (at, other) in changes {
            let at = at.index(octets.len());
            octets[at] = other;
        }
        check_any_datagram(&octets);
        check_any_chain(PayloadType(octets[16]), &octets[28..]);
    }
}
