//! What seeds of `operations` have found, each told in a few steps.

use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{Action, Mode, PeerConfig, PolicySet, Rule, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::KernelEvent;
use gateway_ike::testing::{Faults, NodeId, Simulation, peer, policies, protect};

use crate::plan::OTHERS;
use crate::{A, B, NAT};

const SECOND: Duration = Duration::from_secs(1);

/// Two ends with one Child SA that A wants to have always.
fn pair(change: impl Fn(&mut PeerConfig), mode: Mode, nat: bool) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    if nat {
        simulation.network.translate(A, NAT);
    }
    for (node, addresses) in [(1, vec![B, OTHERS[1][0]]), (0, vec![A])] {
        simulation.readdress(node, &addresses);
        simulation.configure(node, policies_of(node, &change, mode));
    }
    simulation.run(SECOND);
    assert_eq!(simulation.exchange_traffic(), []);
    simulation
}

fn policies_of(node: NodeId, change: impl Fn(&mut PeerConfig), mode: Mode) -> PolicySet {
    let (us, them, remote) =
        if node == 0 { ("a.test", "b.test", Some(B)) } else { ("b.test", "a.test", None) };
    let mut other = peer("other", us, them, remote);
    change(&mut other);
    let nets = match mode {
        Mode::Tunnel => ["10.1.0.0/24", "10.2.0.0/24"].map(|net| net.parse().unwrap()),
        Mode::Transport => [A.into(), B.into()],
    };
    let start = if node == 0 { Start::Always } else { Start::Respond };
    let mut rule: Rule = protect("rule", "other", nets[node], nets[1 - node], start);
    if let Action::Protect(protect) = &mut rule.action {
        protect.mode = mode;
    }
    policies(vec![other], vec![rule])
}

/// The youngest Child SA of a node is to be replaced.
fn rekey(simulation: &mut Simulation, node: NodeId) {
    let child = simulation.nodes[node].kernel.children.values().last().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    let event = KernelEvent::Expire { spi, destination, hard: false };
    simulation.input(node, Input::Kernel(event));
}

fn agreed_and_then_nothing_left(mut simulation: Simulation) {
    assert_eq!(simulation.exchange_traffic(), []);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    assert_eq!(simulation.wind_up(), Ok(()));
}

/// A asks for a successor, in vain until it tries B's other address. The answer from there moves the
/// IKE SA, and with that the Child SA in transport mode has to be deleted. That request was begun
/// before the answer had been read, which was then taken for the one to the Delete: what it had
/// agreed to was forgotten, with its SPI.
#[test]
fn what_an_answer_brings_about_on_its_way_waits_until_it_has_been_read() {
    let mut simulation = pair(|peer| peer.mobike = true, Mode::Transport, false);
    simulation.network.cut_off(B);
    rekey(&mut simulation, 0);
    simulation.run(30 * SECOND);
    let moved = simulation.nodes[0].endpoint.counters().value(Counter::PathChanged);
    assert_eq!(moved, 1, "the answer has come from elsewhere");
    assert_eq!(simulation.violations(), Vec::<String>::new());
    agreed_and_then_nothing_left(simulation);
}

/// With MOBIKE only A can find out that its NAT has mapped it anew, when it checks whether B lives.
/// Whoever rekeyed more often than that never did, and got no ESP.
#[test]
fn a_new_mapping_is_found_out_by_who_rekeys_more_often_than_it_checks_the_peer() {
    let rekeys = |peer: &mut PeerConfig| {
        peer.mobike = true;
        (peer.lifetime, peer.liveness_interval) = (20 * SECOND, 30 * SECOND);
    };
    let mut simulation = pair(rekeys, Mode::Tunnel, true);
    simulation.network.rebind(None);
    assert_eq!(simulation.exchange_traffic().len(), 1, "B sends to where A was");
    simulation.run(60 * SECOND);
    agreed_and_then_nothing_left(simulation);
}

/// B has answered A's request, the answer is long under way, and everything stands still for so long
/// that B believes A to have it or to have given up. B deletes what it has agreed to: A, which does
/// not have it yet, must not make it when the answer comes.
#[test]
fn a_child_sa_that_was_deleted_before_the_answer_came_is_not_made() {
    let mut simulation = pair(|_| (), Mode::Tunnel, false);
    rekey(&mut simulation, 0);
    simulation.deliver(1, false);
    let answer = simulation.nodes[1].sent.last().cloned().unwrap();
    simulation.deliver(0, true);
    simulation.now += 300 * SECOND;
    simulation.input(1, Input::Timeout);
    // The rule is gone at B, with both the old Child SA and the new one.
    let mut without = policies_of(1, |_| (), Mode::Tunnel);
    without.rules.clear();
    simulation.configure(1, without);
    // A's request is under way again as well, and is not to be answered before the Deletes.
    while simulation.under_way(0) > 0 {
        simulation.deliver(0, false);
        if simulation.under_way(1) > 0 {
            simulation.deliver(1, false);
        }
    }
    assert!(simulation.nodes[0].kernel.children.is_empty(), "A has deleted the old one");
    let path = gateway_ike::io::Path { local: answer.0.remote, remote: answer.0.local };
    simulation.input(0, Input::Datagram { path, octets: &answer.1 });
    assert!(simulation.nodes[0].kernel.children.is_empty(), "and does not make the new one");
    simulation.configure(1, policies_of(1, |_| (), Mode::Tunnel));
    simulation.run(60 * SECOND);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 1);
    agreed_and_then_nothing_left(simulation);
}

/// B has answered A's request, the answer is lost, and everything stands still for so long that B
/// believes A to have it or to have given up. When B asks for a successor of what A does not have
/// yet, A must not say that there is no such Child SA: B would give up what A is about to install.
#[test]
fn a_child_sa_of_an_answer_that_is_still_to_come_is_not_unknown() {
    let mut simulation = pair(|_| (), Mode::Tunnel, false);
    rekey(&mut simulation, 0);
    simulation.deliver(1, false);
    simulation.deliver(0, true);
    simulation.now += 300 * SECOND;
    simulation.input(1, Input::Timeout);
    rekey(&mut simulation, 1);
    assert_eq!(simulation.under_way(0), 1, "B does not wait for A any more");
    simulation.deliver(0, false);
    simulation.run(60 * SECOND);
    agreed_and_then_nothing_left(simulation);
}
