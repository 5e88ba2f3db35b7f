//! What must hold at every moment, at rest, and when all is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gateway_ike::Input;
use gateway_ike::counters::Counter;
use gateway_ike::io::Path;
use gateway_ike::testing::{Faults, Simulation};
use gateway_wire::{ExchangeType, Header, PayloadType};

use crate::plan::Plan;
use crate::{STRANGER, heap};

/// IKE SAs at one end, with what is left of old ones.
const MOST_IKE_SAS: usize = 64;
/// Messages of one end in a second, in however many fragments: no storm.
const MOST_MESSAGES: usize = 60;
const SECOND: Duration = Duration::from_secs(1);
/// Octets of the heap that both ends may keep when all is over: the room of a queue that has become
/// empty, and of a map the leaf that it keeps, of which that of the IKE SAs has 5 kB. That no table
/// has an entry left they say themselves.
const SLACK: usize = 40 * 1024;

/// What is known of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Datagrams that each end had sent when last looked at.
    counted: [usize; 2],
    /// When it sent those of the last second.
    recent: [VecDeque<Instant>; 2],
}

impl Watch {
    /// What must hold at every moment.
    pub(crate) fn look(&mut self, simulation: &Simulation) -> Result<(), String> {
        let wrong = simulation.violations();
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        for (id, node) in simulation.nodes.iter().enumerate() {
            let status = node.endpoint.status(simulation.now);
            let count = status.ike_sas.len();
            if count > MOST_IKE_SAS {
                return Err(format!("node {id} has {count} IKE SAs"));
            }
            let is_led = status.ike_sas.iter().any(|sa| sa.path.remote.ip() == STRANGER)
                || node.kernel.children.values().any(|c| c.outbound.destination == STRANGER);
            if is_led {
                return Err(format!("node {id} sends to a stranger"));
            }
            let sent = node.sent.len();
            // Fewer than before: it has been started anew.
            let before = Some(self.counted[id]).filter(|before| *before <= sent).unwrap_or(0);
            self.counted[id] = sent;
            let recent = &mut self.recent[id];
            let messages = node.sent[before..].iter().filter(|(_, octets)| begins(octets)).count();
            recent.extend(std::iter::repeat_n(simulation.now, messages));
            while recent.front().is_some_and(|at| *at + SECOND < simulation.now) {
                recent.pop_front();
            }
            if recent.len() > MOST_MESSAGES {
                return Err(format!("node {id} sends {} messages in a second", recent.len()));
            }
        }
        Ok(())
    }
}

/// Whether a datagram is a message, or the first fragment of one (RFC 7383 2.5).
fn begins(octets: &[u8]) -> bool {
    Header::decode(octets).is_ok_and(|(_, first, payloads)| {
        first != PayloadType::SKF || payloads.get(4..6) == Some(&[0, 1])
    })
}

/// What must hold at rest: both ends have the same SAs, and what is always up is.
pub(crate) fn at_rest(plan: &Plan, simulation: &Simulation) -> Vec<String> {
    let mut wrong = simulation.mismatches();
    for name in plan.rules().filter(|nth| plan.is_always(*nth)).map(Plan::name) {
        for (id, node) in simulation.nodes.iter().enumerate() {
            if !node.kernel.children.values().any(|child| *child.rule == *name) {
                wrong.push(format!("node {id} has no Child SA of {name}, which is always up"));
            }
        }
    }
    wrong
}

/// What happens at rest: nothing, so that these counts stay.
pub(crate) fn established(simulation: &Simulation) -> Vec<u64> {
    let counters = [Counter::IkeSaEstablished, Counter::ChildSaInstalled];
    let of_node = |node: usize| {
        counters.map(|counter| simulation.nodes[node].endpoint.counters().value(counter))
    };
    [of_node(0), of_node(1)].concat()
}

/// Ends both nodes in good order, sees that nothing is left, and that whatever still arrives makes
/// them do nothing more.
pub(crate) fn over(plan: &Plan, simulation: &mut Simulation) -> Result<(), String> {
    simulation.wind_up()?;
    let sent = simulation.nodes.iter().map(|node| node.sent.len()).collect::<Vec<_>>();
    let commands =
        simulation.nodes.iter().map(|node| node.kernel.history.len()).collect::<Vec<_>>();
    for node in 0..2 {
        let other = &simulation.nodes[1 - node].sent;
        let late: Vec<_> =
            other.iter().rev().take(20).chain(other.iter().take(5)).cloned().collect();
        for (path, octets) in late {
            let path = Path { local: path.remote, remote: path.local };
            simulation.input(node, Input::Datagram { path, octets: &octets });
        }
        for nth in plan.rules() {
            simulation.acquire(node, &Plan::name(nth));
        }
        simulation.input(node, Input::Timeout);
    }
    for (id, node) in simulation.nodes.iter().enumerate() {
        if !node.endpoint.is_closed() || !node.endpoint.is_empty() {
            return Err(format!("node {id} begins something after its end"));
        }
        if node.kernel.history.len() != commands[id] {
            return Err(format!("node {id} changes the kernel after its end"));
        }
        // That it does not know an SPI it may say (RFC 7296 2.21.4).
        let more = node.sent[sent[id]..].iter().find(|(_, octets)| {
            !Header::decode(octets).is_ok_and(|(header, ..)| {
                header.flags.response && header.exchange != ExchangeType::IKE_SA_INIT
            })
        });
        if more.is_some() {
            return Err(format!("node {id} sends after its end"));
        }
    }
    Ok(())
}

/// When all is over both ends hold no more memory than two that have had the same policies for a
/// moment.
pub(crate) fn forgotten(plan: &Plan, simulation: &mut Simulation) -> Result<(), String> {
    let used = held(simulation);
    let mut fresh = plan.begin(Faults::default());
    for node in 0..2 {
        fresh.configure(node, plan.policies(node, &plan.wishes()));
    }
    fresh.wind_up()?;
    let fresh = held(&mut fresh);
    if used > fresh + SLACK {
        return Err(format!("{used} octets are left where {fresh} were"));
    }
    Ok(())
}

/// Octets that the endpoints held, which are gone with that.
fn held(simulation: &mut Simulation) -> usize {
    let nodes = simulation.nodes.drain(..).map(|node| node.endpoint).collect::<Vec<_>>();
    let before = heap::in_use();
    drop(nodes);
    before.wrapping_sub(heap::in_use())
}
