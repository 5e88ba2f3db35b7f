//! Arbitrary payloads that have an encoding.

use std::net::IpAddr;

use gateway_wire::{
    AuthMethod, Authentication, CertEncoding, Certificate, CertificateRequest, Configuration,
    ConfigurationAttribute, CpAttribute, CpType, Delete, Eap, EapCode, ExchangeType, Flags, Header,
    IdType, Identification, IkeSpi, KeMethod, KeyExchange, MessageId, Nonce, Notify, NotifyType,
    Payload, PayloadType, Proposal, ProtocolId, SecurityAssociation, TrafficSelector,
    TrafficSelectors, Transform, TransformType, TsEntry, TsType, Unknown, UnknownTrafficSelector,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Octets that payloads can borrow for as long as the test runs.
fn octets(
    length: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), length).prop_map(|octets| &*octets.leak())
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let flags = any::<[bool; 3]>().prop_map(|[response, version, initiator]| Flags {
        response,
        version,
        initiator,
    });
    (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<u8>(), flags, any::<u32>()).prop_map(
        |(initiator_spi, responder_spi, exchange, flags, message_id)| Header {
            initiator_spi: IkeSpi(initiator_spi),
            responder_spi: IkeSpi(responder_spi),
            exchange: ExchangeType(exchange),
            flags,
            message_id: MessageId(message_id),
        },
    )
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_length)| Transform {
        kind: TransformType(kind),
        id,
        key_length,
        unknown_attribute: false,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let protocol = prop_oneof![
        Just((1, 0..=0)),
        Just((1, 8..=8)),
        Just((2, 4..=4)),
        Just((3, 4..=4)),
        Just((4, 0..=255))
    ];
    protocol
        .prop_flat_map(|(protocol, size)| {
            (any::<u8>(), Just(protocol), vec(any::<u8>(), size), vec(transform(), 1..8))
        })
        .prop_map(|(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId(protocol),
            spi,
            transforms,
        })
}

fn identification() -> impl Strategy<Value = Identification<'static>> {
    let data = prop_oneof![
        (Just(IdType::IPV4_ADDR), octets(4)),
        (Just(IdType::IPV6_ADDR), octets(16)),
        (Just(IdType::FQDN), octets(0..64)),
        (Just(IdType(201)), octets(0..64)),
    ];
    (data, any::<[u8; 3]>()).prop_map(|((kind, data), reserved)| Identification {
        kind,
        reserved,
        data,
    })
}

fn selector() -> impl Strategy<Value = TsEntry> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|a| a.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|a| a.map(IpAddr::from)),
    ];
    let ports = prop_oneof![
        any::<[u16; 2]>().prop_map(|[a, b]| (a.min(b), a.max(b))),
        Just((u16::MAX, 0)), // opaque
    ];
    let known =
        (any::<u8>(), ports, addresses).prop_map(|(protocol, (start_port, end_port), [a, b])| {
            let (start, end) = (a.min(b), a.max(b));
            TsEntry::Known(TrafficSelector { protocol, start_port, end_port, start, end })
        });
    let unknown =
        (9..=255u8, any::<u8>(), vec(any::<u8>(), 0..32)).prop_map(|(kind, protocol, body)| {
            TsEntry::Unknown(UnknownTrafficSelector { kind: TsType(kind), protocol, body })
        });
    prop_oneof![4 => known, 1 => unknown]
}

fn traffic_selectors() -> impl Strategy<Value = TrafficSelectors> {
    vec(selector(), 1..6).prop_map(|entries| TrafficSelectors { entries })
}

fn eap() -> impl Strategy<Value = Eap<'static>> {
    let data = prop_oneof![(1..=2u8, octets(1..64)), (3..=4u8, octets(0)), (5..=9u8, octets(0..9))];
    (data, any::<u8>()).prop_map(|((code, data), identifier)| Eap {
        code: EapCode(code),
        identifier,
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete { protocol: ProtocolId::IKE, spis: vec![] }),
        (2..=3u8, vec(any::<u32>(), 0..9))
            .prop_map(|(protocol, spis)| Delete { protocol: ProtocolId(protocol), spis }),
    ]
}

fn configuration() -> impl Strategy<Value = Configuration<'static>> {
    let attribute = (0..0x8000u16, octets(0..20))
        .prop_map(|(kind, value)| ConfigurationAttribute { kind: CpAttribute(kind), value });
    (any::<u8>(), vec(attribute, 0..6))
        .prop_map(|(kind, attributes)| Configuration { kind: CpType(kind), attributes })
}

/// A payload of any type but SK and SKF, which stand at the end of whole messages only.
pub(crate) fn payload() -> impl Strategy<Value = Payload<'static>> {
    let sa = vec(proposal(), 1..5)
        .prop_map(|proposals| Payload::SecurityAssociation(SecurityAssociation { proposals }));
    let ke = (any::<u16>(), octets(0..512)).prop_map(|(method, data)| {
        Payload::KeyExchange(KeyExchange { method: KeMethod(method), data })
    });
    let cert = (any::<u8>(), octets(0..512)).prop_map(|(encoding, data)| {
        Payload::Certificate(Certificate { encoding: CertEncoding(encoding), data })
    });
    let certreq = (any::<u8>(), octets(0..64)).prop_map(|(encoding, authorities)| {
        let encoding = CertEncoding(encoding);
        Payload::CertificateRequest(CertificateRequest { encoding, authorities })
    });
    let auth = (any::<u8>(), octets(0..64)).prop_map(|(method, data)| {
        Payload::Authentication(Authentication { method: AuthMethod(method), data })
    });
    let notify = (any::<u8>(), octets(0..=255), any::<u16>(), octets(0..64)).prop_map(
        |(protocol, spi, kind, data)| {
            let (protocol, kind) = (ProtocolId(protocol), NotifyType(kind));
            Payload::Notify(Notify { protocol, spi, kind, data })
        },
    );
    let unknown =
        (prop_oneof![1..33u8, 49..53u8, 54..=255u8], octets(0..64)).prop_map(|(kind, data)| {
            Payload::Unknown(Unknown { kind: PayloadType(kind), critical: false, data })
        });
    prop_oneof![
        sa,
        ke,
        identification().prop_map(Payload::IdInitiator),
        identification().prop_map(Payload::IdResponder),
        cert,
        certreq,
        auth,
        octets(16..=256).prop_map(|nonce| Payload::Nonce(Nonce(nonce))),
        notify,
        delete().prop_map(Payload::Delete),
        octets(0..64).prop_map(Payload::VendorId),
        traffic_selectors().prop_map(Payload::TsInitiator),
        traffic_selectors().prop_map(Payload::TsResponder),
        configuration().prop_map(Payload::Configuration),
        eap().prop_map(Payload::Eap),
        unknown,
    ]
}

/// Up to eight payloads.
pub(crate) fn payloads() -> impl Strategy<Value = Vec<Payload<'static>>> {
    vec(payload(), 0..8)
}
