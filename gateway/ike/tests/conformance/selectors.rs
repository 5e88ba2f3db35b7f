//! Traffic selectors between two ends (RFC 7296 2.9, 3.13).

use gateway_ike::reason::{Cause, Kind, Refusal};
use gateway_wire::{
    EncrId, TrafficSelector, TrafficSelectors, TsEntry, TsType, UnknownTrafficSelector,
};

use super::*;

pub(super) fn selector(net: &str) -> TrafficSelector {
    let net: ipnet::IpNet = net.parse().unwrap();
    TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start: net.network(),
        end: net.broadcast(),
    }
}

fn strange() -> TsEntry {
    TsEntry::Unknown(UnknownTrafficSelector { kind: TsType(99), protocol: 0, body: vec![1, 2, 3] })
}

/// A's IKE_AUTH with other selectors.
fn with_selectors(
    simulation: &Simulation,
    auth: &[u8],
    i: Vec<TsEntry>,
    r: Vec<TsEntry>,
) -> Vec<u8> {
    resealed(simulation, 0, auth, |payloads| {
        for payload in payloads.iter_mut() {
            match payload {
                Payload::TsInitiator(ts) => *ts = TrafficSelectors { entries: i.clone() },
                Payload::TsResponder(ts) => *ts = TrafficSelectors { entries: r.clone() },
                _ => {}
            }
        }
    })
}

/// The selectors of B's answer: TSi and TSr.
fn answered(simulation: &mut Simulation, auth: &[u8]) -> [Vec<TsEntry>; 2] {
    let answer = only(deliver(simulation, 1, auth));
    let opened = forge(simulation, 0).open(&answer).unwrap();
    let mut found = [Vec::new(), Vec::new()];
    for payload in opened.payloads().unwrap() {
        match payload {
            Payload::TsInitiator(ts) => found[0] = ts.entries,
            Payload::TsResponder(ts) => found[1] = ts.entries,
            _ => {}
        }
    }
    found
}

fn known(nets: &[&str]) -> Vec<TsEntry> {
    nets.iter().map(|net| TsEntry::Known(selector(net))).collect()
}

/// What A makes of B's answer after a change of it: the record of its refusal.
fn refused_answer(change: impl Fn(&mut Vec<Payload<'_>>)) -> Refusal {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let changed = resealed(&simulation, 1, &answer, change);
    deliver(&mut simulation, 0, &changed);
    assert_eq!(children(&simulation, 0), 0);
    let mut refusals = simulation.nodes[0].events.iter().filter_map(|e| e.refusal.clone());
    let refusal = *refusals.next().unwrap();
    assert_eq!(simulation.nodes[0].endpoint.counters().refusals(refusal.cause), 1);
    refusal
}

#[test]
fn an_answer_beyond_what_was_offered_is_refused_with_a_record() {
    let elsewhere = refused_answer(|payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::TsResponder(ts) = payload {
                *ts = TrafficSelectors { entries: known(&["10.9.0.0/24"]) };
            }
        }
    });
    assert_eq!(elsewhere.cause, Cause::RemoteAddresses);
    assert_eq!(elsewhere.candidates[0].rule.as_deref(), Some("to-b"));
    let other = refused_answer(|payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::SecurityAssociation(sa) = payload {
                sa.proposals[0].transforms[0].id = EncrId::CHACHA20_POLY1305.0;
                sa.proposals[0].transforms[0].key_length = None;
            }
        }
    });
    assert_eq!(other.cause.kind(), Kind::Proposal, "{other:?}");
    let field = other.candidates[0].fields.iter().find(|f| f.fits == Some(false)).unwrap();
    assert_eq!(field.theirs, ["CHACHA20_POLY1305"]);
}

#[test]
fn what_the_policy_allows_whole_comes_back_as_it_was() {
    let (mut simulation, auth) = half_open();
    let expected = [known(&["10.1.0.0/24"]), known(&["10.2.0.0/24"])];
    assert_eq!(answered(&mut simulation, &auth), expected);
}

#[test]
fn what_the_policy_allows_in_part_is_narrowed() {
    let (mut simulation, auth) = half_open();
    let wide = with_selectors(&simulation, &auth, known(&["10.0.0.0/8"]), known(&["0.0.0.0/0"]));
    let expected = [known(&["10.1.0.0/24"]), known(&["10.2.0.0/24"])];
    assert_eq!(answered(&mut simulation, &wide), expected);
}

#[test]
fn what_the_policy_does_not_allow_is_unacceptable() {
    let (mut simulation, auth) = half_open();
    let other = with_selectors(&simulation, &auth, known(&["10.9.0.0/16"]), known(&["0.0.0.0/0"]));
    let answer = only(deliver(&mut simulation, 1, &other));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
    assert_eq!(children(&simulation, 1), 0);
}

#[test]
fn a_selector_of_an_unknown_type_is_not_returned() {
    let (mut simulation, auth) = half_open();
    let mixed = |net: &str| vec![strange(), TsEntry::Known(selector(net)), strange()];
    let with = with_selectors(&simulation, &auth, mixed("10.1.0.0/24"), mixed("10.2.0.0/24"));
    let expected = [known(&["10.1.0.0/24"]), known(&["10.2.0.0/24"])];
    assert_eq!(answered(&mut simulation, &with), expected);

    let (mut simulation, auth) = half_open();
    let none = with_selectors(&simulation, &auth, vec![strange()], known(&["10.2.0.0/24"]));
    let answer = only(deliver(&mut simulation, 1, &none));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
}

#[test]
fn what_the_initiator_names_first_decides_between_rules() {
    // Two rules of B share traffic with the request; only the second by name covers the packet.
    let second = protect(
        "to-a-too",
        "a",
        "10.2.7.0/24".parse().unwrap(),
        "10.1.0.0/16".parse().unwrap(),
        Start::Respond,
    );
    let b = with_more(policies_of_b(), second);
    for (first, rule) in [("10.2.7.7/32", "10.2.7.0/24"), ("10.2.0.7/32", "10.2.0.0/24")] {
        let (mut simulation, auth) = half_open_with(policies_of_a(), b.clone());
        let tsi = known(&["10.1.0.9/32", "10.0.0.0/8"]);
        let tsr = known(&[first, "10.0.0.0/8"]);
        let auth = with_selectors(&simulation, &auth, tsi, tsr);
        let [_, tsr] = answered(&mut simulation, &auth);
        let within = |entry: &TsEntry| *entry == TsEntry::Known(selector(rule));
        assert!(tsr.iter().any(within), "{first}: {tsr:?}");
    }
}

/// Packets go by the narrower rule, and so does a Child SA that is asked for with its ports.
#[test]
fn of_two_rules_that_cover_a_request_the_one_that_applies_to_its_traffic_is_taken() {
    let (ours, theirs) = ("10.2.0.0/24".parse().unwrap(), "10.1.0.0/24".parse().unwrap());
    // By name it comes after the wider one.
    let mut web = protect("web", "a", ours, theirs, Start::Respond);
    (web.protocol, web.local_ports) = (Some(6), 443..=443);
    let b = with_more(policies_of_b(), web);
    let port = |port: core::ops::RangeInclusive<u16>| {
        let (start_port, end_port) = (*port.start(), *port.end());
        let of_tcp =
            TrafficSelector { protocol: 6, start_port, end_port, ..selector("10.2.0.0/24") };
        vec![TsEntry::Known(of_tcp)]
    };
    for (ports, rule) in [(443..=443, "web"), (80..=80, "to-a"), (0..=65535, "to-a")] {
        let (mut simulation, auth) = half_open_with(policies_of_a(), b.clone());
        let tsi = TrafficSelector { protocol: 6, ..selector("10.1.0.0/24") };
        let auth =
            with_selectors(&simulation, &auth, vec![TsEntry::Known(tsi)], port(ports.clone()));
        answered(&mut simulation, &auth);
        let rules: Vec<_> =
            simulation.nodes[1].kernel.children.values().map(|c| &*c.rule).collect();
        assert_eq!(rules, [rule], "{ports:?}");
    }
}

#[test]
fn a_subset_is_chosen_where_the_first_selectors_are_not_allowed() {
    let (mut simulation, auth) = half_open();
    let tsr = known(&["172.16.0.1/32", "10.2.0.0/16"]);
    let auth = with_selectors(&simulation, &auth, known(&["10.1.0.0/24"]), tsr);
    assert_eq!(answered(&mut simulation, &auth)[1], known(&["10.2.0.0/24"]));
}

#[test]
fn an_answer_outside_of_what_was_offered_is_refused_and_deleted() {
    for (at, net) in [(0, "10.1.0.0/16"), (1, "10.3.0.0/24"), (1, "0.0.0.0/0")] {
        let (mut simulation, auth) = half_open();
        let answer = only(deliver(&mut simulation, 1, &auth));
        let wrong = resealed(&simulation, 1, &answer, |payloads| {
            for payload in payloads.iter_mut() {
                match payload {
                    Payload::TsInitiator(ts) if at == 0 => ts.entries = known(&[net]),
                    Payload::TsResponder(ts) if at == 1 => ts.entries = known(&[net]),
                    _ => {}
                }
            }
        });
        let sent = only(deliver(&mut simulation, 0, &wrong));
        given_up(&simulation, 0, &sent);
    }
}

#[test]
fn a_narrower_answer_is_taken() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let narrow = resealed(&simulation, 1, &answer, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::TsResponder(ts) = payload {
                ts.entries = known(&["10.2.0.64/26"]);
            }
        }
        payloads.push(notification(NotifyType::ADDITIONAL_TS_POSSIBLE, &[]));
    });
    deliver(&mut simulation, 0, &narrow);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.selectors[0].0.remote, "10.2.0.64/26".parse().unwrap());
}

/// Some peers name what we have named first beside what contains it.
#[test]
fn what_contains_the_first_selector_is_installed_alone() {
    let (mut simulation, auth) = half_open();
    let answer = only(deliver(&mut simulation, 1, &auth));
    let named_twice = resealed(&simulation, 1, &answer, |payloads| {
        for payload in payloads.iter_mut() {
            match payload {
                Payload::TsInitiator(ts) => ts.entries = known(&["10.1.0.0/32", "10.1.0.0/24"]),
                Payload::TsResponder(ts) => ts.entries = known(&["10.2.0.0/24", "10.2.0.0/32"]),
                _ => {}
            }
        }
    });
    deliver(&mut simulation, 0, &named_twice);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    let pairs: Vec<_> = child.selectors.iter().map(|(s, _)| (s.local, s.remote)).collect();
    assert_eq!(pairs, [("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap())]);
}

#[test]
fn any_ports_are_0_to_65535() {
    let simulation = connected();
    let opened = forge(&simulation, 0).open(&simulation.nodes[0].sent[1].1).unwrap();
    for payload in opened.payloads().unwrap() {
        if let Payload::TsInitiator(ts) | Payload::TsResponder(ts) = payload {
            assert!(ts.known().all(|s| (s.start_port, s.end_port) == (0, u16::MAX)));
            // The packet that waits, of ICMP here, and the rule.
            assert_eq!(ts.known().map(|s| s.protocol).collect::<Vec<_>>(), [1, 0]);
        }
    }
}

#[test]
fn a_selector_is_only_granted_to_its_peer() {
    // B protects another prefix for another peer; A, authenticated as itself, asks for that.
    let mut b = policies_of_b();
    let other = peer("c", "b.test", "c.test", Some(IpAddr::from([192, 0, 2, 3])));
    b.peers.insert(Arc::clone(&other.name), Arc::new(other));
    let (local, remote) = ("10.2.0.0/24".parse().unwrap(), "10.3.0.0/24".parse().unwrap());
    let b = with_more(b, protect("to-c", "c", local, remote, Start::Respond));
    let (mut simulation, auth) = half_open_with(policies_of_a(), b);
    let tsi = known(&["10.3.0.0/24"]);
    let stolen = with_selectors(&simulation, &auth, tsi, known(&["10.2.0.0/24"]));
    let answer = only(deliver(&mut simulation, 1, &stolen));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
    assert_eq!(children(&simulation, 1), 0);
}

/// A peer that offers less at a rekey than the old Child SA protects, against 2.9.2, gets just that,
/// and one that names a packet before them gets all; what it replaces stays until it deletes it.
#[test]
fn a_peer_that_rekeys_for_less_gets_less_and_one_that_names_a_packet_gets_all() {
    for (offer, expected) in [
        (&["10.1.0.0/25"][..], &["10.1.0.0/25"][..]),
        (&["10.1.0.5/32", "10.1.0.0/24"], &["10.1.0.0/24"]),
    ] {
        let mut simulation = connected();
        let old = rekey::inbound(&simulation, 0);
        let request = rekey::child_request(&simulation, "10.1.0.0/24", Some(old));
        let request = with_selectors(&simulation, &request, known(offer), known(&["10.2.0.0/24"]));
        let [initiator, responder] = answered(&mut simulation, &request);
        assert_eq!(initiator, known(expected));
        assert_eq!(responder, known(&["10.2.0.0/24"]));
        assert_eq!(children(&simulation, 1), 2);
    }
}
