//! Either end moves or says where else it is while either gives the IKE SA new keys: in every order
//! in which the datagrams of both directions can arrive, and with each lost once.

use super::{
    A, B, Duration, IpAddr, OTHER_A, OTHER_B, PeerConfig, SECOND, Simulation, connected, count,
    esp, sa,
};
use gateway_ike::config::Renewal;
use gateway_ike::counters::Counter;
use gateway_ike::io::Input;
use gateway_ike::testing::Course;

const HOUR: Duration = Duration::from_secs(3600);

/// What an end does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    /// The initiator has another address.
    Move,
    /// The responder has one address more.
    Tell,
    /// The responder has another address, which the initiator has been told before.
    Leave,
    /// An end gives the IKE SA new keys.
    Rekey(usize),
}

use Happens::{Leave, Move, Rekey, Tell};

fn happen(simulation: &mut Simulation, what: Happens) {
    match what {
        Move => simulation.readdress(0, &[OTHER_A]),
        Tell => simulation.readdress(1, &[B, OTHER_B]),
        Leave => simulation.readdress(1, &[OTHER_B]),
        Rekey(node) => simulation.input(node, Input::Timeout),
    }
}

fn run(happens: [Happens; 2], course: &Course) -> Result<usize, String> {
    let change = |node, peer| {
        let lifetime = if happens.contains(&Rekey(node)) { HOUR } else { Duration::ZERO };
        let liveness_interval = Duration::ZERO;
        PeerConfig { lifetime, liveness_interval, renewal: Renewal::Rekey, ..peer }
    };
    let others: &[IpAddr] = if happens.contains(&Leave) { &[OTHER_B] } else { &[] };
    let mut simulation = connected(false, change, others);
    simulation.now += HOUR;
    let [first, second] = happens;
    happen(&mut simulation, first);
    let second = |simulation: &mut Simulation| happen(simulation, second);
    let Some(choices) = course.follow(&mut simulation, second, |_| Ok(()))? else { return Ok(0) };
    simulation.run(300 * SECOND);
    at_rest(&mut simulation, happens)?;
    Ok(choices)
}

fn at_rest(simulation: &mut Simulation, happens: [Happens; 2]) -> Result<(), String> {
    let wrong = [simulation.violations(), simulation.mismatches()].concat();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let a = if happens.contains(&Move) { OTHER_A } else { A };
    let b = if happens.contains(&Leave) { OTHER_B } else { B };
    let expected = [(a, b), (b, a)];
    for (node, expected) in expected.into_iter().enumerate() {
        let path = sa(simulation, node).path;
        let ends = (path.local.ip(), path.remote.ip());
        if ends != expected || esp(simulation, node) != expected {
            return Err(format!(
                "node {node}: IKE by {ends:?}, ESP by {:?}",
                esp(simulation, node)
            ));
        }
        let once = [Counter::IkeSaEstablished, Counter::ChildSaInstalled];
        if once.iter().any(|counter| count(simulation, node, *counter) != 1) {
            return Err(format!("node {node} has made its SAs anew"));
        }
        if count(simulation, node, Counter::IkeSaRekeyed) == 0 {
            return Err(format!("node {node} has not rekeyed"));
        }
    }
    let told = sa(simulation, 0).mobike;
    if happens.contains(&Tell) && told.as_deref() != Some(&[OTHER_B]) {
        return Err(format!("A believes that B is also at {told:?}"));
    }
    let lost = simulation.exchange_traffic();
    if lost.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}")) }
}

fn pairs() -> impl Iterator<Item = [Happens; 2]> {
    let moves = [Move, Tell, Leave];
    moves.into_iter().flat_map(|what| {
        [Rekey(0), Rekey(1)].into_iter().flat_map(move |rekey| [[what, rekey], [rekey, what]])
    })
}

#[test]
fn new_keys_and_new_addresses_meet_in_every_order_and_both_ends_arrive() {
    let mut runs = 0;
    for happens in pairs() {
        for delay in 0..5 {
            runs += Course::every_order(delay, |course| {
                run(happens, course)
                    .unwrap_or_else(|error| panic!("{happens:?}, {course:?}: {error}"))
            });
        }
    }
    assert!(runs > 100, "{runs} different courses");
}

#[test]
fn new_keys_and_new_addresses_survive_the_loss_of_any_datagram() {
    for happens in pairs() {
        for lost in 0..12 {
            for order in [[false, false], [true, true], [false, true], [true, false]] {
                for delay in 0..3 {
                    let choices = order.into_iter().cycle().take(24).collect();
                    let course = Course { choices, lost: Some(lost), delay };
                    run(happens, &course)
                        .unwrap_or_else(|error| panic!("{happens:?}, {course:?}: {error}"));
                }
            }
        }
    }
}
