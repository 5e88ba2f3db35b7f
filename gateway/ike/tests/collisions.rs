//! Both ends want something of the same SA at once (RFC 7296 2.8.1, 2.8.2, 2.25, RFC 9370 2.2.4):
//! every pair of operations, in every order in which the datagrams of both directions can arrive, and
//! with each datagram lost once; without additional key exchanges, with them, and with ends that
//! choose differently.
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
use gateway_ike::algorithms::{Group, Round};
use gateway_ike::config::{Action, PeerConfig, PolicySet, Rule, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{KernelEvent, Path};
use gateway_ike::testing::{Course, Faults, Forge, Simulation, peer, policies, protect};
use gateway_wire::{ExchangeType, Header, Payload};

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
    /// Of a second Child SA, which stands beside the first then.
    RekeySecond,
    /// The same.
    DeleteSecond,
}

use Operation::{
    CreateChild, DeleteChild, DeleteIke, DeleteSecond, Nothing, RekeyChild, RekeyIke, RekeySecond,
};

impl Operation {
    const fn of_second(self) -> bool {
        matches!(self, RekeySecond | DeleteSecond)
    }

    /// Whether whoever does it may lose packets of a rule.
    fn loses(self, rule: &str) -> bool {
        match self {
            DeleteChild => rule == "rule-0",
            // The responder has a new Child SA first: what it sends at once may come too early.
            DeleteSecond | CreateChild => rule == "rule-1",
            DeleteIke => true,
            Nothing | RekeyChild | RekeyIke | RekeySecond => false,
        }
    }
}

const ALL: [Operation; 6] = [Nothing, CreateChild, RekeyChild, DeleteChild, RekeyIke, DeleteIke];

/// Whether keys are exchanged by one exchange or by several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// One, at both ends.
    Classic,
    /// Several, at both ends.
    Hybrid,
    /// What A asks for takes one, and what B asks for several: each chooses what it likes better.
    Mixed,
}

use Keys::{Classic, Hybrid, Mixed};

fn end(
    name: &str,
    other: &str,
    remote: IpAddr,
    lifetime: Duration,
    (pfs, keys): (bool, Keys),
) -> PolicySet {
    let round = |group| [(Round::Ke1, vec![Some(group)])].into_iter().collect();
    let two = |group| {
        [(Round::Ke1, vec![Some(group)]), (Round::Ke4, vec![Some(Group::EcpP384)])]
            .into_iter()
            .collect()
    };

    let net = |who: &str, n: u8| {
        let site = if who == "a" { 1 } else { 2 };
        format!("10.{site}.{n}.0/24").parse().unwrap()
    };
    let rule = |n: u8, start| {
        let mut rule: Rule =
            protect(&format!("rule-{n}"), other, net(name, n), net(other, n), start);
        if let (true, Action::Protect(protect)) = (pfs, &mut rule.action) {
            protect.proposals[0].groups = vec![Group::X25519];
            let mut hybrid = protect.proposals[0].clone();
            hybrid.additional = two(Group::MlKem512);
            match (keys, name) {
                (Classic, _) => {}
                (Hybrid, _) => protect.proposals = vec![hybrid],
                (Mixed, "a") => protect.proposals.insert(0, hybrid),
                (Mixed, _) => protect.proposals.push(hybrid),
            }
        }
        rule
    };
    let mut peer = PeerConfig { lifetime, ..peer(other, name, other, Some(remote)) };
    let mut hybrid = peer.proposals[0].clone();
    hybrid.additional = round(Group::MlKem768);
    match (keys, name) {
        (Classic, _) => {}
        (Hybrid, _) => peer.proposals = vec![hybrid],
        (Mixed, "a") => peer.proposals.insert(0, hybrid),
        (Mixed, _) => peer.proposals.push(hybrid),
    }
    policies(vec![peer], vec![rule(0, Start::OnDemand), rule(1, Start::OnDemand)])
}

/// Two ends with one IKE SA and one Child SA, or with two if one does something with a second; those that are to rekey the IKE SA are about to.
fn pair(operations: [Operation; 2], keys: Keys, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), seed);
    let lifetime = |n: usize| if operations[n] == RekeyIke { HOUR } else { Duration::ZERO };
    let keys = (seed.is_multiple_of(2), keys);
    simulation.configure(1, end("b", "a", A, lifetime(1), keys));
    simulation.configure(0, end("a", "b", B, lifetime(0), keys));
    simulation.acquire(0, "rule-0");
    simulation.run(Duration::from_secs(10));
    let second = operations.iter().any(|operation| operation.of_second());
    if second {
        simulation.acquire(0, "rule-1");
        simulation.run(Duration::from_secs(10));
    }
    for node in &simulation.nodes {
        assert_eq!(node.kernel.children.len(), 1 + usize::from(second));
    }
    simulation.now += HOUR;
    simulation
}

fn begin(simulation: &mut Simulation, node: usize, operation: Operation) {
    let rule = if operation.of_second() { "rule-1" } else { "rule-0" };
    let mut children = simulation.nodes[node].kernel.children.values();
    let child = children.find(|child| &*child.rule == rule).cloned();
    match (operation, child) {
        (RekeyChild | RekeySecond, Some(child)) => {
            let destination = child.inbound.destination;
            let expire = KernelEvent::Expire { spi: child.inbound.spi, destination, hard: false };
            simulation.input(node, Input::Kernel(expire));
        }
        (DeleteChild | DeleteSecond, Some(child)) => {
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
fn run(
    operations: [Operation; 2],
    keys: Keys,
    seed: u64,
    course: &Course,
) -> Result<usize, String> {
    let mut simulation = pair(operations, keys, seed);
    let may_lose = |rule: &str| operations.iter().any(|operation| operation.loses(rule));
    let check = |simulation: &mut Simulation| {
        let violations = simulation.violations();
        if !violations.is_empty() {
            return Err(violations.join("\n"));
        }
        let lost = simulation.exchange_traffic();
        match lost.iter().find(|(_, rule)| !may_lose(rule)) {
            Some((node, rule)) => Err(format!("a packet of node {node} for {rule} is lost")),
            None => Ok(()),
        }
    };
    begin(&mut simulation, 0, operations[0]);
    check(&mut simulation)?;
    let second = |simulation: &mut Simulation| begin(simulation, 1, operations[1]);
    let Some(choices) = course.follow(&mut simulation, second, check)? else { return Ok(0) };
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
    let second = operations.iter().any(|operation| operation.of_second());
    let unused = operations.contains(&RekeyIke)
        && operations.contains(&DeleteChild)
        && !second
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
        let has = |operation| operations.contains(&operation);
        let (zero, one) = (of_rule("rule-0"), of_rule("rule-1"));
        // A Child SA that is replaced at one end and deleted at the other may live on.
        let revived = has(RekeyChild) && has(DeleteChild);
        let first_is_right = zero == usize::from(!has(DeleteChild)) || revived && zero == 1;
        // Two ends that create the same at once have two: nobody asked them to agree.
        let created = operations.iter().filter(|o| **o == CreateChild).count();
        let second_is_right = if second {
            one == usize::from(!has(DeleteSecond)) || has(RekeySecond) && one == 1
        } else {
            (created.min(1)..=created).contains(&one)
        };
        if !first_is_right || !second_is_right {
            return Err(format!("node {node}: {zero} and {one} Child SAs: {:#?}", sa.children));
        }
        let counters = simulation.nodes[node].endpoint.counters();
        let rekeyed = counters.value(Counter::IkeSaRekeyed) > 0;
        if rekeyed != has(RekeyIke) {
            return Err(format!("node {node}: the IKE SA was rekeyed: {rekeyed}"));
        }
        let successor = counters.value(Counter::ChildSaRekeyed) > 0;
        let replaced = has(RekeyChild) && !revived || has(RekeySecond) && !has(DeleteSecond);
        if replaced && !successor {
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

fn every_order(operations: [Operation; 2], keys: Keys, seed: u64, delay: usize) -> usize {
    Course::every_order(delay, |course| {
        run(operations, keys, seed, course).unwrap_or_else(|error| {
            panic!("{operations:?}, {keys:?}, seed {seed}, {course:?}: {error}")
        })
    })
}

fn every_pair_in_every_order(keys: Keys, seeds: u64, delays: &[usize]) -> usize {
    let mut runs = 0;
    for one in ALL {
        for other in ALL {
            // The nonces decide: seeds with either outcome, with and without key exchange.
            for seed in 0..seeds {
                // One end may be anywhere in its exchanges when the other begins.
                for delay in delays {
                    runs += every_order([one, other], keys, seed, *delay);
                }
            }
        }
    }
    runs
}

#[test]
fn every_pair_of_operations_in_every_order_of_arrival_leaves_both_ends_agreed() {
    let runs = every_pair_in_every_order(Classic, 4, &[0, 1, 2, 3, 4]);
    assert!(runs > 1200, "{runs} different courses");
}

#[test]
fn additional_key_exchanges_collide_with_every_operation_in_every_order_and_both_ends_agree() {
    let runs = every_pair_in_every_order(Hybrid, 4, &[0, 1, 2, 3, 5]);
    assert!(runs > 500, "{runs} different courses");
}

#[test]
fn ends_that_choose_differently_collide_in_every_order_and_agree() {
    let runs = every_pair_in_every_order(Mixed, 2, &[0, 1, 2, 3]);
    assert!(runs > 250, "{runs} different courses");
}

/// What one end does with one Child SA is no collision with what the other does with another.
#[test]
fn operations_on_two_child_sas_meet_in_every_order_and_leave_both_ends_agreed() {
    let mut runs = 0;
    for second in [RekeySecond, DeleteSecond] {
        for other in [RekeyChild, DeleteChild, RekeyIke, DeleteIke, RekeySecond, DeleteSecond] {
            for operations in [[second, other], [other, second]] {
                for (keys, seed) in [(Classic, 0), (Classic, 1), (Hybrid, 0), (Mixed, 0)] {
                    for delay in [0, 1, 2, 3] {
                        runs += every_order(operations, keys, seed, delay);
                    }
                }
            }
        }
    }
    assert!(runs > 500, "{runs} different courses");
}

#[test]
fn every_pair_of_operations_survives_the_loss_of_any_datagram() {
    for one in ALL {
        for other in ALL {
            for (keys, seed) in [(Classic, 0), (Classic, 1), (Hybrid, 0), (Mixed, 1)] {
                for lost in 0..if keys == Classic { 12 } else { 16 } {
                    // The orders in which one end is always first, and those that alternate.
                    for order in [[false, false], [true, true], [false, true], [true, false]] {
                        let choices = order.into_iter().cycle().take(24).collect();
                        let course = Course { choices, lost: Some(lost), delay: 0 };
                        run([one, other], keys, seed, &course).unwrap_or_else(|error| {
                            panic!(
                                "{one:?} and {other:?}, {keys:?}, seed {seed}, {course:?}: {error}"
                            )
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
        let mut simulation = pair([RekeyChild, RekeyChild], Classic, seed);
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

/// The exchange with the lowest nonce of four: the end that began it.
fn loser(simulation: &Simulation, forge: &Forge, since: [usize; 2]) -> usize {
    let nonces = (0..2).flat_map(|node| {
        let sent = simulation.nodes[node].sent[since[node]..].iter();
        let opened = sent.filter_map(|(_, octets)| forge.open(octets));
        opened.filter(|m| m.header.exchange == ExchangeType::CREATE_CHILD_SA).filter_map(
            move |message| {
                let payloads = message.payloads().unwrap();
                let nonce = payloads.iter().find_map(|payload| {
                    if let Payload::Nonce(nonce) = payload { Some(nonce.0.to_vec()) } else { None }
                });
                // A response is of the other end's exchange.
                let by = if message.header.flags.response { 1 - node } else { node };
                nonce.map(|nonce| (nonce, by))
            },
        )
    });
    let nonces: Vec<_> = nonces.collect();
    assert!(nonces.len() >= 4, "{}", nonces.len());
    nonces.into_iter().min().unwrap().1
}

/// RFC 9370 2.2.4: there is nothing to delete yet, so the end with the lowest nonce just stops, and
/// the other one goes on.
#[test]
fn of_two_series_only_the_one_without_the_lowest_nonce_goes_on() {
    for operation in [RekeyChild, RekeyIke] {
        let mut winners = [0, 0];
        for seed in (0..24).step_by(2) {
            let mut simulation = pair([operation; 2], Hybrid, seed);
            let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
            let since = [0, 1].map(|node: usize| simulation.nodes[node].sent.len());
            for node in 0..2 {
                begin(&mut simulation, node, operation);
            }
            simulation.run(Duration::from_millis(500));
            let goes_on = |node: &usize| {
                let sent = simulation.nodes[*node].sent[since[*node]..].iter();
                sent.map(|(_, octets)| Header::decode(octets).unwrap().0).any(|header| {
                    header.exchange == ExchangeType::IKE_FOLLOWUP_KE && !header.flags.response
                })
            };
            let winner = 1 - loser(&simulation, &forge, since);
            let going_on: Vec<usize> = (0..2).filter(goes_on).collect();
            assert_eq!(going_on, [winner], "{operation:?}, seed {seed}");
            winners[winner] += 1;
            simulation.run(Duration::from_secs(60));
            for node in &simulation.nodes {
                let value = |counter| node.endpoint.counters().value(counter);
                assert_eq!(value(Counter::RekeyCollision), 1);
                assert_eq!(value(Counter::StateNotFound) + value(Counter::FollowUpTimeout), 0);
                let ike = operation == RekeyIke;
                let rekeyed = if ike { Counter::IkeSaRekeyed } else { Counter::ChildSaRekeyed };
                assert_eq!(value(rekeyed), 1, "{operation:?}, seed {seed}");
            }
            assert_eq!(simulation.mismatches(), Vec::<String>::new());
        }
        assert!(winners[0] > 0 && winners[1] > 0, "{winners:?}");
    }
}

/// The Delete that node 1 has under way to node 0: its number, and the SPI that it names.
fn delete_under_way(simulation: &Simulation, forge: &Forge) -> Option<(u32, u32)> {
    let opened = forge.open(&simulation.nodes[1].sent.last()?.1)?;
    if opened.header.flags.response {
        return None;
    }
    match &opened.payloads().ok()?[..] {
        [Payload::Delete(delete)] => Some((opened.header.message_id.0, *delete.spis.first()?)),
        _ => None,
    }
}

/// A peer that saw no collision, since it began after it had given our request up, does not delete its
/// successor though the nonces are against it, and takes that one for the one in use. It gets a newer
/// one of ours before we delete it.
#[test]
fn a_redundant_successor_that_the_peer_leaves_standing_goes_after_a_newer_one_has_come() {
    let mut seen = 0;
    for seed in 0..16 {
        let mut simulation = pair([RekeyChild; 2], Classic, seed);
        let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
        let old = simulation.nodes[1].kernel.children.values().next().unwrap().inbound.spi;
        for node in 0..2 {
            begin(&mut simulation, node, RekeyChild);
        }
        // A's request, B's, B's answer, and A's.
        for to in [1, 0, 0, 1] {
            simulation.deliver(to, false);
        }
        let (number, redundant) = delete_under_way(&simulation, &at_b).unwrap();
        if redundant == old {
            continue; // The nonces are for B's, and it deletes the old one.
        }
        seen += 1;
        let mut children = simulation.nodes[0].kernel.children.values();
        let at_a = children.find(|c| c.outbound.spi == redundant).unwrap().inbound.spi;
        // B says something else under that number.
        simulation.deliver(0, true);
        let header = at_b.header(ExchangeType::INFORMATIONAL, false, number);
        let nothing = at_b.seal(&header, &[]).unwrap();
        let path = simulation.nodes[1].sent.last().unwrap().0;
        let path = Path { local: path.remote, remote: path.local };
        simulation.input(0, Input::Datagram { path, octets: &nothing });
        simulation.run(Duration::from_secs(10));
        let stands = |simulation: &Simulation| {
            let children = &simulation.nodes[0].kernel.children;
            children.values().any(|c| c.inbound.spi == at_a)
        };
        assert!(stands(&simulation), "the peer has its time to delete it");
        let before = simulation.nodes[0].sent.len();
        simulation.run(Duration::from_secs(600));
        assert!(!stands(&simulation), "seed {seed}");
        // What A has asked for meanwhile, in order; what it deletes by its SPI.
        let asked = simulation.nodes[0].sent[before..].iter().filter_map(|(_, octets)| {
            let opened = at_b.open(octets).filter(|opened| !opened.header.flags.response)?;
            let payloads = opened.payloads().unwrap();
            let deleted = payloads.iter().find_map(|payload| {
                if let Payload::Delete(delete) = payload { Some(delete.spis[0]) } else { None }
            });
            Some((opened.header.exchange, deleted))
        });
        let asked: Vec<_> = asked.collect();
        let newer = asked.iter().position(|(e, _)| *e == ExchangeType::CREATE_CHILD_SA).unwrap();
        let gone = asked.iter().position(|(_, deleted)| *deleted == Some(at_a)).unwrap();
        assert!(newer < gone, "seed {seed}: {asked:?}");
        assert_eq!(simulation.exchange_traffic(), []);
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
        assert!(simulation.nodes.iter().all(|node| node.kernel.children.len() == 1));
    }
    assert!(seen > 2, "{seen}");
}
