//! Up to twenty random operations at both ends of a bad network, from a seed each.
//!
//! A usual run does some thousand seeds, and those of `seeds.txt`, which once failed.
//! `SIMULATION_SEEDS=100000` does so many, on all processors:
//! `SIMULATION_SEEDS=100000 cargo test --release -p gateway-ike --test simulation operations`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway_ike::Input;
use gateway_ike::io::{KernelError, KernelEvent};
use gateway_ike::testing::{Faults, NodeId, Refusal, SeededRandom, Simulation};

use crate::plan::Plan;
use crate::{BAD_NETWORK, replayed_seed, setting};

/// Seeds of a usual run.
const SEEDS: u64 = 1500;
/// Operations in one run.
const OPERATIONS: u64 = 20;
/// IKE SAs at one end, with what is left of old ones.
const MOST_IKE_SAS: usize = 64;

/// One run.
struct Run {
    plan: Plan,
    simulation: Simulation,
    random: SeededRandom,
    begun: Instant,
    /// The rules that each end has.
    present: [BTreeSet<usize>; 2],
    /// Of a run that is known to fail: what was done, and what the ends said to it.
    history: Option<Vec<String>>,
}

impl Run {
    fn new(seed: u64, told: bool) -> Self {
        let plan = Plan::new(seed);
        let all: BTreeSet<usize> = plan.rules().collect();
        let simulation = plan.begin(Faults::default());
        Self {
            begun: simulation.now,
            simulation,
            random: SeededRandom::new(seed),
            present: [all.clone(), all],
            history: told.then(|| vec![format!("{plan:?}")]),
            plan,
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{:?}: {}", self.simulation.now - self.begun, what()));
        }
    }

    fn tell_events(&mut self) {
        for id in 0..self.simulation.nodes.len() {
            for event in std::mem::take(&mut self.simulation.nodes[id].events) {
                self.tell(|| format!("node {id}: {event}"));
            }
        }
    }

    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.random.below(u64::try_from(count).unwrap())).unwrap()
    }

    /// A Child SA of a node's kernel goes its way: a limit of its life, or somebody's command.
    fn end_child(&mut self, node: NodeId, how: u64) {
        let count = self.simulation.nodes[node].kernel.children.len();
        let which = self.index(count);
        let kernel = &mut self.simulation.nodes[node].kernel;
        let Some((child, spec)) = kernel.children.iter().nth(which) else { return };
        let (child, spi) = (*child, spec.inbound.spi);
        let destination = spec.inbound.destination;
        let event = match how {
            0 => KernelEvent::Expire { spi, destination, hard: false },
            1 => KernelEvent::Expire { spi, destination, hard: true },
            _ => KernelEvent::Vanished { child },
        };
        if how > 0 {
            kernel.children.remove(&child);
            kernel.outbound.retain(|c| *c != child);
        }
        self.tell(|| format!("{event:?}"));
        self.simulation.input(node, Input::Kernel(event));
    }

    /// One end takes a rule away, or has it again.
    fn reload(&mut self, node: NodeId) {
        let nth = self.index(self.plan.rules().len());
        if !self.present[node].remove(&nth) {
            self.present[node].insert(nth);
        }
        let present = self.present[node].clone();
        self.tell(|| format!("rules {present:?}"));
        self.plan.configure(&mut self.simulation, node, &self.present[node]);
    }

    fn restart(&mut self, node: NodeId) {
        let seed = self.random.next();
        self.simulation.crash(node, seed);
        self.plan.configure(&mut self.simulation, node, &self.present[node]);
    }

    fn change_network(&mut self) {
        let faults = match self.random.below(5) {
            0 => Faults::default(),
            1 => Faults { loss: 100, ..Faults::default() },
            2 => Faults { corruption: 20, ..BAD_NETWORK },
            _ => BAD_NETWORK,
        };
        self.tell(|| format!("{faults:?}"));
        self.simulation.network.set_faults(faults);
    }

    /// Somebody sends again what an end has sent.
    fn repeat_datagram(&mut self, node: NodeId) -> Result<(), String> {
        let count = self.simulation.nodes[node].sent.len();
        let which = self.index(count);
        let Some((path, octets)) = self.simulation.nodes[node].sent.get(which).cloned() else {
            return Ok(());
        };
        self.simulation.inject(path, octets);
        self.pass(Duration::from_millis(20))
    }

    fn refuse(&mut self, node: NodeId) {
        let error = match self.random.below(3) {
            0 => KernelError::SpiInUse,
            1 => KernelError::Unsupported("no ESP".to_owned()),
            _ => KernelError::Refused("out of memory".to_owned()),
        };
        self.tell(|| format!("{error:?}"));
        self.simulation.nodes[node].kernel.refusals.push_back(Refusal::Error(error));
    }

    fn peer_moved(&mut self, node: NodeId) {
        let children = &self.simulation.nodes[node].kernel.children;
        let Some(spi) = children.values().next().map(|c| c.inbound.spi) else { return };
        let from = ([203, 0, 113, 9], 4500).into();
        self.simulation.input(node, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
    }

    fn operate(&mut self) -> Result<(), String> {
        let node = usize::from(self.random.percent(50));
        let operation = self.random.below(100);
        self.tell(|| format!("operation {operation} at node {node}"));
        match operation {
            0..30 => self.end_child(node, 0),
            30..36 => self.end_child(node, 1),
            36..42 => self.end_child(node, 2),
            42..52 => {
                let nth = self.index(self.plan.rules().len());
                self.simulation.acquire(node, &Plan::name(nth));
            }
            52..62 => self.reload(node),
            62..67 => self.restart(node),
            67..71 => {
                self.simulation.input(node, Input::Shutdown);
                let wait = self.random.below(5000);
                self.pass(Duration::from_millis(wait))?;
                self.restart(node);
            }
            71..81 => self.change_network(),
            81..89 if self.plan.nat => {
                let nth = u8::try_from(self.random.below(4)).unwrap_or(0);
                self.plan.translate(&mut self.simulation, nth);
            }
            81..92 => self.refuse(node),
            92..98 => self.repeat_datagram(node)?,
            _ => self.peer_moved(node),
        }
        self.check()?;
        let wait = if self.random.percent(90) { 4000 } else { 120_000 };
        let wait = self.random.below(wait);
        self.pass(Duration::from_millis(wait))
    }

    /// Time passes; at every moment of it what must always hold does.
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.simulation.now + time;
        while self.simulation.step(end) {
            self.check()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        self.tell_events();
        let wrong = self.simulation.violations();
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        for (id, node) in self.simulation.nodes.iter().enumerate() {
            let count = node.endpoint.status(self.simulation.now).ike_sas.len();
            if count > MOST_IKE_SAS {
                return Err(format!("node {id} has {count} IKE SAs"));
            }
        }
        Ok(())
    }

    /// Both ends have all rules and a good network again: what is always up comes up, and both
    /// agree. Where SAs do not live long a moment without a change may have to be waited for.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.simulation.network.set_faults(Faults::default());
        for node in 0..2 {
            self.simulation.nodes[node].kernel.refusals.clear();
            self.present[node] = self.plan.rules().collect();
            self.plan.configure(&mut self.simulation, node, &self.present[node]);
        }
        self.pass(Duration::from_secs(400))?;
        let mut wrong = Vec::new();
        for _moment in 0..30 {
            // What only receives sends as well once it has received.
            let lost = self.simulation.exchange_traffic();
            self.pass(Duration::from_millis(300))?;
            wrong = self.simulation.mismatches();
            wrong.extend(
                lost.iter().map(|(from, rule)| format!("node {from} lost a packet of {rule}")),
            );
            wrong.extend(self.unserved());
            if wrong.is_empty() {
                return Ok(());
            }
            self.pass(Duration::from_millis(400))?;
        }
        Err(wrong.join("\n"))
    }

    fn whole(&mut self) -> Result<(), String> {
        self.pass(Duration::from_secs(5))?;
        self.change_network();
        for _ in 0..1 + self.random.below(OPERATIONS) {
            self.operate()?;
        }
        self.come_to_rest()?;
        self.simulation.wind_up()
    }

    /// Rules that are always up and are not.
    fn unserved(&self) -> Vec<String> {
        let always = self.plan.rules().filter(|nth| self.plan.is_always(*nth)).map(Plan::name);
        always
            .flat_map(|name| {
                let down = self.simulation.nodes.iter().enumerate().filter(move |(_, node)| {
                    !node.kernel.children.values().any(|child| *child.rule == *name)
                });
                down.map(|(id, _)| format!("node {id} has no Child SA of an always-up rule"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn run(seed: u64) -> Result<(), String> {
    let run = |told| {
        let mut run = Run::new(seed, told);
        let result = run.whole();
        let history = run.history.take().unwrap_or_default().join("\n");
        result.map_err(|error| format!("{error}\n{history}"))
    };
    // Once more, to hear how it comes to that.
    run(false).or_else(|_| run(true))
}

/// The seeds that once failed.
fn kept() -> impl Iterator<Item = u64> {
    let lines = include_str!("seeds.txt").lines().map(str::trim);
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.parse().unwrap())
}

#[test]
fn random_operations_at_both_ends_leave_them_agreed_and_nothing_behind() {
    if let Some(seed) = replayed_seed() {
        return run(seed).unwrap_or_else(|error| panic!("{error}"));
    }
    let seeds: Vec<u64> = kept().chain(0..setting("SIMULATION_SEEDS").unwrap_or(SEEDS)).collect();
    let next = AtomicU64::new(0);
    let failed: Vec<(u64, String)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..thread::available_parallelism().map_or(1, |n| n.get()))
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    loop {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        let Some(seed) = seeds.get(usize::try_from(nth).unwrap()) else { break };
                        if let Err(error) = run(*seed) {
                            failed.push((*seed, error));
                        }
                    }
                    failed
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let Some((seed, error)) = failed.first() else { return };
    panic!(
        "{} of {} runs fail; put them into seeds.txt: {:?}\nSIMULATION_SEED={seed} replays the \
         first: {error}",
        failed.len(),
        seeds.len(),
        failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>()
    );
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let sent = |seed| {
        let mut run = Run::new(seed, false);
        run.pass(Duration::from_secs(5)).unwrap();
        for _ in 0..5 {
            run.operate().unwrap();
        }
        run.simulation.nodes.iter().map(|n| n.sent.clone()).collect::<Vec<_>>()
    };
    for seed in 0..20 {
        assert_eq!(sent(seed), sent(seed), "{seed}");
    }
}
