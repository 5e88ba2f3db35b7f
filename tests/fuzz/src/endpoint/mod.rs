//! Two endpoints that talk to each other while somebody between them does what the input says:
//! sends octets of his own, repeats, changes, cuts and withholds theirs, and lets time pass; who
//! has the keys of one end besides; and what an operator and a kernel may do.
//!
//! The first octets choose the two ends, as a seed does in the simulation of gateway-ike; each
//! further one is an operation, which takes its arguments from the octets that follow. In the end
//! both ends are shut down, and nothing may be left of what there was.

mod attacks;
mod operations;

use core::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::PolicySet;
use gateway_ike::testing::{Faults, NodeId, Simulation};

use crate::certificates::NOW;
use crate::octets::Octets;
use crate::plan::{OTHERS, Plan, Wishes};
use crate::{A, B, heap};

/// Operations in one run, so that none takes long.
const STEPS: usize = 96;
/// Octets of the heap that two endpoints may keep when all is over: the room of queues that have
/// become empty, that of outputs above all. That no table has an entry left they say themselves.
const SLACK: usize = 64 * 1024;
/// IKE SAs that an end may have beside those that others have begun.
const OWN_IKE_SAS: usize = 16;

/// Two ends, and what has been done to them.
struct Run {
    plan: Plan,
    simulation: Simulation,
    /// What the operator of each end wants.
    wishes: [Wishes; 2],
    /// What the clock on the wall of each end says.
    clocks: [Duration; 2],
    /// A flood's next initiator SPI, and the seed of the next start.
    next: u64,
    /// All policies are taken away before the end, so that all must end by itself.
    unwanted: bool,
}

/// Does all that an input says.
///
/// # Panics
/// Something does not hold that must.
pub fn run(input: &[u8]) {
    let leaks = || {
        let before = heap::in_use();
        run_once(input);
        heap::in_use().saturating_sub(before)
    };
    // What is made once for all, such as certificates, is made in the first run.
    if leaks() > 0 {
        let leaked = leaks();
        assert_eq!(leaked, 0, "octets stay when both ends are gone");
    }
}

fn run_once(input: &[u8]) {
    let mut octets = Octets(input);
    let mut run = Run::new(&mut octets);
    run.go_on(&mut octets);
    run.end();
}

impl Run {
    /// The two ends that an input chooses.
    fn new(octets: &mut Octets<'_>) -> Self {
        let (seed, choice) = (u64::from(octets.one()), octets.one());
        let mut plan = Plan::draw(seed, octets);
        let config = &mut plan.config;
        // So small that an input can reach them.
        (config.half_open_limit, config.half_open_address_limit) = (48, 24);
        (config.ike_sa_limit, config.job_limit) = (96, 64);
        config.kernel_keepalives = choice & 2 != 0;
        let simulation = plan.begin(Faults::default());
        let wishes = [plan.wishes(), plan.wishes()];
        let unwanted = choice & 1 != 0;
        let mut run = Self { plan, simulation, wishes, clocks: [NOW; 2], next: 1, unwanted };
        for node in [1, 0] {
            let home = run.plan.home(node);
            run.simulation.readdress(node, &home);
            run.configure(node);
        }
        run
    }

    /// Does the operations of an input.
    fn go_on(&mut self, octets: &mut Octets<'_>) {
        for _ in 0..STEPS {
            if octets.0.is_empty() {
                break;
            }
            self.step(octets);
            self.check();
        }
    }

    /// Tells a node, which may just have been started, what its operator wants.
    fn configure(&mut self, node: NodeId) {
        self.simulation.input(node, Input::WallClock(self.clocks[node]));
        let policies = self.plan.policies(node, &self.wishes[node]);
        self.simulation.configure(node, policies);
    }

    /// Far fewer steps are enough for a minute of two hosts.
    fn pass(&mut self, time: Duration) {
        let steps = self.simulation.run(time);
        assert!(steps < 100_000, "it does not come to rest");
    }

    /// What must hold at every moment.
    fn check(&self) {
        let violations = self.simulation.violations();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        let config = &self.plan.config;
        for node in &self.simulation.nodes {
            let status = node.endpoint.status(self.simulation.now);
            let most = config.ike_sa_limit + OWN_IKE_SAS;
            assert!(status.ike_sas.len() <= most, "{} IKE SAs", status.ike_sas.len());
            let most = config.half_open_limit;
            assert!(status.half_open <= most, "{} half-open IKE SAs", status.half_open);
            for sa in &status.ike_sas {
                // Each may be replaced at the moment.
                let most = 2 * config.child_sa_limit;
                assert!(sa.children.len() <= most, "{} Child SAs", sa.children.len());
            }
        }
    }

    /// Ends both nodes, on a good network and with a kernel that obeys: neither has anything left,
    /// and neither holds more memory than one that has seen nothing.
    fn end(mut self) {
        self.wind_up();
        let used = held(self.simulation);
        let mut fresh = self.plan.begin(Faults::default());
        fresh.wind_up().unwrap();
        let fresh = held(fresh);
        assert!(used <= fresh + SLACK, "{used} octets are left where {fresh} were");
    }

    fn wind_up(&mut self) {
        let simulation = &mut self.simulation;
        simulation.network.set_faults(Faults::default());
        for address in [A, B].into_iter().chain(OTHERS.concat()) {
            simulation.network.connect(address);
        }
        for node in &mut simulation.nodes {
            node.kernel.refusals.clear();
            node.asleep = false;
        }
        if self.unwanted {
            self.simulation.answer_late();
            for node in 0..2 {
                self.simulation.configure(node, PolicySet::default());
            }
            self.pass(Duration::from_secs(600));
            self.check();
            for node in 0..2 {
                let left = self.simulation.remains(node);
                assert!(
                    left.is_empty(),
                    "node {node}, of which nobody wants anything, has {left:?}"
                );
            }
        }
        self.simulation.wind_up().unwrap_or_else(|left| panic!("{left}"));
    }
}

/// Octets that endpoints hold, when all around them is gone.
fn held(simulation: Simulation) -> usize {
    let endpoints: Vec<_> = simulation.nodes.into_iter().map(|node| node.endpoint).collect();
    let before = heap::in_use();
    drop(endpoints);
    before - heap::in_use()
}
