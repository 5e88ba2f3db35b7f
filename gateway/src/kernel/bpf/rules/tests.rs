//! The compiled rules against their plain meaning.

use gateway_common::Ports;
use proptest::prelude::*;

use super::*;

fn rule(id: u32, remote: &str) -> ClassRule {
    ClassRule {
        id,
        precedence: id,
        local: if remote.contains(':') { "::/0" } else { "0.0.0.0/0" }.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: 0..=u16::MAX,
        remote_ports: 0..=u16::MAX,
        action: Action::Protect,
    }
}

fn flow(local: &str, remote: &str, protocol: u8, ports: Option<(u16, u16)>) -> Flow {
    let remote: IpAddr = remote.parse().unwrap();
    Flow {
        local: address(local.parse().unwrap()),
        remote: address(remote),
        family: if remote.is_ipv4() { Family::V4 } else { Family::V6 },
        protocol,
        ports: ports.map_or(Ports::NONE, |(local, remote)| Ports::known(local, remote)),
        zero: 0,
    }
}

#[test]
fn no_rules_make_an_empty_generation() {
    let generation = Generation::new(&[]).unwrap();
    assert_eq!(generation.lists().count(), 0);
    assert_eq!(generation.entries().len(), 0);
}

#[test]
fn a_rule_for_all_of_ipv6_does_not_match_ipv4() {
    let generation = Generation::new(&[rule(1, "::/0")]).unwrap();
    assert_eq!(generation.classify(&flow("10.0.0.1", "10.0.0.2", 1, None)), None);
    assert!(generation.classify(&flow("fd00::1", "fd00::2", 1, None)).is_some());
}

#[test]
fn host_bits_in_a_prefix_do_not_matter() {
    let generation = Generation::new(&[rule(1, "10.1.2.3/8")]).unwrap();
    assert!(generation.classify(&flow("10.0.0.1", "10.99.0.2", 1, None)).is_some());
}

#[test]
fn the_lower_identifier_wins_among_equal_precedences() {
    let mut rules = [rule(7, "10.0.0.0/8"), rule(3, "10.0.0.0/16")];
    rules[0].precedence = 5;
    rules[1].precedence = 5;
    let found = Generation::new(&rules).unwrap();
    let found = found.classify(&flow("10.0.0.1", "10.0.0.2", 1, None)).unwrap();
    assert_eq!(found.rule, 3);
}

#[test]
fn prefixes_of_two_families_are_refused() {
    let mut broken = rule(4, "10.0.0.0/8");
    broken.local = "::/0".parse().unwrap();
    assert_eq!(Generation::new(&[broken]).unwrap_err(), RuleError::Families(4));
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is the test")]
fn a_reversed_port_range_is_refused() {
    let mut broken = rule(4, "10.0.0.0/8");
    broken.remote_ports = 20..=10;
    assert_eq!(Generation::new(&[broken]).unwrap_err(), RuleError::Ports(4));
}

#[test]
fn too_many_combinations_of_prefix_lengths_are_refused() {
    let remotes: Vec<String> = (1..=41).map(|length| format!("fd00::/{length}")).collect();
    let rules: Vec<ClassRule> = (0..).zip(&remotes).map(|(id, net)| rule(id, net)).collect();
    assert!(Generation::new(&rules[..40]).is_ok());
    let error = Generation::new(&rules).unwrap_err();
    assert_eq!(error, RuleError::Tuples { family: Family::V6, count: 41 });
    assert!(error.to_string().contains("in 41 ways, more than 40"), "{error}");
}

#[test]
fn too_many_rules_that_differ_by_ports_are_refused() {
    let rules: Vec<ClassRule> =
        (0..17).map(|id| ClassRule { remote_ports: 80..=80, ..rule(id, "10.0.0.0/8") }).collect();
    assert!(Generation::new(&rules[..16]).is_ok());
    assert_eq!(Generation::new(&rules).unwrap_err(), RuleError::Alternatives { rule: 16 });
}

/// Few values, so that rules and packets meet often.
fn small_rule() -> impl Strategy<Value = ClassRule> {
    let net = || {
        prop_oneof![
            (0_u8..4, 28_u8..=32).prop_map(|(host, length)| format!("10.0.0.{host}/{length}")),
            Just("0.0.0.0/0".to_owned()),
        ]
    };
    let ports = || (0_u16..6, 0_u16..6).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let any = prop_oneof![ports(), Just(0..=u16::MAX)];
    let protocol = prop_oneof![Just(None), Just(Some(6)), Just(Some(17))];
    (0_u32..4, net(), net(), protocol, any, ports(), 1_u32..=3).prop_map(
        |(precedence, local, remote, protocol, local_ports, remote_ports, action)| ClassRule {
            id: 0,
            precedence,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            protocol,
            local_ports,
            remote_ports,
            action: Action::new(action).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn the_search_finds_the_rule_that_a_walk_over_all_rules_finds(
        mut rules in prop::collection::vec(small_rule(), 0..30),
        local in 0_u8..5,
        remote in 0_u8..5,
        protocol in prop_oneof![Just(6_u8), Just(17)],
        ports in (0_u16..7, 0_u16..7),
    ) {
        for (id, rule) in (0..).zip(&mut rules) {
            rule.id = id;
        }
        let Ok(generation) = Generation::new(&rules) else { return Ok(()) };
        let (local, remote) = (format!("10.0.0.{local}"), format!("10.0.0.{remote}"));
        let found = generation.classify(&flow(&local, &remote, protocol, Some(ports)));
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let expected = rules
            .iter()
            .filter(|rule| rule.local.contains(&local) && rule.remote.contains(&remote))
            .filter(|rule| rule.protocol.is_none_or(|only| only == protocol))
            .filter(|rule| rule.local_ports.contains(&ports.0))
            .filter(|rule| rule.remote_ports.contains(&ports.1))
            .min_by_key(|rule| (rule.precedence, rule.id));
        prop_assert_eq!(found.map(|found| found.rule), expected.map(|rule| rule.id));
    }
}
