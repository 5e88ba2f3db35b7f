//! Narrowing, and ranges as prefixes.
#![expect(clippy::arithmetic_side_effects, reason = "This is test code.")]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{ALL_PORTS, Action};

/// Pairs that there may be.
const MOST: usize = 64;

fn range(start: &str, end: &str) -> TrafficSelector {
    let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
    TrafficSelector { protocol: 0, start_port: 0, end_port: u16::MAX, start, end }
}

/// TCP port 80 of the other side.
const fn web(local: IpNet, remote: IpNet) -> Selector {
    let (local_ports, remote_ports) = (ALL_PORTS, 80..=80);
    Selector { local, remote, protocol: Some(6), local_ports, remote_ports }
}

fn with(protocol: u8, ports: PortRange, selector: TrafficSelector) -> TrafficSelector {
    let (start_port, end_port) = ports.into_inner();
    TrafficSelector { protocol, start_port, end_port, ..selector }
}

fn rule(local: &[&str], remote: &[&str]) -> Rule {
    let nets = |all: &[&str]| all.iter().map(|n| n.parse().unwrap()).collect();
    Rule {
        name: "rule".into(),
        priority: Rule::DEFAULT_PRIORITY,
        assigned: false,
        local: nets(local),
        remote: nets(remote),
        protocol: None,
        local_ports: ALL_PORTS,
        remote_ports: ALL_PORTS,
        action: Action::Bypass,
    }
}

/// A peer may send 255 selectors, and a rule may have as many prefixes: what nobody can use is not
/// put together in the square of their product.
#[test]
fn of_more_selectors_than_can_be_used_no_more_are_found() {
    let all = range("0.0.0.0", "255.255.255.255");
    let port = |port| with(6, port..=port, all);
    let ports: Vec<TrafficSelector> = (1..=255).map(port).collect();
    let net = |n: u8| range(&format!("10.{n}.0.0"), &format!("10.{n}.0.255"));
    let nets: Vec<TrafficSelector> = (0..64).map(net).collect();
    let found = narrow(MOST, &nets, &ports);
    assert_eq!(found.len(), MOST + 1);
    let rule = rule(&["10.0.0.0/8"], &["10.0.0.0/8"]);
    assert_eq!(pairs(MOST, &rule, &found, &[all]), None);
}

#[test]
fn a_rule_becomes_one_selector_for_each_prefix() {
    let rule = Rule {
        protocol: Some(6),
        remote_ports: 443..=444,
        ..rule(&["10.1.0.0/24", "2001:db8::/64"], &["10.2.3.4/32"])
    };
    let (local, remote) = of_rule(&rule);
    assert_eq!(
        local,
        [
            with(6, ALL_PORTS, range("10.1.0.0", "10.1.0.255")),
            with(6, ALL_PORTS, range("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff")),
        ]
    );
    assert_eq!(remote, [with(6, 443..=444, range("10.2.3.4", "10.2.3.4"))]);
}

#[test]
fn the_wider_of_two_ranges_is_narrowed_to_the_other() {
    let (wide, thin) = (range("10.0.0.0", "10.255.255.255"), range("10.1.0.5", "10.1.0.9"));
    assert_eq!(narrow(MOST, &[wide], &[thin]), [thin]);
    assert_eq!(narrow(MOST, &[thin], &[wide]), [thin]);
    let apart = range("10.1.0.10", "10.1.0.20");
    assert_eq!(narrow(MOST, &[thin], &[apart]), []);
    let across = range("10.1.0.9", "10.1.0.20");
    assert_eq!(narrow(MOST, &[thin], &[across]), [range("10.1.0.9", "10.1.0.9")]);
}

#[test]
fn any_protocol_is_narrowed_to_one_but_not_one_to_another() {
    let any = range("10.0.0.0", "10.0.0.9");
    let (tcp, udp) = (with(6, ALL_PORTS, any), with(17, ALL_PORTS, any));
    assert_eq!(narrow(MOST, &[any], &[tcp, udp]), [tcp, udp]);
    assert_eq!(narrow(MOST, &[tcp], &[any]), [tcp]);
    assert_eq!(narrow(MOST, &[tcp], &[udp]), []);
}

#[test]
fn ports_are_narrowed_and_opaque_ones_refused() {
    let net = range("10.0.0.0", "10.0.0.9");
    let tcp = |ports| with(6, ports, net);
    assert_eq!(narrow(MOST, &[tcp(80..=90)], &[tcp(85..=100)]), [tcp(85..=90)]);
    assert_eq!(narrow(MOST, &[tcp(80..=90)], &[tcp(91..=100)]), []);
    let opaque = TrafficSelector { start_port: u16::MAX, end_port: 0, ..net };
    assert!(opaque.is_opaque());
    assert_eq!(narrow(MOST, &[net], &[opaque]), []);
}

#[test]
fn the_families_do_not_mix() {
    let (v4, v6) = (range("0.0.0.0", "255.255.255.255"), range("::", "ffff::"));
    assert_eq!(narrow(MOST, &[v4], &[v6]), []);
    assert_eq!(narrow(MOST, &[v6, v4], &[v4, v6]), [v4, v6]);
    let rule = rule(&["0.0.0.0/0"], &["0.0.0.0/0"]);
    assert_eq!(pairs(MOST, &rule, &[v4], &[v6]), None);
    assert_eq!(pairs(MOST, &rule, &[v4], &[v6, v4]).unwrap().len(), 1);
}

#[test]
fn what_lies_in_another_is_not_repeated() {
    let (wide, thin) = (range("10.0.0.0", "10.0.0.255"), range("10.0.0.3", "10.0.0.3"));
    assert_eq!(narrow(MOST, &[wide], &[thin, wide, thin]), [wide]);
    assert_eq!(narrow(MOST, &[wide], &[wide, thin, wide]), [wide]);
}

#[test]
fn pairs_have_the_precedence_of_the_rule_around_them_and_the_agreed_ports() {
    let rule = rule(&["10.1.0.0/16"], &["10.2.0.0/16", "10.2.0.0/20"]);
    let local = with(6, ALL_PORTS, range("10.1.2.0", "10.1.2.255"));
    let remote = with(0, 80..=80, range("10.2.0.7", "10.2.0.7"));
    let pairs = pairs(MOST, &rule, &[local], &[remote]).unwrap();
    let (local, remote) = ("10.1.2.0/24".parse().unwrap(), "10.2.0.7/32".parse().unwrap());
    let selector = web(local, remote);
    assert_eq!(describe_pairs(&pairs), "10.1.2.0/24 == 10.2.0.7/32:80 proto 6");
    let around = ["10.1.0.0/16", "10.2.0.0/20"].map(|net| net.parse().unwrap());
    assert_eq!(pairs, [(selector, rule.precedence(&around[0], &around[1]))]);
    // Whatever has longer prefixes than the rule goes before it, though the peer narrows to less.
    assert!(pairs[0].1 > rule.precedence(&around[0], &"10.2.0.0/24".parse().unwrap()));
}

/// Of the traps of a rule the one with the longest prefixes applies.
#[test]
fn a_child_goes_before_each_trap_of_its_rule_where_it_protects() {
    let rule =
        rule(&["10.1.0.0/16", "10.1.7.0/24"], &["10.2.0.0/16", "10.2.0.0/24", "10.3.0.0/16"]);
    let child = |nets: &[(&str, &str)]| {
        let pair = |(local, remote): &(&str, &str)| {
            let pair = web(local.parse().unwrap(), remote.parse().unwrap());
            let precedence = precedence(&rule, &pair);
            (pair, precedence)
        };
        nets.iter().map(pair).collect::<Vec<_>>()
    };
    // What is agreed has no prefix that lies in another.
    let agreed = child(&[("10.1.0.0/16", "10.2.0.0/16")]);
    let all = before_traps(&rule, &agreed);
    let expected = child(&[
        ("10.1.0.0/16", "10.2.0.0/16"),
        ("10.1.0.0/16", "10.2.0.0/24"),
        ("10.1.7.0/24", "10.2.0.0/16"),
        ("10.1.7.0/24", "10.2.0.0/24"),
    ]);
    assert_eq!(all, expected);
    // Two that cross: what they have in common goes no further before others than the better one.
    let crossing = child(&[("10.1.7.0/24", "10.2.0.0/16")]);
    let trap = rule.precedence(&"10.1.0.0/16".parse().unwrap(), &"10.2.0.0/24".parse().unwrap());
    let all = before_traps(&rule, &crossing);
    assert_eq!(all.len(), 2);
    assert!(all[1].1 <= trap, "{all:?}");
    // The host to which a peer narrows goes where the longest prefixes around it do.
    let host = child(&[("10.1.7.9/32", "10.2.0.1/32")]);
    assert_eq!(before_traps(&rule, &host), host);
    let one_side = child(&[("10.1.0.0/16", "10.2.0.1/32")]);
    let longest = rule.precedence(&"10.1.7.0/24".parse().unwrap(), &"10.2.0.0/24".parse().unwrap());
    let within = web("10.1.7.0/24".parse().unwrap(), "10.2.0.1/32".parse().unwrap());
    assert_eq!(before_traps(&rule, &one_side), [one_side[0].clone(), (within, longest)]);
}

#[test]
fn sides_with_different_protocols_make_no_pair() {
    let net = range("10.0.0.0", "10.0.0.255");
    let (tcp, udp) = (with(6, ALL_PORTS, net), with(17, ALL_PORTS, net));
    assert_eq!(pairs(MOST, &rule(&["10.0.0.0/8"], &["10.0.0.0/8"]), &[tcp], &[udp]), None);
}

#[test]
fn the_number_of_pairs_is_limited() {
    let rule = rule(&["10.0.0.0/8"], &["10.0.0.0/8"]);
    let hosts = |count: u8| -> Vec<_> {
        (0..count)
            .map(|n| range(&format!("10.0.0.{}", 2 * n), &format!("10.0.0.{}", 2 * n)))
            .collect()
    };
    assert_eq!(pairs(MOST, &rule, &hosts(8), &hosts(8)).unwrap().len(), MOST);
    assert_eq!(pairs(MOST, &rule, &hosts(8), &hosts(9)), None);
    assert_eq!(pairs(MOST, &rule, &[], &hosts(1)), None);
    // The longest list of prefixes that a range can have is cut before it is made.
    let worst = range("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
    assert_eq!(pairs(MOST, &rule, &[worst], &[worst]), None);
    assert_eq!(prefixes(MOST, worst.start, worst.end).len(), MOST + 1);
}

#[test]
fn selectors_are_described_in_words() {
    let net = range("10.0.0.0", "10.0.0.255");
    let odd = with(6, 80..=80, range("10.0.0.1", "10.0.0.2"));
    assert_eq!((addresses(&net).as_str(), ports(&net).as_str()), ("10.0.0.0/24", "any"));
    assert_eq!((addresses(&odd).as_str(), ports(&odd).as_str()), ("10.0.0.1-10.0.0.2", "80"));
    assert_eq!(ports(&with(17, 1..=9, net)), "1-9");
}

#[test]
fn the_pairs_of_a_rule_are_of_one_family_each() {
    let rule = rule(&["10.1.0.0/24", "2001:db8::/64"], &["10.2.0.0/24", "2001:db8:1::/64"]);
    let pairs = rule_pairs(&rule);
    assert_eq!(
        describe_pairs(&pairs),
        "10.1.0.0/24 == 10.2.0.0/24, 2001:db8::/64 == 2001:db8:1::/64"
    );
    assert!(pairs.iter().all(|(s, p)| *p == rule.precedence(&s.local, &s.remote)));
}

/// Selectors in a small world, where many overlap.
fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let one = (any::<bool>(), 0..24_u8, 0..24_u8, 0..6_u16, 0..6_u16, 0..3_u8).prop_map(
        |(v6, a, b, p, q, protocol)| {
            let address = |octet: u8| match v6 {
                false => IpAddr::V4(Ipv4Addr::new(10, 0, 0, octet)),
                true => IpAddr::V6(Ipv6Addr::from_bits(u128::from(octet))),
            };
            TrafficSelector {
                protocol,
                start_port: p.min(q),
                end_port: p.max(q),
                start: address(a.min(b)),
                end: address(a.max(b)),
            }
        },
    );
    vec(one, 0..5)
}

/// Whether a packet is selected: its address, port and protocol.
fn selects(all: &[TrafficSelector], address: IpAddr, port: u16, protocol: u8) -> bool {
    all.iter().any(|s| {
        s.start.is_ipv4() == address.is_ipv4()
            && (s.start..=s.end).contains(&address)
            && (s.start_port..=s.end_port).contains(&port)
            && (s.protocol == 0 || s.protocol == protocol)
    })
}

/// Every packet of the small world.
fn packets() -> impl Iterator<Item = (IpAddr, u16, u8)> {
    let addresses = (0..24_u8).flat_map(|octet| {
        let v6 = IpAddr::V6(Ipv6Addr::from_bits(u128::from(octet)));
        [IpAddr::V4(Ipv4Addr::new(10, 0, 0, octet)), v6]
    });
    addresses.flat_map(|a| (0..6).flat_map(move |port| (1..4).map(move |proto| (a, port, proto))))
}

fn sorted(mut all: Vec<TrafficSelector>) -> Vec<TrafficSelector> {
    all.sort_by_key(|s| (s.start, s.end, s.start_port, s.end_port, s.protocol));
    all
}

/// The length of the shortest list of prefixes for a range, found the slow way.
fn prefix_count(start: u32, end: u32) -> usize {
    let (mut count, mut at) = (0, u64::from(start));
    while at <= u64::from(end) {
        let fits = |bits: &u32| at % (1 << bits) == 0 && at + (1 << bits) - 1 <= u64::from(end);
        at += 1 << (0..=32_u32).rev().find(fits).unwrap();
        count += 1;
    }
    count
}

proptest! {
    #[test]
    fn narrowing_selects_what_both_select(a in selectors(), b in selectors()) {
        let both = narrow(MOST, &a, &b);
        for (address, port, protocol) in packets() {
            let expected =
                selects(&a, address, port, protocol) && selects(&b, address, port, protocol);
            prop_assert_eq!(selects(&both, address, port, protocol), expected);
        }
        prop_assert!(within(&both, &a) && within(&both, &b));
    }

    #[test]
    fn narrowing_does_not_depend_on_who_proposes(a in selectors(), b in selectors()) {
        prop_assert_eq!(sorted(narrow(MOST, &a, &b)), sorted(narrow(MOST, &b, &a)));
    }

    #[test]
    fn narrowing_again_changes_nothing(a in selectors(), b in selectors()) {
        let once = narrow(MOST, &a, &b);
        prop_assert_eq!(&narrow(MOST, &a, &once), &once);
        prop_assert_eq!(&narrow(MOST, &b, &once), &once);
    }

    #[test]
    fn within_is_what_narrowing_leaves_alone(a in selectors(), b in selectors()) {
        let all_kept = b.iter().all(|s| narrow(MOST, &a, &[*s]) == [*s]);
        prop_assert_eq!(within(&b, &a), all_kept);
    }

    #[test]
    fn pairs_cover_exactly_the_ranges(
        ends in any::<[u8; 4]>(),
        samples in vec(any::<(u8, u8)>(), 100),
    ) {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        let of = |a: u8, b: u8| (base + u32::from(a.min(b)), base + u32::from(a.max(b)));
        let (l, r) = (of(ends[0], ends[1]), of(ends[2], ends[3]));
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        let selector = |(start, end)| TrafficSelector {
            start: address(start),
            end: address(end),
            ..range("0.0.0.0", "0.0.0.0")
        };
        let rule = rule(&["10.0.0.0/8"], &["10.0.0.0/8"]);
        let pairs = pairs(MOST, &rule, &[selector(l)], &[selector(r)]);
        let count = prefix_count(l.0, l.1) * prefix_count(r.0, r.1);
        prop_assert_eq!(pairs.as_ref().map(Vec::len), (count <= MOST).then_some(count));
        let edges = ends.iter().flat_map(|a| ends.iter().map(|b| (*a, *b)));
        for (a, b) in samples.into_iter().chain(edges) {
            let (a, b) = (base + u32::from(a), base + u32::from(b));
            let hits = pairs.iter().flatten().filter(|(s, _)| {
                s.local.contains(&address(a)) && s.remote.contains(&address(b))
            });
            let inside = (l.0..=l.1).contains(&a) && (r.0..=r.1).contains(&b);
            prop_assert_eq!(hits.count(), usize::from(inside && pairs.is_some()));
        }
    }
}
