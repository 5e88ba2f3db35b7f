//! Transport mode, and what NAT makes of its selectors (RFC 7296 1.3.1, 2.23.1).

use std::net::Ipv4Addr;

use gateway_ike::algorithms::Group;
use gateway_ike::config::{Childless, Mode};
use gateway_ike::io::{ChildSpec, KERNEL_SPIS, KernelEvent};
use gateway_wire::{PayloadType, TrafficSelector, TrafficSelectors, TsEntry};

use super::selectors::selector;
use super::series::with_esp;
use super::*;

/// What A is seen as where it is behind NAT, and by what A knows B where B is.
const A_OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const B_OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));

/// Transport mode between A and B.
fn transport(policies: PolicySet, local: IpAddr, remote: IpAddr) -> PolicySet {
    let between = with_rule(policies, |r| {
        r.local = vec![local.into()];
        r.remote = vec![remote.into()];
    });
    with_protect(between, |p| p.mode = Mode::Transport)
}

#[test]
fn an_answer_without_transport_mode_or_with_it_unasked_is_deleted() {
    for asked in [true, false] {
        let (a, b) = if asked {
            (transport(policies_of_a(), A, B), transport(policies_of_b(), B, A))
        } else {
            (policies_of_a(), policies_of_b())
        };
        let (mut simulation, auth) = half_open_with(a, b);
        let opened = forge(&simulation, 0).open(&auth).unwrap();
        let sent = notified(&opened.payloads().unwrap());
        assert_eq!(sent.contains(&NotifyType::USE_TRANSPORT_MODE), asked);
        let answer = only(deliver(&mut simulation, 1, &auth));
        let wrong = resealed(&simulation, 1, &answer, |payloads| {
            payloads.retain(|p| p.payload_type() != PayloadType::NOTIFY);
            if !asked {
                payloads.push(notification(NotifyType::USE_TRANSPORT_MODE, &[]));
            }
        });
        let sent = only(deliver(&mut simulation, 0, &wrong));
        given_up(&simulation, 0, &sent);
    }
}

#[test]
fn transport_mode_is_answered_with_transport_mode_where_both_want_it() {
    let (a, b) = (transport(policies_of_a(), A, B), transport(policies_of_b(), B, A));
    let (mut simulation, auth) = half_open_with(a.clone(), b);
    let answer = only(deliver(&mut simulation, 1, &auth));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert!(notified(&opened.payloads().unwrap()).contains(&NotifyType::USE_TRANSPORT_MODE));
    deliver(&mut simulation, 0, &answer);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.mode, Mode::Transport);
    // A responder that has tunnel mode for it answers without, and A does not want that.
    let tunnel = with_protect(transport(policies_of_b(), B, A), |p| p.mode = Mode::Tunnel);
    let (mut simulation, auth) = half_open_with(a, tunnel);
    let answer = only(deliver(&mut simulation, 1, &auth));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert!(notified(&opened.payloads().unwrap()).is_empty());
    assert_eq!(children(&simulation, 1), 1, "as tunnel mode");
}

/// Who is behind NAT.
#[derive(Clone, Copy)]
struct Behind {
    a: bool,
    b: bool,
}

impl Behind {
    const EITHER: [Self; 3] =
        [Self { a: true, b: false }, Self { a: false, b: true }, Self { a: true, b: true }];

    /// By what B knows A, and A knows B.
    fn seen(self) -> (IpAddr, IpAddr) {
        (if self.a { A_OUTSIDE } else { A }, if self.b { B_OUTSIDE } else { B })
    }

    /// Policies of both, each by the addresses that it sees.
    fn policies(self) -> (PolicySet, PolicySet) {
        let (a, b) = self.seen();
        let of_a = with_peer(policies_of_a(), |p| p.remote_address = Some(b));
        let of_b = with_peer(policies_of_b(), |p| p.remote_address = Some(a));
        (transport(of_a, A, b), transport(of_b, B, a))
    }

    /// The way of a message that comes to a node, once ports have changed.
    fn path_to(self, node: usize) -> Path {
        let (a, b) = self.seen();
        let port_of_a = if self.a { 40_001 } else { 4500 };
        if node == 0 {
            let remote = SocketAddr::new(b, 4500);
            return Path { local: SocketAddr::new(A, 4500), remote };
        }
        let remote = SocketAddr::new(a, port_of_a);
        Path { local: SocketAddr::new(B, 4500), remote }
    }

    /// The same with IKE_SA_INIT, which goes by port 500.
    fn path_of_init(self, node: usize) -> Path {
        let mut path = self.path_to(node);
        path.local.set_port(500);
        path.remote.set_port(if node == 1 && self.a { 40_000 } else { 500 });
        path
    }

    /// A has sent IKE_AUTH; nothing arrives.
    fn half_open(self, (a, b): (PolicySet, PolicySet)) -> (Simulation, Vec<u8>) {
        let (mut simulation, init) = begun(a, b);
        let answer = only(deliver_by(&mut simulation, 1, self.path_of_init(1), &init));
        let auth = only(deliver_by(&mut simulation, 0, self.path_of_init(0), &answer));
        (simulation, auth)
    }
}

fn host(address: IpAddr) -> TrafficSelector {
    selector(&ipnet::IpNet::from(address).to_string())
}

/// TSi and TSr of a message.
fn selectors_of(simulation: &Simulation, sealed: &[u8]) -> [Vec<TsEntry>; 2] {
    let opened = forge(simulation, 0).open(sealed).unwrap();
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

fn with_selectors(payloads: &mut [Payload<'_>], i: &[TrafficSelector], r: &[TrafficSelector]) {
    for payload in payloads {
        match payload {
            Payload::TsInitiator(ts) => *ts = TrafficSelectors::new(i.to_vec()),
            Payload::TsResponder(ts) => *ts = TrafficSelectors::new(r.to_vec()),
            _ => {}
        }
    }
}

fn known(address: IpAddr) -> Vec<TsEntry> {
    vec![TsEntry::Known(host(address))]
}

/// That a node has a Child SA in transport mode, in UDP, between these addresses.
fn check_child(simulation: &Simulation, node: usize, local: IpAddr, remote: IpAddr) {
    let children: Vec<&ChildSpec> = simulation.nodes[node].kernel.children.values().collect();
    assert_eq!(children.len(), 1, "{children:?}");
    let child = children[0];
    assert_eq!((child.mode, child.encapsulation.is_some()), (Mode::Transport, true));
    assert_eq!((child.outbound.source, child.outbound.destination), (local, remote));
    assert_eq!((child.inbound.source, child.inbound.destination), (remote, local));
    assert_eq!(child.selectors.len(), 1, "{child:?}");
    let (pair, _) = &child.selectors[0];
    assert_eq!((pair.local, pair.remote), (local.into(), remote.into()));
    assert!(KERNEL_SPIS.contains(&child.inbound.spi), "{child:?}");
}

#[test]
fn through_nat_each_end_has_transport_mode_by_the_addresses_that_it_sees() {
    for behind in Behind::EITHER {
        let (seen_a, seen_b) = behind.seen();
        let (mut simulation, auth) = behind.half_open(behind.policies());
        // The packet that waits and the rule, as A knows both ends.
        let named = selectors_of(&simulation, &auth).map(|side| {
            let known = |entry| if let TsEntry::Known(s) = entry { Some(s) } else { None };
            side.into_iter().filter_map(known).map(|s| (s.start, s.end)).collect::<Vec<_>>()
        });
        assert_eq!(named, [vec![(A, A); 2], vec![(seen_b, seen_b); 2]]);
        let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &auth));
        let opened = forge(&simulation, 0).open(&answer).unwrap();
        assert!(notified(&opened.payloads().unwrap()).contains(&NotifyType::USE_TRANSPORT_MODE));
        assert_eq!(selectors_of(&simulation, &answer), [known(seen_a), known(B)], "as B does");
        check_child(&simulation, 1, B, seen_a);
        deliver_by(&mut simulation, 0, behind.path_to(0), &answer);
        check_child(&simulation, 0, A, seen_b);
        // Either may replace it, and then the other substitutes.
        for (node, by) in [(0, 1), (1, 0)] {
            let spi = simulation.nodes[node].kernel.children.values().last().unwrap().inbound.spi;
            let destination = if node == 0 { A } else { B };
            let kernel = KernelEvent::Expire { spi, destination, hard: false };
            let before = simulation.nodes[node].sent.len();
            simulation.input(node, Input::Kernel(kernel));
            let request = simulation.nodes[node].sent[before].1.clone();
            let answer = only(deliver_by(&mut simulation, by, behind.path_to(by), &request));
            let delete = only(deliver_by(&mut simulation, node, behind.path_to(node), &answer));
            let done = only(deliver_by(&mut simulation, by, behind.path_to(by), &delete));
            deliver_by(&mut simulation, node, behind.path_to(node), &done);
            for (node, [local, remote]) in [(0, [A, seen_b]), (1, [B, seen_a])] {
                let child = simulation.nodes[node].kernel.children.values().last().unwrap();
                let (pair, _) = &child.selectors[0];
                assert_eq!((pair.local, pair.remote), (local.into(), remote.into()));
                assert!(KERNEL_SPIS.contains(&child.inbound.spi), "{child:?}");
            }
        }
    }
}

#[test]
fn whatever_one_address_a_peer_names_through_nat_is_the_one_that_is_seen() {
    let behind = Behind { a: true, b: false };
    let (mut simulation, auth) = behind.half_open(behind.policies());
    // With a protocol and ports, of which there may be several.
    let tcp = |address, ports: [u16; 2]| {
        let [start_port, end_port] = ports;
        TrafficSelector { protocol: 6, start_port, end_port, ..host(address) }
    };
    let i = [tcp(ELSEWHERE, [1000, 1001]), tcp(ELSEWHERE, [3000, 3000])];
    let asked = resealed(&simulation, 0, &auth, |payloads| {
        with_selectors(payloads, &i, &[tcp(B, [443, 443])]);
    });
    let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &asked));
    let seen = [tcp(A_OUTSIDE, [1000, 1001]), tcp(A_OUTSIDE, [3000, 3000])].map(TsEntry::Known);
    let expected = [seen.to_vec(), vec![TsEntry::Known(tcp(B, [443, 443]))]];
    assert_eq!(selectors_of(&simulation, &answer), expected);
    // An initiator takes any for its own, too: here one that has not been substituted.
    let (mut simulation, auth) = behind.half_open(behind.policies());
    let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &auth));
    let other = resealed(&simulation, 1, &answer, |p| with_selectors(p, &[host(A)], &[host(B)]));
    deliver_by(&mut simulation, 0, behind.path_to(0), &other);
    check_child(&simulation, 0, A, B);
}

#[test]
fn transport_mode_through_nat_is_refused_for_other_addresses_than_one_at_each_end() {
    let behind = Behind { a: true, b: false };
    let net = selector("192.0.2.0/30");
    let wrong = [
        (vec![net], vec![host(B)]),
        (vec![host(A), host(ELSEWHERE)], vec![host(B)]),
        (vec![host(A)], vec![net]),
        // B is not behind NAT: its own address is what everybody sees.
        (vec![host(A)], vec![host(ELSEWHERE)]),
    ];
    for (i, r) in &wrong {
        let (mut simulation, auth) = behind.half_open(behind.policies());
        let asked = resealed(&simulation, 0, &auth, |payloads| with_selectors(payloads, i, r));
        let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &asked));
        let opened = forge(&simulation, 0).open(&answer).unwrap();
        assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
        says_why(&simulation, 1);
        assert_eq!(children(&simulation, 1), 0);
        // The initiator does not take them from one that grants them.
        let (mut simulation, auth) = behind.half_open(behind.policies());
        let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &auth));
        let granted = resealed(&simulation, 1, &answer, |payloads| with_selectors(payloads, i, r));
        let sent = only(deliver_by(&mut simulation, 0, behind.path_to(0), &granted));
        given_up(&simulation, 0, &sent);
    }
}

/// A node has told that a Child SA in transport mode was to be for other addresses.
fn says_why(simulation: &Simulation, node: usize) {
    let told = |e: &gateway_ike::event::Event| {
        e.to_string().contains("the two addresses of the IKE SA alone")
    };
    let events = &simulation.nodes[node].events;
    assert!(events.iter().any(told), "{events:?}");
}

#[test]
fn transport_mode_is_not_asked_for_with_other_addresses_than_those_of_the_ike_sa() {
    for behind in [Behind { a: true, b: false }, Behind { a: false, b: false }] {
        for local in [true, false] {
            let (a, b) = behind.policies();
            let a = with_rule(a, |rule| {
                let side = if local { &mut rule.local } else { &mut rule.remote };
                *side = vec![ELSEWHERE.into()];
            });
            let (mut simulation, init) = begun(a, b);
            let answer = only(deliver_by(&mut simulation, 1, behind.path_of_init(1), &init));
            assert!(deliver_by(&mut simulation, 0, behind.path_of_init(0), &answer).is_empty());
            says_why(&simulation, 0);
        }
    }
}

/// Such traffic never is between the addresses of the SAs (RFC 4301 4.1).
#[test]
fn transport_mode_is_refused_where_the_rule_is_for_other_addresses_than_those_of_the_ike_sa() {
    for (local, remote) in [(B, ELSEWHERE), (ELSEWHERE, A)] {
        let b = transport(policies_of_b(), local, remote);
        let (mut simulation, auth) = half_open_with(transport(policies_of_a(), A, B), b);
        let asked = resealed(&simulation, 0, &auth, |payloads| {
            with_selectors(payloads, &[host(remote)], &[host(local)]);
        });
        let answer = only(deliver(&mut simulation, 1, &asked));
        let opened = forge(&simulation, 0).open(&answer).unwrap();
        assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TS_UNACCEPTABLE]);
        says_why(&simulation, 1);
        assert_eq!(children(&simulation, 1), 0);
    }
    // What is asked for may be more than the two.
    let (mut simulation, auth) =
        half_open_with(transport(policies_of_a(), A, B), transport(policies_of_b(), B, A));
    let asked = resealed(&simulation, 0, &auth, |payloads| {
        with_selectors(payloads, &[host(A), host(ELSEWHERE)], &[selector("0.0.0.0/0")]);
    });
    let answer = only(deliver(&mut simulation, 1, &asked));
    assert_eq!(selectors_of(&simulation, &answer), [known(A), known(B)]);
}

/// A's first Child SA, in transport mode, is to have a second key exchange, and A has sent it: its
/// IKE_FOLLOWUP_KE, with its message ID.
fn between_key_exchanges() -> (Simulation, Vec<u8>, u32) {
    let of = |set, [local, remote]: [IpAddr; 2]| {
        let set = with_esp(transport(set, local, remote), &[Group::EcpP384]);
        with_peer(set, |peer| {
            (peer.mobike, peer.childless) = (true, Childless::Prefer);
            peer.remote_address = peer.remote_address.filter(|address| *address == B);
        })
    };
    let (mut simulation, auth) =
        half_open_with(of(policies_of_a(), [A, B]), of(policies_of_b(), [B, A]));
    let path = |node| Behind { a: false, b: false }.path_to(node);
    let mut request = auth;
    for expected in [ExchangeType::CREATE_CHILD_SA, ExchangeType::IKE_FOLLOWUP_KE] {
        let answer = only(deliver_by(&mut simulation, 1, path(1), &request));
        request = only(deliver_by(&mut simulation, 0, path(0), &answer));
        assert_eq!(header(&request).exchange, expected);
    }
    let id = header(&request).message_id.0;
    (simulation, request, id)
}

/// It would have an SPI by which ESP in UDP is not left to the kernel.
#[test]
fn a_nat_that_comes_between_two_key_exchanges_puts_transport_mode_off() {
    let (mut simulation, follow_up, id) = between_key_exchanges();
    let path = Behind { a: false, b: false }.path_to(1);
    let at_a = forge(&simulation, 0);
    let said = [
        notification(NotifyType::UPDATE_SA_ADDRESSES, &[]),
        notification(NotifyType::NAT_DETECTION_SOURCE_IP, &[7; 20]),
        notification(NotifyType::NAT_DETECTION_DESTINATION_IP, &[7; 20]),
    ];
    let update = at_a.seal(&at_a.header(ExchangeType::INFORMATIONAL, false, id), &said).unwrap();
    deliver_by(&mut simulation, 1, path, &update);
    let opened = at_a.open(&follow_up).unwrap();
    let next = at_a.header(ExchangeType::IKE_FOLLOWUP_KE, false, id + 1);
    let next = at_a.seal(&next, &opened.payloads().unwrap()).unwrap();
    let answer = only(deliver_by(&mut simulation, 1, path, &next));
    let opened = at_a.open(&answer).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::TEMPORARY_FAILURE]);
    assert_eq!(children(&simulation, 1), 0);
    assert_eq!(states(&simulation, 1), ["established"]);
    let events = &simulation.nodes[1].events;
    assert!(events.iter().any(|e| e.to_string().contains("the NAT in between")), "{events:?}");
}

/// Its selectors would not be the addresses of its SAs.
#[test]
fn an_initiator_that_moves_between_two_key_exchanges_gives_transport_mode_up() {
    let (mut simulation, follow_up, _) = between_key_exchanges();
    let path = |node| Behind { a: false, b: false }.path_to(node);
    let answer = only(deliver_by(&mut simulation, 1, path(1), &follow_up));
    assert_eq!(children(&simulation, 1), 1);
    simulation.readdress(0, &[ELSEWHERE]);
    let mut elsewhere = path(0);
    elsewhere.local.set_ip(ELSEWHERE);
    deliver_by(&mut simulation, 0, elsewhere, &answer);
    assert_eq!(children(&simulation, 0), 0);
    let events = &simulation.nodes[0].events;
    assert!(events.iter().any(|e| e.to_string().contains("addresses, or the NAT")), "{events:?}");
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!([0, 1].map(|node| children(&simulation, node)), [0, 0], "B hears of it");
    assert_eq!([0, 1].map(|node| states(&simulation, node)), [["established"]; 2]);
    says_why(&simulation, 0);
}

#[test]
fn a_rule_of_tunnel_mode_is_found_by_the_selectors_as_they_were_sent() {
    let behind = Behind { a: true, b: false };
    let (a, b) = behind.policies();
    // What A has behind it, which B knows by no other address.
    let b = with_rule(b, |rule| rule.remote = vec!["192.0.2.0/30".parse().unwrap()]);
    let b = with_protect(b, |protect| protect.mode = Mode::Tunnel);
    let (mut simulation, auth) = behind.half_open((a, b));
    let answer = only(deliver_by(&mut simulation, 1, behind.path_to(1), &auth));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert!(notified(&opened.payloads().unwrap()).is_empty());
    assert_eq!(selectors_of(&simulation, &answer), [known(A), known(B)]);
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    assert_eq!(child.mode, Mode::Tunnel);
    assert!(!KERNEL_SPIS.contains(&child.inbound.spi), "XDP takes UDP off");
}

/// To the peer's other port they go, but another address is not theirs.
#[test]
fn in_transport_mode_sas_follow_a_nat_to_another_port_and_are_gone_with_the_address() {
    let behind = Behind { a: true, b: false };
    for outside in [None, Some(ELSEWHERE)] {
        let (a, b) = behind.policies();
        let b = with_peer(b, |peer| peer.remote_address = None);
        let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
        simulation.network.translate(A, A_OUTSIDE);
        simulation.configure(1, b);
        simulation.configure(0, a);
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_secs(1));
        check_child(&simulation, 1, B, A_OUTSIDE);
        assert_eq!(simulation.exchange_traffic(), []);
        let before = simulation.nodes[1].kernel.children.keys().next().copied();
        simulation.network.rebind(outside);
        assert_eq!(simulation.exchange_traffic().len(), 1, "B sends to the old mapping");
        let seen = simulation.tell_source(0).unwrap();
        simulation.run(Duration::from_secs(1));
        let after = simulation.nodes[1].kernel.children.keys().next().copied();
        if outside.is_some() {
            assert_ne!(after, before, "its address is gone");
            continue;
        }
        assert_eq!(after, before);
        let child = simulation.nodes[1].kernel.children.values().next().unwrap();
        assert_eq!(child.encapsulation.unwrap().remote_port, seen.port());
        assert_eq!(simulation.exchange_traffic(), []);
    }
}
