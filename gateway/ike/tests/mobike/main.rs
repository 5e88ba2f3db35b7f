//! MOBIKE (RFC 4555): either end goes on from another address, and only when it says so itself.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "This is test code."
)]

mod claims;
mod orders;
mod roaming;
mod several;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{PeerConfig, PolicySet, Renewal, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{Input, Path};
use gateway_ike::status::IkeSaStatus;
use gateway_ike::testing::{Faults, Forge, SeededRandom, Simulation, peer, policies, protect};
use gateway_wire::{ExchangeType, Notify, NotifyType, Payload, ProtocolId};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const OTHER_A: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const OTHER_B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const LIVENESS: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn mobile(peer: PeerConfig) -> PeerConfig {
    PeerConfig { mobike: true, liveness_interval: LIVENESS, ..peer }
}

/// The policies of A, which begins, and of B; changed by `change`.
fn of_both(change: impl Fn(usize, PeerConfig) -> PeerConfig) -> [PolicySet; 2] {
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let to_b = change(0, mobile(peer("b", "a.test", "b.test", Some(B))));
    let to_a = change(1, mobile(peer("a", "b.test", "a.test", None)));
    [
        policies(vec![to_b], vec![protect("to-b", "b", a_net, b_net, Start::OnDemand)]),
        policies(vec![to_a], vec![protect("to-a", "a", b_net, a_net, Start::Respond)]),
    ]
}

/// The policies of A, with a rule that is always up.
fn always(mut policies: PolicySet) -> PolicySet {
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let rule = protect("to-b", "b", a_net, b_net, Start::Always);
    policies.rules = [(Arc::clone(&rule.name), rule.into())].into_iter().collect();
    policies
}

fn connected(
    nat: bool,
    change: impl Fn(usize, PeerConfig) -> PeerConfig,
    others_of_b: &[IpAddr],
) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    if nat {
        simulation.network.translate(A, NAT);
    }
    simulation.readdress(0, &[A]);
    simulation.readdress(1, &[&[B], others_of_b].concat());
    for (node, policies) in of_both(change).into_iter().enumerate() {
        simulation.configure(node, policies);
    }
    simulation.acquire(0, "to-b");
    simulation.run(SECOND);
    assert_eq!(simulation.exchange_traffic(), []);
    simulation
}

fn unchanged(_node: usize, peer: PeerConfig) -> PeerConfig {
    peer
}

fn sa(simulation: &Simulation, node: usize) -> IkeSaStatus {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    let standing = |sa: &IkeSaStatus| sa.state == "established";
    status.ike_sas.into_iter().find(standing).unwrap_or_else(|| panic!("node {node} has none"))
}

fn count(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// Between which addresses the node sends ESP.
fn esp(simulation: &Simulation, node: usize) -> (IpAddr, IpAddr) {
    let child = simulation.nodes[node].kernel.children.values().next().unwrap();
    (child.outbound.source, child.outbound.destination)
}

/// One IKE SA and one Child SA from the beginning, and traffic.
fn still_the_same(simulation: &mut Simulation) {
    assert_eq!(simulation.exchange_traffic(), []);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    for node in 0..2 {
        for counter in [Counter::IkeSaEstablished, Counter::ChildSaInstalled] {
            assert_eq!(count(simulation, node, counter), 1, "{counter:?} of node {node}");
        }
    }
}

#[test]
fn both_must_speak_it_and_then_ike_goes_by_4500_without_nat() {
    let simulation = connected(false, unchanged, &[OTHER_B]);
    for node in 0..2 {
        let sa = sa(&simulation, node);
        assert_eq!((sa.path.local.port(), sa.path.remote.port()), (4500, 4500));
        assert_eq!((sa.nat_local, sa.nat_remote), (false, false));
        assert!(sa.children[0].encapsulation.is_none(), "that is for NAT alone");
    }
    assert_eq!(sa(&simulation, 0).mobike, Some(vec![OTHER_B]), "told in IKE_AUTH");
    assert_eq!(sa(&simulation, 1).mobike, Some(Vec::new()));
    for without in [0, 1] {
        let change = |node, peer| PeerConfig { mobike: node != without, ..peer };
        let simulation = connected(false, change, &[OTHER_B]);
        assert_eq!(sa(&simulation, 0).mobike, None);
        assert_eq!(sa(&simulation, 1).mobike, None);
    }
}

#[test]
fn an_initiator_whose_address_changes_keeps_its_sas() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(SECOND);
    assert_eq!(sa(&simulation, 1).path.remote, SocketAddr::new(OTHER_A, 4500));
    assert_eq!(esp(&simulation, 0), (OTHER_A, B));
    assert_eq!(esp(&simulation, 1), (B, OTHER_A));
    still_the_same(&mut simulation);
    // And back, and with a longer way between: only the last address counts.
    simulation.readdress(0, &[NAT]);
    simulation.readdress(0, &[A]);
    simulation.run(5 * SECOND);
    assert_eq!(esp(&simulation, 1), (B, A));
    still_the_same(&mut simulation);
}

#[test]
fn esp_waits_until_the_peer_has_shown_that_it_is_there() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A]);
    simulation.deliver(1, false);
    assert_eq!(sa(&simulation, 1).path.remote.ip(), OTHER_A, "IKE goes there at once");
    assert_eq!(esp(&simulation, 1), (B, A), "and ESP does not");
    simulation.run(SECOND);
    assert_eq!(esp(&simulation, 1), (B, OTHER_A));

    // Somebody on the way has the address rewritten, and cannot answer for it.
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A]);
    let update = simulation.nodes[0].sent.last().unwrap().1.clone();
    let thief =
        Path { local: SocketAddr::new(B, 4500), remote: "203.0.113.9:4500".parse().unwrap() };
    simulation.input(1, Input::Datagram { path: thief, octets: &update });
    simulation.run(20 * SECOND);
    assert_eq!(esp(&simulation, 1), (B, A));
    assert_eq!(count(&simulation, 1, Counter::ChildSaNotMoved), 0);
}

#[test]
fn what_is_forged_repeated_or_old_moves_nobody() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(SECOND);
    let old: Vec<_> = simulation.nodes[0].sent.iter().map(|(_, octets)| octets.clone()).collect();
    simulation.readdress(0, &[A]);
    simulation.run(SECOND);
    let thief =
        Path { local: SocketAddr::new(B, 4500), remote: "203.0.113.9:4500".parse().unwrap() };
    for octets in &old {
        let mut forged = octets.clone();
        *forged.last_mut().unwrap() ^= 1;
        for octets in [octets, &forged] {
            simulation.input(1, Input::Datagram { path: thief, octets });
        }
    }
    assert_eq!(sa(&simulation, 1).path.remote.ip(), A);
    assert_eq!(esp(&simulation, 1), (B, A));
    still_the_same(&mut simulation);
}

#[test]
fn an_authentic_message_from_elsewhere_moves_nobody_unless_it_says_so() {
    let mut simulation = connected(true, unchanged, &[]);
    simulation.run(LIVENESS + 5 * SECOND);
    let before = sa(&simulation, 1).path;
    // A asks whether B lives; the question comes by another address.
    simulation.run(LIVENESS - 6 * SECOND);
    while simulation.under_way(1) == 0 {
        let limit = simulation.now + LIVENESS;
        assert!(simulation.step(limit), "A asks in time");
    }
    let question = simulation.nodes[0].sent.last().unwrap().1.clone();
    let path = Path { local: before.local, remote: "203.0.113.9:4500".parse().unwrap() };
    simulation.input(1, Input::Datagram { path, octets: &question });
    assert_eq!(sa(&simulation, 1).path, before);
    assert_eq!(esp(&simulation, 1), (B, NAT));
}

#[test]
fn a_nat_that_maps_anew_is_found_out_by_the_initiator() {
    let mut simulation = connected(true, unchanged, &[]);
    simulation.run(2 * LIVENESS);
    assert_eq!(simulation.exchange_traffic(), []);
    simulation.network.rebind(None);
    assert_eq!(simulation.exchange_traffic().len(), 1);
    simulation.run(LIVENESS + 5 * SECOND);
    assert_eq!(count(&simulation, 1, Counter::PathChanged), 1);
    still_the_same(&mut simulation);
}

#[test]
fn a_peer_stays_where_the_policy_says_that_it_is() {
    let pin = |node: usize, peer: PeerConfig| {
        let address = if node == 1 { Some(A) } else { peer.remote_address };
        PeerConfig { remote_address: address, ..peer }
    };
    let mut simulation = connected(false, pin, &[]);
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(SECOND);
    assert!(!simulation.nodes[1].kernel.history.iter().any(|h| h.starts_with("move child")));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "A gives it up");
    assert_eq!(count(&simulation, 1, Counter::AddressRefused), 1);
    assert_eq!(count(&simulation, 0, Counter::AddressRefused), 1);
    let says = |node: usize, words: &str| {
        simulation.nodes[node].events.iter().any(|e| e.to_string().contains(words))
    };
    assert!(says(1, "the policy says where the peer is"));
    assert!(says(0, "the peer does not accept"));
}

#[test]
fn we_stay_where_the_policy_says_that_we_are() {
    let pin = |node: usize, peer: PeerConfig| {
        let local = (node == 0).then_some(A);
        PeerConfig { local_address: local, ..peer }
    };
    let mut simulation = connected(false, pin, &[]);
    simulation.input(0, Input::LocalAddresses(vec![A, OTHER_A]));
    simulation.run(SECOND);
    assert_eq!(sa(&simulation, 1).mobike, Some(Vec::new()), "nor is another address told");
    assert_eq!(sa(&simulation, 0).path.local.ip(), A);
}

#[test]
fn when_the_path_is_dead_the_peers_other_address_is_tried() {
    let mut simulation = connected(false, unchanged, &[OTHER_B]);
    simulation.network.cut_off(B);
    simulation.run(2 * LIVENESS + 30 * SECOND);
    assert_eq!(sa(&simulation, 0).path.remote.ip(), OTHER_B);
    assert_eq!(sa(&simulation, 1).path.local.ip(), OTHER_B);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));
    assert_eq!(esp(&simulation, 1), (OTHER_B, A));
    still_the_same(&mut simulation);
    assert_eq!(count(&simulation, 0, Counter::PeerDead), 0);
}

#[test]
fn changes_among_additional_addresses_are_told() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(1, &[B, OTHER_B]);
    simulation.run(SECOND);
    assert_eq!(sa(&simulation, 0).mobike, Some(vec![OTHER_B]));
    simulation.readdress(1, &[B]);
    simulation.run(SECOND);
    assert_eq!(sa(&simulation, 0).mobike, Some(Vec::new()));
    let many: Vec<IpAddr> = (1..100).map(|last| IpAddr::from([10, 9, 9, last])).collect();
    simulation.readdress(1, &[&[B], many.as_slice()].concat());
    simulation.run(SECOND);
    assert_eq!(sa(&simulation, 0).mobike.unwrap().len(), 8);
}

#[test]
fn a_responder_whose_address_changes_is_followed_by_the_initiator() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(1, &[OTHER_B]);
    simulation.run(2 * SECOND);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));
    assert_eq!(esp(&simulation, 1), (OTHER_B, A));
    still_the_same(&mut simulation);
}

/// Else both could go to each other's last place for ever, as seed 30552 of the simulation did.
#[test]
fn a_responder_that_says_from_elsewhere_that_it_is_here_too_is_not_followed() {
    let mut simulation = connected(false, unchanged, &[OTHER_B]);
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let before = sa(&simulation, 0).path;
    let path = Path { remote: SocketAddr::new(OTHER_B, before.remote.port()), ..before };
    for (id, also, remote, others) in
        [(0, B, before.remote, [OTHER_B]), (1, NAT, path.remote, [NAT])]
    {
        let IpAddr::V4(also) = also else { unreachable!() };
        let octets = also.octets();
        let words: [(NotifyType, &[u8]); 1] = [(NotifyType::ADDITIONAL_IP4_ADDRESS, &octets)];
        let request =
            at_b.seal(&at_b.header(ExchangeType::INFORMATIONAL, false, id), &says(&words));
        simulation.input(0, Input::Datagram { path, octets: &request.unwrap() });
        let sa = sa(&simulation, 0);
        assert_eq!(sa.path.remote, remote);
        assert!(sa.mobike.unwrap().starts_with(&others));
    }
}

#[test]
fn who_decides_stays_so_when_the_other_has_rekeyed() {
    let rekeys = |node: usize, peer: PeerConfig| {
        let lifetime = if node == 1 { 60 * SECOND } else { Duration::ZERO };
        PeerConfig { lifetime, renewal: Renewal::Rekey, ..peer }
    };
    let mut simulation = connected(false, rekeys, &[]);
    simulation.run(62 * SECOND);
    assert_eq!(count(&simulation, 0, Counter::IkeSaRekeyed), 1);
    assert!(!sa(&simulation, 0).initiator, "B has made the new one");
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(2 * SECOND);
    assert_eq!(esp(&simulation, 1), (B, OTHER_A));
    still_the_same(&mut simulation);
}

/// Has B take a request of A with these notifications by a path; gives those of its answer.
fn ask(
    simulation: &mut Simulation,
    path: Path,
    words: &[(NotifyType, &[u8])],
) -> Vec<(NotifyType, Vec<u8>)> {
    let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let request = at_a.seal(&at_a.header(ExchangeType::INFORMATIONAL, false, 2), &says(words));
    simulation.input(1, Input::Datagram { path, octets: &request.unwrap() });
    let answered = simulation.nodes[1].sent.iter().rev().find_map(|(_, octets)| {
        let opened = at_a.open(octets)?;
        opened.header.flags.response.then_some(opened)
    });
    let answered = answered.unwrap();
    let payloads = answered.payloads().unwrap();
    let notifies = payloads.iter().filter_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        Some((notify.kind, notify.data.to_vec()))
    });
    notifies.collect()
}

fn says<'a>(words: &[(NotifyType, &'a [u8])]) -> Vec<Payload<'a>> {
    let notify = |(kind, data): &(NotifyType, &'a [u8])| {
        Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: &[], kind: *kind, data })
    };
    words.iter().map(notify).collect()
}

#[test]
fn of_too_many_addresses_some_are_kept_and_that_is_counted() {
    for (told, kept, counted) in [(8, 8, 0), (9, 8, 1)] {
        let mut simulation = connected(false, unchanged, &[]);
        let addresses: Vec<[u8; 4]> = (1..=told).map(|last| [198, 51, 100, last]).collect();
        let words: Vec<(NotifyType, &[u8])> = addresses
            .iter()
            .map(|octets| (NotifyType::ADDITIONAL_IP4_ADDRESS, octets.as_slice()))
            .collect();
        let path = sa(&simulation, 1).path;
        assert_eq!(ask(&mut simulation, path, &words), []);
        assert_eq!(sa(&simulation, 1).mobike.unwrap().len(), kept);
        assert_eq!(count(&simulation, 1, Counter::AddressesLeftOut), counted);
    }
}

#[test]
fn cookie2_and_nat_detection_are_given_back() {
    let mut simulation = connected(false, unchanged, &[]);
    let path = sa(&simulation, 1).path;
    let cookie: &[u8] = &[7; 64];
    let words = [(NotifyType::COOKIE2, cookie), (NotifyType::NAT_DETECTION_SOURCE_IP, &[1; 20])];
    let answer = ask(&mut simulation, path, &words);
    assert_eq!(answer[0], (NotifyType::COOKIE2, cookie.to_vec()));
    let kinds: Vec<_> = answer[1..].iter().map(|(kind, _)| *kind).collect();
    let both = [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP];
    assert_eq!(kinds, both);
    // Without MOBIKE nobody has said what these mean.
    let mut simulation = connected(false, |_, peer| PeerConfig { mobike: false, ..peer }, &[]);
    let path = sa(&simulation, 1).path;
    assert_eq!(ask(&mut simulation, path, &words), []);
}

#[test]
fn where_no_nat_may_be_an_update_through_one_is_refused() {
    let mut simulation = connected(false, unchanged, &[]);
    let mut path = sa(&simulation, 1).path;
    path.remote.set_ip(OTHER_A);
    // From A's old address: so it was changed on the way.
    let ends = [192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
    let words: [(_, &[u8]); 2] =
        [(NotifyType::UPDATE_SA_ADDRESSES, &[]), (NotifyType::NO_NATS_ALLOWED, &ends)];
    let answer = ask(&mut simulation, path, &words);
    assert_eq!(answer, [(NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new())]);
    assert_eq!(count(&simulation, 1, Counter::NatUnexpected), 1);
    assert_eq!(sa(&simulation, 1).path.remote.ip(), A);

    let mut simulation = connected(false, unchanged, &[]);
    let ends = [198, 51, 100, 1, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
    let words: [(_, &[u8]); 2] =
        [(NotifyType::UPDATE_SA_ADDRESSES, &[]), (NotifyType::NO_NATS_ALLOWED, &ends)];
    assert_eq!(ask(&mut simulation, path, &words), []);
    assert_eq!(sa(&simulation, 1).path.remote.ip(), OTHER_A);
}

#[test]
fn a_peer_that_does_not_give_our_cookie2_back_is_given_up() {
    for wrong in [true, false] {
        let mut simulation = connected(false, unchanged, &[]);
        simulation.readdress(0, &[OTHER_A]);
        simulation.deliver(1, false);
        let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
        let words: &[(NotifyType, &[u8])] =
            if wrong { &[(NotifyType::COOKIE2, &[0; 16])] } else { &[] };
        let header = at_a.header(ExchangeType::INFORMATIONAL, true, 0);
        let answer = at_a.seal(&header, &says(words)).unwrap();
        let path = sa(&simulation, 1).path;
        simulation.input(1, Input::Datagram { path, octets: &answer });
        assert_eq!(count(&simulation, 1, Counter::PathCheckFailed), 1);
        assert!(simulation.nodes[1].endpoint.is_empty());
        assert!(simulation.nodes[1].kernel.children.is_empty());
    }
}

/// Both ends move and are rekeyed on a bad network, again and again: in the end each is where it
/// says, and everything fits.
#[test]
fn whoever_moves_on_a_bad_network_arrives() {
    for seed in 0..300_u64 {
        let mut random = SeededRandom::new(seed);
        let faults = Faults { loss: 10, duplication: 20, reordering: 20, corruption: 0 };
        let mut simulation = Simulation::new(&[A, B], faults, seed);
        simulation.readdress(0, &[A]);
        simulation.readdress(1, &[B, OTHER_B]);
        let change = |_node: usize, peer: PeerConfig| PeerConfig {
            lifetime: if seed % 3 == 0 { 40 * SECOND } else { Duration::ZERO },
            ..peer
        };
        for (node, policies) in of_both(change).into_iter().enumerate() {
            // Again, if the IKE SA was lost.
            simulation.configure(node, if node == 0 { always(policies) } else { policies });
        }
        simulation.run(10 * SECOND);
        for _ in 0..10 {
            match random.below(3) {
                0 => {
                    let last = u8::try_from(random.below(200)).unwrap() + 10;
                    simulation.readdress(0, &[IpAddr::from([198, 51, 100, last])]);
                }
                1 => simulation.readdress(1, &[B]),
                _ => simulation.readdress(1, &[B, OTHER_B]),
            }
            simulation.run(Duration::from_millis(random.below(5000)));
        }
        simulation.network.set_faults(Faults::default());
        simulation.run(300 * SECOND);
        let wrong = [simulation.violations(), simulation.mismatches()].concat();
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
        let served = simulation.nodes.iter().all(|n| !n.kernel.children.is_empty());
        assert!(served, "seed {seed}: no Child SA stands");
        assert_eq!(simulation.exchange_traffic(), [], "seed {seed}");
        assert_eq!(sa(&simulation, 1).path.remote.ip(), simulation.nodes[0].address, "seed {seed}");
    }
}
