//! What a user has, and what ends it: by whatever name it calls itself, it is one of the policy's.

use super::*;

#[test]
fn a_user_that_is_gone_or_has_another_password_is_put_out() {
    for change in [None, Some("another")] {
        let mut simulation = connect(&Plan::default());
        assert!(simulation.has_one_child_each().unwrap());
        let mut set = policies_of_b(&Plan::default());
        set.users.remove("bob");
        simulation.configure(1, set.clone());
        assert!(simulation.has_one_child_each().unwrap(), "another user's going does no harm");
        set.users.remove("alice");
        if let Some(password) = change {
            let user = User { name: "alice".into(), password: secret(password) };
            set.users.insert("alice".into(), Arc::new(user));
        }
        simulation.configure(1, set);
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    }
}

#[test]
fn two_users_share_one_configuration_and_do_not_displace_each_other() {
    let mut simulation = Simulation::new(&[A, B, C], Faults::default(), 1);
    let bob = Plan { name: "bob", password: "battery staple", ..Plan::default() };
    simulation.configure(1, policies_of_b(&Plan::default()));
    simulation.configure(0, policies_of_a(&Plan::default()));
    let mut of_bob = policies_of_a(&bob);
    for rule in of_bob.rules.values_mut() {
        Arc::make_mut(rule).local = vec!["10.3.0.0/24".parse().unwrap()];
    }
    simulation.configure(2, of_bob);
    for node in [0, 2] {
        simulation.acquire(node, "to-b");
        simulation.run(MINUTE);
    }
    let status = simulation.nodes[1].endpoint.status(simulation.now);
    let users: Vec<_> = status.ike_sas.iter().filter_map(|sa| sa.user.as_deref()).collect();
    assert_eq!(users, ["alice", "bob"]);
    assert_eq!(simulation.nodes[1].kernel.children.len(), 2);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

/// They have one address here, and what is meant for one of them would go to the other.
#[test]
fn of_two_users_behind_one_nat_the_second_is_refused_transport_mode_for_the_same_traffic() {
    let nat: IpAddr = [198, 51, 100, 1].into();
    let mut simulation = Simulation::new(&[A, B, C], Faults::default(), 1);
    simulation.network.translate(A, nat);
    simulation.network.translate_too(C);
    let between = |mut set: PolicySet, local: IpAddr, remote: IpAddr, port: u16| {
        for rule in set.rules.values_mut().map(Arc::make_mut) {
            (rule.local, rule.remote) = (vec![local.into()], vec![remote.into()]);
            (rule.protocol, rule.local_ports) = (Some(17), port..=port);
            let Action::Protect(protect) = &mut rule.action else { continue };
            protect.mode = Mode::Transport;
        }
        set
    };
    let bob = Plan { name: "bob", password: "battery staple", ..Plan::default() };
    let mut of_b = between(policies_of_b(&Plan::default()), B, nat, 7);
    for rule in of_b.rules.values_mut() {
        Arc::make_mut(rule).local_ports = 0..=u16::MAX;
    }
    simulation.configure(1, of_b);
    simulation.configure(0, between(policies_of_a(&Plan::default()), A, B, 7));
    simulation.configure(2, between(policies_of_a(&bob), C, B, 7));
    for node in [0, 2] {
        simulation.acquire(node, "to-b");
        simulation.run(MINUTE);
    }
    let counts = simulation.nodes.iter().map(|node| node.kernel.children.len());
    assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 0]);
    let mut events = simulation.nodes[1].events.iter();
    assert!(events.any(|e| e.to_string().contains("another client at the same address")));
    // It is free again when the first is gone.
    simulation.configure(0, PolicySet::default());
    simulation.run(MINUTE);
    simulation.acquire(2, "to-b");
    simulation.run(MINUTE);
    let counts = simulation.nodes.iter().map(|node| node.kernel.children.len());
    assert_eq!(counts.collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn a_user_who_starts_anew_replaces_what_was_there() {
    let mut simulation = connect(&Plan::default());
    let fresh = Simulation::new(&[A, B], Faults::default(), 99);
    simulation.nodes[0] = fresh.nodes.into_iter().next().unwrap();
    simulation.configure(0, policies_of_a(&Plan::default()));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap(), "B holds one Child SA, not two");
}

/// A domain before the name, as Windows has it, and characters that are not printed as they are.
#[test]
fn a_user_is_one_whatever_it_calls_itself() {
    let named = |name| Plan { name, ask: true, ..Plan::default() };
    let with = |plan: &Plan| {
        let mut set = policies_of_b(plan);
        let user = User { name: "o'brien@x".into(), password: secret("correct horse") };
        set.users.insert("o'brien@x".into(), Arc::new(user));
        set
    };
    for (first, second, user) in [
        ("ACME\\alice", "1\\alice", "alice"),
        ("alice", "2\\alice", "alice"),
        ("o'brien@x", "ACME\\o'brien@x", "o'brien@x"),
    ] {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
        simulation.configure(1, with(&named(first)));
        for (name, seed) in [(first, 1), (second, 99)] {
            // The second has started anew.
            let fresh = Simulation::new(&[A, B], Faults::default(), seed);
            simulation.nodes[0] = fresh.nodes.into_iter().next().unwrap();
            simulation.configure(0, policies_of_a(&named(name)));
            simulation.acquire(0, "to-b");
            simulation.run(MINUTE);
            assert!(simulation.has_one_child_each().unwrap(), "{name}: B holds one Child SA");
            let status = simulation.nodes[1].endpoint.status(simulation.now);
            let users: Vec<_> = status.ike_sas.iter().filter_map(|sa| sa.user.as_deref()).collect();
            assert_eq!(users, [user], "{name}");
        }
        let mut set = with(&named(second));
        set.users.remove(user);
        simulation.configure(1, set);
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "{user} is gone");
    }
}
