//! A peer with several addresses in the policy (RFC 4555 3.1): the preferred one first, then the
//! others in turn.

use gateway_ike::config::EndpointConfig;
use gateway_ike::event::EventKind;

use super::*;

/// A's peer is at B, or else at OTHER_B, where both lead to it; the second is not told by MOBIKE.
fn two_of_b(node: usize, peer: PeerConfig) -> PeerConfig {
    let other_addresses = if node == 0 { vec![OTHER_B] } else { Vec::new() };
    PeerConfig { other_addresses, ..peer }
}

/// Neither end has sent anything.
fn fresh(change: impl Fn(usize, PeerConfig) -> PeerConfig) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.readdress(0, &[A]);
    simulation.readdress(1, &[B, OTHER_B]);
    for (node, policies) in of_both(change).into_iter().enumerate() {
        simulation.configure(node, policies);
    }
    simulation
}

/// Where A has sent IKE_SA_INIT, in order.
fn tried(simulation: &Simulation) -> Vec<IpAddr> {
    let is_init = |octets: &[u8]| octets[18] == ExchangeType::IKE_SA_INIT.0;
    let sent = simulation.nodes[0].sent.iter().filter(|(_, octets)| is_init(octets));
    sent.map(|(path, _)| path.remote.ip()).collect()
}

fn given_up(simulation: &Simulation) -> usize {
    let dead = |kind: &EventKind| matches!(kind, EventKind::PeerDead { .. });
    simulation.nodes[0].events.iter().filter(|e| dead(&e.kind)).count()
}

#[test]
fn a_peer_that_does_not_answer_at_one_address_is_tried_at_the_next() {
    let mut simulation = fresh(two_of_b);
    simulation.network.cut_off(B);
    simulation.acquire(0, "to-b");
    simulation.run(10 * SECOND);
    assert_eq!(tried(&simulation), [B, B, B, OTHER_B]);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));
    assert_eq!(esp(&simulation, 1), (OTHER_B, A));
    assert_eq!(count(&simulation, 0, Counter::OtherAddressTried), 1);
    let next = EventKind::NextAddress { tried: B, next: OTHER_B };
    assert!(simulation.nodes[0].events.iter().any(|e| e.kind == next));
    still_the_same(&mut simulation);
}

#[test]
fn the_preferred_address_is_the_only_one_as_long_as_it_answers() {
    let mut simulation = fresh(two_of_b);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.acquire(0, "to-b");
    simulation.run(2 * SECOND);
    simulation.network.set_faults(Faults::default());
    simulation.run(10 * SECOND);
    assert_eq!(tried(&simulation), [B, B, B], "two were lost");
    assert_eq!(esp(&simulation, 0), (A, B));
    assert_eq!(count(&simulation, 0, Counter::OtherAddressTried), 0);
    still_the_same(&mut simulation);
}

#[test]
fn after_the_last_address_the_peer_is_given_up_and_the_first_is_tried_again() {
    let mut simulation = fresh(two_of_b);
    for address in [B, OTHER_B] {
        simulation.network.cut_off(address);
    }
    let [of_a, _] = of_both(two_of_b);
    simulation.configure(0, always(of_a));
    while given_up(&simulation) == 0 {
        assert!(simulation.step(simulation.now + 300 * SECOND));
    }
    let tries = usize::try_from(EndpointConfig::default().retransmit_tries).unwrap();
    let expected = [vec![B; 3], vec![OTHER_B; tries + 1]].concat();
    assert_eq!(tried(&simulation), expected, "the last one has all the patience");
    simulation.network.connect(B);
    simulation.run(300 * SECOND);
    assert_eq!(tried(&simulation)[expected.len()..], [B]);
    assert_eq!(esp(&simulation, 0), (A, B));
    assert_eq!(given_up(&simulation), 1);
}

#[test]
fn an_address_to_which_there_is_no_way_is_passed_over_at_once() {
    let nowhere: IpAddr = "2001:db8::2".parse().unwrap();
    let change = |node: usize, peer: PeerConfig| match node {
        0 => PeerConfig { remote_address: Some(nowhere), other_addresses: vec![B], ..peer },
        _ => peer,
    };
    let mut simulation = fresh(change);
    simulation.acquire(0, "to-b");
    simulation.run(SECOND);
    assert_eq!(tried(&simulation), [B]);
    still_the_same(&mut simulation);
    // Where there is no way to any of them, that is said.
    let change = |node: usize, peer: PeerConfig| match node {
        0 => PeerConfig { remote_address: Some(nowhere), other_addresses: Vec::new(), ..peer },
        _ => peer,
    };
    let mut simulation = fresh(change);
    simulation.acquire(0, "to-b");
    simulation.run(SECOND);
    assert!(tried(&simulation).is_empty());
    let failed = |kind: &EventKind| kind.to_string().contains("no route to 2001:db8::2");
    assert!(simulation.nodes[0].events.iter().any(|e| failed(&e.kind)));
    assert!(simulation.nodes[0].endpoint.is_empty());
}

#[test]
fn what_the_address_before_answers_late_is_not_taken() {
    let mut simulation = fresh(two_of_b);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.acquire(0, "to-b");
    while tried(&simulation).last() != Some(&OTHER_B) {
        assert!(simulation.step(simulation.now + 60 * SECOND));
    }
    let hand = |simulation: &mut Simulation, node: usize, path: Path, octets: &[u8]| {
        let before = simulation.nodes[node].sent.len();
        simulation.input(node, Input::Datagram { path, octets });
        simulation.nodes[node].sent[before..].to_vec()
    };
    let turned = |path: Path| Path { local: path.remote, remote: path.local };
    let sent = simulation.nodes[0].sent.clone();
    let [first, .., last] = &sent[..] else { panic!("several") };
    assert_eq!(first.1[..8], last.1[..8], "the same SPI");
    let outside = count(&simulation, 0, Counter::OutsideWindow);
    let (path, late) = hand(&mut simulation, 1, turned(first.0), &first.1).remove(0);
    assert_eq!(hand(&mut simulation, 0, turned(path), &late), []);
    assert_eq!(count(&simulation, 0, Counter::OutsideWindow), outside + 1);
    // What it answers where it was asked last is.
    let (path, answer) = hand(&mut simulation, 1, turned(last.0), &last.1).remove(0);
    simulation.network.set_faults(Faults::default());
    assert_eq!(hand(&mut simulation, 0, turned(path), &answer).len(), 1);
    simulation.run(SECOND);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));
    assert_eq!(simulation.exchange_traffic(), []);
}

#[test]
fn the_peer_may_come_from_each_of_its_addresses_and_from_no_other() {
    let change = |node: usize, peer: PeerConfig| match node {
        1 => PeerConfig { remote_address: Some(OTHER_A), other_addresses: vec![A], ..peer },
        _ => peer,
    };
    let mut simulation = connected(false, change, &[]);
    assert_eq!(esp(&simulation, 1), (B, A), "it has begun from the second one");
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(SECOND);
    assert_eq!(esp(&simulation, 1), (B, OTHER_A));
    still_the_same(&mut simulation);
    simulation.readdress(0, &[NAT]);
    simulation.run(SECOND);
    assert_eq!(count(&simulation, 1, Counter::AddressRefused), 1);
    // Nor does it begin from there.
    let mut simulation = fresh(change);
    simulation.readdress(0, &[NAT]);
    simulation.acquire(0, "to-b");
    simulation.run(10 * SECOND);
    assert_eq!(count(&simulation, 1, Counter::IkeSaEstablished), 0);
}

#[test]
fn when_the_path_is_dead_the_other_address_of_the_policy_is_tried_too() {
    // B does not say that it is at OTHER_B as well.
    let mut simulation = connected(false, two_of_b, &[]);
    assert_eq!(sa(&simulation, 0).mobike, Some(Vec::new()));
    simulation.network.cut_off(B);
    simulation.readdress(1, &[B, OTHER_B]);
    simulation.run(4 * LIVENESS);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));
    assert_eq!(esp(&simulation, 1), (OTHER_B, A));
    still_the_same(&mut simulation);
}

#[test]
fn who_stays_at_an_address_of_its_own_tries_no_other_of_its_own() {
    let change = |node: usize, peer: PeerConfig| {
        let local_address = (node == 0).then_some(A);
        PeerConfig { local_address, ..two_of_b(node, peer) }
    };
    let mut simulation = connected(false, change, &[]);
    simulation.readdress(0, &[A, OTHER_A]);
    let before = simulation.nodes[0].sent.len();
    simulation.network.cut_off(B);
    simulation.run(4 * LIVENESS);
    let sent = &simulation.nodes[0].sent[before..];
    let is_there = |local, remote| {
        sent.iter().any(|(path, _)| (path.local.ip(), path.remote.ip()) == (local, remote))
    };
    assert!(is_there(A, B) && is_there(A, OTHER_B));
    assert!(!is_there(OTHER_A, B) && !is_there(OTHER_A, OTHER_B));
}
