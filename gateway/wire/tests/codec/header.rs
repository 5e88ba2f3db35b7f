//! The IKE header, other versions, and the prefixes of encrypted messages.

use gateway_wire::{
    ChainError, DecodeErrorKind, EncodeErrorKind, Encrypted, EncryptedFragment, ExchangeType,
    Flags, Header, HeaderError, IkeSpi, Message, MessageError, MessageId, Notify, NotifyType,
    Payload, PayloadType, ProtocolId, Unknown, decode_chain, encode_chain, encode_message,
    encode_sk_prefix, encode_skf_prefix,
};

use crate::{HEADER, framed, with_true_length};

const NOTIFY: Payload<'_> = Payload::Notify(Notify {
    protocol: ProtocolId::NONE,
    spi: &[],
    kind: NotifyType::INITIAL_CONTACT,
    data: &[],
});

#[test]
fn the_header_is_laid_out_as_rfc_7296_3_1_says() {
    let octets = HEADER.encode(PayloadType::SK, 0x1c);
    let expected = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, // SPIs
        46, 0x20, 37, 0x28, // next payload, version, exchange, R and I
        1, 2, 3, 4, // message ID
        0, 0, 0, 0x1c, // length
    ];
    assert_eq!(octets, expected);
    assert_eq!(Header::decode(&octets), Ok((HEADER, PayloadType::SK, &[][..])));
}

#[test]
fn each_flag_has_its_bit_and_the_others_are_ignored() {
    let flags = |octet: u8| {
        let mut octets = HEADER.encode(PayloadType::NONE, 28);
        octets[19] = octet;
        Header::decode(&octets).unwrap().0.flags
    };
    let none = Flags::default();
    assert_eq!(flags(0x20), Flags { response: true, ..none });
    assert_eq!(flags(0x10), Flags { version: true, ..none });
    assert_eq!(flags(0x08), Flags { initiator: true, ..none });
    assert_eq!(flags(0xc7), none);
}

#[test]
fn a_truncated_header_is_refused() {
    let octets = HEADER.encode(PayloadType::NONE, 28);
    for length in 0..28 {
        let Err(HeaderError::Decode(error)) = Header::decode(&octets[..length]) else {
            panic!("{length} octets are no header");
        };
        assert_eq!(error.kind, DecodeErrorKind::Truncated);
    }
}

#[test]
fn a_length_that_is_not_the_datagrams_is_refused() {
    for length in [0, 27, 29, 0x1c00_0000, u32::MAX] {
        let octets = HEADER.encode(PayloadType::NONE, length);
        let Err(HeaderError::Decode(error)) = Header::decode(&octets) else {
            panic!("the length {length} is a lie");
        };
        assert_eq!(error.kind, DecodeErrorKind::BadLength);
    }
}

#[test]
fn the_minor_version_is_ignored() {
    let mut octets = HEADER.encode(PayloadType::NONE, 28);
    octets[17] = 0x2f;
    assert_eq!(Header::decode(&octets).map(|(header, ..)| header), Ok(HEADER));
}

#[test]
fn a_message_of_ikev1_is_recognised() {
    // RFC 2408 3.1: cookies, SA payload, version 1.0, Identity Protection, no flags, message ID
    // 0, and a length that version 2 would not accept.
    let mut octets = vec![0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    octets.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let Err(HeaderError::Version(other)) = Header::decode(&octets) else {
        panic!("version 1 is not ours");
    };
    assert_eq!((other.major, other.minor), (1, 0));
    assert_eq!(
        other.header.initiator_spi,
        IkeSpi([0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8])
    );
    assert!(other.header.responder_spi.is_zero());
    assert_eq!(other.header.exchange, ExchangeType(2));
    let expected = MessageError::Header(HeaderError::Version(other));
    assert_eq!(Message::decode(&octets), Err(expected));
}

#[test]
fn a_later_major_version_is_recognised_with_all_that_an_answer_needs() {
    let mut octets = HEADER.encode(PayloadType::SA, 4096);
    octets[17] = 0x31;
    let Err(HeaderError::Version(other)) = Header::decode(&octets) else {
        panic!("version 3 is not ours");
    };
    assert_eq!((other.major, other.minor, other.header), (3, 1, HEADER));
}

#[test]
fn spis_print_as_sixteen_digits() {
    let spi = IkeSpi([0, 1, 2, 3, 0xab, 0xcd, 0xef, 0xff]);
    assert_eq!(spi.to_string(), "00010203abcdefff");
    assert_eq!(format!("{spi:?}"), "00010203abcdefff");
    assert!(!spi.is_zero());
    assert!(IkeSpi::ZERO.is_zero());
}

#[test]
fn a_message_without_payloads_is_a_message() {
    let octets = encode_message(&HEADER, &[]).unwrap();
    assert_eq!(octets, HEADER.encode(PayloadType::NONE, 28));
    assert_eq!(Message::decode(&octets).unwrap().payloads, []);
    assert_eq!(encode_chain(&[]), Ok((PayloadType::NONE, vec![])));
    assert_eq!(decode_chain(PayloadType::NONE, &[]), Ok(vec![]));
}

#[test]
fn octets_without_a_payload_are_refused() {
    let Err(ChainError::Decode(error)) = decode_chain(PayloadType::NONE, &[0]) else {
        panic!("the octet belongs to nothing");
    };
    assert_eq!(error.kind, DecodeErrorKind::TrailingData);
}

#[test]
fn an_unknown_payload_is_kept() {
    let octets = [41, 0x7f, 0, 6, 0xca, 0xfe, 0, 0, 0, 8, 0, 0, 0x40, 0];
    let payloads = decode_chain(PayloadType(200), &octets).unwrap();
    let unknown = Unknown { kind: PayloadType(200), critical: false, data: &[0xca, 0xfe] };
    assert_eq!(payloads, [Payload::Unknown(unknown), NOTIFY]);
}

#[test]
fn an_unknown_critical_payload_is_named() {
    let unknown = Unknown { kind: PayloadType(200), critical: true, data: &[] };
    let message = encode_message(&HEADER, &[NOTIFY, Payload::Unknown(unknown)]).unwrap();
    let expected = ChainError::UnsupportedCritical(PayloadType(200));
    assert_eq!(Message::decode(&message), Err(MessageError::Chain(expected)));
}

#[test]
fn the_critical_bit_of_a_known_payload_is_ignored() {
    let octets = [0, 0x80, 0, 8, 0, 0, 0x40, 0];
    assert_eq!(decode_chain(PayloadType::NOTIFY, &octets), Ok(vec![NOTIFY]));
}

#[test]
fn a_payload_of_type_none_has_no_encoding() {
    let unknown = Unknown { kind: PayloadType::NONE, critical: false, data: &[] };
    let error = encode_chain(&[Payload::Unknown(unknown)]).unwrap_err();
    assert_eq!(error.kind, EncodeErrorKind::BadValue);
}

#[test]
fn a_payload_too_long_for_its_length_field_has_no_encoding() {
    let octets = vec![0; 65_532];
    assert!(encode_chain(&[Payload::VendorId(&octets[1..])]).is_ok());
    let error = encode_chain(&[Payload::VendorId(&octets)]).unwrap_err();
    assert_eq!(error.kind, EncodeErrorKind::TooLong);
}

#[test]
fn the_prefix_of_an_encrypted_message_fits_its_body() {
    let sealed = [7; 40];
    let mut message = encode_sk_prefix(&HEADER, PayloadType::ID_I, sealed.len()).unwrap();
    let offset = message.len();
    message.extend(sealed);
    let expected = Encrypted { first: PayloadType::ID_I, body: &sealed, body_offset: offset };
    let decoded = Message::decode(&message).unwrap();
    assert_eq!(decoded, Message { header: HEADER, payloads: vec![Payload::Encrypted(expected)] });
    assert_eq!(message[offset..], sealed);
}

#[test]
fn the_prefix_of_a_fragment_fits_its_body() {
    let sealed = [7; 40];
    let mut message = encode_skf_prefix(&HEADER, PayloadType::NONE, 2, 3, sealed.len()).unwrap();
    let offset = message.len();
    message.extend(sealed);
    let expected = EncryptedFragment {
        first: PayloadType::NONE,
        number: 2,
        total: 3,
        body: &sealed,
        body_offset: offset,
    };
    let decoded = Message::decode(&message).unwrap();
    assert_eq!(decoded.payloads, [Payload::EncryptedFragment(expected)]);
}

#[test]
fn the_offset_counts_what_stands_before_an_encrypted_payload() {
    let sealed = Encrypted { first: PayloadType::SA, body: &[1, 2, 3], body_offset: 0 };
    let message = encode_message(&HEADER, &[NOTIFY, Payload::Encrypted(sealed)]).unwrap();
    let decoded = Message::decode(&message).unwrap();
    let Some(Payload::Encrypted(found)) = decoded.payloads.last() else { panic!("no SK") };
    assert_eq!(found.body_offset, 28 + 8 + 4);
    assert_eq!(message[found.body_offset..], [1, 2, 3]);
}

#[test]
fn prefixes_that_do_not_fit_their_lengths_are_refused() {
    let sk = |len| encode_sk_prefix(&HEADER, PayloadType::NONE, len).map(drop);
    let skf = |len| encode_skf_prefix(&HEADER, PayloadType::NONE, 1, 1, len).map(drop);
    assert_eq!((sk(65_531), skf(65_527)), (Ok(()), Ok(())));
    for refused in [sk(65_532), sk(usize::MAX), skf(65_528), skf(usize::MAX)] {
        assert_eq!(refused.unwrap_err().kind, EncodeErrorKind::TooLong);
    }
}

#[test]
fn fragments_count_from_one_to_their_total() {
    for (number, total) in [(0, 0), (0, 1), (1, 0), (3, 2)] {
        let error = encode_skf_prefix(&HEADER, PayloadType::NONE, number, total, 0).unwrap_err();
        assert_eq!(error.kind, EncodeErrorKind::BadValue);
        let mut message = encode_skf_prefix(&HEADER, PayloadType::NONE, 1, 1, 0).unwrap();
        message[32..34].copy_from_slice(&number.to_be_bytes());
        message[34..36].copy_from_slice(&total.to_be_bytes());
        let Err(MessageError::Chain(ChainError::Decode(error))) = Message::decode(&message) else {
            panic!("fragment {number} of {total} is impossible");
        };
        assert_eq!((error.what, error.kind), ("SKF", DecodeErrorKind::BadValue));
    }
}

#[test]
fn nothing_follows_an_encrypted_payload() {
    let mut message = encode_sk_prefix(&HEADER, PayloadType::NOTIFY, 4).unwrap();
    message.extend([1, 2, 3, 4]);
    message.extend(framed(&[0, 0, 0x40, 0]));
    let Err(MessageError::Chain(ChainError::Decode(error))) =
        Message::decode(&with_true_length(&message))
    else {
        panic!("SK ends the message");
    };
    assert_eq!(error.kind, DecodeErrorKind::TrailingData);
    let sealed = Encrypted { first: PayloadType::NONE, body: &[], body_offset: 0 };
    let error = encode_message(&HEADER, &[Payload::Encrypted(sealed), NOTIFY]).unwrap_err();
    assert_eq!(error.kind, EncodeErrorKind::BadValue);
}

#[test]
fn an_encrypted_payload_holds_no_other() {
    for kind in [PayloadType::SK, PayloadType::SKF] {
        let Err(ChainError::Decode(error)) = decode_chain(kind, &framed(&[0, 1, 0, 1])) else {
            panic!("{kind} inside SK");
        };
        assert_eq!(error.kind, DecodeErrorKind::BadValue);
    }
    let sealed = Encrypted { first: PayloadType::NONE, body: &[], body_offset: 0 };
    let error = encode_chain(&[Payload::Encrypted(sealed)]).unwrap_err();
    assert_eq!(error.kind, EncodeErrorKind::BadValue);
}

#[test]
fn errors_speak() {
    let decode = Message::decode(&[]).unwrap_err();
    assert_eq!(decode.to_string(), "IKE header: truncated");
    let critical = ChainError::UnsupportedCritical(PayloadType(200));
    assert_eq!(critical.to_string(), "critical payload of unknown type 200");
    let octets = vec![0; 65_532];
    let encode = encode_chain(&[Payload::VendorId(&octets)]).unwrap_err();
    assert_eq!(encode.to_string(), "VENDOR_ID: too long for its length field");
    assert_eq!(MessageId(7).to_string(), "7");
}
