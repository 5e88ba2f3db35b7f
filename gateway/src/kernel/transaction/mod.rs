//! Several changes to the kernel as one: all, or none.
//!
//! A command is first written down as a list of [`Step`]s, in the order in which they are safe:
//! nothing may use what is not there yet. Each step that is carried out gives back its [`Undo`];
//! when one fails, those of the steps before it are carried out, last first. The undo list of a
//! command that succeeded is what removes it later.

use core::net::{IpAddr, SocketAddr};

use gateway_ike::config::{BREADTH_BITS, Mode};
use gateway_ike::io::{ChildSpec, Encapsulation, KernelError, Selector, kernel_decapsulates};
use tracing::warn;

use super::bpf;
use super::claims::{Owner, Rank};
use super::network::Route;
use super::xfrm::{
    PolicyDirection, PolicyKey, PolicyValue, SaDirection, SaId, SaMove, policy_keys,
};
use crate::clock;
use crate::complaints::Complaints;

/// One change, whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Lets the BPF programs know an SA: before it exists, so that its first packet passes.
    Entry(SaId, bpf::SaDirection),
    /// Has an inbound SA reached at another address of ours, too, as if its packets had been sent
    /// to where it is.
    Reach {
        /// The SA by that address.
        at: SaId,
        /// Where it is.
        to: IpAddr,
        /// From where the peer is expected to send there.
        from: SocketAddr,
    },
    /// Installs an SA.
    Sa(&'a ChildSpec, SaDirection),
    /// Has an SA go on between other addresses or ports.
    Move(SaMove),
    /// Claims a policy.
    Policy(PolicyKey, Owner, PolicyValue),
    /// Claims an address of ours on the XFRM interface.
    Address(IpAddr, Owner),
    /// Claims a route.
    Route(Owner, RouteValue),
}

/// How to take back a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undo {
    /// Nothing was done.
    Nothing,
    /// Lets the BPF programs forget an SA.
    Entry(SaId),
    /// Deletes an SA.
    Sa(SaId),
    /// Has an SA go back to where it was.
    Move(SaMove),
    /// Sets the owner's claim to a policy to what it was.
    Policy(PolicyKey, Owner, Option<PolicyValue>),
    /// Sets the owner's claim to an address to what it was.
    Address(IpAddr, Owner, Option<()>),
    /// Sets the owner's claim to a route to what it was.
    Route(ipnet::IpNet, Owner, Option<RouteValue>),
}

impl Undo {
    /// What takes the step back for good, when what was there before is wanted no more.
    pub(super) fn for_good(self) -> Self {
        match self {
            Self::Policy(key, owner, _) => Self::Policy(key, owner, None),
            Self::Address(address, owner, _) => Self::Address(address, owner, None),
            Self::Route(prefix, owner, _) => Self::Route(prefix, owner, None),
            // It is now where it would go back from.
            Self::Move(back) => Self::Sa(back.old()),
            Self::Nothing | Self::Entry(_) | Self::Sa(_) => self,
        }
    }
}

/// A route that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteValue {
    pub(super) route: Route,
    /// Whether its MTU is what was negotiated, and not the least there could be.
    pub(super) negotiated: bool,
}

impl Rank for RouteValue {
    /// What was negotiated before what was assumed, and of several the one whose packets fit all.
    fn rank(&self) -> u64 {
        u64::from(self.route.mtu).saturating_add(if self.negotiated { 0 } else { 1 << 32 })
    }
}

/// Carries out steps. The seam at which a test makes one of them fail.
pub(super) trait Executor {
    /// Carries out one step.
    async fn apply(&mut self, step: &Step<'_>) -> Result<Undo, KernelError>;

    /// Takes one back. What is gone already is no error.
    async fn undo(&mut self, undo: Undo) -> Result<(), KernelError>;

    /// The rate of log lines about what cannot be taken back.
    fn complaints(&self) -> &Complaints;
}

/// Carries out all steps, or none; gives back how to undo them, in the order of the steps.
pub(super) async fn carry_out(
    executor: &mut impl Executor,
    steps: &[Step<'_>],
) -> Result<Vec<Undo>, KernelError> {
    let mut done = Vec::with_capacity(steps.len());
    for step in steps {
        match executor.apply(step).await {
            Ok(undo) => done.push(undo),
            Err(error) => {
                // What went wrong is the answer; what goes wrong after it is only logged.
                let _logged = take_back(executor, done).await;
                return Err(error);
            }
        }
    }
    Ok(done)
}

/// Takes back what was done, last first, as far as that is possible; gives the first error.
pub(super) async fn take_back(
    executor: &mut impl Executor,
    done: Vec<Undo>,
) -> Result<(), KernelError> {
    let mut outcome = Ok(());
    for undo in done.into_iter().rev() {
        if let Err(error) = executor.undo(undo.clone()).await {
            if executor.complaints().take(clock::now()) {
                warn!(?undo, %error, "Cannot undo a change to the kernel");
            }
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

/// The steps by which a Child SA receives. A whole one gets these before those of
/// [`outbound_steps`], so that an answer to what is sent finds its SA.
///
/// The BPF entry first, so that no packet of the SA is dropped as unknown; the policies of what
/// comes in after the SA that they demand; last the addresses that the peer has assigned to us,
/// by which it is reached.
pub(super) fn inbound_steps(spec: &ChildSpec) -> Result<Vec<Step<'_>>, KernelError> {
    let directions: &[_] = match spec.mode {
        Mode::Tunnel => &[PolicyDirection::In, PolicyDirection::Forward],
        // A forwarded packet is never the payload of a transport mode SA (RFC 4301 4.1).
        Mode::Transport => &[PolicyDirection::In],
    };
    let mut steps = sa_steps(spec, SaDirection::Inbound, directions)?;
    if let Some(destination) = spec.reached_at {
        let at = SaId { destination, spi: spec.inbound.spi };
        let from = source_of(spec.inbound.source, spec.encapsulation);
        steps.insert(0, Step::Reach { at, to: spec.inbound.destination, from });
    }
    let owner = Owner::Child(spec.child);
    steps.extend(spec.addresses.iter().map(|address| Step::Address(*address, owner)));
    Ok(steps)
}

/// The steps by which a Child SA sends: the BPF entry, the SA, then the policies that make the
/// kernel use it; routes last, which bring traffic.
pub(super) fn outbound_steps(
    spec: &ChildSpec,
    routes: Vec<RouteValue>,
) -> Result<Vec<Step<'_>>, KernelError> {
    let mut steps = sa_steps(spec, SaDirection::Outbound, &[PolicyDirection::Out])?;
    let owner = Owner::Child(spec.child);
    steps.extend(routes.into_iter().map(|route| Step::Route(owner, route)));
    Ok(steps)
}

fn sa_steps<'a>(
    spec: &'a ChildSpec,
    direction: SaDirection,
    policies: &[PolicyDirection],
) -> Result<Vec<Step<'a>>, KernelError> {
    let sa = match direction {
        SaDirection::Inbound => &spec.inbound,
        SaDirection::Outbound => &spec.outbound,
    };
    let id = SaId { destination: sa.destination, spi: sa.spi };
    let strip = !kernel_decapsulates(spec.mode, spec.encapsulation);
    let entry = entry(direction, source_of(sa.source, spec.encapsulation), strip);
    let mut steps = vec![Step::Entry(id, entry), Step::Sa(spec, direction)];
    let owner = Owner::Child(spec.child);
    let value = |priority| PolicyValue {
        priority,
        reqid: sa.reqid,
        source: policy_source(sa.source, spec.mode, direction),
        destination: sa.destination,
    };
    for policy in policies {
        steps.extend(policy_steps(&spec.selectors, spec.mode, *policy, owner, value)?);
    }
    Ok(steps)
}

/// From where the ESP of a peer at this address comes: in UDP by its port for that, or bare.
pub(super) fn source_of(peer: IpAddr, encapsulation: Option<Encapsulation>) -> SocketAddr {
    SocketAddr::new(peer, encapsulation.map_or(0, |udp| udp.remote_port))
}

/// What the BPF programs are told of an SA. Of an inbound one `from`, from where it is expected to
/// come, and `strip`, unless the kernel has it with an encapsulation template: without NAT, too,
/// since a peer may use UDP even where we see none (RFC 7296 2.23).
pub(super) const fn entry(
    direction: SaDirection,
    from: SocketAddr,
    strip: bool,
) -> bpf::SaDirection {
    match direction {
        SaDirection::Inbound => bpf::SaDirection::Inbound { strip, from },
        SaDirection::Outbound => bpf::SaDirection::Outbound,
    }
}

/// The source that a policy demands of an SA. In tunnel mode what comes in is judged by the SA
/// alone: its source is that which the peer had when the SA was made, and the peer may move.
pub(super) const fn policy_source(
    source: IpAddr,
    mode: Mode,
    direction: SaDirection,
) -> Option<IpAddr> {
    match (mode, direction) {
        (Mode::Tunnel, SaDirection::Inbound) => None,
        (Mode::Tunnel, SaDirection::Outbound) | (Mode::Transport, _) => Some(source),
    }
}

/// The steps that install a trap: outbound only, since only what we send can ask for an SA, and
/// clear packets that come in are the guard's business.
pub(super) fn trap_steps(
    reqid: u32,
    mode: Mode,
    (source, destination): (Option<IpAddr>, IpAddr),
    selectors: &[(Selector, u32)],
    routes: Vec<RouteValue>,
) -> Result<Vec<Step<'static>>, KernelError> {
    let owner = Owner::Trap(reqid);
    let value = |priority| PolicyValue { priority, reqid, source, destination };
    let mut steps = policy_steps(selectors, mode, PolicyDirection::Out, owner, value)?;
    steps.extend(routes.into_iter().map(|route| Step::Route(owner, route)));
    Ok(steps)
}

/// The policies of the selectors in one direction, each with its [`priority`].
fn policy_steps(
    selectors: &[(Selector, u32)],
    mode: Mode,
    direction: PolicyDirection,
    owner: Owner,
    value: impl Fn(u32) -> PolicyValue,
) -> Result<Vec<Step<'static>>, KernelError> {
    let mut best = std::collections::BTreeMap::<PolicyKey, u32>::new();
    for (selector, precedence) in selectors {
        let priority = priority(selector, *precedence, owner);
        let keys = policy_keys(selector, mode, direction)
            .map_err(|error| KernelError::Unsupported(error.to_string()))?;
        for key in keys {
            // Selectors may share a block of ports; the owner has one claim to each.
            let lowest = best.entry(key).or_insert(priority);
            *lowest = (*lowest).min(priority);
        }
    }
    let step = |(key, priority)| Step::Policy(key, owner, value(priority));
    Ok(best.into_iter().map(step).collect())
}

/// The priority of a policy, of which the lowest applies: first by precedence, as the classifier has
/// it; at the same place the Child SAs go before the trap, and of them what selects less first.
///
/// Policies of the two families never meet, and over IPv4 there are fewer precedences. What 32 bits
/// leave for each of them is shared out over what may be selected within it: over IPv4 that tells Child
/// SAs apart by (nearly) each bit of their prefixes, over IPv6 by every fifth at the worst, and by each
/// where a rule leaves little open.
fn priority(selector: &Selector, precedence: u32, owner: Owner) -> u32 {
    const PRIORITIES: u32 = 1 << 16;
    let breadths = u32::from(selector.local.max_prefix_len()).saturating_mul(2).saturating_add(1);
    let breadths = breadths.saturating_mul(4);
    // 252 over IPv4, 63 over IPv6.
    let places = u32::MAX.checked_div(PRIORITIES.saturating_mul(breadths)).unwrap_or(1);
    let last = places.saturating_sub(1);
    let chosen = precedence >> BREADTH_BITS;
    let breadth = precedence & ((1 << BREADTH_BITS) - 1);
    let within = breadth.saturating_add(1);
    let place = match owner {
        Owner::Trap(_) => last,
        Owner::Child(_) => {
            let selected = selector.breadth().min(breadth);
            selected.saturating_mul(last).checked_div(within).unwrap_or(0)
        }
    };
    let rules_before = chosen.saturating_mul(breadths).saturating_add(breadth);
    rules_before.saturating_mul(places).saturating_add(place)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod tests;
