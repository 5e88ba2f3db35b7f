//! Addresses for a peer that asks (RFC 7296 1.7, 2.19, 3.15): what is asked in a wrong or unknown
//! way. What is asked well is in `pools.rs`.

use gateway_ike::config::Pool;
use gateway_wire::{Configuration, ConfigurationAttribute, CpAttribute, CpType, PayloadType};

use super::*;

fn attribute(kind: CpAttribute, value: &[u8]) -> ConfigurationAttribute<'_> {
    ConfigurationAttribute { kind, value }
}

/// B's answer to A's IKE_AUTH with a configuration payload; B has a pool for A, or not.
fn answer(pool: bool, kind: CpType, attributes: Vec<ConfigurationAttribute<'static>>) -> Opened {
    answer_to(pool, |payloads| {
        payloads.insert(0, Payload::Configuration(Configuration { kind, attributes }));
    })
}

/// The same with any change of A's IKE_AUTH.
fn answer_to(pool: bool, change: impl FnOnce(&mut Vec<Payload<'_>>)) -> Opened {
    let any = ["0.0.0.0/0".parse().unwrap()];
    let a = with_rule(policies_of_a(), |r| r.local = any.to_vec());
    let b = with_peer(policies_of_b(), |p| {
        p.pool = pool.then(|| {
            let addresses = vec!["10.1.0.0/24".parse().unwrap()];
            Arc::new(Pool { name: "pool".into(), addresses, dns: vec![B] })
        });
    });
    let (mut simulation, auth) = half_open_with(a, b);
    let with = resealed(&simulation, 0, &auth, change);
    let answer = only(deliver(&mut simulation, 1, &with));
    forge(&simulation, 0).open(&answer).unwrap()
}

/// The configuration payload among payloads: its place, its type, and its attributes.
fn configuration<'a>(payloads: &'a [Payload<'_>]) -> Option<(usize, &'a Configuration<'a>)> {
    payloads.iter().enumerate().find_map(|(at, payload)| match payload {
        Payload::Configuration(configuration) => Some((at, configuration)),
        _ => None,
    })
}

#[test]
fn the_reply_stands_before_the_sa_in_the_same_message() {
    let asked = vec![attribute(CpAttribute::INTERNAL_IP4_ADDRESS, &[])];
    let answer = answer(true, CpType::CFG_REQUEST, asked);
    let payloads = answer.payloads().unwrap();
    let (at, reply) = configuration(&payloads).unwrap();
    assert_eq!(reply.kind, CpType::CFG_REPLY);
    let sa = payloads.iter().position(|p| p.payload_type() == PayloadType::SA).unwrap();
    assert!(at < sa);
}

#[test]
fn unknown_and_abandoned_attributes_are_ignored() {
    let asked = vec![
        attribute(CpAttribute(5), &[0, 0, 14, 16]), // INTERNAL_ADDRESS_EXPIRY
        attribute(CpAttribute(0x7abc), b"nobody knows"),
        attribute(CpAttribute::INTERNAL_IP4_ADDRESS, &[]),
        attribute(CpAttribute::INTERNAL_IP4_NBNS, &[]),
    ];
    let answer = answer(true, CpType::CFG_REQUEST, asked);
    let payloads = answer.payloads().unwrap();
    let (_, reply) = configuration(&payloads).unwrap();
    let kinds = reply.attributes.iter().map(|a| a.kind).collect::<Vec<_>>();
    assert!(kinds.contains(&CpAttribute::INTERNAL_IP4_ADDRESS));
    assert!(!kinds.contains(&CpAttribute(5)) && !kinds.contains(&CpAttribute(0x7abc)));
    let netmask = reply.attributes.iter().any(|a| a.kind == CpAttribute::INTERNAL_IP4_NETMASK);
    assert!(!netmask || kinds.contains(&CpAttribute::INTERNAL_IP4_ADDRESS));
}

#[test]
fn who_does_not_request_gets_no_reply() {
    let asked = || vec![attribute(CpAttribute::INTERNAL_IP4_ADDRESS, &[])];
    for kind in [CpType::CFG_REPLY, CpType::CFG_SET, CpType::CFG_ACK, CpType(99)] {
        for pool in [true, false] {
            let answer = answer(pool, kind, asked());
            assert!(configuration(&answer.payloads().unwrap()).is_none(), "{kind:?}");
        }
    }
    let simulation = connected();
    let sent = simulation.nodes[1].sent.last().unwrap();
    let opened = forge(&simulation, 0).open(&sent.1).unwrap();
    assert!(configuration(&opened.payloads().unwrap()).is_none());
}

#[test]
fn a_request_for_an_address_behind_the_sa_is_answered_before_it() {
    let attributes = vec![attribute(CpAttribute::INTERNAL_IP4_ADDRESS, &[])];
    let answer = answer_to(true, |payloads| {
        let kind = CpType::CFG_REQUEST;
        payloads.push(Payload::Configuration(Configuration { kind, attributes }));
    });
    let payloads = answer.payloads().unwrap();
    let (at, reply) = configuration(&payloads).unwrap();
    assert_eq!(reply.kind, CpType::CFG_REPLY);
    let sa = payloads.iter().position(|p| p.payload_type() == PayloadType::SA).unwrap();
    assert!(at < sa);
}
