//! Whoever has been authenticated: IKE SAs, Child SAs, what waits to be made or deleted.

use super::*;

/// So many hosts begin at once in the name of one peer, so that none takes the others for dead;
/// gives node 0 when all have sent IKE_AUTH.
fn hosts_of_one_peer(count: u8, config: &EndpointConfig) -> Simulation {
    hosts_that_want(&vec!["to-b-1"; count.into()], config)
}

/// The same, each host for a rule of its own.
fn hosts_that_want(rules: &[&str], config: &EndpointConfig) -> Simulation {
    let count = u8::try_from(rules.len()).unwrap();
    let hosts = (11..11 + count).map(|n| [192, 0, 2, n].into());
    let nodes: Vec<IpAddr> = core::iter::once(B).chain(hosts).collect();
    let mut simulation = Simulation::with_config(&nodes, config, Faults::default(), 1);
    simulation.configure(0, policies_of_b(count));
    for (node, rule) in (1..).zip(rules) {
        simulation.configure(node, policies_of_a(count));
        simulation.acquire(node, rule);
    }
    while simulation.nodes[1..].iter().any(|node| node.sent.len() < 2) {
        let limit = simulation.now + SECOND;
        assert!(simulation.step(limit));
    }
    simulation
}

#[test]
fn of_too_many_ike_sas_with_one_peer_the_oldest_are_deleted() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(3, &config);
    simulation.run(20 * SECOND);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 3);
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 1);
    assert_eq!(states(&simulation, 0), [(2, "established"), (3, "established")]);
    let mut of_hosts: Vec<_> = (1..=3).flat_map(|node| states(&simulation, node)).collect();
    of_hosts.sort_unstable();
    let expected = [(1, "closing"), (1, "established"), (1, "established")];
    assert_eq!(of_hosts, expected, "and its other end knows");
    assert_eq!(simulation.violations(), Vec::<String>::new());
    simulation.wind_up().unwrap();
}

#[test]
fn the_child_sas_of_all_ike_sas_with_one_peer_are_counted() {
    let config = EndpointConfig { peer_child_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(2, &config);
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 0), 2, "the first of each IKE SA");
    simulation.acquire(1, "to-b-2");
    simulation.run(20 * SECOND);
    let limited = [Counter::PeerChildSaLimit, Counter::NoAdditionalSas];
    assert_eq!(limited.map(|limit| counter(&simulation, 0, limit)), [1, 0]);
    assert_eq!(children(&simulation, 0), 2);
    let words = "the peer has 2 Child SAs on all its IKE SAs: `peer-child-sa-limit` allows no more";
    let said = |event: &Event| event.kind.to_string().contains(words);
    assert_eq!(simulation.nodes[0].events.iter().filter(|event| said(event)).count(), 1);
    // It may replace those that it has.
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(1, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
    simulation.run(20 * SECOND);
    assert_eq!(
        (counter(&simulation, 0, Counter::ChildSaRekeyed), children(&simulation, 0)),
        (1, 2)
    );
    assert_eq!(simulation.violations(), Vec::<String>::new());
}

/// What a node has of its one refusal: the cause, what was said, and what there is beside what may be.
fn refusal(simulation: &Simulation, node: usize) -> (Cause, Option<NotifyType>, String) {
    let found: Vec<_> =
        simulation.nodes[node].events.iter().filter_map(|e| e.refusal.as_deref()).collect();
    let [refusal] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(simulation.nodes[node].endpoint.counters().refusals(refusal.cause), 1);
    assert_eq!(refusal.cause.kind(), Kind::Limit);
    let field = refusal.nearest_candidate().map(|c| c.fields[0].clone());
    let words = field.map(|f| format!("{} {} {}", f.name, f.ours.concat(), f.theirs.concat()));
    (refusal.cause, refusal.said, words.unwrap_or_default())
}

/// RFC 7296 1.2: the IKE SA stands without it.
#[test]
fn the_child_sa_that_an_ike_sa_begins_with_is_counted_too() {
    let config = EndpointConfig { peer_child_sa_limit: 1, ..EndpointConfig::default() };
    let mut simulation = hosts_that_want(&["to-b-1", "to-b-2", "to-b-3"], &config);
    simulation.run(20 * SECOND);
    // Each says that what there was before is dead, and so has room beside that; the last has not.
    assert_eq!(children(&simulation, 0), 2);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 3);
    assert_eq!(counter(&simulation, 0, Counter::PeerChildSaLimit), 1);
    assert_eq!(refusal(&simulation, 0), (Cause::ChildSasOfPeer, None, "child_sas 2 2".to_owned()));
    let without: Vec<_> = (1..=3).filter(|node| children(&simulation, *node) == 0).collect();
    let [without] = without.as_slice() else { panic!("{without:?}") };
    let said = Some(NotifyType::NO_ADDITIONAL_SAS);
    assert_eq!(refusal(&simulation, *without), (Cause::LimitByPeer, said, String::new()));
    assert_eq!(states(&simulation, *without), [(1, "established")]);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation.wind_up().unwrap();
}

#[test]
fn who_makes_an_ike_sa_anew_has_room_for_all_that_it_has() {
    let config = EndpointConfig { peer_child_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 2);
    let mut of_a = policies_of_a(2);
    let b = Arc::make_mut(of_a.peers.values_mut().next().unwrap());
    (b.lifetime, b.renewal) = (30 * SECOND, Renewal::Reauthenticate);
    simulation.configure(0, of_a);
    for rule in ["to-b-1", "to-b-2"] {
        simulation.acquire(0, rule);
        simulation.run(SECOND);
    }
    simulation.run(38 * SECOND);
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 2);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (2, 2));
    assert_eq!(counter(&simulation, 1, Counter::PeerChildSaLimit), 0);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn what_a_peer_has_lost_is_not_too_much() {
    let config = EndpointConfig { peer_child_sa_limit: 1, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 2);
    for (seed, rule) in [(1, "to-b-1"), (2, "to-b-2"), (3, "to-b-1")] {
        simulation.crash(0, seed);
        simulation.configure(0, policies_of_a(2));
        simulation.acquire(0, rule);
        simulation.run(20 * SECOND);
        assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1), "{rule}");
    }
    assert_eq!(counter(&simulation, 1, Counter::PeerChildSaLimit), 0);
}

#[test]
fn the_newest_is_the_one_that_was_established_last() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(3, &config);
    // Whoever began first gets through last.
    let began_first = simulation.nodes[0].sent[0].0.remote.ip();
    let is_first = |node: &usize| simulation.nodes[*node].address == began_first;
    let (first, others): (Vec<usize>, Vec<usize>) = (1..=3).partition(is_first);
    while simulation.under_way(0) > 0 {
        simulation.deliver(0, true);
    }
    for node in others.into_iter().chain(first) {
        let (path, octets) = simulation.nodes[node].sent[1].clone();
        let path = Path { local: path.remote, remote: path.local };
        simulation.now += Duration::from_millis(1);
        simulation.input(0, Input::Datagram { path, octets: &octets });
    }
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 1);
    let expected = [(1, "established"), (2, "closing"), (3, "established")];
    assert_eq!(states(&simulation, 0), expected);
}

#[test]
fn of_those_that_do_not_answer_the_delete_no_more_are_kept_than_may_stand() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(9, &config);
    simulation.network.set_faults(CUT);
    simulation.run(2 * SECOND);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 9);
    assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 7);
    let count = |state| states(&simulation, 0).iter().filter(|(_, s)| *s == state).count();
    assert_eq!((count("established"), count("closing")), (2, 2));
}

#[test]
fn a_peer_that_begins_and_ends_ike_sas_leaves_no_more_than_may_stand() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 1);
    for _ in 0..6 {
        simulation.configure(0, policies_of_a(1));
        simulation.acquire(0, "to-b-1");
        simulation.run(SECOND);
        assert_eq!(children(&simulation, 1), 1);
        simulation.configure(0, PolicySet::default());
        simulation.run(SECOND);
        assert_eq!(children(&simulation, 1), 0);
    }
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 6);
    assert_eq!(states(&simulation, 1), [(5, "closing"), (6, "closing")]);
    simulation.run(60 * SECOND);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn a_peer_that_has_lost_its_ike_sas_and_says_so_has_not_too_many() {
    let config = EndpointConfig { peer_ike_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = hosts_of_one_peer(2, &config);
    simulation.run(20 * SECOND);
    for seed in 0..3 {
        simulation.crash(1, seed);
        simulation.configure(1, policies_of_a(1));
        simulation.acquire(1, "to-b-1");
        simulation.run(20 * SECOND);
        assert_eq!(counter(&simulation, 0, Counter::PeerIkeSaLimit), 0);
    }
    assert_eq!(states(&simulation, 0).len(), 1);
}

#[test]
fn more_that_is_to_be_made_than_may_wait_is_not_and_may_be_asked_for_again() {
    let config = EndpointConfig { job_limit: 2, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 4);
    for _ in 0..3 {
        for rule in ["to-b-1", "to-b-2", "to-b-3", "to-b-4"] {
            simulation.acquire(0, rule);
        }
    }
    assert_eq!(counter(&simulation, 0, Counter::JobLimit), 3 * 2);
    assert_eq!(
        counter(&simulation, 0, Counter::AcquireIgnored),
        2 * 2,
        "those that wait do so once"
    );
    let refused = simulation.nodes[0].endpoint.status(simulation.now);
    let refused = refused.rules.iter().filter_map(|rule| rule.last_error.as_deref());
    assert_eq!(refused.filter(|error| error.contains("`job-limit`")).count(), 2);
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 1), 2);
    simulation.acquire(0, "to-b-3");
    simulation.acquire(0, "to-b-4");
    simulation.run(20 * SECOND);
    assert_eq!(children(&simulation, 1), 4);
    assert_eq!(counter(&simulation, 0, Counter::JobLimit), 3 * 2);
}

/// A and B with so many Child SAs, and nothing arrives any more.
fn connected(config: &EndpointConfig, rules: u8, served: u8) -> Simulation {
    let mut simulation = pair(config, rules);
    for n in 1..=served {
        simulation.acquire(0, &format!("to-b-{n}"));
        simulation.run(SECOND);
    }
    simulation.network.set_faults(CUT);
    assert_eq!(children(&simulation, 1), usize::from(served));
    simulation
}

#[test]
fn a_peer_that_keeps_too_much_that_was_deleted_loses_the_ike_sa() {
    let config = EndpointConfig { job_limit: 1, ..EndpointConfig::default() };
    let mut simulation = connected(&config, 4, 4);
    // The first Delete is under way, the second one waits.
    expire_oldest(&mut simulation, 1);
    expire_oldest(&mut simulation, 1);
    assert_eq!((children(&simulation, 1), states(&simulation, 1)), (2, vec![(1, "established")]));
    expire_oldest(&mut simulation, 1);
    assert_eq!((children(&simulation, 1), states(&simulation, 1)), (0, vec![(1, "closing")]));
    assert_eq!(counter(&simulation, 1, Counter::JobLimit), 1);
    let words =
        |kind: &EventKind| matches!(kind, EventKind::Closed(why) if why.contains("`job-limit`"));
    assert!(simulation.nodes[1].events.iter().any(|event| words(&event.kind)));
    // The peer hears of it as soon as it listens again.
    simulation.network.set_faults(Faults::default());
    simulation.run(20 * SECOND);
    assert_eq!(states(&simulation, 0), [(1, "closing")]);
    simulation.run(20 * SECOND);
    assert_eq!(states(&simulation, 0), []);
    simulation.wind_up().unwrap();
}

/// Rekeys the IKE SA seven times, while all that is said under old keys is lost, such as their Delete.
fn rekeyed_without_deletes(limit: usize) -> Simulation {
    const CREATE_CHILD_SA: u8 = 36;
    let config = EndpointConfig { old_keys_limit: limit, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 1);
    let mut of_a = policies_of_a(1);
    Arc::make_mut(of_a.peers.values_mut().next().unwrap()).lifetime = 10 * SECOND;
    simulation.configure(0, of_a);
    simulation.acquire(0, "to-b-1");
    simulation.run(SECOND);
    simulation.network.set_faults(CUT);
    let sent = |simulation: &Simulation, node: usize| simulation.nodes[node].sent.clone();
    let mut old_spis = Vec::new();
    let mut read = [0, 1].map(|node| sent(&simulation, node).len());
    for round in 0..7 {
        let asks = |(_, octets): &&(Path, Vec<u8>)| octets[18] == CREATE_CHILD_SA;
        while sent(&simulation, 0).iter().filter(asks).count() == round {
            assert!(simulation.step(simulation.now + 20 * SECOND), "round {round}");
        }
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for from in [0, 1] {
                for (path, octets) in sent(&simulation, from).split_off(read[from]) {
                    read[from] += 1;
                    if octets[18] == CREATE_CHILD_SA && from == 1 {
                        old_spis.push(octets[..8].to_vec());
                    } else if old_spis.contains(&octets[..8].to_vec()) {
                        continue;
                    }
                    quiet = false;
                    let path = Path { local: path.remote, remote: path.local };
                    simulation.input(1 - from, Input::Datagram { path, octets: &octets });
                }
            }
        }
    }
    for node in [0, 1] {
        assert_eq!(counter(&simulation, node, Counter::IkeSaRekeyed), 7);
        assert_eq!(children(&simulation, node), 1);
    }
    simulation
}

#[test]
fn old_keys_that_nobody_deletes_are_forgotten() {
    for (limit, forgotten) in [(2, 5), (4, 3), (7, 0), (8, 0)] {
        let simulation = rekeyed_without_deletes(limit);
        let kept = states(&simulation, 1).len() - 1;
        let counted = counter(&simulation, 1, Counter::OldKeysForgotten);
        assert_eq!(counted, forgotten, "{limit}");
        assert!(kept <= limit && (kept == limit || limit > 4), "{kept} of {limit}");
        // The one who is to delete them forgets them as soon as nobody answers.
        assert!(states(&simulation, 0).len() <= 1 + limit);
        if limit == 4 {
            assert_eq!(counter(&simulation, 0, Counter::OldKeysForgotten), 0);
        }
    }
}

#[test]
fn what_a_peer_keeps_us_from_deleting_counts_as_what_it_has() {
    let config = EndpointConfig { child_sa_limit: 2, ..EndpointConfig::default() };
    let mut simulation = connected(&config, 4, 2);
    // B's first Delete is under way and is not answered; the second one waits.
    expire_oldest(&mut simulation, 1);
    expire_oldest(&mut simulation, 1);
    assert_eq!(children(&simulation, 1), 0);
    for (rule, served, refused) in [("to-b-3", 1, 0), ("to-b-4", 1, 1)] {
        simulation.acquire(0, rule);
        pass_on(&mut simulation, 0);
        pass_on(&mut simulation, 1);
        assert_eq!(children(&simulation, 1), served);
        assert_eq!(counter(&simulation, 1, Counter::NoAdditionalSas), refused);
    }
}
