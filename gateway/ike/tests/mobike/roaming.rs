//! The initiator comes to another network while it still has the address of the one that it leaves.

use gateway_ike::io::ChildSpec;

use super::*;

fn specs(simulation: &Simulation, node: usize) -> Vec<&ChildSpec> {
    simulation.nodes[node].kernel.children.values().collect()
}

/// The moves of Child SAs, and whether they were gentle.
fn moves(simulation: &Simulation, node: usize) -> Vec<bool> {
    let history = simulation.nodes[node].kernel.history.iter();
    history.filter(|h| h.starts_with("move child")).map(|h| h.ends_with("gently")).collect()
}

/// Both ends have one Child SA, between these addresses, and it carries traffic.
fn settled(simulation: &mut Simulation, a: IpAddr, installed: u64) {
    assert_eq!(simulation.exchange_traffic(), []);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    assert_eq!((specs(simulation, 0).len(), specs(simulation, 1).len()), (1, 1));
    assert_eq!((esp(simulation, 0), esp(simulation, 1)), ((a, B), (B, a)));
    for node in 0..2 {
        assert_eq!(sa(simulation, node).children.len(), 1);
        assert_eq!(count(simulation, node, Counter::IkeSaEstablished), 1);
        assert_eq!(count(simulation, node, Counter::ChildSaRekeyed), installed);
    }
}

#[test]
fn an_initiator_that_has_both_addresses_goes_gently_and_renews_its_child_sas() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A, A]);
    assert_eq!(moves(&simulation, 0), [true], "before it says so");
    simulation.run(5 * SECOND);
    settled(&mut simulation, OTHER_A, 1);
    assert_eq!(sa(&simulation, 1).mobike, Some(vec![A]), "B knows where A is besides");
    assert!(moves(&simulation, 1).iter().all(|gentle| !gentle), "it sends to another address");
    assert_eq!(specs(&simulation, 0)[0].reached_at, Some(A), "where the peer may send still");
    // The address goes, at last: nothing is left to be done.
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(5 * SECOND);
    settled(&mut simulation, OTHER_A, 1);
    // And what is made from now on is not reached there.
    simulation.readdress(0, &[A, OTHER_A]);
    simulation.run(5 * SECOND);
    settled(&mut simulation, A, 2);
    assert_eq!(specs(&simulation, 0)[0].reached_at, Some(OTHER_A));
}

#[test]
fn an_address_that_goes_before_the_child_sas_are_renewed_is_left_at_once() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[OTHER_A, A]);
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(20 * SECOND);
    settled(&mut simulation, OTHER_A, 1);
    assert_eq!(specs(&simulation, 0)[0].reached_at, None);
}

#[test]
fn routes_that_come_later_than_the_address_are_seen() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &[A, OTHER_A]);
    simulation.run(SECOND / 2);
    assert_eq!(sa(&simulation, 0).path.local.ip(), A, "no route leads by the new one");
    simulation.nodes[0].kernel.addresses = vec![OTHER_A, A];
    simulation.run(3 * SECOND);
    settled(&mut simulation, OTHER_A, 1);
    // It does not ask for ever.
    simulation.run(60 * SECOND);
    simulation.nodes[0].kernel.addresses = vec![A, OTHER_A];
    simulation.run(60 * SECOND);
    settled(&mut simulation, OTHER_A, 1);
}

#[test]
fn who_does_not_choose_stays_while_its_address_does() {
    // The responder; and an initiator whose operator says from where.
    for node in [1, 0] {
        let change = |n, peer| match (n, node) {
            (0, 0) => PeerConfig { local_address: Some(A), ..peer },
            _ => peer,
        };
        let mut simulation = connected(false, change, &[]);
        let (home, other) = [(A, OTHER_A), (B, OTHER_B)][node];
        simulation.readdress(node, &[other, home]);
        simulation.run(20 * SECOND);
        assert_eq!(moves(&simulation, 0), []);
        assert_eq!(moves(&simulation, 1), []);
        still_the_same(&mut simulation);
    }
}
