//! What happens to SAs that stand: other rules, lifetimes, silence, and the end.

use std::collections::BTreeSet;

use gateway_ike::config::ChildLifetime;

use super::*;

/// The policies of both, each with a second rule.
fn with_more() -> [PolicySet; 2] {
    let mut both = [policies_of_a(), policies_of_b()];
    let mut extra = |node: usize, name: &str, peer: &str, local: &str, remote: &str, start| {
        let rule = protect(name, peer, local.parse().unwrap(), remote.parse().unwrap(), start);
        both[node].rules.insert(name.into(), std::sync::Arc::new(rule));
    };
    extra(0, "more-to-b", "b", "10.10.0.0/24", "10.20.0.0/24", Start::Always);
    extra(1, "more-to-a", "a", "10.20.0.0/24", "10.10.0.0/24", Start::Respond);
    both
}

/// The IKE SAs of a node, by the initiator's SPI.
fn ike_sas(simulation: &Simulation, node: usize) -> Vec<IkeSpi> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    status.ike_sas.iter().map(|sa| sa.initiator_spi).collect()
}

#[test]
fn a_second_rule_gets_its_child_sa_on_the_same_ike_sa() {
    let [a, b] = with_more();
    let mut simulation = connect(policies_of_a(), policies_of_b());
    assert!(simulation.has_one_child_each().unwrap());
    let before = simulation.nodes[0].kernel.children.keys().copied().collect::<Vec<_>>();
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.run(MINUTE);
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    for node in &simulation.nodes {
        assert_eq!(node.kernel.children.len(), 2);
        assert_eq!(node.endpoint.status(simulation.now).ike_sas.len(), 1);
    }
    assert!(
        before.iter().all(|c| simulation.nodes[0].kernel.children.contains_key(c)),
        "the first is not touched"
    );
}

#[test]
fn a_reload_without_changes_touches_nothing() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let (sent, history) =
        (simulation.nodes[0].sent.len(), simulation.nodes[0].kernel.history.clone());
    simulation.configure(0, policies_of_a());
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].sent.len(), sent);
    assert_eq!(
        simulation.nodes[0].kernel.history.len(),
        history.len() + 1,
        "only the classifier is loaded again"
    );
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn a_rule_that_is_gone_takes_its_child_sa_with_it_at_both_ends() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let mut without = policies_of_a();
    without.rules.clear();
    simulation.configure(0, without);
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    assert!(simulation.nodes[0].kernel.traps.is_empty());
    let history = &simulation.nodes[0].kernel.history;
    let position = |what: &str| history.iter().rposition(|h| h.starts_with(what)).unwrap();
    assert!(
        position("classify") < position("remove child"),
        "first the guard, then what it guards"
    );
    assert!(position("remove child") < position("remove trap"));
}

#[test]
fn an_ike_sa_ends_with_the_last_rule_that_needs_it() {
    let [a, b] = with_more();
    let mut simulation = connect(a.clone(), b);
    let before = ike_sas(&simulation, 0);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 2);
    let mut one = a.clone();
    one.rules.remove("to-b");
    simulation.configure(0, one);
    simulation.run(MINUTE);
    for (node, host) in simulation.nodes.iter().enumerate() {
        assert_eq!(host.kernel.children.len(), 1);
        assert_eq!(ike_sas(&simulation, node), before);
    }
    // Two Deletes at once: the second waits for the first, and the IKE SA for both.
    simulation.configure(0, a.clone());
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 2);
    simulation.configure(0, PolicySet { rules: std::collections::BTreeMap::new(), ..a });
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
}

#[test]
fn a_rule_that_is_changed_is_served_again_on_the_same_ike_sa() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let before = ike_sas(&simulation, 0);
    let smaller = with_rule(policies_of_a(), |rule| {
        rule.remote = vec!["10.2.0.0/25".parse().unwrap()];
    });
    simulation.configure(0, smaller);
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(ike_sas(&simulation, 0), before);
}

#[test]
fn a_changed_key_ends_the_ike_sa_and_the_next_uses_the_new_one() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let rekey = |p: &mut gateway_ike::config::PeerConfig| {
        p.local_auth = LocalAuth::Psk(Secret::new(b"new".to_vec()));
        p.remote_auth = RemoteAuth::Psk(Secret::new(b"new".to_vec()));
    };
    simulation.configure(1, with_peer(policies_of_b(), rekey));
    simulation.configure(0, with_peer(policies_of_a(), rekey));
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn shutdown_says_goodbye() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    simulation.input(0, Input::Shutdown);
    assert!(!simulation.nodes[0].endpoint.is_closed(), "the goodbye is not answered yet");
    simulation.run(Duration::from_secs(1));
    assert!(simulation.nodes[0].endpoint.is_closed());
    assert!(simulation.nodes[1].kernel.children.is_empty(), "the peer knows");
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
}

#[test]
fn goodbyes_that_cross_are_both_answered() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    for node in [0, 1] {
        simulation.input(node, Input::Shutdown);
    }
    simulation.run(Duration::from_millis(500));
    for node in [0, 1] {
        assert!(simulation.nodes[node].endpoint.is_closed(), "{node} waits in vain");
        assert_eq!(counter(&simulation, node, Counter::Retransmitted), 0);
    }
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
}

#[test]
fn a_goodbye_waits_for_the_request_that_was_lost_before_it() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    // The question whether the peer lives is lost, and the goodbye comes before it is repeated.
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let sent = simulation.nodes[0].sent.len();
    while simulation.nodes[0].sent.len() == sent {
        simulation.run(Duration::from_millis(100));
    }
    simulation.input(0, Input::Shutdown);
    simulation.network.set_faults(Faults::default());
    simulation.run(Duration::from_secs(5));
    assert!(simulation.nodes[0].endpoint.is_closed());
    assert!(simulation.nodes[1].kernel.children.is_empty(), "the peer knows");
    assert_eq!(counter(&simulation, 1, Counter::OutsideWindow), 0);
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = connect(a, policies_of_b());
    assert!(simulation.has_one_child_each().unwrap());
    let sent = simulation.nodes[0].sent.len();
    assert!(sent > 2, "a minute of silence is broken by questions");
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.run(Duration::from_secs(300));
    assert!(simulation.nodes[0].kernel.children.is_empty());
    assert_eq!(counter(&simulation, 0, Counter::PeerDead), 1);
}

#[test]
fn traffic_counts_as_a_sign_of_life() {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = pair(a, policies_of_b());
    simulation.nodes[0].kernel.idle_inbound = Some(Duration::from_secs(1));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].sent.len(), 2, "no question is needed");
}

#[test]
fn a_peer_that_starts_anew_replaces_what_it_had() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    simulation.crash(0, 99);
    simulation.configure(0, policies_of_a());
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap(), "B holds one Child SA, not two");
}

#[test]
fn a_soft_limit_brings_a_successor_before_the_old_one_goes() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let old = simulation.nodes[0].kernel.children.values().next().unwrap().clone();
    let expire = KernelEvent::Expire { spi: old.inbound.spi, destination: A, hard: false };
    simulation.input(0, Input::Kernel(expire));
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert!(!simulation.nodes[0].kernel.children.contains_key(&old.child));
    let history = &simulation.nodes[0].kernel.history;
    let install = history.iter().rposition(|h| h.starts_with("install child")).unwrap();
    let remove = history.iter().rposition(|h| h.starts_with("remove child")).unwrap();
    assert!(install < remove);
}

#[test]
fn a_hard_limit_ends_the_child_sa_at_both_ends_and_brings_another() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let old = simulation.nodes[0].kernel.children.values().next().unwrap().clone();
    let expire = KernelEvent::Expire { spi: old.outbound.spi, destination: B, hard: true };
    simulation.input(0, Input::Kernel(expire));
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert!(!simulation.nodes[0].kernel.children.contains_key(&old.child));
    assert_eq!(counter(&simulation, 0, Counter::ChildSaExpired), 1);
}

#[test]
fn an_ike_sa_that_has_lived_its_time_is_replaced_before_it_goes() {
    let a = with_peer(policies_of_a(), |p| {
        (p.lifetime, p.renewal) = (Duration::from_secs(30), Renewal::Reauthenticate);
    });
    let mut simulation = connect(a, policies_of_b());
    let id = simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0].id;
    simulation.run(Duration::from_secs(35));
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert!(status.ike_sas.iter().any(|sa| sa.state == "established" && sa.id != id));
    simulation.run(Duration::from_secs(1));
    assert!(simulation.nodes.iter().all(|n| !n.kernel.children.is_empty()));
}

/// Two ends with one limit would otherwise ask for new keys at once, and all Child SAs of a gateway.
#[test]
fn soft_limits_of_octets_and_packets_are_jittered_and_never_higher() {
    let limits = ChildLifetime { time: Duration::ZERO, bytes: 1_000_000, packets: 2000 };
    let limited = |set| with_protect(set, |protect| protect.lifetime = limits);
    let mut found = Vec::new();
    for seed in 1..=20 {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), seed);
        simulation.configure(1, limited(policies_of_b()));
        simulation.configure(0, limited(policies_of_a()));
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        let installed = simulation.nodes.iter().flat_map(|n| n.kernel.children.values());
        found.extend(installed.map(|child| (child.lifetime.bytes, child.lifetime.packets)));
    }
    assert_eq!(found.len(), 40);
    assert!(found.iter().all(|(bytes, _)| (900_000..=1_000_000).contains(bytes)), "{found:?}");
    assert!(found.iter().all(|(_, packets)| (1800..=2000).contains(packets)), "{found:?}");
    // Of each, hardly any two are alike, and both ends of a pair have others.
    let bytes: BTreeSet<_> = found.iter().map(|(bytes, _)| bytes).collect();
    let packets: BTreeSet<_> = found.iter().map(|(_, packets)| packets).collect();
    assert!(bytes.len() > 30 && packets.len() > 20, "{found:?}");
}
