//! What is written is read back as the same.

use gateway_wire::{
    Encrypted, EncryptedFragment, Message, Payload, PayloadType, SignatureAuthentication,
    decode_chain, encode_chain, encode_message, encode_sk_prefix, encode_skf_prefix,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::strategies::{header, payload, payloads};
use crate::{check_any_chain, check_any_datagram};

proptest! {
    #[test]
    fn every_payload_is_read_back_as_it_was_written(payload in payload()) {
        let (first, octets) = encode_chain(core::slice::from_ref(&payload)).unwrap();
        prop_assert_eq!(decode_chain(first, &octets), Ok(vec![payload]));
    }

    #[test]
    fn every_message_is_read_back_as_it_was_written(header in header(), payloads in payloads()) {
        let octets = encode_message(&header, &payloads).unwrap();
        prop_assert_eq!(Message::decode(&octets), Ok(Message { header, payloads }));
    }

    #[test]
    fn an_encrypted_message_is_read_back_as_it_was_written(
        header in header(),
        first in any::<u8>(),
        sealed in vec(any::<u8>(), 0..200),
    ) {
        let first = PayloadType(first);
        let mut octets = encode_sk_prefix(&header, first, sealed.len()).unwrap();
        let body_offset = octets.len();
        octets.extend(&sealed);
        let payloads = vec![Payload::Encrypted(Encrypted { first, body: &sealed, body_offset })];
        prop_assert_eq!(encode_message(&header, &payloads), Ok(octets.clone()));
        prop_assert_eq!(Message::decode(&octets), Ok(Message { header, payloads }));
    }

    #[test]
    fn a_fragment_is_read_back_as_it_was_written(
        header in header(),
        first in any::<u8>(),
        number in 1..=u16::MAX,
        others in 0..=u16::MAX,
        sealed in vec(any::<u8>(), 0..200),
    ) {
        let (first, total) = (PayloadType(first), number.saturating_add(others));
        let mut octets = encode_skf_prefix(&header, first, number, total, sealed.len()).unwrap();
        let body_offset = octets.len();
        octets.extend(&sealed);
        let fragment = EncryptedFragment { first, number, total, body: &sealed, body_offset };
        let payloads = vec![Payload::EncryptedFragment(fragment)];
        prop_assert_eq!(encode_message(&header, &payloads), Ok(octets.clone()));
        prop_assert_eq!(Message::decode(&octets), Ok(Message { header, payloads }));
    }

    #[test]
    fn a_digital_signature_is_read_back_as_it_was_written(
        algorithm_identifier in vec(any::<u8>(), 1..=255),
        signature in vec(any::<u8>(), 0..600),
    ) {
        let signature =
            SignatureAuthentication { algorithm_identifier: &algorithm_identifier, signature: &signature };
        let octets = signature.encode().unwrap();
        prop_assert_eq!(SignatureAuthentication::decode(&octets), Ok(signature));
    }

    #[test]
    fn no_datagram_makes_the_decoder_panic(header in header(), first: u8, octets in vec(any::<u8>(), 0..400)) {
        check_any_datagram(&octets);
        let length = u32::try_from(octets.len() + 28).unwrap();
        check_any_datagram(&[&header.encode(PayloadType(first), length), octets.as_slice()].concat());
        check_any_chain(PayloadType(first), &octets);
    }
}
