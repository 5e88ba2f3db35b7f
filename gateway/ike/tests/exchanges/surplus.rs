//! Child SAs that a rule can do without, where a peer narrows each to the packet that asks for it, or
//! has done so: what is idle, what another one covers, and what is nothing new.

use std::collections::BTreeSet;

use gateway_ike::config::EndpointConfig;
use gateway_ike::io::ChildId;

use super::packet::*;
use super::*;

fn why(simulation: &Simulation) -> Vec<&'static str> {
    let events = simulation.nodes[0].events.iter();
    let reasons = events.filter_map(|e| {
        if let EventKind::ChildRemoved { reason, .. } = &e.kind { Some(*reason) } else { None }
    });
    reasons.collect()
}

/// Has A's Child SA with this address of B's reach its soft limit; gives why others are gone then.
fn grow_old(simulation: &mut Simulation, remote: IpAddr) -> Vec<&'static str> {
    let before = why(simulation).len();
    expire(simulation, remote, false);
    simulation.run(MINUTE);
    why(simulation).split_off(before)
}

/// The same packet as before meets the trap, and what it asks for is made.
fn ask(simulation: &mut Simulation, number: u8) {
    assert!(simulation.send(0, "to-b", HOST, host(number)), "it waits");
    simulation.run(MINUTE);
}

#[test]
fn what_was_asked_for_because_of_a_packet_goes_when_it_is_idle_and_comes_again_with_the_next() {
    let mut simulation = narrowed(&[5, 6]);
    assert_eq!(grow_old(&mut simulation, host(6)), ["idle"]);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5)]));
    ask(&mut simulation, 6);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
    // In either direction it is in use.
    for outbound in [true, false] {
        let child = with(&simulation, host(6)).child;
        let kernel = &mut simulation.nodes[0].kernel;
        let counts = if outbound { &mut kernel.sent } else { &mut kernel.received };
        counts.insert(child, 1);
        assert_eq!(grow_old(&mut simulation, host(6)), ["replaced"]);
    }
    // What has taken its place counts from the beginning, whoever has made it.
    let spi = with(&simulation, host(6)).outbound.spi;
    let event = KernelEvent::Expire { spi, destination: B, hard: false };
    simulation.input(1, Input::Kernel(event));
    simulation.run(MINUTE);
    assert_ne!(with(&simulation, host(6)).outbound.spi, spi);
    assert_eq!(grow_old(&mut simulation, host(6)), ["idle"]);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5)]));
}

/// It is wanted as long as the rule is, and there is no crowd.
#[test]
fn the_last_child_sa_of_a_rule_is_renewed_though_it_is_idle() {
    let mut simulation = narrowed(&[5, 6]);
    assert_eq!(grow_old(&mut simulation, host(5)), ["idle"]);
    assert_eq!(grow_old(&mut simulation, host(6)), ["replaced"]);
    assert_eq!(protected(&simulation), BTreeSet::from([host(6)]));
}

/// Neither what the peer has asked for, nor what a rule has always.
#[test]
fn what_was_asked_for_without_a_packet_is_renewed_though_it_is_idle() {
    let of_a = with_protect(policies_of_a(), |protect| protect.start = Start::Always);
    let mut simulation = pair(of_a, narrowing(&[5, 6, 7]));
    simulation.run(MINUTE);
    let first = |simulation: &Simulation| {
        let there = simulation.nodes[0].kernel.children.values().next().unwrap();
        there.selectors[0].0.remote.network()
    };
    let always = first(&simulation);
    let others: Vec<u8> = (5..=7).filter(|number| host(*number) != always).collect();
    ask(&mut simulation, others[0]);
    // B begins this one.
    let rule = format!("host-{}", others[1]);
    let mut of_b = narrowing(&[5, 6, 7]);
    let remote = "10.1.0.0/24".parse().unwrap();
    let begun = protect(&rule, "a", host(others[1]).into(), remote, Start::OnDemand);
    of_b.rules.insert(rule.as_str().into(), begun.into());
    simulation.configure(1, of_b);
    simulation.acquire(1, &rule);
    simulation.run(MINUTE);
    assert_eq!(protected(&simulation), (5..=7).map(host).collect());
    assert_eq!(grow_old(&mut simulation, always), ["replaced"]);
    assert_eq!(grow_old(&mut simulation, host(others[1])), ["replaced"]);
    assert_eq!(grow_old(&mut simulation, host(others[0])), ["idle"]);
}

#[test]
fn what_is_idle_goes_from_the_ike_sa_that_is_made_anew_too() {
    let of_a = with_peer(policies_of_a(), |p| {
        (p.lifetime, p.renewal) = (MINUTE * 10, Renewal::Reauthenticate);
    });
    let mut simulation = pair(of_a, narrowing(&[5, 6]));
    for number in [5, 6] {
        ask(&mut simulation, number);
    }
    let before = with(&simulation, host(6)).inbound.spi;
    simulation.run(MINUTE * 10);
    assert_ne!(with(&simulation, host(6)).inbound.spi, before);
    assert_eq!(grow_old(&mut simulation, host(6)), ["idle"]);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5)]));
}

/// A has Child SAs with these hosts, of an hour; B rekeys them each 20 minutes.
fn rekeyed_by_b(hosts: &[u8]) -> (Simulation, PolicySet) {
    let with_lifetime =
        |policies, time| with_protect(policies, |protect| protect.lifetime.time = time);
    let of_b = with_lifetime(narrowing(hosts), Duration::from_secs(1200));
    let mut simulation =
        pair(with_lifetime(policies_of_a(), Duration::from_secs(3600)), of_b.clone());
    for number in hosts {
        ask(&mut simulation, *number);
    }
    (simulation, of_b)
}

/// How often A has asked for a Child SA and got it.
fn made_by_a(simulation: &Simulation) -> usize {
    let history = &simulation.nodes[0].kernel.history;
    history.iter().filter(|done| *done == "install child to-b").count()
}

#[test]
fn what_is_idle_goes_though_the_peer_rekeys_it_before_its_soft_limit_and_nothing_else_does() {
    let (mut simulation, _) = rekeyed_by_b(&[5, 6, 7, 8]);
    // One is in use all the time, another now and then.
    let mut has_idled = false;
    for minute in 0..60 * 6 {
        assert!(!simulation.send(0, "to-b", HOST, host(5)));
        if minute % 29 == 0 {
            assert!(!simulation.send(0, "to-b", HOST, host(7)), "{minute}");
        }
        simulation.run(MINUTE);
        let idle = why(&simulation).contains(&"idle");
        assert!(!idle || minute > 40, "not before the soft limit");
        has_idled |= idle;
        assert!(has_idled || minute < 65);
    }
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(7)]));
    assert_eq!(why(&simulation).iter().filter(|why| **why == "idle").count(), 2);
    assert_eq!(made_by_a(&simulation), 4, "A has rekeyed none of them");
}

/// The kernel may be slow to say what went by the one before.
#[test]
fn what_is_in_use_does_not_go_because_the_kernel_has_not_said_so_yet() {
    let (mut simulation, _) = rekeyed_by_b(&[5, 6]);
    assert!(!simulation.send(0, "to-b", HOST, host(6)));
    // B rekeys both, and nothing goes by the successors.
    simulation.nodes[0].kernel.keeps_use = true;
    let before = with(&simulation, host(6)).inbound.spi;
    simulation.run(MINUTE * 20);
    simulation.nodes[0].kernel.keeps_use = false;
    simulation.run(MINUTE);
    assert_ne!(with(&simulation, host(6)).inbound.spi, before);
    let made = |simulation: &Simulation| simulation.nodes[0].kernel.children.len();
    for _ in 0..45 {
        simulation.run(MINUTE);
        assert!(made(&simulation) >= 2);
    }
    assert!(!why(&simulation).contains(&"idle"));
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
}

#[test]
fn what_another_covers_goes_though_the_peer_rekeys_it_before_its_soft_limit() {
    let (mut simulation, mut of_b) = rekeyed_by_b(&[5]);
    of_b.rules.extend(policies_of_b().rules);
    simulation.configure(1, of_b);
    ask(&mut simulation, 6);
    for _ in 0..65 {
        assert!(!simulation.send(0, "to-b", HOST, host(5)), "it is in use");
        simulation.run(MINUTE);
    }
    assert!(why(&simulation).contains(&"a wider one protects the same"));
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(with(&simulation, host(0)).selectors[0].0.remote.prefix_len(), 24);
}

/// Whoever makes the IKE SA anew, and whatever else is in the place of what a packet has asked for.
#[test]
fn what_is_idle_goes_at_its_soft_limit_though_it_is_made_anew_again_and_again_before() {
    let hour = Duration::from_secs(3600);
    for anew_by in [0, 1] {
        let reauthenticating = |policies, node| {
            let policies = with_protect(policies, |protect| protect.lifetime.time = hour);
            with_peer(policies, |peer| {
                peer.lifetime = if node == anew_by { MINUTE * 15 } else { Duration::ZERO };
                peer.renewal = Renewal::Reauthenticate;
            })
        };
        let (left, right) = ("10.1.1.0/24".parse().unwrap(), "10.2.1.0/24".parse().unwrap());
        let (mut of_a, mut of_b) = (policies_of_a(), narrowing(&[5, 6, 7]));
        let other = protect("other", "b", left, right, Start::Respond);
        of_a.rules.insert("other".into(), other.into());
        let other = protect("other", "a", right, left, Start::OnDemand);
        of_b.rules.insert("other".into(), other.into());
        let mut simulation = pair(reauthenticating(of_a, 0), reauthenticating(of_b, 1));
        if anew_by == 1 {
            simulation.acquire(1, "other");
            simulation.run(MINUTE);
        }
        for number in [5, 6, 7] {
            ask(&mut simulation, number);
        }
        // One is in use all the time, another now and then.
        for minute in 0..60 * 4 {
            assert!(!simulation.send(0, "to-b", HOST, host(5)));
            if minute % 29 == 0 {
                assert!(!simulation.send(0, "to-b", HOST, host(7)), "{anew_by}: {minute}");
            }
            simulation.run(MINUTE);
            let idle = why(&simulation).iter().filter(|why| **why == "idle").count();
            assert_eq!(
                idle,
                if minute < 50 { 0 } else { 1.min(idle) },
                "not before the soft limit"
            );
            assert!(minute < 65 || idle == 1, "{anew_by}");
        }
        let kernel = &simulation.nodes[0].kernel;
        let remotes = kernel.children.values().map(|c| c.selectors[0].0.remote.network());
        let expected = if anew_by == 1 { vec![IpAddr::from([10, 2, 1, 0])] } else { vec![] };
        let expected: BTreeSet<_> = expected.into_iter().chain([host(5), host(7)]).collect();
        assert_eq!(remotes.collect::<BTreeSet<_>>(), expected);
    }
}

/// A Child SA is replaced by us then, for the new path.
#[test]
fn what_is_idle_goes_at_its_soft_limit_though_we_have_moved_again_and_again_before() {
    let other = IpAddr::from([192, 0, 2, 11]);
    let of_a = with_protect(policies_of_a(), |protect| {
        protect.lifetime.time = Duration::from_secs(3600);
    });
    let of_a = with_peer(of_a, |peer| peer.mobike = true);
    let of_b = with_peer(narrowing(&[5, 6]), |peer| {
        (peer.mobike, peer.remote_address) = (true, None);
    });
    let mut simulation = pair(of_a, of_b);
    for number in [5, 6] {
        ask(&mut simulation, number);
    }
    for minute in 0..80 {
        assert!(!simulation.send(0, "to-b", HOST, host(5)));
        if minute % 20 == 10 {
            let here = if minute % 40 == 10 { [other, A] } else { [A, other] };
            let before = with(&simulation, host(5)).inbound.spi;
            simulation.readdress(0, &here);
            simulation.run(MINUTE);
            assert_ne!(with(&simulation, host(5)).inbound.spi, before, "it is replaced");
        }
        simulation.run(MINUTE);
        assert!(minute > 40 || !why(&simulation).contains(&"idle"), "not before the soft limit");
    }
    assert_eq!(protected(&simulation), BTreeSet::from([host(5)]));
}

/// Packets of ours have asked for it, and the peer has it anew as it was.
#[test]
fn what_is_idle_goes_from_the_ike_sa_that_the_peer_makes_anew_too() {
    let (left, right) = ("10.1.1.0/24".parse().unwrap(), "10.2.1.0/24".parse().unwrap());
    let mut of_a = policies_of_a();
    let other = protect("other", "b", left, right, Start::Respond);
    of_a.rules.insert("other".into(), other.into());
    let mut of_b = narrowing(&[5, 6]);
    let other = protect("other", "a", right, left, Start::OnDemand);
    of_b.rules.insert("other".into(), other.into());
    let of_b = with_peer(of_b, |p| {
        (p.lifetime, p.renewal) = (MINUTE * 10, Renewal::Reauthenticate);
    });
    let mut simulation = pair(of_a, of_b);
    simulation.acquire(1, "other");
    simulation.run(MINUTE);
    for number in [5, 6] {
        ask(&mut simulation, number);
    }
    let before = with(&simulation, host(6)).inbound.spi;
    simulation.run(MINUTE * 10);
    assert_ne!(with(&simulation, host(6)).inbound.spi, before);
    assert_eq!(simulation.nodes[0].endpoint.status(simulation.now).ike_sas.len(), 1);
    assert_eq!(grow_old(&mut simulation, host(6)), ["idle"]);
    assert_eq!(grow_old(&mut simulation, IpAddr::from([10, 2, 1, 0])), ["replaced"]);
}

/// B has a rule for each of these hosts, and one that it begins.
#[test]
fn the_peers_other_rules_have_room_beside_what_is_narrowed() {
    let config = EndpointConfig { child_sa_limit: 6, ..EndpointConfig::default() };
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    let (left, right) = ("10.1.1.0/24".parse().unwrap(), "10.2.1.0/24".parse().unwrap());
    let mut of_a = policies_of_a();
    let other = protect("other", "b", left, right, Start::Respond);
    of_a.rules.insert("other".into(), other.into());
    let mut of_b = narrowing(&[4, 5, 6, 7, 8, 9]);
    let other = protect("other", "a", right, left, Start::OnDemand);
    of_b.rules.insert("other".into(), other.into());
    simulation.configure(1, of_b);
    simulation.configure(0, of_a);
    for number in 4..=9 {
        ask(&mut simulation, number);
    }
    assert_eq!(counter(&simulation, 0, Counter::RuleChildSaLimit), 2);
    assert_eq!(protected(&simulation), (4..=7).map(host).collect());
    simulation.acquire(1, "other");
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 5);
    assert_eq!(counter(&simulation, 0, Counter::NoAdditionalSas), 0);
}

/// Whatever B may send by is received by A.
fn loses_nothing(simulation: &Simulation) {
    let spis = |node: usize, of: fn(&gateway_ike::io::ChildSpec) -> u32| -> BTreeSet<u32> {
        simulation.nodes[node].kernel.children.values().map(of).collect()
    };
    let received = spis(0, |child| child.inbound.spi);
    assert!(spis(1, |child| child.outbound.spi).is_subset(&received), "B's newest is not there");
}

/// B may send by its newest one only, from when it has answered until it hears that one goes.
#[test]
fn what_is_narrowed_to_the_same_again_takes_its_place_and_nothing_is_lost() {
    let mut simulation = narrowed(&[5, 6]);
    let before = with(&simulation, host(5)).inbound.spi;
    let sent = simulation.nodes[0].sent.len();
    assert!(simulation.send(0, "to-b", HOST, host(7)));
    for to in [1, 0] {
        simulation.deliver(to, false);
    }
    assert_eq!(simulation.nodes[0].kernel.children.len(), 3);
    loses_nothing(&simulation);
    simulation.run(Duration::from_millis(500));
    loses_nothing(&simulation);
    simulation.run(Duration::from_secs(20));
    assert_eq!(why(&simulation), ["replaced"]);
    assert_eq!(protected(&simulation), BTreeSet::from([host(5), host(6)]));
    assert_ne!(with(&simulation, host(5)).inbound.spi, before, "the newest one stays");
    // The packet is still not protected, and would have it replaced again and again.
    let asked = simulation.nodes[0].sent.len();
    assert_eq!(asked, sent + 2, "CREATE_CHILD_SA and a Delete");
    assert!(simulation.send(0, "to-b", HOST, host(7)));
    assert_eq!(simulation.nodes[0].sent.len(), asked);
    simulation.run(Duration::from_secs(10));
    assert!(simulation.send(0, "to-b", HOST, host(7)));
    assert_eq!(simulation.nodes[0].sent.len(), asked + 1);
}

#[test]
fn what_is_narrowed_to_less_than_another_protects_receives_until_the_peer_has_heard_that_it_goes() {
    let of_b = |remotes: &[&str]| {
        let rule = |remote: &&str| {
            let (local, remote) = (remote.parse().unwrap(), "10.1.0.0/24".parse().unwrap());
            protect(&format!("from {local}"), "a", local, remote, Start::Respond)
        };
        policies(vec![peer("a", "b.test", "a.test", Some(A))], remotes.iter().map(rule).collect())
    };
    let mut simulation = pair(policies_of_a(), of_b(&["10.2.0.4/30", "10.2.0.5/32"]));
    ask(&mut simulation, 6);
    let before = with(&simulation, host(4)).clone();
    assert!(simulation.send(0, "to-b", HOST, host(7 + 1)));
    for to in [1, 0] {
        simulation.deliver(to, false);
    }
    let children = simulation.nodes[0].kernel.children.clone();
    assert_eq!(children.len(), 2);
    assert_eq!(with(&simulation, host(5)).selectors.len(), 1, "it is B's narrowest rule");
    loses_nothing(&simulation);
    assert_eq!(simulation.nodes[0].kernel.outbound, [before.child], "nothing is sent by it");
    simulation.run(MINUTE);
    assert_eq!(why(&simulation), ["redundant"]);
    let left: Vec<ChildId> = simulation.nodes[0].kernel.children.keys().copied().collect();
    assert_eq!(left, [before.child]);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    assert_eq!(simulation.violations(), Vec::<String>::new());
}

#[test]
fn a_child_sa_that_the_peer_refuses_beside_another_loses_no_rule() {
    let of_a = with_protect(policies_of_a(), |protect| protect.start = Start::Always);
    let mut simulation = pair(of_a, narrowing(&[5, 6]));
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 1);
    let refusal = Refusal::Error(KernelError::Refused("no".to_owned()));
    let there = simulation.nodes[0].kernel.children.values().next().unwrap();
    let other = if there.selectors[0].0.remote.network() == host(5) { 6 } else { 5 };
    simulation.nodes[1].kernel.refusals.push_back(refusal);
    ask(&mut simulation, other);
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 1);
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!((status.rules[0].children, status.rules[0].last_error.as_deref()), (1, None));
}

/// B has not narrowed any more since, but does nothing about what it had.
#[test]
fn what_another_covers_goes_at_its_soft_limit() {
    let mut simulation = narrowed(&[5]);
    let mut wider = narrowing(&[5]);
    wider.rules.extend(policies_of_b().rules);
    simulation.configure(1, wider);
    simulation.run(MINUTE);
    ask(&mut simulation, 6);
    let remotes = |simulation: &Simulation| -> BTreeSet<String> {
        let children = simulation.nodes[0].kernel.children.values();
        children.map(|c| c.selectors[0].0.remote.to_string()).collect()
    };
    assert_eq!(remotes(&simulation), ["10.2.0.0/24", "10.2.0.5/32"].map(str::to_owned).into());
    // In use or not.
    assert!(!simulation.send(0, "to-b", HOST, host(5)));
    assert_eq!(grow_old(&mut simulation, host(5)), ["a wider one protects the same"]);
    assert!(simulation.has_one_child_each().unwrap());
    // And what covers it does not go because of it.
    assert_eq!(grow_old(&mut simulation, host(0)), ["replaced"]);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(remotes(&simulation), ["10.2.0.0/24".to_owned()].into());
}

/// A and B have each asked for one while the other did.
fn crossed() -> Simulation {
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let mut of_b = policies_of_b();
    of_b.rules.insert("to-a".into(), protect("to-a", "a", right, left, Start::OnDemand).into());
    let (left, right) = ("10.1.1.0/24".parse().unwrap(), "10.2.1.0/24".parse().unwrap());
    of_b.rules.insert("first".into(), protect("first", "a", right, left, Start::Respond).into());
    let mut of_a = policies_of_a();
    of_a.rules.insert("first".into(), protect("first", "b", left, right, Start::OnDemand).into());
    let mut simulation = pair(of_a, of_b);
    simulation.acquire(0, "first");
    simulation.run(MINUTE);
    simulation.acquire(0, "to-b");
    simulation.acquire(1, "to-a");
    simulation.run(MINUTE);
    simulation
}

/// Those that A has of the rule that both have asked for, by their numbers.
fn of_both(simulation: &Simulation) -> Vec<(ChildId, u32)> {
    let children = simulation.nodes[0].kernel.children.values();
    let children = children.filter(|c| &*c.rule == "to-b");
    children.map(|c| (c.child, c.inbound.spi)).collect()
}

/// One of them reaches its soft limit; gives why one goes then.
fn grow_old_of_both(simulation: &mut Simulation, spi: u32) -> Option<&'static str> {
    let event = KernelEvent::Expire { spi, destination: A, hard: false };
    simulation.input(0, Input::Kernel(event));
    simulation.run(MINUTE);
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    why(simulation).pop()
}

/// RFC 7296 2.8: the peer may want both.
#[test]
fn of_two_that_are_the_same_none_goes_that_is_used() {
    let mut simulation = crossed();
    for (child, spi) in of_both(&simulation) {
        simulation.nodes[0].kernel.received.insert(child, 1);
        assert_eq!(grow_old_of_both(&mut simulation, spi), Some("replaced"));
    }
    assert_eq!(of_both(&simulation).len(), 2);
}

/// A packet of ours has asked for the other.
#[test]
fn what_the_peer_asks_for_beside_the_same_is_renewed_though_it_is_idle() {
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let mut of_b = policies_of_b();
    let too = protect("to-a-too", "a", right, left, Start::OnDemand);
    of_b.rules.insert("to-a-too".into(), too.into());
    let mut simulation = pair(policies_of_a(), of_b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation.acquire(1, "to-a-too");
    simulation.run(MINUTE);
    let both = of_both(&simulation);
    let ((ours, spi), (_, of_b)) = (both[0], both[1]);
    // The newest is renewed anyway.
    simulation.nodes[0].kernel.received.insert(ours, 1);
    assert_eq!(grow_old_of_both(&mut simulation, spi), Some("replaced"));
    assert_eq!(grow_old_of_both(&mut simulation, of_b), Some("replaced"));
    assert_eq!(of_both(&simulation).len(), 2);
}

/// The peer may send by its newest only, though it does not send now.
#[test]
fn of_two_that_are_the_same_the_newest_does_not_go_though_it_is_idle() {
    let mut simulation = crossed();
    // A's own is the older one: B got A's answer after it had given its own. It is in use.
    let (ours, spi) = of_both(&simulation)[0];
    simulation.nodes[0].kernel.received.insert(ours, 1);
    assert_eq!(grow_old_of_both(&mut simulation, spi), Some("replaced"));
    // What has taken its place is the newest.
    let newest = |simulation: &Simulation| of_both(simulation).pop().unwrap().1;
    let spi = newest(&simulation);
    assert_eq!(grow_old_of_both(&mut simulation, spi), Some("replaced"));
    let spi = newest(&simulation);
    assert_eq!(of_both(&simulation).len(), 2);
    // Until B's own, which is the older one now, is rekeyed.
    let of_b = of_both(&simulation)[0].1;
    assert_eq!(grow_old_of_both(&mut simulation, of_b), Some("replaced"));
    assert_ne!(newest(&simulation), spi);
    assert_eq!(grow_old_of_both(&mut simulation, spi), Some("idle"));
    assert_eq!(of_both(&simulation).len(), 1);
}

/// libreswan refuses a request with more than 16 in a payload.
#[test]
fn a_packet_is_not_the_one_selector_too_many() {
    for (nets, named, all) in [(15_u8, true, 16), (16, false, 16), (17, true, 18)] {
        let remotes = (0..nets).map(|net| format!("10.2.{net}.0/24").parse().unwrap());
        let remotes: Vec<ipnet::IpNet> = remotes.collect();
        let of_a = with_rule(policies_of_a(), |rule| rule.remote.clone_from(&remotes));
        let mut simulation = pair(of_a, policies_of_b());
        assert!(simulation.send(0, "to-b", HOST, host(5)));
        for to in [1, 0] {
            simulation.deliver(to, false);
        }
        let [tsi, tsr] = asked(&simulation);
        let first = selector("10.2.0.5/32", Some(443));
        assert_eq!((tsr.len(), tsr[0] == first), (all, named), "{nets}");
        assert_eq!(tsi.len(), if named { 2 } else { 1 });
    }
}
