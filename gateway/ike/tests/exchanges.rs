//! The exchanges one by one, on a good network: what each leaves in both kernels, and what
//! happens when something is wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::algorithms::{Encryption, Group, Integrity, Prf};
use gateway_ike::config::{
    Action, Identity, LocalAuth, Mode, PolicySet, RemoteAuth, Renewal, Secret, Start,
};
use gateway_ike::counters::Counter;
use gateway_ike::event::EventKind;
use gateway_ike::io::{KernelError, KernelEvent};
use gateway_ike::testing::{Faults, Refusal, Simulation, peer, policies, protect};
use gateway_ike::{Input, Output};
use gateway_wire::{Header, IkeSpi, NotifyType, Payload};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);

fn policies_of_a() -> PolicySet {
    let rule = protect(
        "to-b",
        "b",
        "10.1.0.0/24".parse().unwrap(),
        "10.2.0.0/24".parse().unwrap(),
        Start::OnDemand,
    );
    policies(vec![peer("b", "a.test", "b.test", Some(B))], vec![rule])
}

fn policies_of_b() -> PolicySet {
    let rule = protect(
        "to-a",
        "a",
        "10.2.0.0/24".parse().unwrap(),
        "10.1.0.0/24".parse().unwrap(),
        Start::Respond,
    );
    policies(vec![peer("a", "b.test", "a.test", Some(A))], vec![rule])
}

/// Two hosts on a good network with these policies.
fn pair(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation
}

fn connect(a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = pair(a, b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn established(simulation: &Simulation) -> bool {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
}

/// Changes the one peer of some policies.
fn with_peer(
    mut policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::PeerConfig),
) -> PolicySet {
    for peer in policies.peers.values_mut() {
        change(std::sync::Arc::make_mut(peer));
    }
    policies
}

/// Changes the one rule of some policies.
fn with_rule(
    mut policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::Rule),
) -> PolicySet {
    for rule in policies.rules.values_mut() {
        change(std::sync::Arc::make_mut(rule));
    }
    policies
}

fn with_protect(
    policies: PolicySet,
    change: impl Fn(&mut gateway_ike::config::Protect),
) -> PolicySet {
    with_rule(policies, |rule| {
        if let Action::Protect(protect) = &mut rule.action {
            change(protect);
        }
    })
}

fn has_event(simulation: &Simulation, node: usize, is: impl Fn(&EventKind) -> bool) -> bool {
    simulation.nodes[node].events.iter().any(|e| is(&e.kind))
}

#[test]
fn an_acquire_brings_up_both_sas_in_four_messages() {
    let simulation = connect(policies_of_a(), policies_of_b());
    assert!(established(&simulation));
    assert_eq!(simulation.nodes[0].sent.len(), 2, "IKE_SA_INIT and IKE_AUTH");
    assert_eq!(simulation.nodes[1].sent.len(), 2);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.acquire_seq, Some(1), "the kernel's larval state is named");
    assert_eq!(child.encapsulation, None);
}

#[test]
fn without_nat_ports_stay_500_and_behind_nat_they_move_to_4500() {
    let direct = connect(policies_of_a(), policies_of_b());
    assert!(direct.nodes[0].sent.iter().all(|(path, _)| path.remote.port() == 500));

    let any_a = with_peer(policies_of_b(), |p| p.remote_address = None);
    let mut behind_nat = pair(policies_of_a(), any_a);
    behind_nat.network.translate(A, IpAddr::from([198, 51, 100, 1]));
    behind_nat.acquire(0, "to-b");
    behind_nat.run(MINUTE);
    assert!(established(&behind_nat));
    let (path, _) = behind_nat.nodes[0].sent.last().unwrap();
    assert_eq!((path.local.port(), path.remote.port()), (4500, 4500));
    let at_b = behind_nat.nodes[1].kernel.children.values().next().unwrap();
    let encapsulation = at_b.encapsulation.unwrap();
    assert_eq!(encapsulation.local_port, 4500);
    assert!(encapsulation.remote_port > 40_000, "the port that the NAT shows");
    assert_eq!(at_b.outbound.destination, IpAddr::from([198, 51, 100, 1]));
}

#[test]
fn every_suite_is_negotiated_when_both_ends_have_only_it() {
    for encryption in Encryption::ALL {
        for integrity in Integrity::ALL {
            for prf in Prf::ALL {
                let integrity = if encryption.is_aead() { Vec::new() } else { vec![*integrity] };
                let change_peer = |p: &mut gateway_ike::config::PeerConfig| {
                    p.proposals[0].encryption = vec![*encryption];
                    p.proposals[0].integrity.clone_from(&integrity);
                    p.proposals[0].prf = vec![*prf];
                };
                let change_rule = |p: &mut gateway_ike::config::Protect| {
                    p.proposals[0].encryption = vec![*encryption];
                    p.proposals[0].integrity.clone_from(&integrity);
                };
                let a = with_protect(with_peer(policies_of_a(), change_peer), change_rule);
                let b = with_protect(with_peer(policies_of_b(), change_peer), change_rule);
                let simulation = connect(a, b);
                assert!(established(&simulation), "{encryption} {prf}");
                let status = simulation.nodes[0].endpoint.status(simulation.now);
                assert_eq!(status.ike_sas[0].suite.unwrap().encryption, *encryption);
                assert_eq!(status.ike_sas[0].children[0].suite.encryption, *encryption);
            }
        }
    }
}

#[test]
fn the_responder_names_the_group_that_it_wants_and_gets_it() {
    let a =
        with_peer(policies_of_a(), |p| p.proposals[0].groups = vec![Group::X25519, Group::EcpP384]);
    let b = with_peer(policies_of_b(), |p| p.proposals[0].groups = vec![Group::EcpP384]);
    let simulation = connect(a, b);
    assert!(established(&simulation));
    assert_eq!(simulation.nodes[0].sent.len(), 3, "one IKE_SA_INIT more");
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::OtherGroup(_))));
}

#[test]
fn a_group_that_we_did_not_offer_is_not_taken_over_from_an_unauthenticated_demand() {
    let a = with_peer(policies_of_a(), |p| p.proposals[0].groups = vec![Group::X25519]);
    let b = with_peer(policies_of_b(), |p| p.proposals[0].groups = vec![Group::EcpP384]);
    let simulation = connect(a, b);
    assert!(!established(&simulation));
    assert!(counter(&simulation, 1, Counter::NoProposalChosen) > 0);
}

#[test]
fn a_wrong_key_is_refused_by_the_responder_and_nothing_is_left() {
    let a = with_peer(policies_of_a(), |p| {
        p.local_auth = LocalAuth::Psk(Secret::new(b"another".to_vec()))
    });
    let mut simulation = connect(a, policies_of_b());
    assert!(!established(&simulation));
    assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), 1);
    assert_eq!(counter(&simulation, 0, Counter::AuthenticationFailed), 1);
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert!(status.rules[0].last_error.as_ref().unwrap().contains("AUTHENTICATION_FAILED"));
}

#[test]
fn an_unknown_identity_is_refused() {
    let a = with_peer(policies_of_a(), |p| p.local_id = Identity::Fqdn("mallory.test".to_owned()));
    let simulation = connect(a, policies_of_b());
    assert!(!established(&simulation));
    assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), 1);
}

#[test]
fn a_responder_with_the_wrong_identity_is_told_so() {
    // B believes that it may call itself what A calls it; its own configuration says otherwise
    // for what it sends.
    let a = with_peer(policies_of_a(), |p| p.remote_id = Identity::Fqdn("c.test".to_owned()));
    let simulation = connect(a, policies_of_b());
    assert!(!established(&simulation));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

#[test]
fn identities_compare_without_regard_to_case() {
    let a = with_peer(policies_of_a(), |p| p.local_id = Identity::Fqdn("A.TEST".to_owned()));
    assert!(established(&connect(a, policies_of_b())));
}

#[test]
fn the_responder_narrows_to_its_own_rule() {
    let a = with_rule(policies_of_a(), |r| r.remote = vec!["10.0.0.0/8".parse().unwrap()]);
    let simulation = connect(a, policies_of_b());
    assert!(established(&simulation));
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.selectors[0].0.remote, "10.2.0.0/24".parse().unwrap());
}

#[test]
fn selectors_that_no_rule_covers_are_refused_and_the_ike_sa_stands() {
    let a = with_rule(policies_of_a(), |r| r.remote = vec!["172.16.0.0/12".parse().unwrap()]);
    let simulation = connect(a, policies_of_b());
    assert!(!established(&simulation));
    assert_eq!(counter(&simulation, 1, Counter::TsUnacceptable), 1);
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].state, "established");
    assert!(status.rules[0].last_error.as_ref().unwrap().contains("TS_UNACCEPTABLE"));
}

#[test]
fn esp_without_a_common_proposal_is_refused_and_the_ike_sa_stands() {
    let a = with_protect(policies_of_a(), |p| {
        p.proposals[0].encryption = vec![Encryption::ChaCha20Poly1305]
    });
    let simulation = connect(a, policies_of_b());
    assert!(!established(&simulation));
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].state, "established");
    assert!(simulation.nodes[1].endpoint.is_empty() || !status.ike_sas.is_empty());
}

#[test]
fn transport_mode_needs_both_ends() {
    let transport = |p: PolicySet, local: IpAddr, remote: IpAddr| {
        let p = with_rule(p, |r| {
            r.local = vec![local.into()];
            r.remote = vec![remote.into()];
        });
        with_protect(p, |p| p.mode = Mode::Transport)
    };
    let simulation = connect(transport(policies_of_a(), A, B), transport(policies_of_b(), B, A));
    assert!(established(&simulation));
    assert_eq!(simulation.nodes[1].kernel.children.values().next().unwrap().mode, Mode::Transport);

    let tunnel_b = with_protect(transport(policies_of_b(), B, A), |p| p.mode = Mode::Tunnel);
    let mixed = connect(transport(policies_of_a(), A, B), tunnel_b);
    assert!(
        mixed.nodes.iter().all(|n| n.kernel.children.is_empty()),
        "nobody gets another mode than the rule's"
    );
}

#[test]
fn the_answer_waits_for_the_kernel_and_a_refusal_leaves_the_ike_sa() {
    for (node, partner) in [(0, 1), (1, 0)] {
        let mut simulation = pair(policies_of_a(), policies_of_b());
        let refusal = Refusal::Error(KernelError::Unsupported("gcm(aes)".to_owned()));
        simulation.nodes[node].kernel.refusals.push_back(refusal);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert!(simulation.nodes[node].kernel.children.is_empty());
        assert!(
            simulation.nodes[partner].kernel.children.is_empty(),
            "the other end holds nothing either"
        );
        assert_eq!(simulation.violations(), Vec::<String>::new());
        assert_eq!(counter(&simulation, node, Counter::ChildSaFailed), 1);
        let status = simulation.nodes[0].endpoint.status(simulation.now);
        assert_eq!(status.ike_sas[0].state, "established");
    }
}

#[test]
fn no_answer_leaves_before_the_kernel_has_spoken() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    // Up to the moment in which B is about to install: run A's side and take B by hand.
    let now = simulation.now;
    let request = simulation.nodes[0].sent[0].clone();
    let path = gateway_ike::io::Path { local: request.0.remote, remote: request.0.local };
    let b = &mut simulation.nodes[1];
    b.endpoint.handle(now, Input::Datagram { path, octets: &request.1 });
    let answer = loop {
        match b.endpoint.poll_output().expect("an answer to IKE_SA_INIT") {
            Output::Transmit { octets, .. } => break octets,
            Output::Kernel(..) | Output::Event(_) | Output::Keepalive { .. } => {}
        }
    };
    while b.endpoint.poll_output().is_some() {}
    let back = gateway_ike::io::Path { local: path.remote, remote: path.local };
    simulation.input(0, Input::Datagram { path: back, octets: &answer });
    let auth = simulation.nodes[0].sent[1].1.clone();
    let b = &mut simulation.nodes[1];
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    let mut commands = Vec::new();
    while let Some(output) = b.endpoint.poll_output() {
        match output {
            Output::Transmit { .. } => panic!("answered before the kernel has the SA"),
            Output::Kernel(id, command) => commands.push((id, command)),
            Output::Event(_) | Output::Keepalive { .. } => {}
        }
    }
    let [(id, command)] = <[_; 1]>::try_from(commands).unwrap();
    // The same request again changes nothing.
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    assert!(b.endpoint.poll_output().is_none());
    let result = b.kernel.execute(command).unwrap();
    b.endpoint.handle(now, Input::CommandDone(id, result));
    let sent = std::iter::from_fn(|| b.endpoint.poll_output())
        .filter(|o| matches!(o, Output::Transmit { .. }))
        .count();
    assert_eq!(sent, 1);
    // And now it gets the same answer.
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    assert!(matches!(b.endpoint.poll_output(), Some(Output::Transmit { .. })));
}

#[test]
fn a_kernel_that_never_answers_costs_the_child_sa_only() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.nodes[1].kernel.refusals.push_back(Refusal::Silence);
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(4));
    assert_eq!(simulation.nodes[1].sent.len(), 1, "the answer to IKE_AUTH is withheld");
    simulation.run(Duration::from_secs(2));
    assert_eq!(simulation.nodes[1].sent.len(), 2, "and then says that there is no Child SA");
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].state, "established");
    assert!(status.rules[0].last_error.as_ref().unwrap().contains("NO_PROPOSAL_CHOSEN"));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

#[test]
fn a_second_rule_gets_its_child_sa_on_the_same_ike_sa() {
    let mut a = policies_of_a();
    let mut b = policies_of_b();
    let extra =
        |policies: &mut PolicySet, name: &str, peer: &str, local: &str, remote: &str, start| {
            let rule = protect(name, peer, local.parse().unwrap(), remote.parse().unwrap(), start);
            policies.rules.insert(name.into(), std::sync::Arc::new(rule));
        };
    let mut simulation = connect(a.clone(), b.clone());
    assert!(established(&simulation));
    let before = simulation.nodes[0].kernel.children.keys().copied().collect::<Vec<_>>();
    extra(&mut b, "more-to-a", "a", "10.20.0.0/24", "10.10.0.0/24", Start::Respond);
    extra(&mut a, "more-to-b", "b", "10.10.0.0/24", "10.20.0.0/24", Start::Always);
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
    assert!(established(&simulation));
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
    assert!(established(&simulation));
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
    assert!(established(&simulation));
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
    assert!(established(&simulation), "B holds one Child SA, not two");
}

#[test]
fn a_soft_limit_brings_a_successor_before_the_old_one_goes() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let old = simulation.nodes[0].kernel.children.values().next().unwrap().clone();
    let expire = KernelEvent::Expire { spi: old.inbound.spi, destination: A, hard: false };
    simulation.input(0, Input::Kernel(expire));
    simulation.run(MINUTE);
    assert!(established(&simulation));
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
    assert!(established(&simulation));
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

#[test]
fn a_forged_message_leaves_no_trace() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    let before = simulation.nodes[1].endpoint.status(simulation.now);
    let (path, genuine) = simulation.nodes[0].sent[1].clone();
    let to_b = gateway_ike::io::Path { local: path.remote, remote: path.local };
    // The next request in the window, with a body that nobody has the keys for.
    let mut forged = genuine;
    forged[23] = 2;
    forged[18] = 37;
    for sent in [&forged[..], &forged[..40], &[], &[0; 28]] {
        simulation.input(1, Input::Datagram { path: to_b, octets: sent });
    }
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now), before);
    assert!(counter(&simulation, 1, Counter::NotAuthentic) > 0);
    assert_eq!(simulation.nodes[1].sent.len(), 2, "and no answer");
}

#[test]
fn an_unauthenticated_error_does_not_stop_the_initiator() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    let (header, ..) = Header::decode(&request).unwrap();
    let mut answer = header;
    answer.flags.response = true;
    answer.flags.initiator = false;
    let refusal = Payload::Notify(gateway_wire::Notify {
        protocol: gateway_wire::ProtocolId::NONE,
        spi: &[],
        kind: NotifyType::NO_PROPOSAL_CHOSEN,
        data: &[],
    });
    let forged = gateway_wire::encode_message(&answer, &[refusal]).unwrap();
    simulation.input(0, Input::Datagram { path, octets: &forged });
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::UnauthenticatedError(_))));
    simulation.run(MINUTE);
    assert!(established(&simulation));
}

#[test]
fn cookies_are_demanded_above_the_threshold_and_cost_one_round_trip() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    // Half-open SAs from many addresses that never go on.
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    for n in 0..200_u8 {
        let mut other = request.clone();
        other[..8].copy_from_slice(&IkeSpi([n + 1; 8]).0);
        let flood = gateway_ike::io::Path {
            local: path.remote,
            remote: std::net::SocketAddr::new(A, 1000 + u16::from(n)),
        };
        simulation.input(1, Input::Datagram { path: flood, octets: &other });
    }
    assert!(counter(&simulation, 1, Counter::CookieDemanded) > 100);
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 64);
    simulation.run(Duration::from_secs(20));
    assert!(established(&simulation), "who returns the cookie gets in");
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::CookieReceived)));
    // Without IKE_AUTH the flood is forgotten, and cookies with it.
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 0);
    assert!(has_event(&simulation, 1, |e| matches!(e, EventKind::CookieMode(false))));
}

#[test]
fn other_versions_are_answered_counted_and_named() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    let (path, request) = simulation.nodes[0].sent[0].clone();
    let to_b = gateway_ike::io::Path { local: path.remote, remote: path.local };
    let before = simulation.nodes[1].sent.len();
    let mut first = request.clone();
    first[17] = 0x10;
    first[18] = 2; // Identity Protection, "main mode"
    simulation.input(1, Input::Datagram { path: to_b, octets: &first });
    assert_eq!(counter(&simulation, 1, Counter::IkeV1), 1);
    let named = simulation.nodes[1].events.iter().any(|e| {
        e.to_string().contains("peer speaks IKEv1") || e.to_string().contains("Peer speaks IKEv1")
    });
    assert!(named);
    let mut third = request;
    third[17] = 0x30;
    simulation.input(1, Input::Datagram { path: to_b, octets: &third });
    assert_eq!(counter(&simulation, 1, Counter::LaterVersion), 1);
    assert_eq!(simulation.nodes[1].sent.len(), before + 2);
    for (_, answer) in &simulation.nodes[1].sent[before..] {
        let message = gateway_wire::Message::decode(answer).unwrap();
        let Payload::Notify(notify) = &message.payloads[0] else { panic!("a notification") };
        assert_eq!(notify.kind, NotifyType::INVALID_MAJOR_VERSION);
        assert!(message.header.flags.response);
    }
}

/// An SPI that the kernel has of somebody else is not the end of the Child SA.
#[test]
fn an_spi_that_is_taken_in_the_kernel_is_replaced_by_another() {
    let taken = || Refusal::Error(KernelError::SpiInUse);
    for node in 0..2 {
        for (times, served) in [(1, true), (3, true), (5, false)] {
            let mut simulation = pair(policies_of_a(), policies_of_b());
            simulation.nodes[node].kernel.refusals.extend((0..times).map(|_| taken()));
            simulation.acquire(0, "to-b");
            simulation.run(Duration::from_secs(20));
            let tries = counter(&simulation, node, Counter::SpiTaken);
            assert_eq!(
                tries,
                if served {
                    times
                } else if node == 0 {
                    4
                } else {
                    3
                }
            );
            assert_eq!(established(&simulation), served, "node {node}, {times}");
            // The responder's peer hears of one SPI only; the initiator's has one deleted.
            let failed = counter(&simulation, 1 - node, Counter::ChildSaRemoved);
            assert_eq!(failed, if node == 0 { tries } else { 0 });
        }
    }
}
