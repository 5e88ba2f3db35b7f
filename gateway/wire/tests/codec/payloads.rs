//! Each payload's layout but that of SA, and each way in which it can be wrong.

use gateway_wire::{
    AuthMethod, Authentication, CpAttribute, CpType, DecodeErrorKind, Delete, Eap, EapCode,
    EncodeErrorKind, HashAlgorithm, IdType, Identification, KeMethod, KeyExchange, Nonce, Notify,
    NotifyType, Payload, PayloadType, ProtocolId, SignatureAuthentication, TrafficSelector,
    TrafficSelectors, TsEntry, TsType,
};

use crate::{body, read, refusal, unencodable};

use DecodeErrorKind::{BadLength, BadValue, TrailingData, Truncated};

#[test]
fn a_key_exchange_has_a_method_and_a_value() {
    let ke = KeyExchange { method: KeMethod::CURVE25519, data: &[1, 2, 3] };
    let octets = [0, 31, 0, 0, 1, 2, 3];
    assert_eq!(body(&Payload::KeyExchange(ke)), octets);
    assert_eq!(read(PayloadType::KE, &octets), Ok(Payload::KeyExchange(ke)));
    assert_eq!(read(PayloadType::KE, &[0, 31, 9, 9, 1, 2, 3]), Ok(Payload::KeyExchange(ke)));
    assert_eq!(refusal(PayloadType::KE, &[0, 31, 0]).kind, Truncated);
}

#[test]
fn a_nonce_has_sixteen_to_256_octets() {
    let octets = [7; 257];
    for length in [0, 15, 257] {
        assert_eq!(refusal(PayloadType::NONCE, &octets[..length]).kind, BadLength);
        let nonce = Payload::Nonce(Nonce(&octets[..length]));
        assert_eq!(unencodable(nonce), EncodeErrorKind::BadValue);
    }
    for length in [16, 256] {
        let nonce = Payload::Nonce(Nonce(&octets[..length]));
        assert_eq!(read(PayloadType::NONCE, &octets[..length]), Ok(nonce.clone()));
        assert_eq!(body(&nonce), octets[..length]);
    }
}

#[test]
fn an_identification_gives_the_octets_that_auth_covers() {
    let sent = Identification::new(IdType::FQDN, b"a.example");
    assert_eq!(body(&Payload::IdInitiator(sent)), b"\x02\0\0\0a.example");
    assert_eq!(sent.body(), b"\x02\0\0\0a.example");
    let Ok(Payload::IdResponder(received)) = read(PayloadType::ID_R, b"\x02xyza.example") else {
        panic!("reserved octets are ignored");
    };
    assert_eq!((received.kind, received.data), (IdType::FQDN, &b"a.example"[..]));
    assert_eq!(received.body(), b"\x02xyza.example");
}

#[test]
fn an_address_as_identity_has_the_length_of_its_family() {
    let id = |kind: u8, length: usize| [&[kind, 0, 0, 0], [9; 17].get(..length).unwrap()].concat();
    for (kind, length) in [(1, 4), (5, 16), (11, 0), (200, 17)] {
        assert!(read(PayloadType::ID_I, &id(kind, length)).is_ok());
    }
    for (kind, length) in [(1, 0), (1, 3), (1, 5), (1, 16), (5, 4), (5, 15), (5, 17)] {
        assert_eq!(refusal(PayloadType::ID_I, &id(kind, length)).kind, BadLength);
        let data = &[9; 17][..length];
        let id = Payload::IdInitiator(Identification::new(IdType(kind), data));
        assert_eq!(unencodable(id), EncodeErrorKind::BadValue);
    }
    assert_eq!(refusal(PayloadType::ID_R, &[2, 0, 0]).kind, Truncated);
}

#[test]
fn certificates_and_requests_have_an_encoding_and_data() {
    let Ok(Payload::Certificate(cert)) = read(PayloadType::CERT, &[4, 0x30, 0]) else {
        panic!("a certificate");
    };
    assert_eq!((cert.encoding.0, cert.data), (4, &[0x30, 0][..]));
    let Ok(Payload::CertificateRequest(request)) = read(PayloadType::CERTREQ, &[4; 21]) else {
        panic!("a request");
    };
    assert_eq!((request.encoding.0, request.authorities), (4, &[4; 20][..]));
    assert_eq!(refusal(PayloadType::CERT, &[]).kind, Truncated);
    assert_eq!(refusal(PayloadType::CERTREQ, &[]).kind, Truncated);
}

#[test]
fn an_authentication_has_a_method_and_data() {
    let auth = Authentication { method: AuthMethod::SHARED_KEY, data: &[5; 32] };
    let octets = [&[2, 0, 0, 0], [5; 32].as_slice()].concat();
    assert_eq!(body(&Payload::Authentication(auth)), octets);
    assert_eq!(read(PayloadType::AUTH, &octets), Ok(Payload::Authentication(auth)));
    assert_eq!(refusal(PayloadType::AUTH, &[2, 0, 0]).kind, Truncated);
}

#[test]
fn a_digital_signature_names_its_algorithm() {
    // RFC 7427 appendix A.3.2: ecdsa-with-SHA256.
    let algorithm_identifier = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2][..];
    let expected = SignatureAuthentication { algorithm_identifier, signature: &[1, 2, 3] };
    let octets = [&[12], algorithm_identifier, &[1, 2, 3]].concat();
    assert_eq!(expected.encode().unwrap(), octets);
    assert_eq!(SignatureAuthentication::decode(&octets), Ok(expected));
    let kind = |octets| SignatureAuthentication::decode(octets).unwrap_err().kind;
    assert_eq!(kind(&[]), Truncated);
    assert_eq!(kind(&[0, 1, 2, 3]), BadLength);
    assert_eq!(kind(&octets[..12]), Truncated);
    let encode = |algorithm_identifier| {
        SignatureAuthentication { algorithm_identifier, signature: &[] }.encode()
    };
    assert_eq!(encode(&[]).unwrap_err().kind, EncodeErrorKind::BadValue);
    assert!(encode(&[0; 255]).is_ok());
    assert_eq!(encode(&[0; 256]).unwrap_err().kind, EncodeErrorKind::TooLong);
}

#[test]
fn a_notification_has_a_type_and_perhaps_an_spi() {
    let notify = Notify {
        protocol: ProtocolId::ESP,
        spi: &[1, 2, 3, 4],
        kind: NotifyType::REKEY_SA,
        data: &[5],
    };
    let octets = [3, 4, 0x40, 0x09, 1, 2, 3, 4, 5];
    assert_eq!(body(&Payload::Notify(notify)), octets);
    assert_eq!(read(PayloadType::NOTIFY, &octets), Ok(Payload::Notify(notify)));
    assert_eq!(refusal(PayloadType::NOTIFY, &octets[..7]).kind, Truncated);
    assert_eq!(refusal(PayloadType::NOTIFY, &octets[..3]).kind, Truncated);
    let spi = [0; 256];
    let too_long = Payload::Notify(Notify { spi: &spi, ..notify });
    assert_eq!(unencodable(too_long), EncodeErrorKind::TooLong);
}

#[test]
fn a_notification_lists_hash_algorithms() {
    let algorithms = [HashAlgorithm::SHA2_256, HashAlgorithm::IDENTITY, HashAlgorithm(900)];
    let data = HashAlgorithm::encode_list(&algorithms);
    assert_eq!(data, [0, 2, 0, 5, 3, 0x84]);
    let notify = |data| Notify {
        protocol: ProtocolId::NONE,
        spi: &[],
        kind: NotifyType::SIGNATURE_HASH_ALGORITHMS,
        data,
    };
    assert_eq!(notify(&data).hash_algorithms().unwrap(), algorithms);
    assert_eq!(notify(&data[..5]).hash_algorithms().unwrap_err().kind, Truncated);
}

#[test]
fn errors_and_states_are_told_apart() {
    assert!(NotifyType::NO_PROPOSAL_CHOSEN.is_error());
    assert!(NotifyType(16_383).is_error());
    assert!(!NotifyType::INITIAL_CONTACT.is_error());
}

#[test]
fn a_delete_names_child_sas_by_spi() {
    let delete = Delete { protocol: ProtocolId::ESP, spis: vec![0xc000_0001, 2] };
    let octets = [3, 4, 0, 2, 0xc0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(body(&Payload::Delete(delete.clone())), octets);
    assert_eq!(read(PayloadType::DELETE, &octets), Ok(Payload::Delete(delete)));
    assert_eq!(refusal(PayloadType::DELETE, &octets[..11]).kind, Truncated);
    assert_eq!(refusal(PayloadType::DELETE, &octets[..3]).kind, Truncated);
    assert_eq!(refusal(PayloadType::DELETE, &[3, 4, 0, 1, 0, 0, 0, 1, 9]).kind, TrailingData);
    assert_eq!(refusal(PayloadType::DELETE, &[3, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]).kind, BadLength);
    assert_eq!(refusal(PayloadType::DELETE, &[3, 4, 0xff, 0xff]).kind, Truncated);
}

#[test]
fn a_delete_of_the_ike_sa_names_none() {
    let delete = Delete { protocol: ProtocolId::IKE, spis: vec![] };
    assert_eq!(body(&Payload::Delete(delete.clone())), [1, 0, 0, 0]);
    assert_eq!(read(PayloadType::DELETE, &[1, 0, 0, 0]), Ok(Payload::Delete(delete)));
    assert_eq!(refusal(PayloadType::DELETE, &[1, 0, 0, 1]).kind, BadLength);
    assert_eq!(refusal(PayloadType::DELETE, &[1, 8, 0, 0]).kind, BadLength);
    let named = Delete { protocol: ProtocolId::IKE, spis: vec![1] };
    assert_eq!(unencodable(Payload::Delete(named)), EncodeErrorKind::BadValue);
}

#[test]
fn a_delete_of_an_unknown_protocol_is_refused() {
    assert_eq!(refusal(PayloadType::DELETE, &[0, 0, 0, 0]).kind, BadValue);
    assert_eq!(refusal(PayloadType::DELETE, &[4, 4, 0, 0]).kind, BadValue);
    let delete = Delete { protocol: ProtocolId(4), spis: vec![] };
    assert_eq!(unencodable(Payload::Delete(delete)), EncodeErrorKind::BadValue);
}

fn selector(start: &str, end: &str, ports: (u16, u16)) -> TrafficSelector {
    let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
    TrafficSelector { protocol: 17, start_port: ports.0, end_port: ports.1, start, end }
}

/// One IPv4 selector: UDP, ports 1024 to 2048, 10.2.0.0 to 10.2.255.255.
const TS: [u8; 20] = [1, 0, 0, 0, 7, 17, 0, 16, 4, 0, 8, 0, 10, 2, 0, 0, 10, 2, 255, 255];

#[test]
fn a_selector_is_laid_out_as_rfc_7296_3_13_1_says() {
    let v4 = TrafficSelectors::new(vec![selector("10.2.0.0", "10.2.255.255", (1024, 2048))]);
    assert_eq!(body(&Payload::TsInitiator(v4.clone())), TS);
    assert_eq!(read(PayloadType::TS_I, &TS), Ok(Payload::TsInitiator(v4)));
    let v6 = TrafficSelectors::new(vec![selector("2001:db8::", "2001:db8::ffff", (0, 65_535))]);
    let octets = body(&Payload::TsResponder(v6.clone()));
    assert_eq!(octets[..12], [1, 0, 0, 0, 8, 17, 0, 40, 0, 0, 0xff, 0xff]);
    assert_eq!(octets.len(), 44);
    assert_eq!(read(PayloadType::TS_R, &octets), Ok(Payload::TsResponder(v6)));
}

fn refused_ts(edit: impl FnOnce(&mut Vec<u8>)) -> DecodeErrorKind {
    let mut octets = TS.to_vec();
    edit(&mut octets);
    refusal(PayloadType::TS_R, &octets).kind
}

#[test]
fn the_number_of_selectors_must_be_true() {
    assert_eq!(refused_ts(|o| o[0] = 0), BadLength);
    assert_eq!(refused_ts(|o| o[0] = 2), Truncated);
    assert_eq!(refused_ts(|o| o.push(0)), TrailingData);
    assert_eq!(refused_ts(|o| o.truncate(3)), Truncated);
    assert_eq!(refusal(PayloadType::TS_I, &[0, 0, 0, 0]).kind, BadLength);
    let none = TrafficSelectors::new(vec![]);
    assert_eq!(unencodable(Payload::TsInitiator(none)), EncodeErrorKind::BadValue);
    let many = |count| {
        let selectors = vec![selector("10.0.0.0", "10.0.0.1", (0, 0)); count];
        Payload::TsInitiator(TrafficSelectors::new(selectors))
    };
    assert_eq!(body(&many(255))[0], 255);
    assert_eq!(unencodable(many(256)), EncodeErrorKind::TooLong);
}

#[test]
fn a_selector_has_the_length_of_its_type() {
    assert_eq!(refused_ts(|o| o[7] = 15), Truncated);
    assert_eq!(refused_ts(|o| o[7] = 3), BadLength);
    assert_eq!(refused_ts(|o| o[7] = 17), Truncated);
    assert_eq!(refused_ts(|o| o[4] = 8), Truncated);
    assert_eq!(
        refused_ts(|o| {
            o[7] = 17;
            o.push(0);
        }),
        TrailingData
    );
}

#[test]
fn a_selector_that_ends_before_it_starts_is_refused() {
    assert_eq!(refused_ts(|o| o[8] = 8 + 1), BadValue); // ports
    assert_eq!(refused_ts(|o| o[12] = 11), BadValue); // addresses
    for bad in [
        selector("10.0.0.1", "10.0.0.0", (0, 0)),
        selector("10.0.0.1", "10.0.0.1", (1, 0)),
        selector("10.0.0.1", "2001:db8::", (0, 0)),
    ] {
        let ts = TrafficSelectors::new(vec![bad]);
        assert_eq!(unencodable(Payload::TsResponder(ts)), EncodeErrorKind::BadValue);
    }
}

#[test]
fn a_selector_may_be_opaque() {
    let opaque = selector("10.0.0.0", "10.0.0.255", (65_535, 0));
    assert!(opaque.is_opaque());
    assert!(!selector("10.0.0.0", "10.0.0.255", (0, 65_535)).is_opaque());
    let ts = Payload::TsInitiator(TrafficSelectors::new(vec![opaque]));
    assert_eq!(read(PayloadType::TS_I, &body(&ts)), Ok(ts));
}

#[test]
fn a_selector_of_an_unknown_type_selects_nothing() {
    // RFC 9478: a security label beside the IPv4 range.
    let octets = [&[2], &TS[1..], &[10, 0, 0, 8, 1, 2, 3, 4]].concat();
    let Ok(Payload::TsInitiator(ts)) = read(PayloadType::TS_I, &octets) else {
        panic!("an unknown selector is kept");
    };
    assert_eq!(ts.known().count(), 1);
    let [TsEntry::Known(_), TsEntry::Unknown(unknown)] = ts.entries.as_slice() else {
        panic!("{ts:?}");
    };
    assert_eq!((unknown.kind, unknown.body.as_slice()), (TsType(10), &[1, 2, 3, 4][..]));
    assert_eq!(body(&Payload::TsInitiator(ts.clone())), octets);
    let mut disguised = unknown.clone();
    disguised.kind = TsType::IPV4_ADDR_RANGE;
    let ts = TrafficSelectors { entries: vec![TsEntry::Unknown(disguised)] };
    assert_eq!(unencodable(Payload::TsInitiator(ts)), EncodeErrorKind::BadValue);
}

#[test]
fn a_configuration_has_attributes() {
    let octets = [1, 9, 9, 9, 0x80, 1, 0, 0, 0, 3, 0, 4, 192, 0, 2, 53];
    let Ok(Payload::Configuration(configuration)) = read(PayloadType::CP, &octets) else {
        panic!("a configuration");
    };
    assert_eq!(configuration.kind, CpType::CFG_REQUEST);
    let attributes: Vec<_> = configuration.attributes.iter().map(|a| (a.kind, a.value)).collect();
    let dns = (CpAttribute::INTERNAL_IP4_DNS, &[192, 0, 2, 53][..]);
    assert_eq!(attributes, [(CpAttribute::INTERNAL_IP4_ADDRESS, &[][..]), dns]);
    let mut written = octets;
    written[1..5].fill(0); // reserved octets, reserved bit
    assert_eq!(body(&Payload::Configuration(configuration.clone())), written);
    for length in [3, 5, 7, 9, 11, 15] {
        assert_eq!(refusal(PayloadType::CP, &octets[..length]).kind, Truncated);
    }
    let mut reserved = configuration;
    reserved.attributes[0].kind = CpAttribute(0x8001);
    assert_eq!(unencodable(Payload::Configuration(reserved)), EncodeErrorKind::BadValue);
}

#[test]
fn an_eap_message_has_the_length_of_its_payload() {
    let eap = Eap { code: EapCode::REQUEST, identifier: 7, data: &[1, b'?'] };
    let octets = [1, 7, 0, 6, 1, b'?'];
    assert_eq!(body(&Payload::Eap(eap)), octets);
    assert_eq!(read(PayloadType::EAP, &octets), Ok(Payload::Eap(eap)));
    assert_eq!(refusal(PayloadType::EAP, &octets[..3]).kind, Truncated);
    assert_eq!(refusal(PayloadType::EAP, &octets[..5]).kind, Truncated);
    assert_eq!(refusal(PayloadType::EAP, &[1, 7, 0, 5, 1, b'?']).kind, TrailingData);
    assert_eq!(refusal(PayloadType::EAP, &[1, 7, 0, 3, 1, b'?']).kind, BadLength);
}

#[test]
fn eap_requests_have_a_type_and_results_have_none() {
    for octets in [[1, 7, 0, 4].as_slice(), &[2, 7, 0, 4], &[3, 7, 0, 5, 1], &[4, 7, 0, 5, 1]] {
        assert_eq!(refusal(PayloadType::EAP, octets).kind, BadLength);
    }
    assert!(read(PayloadType::EAP, &[3, 7, 0, 4]).is_ok());
    let failure = Eap { code: EapCode::FAILURE, identifier: 7, data: &[1] };
    assert_eq!(unencodable(Payload::Eap(failure)), EncodeErrorKind::BadValue);
}

#[test]
fn reserved_octets_are_ignored_and_written_as_zero() {
    let address = [10, 0, 0, 1];
    let selector = [&[7, 0, 0, 16, 0, 0, 0xff, 0xff][..], &address, &address].concat();
    // The kind, where its reserved octets stand, and a body.
    let samples = [
        (PayloadType::KE, 2..4, vec![0, 31, 0, 0, 1, 2, 3]),
        (PayloadType::AUTH, 1..4, vec![2, 0, 0, 0, 1, 2, 3]),
        (PayloadType::TS_I, 1..4, [&[1, 0, 0, 0], selector.as_slice()].concat()),
        (PayloadType::TS_R, 1..4, [&[1, 0, 0, 0], selector.as_slice()].concat()),
        (PayloadType::CP, 1..4, vec![1, 0, 0, 0]),
    ];
    for (kind, reserved, octets) in samples {
        let mut filled = octets.clone();
        filled[reserved].fill(0xff);
        let (plain, other) = (read(kind, &octets).unwrap(), read(kind, &filled).unwrap());
        assert_eq!(plain, other, "{kind}");
        assert_eq!(body(&other), octets, "{kind}");
    }
    // Those of ID are kept, since AUTH covers them as they came; ours are zero.
    let Ok(Payload::IdInitiator(id)) = read(PayloadType::ID_I, &[2, 7, 8, 9, b'a']) else {
        panic!("reserved octets are ignored");
    };
    assert_eq!((id.data, id.body()), (&b"a"[..], vec![2, 7, 8, 9, b'a']));
    let ours = Payload::IdInitiator(Identification::new(IdType::FQDN, b"a"));
    assert_eq!(body(&ours), [2, 0, 0, 0, b'a']);
}
