//! What the two ends agree on in the initial exchanges, and what they refuse.

use super::*;

#[test]
fn an_acquire_brings_up_both_sas_in_four_messages() {
    let simulation = connect(policies_of_a(), policies_of_b());
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[0].sent.len(), 2, "IKE_SA_INIT and IKE_AUTH");
    assert_eq!(simulation.nodes[1].sent.len(), 2);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.encapsulation, None);
    assert_eq!(forgotten(&simulation), 1, "the kernel may tell of the next packet");
}

fn forgotten(simulation: &Simulation) -> usize {
    let kernel = &simulation.nodes[0].kernel;
    let reqid = kernel.traps.values().find(|trap| &*trap.rule == "to-b").unwrap().reqid;
    let forget = format!("forget acquire {reqid}");
    kernel.history.iter().filter(|told| **told == forget).count()
}

/// As long as the kernel remembers an acquire it raises no other for the trap, and a peer may have
/// narrowed the Child SA to less than that has.
#[test]
fn what_asks_for_a_child_sa_that_stands_does_not_keep_others_from_asking() {
    let mut simulation = connect(policies_of_a(), policies_of_b());
    // It met the trap while the policies of the Child SA were being installed.
    simulation.acquire(0, "to-b");
    assert_eq!(forgotten(&simulation), 2);
    // Whatever its kernel thinks of it, that is not one with each packet.
    simulation.acquire(0, "to-b");
    assert_eq!(forgotten(&simulation), 2);
    // The peer was first, while a packet had asked already.
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(1, "to-a");
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(simulation.nodes[0].kernel.traps.len(), 1);
    assert!(forgotten(&simulation) > 0);
}

/// What sends is found by the kernel through its request ID alone where it has several pairs.
#[test]
fn what_receives_has_the_reqid_of_the_rule_and_what_sends_one_of_its_own() {
    let simulation = connect(policies_of_a(), policies_of_b());
    for node in &simulation.nodes {
        let trap = node.kernel.traps.values().next().unwrap();
        let child = node.kernel.children.values().next().unwrap();
        assert_eq!(child.inbound.reqid, trap.reqid);
        assert_ne!(child.outbound.reqid, trap.reqid);
    }
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
    assert!(behind_nat.has_one_child_each().unwrap());
    let (path, _) = behind_nat.nodes[0].sent.last().unwrap();
    assert_eq!((path.local.port(), path.remote.port()), (4500, 4500));
    let at_b = behind_nat.nodes[1].kernel.children.values().next().unwrap();
    let encapsulation = at_b.encapsulation.unwrap();
    assert_eq!(encapsulation.local_port, 4500);
    assert!(encapsulation.remote_port > 40_000, "the port that the NAT shows");
    assert_eq!(at_b.outbound.destination, IpAddr::from([198, 51, 100, 1]));
}

#[test]
fn a_child_sa_is_quantum_safe_by_its_own_key_exchange_too() {
    let rounds = |policies| {
        with_protect(policies, |protect| {
            protect.proposals[0].groups = vec![Group::X25519];
            protect.proposals[0].additional =
                [(gateway_ike::algorithms::Round::Ke1, vec![Some(Group::MlKem768)])].into();
        })
    };
    let classic = |policies| {
        with_peer(policies, |peer| {
            for proposal in &mut peer.proposals {
                (proposal.groups, proposal.additional) = (vec![Group::X25519], [].into());
            }
        })
    };
    let (a, b) = (rounds(classic(policies_of_a())), rounds(classic(policies_of_b())));
    let mut simulation = connect(a, b);
    let safe = |simulation: &Simulation| {
        let sa = &simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0];
        (sa.quantum_safe, sa.children.iter().map(|c| c.quantum_safe).collect::<Vec<_>>())
    };
    assert_eq!(safe(&simulation), (Some(false), vec![false]));
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(0, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
    simulation.run(MINUTE);
    assert_eq!(safe(&simulation), (Some(false), vec![true]));
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
                assert!(simulation.has_one_child_each().unwrap(), "{encryption} {prf}");
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
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[0].sent.len(), 3, "one IKE_SA_INIT more");
    assert!(has_event(&simulation, 0, |e| matches!(e, EventKind::OtherGroup(_))));
}

#[test]
fn a_group_that_we_did_not_offer_is_not_taken_over_from_an_unauthenticated_demand() {
    let a = with_peer(policies_of_a(), |p| p.proposals[0].groups = vec![Group::X25519]);
    let b = with_peer(policies_of_b(), |p| p.proposals[0].groups = vec![Group::EcpP384]);
    let simulation = connect(a, b);
    assert!(!simulation.has_one_child_each().unwrap());
    assert!(counter(&simulation, 1, Counter::NoProposalChosen) > 0);
}

#[test]
fn a_wrong_key_is_refused_by_the_responder_and_nothing_is_left() {
    let a = with_peer(policies_of_a(), |p| {
        p.local_auth = LocalAuth::Psk(Secret::new(b"another".to_vec()))
    });
    let mut simulation = connect(a, policies_of_b());
    assert!(!simulation.has_one_child_each().unwrap());
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
    assert!(!simulation.has_one_child_each().unwrap());
    assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), 1);
}

#[test]
fn a_responder_with_the_wrong_identity_is_told_so() {
    // B believes that it may call itself what A calls it; its own configuration says otherwise
    // for what it sends.
    let a = with_peer(policies_of_a(), |p| p.remote_id = Identity::Fqdn("c.test".to_owned()));
    let simulation = connect(a, policies_of_b());
    assert!(!simulation.has_one_child_each().unwrap());
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

#[test]
fn identities_compare_without_regard_to_case() {
    let a = with_peer(policies_of_a(), |p| p.local_id = Identity::Fqdn("A.TEST".to_owned()));
    assert!(connect(a, policies_of_b()).has_one_child_each().unwrap());
}

#[test]
fn the_responder_narrows_to_its_own_rule() {
    let a = with_rule(policies_of_a(), |r| r.remote = vec!["10.0.0.0/8".parse().unwrap()]);
    let simulation = connect(a, policies_of_b());
    assert!(simulation.has_one_child_each().unwrap());
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    assert_eq!(child.selectors[0].0.remote, "10.2.0.0/24".parse().unwrap());
}

#[test]
fn selectors_that_no_rule_covers_are_refused_and_the_ike_sa_stands() {
    let a = with_rule(policies_of_a(), |r| r.remote = vec!["172.16.0.0/12".parse().unwrap()]);
    let simulation = connect(a, policies_of_b());
    assert!(!simulation.has_one_child_each().unwrap());
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
    assert!(!simulation.has_one_child_each().unwrap());
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
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[1].kernel.children.values().next().unwrap().mode, Mode::Transport);

    let tunnel_b = with_protect(transport(policies_of_b(), B, A), |p| p.mode = Mode::Tunnel);
    let mixed = connect(transport(policies_of_a(), A, B), tunnel_b);
    assert!(
        mixed.nodes.iter().all(|n| n.kernel.children.is_empty()),
        "nobody gets another mode than the rule's"
    );
}
