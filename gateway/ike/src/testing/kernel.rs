//! A kernel that keeps what it is told, and refuses when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::PolicySet;
use crate::io::{ChildId, ChildSpec, ChildUse, Done, KernelCommand, KernelError, TrapSpec};

/// What the next installation meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It goes well.
    None,
    /// This error.
    Error(KernelError),
    /// Nothing is heard of it.
    Silence,
}

/// SAD, SPD and classifier in memory.
#[derive(Debug)]
pub struct FakeKernel {
    /// Our addresses: the first of its family leads to an address of a peer.
    pub addresses: Vec<IpAddr>,
    /// What is installed, whole or as far as it receives.
    pub children: BTreeMap<ChildId, ChildSpec>,
    /// Those that send, oldest first: the last one for some traffic is used.
    pub outbound: Vec<ChildId>,
    /// Packets that have come in.
    pub received: BTreeMap<ChildId, u64>,
    /// Packets that have gone out.
    pub sent: BTreeMap<ChildId, u64>,
    /// Traps by request ID.
    pub traps: BTreeMap<u32, TrapSpec>,
    /// The rules that the classifier has.
    pub classified: Option<Arc<PolicySet>>,
    /// What the next installations meet; empty: all go well.
    pub refusals: VecDeque<Refusal>,
    /// Every command by name, for assertions on order.
    pub history: Vec<String>,
    /// The answer to questions for the last use.
    pub idle_inbound: Option<std::time::Duration>,
    /// Whether it says nothing to questions for the use.
    pub keeps_use: bool,
}

impl FakeKernel {
    /// A kernel with nothing in it.
    #[must_use]
    pub const fn new(addresses: Vec<IpAddr>) -> Self {
        Self {
            addresses,
            children: BTreeMap::new(),
            outbound: Vec::new(),
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            traps: BTreeMap::new(),
            classified: None,
            refusals: VecDeque::new(),
            history: Vec::new(),
            idle_inbound: None,
            keeps_use: false,
        }
    }

    /// Does what a real one would, or what [`Self::refusals`] says; `None`: no answer comes.
    pub fn execute(&mut self, command: KernelCommand) -> Option<Result<Done, KernelError>> {
        if matches!(
            command,
            KernelCommand::InstallChild(_)
                | KernelCommand::InstallInbound(_)
                | KernelCommand::MoveChild { .. }
        ) {
            match self.refusals.pop_front() {
                Some(Refusal::Error(error)) => return Some(Err(error)),
                Some(Refusal::Silence) => return None,
                Some(Refusal::None) | None => {}
            }
        }
        if self.keeps_use && matches!(command, KernelCommand::QueryUse { .. }) {
            return None;
        }
        Some(self.obey(command))
    }

    fn obey(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        match command {
            KernelCommand::InstallTrap(trap) => {
                self.history.push(format!("install trap {}", trap.rule));
                self.traps.insert(trap.reqid, trap);
                Ok(Done::Ok)
            }
            KernelCommand::RemoveTrap { reqid } => {
                self.history.push(format!("remove trap {reqid}"));
                self.traps.remove(&reqid);
                Ok(Done::Ok)
            }
            KernelCommand::ForgetAcquire { reqid, .. } => {
                self.history.push(format!("forget acquire {reqid}"));
                Ok(Done::Ok)
            }
            KernelCommand::Classify(policies) => {
                self.history.push("classify".to_owned());
                self.classified = Some(policies);
                Ok(Done::Ok)
            }
            KernelCommand::InstallChild(spec) => {
                self.history.push(format!("install child {}", spec.rule));
                self.outbound.push(spec.child);
                self.install(*spec)
            }
            KernelCommand::InstallInbound(spec) => {
                self.history.push(format!("install inbound {}", spec.rule));
                self.install(*spec)
            }
            KernelCommand::InstallOutbound(spec) => {
                self.history.push(format!("install outbound {}", spec.rule));
                if self.children.get(&spec.child) != Some(&*spec) {
                    return Err(KernelError::NoSuchSa);
                }
                self.outbound.push(spec.child);
                Ok(Done::Ok)
            }
            KernelCommand::MoveChild { child, ends, gently } => {
                let how = if gently { " gently" } else { "" };
                self.history.push(format!("move child {}{how}", child.0));
                let moved = self.children.get_mut(&child).ok_or(KernelError::NoSuchSa)?;
                moved.set_ends(ends);
                Ok(Done::Ok)
            }
            KernelCommand::RemoveOutbound { child } => {
                self.history.push(format!("remove outbound {}", child.0));
                self.outbound.retain(|c| *c != child);
                Ok(Done::Ok)
            }
            KernelCommand::RemoveChild { child } => {
                self.history.push(format!("remove child {}", child.0));
                self.children.remove(&child);
                self.received.remove(&child);
                self.sent.remove(&child);
                self.outbound.retain(|c| *c != child);
                Ok(Done::Ok)
            }
            KernelCommand::FindLocalAddress { remote } => {
                let fits = |address: &&IpAddr| address.is_ipv4() == remote.is_ipv4();
                let found = self.addresses.iter().find(fits).copied();
                let none = || KernelError::Refused(format!("no route to {remote}"));
                found.map(Done::LocalAddress).ok_or_else(none)
            }
            KernelCommand::QueryUse { child } => {
                if !self.children.contains_key(&child) {
                    return Err(KernelError::NoSuchSa);
                }
                Ok(Done::Use(ChildUse {
                    idle_inbound: self.idle_inbound,
                    bytes_in: 0,
                    bytes_out: 0,
                    packets_in: self.received.get(&child).copied().unwrap_or(0),
                    packets_out: self.sent.get(&child).copied().unwrap_or(0),
                }))
            }
        }
    }

    fn install(&mut self, spec: ChildSpec) -> Result<Done, KernelError> {
        if self.children.values().any(|c| c.inbound.spi == spec.inbound.spi) {
            self.outbound.retain(|c| *c != spec.child);
            return Err(KernelError::SpiInUse);
        }
        self.children.insert(spec.child, spec);
        Ok(Done::Ok)
    }
}
