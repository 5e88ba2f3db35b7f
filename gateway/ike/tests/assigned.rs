//! Addresses that we ask a peer for, as initiator, and what we do with them (RFC 7296 2.19, 3.15).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{
    EndpointConfig, Families, Mode, PeerConfig, PolicySet, Pool, Renewal, Rule, Start,
};
use gateway_ike::counters::Counter;
use gateway_ike::event::EventKind;
use gateway_ike::io::{ChildSpec, Path};
use gateway_ike::testing::{Faults, Forge, Opened, Simulation, peer, policies, protect};
use gateway_ike::{Input, config::Action};
use gateway_wire::{
    ConfigurationAttribute, CpAttribute, CpType, ExchangeType, Header, NotifyType, Payload,
    PayloadType, TrafficSelectors,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);
const BOTH: Families = Families { v4: true, v6: true };
const V4: Families = Families { v4: true, v6: false };

/// A rule of A for whatever it is assigned.
fn assigned(name: &str, remote: &[&str], start: Start) -> Rule {
    let remote: Vec<ipnet::IpNet> = remote.iter().map(|n| n.parse().unwrap()).collect();
    let any = ["0.0.0.0/0", "::/0"].map(|n| n.parse::<ipnet::IpNet>().unwrap());
    let of_remote =
        any.iter().filter(|l| remote.iter().any(|r| r.addr().is_ipv4() == l.addr().is_ipv4()));
    let local = of_remote.copied().collect();
    Rule {
        local,
        assigned: true,
        remote: remote.clone(),
        ..protect(name, "b", any[0], remote[0], start)
    }
}

fn policies_of_a(families: Families, change: impl Fn(&mut PeerConfig)) -> PolicySet {
    let mut b = PeerConfig { request_address: families, ..peer("b", "a.test", "b.test", Some(B)) };
    change(&mut b);
    let remotes: &[&str] =
        if families == BOTH { &["10.2.0.0/24", "fd00:2::/64"] } else { &["10.2.0.0/24"] };
    let rules = vec![
        assigned("to-b", remotes, Start::OnDemand),
        assigned("too", &["10.3.0.0/24"], Start::OnDemand),
    ];
    policies(vec![b], rules)
}

fn policies_of_b(pool: &[&str]) -> PolicySet {
    let pool = (!pool.is_empty()).then(|| {
        let addresses = pool.iter().map(|n| n.parse().unwrap()).collect();
        Arc::new(Pool {
            name: "pool".into(),
            addresses,
            dns: vec![B, "fd00:2::53".parse().unwrap()],
        })
    });
    let a = PeerConfig { pool, ..peer("a", "b.test", "a.test", None) };
    let pools = ["10.9.0.0/24", "fd00:9::/64"].map(|n| n.parse::<ipnet::IpNet>().unwrap());
    let rule = |name: &str, local: &[&str]| Rule {
        local: local.iter().map(|n| n.parse().unwrap()).collect(),
        remote: pools.to_vec(),
        ..protect(name, "a", pools[0], pools[0], Start::Respond)
    };
    policies(
        vec![a],
        vec![rule("to-a", &["10.2.0.0/24", "fd00:2::/64"]), rule("too", &["10.3.0.0/24"])],
    )
}

fn pair(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation
}

fn connected(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = pair(a, b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

fn children_of_a(simulation: &Simulation) -> Vec<&ChildSpec> {
    simulation.nodes[0].kernel.children.values().collect()
}

fn selectors(child: &ChildSpec) -> Vec<String> {
    child.selectors.iter().map(|(s, _)| s.to_string()).collect()
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// The attributes that A has asked for in its IKE_AUTH requests, each with what stands before SA.
fn requests(simulation: &Simulation, of: &Forge) -> Vec<(CpAttribute, Vec<u8>)> {
    let mut found = Vec::new();
    for (_, datagram) in &simulation.nodes[0].sent {
        let Some(opened) = of.open(datagram) else { continue };
        let payloads = opened.payloads().unwrap();
        let place = |kind| payloads.iter().position(|p| p.payload_type() == kind);
        let Some(at) = place(PayloadType::CP) else { continue };
        assert_eq!(opened.header.exchange, ExchangeType::IKE_AUTH, "asked for nowhere else");
        assert!(Some(at) < place(PayloadType::SA));
        let Payload::Configuration(asked) = &payloads[at] else { continue };
        assert_eq!(asked.kind, CpType::CFG_REQUEST);
        found.extend(asked.attributes.iter().map(|a| (a.kind, a.value.to_vec())));
    }
    found
}

#[test]
fn what_the_peer_assigns_is_ours_and_nothing_else_is_selected() {
    let simulation =
        connected(policies_of_a(BOTH, |_| {}), policies_of_b(&["10.9.0.0/24", "fd00:9::/64"]));
    let [child] = children_of_a(&simulation)[..] else { panic!("one Child SA") };
    assert_eq!(texts(&child.addresses), ["10.9.0.1", "fd00:9::1"]);
    assert_eq!(texts(&child.name_servers), ["192.0.2.2", "fd00:2::53"]);
    assert_eq!(&*child.peer, "b");
    let expected = ["10.9.0.1/32 == 10.2.0.0/24", "fd00:9::1/128 == fd00:2::/64"];
    assert_eq!(selectors(child), expected);
    assert!(simulation.mismatches().is_empty(), "{:?}", simulation.mismatches());
    // The responder has none of its own.
    assert!(
        simulation.nodes[1]
            .kernel
            .children
            .values()
            .all(|c| c.addresses.is_empty() && c.name_servers.is_empty())
    );
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(texts(&status.ike_sas[0].own_addresses), ["10.9.0.1", "fd00:9::1"]);
    assert_eq!(texts(&status.ike_sas[0].dns), ["192.0.2.2", "fd00:2::53"]);
    let told = |kind: &EventKind| {
        matches!(kind, EventKind::AddressesReceived { addresses, dns }
            if addresses == "10.9.0.1, fd00:9::1" && dns == "192.0.2.2, fd00:2::53")
    };
    assert!(simulation.nodes[0].events.iter().any(|event| told(&event.kind)));

    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let kinds: Vec<_> = requests(&simulation, &forge);
    let empty = |kind| (kind, Vec::new());
    let asked = [
        CpAttribute::INTERNAL_IP4_ADDRESS,
        CpAttribute::INTERNAL_IP4_DNS,
        CpAttribute::INTERNAL_IP6_ADDRESS,
        CpAttribute::INTERNAL_IP6_DNS,
    ];
    assert_eq!(kinds, asked.map(empty));
}

/// Before there is an address, and whatever address there is, all traffic to the rule's remote
/// prefixes is the rule's: it waits, or is dropped.
#[test]
fn all_traffic_to_the_remote_prefixes_is_the_rules_before_there_is_an_address() {
    let simulation = pair(policies_of_a(V4, |_| {}), policies_of_b(&["10.9.0.0/24"]));
    let kernel = &simulation.nodes[0].kernel;
    let trap = kernel.traps.values().find(|t| &*t.rule == "to-b").unwrap();
    assert_eq!(trap.selectors[0].0.to_string(), "0.0.0.0/0 == 10.2.0.0/24");
    let rule = &kernel.classified.as_ref().unwrap().rules["to-b"];
    assert_eq!(rule.local, ["0.0.0.0/0".parse().unwrap()]);
}

#[test]
fn another_rule_of_the_ike_sa_uses_the_same_address() {
    let mut simulation = connected(policies_of_a(V4, |_| {}), policies_of_b(&["10.9.0.0/24"]));
    simulation.acquire(0, "too");
    simulation.run(MINUTE);
    let all: Vec<_> = children_of_a(&simulation).into_iter().flat_map(selectors).collect();
    assert_eq!(all, ["10.9.0.1/32 == 10.2.0.0/24", "10.9.0.1/32 == 10.3.0.0/24"]);
    assert!(children_of_a(&simulation).iter().all(|c| texts(&c.addresses) == ["10.9.0.1"]));
    assert!(simulation.mismatches().is_empty());
}

/// Rules of A that are replaced every ten minutes.
fn short_lived(mut policies: PolicySet) -> PolicySet {
    for rule in policies.rules.values_mut() {
        let mut shorter = Rule::clone(rule);
        if let Action::Protect(protect) = &mut shorter.action {
            assert_eq!(protect.mode, Mode::Tunnel);
            protect.lifetime.time = Duration::from_secs(600);
        }
        *rule = Arc::new(shorter);
    }
    policies
}

#[test]
fn the_address_stays_through_rekeying_of_both_kinds() {
    let a = short_lived(policies_of_a(V4, |b| b.lifetime = Duration::from_secs(1500)));
    let mut simulation = connected(a, policies_of_b(&["10.9.0.0/24"]));
    simulation.run(Duration::from_secs(3000));
    let count = |counter| simulation.nodes[0].endpoint.counters().value(counter);
    assert!(count(Counter::ChildSaRekeyed) >= 3 && count(Counter::IkeSaRekeyed) >= 1);
    assert_eq!(count(Counter::IkeSaEstablished), 1);
    let last = *children_of_a(&simulation).last().unwrap();
    assert_eq!(texts(&last.addresses), ["10.9.0.1"]);
    assert_eq!(selectors(last), ["10.9.0.1/32 == 10.2.0.0/24"]);
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(texts(&status.ike_sas[0].own_addresses), ["10.9.0.1"]);
}

#[test]
fn a_reauthentication_asks_for_the_address_that_there_is() {
    let reauthenticate = |b: &mut PeerConfig| {
        b.renewal = Renewal::Reauthenticate;
        b.lifetime = Duration::from_secs(600);
    };
    let a = policies_of_a(BOTH, reauthenticate);
    let mut simulation = connected(a, policies_of_b(&["10.9.0.0/24", "fd00:9::/64"]));
    simulation.run(Duration::from_secs(590));
    assert_eq!(simulation.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished), 2);
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let v6: std::net::Ipv6Addr = "fd00:9::1".parse().unwrap();
    let asked = requests(&simulation, &forge);
    assert_eq!(asked[0], (CpAttribute::INTERNAL_IP4_ADDRESS, vec![10, 9, 0, 1]));
    let v6 = v6.octets().into_iter().chain([128]).collect();
    assert_eq!(asked[2], (CpAttribute::INTERNAL_IP6_ADDRESS, v6));
    let [child] = children_of_a(&simulation)[..] else { panic!("one Child SA") };
    assert_eq!(texts(&child.addresses), ["10.9.0.1", "fd00:9::1"]);
    // The new Child SA stood before the old one went, so that the address was there all the time.
    let history = &simulation.nodes[0].kernel.history;
    let installed = history.iter().rposition(|h| h == "install child to-b").unwrap();
    let removed = history.iter().position(|h| h.starts_with("remove child")).unwrap();
    assert!(installed < removed, "{history:?}");
}

#[test]
fn whoever_begins_at_us_gets_nothing_by_a_rule_for_what_we_are_assigned() {
    let mut simulation = pair(policies_of_a(V4, |_| {}), {
        let back = protect(
            "to-a",
            "a",
            "10.2.0.0/24".parse().unwrap(),
            "10.9.0.1/32".parse().unwrap(),
            Start::OnDemand,
        );
        policies(vec![peer("a", "b.test", "a.test", Some(A))], vec![back])
    });
    simulation.acquire(1, "to-a");
    simulation.run(MINUTE);
    assert!(children_of_a(&simulation).is_empty());
    assert!(simulation.nodes[0].endpoint.counters().value(Counter::TsUnacceptable) > 0);
}

/// The last error of A's rule.
fn last_error(simulation: &Simulation) -> String {
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    let rule = status.rules.iter().find(|r| &*r.name == "to-b").unwrap();
    rule.last_error.clone().unwrap_or_default()
}

/// Nothing is installed, and the IKE SA is deleted with a word to the peer.
fn assert_failed(simulation: &mut Simulation, why: &str) {
    let text = last_error(simulation);
    assert!(text.contains(why), "{text}");
    assert!(simulation.nodes[0].kernel.children.is_empty(), "{why}");
    let count = simulation.nodes[0].endpoint.counters().value(Counter::NoAddressReceived);
    assert_eq!(count, 1, "{why}");
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.endpoint.status(simulation.now).ike_sas.is_empty()));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    assert!(simulation.violations().is_empty());
}

#[test]
fn a_responder_without_an_address_for_us_gets_no_ike_sa() {
    let mut simulation = pair(policies_of_a(V4, |_| {}), policies_of_b(&["fd00:9::/64"]));
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert_failed(&mut simulation, "INTERNAL_ADDRESS_FAILURE");
    // One that does not know of addresses at all.
    let mut simulation = pair(policies_of_a(V4, |_| {}), policies_of_b(&[]));
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert_failed(&mut simulation, "no configuration payload");
}

#[test]
fn a_rule_that_is_always_up_asks_again() {
    let a = policies_of_a(V4, |_| {});
    let rule = assigned("to-b", &["10.2.0.0/24"], Start::Always);
    let a = PolicySet { rules: [("to-b".into(), Arc::new(rule))].into(), ..a };
    let mut simulation = pair(a, policies_of_b(&["fd00:9::/64"]));
    simulation.run(Duration::from_secs(1));
    simulation.configure(1, policies_of_b(&["10.9.0.0/24"]));
    simulation.run(Duration::from_secs(120));
    assert_eq!(texts(&children_of_a(&simulation)[0].addresses), ["10.9.0.1"]);
    assert_eq!(last_error(&simulation), "");
}

/// A has sent IKE_AUTH, and gets B's answer as `change` makes it.
fn with_answer(change: impl Fn(&mut Vec<Payload<'_>>)) -> Simulation {
    limited_with_answer(&EndpointConfig::default(), change)
}

fn limited_with_answer(
    config: &EndpointConfig,
    change: impl Fn(&mut Vec<Payload<'_>>),
) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, Faults::default(), 1);
    simulation.configure(1, policies_of_b(&["10.9.0.0/24"]));
    simulation.configure(0, policies_of_a(V4, |_| {}));
    simulation.acquire(0, "to-b");
    let turned = |path: Path| Path { local: path.remote, remote: path.local };
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let deliver = |simulation: &mut Simulation, from: usize| {
        let (path, octets) = simulation.nodes[from].sent.last().unwrap().clone();
        let to = usize::from(from == 0);
        simulation.input(to, Input::Datagram { path: turned(path), octets: &octets });
    };
    deliver(&mut simulation, 0);
    deliver(&mut simulation, 1);
    deliver(&mut simulation, 0);
    let (path, answer) = simulation.nodes[1].sent.last().unwrap().clone();
    let forge = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let opened: Opened = forge.open(&answer).unwrap();
    let mut payloads = opened.payloads().unwrap();
    change(&mut payloads);
    let (header, ..) = Header::decode(&answer).unwrap();
    let sealed = forge.seal(&header, &payloads).unwrap();
    simulation.input(0, Input::Datagram { path: turned(path), octets: &sealed });
    simulation
}

/// An attribute and its value.
type Attribute = (CpAttribute, &'static [u8]);

fn with_reply(kind: CpType, attributes: &[Attribute]) -> Simulation {
    with_answer(|payloads| {
        for payload in payloads {
            if let Payload::Configuration(reply) = payload {
                reply.kind = kind;
                reply.attributes = attributes
                    .iter()
                    .map(|(kind, value)| ConfigurationAttribute { kind: *kind, value })
                    .collect();
            }
        }
    })
}

#[test]
fn a_bad_answer_to_the_request_has_a_name_and_no_effect() {
    const IP4: CpAttribute = CpAttribute::INTERNAL_IP4_ADDRESS;
    const IP6: CpAttribute = CpAttribute::INTERNAL_IP6_ADDRESS;
    const MASK: CpAttribute = CpAttribute::INTERNAL_IP4_NETMASK;
    let good: (CpAttribute, &[u8]) = (IP4, &[10, 9, 0, 1]);
    let many = vec![good; 100];
    let cases: &[(CpType, &[Attribute], &str)] = &[
        (CpType::CFG_REPLY, &[], "no address"),
        (CpType::CFG_REQUEST, &[good], "not CFG_REPLY"),
        (CpType::CFG_REPLY, &[(IP4, &[10, 9, 0])], "has 3 octets"),
        (CpType::CFG_REPLY, &[(IP4, &[0, 0, 0, 0])], "no address that a host can have"),
        (CpType::CFG_REPLY, &[(IP4, &[127, 0, 0, 1])], "no address that a host can have"),
        (CpType::CFG_REPLY, &[(IP4, &[224, 0, 0, 9])], "no address that a host can have"),
        (CpType::CFG_REPLY, &[(MASK, &[255, 255, 255, 0])], "netmask without an address"),
        (CpType::CFG_REPLY, &[good, (IP4, &[10, 9, 0, 2])], "second address"),
        (
            CpType::CFG_REPLY,
            &[good, (IP6, &[0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 128])],
            "not asked for",
        ),
        (CpType::CFG_REPLY, &many, "100 attributes"),
    ];
    for (kind, attributes, why) in cases {
        assert_failed(&mut with_reply(*kind, attributes), why);
    }
    let without = |payloads: &mut Vec<Payload<'_>>| {
        payloads.retain(|p| !matches!(p, Payload::Configuration(_)));
    };
    assert_failed(&mut with_answer(without), "no configuration payload");
    // Selectors that leave out what was assigned.
    let mut simulation = with_reply(CpType::CFG_REPLY, &[(IP4, &[10, 9, 0, 77])]);
    assert_failed(&mut simulation, "unusable traffic selectors");
    let refused = |payloads: &mut Vec<Payload<'_>>| {
        payloads.retain(|p| {
            use PayloadType as P;
            !matches!(p.payload_type(), P::CP | P::SA | P::TS_I | P::TS_R)
        });
        payloads.push(Payload::Notify(gateway_wire::Notify {
            protocol: gateway_wire::ProtocolId::NONE,
            spi: &[],
            kind: NotifyType::FAILED_CP_REQUIRED,
            data: &[],
        }));
    };
    assert_failed(&mut with_answer(refused), "FAILED_CP_REQUIRED");
}

/// Who refuses the first Child SA may have assigned the address (RFC 7296 1.2): others are made with it.
#[test]
fn a_peer_that_takes_single_pairs_only_assigns_an_address_all_the_same() {
    let refused = |payloads: &mut Vec<Payload<'_>>| {
        payloads.retain(|p| {
            use PayloadType as P;
            !matches!(p.payload_type(), P::SA | P::TS_I | P::TS_R)
        });
        payloads.push(Payload::Notify(gateway_wire::Notify {
            protocol: gateway_wire::ProtocolId::NONE,
            spi: &[],
            kind: NotifyType::SINGLE_PAIR_REQUIRED,
            data: &[],
        }));
    };
    let mut simulation = with_answer(refused);
    assert_eq!(simulation.nodes[0].endpoint.counters().value(Counter::NoAddressReceived), 0);
    let sas = simulation.nodes[0].endpoint.status(simulation.now).ike_sas;
    assert_eq!(sas.iter().map(|sa| sa.state).collect::<Vec<_>>(), ["established"]);
    assert!(last_error(&simulation).contains("a single pair"), "{}", last_error(&simulation));
    // The next packet has the address, and gets its pair.
    simulation.network.set_faults(Faults::default());
    let [from, to] = [[10, 9, 0, 1], [10, 2, 0, 7]].map(IpAddr::from);
    assert!(simulation.send(0, "to-b", from, to), "it waits");
    simulation.run(Duration::from_secs(1));
    let children = children_of_a(&simulation);
    assert_eq!(children.len(), 1, "{}", last_error(&simulation));
    assert_eq!(selectors(children[0]), ["10.9.0.1/32 == 10.2.0.7/32"]);
}

/// A with these limits gets so many name servers, each twice, and its address.
fn given_name_servers(config: &EndpointConfig, count: usize) -> Simulation {
    static SERVERS: [[u8; 4]; 5] =
        [[10, 2, 0, 1], [10, 2, 0, 2], [10, 2, 0, 3], [10, 2, 0, 4], [10, 2, 0, 5]];
    limited_with_answer(config, |payloads| {
        for payload in payloads {
            if let Payload::Configuration(reply) = payload {
                reply.attributes.retain(|a| a.kind == CpAttribute::INTERNAL_IP4_ADDRESS);
                let kind = CpAttribute::INTERNAL_IP4_DNS;
                let twice = SERVERS[..count].iter().flat_map(|server| [server, server]);
                let attribute = |value: &'static [u8; 4]| ConfigurationAttribute { kind, value };
                reply.attributes.extend(twice.map(attribute));
            }
        }
    })
}

#[test]
fn attributes_and_name_servers_of_an_answer_have_limits() {
    let counted = |simulation: &Simulation| {
        let counters = simulation.nodes[0].endpoint.counters();
        [Counter::CfgAttributeLimit, Counter::NameServersLeftOut].map(|c| counters.value(c))
    };
    let limits = |cfg_attribute_limit, name_server_limit| EndpointConfig {
        cfg_attribute_limit,
        name_server_limit,
        ..EndpointConfig::default()
    };
    for (given, kept, left_out) in [(1, 1, 0), (2, 2, 0), (3, 2, 1)] {
        let simulation = given_name_servers(&limits(64, 2), given);
        let [child] = children_of_a(&simulation)[..] else { panic!("one Child SA") };
        assert_eq!(child.name_servers.len(), kept, "{given}");
        assert_eq!(counted(&simulation), [0, left_out]);
    }
    let simulation = given_name_servers(&limits(64, 0), 1);
    assert!(children_of_a(&simulation)[0].name_servers.is_empty());
    // An address and five times two.
    for limit in [12, 11] {
        let simulation = given_name_servers(&limits(limit, 8), 5);
        assert_eq!((children_of_a(&simulation).len(), counted(&simulation)), (1, [0, 0]));
    }
    let mut simulation = given_name_servers(&limits(10, 8), 5);
    assert_eq!(counted(&simulation), [1, 0]);
    assert_failed(&mut simulation, "it has 11 attributes, `cfg-attribute-limit` is 10");
}

#[test]
fn a_responder_that_does_not_narrow_leaves_that_to_us() {
    let wide = |payloads: &mut Vec<Payload<'_>>| {
        for payload in payloads {
            if let Payload::TsInitiator(ts) = payload {
                let mut all = *ts.known().next().unwrap();
                (all.start, all.end) = ([0; 4].into(), [255; 4].into());
                *ts = TrafficSelectors::new(vec![all]);
            }
        }
    };
    let simulation = with_answer(wide);
    assert_eq!(selectors(children_of_a(&simulation)[0]), ["10.9.0.1/32 == 10.2.0.0/24"]);
}

#[test]
fn no_request_is_made_where_the_policy_has_none() {
    let a = policies_of_a(Families::default(), |_| {});
    let own = protect(
        "to-b",
        "b",
        "10.9.0.0/24".parse().unwrap(),
        "10.2.0.0/24".parse().unwrap(),
        Start::OnDemand,
    );
    let a = PolicySet { rules: [("to-b".into(), Arc::new(own))].into(), ..a };
    let simulation = connected(a, policies_of_b(&[]));
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    assert_eq!(requests(&simulation, &forge), []);
    assert_eq!(selectors(children_of_a(&simulation)[0]), ["10.9.0.0/24 == 10.2.0.0/24"]);
}
