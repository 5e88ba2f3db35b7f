//! Both ends want something of the same SA at once (RFC 7296 2.8.1, 2.8.2, 2.25): every pair of
//! operations, in every order in which the datagrams of both directions can arrive, and with each
//! datagram lost once.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::algorithms::Group;
use gateway_ike::config::{Action, PeerConfig, PolicySet, Rule, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::KernelEvent;
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const HOUR: Duration = Duration::from_secs(3600);

/// What an end begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Nothing,
    CreateChild,
    RekeyChild,
    DeleteChild,
    RekeyIke,
    DeleteIke,
}

use Operation::{CreateChild, DeleteChild, DeleteIke, Nothing, RekeyChild, RekeyIke};

const ALL: [Operation; 6] = [Nothing, CreateChild, RekeyChild, DeleteChild, RekeyIke, DeleteIke];

/// How a run goes on: by choices of which end's datagram arrives first, and one that is lost.
#[derive(Debug, Clone, Default)]
struct Course {
    choices: Vec<bool>,
    lost: Option<usize>,
    /// After how many datagrams the second end begins.
    delay: usize,
}

fn end(name: &str, other: &str, remote: IpAddr, lifetime: Duration, pfs: bool) -> PolicySet {
    let net = |who: &str, n: u8| {
        let site = if who == "a" { 1 } else { 2 };
        format!("10.{site}.{n}.0/24").parse().unwrap()
    };
    let rule = |n: u8, start| {
        let mut rule: Rule =
            protect(&format!("rule-{n}"), other, net(name, n), net(other, n), start);
        if let (true, Action::Protect(protect)) = (pfs, &mut rule.action) {
            protect.proposals[0].groups = vec![Group::X25519];
        }
        rule
    };
    let peer = PeerConfig { lifetime, ..peer(other, name, other, Some(remote)) };
    policies(vec![peer], vec![rule(0, Start::OnDemand), rule(1, Start::OnDemand)])
}

/// Two ends with one IKE SA and one Child SA; those that are to rekey the IKE SA are about to.
fn pair(operations: [Operation; 2], seed: u64) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), seed);
    let lifetime = |n: usize| if operations[n] == RekeyIke { HOUR } else { Duration::ZERO };
    simulation.configure(1, end("b", "a", A, lifetime(1), seed.is_multiple_of(2)));
    simulation.configure(0, end("a", "b", B, lifetime(0), seed.is_multiple_of(2)));
    simulation.acquire(0, "rule-0");
    simulation.run(Duration::from_secs(10));
    for node in &simulation.nodes {
        assert_eq!(node.kernel.children.len(), 1);
    }
    simulation.now += HOUR;
    simulation
}

fn begin(simulation: &mut Simulation, node: usize, operation: Operation) {
    let child = simulation.nodes[node].kernel.children.values().next().cloned();
    match (operation, child) {
        (RekeyChild, Some(child)) => {
            let destination = child.inbound.destination;
            let expire = KernelEvent::Expire { spi: child.inbound.spi, destination, hard: false };
            simulation.input(node, Input::Kernel(expire));
        }
        (DeleteChild, Some(child)) => {
            let vanished = KernelEvent::Vanished { child: child.child };
            simulation.input(node, Input::Kernel(vanished));
        }
        (CreateChild, _) => simulation.acquire(node, "rule-1"),
        (RekeyIke, _) => simulation.input(node, Input::Timeout),
        (DeleteIke, _) => simulation.input(node, Input::Shutdown),
        (Nothing, _) | (_, None) => {}
    }
}

/// Runs both operations at once; gives how many choices there were.
fn run(operations: [Operation; 2], seed: u64, course: &Course) -> Result<usize, String> {
    let mut simulation = pair(operations, seed);
    // Whoever loses an SA on purpose may lose packets.
    let lossless = !operations.iter().any(|o| matches!(o, DeleteChild | DeleteIke));
    let check = |simulation: &mut Simulation| {
        let violations = simulation.violations();
        if !violations.is_empty() {
            return Err(violations.join("\n"));
        }
        // The responder has a new Child SA first: what it sends at once may come too early.
        let lost = simulation.exchange_traffic();
        match lost.iter().find(|(_, rule)| &**rule == "rule-0") {
            Some((node, _)) if lossless => Err(format!("a packet of node {node} is lost")),
            _ => Ok(()),
        }
    };
    let mut second = Some(operations[1]);
    begin(&mut simulation, 0, operations[0]);
    check(&mut simulation)?;
    let (mut choices, mut delivered) = (0, 0);
    loop {
        let idle = simulation.under_way(0) + simulation.under_way(1) == 0;
        if (delivered == course.delay || idle)
            && let Some(operation) = second.take()
        {
            begin(&mut simulation, 1, operation);
            check(&mut simulation)?;
        }
        let to = match (simulation.under_way(0), simulation.under_way(1)) {
            (0, 0) => break,
            (0, _) => 1,
            (_, 0) => 0,
            _ => {
                choices += 1;
                usize::from(course.choices.get(choices - 1).copied().unwrap_or(false))
            }
        };
        simulation.deliver(to, course.lost == Some(delivered));
        delivered += 1;
        if delivered > 200 {
            return Err("it does not come to rest".to_owned());
        }
        check(&mut simulation)?;
    }
    if course.lost.is_some_and(|lost| lost >= delivered) {
        return Ok(0);
    }
    // What was lost is repeated, what was put off is tried again, what is old goes.
    let rest = simulation.now + Duration::from_secs(300);
    while simulation.step(rest) {
        check(&mut simulation)?;
    }
    at_rest(&simulation, operations)?;
    Ok(choices)
}

fn at_rest(simulation: &Simulation, operations: [Operation; 2]) -> Result<(), String> {
    let mismatches = simulation.mismatches();
    if !mismatches.is_empty() {
        return Err(mismatches.join("\n"));
    }
    let status = simulation.nodes.iter().map(|n| n.endpoint.status(simulation.now));
    let status: Vec<_> = status.collect();
    // An IKE SA whose time has come and that serves nobody is not rekeyed but ends.
    let unused = operations.contains(&RekeyIke)
        && operations.contains(&DeleteChild)
        && status.iter().any(|s| s.ike_sas.is_empty());
    let ended = operations.contains(&DeleteIke) || unused;
    for (node, status) in status.iter().enumerate() {
        let kernel = &simulation.nodes[node].kernel;
        if ended && (!status.ike_sas.is_empty() || !simulation.nodes[node].endpoint.is_empty()) {
            return Err(format!("node {node} is left with {:#?}", status.ike_sas));
        }
        if ended {
            continue;
        }
        let [sa] = status.ike_sas.as_slice() else {
            return Err(format!("node {node} has not one IKE SA: {:#?}", status.ike_sas));
        };
        let of_rule = |rule: &str| kernel.children.values().filter(|c| &*c.rule == rule).count();
        let first = usize::from(!operations.contains(&DeleteChild));
        // Two ends that create the same at once have two: nobody asked them to agree.
        let most = operations.iter().filter(|o| **o == CreateChild).count();
        let (zero, one) = (of_rule("rule-0"), of_rule("rule-1"));
        // A Child SA that is replaced at one end and deleted at the other may live on.
        let revived = operations.contains(&RekeyChild) && operations.contains(&DeleteChild);
        if zero != first && !revived || zero > 1 || one > most || (most > 0 && one == 0) {
            return Err(format!("node {node}: {zero} and {one} Child SAs: {:#?}", sa.children));
        }
        let counters = simulation.nodes[node].endpoint.counters();
        let rekeyed = counters.value(Counter::IkeSaRekeyed) > 0;
        if rekeyed != operations.contains(&RekeyIke) {
            return Err(format!("node {node}: the IKE SA was rekeyed: {rekeyed}"));
        }
        let successor = counters.value(Counter::ChildSaRekeyed) > 0;
        if operations.contains(&RekeyChild) && !successor && !revived {
            return Err(format!("node {node}: the Child SA has no successor"));
        }
    }
    if !ended {
        let spis = |n: usize| {
            let sa = &status[n].ike_sas[0];
            (sa.initiator_spi, sa.responder_spi, sa.children.len())
        };
        if spis(0) != spis(1) {
            return Err(format!("the two ends differ: {status:#?}"));
        }
    }
    Ok(())
}

/// Every order of arrival: after a run the last choice that was "first end" is taken the other
/// way, until there is none.
fn every_order(operations: [Operation; 2], seed: u64, delay: usize) -> usize {
    let (mut course, mut runs) = (Course { delay, ..Course::default() }, 0);
    loop {
        let choices = run(operations, seed, &course)
            .unwrap_or_else(|error| panic!("{operations:?}, seed {seed}, {course:?}: {error}"));
        runs += 1;
        course.choices.resize(choices, false);
        while course.choices.pop_if(|choice| *choice).is_some() {}
        let Some(last) = course.choices.last_mut() else { return runs };
        *last = true;
    }
}

#[test]
fn every_pair_of_operations_in_every_order_of_arrival_leaves_both_ends_agreed() {
    let mut runs = 0;
    for one in ALL {
        for other in ALL {
            // The nonces decide: seeds with either outcome, with and without key exchange.
            for seed in 0..4 {
                runs += every_order([one, other], seed, 0);
                // One end may be anywhere in its exchanges when the other begins.
                for delay in 1..5 {
                    runs += every_order([one, other], seed, delay);
                }
            }
        }
    }
    assert!(runs > 1200, "{runs} different courses");
}

#[test]
fn every_pair_of_operations_survives_the_loss_of_any_datagram() {
    for one in ALL {
        for other in ALL {
            for seed in 0..2 {
                for lost in 0..12 {
                    // The orders in which one end is always first, and those that alternate.
                    for order in [[false, false], [true, true], [false, true], [true, false]] {
                        let choices = order.into_iter().cycle().take(16).collect();
                        let course = Course { choices, lost: Some(lost), delay: 0 };
                        run([one, other], seed, &course).unwrap_or_else(|error| {
                            panic!("{one:?} and {other:?}, seed {seed}, {course:?}: {error}")
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn of_two_successors_the_one_with_the_lowest_nonce_goes() {
    let mut winners = [0, 0];
    for seed in 0..16 {
        let mut simulation = pair([RekeyChild, RekeyChild], seed);
        for node in 0..2 {
            begin(&mut simulation, node, RekeyChild);
        }
        simulation.run(Duration::from_secs(60));
        // Whoever made the one that stays had it whole at once; the other sends by it later.
        let made = |node: usize| {
            let history = &simulation.nodes[node].kernel.history;
            !history.iter().any(|h| h.starts_with("install outbound"))
        };
        assert_ne!(made(0), made(1));
        winners[usize::from(made(1))] += 1;
        for node in &simulation.nodes {
            assert_eq!(node.endpoint.counters().value(Counter::RekeyCollision), 1);
            assert_eq!(node.kernel.children.len(), 1);
        }
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
    assert!(winners[0] > 0 && winners[1] > 0, "{winners:?}");
}
