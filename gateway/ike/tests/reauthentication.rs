//! An IKE SA that is made anew (RFC 7296 2.8.3): at no moment a packet is sent that the other end
//! could not decrypt, and at none there is nothing to send by.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gateway_ike::config::{PeerConfig, Renewal, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{ChildId, KernelError};
use gateway_ike::testing::{Faults, Refusal, Simulation, peer, policies, protect};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const LIFETIME: Duration = Duration::from_secs(30);
/// The longest that both IKE SAs stand side by side: until the responder sends by the new Child SA,
/// and the old one has been silent.
const BOTH: Duration = Duration::from_secs(10);

/// A tunnel that A has begun and makes anew.
fn connected() -> Simulation {
    connected_for(LIFETIME)
}

/// The same, for another lifetime.
fn connected_for(lifetime: Duration) -> Simulation {
    connected_with(lifetime, |_| {})
}

/// The same, with what B knows of A changed.
fn connected_with(lifetime: Duration, change: impl FnOnce(&mut PeerConfig)) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let (net_a, net_b) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let mut b = peer("b", "a.test", "b.test", Some(B));
    (b.lifetime, b.renewal) = (lifetime, Renewal::Reauthenticate);
    let mut a = peer("a", "b.test", "a.test", Some(A));
    change(&mut a);
    let rule = protect("to-b", "b", net_a, net_b, Start::Always);
    simulation.configure(0, policies(vec![b], vec![rule]));
    let rule = protect("to-a", "a", net_b, net_a, Start::Respond);
    simulation.configure(1, policies(vec![a], vec![rule]));
    simulation.run(Duration::from_secs(1));
    assert_eq!(ike_sas(&simulation), [1, 1]);
    simulation
}

/// How many IKE SAs stand at each node.
fn ike_sas(simulation: &Simulation) -> [usize; 2] {
    [0, 1].map(|node| {
        let status = simulation.nodes[node].endpoint.status(simulation.now);
        status.ike_sas.iter().filter(|sa| sa.state == "established").count()
    })
}

/// Steps from event to event with a packet each way after each of them; none may be lost. `answers`:
/// whether what A sends arrives at B too.
fn with_traffic(simulation: &mut Simulation, time: Duration, answers: bool) {
    let end = simulation.now + time;
    while simulation.step(end) {
        assert_eq!(simulation.exchange_traffic(), [], "{:?} before the end", end - simulation.now);
        for node in &simulation.nodes {
            assert!(!node.kernel.outbound.is_empty(), "nothing to send by");
        }
        if !answers {
            simulation.nodes[1].kernel.received.clear();
        }
    }
}

#[test]
fn no_packet_is_lost_when_an_ike_sa_is_made_anew() {
    for answers in [true, false] {
        let mut simulation = connected();
        let old: Vec<ChildId> = simulation.nodes[1].kernel.children.keys().copied().collect();
        with_traffic(&mut simulation, LIFETIME + BOTH, answers);
        assert_eq!(ike_sas(&simulation), [1, 1], "answers: {answers}");
        for node in &simulation.nodes {
            assert_eq!(node.endpoint.counters().value(Counter::IkeSaEstablished), 2);
            assert_eq!(node.kernel.children.len(), 1);
        }
        assert!(!simulation.nodes[1].kernel.children.contains_key(&old[0]));
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}

#[test]
fn the_responder_sends_by_the_new_one_with_the_first_packet_that_comes_in_by_it() {
    let mut simulation = connected();
    // Up to the moment in which B has the Child SA and A does not know yet.
    let end = simulation.now + LIFETIME;
    while simulation.nodes[1].kernel.children.len() < 2 && simulation.step(end) {}
    let kernel = &simulation.nodes[1].kernel;
    let new = *kernel.children.keys().next_back().unwrap();
    assert!(!kernel.outbound.contains(&new));
    simulation.run(Duration::from_millis(50));
    simulation.exchange_traffic();
    simulation.run(Duration::from_millis(500));
    assert_eq!(simulation.nodes[1].kernel.outbound.last(), Some(&new));
    assert_eq!(simulation.nodes[0].kernel.outbound.len(), 1, "A sends by the new one alone");
    assert_eq!(simulation.nodes[0].kernel.children.len(), 2, "and hears by both");
}

#[test]
fn what_a_peer_has_lost_is_replaced_without_a_gap() {
    let mut simulation = connected();
    let old = *simulation.nodes[1].kernel.children.keys().next().unwrap();
    let rules = simulation.nodes[0].kernel.classified.clone().unwrap();
    simulation.crash(0, 2);
    simulation.nodes[1].kernel.history.clear();
    simulation.configure(0, (*rules).clone());
    // Its INITIAL_CONTACT says that the old one is dead: B does not wait for a packet.
    simulation.run(Duration::from_millis(90));
    let history: Vec<&str> =
        simulation.nodes[1].kernel.history.iter().map(String::as_str).collect();
    let removed = format!("remove child {}", old.0);
    assert_eq!(history, ["install inbound to-a", "install outbound to-a", &removed]);
    assert_eq!(simulation.exchange_traffic(), []);
}

#[test]
fn an_heir_that_the_kernel_refuses_leaves_nothing() {
    let mut simulation = connected();
    let rules = simulation.nodes[0].kernel.classified.clone().unwrap();
    simulation.crash(0, 2);
    let refusals = [Refusal::Error(KernelError::NoSuchSa)];
    simulation.nodes[1].kernel.refusals.extend(refusals);
    simulation.configure(0, (*rules).clone());
    // Its INITIAL_CONTACT ends the old one while the kernel has yet to answer for the new one.
    simulation.run(Duration::from_millis(90));
    assert!(simulation.nodes[1].kernel.children.is_empty());
    simulation.wind_up().unwrap();
}

#[test]
fn an_ike_sa_whose_heir_comes_to_nothing_gets_another_before_it_ends() {
    let hour = Duration::from_secs(3600);
    let mut simulation = connected_for(10 * hour);
    let attempts = |simulation: &Simulation| {
        let init = |octets: &[u8]| octets.get(18) == Some(&34);
        simulation.nodes[0].sent.iter().filter(|(_, octets)| init(octets)).count()
    };
    simulation.run(9 * hour - Duration::from_secs(1));
    let before = attempts(&simulation);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    while attempts(&simulation) == before {
        assert!(simulation.step(simulation.now + 2 * hour), "A begins another IKE SA");
    }
    simulation.run(Duration::from_secs(600));
    assert_eq!(simulation.nodes[0].endpoint.status(simulation.now).ike_sas.len(), 1, "given up");
    simulation.network.set_faults(Faults::default());
    assert_eq!(simulation.exchange_traffic(), []);
    with_traffic(&mut simulation, 2 * hour, true);
    for node in &simulation.nodes {
        assert_eq!(node.endpoint.counters().value(Counter::IkeSaEstablished), 2);
    }
    assert_eq!(ike_sas(&simulation), [1, 1]);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

/// An heir that the peer gives no Child SA does not stay, and does not stand in the way of the next.
#[test]
fn an_heir_without_a_child_sa_ends_and_another_is_begun_before_the_end() {
    let hour = Duration::from_secs(3600);
    let mut simulation = connected_for(10 * hour);
    let rules = simulation.nodes[1].kernel.classified.clone().unwrap();
    let stood = simulation.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished);
    simulation.run(9 * hour - Duration::from_secs(1));
    // B cannot have it now: each Child SA that it installs fails.
    let refusals = [(); 16].map(|()| Refusal::Error(KernelError::NoSuchSa));
    simulation.nodes[1].kernel.refusals.extend(refusals);
    let established =
        |s: &Simulation| s.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished);
    while established(&simulation) == stood {
        assert!(simulation.step(simulation.now + 2 * hour), "A begins another IKE SA");
    }
    simulation.run(Duration::from_secs(60));
    assert_eq!(ike_sas(&simulation), [1, 1], "the heir has ended, at both ends");
    assert_eq!(simulation.exchange_traffic(), []);
    // B can again.
    simulation.nodes[1].kernel.refusals.clear();
    with_traffic(&mut simulation, 2 * hour, true);
    assert_eq!(ike_sas(&simulation), [1, 1]);
    assert!(established(&simulation) > stood + 1, "and another is begun");
    assert_eq!(simulation.nodes[1].kernel.classified, Some(rules));
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

/// Two Child SAs stand; of those that the heir asks for B makes the first, and not the second: that stays
/// until the next attempt.
fn with_one_refused(mut simulation: Simulation) {
    let hour = Duration::from_secs(3600);
    let children =
        |s: &Simulation| s.nodes.iter().map(|n| n.kernel.children.len()).collect::<Vec<_>>();
    assert_eq!((ike_sas(&simulation), children(&simulation)), ([1, 1], vec![2, 2]));
    simulation.run(9 * hour - Duration::from_secs(20));
    let refusals = [Refusal::None, Refusal::Error(KernelError::NoSuchSa)];
    simulation.nodes[1].kernel.refusals.extend(refusals);
    let established =
        |s: &Simulation| s.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished);
    while established(&simulation) == 1 {
        assert!(simulation.step(simulation.now + 2 * hour), "A begins another IKE SA");
    }
    simulation.run(Duration::from_secs(60));
    assert_eq!((ike_sas(&simulation), children(&simulation)), ([2, 2], vec![2, 2]));
    assert_eq!(simulation.exchange_traffic(), []);
    let rules = simulation.nodes[0].endpoint.status(simulation.now).rules;
    assert!(rules.iter().all(|rule| rule.last_error.is_none()), "all are served");
    // The next attempt gets what is left.
    with_traffic(&mut simulation, 2 * hour, true);
    assert_eq!((ike_sas(&simulation), children(&simulation)), ([2, 2], vec![2, 2]));
    assert_eq!(established(&simulation), 3);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

/// Of two rules the peer gives the heir only one: the other one's Child SA stays until there is another.
#[test]
fn a_child_sa_that_the_heir_does_not_get_is_kept_until_it_does() {
    let hour = Duration::from_secs(3600);
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let nets = ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"].map(|net| net.parse().unwrap());
    let mut b = peer("b", "a.test", "b.test", Some(B));
    (b.lifetime, b.renewal) = (10 * hour, Renewal::Reauthenticate);
    let rule = |name: &str, to| protect(name, "b", nets[0], to, Start::Always);
    let rules = vec![rule("one", nets[1]), rule("two", nets[2])];
    simulation.configure(0, policies(vec![b], rules));
    let back = |name: &str, from| protect(name, "a", from, nets[0], Start::Respond);
    let of_b = |rules| policies(vec![peer("a", "b.test", "a.test", Some(A))], rules);
    simulation.configure(1, of_b(vec![back("one", nets[1]), back("two", nets[2])]));
    simulation.run(Duration::from_secs(5));
    with_one_refused(simulation);
}

/// The peer gives the IKE SA new keys before that: it is still ours to make anew.
#[test]
fn an_ike_sa_that_the_peer_has_rekeyed_is_made_anew_all_the_same() {
    let mut simulation = connected_with(LIFETIME, |a| {
        (a.lifetime, a.renewal) = (LIFETIME / 3, Renewal::Rekey);
    });
    with_traffic(&mut simulation, LIFETIME + BOTH, true);
    let rekeyed = simulation.nodes[1].endpoint.counters().value(Counter::IkeSaRekeyed);
    assert!(rekeyed >= 2, "{rekeyed}");
    assert_eq!(simulation.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished), 2);
    assert_eq!(ike_sas(&simulation), [1, 1]);
}

/// The peer has narrowed a rule to two Child SAs, and gives the heir only one.
#[test]
fn of_several_child_sas_of_a_rule_each_is_kept_until_the_heir_has_it() {
    let hour = Duration::from_secs(3600);
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let nets = ["10.1.0.0/24", "10.2.0.0/23", "10.2.0.0/24", "10.2.1.0/24"];
    let [ours, both, first, second] = nets.map(|net| net.parse().unwrap());
    let mut b = peer("b", "a.test", "b.test", Some(B));
    (b.lifetime, b.renewal) = (10 * hour, Renewal::Reauthenticate);
    let rule = protect("to-b", "b", ours, both, Start::OnDemand);
    simulation.configure(0, policies(vec![b], vec![rule]));
    let back = |name: &str, from| protect(name, "a", from, ours, Start::Respond);
    let rules = vec![back("one", first), back("two", second)];
    simulation.configure(1, policies(vec![peer("a", "b.test", "a.test", Some(A))], rules));
    for to in [[10, 2, 0, 9], [10, 2, 1, 9]] {
        simulation.send(0, "to-b", IpAddr::from([10, 1, 0, 9]), IpAddr::from(to));
        simulation.run(Duration::from_secs(5));
    }
    with_one_refused(simulation);
}
