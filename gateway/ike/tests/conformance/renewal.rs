//! Whole rekeys by either end, their limits (RFC 7296 1.3, 2.8, 2.18), and RFC 6023.

use gateway_ike::algorithms::Group;
use gateway_ike::config::{EndpointConfig, Renewal};
use gateway_ike::io::KernelEvent;

use super::*;

const LIFETIME: Duration = Duration::from_secs(1000);

/// The SPIs of a node's IKE SAs that stand.
fn spis(simulation: &Simulation, node: usize) -> Vec<String> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    let standing = status.ike_sas.iter().filter(|sa| sa.state == "established");
    standing.map(|sa| format!("{} {}", sa.initiator_spi, sa.responder_spi)).collect()
}

fn soft_limit(simulation: &mut Simulation, node: usize) {
    let child = simulation.nodes[node].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(node, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
}

#[test]
fn both_ends_rekey_the_ike_sa_and_go_on_with_new_spis() {
    for by in 0..2 {
        let lifetime = |node| if node == by { LIFETIME } else { Duration::ZERO };
        let a = with_peer(policies_of_a(), |p| p.lifetime = lifetime(0));
        let b = with_peer(policies_of_b(), |p| p.lifetime = lifetime(1));
        let mut simulation = pair(a, b);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        let (before, child) = (spis(&simulation, 0), simulation.nodes[0].kernel.children.clone());
        let sent = simulation.nodes.iter().map(|n| n.sent.len()).collect::<Vec<_>>();
        simulation.run(LIFETIME);
        let after = spis(&simulation, 0);
        assert_eq!(after, spis(&simulation, 1));
        assert_eq!((before.len(), after.len()), (1, 1));
        assert_ne!(before, after);
        assert_eq!(simulation.nodes[0].kernel.children, child, "it has moved as it was");
        for node in 0..2 {
            assert_eq!(counter(&simulation, node, Counter::IkeSaRekeyed), 1);
            assert_eq!(counter(&simulation, node, Counter::IkeSaEstablished), 1);
            assert_eq!(states(&simulation, node), ["established"], "the old keys are gone");
        }
        // Then the Child SA by either end, on the new IKE SA: it begins with number 0.
        for (node, sent) in sent.iter().enumerate() {
            soft_limit(&mut simulation, node);
            simulation.run(MINUTE);
            let new: Vec<_> = simulation.nodes[node].sent[*sent..]
                .iter()
                .map(|(_, octets)| header(octets))
                .filter(|h| format!("{} {}", h.initiator_spi, h.responder_spi) == after[0])
                .filter(|h| !h.flags.response)
                .collect();
            assert_eq!(new.first().map(|h| h.message_id.0), Some(0));
        }
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}

#[test]
fn the_responder_names_the_key_exchange_that_it_wants_for_a_successor_and_gets_it() {
    let with =
        |groups: &'static [Group]| move |p: &mut Protect| p.proposals[0].groups = groups.to_vec();
    let a = with_protect(policies_of_a(), with(&[Group::X25519, Group::EcpP384]));
    let b = with_protect(policies_of_b(), with(&[Group::EcpP384]));
    let mut simulation = pair(a, b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    let groups = |simulation: &Simulation, node: usize| {
        let status = simulation.nodes[node].endpoint.status(simulation.now);
        status.ike_sas[0]
            .children
            .iter()
            .map(|c| c.key_exchange.map(|k| k.group))
            .collect::<Vec<_>>()
    };
    assert_eq!(groups(&simulation, 0), [None], "the first has the key exchange of the IKE SA");
    soft_limit(&mut simulation, 0);
    simulation.run(MINUTE);
    for node in 0..2 {
        assert_eq!(groups(&simulation, node), [Some(Group::EcpP384)]);
    }
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn a_peer_has_no_more_child_sas_than_it_may() {
    let config = EndpointConfig { child_sa_limit: 1, ..EndpointConfig::default() };
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    let net = |text: &str| text.parse().unwrap();
    let more =
        |name, peer, local, remote, start| protect(name, peer, net(local), net(remote), start);
    let b = more("more", "a", "10.4.0.0/24", "10.3.0.0/24", Start::Respond);
    let a = more("more", "b", "10.3.0.0/24", "10.4.0.0/24", Start::OnDemand);
    simulation.configure(1, with_more(policies_of_b(), b));
    simulation.configure(0, with_more(policies_of_a(), a));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation.acquire(0, "more");
    simulation.run(MINUTE);
    assert_eq!(counter(&simulation, 1, Counter::NoAdditionalSas), 1);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
    // It may replace the one that it has, again and again.
    for _ in 0..3 {
        soft_limit(&mut simulation, 0);
        simulation.run(MINUTE);
    }
    assert_eq!(counter(&simulation, 1, Counter::ChildSaRekeyed), 3);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn an_ike_sa_that_nothing_replaces_ends_at_both_ends() {
    // The responder waits for the initiator to prove anew who it is, which has no reason to.
    let b = with_peer(policies_of_b(), |p| {
        (p.lifetime, p.renewal) = (LIFETIME, Renewal::Reauthenticate);
    });
    let mut simulation = pair(policies_of_a(), b);
    simulation.acquire(0, "to-b");
    simulation.run(LIFETIME);
    assert_eq!(states(&simulation, 0), ["established"]);
    simulation.run(LIFETIME / 9);
    for node in 0..2 {
        simulation.run(MINUTE);
        assert_eq!((states(&simulation, node).len(), children(&simulation, node)), (0, 0));
    }
}

#[test]
fn a_responder_says_that_the_first_child_sa_may_be_left_out() {
    let simulation = connected();
    let answer = &simulation.nodes[1].sent[0].1;
    let message = Message::decode(answer).unwrap();
    let childless = notification(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
    assert!(message.payloads.contains(&childless));
}
