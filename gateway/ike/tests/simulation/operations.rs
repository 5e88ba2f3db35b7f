//! Up to twenty random operations at both ends of a bad network, from a seed each; the seed makes
//! the two ends as well.
//!
//! A usual run does some thousand seeds, and those of `seeds.txt`, which once failed.
//! `SIMULATION_SEEDS=100000` does so many, on all processors:
//! `SIMULATION_SEEDS=100000 cargo test --release -p gateway-ike --test simulation operations`.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway_ike::Input;
use gateway_ike::io::{KernelError, KernelEvent};
use gateway_ike::testing::{Faults, NodeId, Refusal, SeededRandom, Simulation};

use crate::certificates::NOW;
use crate::invariants::{self, Watch};
use crate::plan::{OTHERS, Plan, Wishes};
use crate::{A, B, BAD_NETWORK, STRANGER, replayed_seed, setting};

/// Seeds of a usual run.
const SEEDS: u64 = 1500;
/// Operations in one run.
const OPERATIONS: u64 = 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One run.
struct Run {
    plan: Plan,
    simulation: Simulation,
    random: SeededRandom,
    begun: Instant,
    /// What the operator of each end wants.
    wishes: [Wishes; 2],
    /// What the clock on the wall of each end says.
    clocks: [Duration; 2],
    watch: Watch,
    /// Of a run that is known to fail: what was done, and what the ends said to it.
    history: Option<Vec<String>>,
}

impl Run {
    fn new(seed: u64, told: bool) -> Self {
        let plan = Plan::new(seed);
        let simulation = plan.begin(Faults::default());
        let mut run = Self {
            begun: simulation.now,
            simulation,
            random: SeededRandom::new(seed),
            wishes: [plan.wishes(), plan.wishes()],
            clocks: [NOW; 2],
            watch: Watch::default(),
            history: told.then(|| vec![format!("{plan:?}")]),
            plan,
        };
        for node in [1, 0] {
            let home = run.plan.home(node);
            run.simulation.readdress(node, &home);
            run.configure(node);
        }
        run
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

    fn up_to(&mut self, time: Duration) -> Duration {
        Duration::from_millis(self.random.below(u64::try_from(time.as_millis()).unwrap()))
    }

    /// Tells a node, which may just have been started, what its operator wants.
    fn configure(&mut self, node: NodeId) {
        self.simulation.input(node, Input::WallClock(self.clocks[node]));
        let policies = self.plan.policies(node, &self.wishes[node]);
        self.simulation.configure(node, policies);
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

    /// One end takes a rule away, or has it again; or something of the peer is changed.
    fn reload(&mut self, node: NodeId) {
        let nth = self.index(self.plan.rules().len());
        let what = self.random.below(10);
        let wishes = &mut self.wishes[node];
        match what {
            0..2 => wishes.renewed = !wishes.renewed,
            2..4 => wishes.changed = !wishes.changed,
            _ => {
                if !wishes.rules.remove(&nth) {
                    wishes.rules.insert(nth);
                }
            }
        }
        let wishes = wishes.clone();
        self.tell(|| format!("{wishes:?}"));
        self.configure(node);
    }

    fn restart(&mut self, node: NodeId) {
        let seed = self.random.next();
        let mine = &self.simulation.nodes[node];
        let addresses = [&[mine.address], mine.others.as_slice()].concat();
        self.simulation.crash(node, seed);
        self.simulation.readdress(node, &addresses);
        self.configure(node);
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

    /// A node has some of its addresses, in any order; its own NAT is only before the first.
    fn change_addresses(&mut self, node: NodeId) {
        let mut all = [&[[A, B][node]], OTHERS[node].as_slice()].concat();
        let mut addresses = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let nth = self.index(all.len());
            addresses.push(all.swap_remove(nth));
        }
        self.tell(|| format!("{addresses:?}"));
        self.simulation.readdress(node, &addresses);
    }

    /// For some time nothing reaches an address, and nothing comes from there.
    fn cut_off(&mut self) -> Result<(), String> {
        let all = [&[A, B][..], &OTHERS.concat()].concat();
        let nth = self.index(all.len());
        let dead: IpAddr = all[nth];
        self.tell(|| format!("{dead} is cut off"));
        self.simulation.network.cut_off(dead);
        let wait = self.up_to(Duration::from_secs(60));
        self.pass(wait)?;
        self.simulation.network.connect(dead);
        Ok(())
    }

    /// A machine is suspended, and wakes.
    fn sleep(&mut self, node: NodeId) -> Result<(), String> {
        self.simulation.nodes[node].asleep = true;
        let longest = if self.random.percent(50) { 30 } else { 600 };
        let wait = self.up_to(Duration::from_secs(longest));
        self.pass(wait)?;
        self.simulation.nodes[node].asleep = false;
        Ok(())
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

    /// ESP comes to a node: that of its peer, or a copy of it that somebody sends from elsewhere.
    fn esp_seen(&mut self, node: NodeId) {
        if self.random.percent(50) {
            let seen = self.simulation.tell_source(1 - node);
            return self.tell(|| format!("ESP comes from {seen:?}"));
        }
        let children = &self.simulation.nodes[node].kernel.children;
        let Some(spi) = children.values().next().map(|c| c.inbound.spi) else { return };
        let port = u16::try_from(self.random.below(3)).unwrap_or(0);
        let from = SocketAddr::new(STRANGER, port);
        self.simulation.input(node, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
    }

    /// An end is a cluster, and another member of it takes over.
    fn fail_over(&mut self, node: NodeId) {
        let room = [0, 1, 20][self.index(3)];
        self.tell(|| format!("{room} message IDs are left out"));
        self.simulation.fail_over(node, room);
    }

    /// Somebody sets the clock on the wall: certificates may not be valid any more, or not yet.
    fn set_clock(&mut self, node: NodeId) {
        let clock = match self.random.below(4) {
            0 => NOW,
            1 => NOW + 5 * DAY,
            2 => NOW + 40 * DAY,
            _ => NOW - 40 * DAY,
        };
        self.tell(|| format!("{clock:?} since 1970"));
        self.clocks[node] = clock;
        self.simulation.input(node, Input::WallClock(clock));
    }

    fn operate(&mut self) -> Result<(), String> {
        let node = usize::from(self.random.percent(50));
        let operation = self.random.below(100);
        self.tell(|| format!("operation {operation} at node {node}"));
        match operation {
            0..24 => self.end_child(node, 0),
            24..28 => self.end_child(node, 1),
            28..32 => self.end_child(node, 2),
            32..40 => {
                let nth = self.index(self.plan.rules().len());
                let name = Plan::name(nth);
                match self.plan.packet(nth, &mut self.random).filter(|_| node == 0) {
                    Some([from, to]) => _ = self.simulation.send(node, &name, from, to),
                    None => self.simulation.acquire(node, &name),
                }
            }
            40..50 => self.reload(node),
            50..54 => self.restart(node),
            54..58 => {
                self.simulation.input(node, Input::Shutdown);
                let wait = self.up_to(Duration::from_secs(5));
                self.pass(wait)?;
                self.restart(node);
            }
            58..67 => self.change_network(),
            67..74 if self.plan.nat => {
                let nth = u8::try_from(self.random.below(4)).unwrap_or(0);
                self.plan.translate(&mut self.simulation, nth);
            }
            67..78 if self.plan.mobike => self.change_addresses(node),
            67..70 => self.change_addresses(node),
            70..79 => self.end_child(node, 0),
            79..80 | 94..95 => self.fail_over(node),
            80..83 => self.esp_seen(node),
            83..85 => self.cut_off()?,
            85..90 => self.refuse(node),
            90..94 => self.repeat_datagram(node)?,
            95..97 => self.sleep(node)?,
            // Both ends, and all between them, are held up.
            97..98 => {
                let held_up = self.up_to(Duration::from_secs(900));
                self.simulation.now += held_up;
            }
            _ => self.set_clock(node),
        }
        self.check()?;
        if self.random.percent(30) {
            self.simulation.exchange_traffic();
        }
        let wait = match self.random.below(100) {
            // The next operation meets this one.
            0..10 => return Ok(()),
            10..92 => self.up_to(Duration::from_secs(4)),
            _ => self.up_to(Duration::from_secs(120)),
        };
        self.pass(wait)
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
        self.watch.look(&self.simulation)
    }

    /// Both ends are where they were and want what they wanted, and the network is good: what is
    /// always up comes up, and both agree. Where SAs do not live long a moment without a change may
    /// have to be waited for.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.tell(|| "rest".to_owned());
        self.simulation.network.set_faults(Faults::default());
        for node in 0..2 {
            self.simulation.nodes[node].kernel.refusals.clear();
            (self.wishes[node], self.clocks[node]) = (self.plan.wishes(), NOW);
            self.simulation.readdress(node, &self.plan.home(node));
            self.configure(node);
        }
        self.pass(Duration::from_secs(400))?;
        let mut wrong = Vec::new();
        for _moment in 0..30 {
            // What only receives sends as well once it has received.
            let lost = self.simulation.exchange_traffic();
            self.pass(Duration::from_millis(300))?;
            wrong = invariants::at_rest(&self.plan, &self.simulation);
            wrong.extend(
                lost.iter().map(|(from, rule)| format!("node {from} lost a packet of {rule}")),
            );
            if wrong.is_empty() {
                return self.stay_at_rest();
            }
            self.pass(Duration::from_millis(400))?;
        }
        Err(wrong.join("\n"))
    }

    /// Where nothing is replaced because of its age nothing changes any more.
    fn stay_at_rest(&mut self) -> Result<(), String> {
        if !self.plan.is_lasting() {
            return Ok(());
        }
        let before = invariants::established(&self.simulation);
        self.pass(Duration::from_secs(120))?;
        let after = invariants::established(&self.simulation);
        if before != after {
            return Err(format!("at rest something goes on: {before:?}, then {after:?}"));
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<(), String> {
        self.pass(Duration::from_secs(5))?;
        self.change_network();
        for _ in 0..1 + self.random.below(OPERATIONS) {
            self.operate()?;
        }
        self.come_to_rest()?;
        invariants::over(&self.plan, &mut self.simulation)?;
        invariants::forgotten(&self.plan, &mut self.simulation)
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
    let firsts: Vec<_> = failed
        .iter()
        .map(|(seed, error)| format!("{seed}: {}", error.lines().next().unwrap_or_default()))
        .collect();
    panic!(
        "{} of {} runs fail; put them into seeds.txt:\n{}\nSIMULATION_SEED={seed} replays the \
         first: {error}",
        failed.len(),
        seeds.len(),
        firsts.join("\n")
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
        let proof = run.plan.proof;
        let (lengths, octets) = (proof.has_lengths_of_seed(), proof.is_replayed_to_the_octet());
        let sent = run.simulation.nodes.iter().map(|node| {
            let all = node.sent.iter();
            let told = all.map(|(path, o)| (*path, lengths.then_some(o.len()), o.clone()));
            told.map(|(path, len, o)| (path, len, octets.then_some(o))).collect::<Vec<_>>()
        });
        sent.collect::<Vec<_>>()
    };
    for seed in 0..40 {
        assert_eq!(sent(seed), sent(seed), "{seed}");
    }
}
