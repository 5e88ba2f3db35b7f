//! Messages of another implementation: see `vectors/README.txt`.

use std::fs;
use std::path::Path;

use gateway_wire::{
    AuthMethod, CpAttribute, CpType, EapCode, EncrId, ExchangeType, HashAlgorithm, IdType,
    KeMethod, Message, NotifyType, Payload, PayloadType, ProtocolId, SignatureAuthentication,
    TransformType, decode_chain, encode_chain, encode_message,
};

use crate::framed;

/// A captured datagram, or what was inside one.
#[derive(Debug)]
pub(crate) enum Vector {
    /// From the first octet of the IKE header.
    Message(Vec<u8>),
    /// The type of the first payload, and the payloads.
    Chain(PayloadType, Vec<u8>),
}

fn load(path: &Path) -> Vector {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let kind = lines.next().unwrap();
    let digits: String = lines.collect();
    let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let octets: Vec<u8> = digits.as_bytes().chunks(2).map(octet).collect();
    match kind.split_once(' ') {
        None if kind == "message" => Vector::Message(octets),
        // One payload without its generic header.
        Some(("body", kind)) => Vector::Chain(PayloadType(kind.parse().unwrap()), framed(&octets)),
        Some(("chain", first)) => Vector::Chain(PayloadType(first.parse().unwrap()), octets),
        _ => panic!("{}: {kind}", path.display()),
    }
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors"))
}

/// The octets of one vector.
pub(crate) fn octets(name: &str) -> Vec<u8> {
    let (Vector::Message(octets) | Vector::Chain(_, octets)) =
        load(&directory().join(name).with_extension("hex"));
    octets
}

/// Every vector, in the order of the names.
pub(crate) fn all() -> Vec<Vector> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "hex")).collect();
    paths.sort();
    assert!(paths.len() >= 36);
    paths.iter().map(|path| load(path)).collect()
}

fn types(payloads: &[Payload<'_>]) -> Vec<PayloadType> {
    payloads.iter().map(Payload::payload_type).collect()
}

#[test]
fn each_vector_is_written_as_it_was_read() {
    for vector in all() {
        match vector {
            Vector::Message(octets) => {
                let message = Message::decode(&octets).unwrap();
                assert_eq!(encode_message(&message.header, &message.payloads), Ok(octets.clone()));
            }
            Vector::Chain(first, octets) => {
                let payloads = decode_chain(first, &octets).unwrap();
                assert_eq!(encode_chain(&payloads), Ok((first, octets.clone())));
            }
        }
    }
}

#[test]
fn no_vector_has_a_payload_that_is_unknown_here() {
    for vector in all() {
        let (Vector::Message(octets) | Vector::Chain(_, octets)) = &vector;
        let payloads = match &vector {
            Vector::Message(_) => Message::decode(octets).unwrap().payloads,
            Vector::Chain(first, _) => decode_chain(*first, octets).unwrap(),
        };
        assert!(!payloads.iter().any(|p| matches!(p, Payload::Unknown(_))));
    }
}

#[test]
fn an_ike_sa_init_request_offers_two_proposals() {
    let octets = octets("init_request");
    let message = Message::decode(&octets).unwrap();
    assert_eq!(message.header.exchange, ExchangeType::IKE_SA_INIT);
    assert!(message.header.flags.initiator && !message.header.flags.response);
    assert!(message.header.responder_spi.is_zero());
    let [
        Payload::SecurityAssociation(sa),
        Payload::KeyExchange(ke),
        Payload::Nonce(nonce),
        others @ ..,
    ] = message.payloads.as_slice()
    else {
        panic!("{:?}", types(&message.payloads));
    };
    let [first, second] = sa.proposals.as_slice() else { panic!("{sa:?}") };
    assert_eq!((first.number, second.number), (1, 2));
    assert!(first.protocol == ProtocolId::IKE && first.spi.is_empty());
    assert_eq!(first.transforms[0].kind, TransformType::ENCR);
    assert_eq!(first.transforms[0].id, EncrId::AES_GCM_16.0);
    assert_eq!(first.transforms[0].key_length, Some(128));
    assert_eq!((ke.method, ke.data.len(), nonce.0.len()), (KeMethod::CURVE25519, 32, 32));
    let algorithms = others.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind == NotifyType::SIGNATURE_HASH_ALGORITHMS => {
            Some(n.hash_algorithms().unwrap())
        }
        _ => None,
    });
    assert!(algorithms.unwrap().contains(&HashAlgorithm::SHA2_256));
}

#[test]
fn an_encrypted_request_says_what_is_inside() {
    let octets = octets("auth_request");
    let message = Message::decode(&octets).unwrap();
    let [Payload::Encrypted(encrypted)] = message.payloads.as_slice() else {
        panic!("{:?}", types(&message.payloads));
    };
    assert_eq!(encrypted.first, PayloadType::ID_I);
    assert_eq!((encrypted.body_offset, encrypted.body), (32, &octets[32..]));
}

#[test]
fn fragments_are_numbered_and_the_first_says_what_is_inside() {
    for (name, first, number) in [
        ("auth_request_fragment_1", PayloadType::ID_I, 1),
        ("auth_request_fragment_2", PayloadType::NONE, 2),
    ] {
        let octets = octets(name);
        let message = Message::decode(&octets).unwrap();
        let [Payload::EncryptedFragment(fragment)] = message.payloads.as_slice() else {
            panic!("{:?}", types(&message.payloads));
        };
        assert_eq!((fragment.first, fragment.number, fragment.total), (first, number, 2));
        assert_eq!((fragment.body_offset, fragment.body), (36, &octets[36..]));
    }
}

#[test]
fn a_responder_proves_itself_with_a_signature_and_asks_for_eap() {
    let octets = octets("auth_response_eap_inside");
    let payloads = decode_chain(PayloadType::ID_R, &octets).unwrap();
    let [
        Payload::IdResponder(id),
        Payload::Certificate(cert),
        Payload::Authentication(auth),
        Payload::Eap(eap),
    ] = payloads.as_slice()
    else {
        panic!("{:?}", types(&payloads));
    };
    assert_eq!((id.kind, id.data), (IdType::FQDN, &b"b.example"[..]));
    assert_eq!(id.body(), octets[4..17]);
    assert_eq!(cert.data[0], 0x30);
    assert_eq!(auth.method, AuthMethod::DIGITAL_SIGNATURE);
    let signature = SignatureAuthentication::decode(auth.data).unwrap();
    // RFC 7427 appendix A.3.2: ecdsa-with-SHA256.
    let ecdsa_with_sha256 = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    assert_eq!(signature.algorithm_identifier, ecdsa_with_sha256);
    assert_eq!(signature.signature[0], 0x30);
    assert_eq!(signature.encode().unwrap(), auth.data);
    assert_eq!((eap.code, eap.data[0]), (EapCode::REQUEST, 4)); // EAP-MD5
}

#[test]
fn a_responder_hands_out_addresses() {
    let octets = octets("auth_response_configured_inside");
    let payloads = decode_chain(PayloadType::AUTH, &octets).unwrap();
    let configuration = payloads.iter().find_map(|p| match p {
        Payload::Configuration(configuration) => Some(configuration),
        _ => None,
    });
    let configuration = configuration.unwrap();
    assert_eq!(configuration.kind, CpType::CFG_REPLY);
    let value = |kind| configuration.attributes.iter().find(|a| a.kind == kind).unwrap().value;
    assert_eq!(value(CpAttribute::INTERNAL_IP4_ADDRESS), [10, 9, 0, 1]);
    assert_eq!(value(CpAttribute::INTERNAL_IP4_DNS), [192, 0, 2, 53]);
    let selectors = payloads.iter().find_map(|p| match p {
        Payload::TsResponder(selectors) => Some(selectors.known().copied().collect::<Vec<_>>()),
        _ => None,
    });
    let selectors = selectors.unwrap();
    assert_eq!(selectors[0].start.to_string(), "10.2.0.0");
    assert_eq!(selectors[1].end.to_string(), "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
}

#[test]
fn a_selector_limits_protocol_and_ports() {
    let octets = octets("auth_request_psk_inside");
    let payloads = decode_chain(PayloadType::ID_I, &octets).unwrap();
    let selector = payloads.iter().find_map(|p| match p {
        Payload::TsResponder(selectors) => selectors.known().next(),
        _ => None,
    });
    let selector = selector.unwrap();
    assert_eq!((selector.protocol, selector.start_port, selector.end_port), (17, 1024, 2048));
}

#[test]
fn a_rekey_of_a_child_sa_names_the_old_one() {
    let octets = octets("rekey_child_request_inside");
    let payloads = decode_chain(PayloadType::NOTIFY, &octets).unwrap();
    let Some(Payload::Notify(notify)) = payloads.first() else { panic!("{payloads:?}") };
    assert_eq!((notify.kind, notify.protocol), (NotifyType::REKEY_SA, ProtocolId::ESP));
    assert_eq!(notify.spi.len(), 4);
}

#[test]
fn a_rekey_of_the_ike_sa_has_a_new_spi() {
    let octets = octets("rekey_ike_request_inside");
    let payloads = decode_chain(PayloadType::SA, &octets).unwrap();
    let Some(Payload::SecurityAssociation(sa)) = payloads.first() else { panic!("{payloads:?}") };
    assert_eq!(sa.proposals[0].protocol, ProtocolId::IKE);
    assert_eq!(sa.proposals[0].spi.len(), 8);
}

#[test]
fn deletes_name_what_is_gone() {
    let child = octets("delete_child_inside");
    let payloads = decode_chain(PayloadType::DELETE, &child).unwrap();
    let [Payload::Delete(delete)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!((delete.protocol, delete.spis.len()), (ProtocolId::ESP, 1));
    let ike = octets("delete_ike_inside");
    let payloads = decode_chain(PayloadType::DELETE, &ike).unwrap();
    let [Payload::Delete(delete)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!((delete.protocol, delete.spis.len()), (ProtocolId::IKE, 0));
}
