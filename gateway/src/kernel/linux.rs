//! The kernel that the daemon runs on.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use gateway_common::RuleCount;
use gateway_ike::algorithms::EspSuite;
use gateway_ike::config::{Mode, PolicySet, RuleName};
use gateway_ike::io::{
    ChildId, ChildSpec, Done, Ends, KernelCommand, KernelError, KernelEvent, SharedCookies,
    TrapSpec,
};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::bpf::{Claim, DataPath};
use super::claims::Owner;
use super::executor::{Tables, bpf_error, peer, side};
use super::links::{LinkStatus, Links, RouteWish};
use super::overhead::{overhead, worst_overhead};
use super::rules::{RuleIds, class_rules};
use super::setup::{self, KernelConfig, KernelSetupError};
use super::transaction::{
    Step, Undo, carry_out, inbound_steps, outbound_steps, take_back, trap_steps,
};
use super::usage::Seen;
use super::xfrm::{SaDirection, SaId, Survey};
use super::{Capabilities, Monitor};
use crate::clock;
use crate::complaints::Complaints;

/// XFRM, BPF maps and routes, joined: every command changes all of them, or none.
pub struct LinuxKernel {
    pub(super) config: KernelConfig,
    /// Nobody else puts programs in the place of ours.
    _claim: Claim,
    pub(super) capabilities: Capabilities,
    pub(super) tables: Tables,
    rule_ids: RuleIds,
    pub(super) children: BTreeMap<ChildId, Child>,
    pub(super) traps: BTreeMap<u32, Vec<Undo>>,
    pub(super) links: Links,
    /// The cookies that the XDP program was told of last.
    pub(super) cookies: Option<SharedCookies>,
    /// Whether somebody else has SAs in this kernel.
    pub(super) other_sas: bool,
    /// Passes on what the BPF programs log.
    log: Option<JoinHandle<()>>,
}

impl Drop for LinuxKernel {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

impl core::fmt::Debug for LinuxKernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LinuxKernel").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A Child SA that is installed.
pub(super) struct Child {
    pub(super) inbound: SaId,
    /// How to take away what receives.
    pub(super) undo_inbound: Vec<Undo>,
    /// What sends, if it is there, and how to take it away.
    pub(super) outbound: Option<(SaId, Vec<Undo>)>,
    pub(super) mode: Mode,
    pub(super) suite: EspSuite,
    /// Between which addresses it is to be.
    pub(super) ends: Ends,
    /// Between which addresses the kernel's SAs are: they may lag behind (`super::relocation`).
    pub(super) inbound_ends: Ends,
    pub(super) outbound_ends: Ends,
    /// When it was asked for its use last, and what the answer was.
    pub(super) seen: Option<Seen>,
}

impl Child {
    /// How to take all of it away: what sends first.
    fn undo(self) -> Vec<Undo> {
        // Undone last first.
        let outbound = self.outbound.map(|(_, undo)| undo).unwrap_or_default();
        self.undo_inbound.into_iter().chain(outbound).collect()
    }
}

impl LinuxKernel {
    /// Sets the kernel up, or takes over what an earlier run left: probes, creates or adopts the
    /// XFRM interface, loads the BPF programs, has them classify by `policies`, and only then
    /// attaches them. SAs, policies and routes that an earlier run left are removed; those of
    /// others (other `if_id`, other route protocol) are not touched.
    ///
    /// Must be called in a tokio runtime, by a thread in the right network namespace. `complaints`:
    /// the rate of log lines about what the kernel refuses.
    ///
    /// # Errors
    /// What is missing or in the way, in words that say what to do.
    pub async fn open(
        config: KernelConfig,
        policies: &PolicySet,
        complaints: Complaints,
    ) -> Result<(Self, Monitor), KernelSetupError> {
        setup::open(config, policies, complaints).await
    }

    pub(super) fn new(
        config: KernelConfig,
        claim: Claim,
        capabilities: Capabilities,
        tables: Tables,
        rule_ids: RuleIds,
        links: Links,
    ) -> Self {
        let (children, traps) = (BTreeMap::new(), BTreeMap::new());
        Self {
            config,
            _claim: claim,
            capabilities,
            tables,
            rule_ids,
            children,
            traps,
            links,
            cookies: None,
            other_sas: false,
            log: None,
        }
    }

    /// Begins to pass on what the BPF programs log, if they were loaded to do so.
    pub(super) fn follow_log(&mut self) {
        if let Some(log) = self.tables.data_path.take_log()
            && let Some(before) = self.log.replace(tokio::spawn(log.follow()))
        {
            before.abort();
        }
    }

    /// The underlays and the XFRM interface, as they are now.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status(&self.config.xfrm_interface, self.tables.xfrm_interface)
    }

    /// What was probed at start, and found of the exemption from NAT since.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The BPF programs and their counters.
    pub fn data_path(&mut self) -> &mut DataPath {
        &mut self.tables.data_path
    }

    /// What they counted, by rule.
    pub fn rule_counts(&self) -> Vec<(u32, RuleCount)> {
        self.tables.data_path.rule_counters().unwrap_or_else(|error| {
            if self.tables.complaints.take(clock::now()) {
                warn!(%error, "Cannot read the counters of the rules");
            }
            Vec::new()
        })
    }

    /// The rules by the numbers under which the BPF programs count them.
    pub fn rule_names(&self) -> impl Iterator<Item = (u32, &RuleName)> {
        self.rule_ids.names()
    }

    /// Executes a command, whole or not at all. Must be awaited to its end: a future that is
    /// dropped leaves half of it.
    ///
    /// # Errors
    /// As [`KernelError`] says; nothing has changed then.
    pub async fn execute(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        match command {
            KernelCommand::InstallTrap(spec) => self.install_trap(&spec).await,
            KernelCommand::RemoveTrap { reqid } => {
                let undo = self.traps.remove(&reqid).unwrap_or_default();
                take_back(&mut self.tables, undo).await.map(|()| Done::Ok)
            }
            KernelCommand::ForgetAcquire { reqid, seq } => self.forget_acquire(reqid, seq),
            KernelCommand::Classify(policies) => {
                let mut rule_ids = self.rule_ids.clone();
                let rules = class_rules(&policies, &mut rule_ids);
                self.tables.data_path.classify(&rules).map_err(|error| bpf_error(&error))?;
                self.rule_ids = rule_ids;
                Ok(Done::Ok)
            }
            KernelCommand::InstallChild(spec) => self.install_child(&spec).await,
            KernelCommand::InstallInbound(spec) => self.install_inbound(&spec).await,
            KernelCommand::InstallOutbound(spec) => self.install_outbound(&spec).await,
            KernelCommand::MoveChild { child, ends, gently } => {
                self.move_child(child, ends, gently).await
            }
            KernelCommand::RemoveOutbound { child } => {
                let outbound = self.children.get_mut(&child).and_then(|c| c.outbound.take());
                let undo = outbound.map(|(_, undo)| undo).unwrap_or_default();
                take_back(&mut self.tables, undo).await.map(|()| Done::Ok)
            }
            KernelCommand::RemoveChild { child } => {
                let undo = self.children.remove(&child).map(Child::undo);
                take_back(&mut self.tables, undo.unwrap_or_default()).await.map(|()| Done::Ok)
            }
            KernelCommand::FindLocalAddress { remote } => {
                self.local_address(remote).await.map(Done::LocalAddress)
            }
            KernelCommand::QueryUse { child } => self.query_use(child),
        }
    }

    async fn install_trap(&mut self, spec: &TrapSpec) -> Result<Done, KernelError> {
        let local = match spec.local {
            Some(local) => Some(local),
            // The kernel would look for it through the XFRM interface, where it is not to be found.
            None => self.local_address(spec.remote).await.map_or_else(
                |error| {
                    debug!(rule = %spec.rule, %error, "A trap is installed without local address");
                    None
                },
                Some,
            ),
        };
        let owner = Owner::Trap(spec.reqid);
        let overhead = worst_overhead(spec.mode, spec.remote.is_ipv6());
        let routes = match spec.mode {
            Mode::Tunnel => {
                let selectors = spec.selectors.clone();
                let wish = RouteWish { peer: spec.remote, overhead, selectors, assigned: false };
                self.routes(owner, wish).await
            }
            Mode::Transport => Vec::new(),
        };
        let ends = (local, spec.remote);
        let steps = trap_steps(spec.reqid, spec.mode, ends, &spec.selectors, routes)?;
        let done = carry_out(&mut self.tables, &steps).await?;
        let done: Vec<_> = done.into_iter().map(Undo::for_good).collect();
        // What the trap had before and has no more.
        let mut old = self.traps.remove(&spec.reqid).unwrap_or_default();
        old.retain(|undo| !done.contains(undo));
        self.traps.insert(spec.reqid, done);
        // The trap is what was asked for, even if something of the old one stays.
        let _logged = take_back(&mut self.tables, old).await;
        Ok(Done::Ok)
    }

    fn forget_acquire(&mut self, reqid: u32, seq: u32) -> Result<Done, KernelError> {
        let undo = self.traps.get(&reqid).into_iter().flatten();
        let mut policies = undo.filter_map(|undo| {
            let Undo::Policy(key, owner, _) = undo else { return None };
            Some((key.mode, *self.tables.policies.of(key, *owner)?))
        });
        // Without the trap there is nothing to be told of.
        let Some((mode, trap)) = policies.next() else { return Ok(Done::Ok) };
        self.tables.xfrm.forget_acquire(mode, &trap, seq).map(|()| Done::Ok).map_err(|error| {
            KernelError::Refused(format!("cannot forget the acquire {seq} of {reqid:#x}: {error}"))
        })
    }

    /// Installs a Child SA whole, or nothing of it.
    async fn install_child(&mut self, spec: &ChildSpec) -> Result<Done, KernelError> {
        self.install_inbound(spec).await?;
        let outcome = self.install_outbound(spec).await;
        if outcome.is_err()
            && let Some(child) = self.children.remove(&spec.child)
        {
            // What went wrong is the answer; what goes wrong after it is only logged.
            let _logged = take_back(&mut self.tables, child.undo()).await;
        }
        outcome
    }

    async fn install_inbound(&mut self, spec: &ChildSpec) -> Result<Done, KernelError> {
        if self.children.contains_key(&spec.child) {
            let number = spec.child.0;
            return Err(KernelError::Refused(format!("Child SA {number} is installed already")));
        }
        let inbound = sa_id(spec, SaDirection::Inbound);
        // Asked here, because the BPF entry comes before the SA and must not replace another's.
        if self.children.values().any(|child| child.inbound == inbound) {
            return Err(KernelError::SpiInUse);
        }
        if let Some(old) = spec.replaces.and_then(|old| self.children.get(&old)) {
            self.tables.data_path.follow(old.inbound.spi, inbound.spi);
        }
        let undo_inbound = self.carry_out(&inbound_steps(spec)?).await?;
        let child = Child {
            inbound,
            undo_inbound,
            outbound: None,
            mode: spec.mode,
            suite: spec.suite,
            ends: spec.ends(),
            inbound_ends: spec.ends(),
            outbound_ends: spec.ends(),
            seen: None,
        };
        self.children.insert(spec.child, child);
        Ok(Done::Ok)
    }

    async fn install_outbound(&mut self, spec: &ChildSpec) -> Result<Done, KernelError> {
        let outbound = sa_id(spec, SaDirection::Outbound);
        let mut present = self.children.values().filter_map(|child| child.outbound.as_ref());
        if present.any(|(id, _)| *id == outbound) {
            return Err(KernelError::Refused(format!("the outbound {outbound} exists already")));
        }
        let owner = Owner::Child(spec.child);
        let encapsulated = spec.encapsulation.is_some();
        let overhead = overhead(spec.suite, spec.mode, encapsulated, peer(spec).is_ipv6());
        let routes = match spec.mode {
            Mode::Tunnel => {
                let (selectors, assigned) = (spec.selectors.clone(), !spec.addresses.is_empty());
                let wish = RouteWish { peer: peer(spec), overhead, selectors, assigned };
                self.routes(owner, wish).await
            }
            Mode::Transport => Vec::new(),
        };
        let undo = self.carry_out(&outbound_steps(spec, routes)?).await?;
        match self.children.get_mut(&spec.child) {
            Some(child) => {
                child.outbound = Some((outbound, undo));
                child.outbound_ends = spec.ends();
                Ok(Done::Ok)
            }
            None => {
                let _logged = take_back(&mut self.tables, undo).await;
                Err(KernelError::NoSuchSa)
            }
        }
    }

    pub(super) async fn carry_out(&mut self, steps: &[Step<'_>]) -> Result<Vec<Undo>, KernelError> {
        let undo = carry_out(&mut self.tables, steps).await?;
        Ok(undo.into_iter().map(Undo::for_good).collect())
    }

    /// Our addresses on the underlays that are up, by which peers may reach us.
    pub async fn addresses(&self) -> Vec<IpAddr> {
        let network = &self.tables.network;
        let mut underlays = BTreeSet::new();
        for name in &self.config.interfaces {
            if let Ok(Some(interface)) = network.interface(name).await
                && interface.up
            {
                underlays.insert(interface.index);
            }
        }
        match network.addresses_by_interface().await {
            Ok(found) => {
                let ours = found.into_iter().filter(|(index, _)| underlays.contains(index));
                ours.map(|(_, address)| address).collect()
            }
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(%error, "Cannot list our addresses");
                }
                Vec::new()
            }
        }
    }

    async fn local_address(&self, remote: IpAddr) -> Result<IpAddr, KernelError> {
        let hop = self.tables.network.next_hop(remote).await;
        let hop = hop.map_err(|e| KernelError::Refused(format!("no route to {remote}: {e}")))?;
        hop.source.ok_or_else(|| {
            KernelError::Refused(format!("the route to {remote} has no source address"))
        })
    }

    /// Compares what the kernel has with what it should have, after events were lost: SAs that are
    /// gone, and what the kernel has said and will not say again.
    pub async fn resync(&mut self) -> Vec<KernelEvent> {
        let Survey { sas, mut events } = match self.tables.xfrm.survey() {
            Ok(survey) => survey,
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(%error, "Cannot list the SAs after events were lost");
                }
                return Vec::new();
            }
        };
        // Their keys were wiped when they had been installed: they cannot come back.
        let vanished = self.children.iter().filter(|(_, child)| {
            let outbound = child.outbound.as_ref().map(|(id, _)| id);
            core::iter::once(&child.inbound).chain(outbound).any(|id| !sas.contains(id))
        });
        events.extend(vanished.map(|(child, _)| KernelEvent::Vanished { child: *child }));
        // That of an SA of somebody else may have been among those that were lost.
        self.look_for_other_sas();
        events
    }

    /// Removes our SAs, policies and routes, for an orderly end. The BPF programs stay: they keep
    /// dropping what must not pass in the clear.
    pub async fn remove_everything_of_ours(&mut self) {
        self.stop_dropping();
        self.children.clear();
        self.traps.clear();
        self.tables.remove_all().await;
    }

    /// What the BPF programs counted, by reason.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        match self.tables.data_path.counters() {
            Ok(counters) => {
                counters.into_iter().map(|c| (c.reason.name().to_owned(), c.packets)).collect()
            }
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(%error, "Cannot read the counters of the BPF programs");
                }
                BTreeMap::new()
            }
        }
    }
}

fn sa_id(spec: &ChildSpec, direction: SaDirection) -> SaId {
    let sa = side(spec, direction);
    SaId { destination: sa.destination, spi: sa.spi }
}
