//! Messages that others have published: where each is from stands in `vectors/README.txt`.

use core::net::{IpAddr, Ipv4Addr};

use gateway_wire::{
    AuthMethod, EncrId, ExchangeType, HashAlgorithm, IdType, IkeSpi, IntegId, KeMethod, Message,
    MessageId, Notify, NotifyType, Payload, PayloadType, PrfId, Proposal, ProtocolId, Transform,
    TransformType, decode_chain,
};

use crate::vectors::octets;

fn transform(kind: TransformType, id: u16, key_length: Option<u16>) -> Transform {
    Transform { kind, id, key_length, unknown_attribute: false }
}

/// The one proposal for an IKE SA.
fn ike_proposal(transforms: Vec<Transform>) -> Vec<Proposal> {
    vec![Proposal { number: 1, protocol: ProtocolId::IKE, spi: Vec::new(), transforms }]
}

/// The notifications that are not of NAT detection, which are digests of addresses.
fn notifications<'a>(payloads: &'a [Payload<'a>]) -> Vec<&'a Notify<'a>> {
    let notify = |payload: &'a Payload<'a>| match payload {
        Payload::Notify(notify) => Some(notify),
        _ => None,
    };
    let (digests, others): (Vec<&Notify<'_>>, Vec<_>) =
        payloads.iter().filter_map(notify).partition(|notify| {
            [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP]
                .contains(&notify.kind)
        });
    assert!(digests.iter().all(|n| n.data.len() == 20 && n.spi.is_empty()));
    others
}

/// Both messages of IKE_SA_INIT; gives SA, KE and nonce, and the other notifications.
fn check_init(
    name: &str,
    spis: (&str, &str),
    transforms: Vec<Transform>,
    (method, first, length): (KeMethod, u8, usize),
    others: &[(NotifyType, &[u8])],
) {
    let octets = octets(name);
    let message = Message::decode(&octets).unwrap();
    let header = &message.header;
    let response = spis.1 != "0000000000000000";
    assert_eq!((header.exchange, header.message_id), (ExchangeType::IKE_SA_INIT, MessageId(0)));
    assert_eq!((header.flags.initiator, header.flags.response), (!response, response));
    let spi = |spi: IkeSpi| u64::from_be_bytes(spi.0);
    let told = (spi(header.initiator_spi), spi(header.responder_spi));
    assert_eq!(
        (format!("{:016x}", told.0), format!("{:016x}", told.1)),
        (spis.0.to_owned(), spis.1.to_owned())
    );
    let [
        Payload::SecurityAssociation(sa),
        Payload::KeyExchange(ke),
        Payload::Nonce(nonce),
        rest @ ..,
    ] = message.payloads.as_slice()
    else {
        panic!("{:?}", message.payloads);
    };
    assert_eq!(sa.proposals, ike_proposal(transforms));
    assert_eq!((ke.method, ke.data[0], ke.data.len(), nonce.0.len()), (method, first, length, 32));
    let found: Vec<_> = notifications(rest).iter().map(|n| (n.kind, n.data)).collect();
    assert_eq!(found, others);
}

const HASHES: (NotifyType, &[u8]) =
    (NotifyType::SIGNATURE_HASH_ALGORITHMS, &[0, 1, 0, 2, 0, 3, 0, 4]);

#[test]
fn wireshark_has_an_exchange_with_ccm_and_p256() {
    let transforms = vec![
        transform(TransformType::ENCR, 15, Some(128)), // AES-CCM with an ICV of 12 octets
        transform(TransformType::PRF, PrfId::HMAC_SHA2_256.0, None),
        transform(TransformType::KE, KeMethod::ECP_256.0, None),
    ];
    let (request, response) = ("published_ccm_init_request", "published_ccm_init_response");
    let (ours, theirs) = ("ea684d21597afd36", "d9fe2ab22dac23ac");
    let ecp = |first| (KeMethod::ECP_256, first, 64);
    check_init(request, (ours, "0000000000000000"), transforms.clone(), ecp(0x32), &[HASHES]);
    let others: &[_] = &[(NotifyType::MULTIPLE_AUTH_SUPPORTED, &[][..])];
    check_init(response, (ours, theirs), transforms, ecp(0x2c), others);
}

#[test]
fn wireshark_has_an_exchange_that_deletes() {
    for (name, first, length, from_initiator) in [
        ("published_ccm_informational_request", PayloadType::DELETE, 29, true),
        ("published_ccm_informational_response", PayloadType::NONE, 21, false),
    ] {
        let octets = octets(name);
        let message = Message::decode(&octets).unwrap();
        let header = message.header;
        assert_eq!(
            (header.exchange, header.message_id),
            (ExchangeType::INFORMATIONAL, MessageId(2))
        );
        assert_eq!(header.flags.initiator, from_initiator);
        assert_eq!(header.flags.response, !from_initiator);
        let [Payload::Encrypted(sk)] = message.payloads.as_slice() else {
            panic!("{:?}", message.payloads);
        };
        assert_eq!((sk.first, sk.body.len(), sk.body_offset), (first, length, 32));
    }
}

#[test]
fn ipsec_parser_has_a_request_with_a_brainpool_curve() {
    check_init(
        "published_brainpool_init_request",
        ("01f8c3d4bb773f2f", "0000000000000000"),
        vec![
            transform(TransformType::ENCR, EncrId::AES_GCM_16.0, Some(128)),
            transform(TransformType::INTEG, IntegId::HMAC_SHA2_256_128.0, None),
            transform(TransformType::PRF, PrfId::HMAC_SHA2_256.0, None),
            transform(TransformType::KE, 30, None), // brainpoolP512r1 (RFC 6954)
        ],
        (KeMethod(30), 0x8f, 128),
        &[HASHES, (NotifyType::REDIRECT_SUPPORTED, &[])],
    );
}

fn old_algorithms() -> [Transform; 4] {
    [
        transform(TransformType::ENCR, EncrId::AES_CBC.0, Some(128)),
        transform(TransformType::INTEG, IntegId::HMAC_SHA1_96.0, None),
        transform(TransformType::PRF, PrfId::HMAC_SHA1.0, None),
        transform(TransformType::KE, KeMethod::MODP_1024.0, None),
    ]
}

#[test]
fn android_has_a_request_and_a_response_with_old_algorithms() {
    let [encr, integ, prf, ke] = old_algorithms();
    let ours = ("8f54bf6d8b48e6e1", "0000000000000000");
    // The order of transforms is the sender's.
    let offered = vec![encr, integ, ke, prf];
    let modp = |first| (KeMethod::MODP_1024, first, 128);
    check_init("published_init_request", ours, offered, modp(0xb4), &[]);
    check_init(
        "published_init_response",
        ("46b8eca1e0d72a18", "b45427679f9245d4"),
        vec![encr, integ, prf, ke],
        modp(0xa7),
        &[
            (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]),
            (NotifyType::SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0, 3, 0, 4, 0, 5]),
            (NotifyType::MULTIPLE_AUTH_SUPPORTED, &[]),
        ],
    );
    let request = octets("published_init_request");
    let message = Message::decode(&request).unwrap();
    let vendor = message.payloads.last().unwrap();
    assert!(matches!(vendor, Payload::VendorId(id) if id[..4] == [0x69, 0x93, 0x69, 0x22]));
    let last = [0, 5];
    assert_eq!(HashAlgorithm::IDENTITY.0.to_be_bytes(), last);
}

#[test]
fn android_has_a_request_for_all_traffic() {
    let sealed = octets("published_auth_request");
    let message = Message::decode(&sealed).unwrap();
    let [Payload::Encrypted(sk)] = message.payloads.as_slice() else {
        panic!("{:?}", message.payloads);
    };
    assert_eq!((sk.first, sk.body.len()), (PayloadType::ID_I, 204));

    let inside = octets("published_auth_request_inside");
    let payloads = decode_chain(PayloadType::ID_I, &inside).unwrap();
    let [
        Payload::IdInitiator(ours),
        Payload::IdResponder(theirs),
        Payload::Authentication(auth),
        Payload::SecurityAssociation(sa),
        Payload::TsInitiator(ts_i),
        Payload::TsResponder(ts_r),
        Payload::Notify(first),
        Payload::Notify(window),
    ] = payloads.as_slice()
    else {
        panic!("{payloads:?}");
    };
    assert_eq!((ours.kind, ours.data), (IdType::IPV4_ADDR, &[10, 80, 80, 13][..]));
    assert_eq!((theirs.kind, theirs.data), (IdType::IPV4_ADDR, &[10, 80, 80, 80][..]));
    assert_eq!((auth.method, auth.data.len()), (AuthMethod::SHARED_KEY, 20));
    let [encr, integ, ..] = old_algorithms();
    let proposal = Proposal {
        number: 1,
        protocol: ProtocolId::ESP,
        spi: vec![0x2a, 0xd4, 0xc0, 0xa2],
        transforms: vec![encr, integ, transform(TransformType::ESN, 0, None)],
    };
    assert_eq!(sa.proposals, [proposal]);
    for selectors in [ts_i, ts_r] {
        let [selector] = selectors.known().collect::<Vec<_>>()[..] else { panic!("{selectors:?}") };
        assert_eq!((selector.protocol, selector.start_port, selector.end_port), (0, 0, 0xffff));
        assert_eq!(selector.start, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert_eq!(selector.end, IpAddr::V4(Ipv4Addr::BROADCAST));
    }
    assert_eq!((first.kind, first.data), (NotifyType::INITIAL_CONTACT, &[][..]));
    assert_eq!((window.kind, window.data), (NotifyType::SET_WINDOW_SIZE, &[0, 0, 0, 1][..]));
}

#[test]
fn android_has_a_proof_by_the_key_of_eap() {
    let sealed = octets("published_gcm_auth_request");
    let message = Message::decode(&sealed).unwrap();
    assert_eq!(message.header.message_id, MessageId(5));
    let [Payload::Encrypted(sk)] = message.payloads.as_slice() else {
        panic!("{:?}", message.payloads);
    };
    assert_eq!(sk.first, PayloadType::AUTH);
    let inside = octets("published_gcm_auth_request_inside");
    // IV and ICV of AES-GCM, and no padding but its length (RFC 5282 3).
    assert_eq!(sk.body.len(), 8 + inside.len() + 1 + 16);
    let payloads = decode_chain(PayloadType::AUTH, &inside).unwrap();
    let [Payload::Authentication(auth)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!((auth.method, auth.data.len()), (AuthMethod::SHARED_KEY, 32));
    assert_eq!(auth.data[..4], [0x33, 0x23, 0x38, 0x37]);
}

#[test]
fn android_has_last_fragments() {
    for (name, number, total, first, last) in
        [("published_fragment", 5, 5, 0xfd, 0x6d), ("published_gcm_fragment", 2, 2, 0x6f, 0x06)]
    {
        let octets = octets(name);
        let message = Message::decode(&octets).unwrap();
        let [Payload::EncryptedFragment(skf)] = message.payloads.as_slice() else {
            panic!("{:?}", message.payloads);
        };
        assert_eq!((skf.number, skf.total, skf.first), (number, total, PayloadType::NONE));
        assert_eq!((skf.body.first(), skf.body.last()), (Some(&first), Some(&last)));
    }
}

#[test]
fn android_has_two_long_proposals() {
    let octets = octets("published_proposals");
    let payloads = decode_chain(PayloadType::SA, &octets).unwrap();
    let [Payload::SecurityAssociation(sa)] = payloads.as_slice() else { panic!("{payloads:?}") };
    let [first, second] = sa.proposals.as_slice() else { panic!("{sa:?}") };
    let ids = |proposal: &Proposal, kind| {
        let those = proposal.transforms.iter().filter(|t| t.kind == kind);
        those.map(|t| (t.id, t.key_length)).collect::<Vec<_>>()
    };
    let plain = |ids: &[u16]| ids.iter().map(|id| (*id, None)).collect::<Vec<_>>();
    assert_eq!((first.number, first.transforms.len()), (1, 25));
    assert_eq!(
        ids(first, TransformType::ENCR),
        [(12, Some(128)), (12, Some(192)), (12, Some(256)), (3, None)]
    );
    assert_eq!(ids(first, TransformType::INTEG), plain(&[12, 13, 14, 2, 5]));
    assert_eq!(ids(first, TransformType::PRF), plain(&[5, 6, 7, 4, 2]));
    let groups = plain(&[19, 20, 21, 28, 29, 30, 31, 15, 16, 18, 14]);
    assert_eq!(ids(first, TransformType::KE), groups);
    assert_eq!((second.number, second.transforms.len()), (2, 26));
    assert!(ids(second, TransformType::INTEG).is_empty());
    let aead = ids(second, TransformType::ENCR);
    assert_eq!(aead.len(), 10);
    assert_eq!(aead[3], (28, Some(256))); // ChaCha20-Poly1305, with a length that it must not have
    assert_eq!(ids(second, TransformType::KE), groups);
}

#[test]
fn rfc_7634_has_a_message_about_the_window() {
    let sealed = octets("published_rfc7634_informational");
    let message = Message::decode(&sealed).unwrap();
    assert_eq!(message.header.message_id, MessageId(9));
    let [Payload::Encrypted(sk)] = message.payloads.as_slice() else {
        panic!("{:?}", message.payloads);
    };
    assert_eq!((sk.first, sk.body.len()), (PayloadType::NOTIFY, 37));
    let inside = octets("published_rfc7634_informational_inside");
    let payloads = decode_chain(sk.first, &inside).unwrap();
    let [Payload::Notify(window)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!((window.kind, window.data), (NotifyType::SET_WINDOW_SIZE, &[0, 0, 0, 10][..]));
}
