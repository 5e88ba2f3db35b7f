//! Carries out the steps of a transaction on the kernel itself.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use gateway_ike::io::{ChildSpec, KernelError, SaSpec};
use ipnet::IpNet;
use tracing::{info, warn};

use super::bpf::{self, BpfError, DataPath};
use super::claims::{Change, Claims, Owner};
use super::nat::NatExemption;
use super::network::Network;
use super::transaction::{Executor, RouteValue, Step, Undo};
use super::xfrm::{Moved, NetlinkError, PolicyKey, PolicyValue, SaDirection, SaId, SaMove, Xfrm};
use crate::clock;
use crate::complaints::Complaints;

/// The kernel's tables that hold something of ours, and what of it is shared between owners.
pub(super) struct Tables {
    pub(super) xfrm: Xfrm,
    pub(super) network: Network,
    pub(super) data_path: DataPath,
    /// While it is in force.
    pub(super) nat: Option<NatExemption>,
    pub(super) policies: Claims<PolicyKey, PolicyValue>,
    pub(super) routes: Claims<IpNet, RouteValue>,
    /// Addresses of ours on the XFRM interface.
    pub(super) addresses: Claims<IpAddr, ()>,
    /// The index of that interface.
    pub(super) xfrm_interface: u32,
    pub(super) complaints: Complaints,
}

impl Executor for Tables {
    async fn apply(&mut self, step: &Step<'_>) -> Result<Undo, KernelError> {
        match step {
            Step::Entry(id, direction) => self.insert_entry(*id, *direction),
            Step::Reach { at, to, from } => {
                let reach = self.data_path.reach_sa_at(at.destination, at.spi, *to, *from);
                reach.map(|()| Undo::Entry(*at)).map_err(|error| bpf_error(&error))
            }
            Step::Move(sa) => self.move_sa(sa),
            Step::Sa(spec, direction) => self.add_sa(spec, *direction),
            Step::Policy(key, owner, value) => {
                let previous = self.claim_policy(key, *owner, Some(*value))?;
                Ok(Undo::Policy(*key, *owner, previous))
            }
            Step::Address(address, owner) => self.add_address(*owner, *address).await,
            Step::Route(owner, value) => self.add_route(*owner, *value).await,
        }
    }

    fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    async fn undo(&mut self, undo: Undo) -> Result<(), KernelError> {
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Entry(SaId { destination, spi }) => {
                match self.data_path.remove_sa(destination, spi) {
                    Ok(_known) => Ok(()),
                    Err(error) => Err(bpf_error(&error)),
                }
            }
            // It may have expired by itself.
            Undo::Sa(id) => match self.xfrm.delete_sa(id) {
                Err(error) if !error.is_absent() => Err(refused("delete", &id, &error)),
                Ok(()) | Err(_) => Ok(()),
            },
            Undo::Move(back) => self.move_sa(&back).map(drop),
            Undo::Policy(key, owner, previous) => {
                self.claim_policy(&key, owner, previous)?;
                Ok(())
            }
            Undo::Address(address, owner, previous) => {
                let (change, _) = self.addresses.set(&address, owner, previous);
                self.change_address(address, &change).await.map_err(|error| {
                    KernelError::Refused(format!("cannot take back the address {address}: {error}"))
                })
            }
            Undo::Route(prefix, owner, previous) => {
                let (change, _) = self.routes.set(&prefix, owner, previous);
                self.change_route(prefix, change).await.map_err(|error| {
                    KernelError::Refused(format!("cannot take back the route {prefix}: {error}"))
                })
            }
        }
    }
}

impl Tables {
    fn insert_entry(&mut self, id: SaId, direction: bpf::SaDirection) -> Result<Undo, KernelError> {
        let SaId { destination, spi } = id;
        let entry = bpf::Sa { destination, spi, direction };
        self.data_path.insert_sa(&entry).map_err(|error| bpf_error(&error))?;
        Ok(Undo::Entry(id))
    }

    fn move_sa(&mut self, sa: &SaMove) -> Result<Undo, KernelError> {
        match self.xfrm.move_sa(sa) {
            Ok(Moved::Beside) => Ok(Undo::Sa(sa.target())),
            Ok(Moved::Replaced) => Ok(Undo::Move(sa.back())),
            Err(error) if error.is_absent() => Err(KernelError::NoSuchSa),
            Err(error) => Err(refused("move", &sa.old(), &error)),
        }
    }

    /// The SA is not read back: with the ACK it is there. `xfrm_add_sa` has then made it with its
    /// algorithms and keys (`xfrm_state_construct`) and has put it, under `xfrm_state_lock`, where no
    /// other had its SPI and destination (`xfrm_state_add`: that is what NEWSA means, whatever
    /// `NLM_F_EXCL` says, which the kernel does not look at); all that fails comes back as an errno.
    /// A read could show but one thing more, an attribute that the kernel has skipped because it
    /// does not know it: those are sent only where `probe` has read one back from an SA of its own.
    fn add_sa(&mut self, spec: &ChildSpec, direction: SaDirection) -> Result<Undo, KernelError> {
        let sa = side(spec, direction);
        let id = SaId { destination: sa.destination, spi: sa.spi };
        match self.xfrm.add_sa(spec, direction) {
            Ok(()) => Ok(Undo::Sa(id)),
            // Only the inbound SPI is ours to choose again.
            Err(error)
                if error.errno() == Some(libc::EEXIST) && direction == SaDirection::Inbound =>
            {
                Err(KernelError::SpiInUse)
            }
            Err(error) => match error.errno() {
                Some(libc::ENOSYS | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => {
                    Err(KernelError::Unsupported(format!("ESP with {}: {error}", spec.suite)))
                }
                _ => Err(refused("install", &id, &error)),
            },
        }
    }

    /// Changes a claim and the kernel with it; on failure neither has changed.
    fn claim_policy(
        &mut self,
        key: &PolicyKey,
        owner: Owner,
        value: Option<PolicyValue>,
    ) -> Result<Option<PolicyValue>, KernelError> {
        let (change, previous) = self.policies.set(key, owner, value);
        let (verb, outcome) = match change {
            Change::Keep => return Ok(previous),
            Change::Add(value) => ("install", self.xfrm.add_policy(key, &value)),
            Change::Replace(value) => ("replace", self.xfrm.replace_policy(key, &value)),
            Change::Remove => (
                "delete",
                match self.xfrm.delete_policy(key) {
                    Err(error) if error.is_absent() => Ok(()),
                    outcome => outcome,
                },
            ),
        };
        outcome.map(|()| previous).map_err(|error| {
            self.policies.set(key, owner, previous);
            refused(verb, key, &error)
        })
    }

    /// Makes an address ours, unless it is somebody's on the same interface: then it stays so.
    async fn add_address(&mut self, owner: Owner, address: IpAddr) -> Result<Undo, KernelError> {
        let (change, previous) = self.addresses.set(&address, owner, Some(()));
        match self.change_address(address, &change).await {
            Ok(()) => Ok(Undo::Address(address, owner, previous)),
            Err(error) => {
                self.addresses.set(&address, owner, previous);
                if error.raw_os_error() == Some(libc::EEXIST) {
                    if self.complaints.take(clock::now()) {
                        info!(%address, "The XFRM interface has this address already");
                    }
                    return Ok(Undo::Nothing);
                }
                Err(KernelError::Refused(format!("cannot add the address {address}: {error}")))
            }
        }
    }

    async fn change_address(&self, address: IpAddr, change: &Change<()>) -> std::io::Result<()> {
        let index = self.xfrm_interface;
        match change {
            Change::Keep | Change::Replace(()) => Ok(()),
            Change::Add(()) => self.network.add_address(index, address).await,
            Change::Remove => self.network.delete_address(index, address).await,
        }
    }

    /// Sees to it that the XFRM interface has our addresses, after it has been made anew.
    pub(super) async fn restore_addresses(&self) {
        for address in self.addresses.keys() {
            match self.change_address(*address, &Change::Add(())).await {
                Err(error)
                    if error.raw_os_error() != Some(libc::EEXIST)
                        && self.complaints.take(clock::now()) =>
                {
                    warn!(%address, %error, "Cannot give the XFRM interface our address again");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Adds a route, unless somebody else has one to the same prefix: that one stays, and traffic
    /// takes it, encrypted all the same.
    async fn add_route(&mut self, owner: Owner, value: RouteValue) -> Result<Undo, KernelError> {
        let prefix = value.route.prefix;
        let (change, previous) = self.routes.set(&prefix, owner, Some(value));
        let is_new = matches!(change, Change::Add(_));
        match self.change_route(prefix, change).await {
            Ok(()) => Ok(Undo::Route(prefix, owner, previous)),
            Err(error) => {
                self.routes.set(&prefix, owner, previous);
                if is_new && error.raw_os_error() == Some(libc::EEXIST) {
                    if self.complaints.take(clock::now()) {
                        info!(%prefix, "Another route to this prefix is left as it is");
                    }
                    return Ok(Undo::Nothing);
                }
                Err(KernelError::Refused(format!("cannot add {}: {error}", value.route)))
            }
        }
    }

    /// Sees to it that the kernel has these routes of ours, which may have gone with an interface.
    /// Those that it will not take are given back with its reason.
    pub(super) async fn restore_routes(
        &mut self,
        wanted: &[(Owner, RouteValue)],
    ) -> std::io::Result<Vec<(RouteValue, std::io::Error)>> {
        let present: BTreeSet<IpNet> = self.network.our_routes().await?.into_iter().collect();
        // First all claims, and then the kernel: what is best is known only then.
        let mut before = BTreeMap::new();
        for (owner, value) in wanted {
            let prefix = value.route.prefix;
            before.entry(prefix).or_insert_with(|| self.routes.effective(&prefix).copied());
            self.routes.set(&prefix, *owner, Some(*value));
        }
        let mut refused = Vec::new();
        for (prefix, before) in before {
            let Some(best) = self.routes.effective(&prefix).copied() else { continue };
            let change = match (present.contains(&prefix), before == Some(best)) {
                (true, true) => Change::Keep,
                (true, false) => Change::Replace(best),
                (false, _) => Change::Add(best),
            };
            if let Err(error) = self.change_route(prefix, change).await {
                refused.push((best, error));
            }
        }
        Ok(refused)
    }

    async fn change_route(
        &mut self,
        prefix: IpNet,
        change: Change<RouteValue>,
    ) -> std::io::Result<()> {
        let mtu = match change {
            Change::Keep => return Ok(()),
            Change::Add(RouteValue { route, .. }) => {
                self.network.set_route(&route, false).await?;
                self.data_path.set_mtu(prefix, route.mtu)
            }
            Change::Replace(RouteValue { route, .. }) => {
                self.network.set_route(&route, true).await?;
                self.data_path.set_mtu(prefix, route.mtu)
            }
            Change::Remove => {
                match self.network.delete_route(prefix).await {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                self.data_path.forget_mtu(prefix)
            }
        };
        // The route says it all the same, to senders that hear of packets too big.
        if let Err(error) = mtu
            && self.complaints.take(clock::now())
        {
            warn!(%prefix, %error, "TCP's segment sizes are not lowered as far as they could be");
        }
        Ok(())
    }

    /// Takes away every SA, policy, route and address of ours, whoever of us installed it.
    pub(super) async fn remove_all(&mut self) {
        let failed = |what: &str, error: &dyn core::fmt::Display| {
            warn!(what, %error, "Cannot remove what is ours from the kernel");
        };
        self.routes.clear();
        match self.network.our_routes().await {
            Ok(prefixes) => {
                for prefix in prefixes {
                    if let Err(error) = self.change_route(prefix, Change::Remove).await {
                        failed("route", &error);
                    }
                }
            }
            Err(error) => failed("routes", &error),
        }
        if let Err(error) = self.data_path.forget_mtus() {
            failed("MTUs", &error);
        }
        self.addresses.clear();
        match self.network.our_addresses(self.xfrm_interface).await {
            Ok(addresses) => {
                for address in addresses {
                    if let Err(error) = self.change_address(address, &Change::Remove).await {
                        failed("address", &error);
                    }
                }
            }
            Err(error) => failed("addresses", &error),
        }
        self.policies.clear();
        match self.xfrm.policies() {
            Ok(policies) => {
                for (key, _) in policies {
                    if let Err(error) = self.xfrm.delete_policy(&key) {
                        failed("policy", &error);
                    }
                }
            }
            Err(error) => failed("policies", &error),
        }
        // What an earlier run was asked for nobody will answer.
        if let Err(error) = self.xfrm.forget_acquires() {
            failed("acquires", &error);
        }
        match self.xfrm.sas() {
            Ok(sas) => {
                for id in sas {
                    if let Err(error) = self.xfrm.delete_sa(id) {
                        failed("SA", &error);
                    }
                }
            }
            Err(error) => failed("SAs", &error),
        }
        match self.data_path.sas() {
            Ok(entries) => {
                for bpf::Sa { destination, spi, .. } in entries {
                    if let Err(error) = self.data_path.remove_sa(destination, spi) {
                        failed("BPF entry", &error);
                    }
                }
            }
            Err(error) => failed("BPF entries", &error),
        }
    }
}

/// One side of a Child SA.
pub(super) fn side(spec: &ChildSpec, direction: SaDirection) -> &SaSpec {
    match direction {
        SaDirection::Inbound => &spec.inbound,
        SaDirection::Outbound => &spec.outbound,
    }
}

fn refused(verb: &str, what: &dyn core::fmt::Display, error: &NetlinkError) -> KernelError {
    KernelError::Refused(format!("cannot {verb} {what}: {error}"))
}

/// A BPF failure as the endpoint is told it.
pub(super) fn bpf_error(error: &BpfError) -> KernelError {
    if let BpfError::Rule(rule) = error {
        KernelError::Unsupported(rule.to_string())
    } else {
        KernelError::Refused(error.to_string())
    }
}

/// The peer's outer address and ours, as seen from a Child SA.
pub(super) fn peer(spec: &ChildSpec) -> IpAddr {
    spec.outbound.destination
}
