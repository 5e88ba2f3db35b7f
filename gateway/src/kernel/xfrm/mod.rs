//! The kernel's IPsec databases: security associations (SAD) and policies (SPD).
//!
//! What [`Xfrm`] installs for tunnel mode carries one `if_id`, and a reqid of [`REQIDS`]. What it
//! installs for transport mode carries the reqid alone, since it does not go through the XFRM
//! interface: there the packet would have its size already, and the stack could neither make room
//! for the overhead nor fragment the result. All else belongs to somebody else: it is not listed
//! and cannot be deleted from here.

mod decode;
mod encode;
mod keys;
mod relocate;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod tests;

use core::fmt;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use gateway_ike::config::Mode;
use gateway_ike::io::{ChildSpec, KernelEvent, REQIDS, Selector};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::{
    UserSaInfo, XFRM_MODE_TRANSPORT, XFRM_MSG_ALLOCSPI, XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA,
    XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_MSG_UPDPOLICY,
    XFRM_MSG_UPDSA,
};
use zeroize::Zeroizing;

pub use self::decode::Usage;
pub(super) use self::decode::{event, is_of_others};
pub use self::encode::decapsulation;
pub use self::keys::{AlgorithmKey, SaKeys};
pub use self::relocate::{Moved, SaEnds, SaMove};
use super::claims::Rank;
use super::netlink::Connection;
pub use super::netlink::NetlinkError;
pub use super::ports::PortBlock;
use super::ports::port_blocks;
use crate::clock;

/// Policies that one selector may need for its port ranges.
pub const MAX_BLOCKS: usize = 32;

/// What identifies an SA in the kernel (RFC 4301 4.1); the protocol is always ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SaId {
    /// Outer destination.
    pub destination: IpAddr,
    /// SPI in host order.
    pub spi: u32,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SA {:08x} to {}", self.spi, self.destination)
    }
}

/// Which of the two SAs of a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SaDirection {
    /// From the peer to us.
    Inbound,
    /// From us to the peer.
    Outbound,
}

/// Where a policy applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyDirection {
    /// To packets for this host.
    In,
    /// To packets that leave, forwarded ones too.
    Out,
    /// To packets that came in and are forwarded.
    Forward,
}

/// What identifies a policy in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The mode that the SA must have: what the kernel tells apart is the `if_id`, which follows
    /// from it.
    pub mode: Mode,
    /// Where it applies.
    pub direction: PolicyDirection,
    /// Source prefix, without host bits.
    pub source: IpNet,
    /// Destination prefix, without host bits; of the same family.
    pub destination: IpNet,
    /// IP protocol; `None`: any.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: PortBlock,
    /// Destination ports.
    pub destination_ports: PortBlock,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            PolicyDirection::In => "in",
            PolicyDirection::Out => "out",
            PolicyDirection::Forward => "fwd",
        };
        write!(f, "policy {direction} {} -> {}", self.source, self.destination)?;
        self.protocol.map_or(Ok(()), |protocol| write!(f, " proto {protocol}"))?;
        for (side, ports) in [("sport", self.source_ports), ("dport", self.destination_ports)] {
            if ports != PortBlock::ALL {
                write!(f, " {side} {}/{:04x}", ports.value, ports.mask)?;
            }
        }
        Ok(())
    }
}

/// What a policy demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyValue {
    /// The lowest number applies where policies overlap.
    pub priority: u32,
    /// The request ID that the SA must have.
    pub reqid: u32,
    /// The SA's outer source; `None`: any.
    pub source: Option<IpAddr>,
    /// The SA's outer destination.
    pub destination: IpAddr,
}

impl Rank for PolicyValue {
    fn rank(&self) -> u64 {
        self.priority.into()
    }
}

/// A selector that XFRM cannot express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The prefixes are of different families.
    #[error("{0}: prefixes of two address families")]
    Families(Box<Selector>),
    /// The port ranges fall into too many blocks.
    #[error("{selector}: the port ranges need {blocks} XFRM policies, more than {MAX_BLOCKS}")]
    Ports {
        /// The selector.
        selector: Box<Selector>,
        /// How many policies it would need in each direction.
        blocks: usize,
    },
}

/// The policies in one direction that together select what the selector does.
///
/// # Errors
/// The prefixes differ in family, or the port ranges need more than [`MAX_BLOCKS`] policies.
pub fn policy_keys(
    selector: &Selector,
    mode: Mode,
    direction: PolicyDirection,
) -> Result<Vec<PolicyKey>, SelectorError> {
    if selector.local.addr().is_ipv4() != selector.remote.addr().is_ipv4() {
        return Err(SelectorError::Families(Box::new(selector.clone())));
    }
    let local_ports = port_blocks(&selector.local_ports);
    let remote_ports = port_blocks(&selector.remote_ports);
    let blocks = local_ports.len().saturating_mul(remote_ports.len());
    if blocks > MAX_BLOCKS {
        return Err(SelectorError::Ports { selector: Box::new(selector.clone()), blocks });
    }
    let pairs = local_ports.iter().flat_map(|l| remote_ports.iter().map(move |r| (*l, *r)));
    let (local, remote) = (selector.local.trunc(), selector.remote.trunc());
    let key = |(local_ports, remote_ports)| match direction {
        PolicyDirection::Out => PolicyKey {
            mode,
            direction,
            source: local,
            destination: remote,
            protocol: selector.protocol,
            source_ports: local_ports,
            destination_ports: remote_ports,
        },
        PolicyDirection::In | PolicyDirection::Forward => PolicyKey {
            mode,
            direction,
            source: remote,
            destination: local,
            protocol: selector.protocol,
            source_ports: remote_ports,
            destination_ports: local_ports,
        },
    };
    Ok(pairs.map(key).collect())
}

/// How to tell what is ours in the kernel's IPsec databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ours {
    /// The `if_id` of the XFRM interface; not 0.
    pub(super) if_id: u32,
}

impl Ours {
    /// The `if_id` of SAs and policies of a mode; `None`: they have none.
    const fn if_id(self, mode: Mode) -> Option<u32> {
        match mode {
            Mode::Tunnel => Some(self.if_id),
            Mode::Transport => None,
        }
    }

    /// Whether something with this `if_id` (0: none), mode and reqid is ours.
    fn has(self, if_id: u32, mode: u8, reqid: u32) -> bool {
        if_id == self.if_id || if_id == 0 && mode == XFRM_MODE_TRANSPORT && REQIDS.contains(&reqid)
    }
}

/// What [`Xfrm::survey`] finds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every SA of ours, larval ones excepted.
    pub sas: BTreeSet<SaId>,
    /// An acquire for each larval SA: it waits for an answer, and until it expires the kernel
    /// raises no other. A soft expire for each SA beyond a soft limit, of which the kernel tells
    /// once. Either may have been told before.
    pub events: Vec<KernelEvent>,
}

/// The kernel's IPsec databases, as far as they are ours.
pub struct Xfrm {
    connection: Connection,
    ours: Ours,
    output_mark: u32,
    state_direction: bool,
}

impl fmt::Debug for Xfrm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xfrm").field("ours", &self.ours).finish_non_exhaustive()
    }
}

impl Xfrm {
    /// Opens a netlink socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no XFRM, or refuses the socket.
    pub fn open(if_id: u32) -> io::Result<Self> {
        let (connection, ours) = (Connection::open()?, Ours { if_id });
        Ok(Self { connection, ours, output_mark: 0, state_direction: false })
    }

    /// Sets the firewall mark of what the outbound SAs send; 0: none.
    pub fn set_output_mark(&mut self, mark: u32) {
        self.output_mark = mark;
    }

    /// Tells whether SAs are to carry their direction: kernels since 6.10 then check that an SA
    /// is used in that direction only.
    pub fn set_state_direction(&mut self, supported: bool) {
        self.state_direction = supported;
    }

    /// Installs one SA of a Child SA.
    ///
    /// # Errors
    /// `EEXIST`: there is one with this SPI and destination; `ENOSYS`, `EPROTONOSUPPORT`: the
    /// kernel lacks the algorithm, or ESP.
    pub fn add_sa(&mut self, spec: &ChildSpec, direction: SaDirection) -> Result<(), NetlinkError> {
        let (mark, state_direction) = (self.output_mark, self.state_direction);
        let message = encode::sa(spec, direction, self.ours, mark, state_direction);
        self.connection.execute(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Has an SA go on between other addresses or ports, with all that it has: keys, limits, how
    /// far they are used up, sequence number and replay window.
    ///
    /// # Errors
    /// There is no such SA of ours ([`NetlinkError::is_absent`]); there is one already where it is
    /// to go (`EEXIST`); it has too few sequence numbers left; the kernel hides its keys. The SA is
    /// where it was.
    pub fn move_sa(&mut self, sa: &SaMove) -> Result<Moved, NetlinkError> {
        let state = self.state(sa.old())?;
        if sa.keeps_addresses() {
            let message = relocate::sa(&state, sa, 0)?;
            self.connection.execute(XFRM_MSG_UPDSA, 0, &message)?;
            return Ok(Moved::Replaced);
        }
        relocate::check_keys(&state)?;
        let gap = sa.gap();
        let message = relocate::sa(&state, sa, gap)?;
        if sa.direction == SaDirection::Outbound && sa.old() != sa.target() {
            self.connection.execute(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, &message)?;
            return Ok(Moved::Beside);
        }
        // The kernel has room for one of a name; and of two that receive, both would take what is
        // sent again by somebody else.
        let back = relocate::sa(&state, &sa.back(), gap)?;
        self.connection.execute(XFRM_MSG_DELSA, 0, &encode::sa_id(sa.old()))?;
        let outcome = self.connection.execute(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, &message);
        if outcome.is_err() {
            self.connection.execute(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, &back)?;
        }
        outcome.map(|()| Moved::Replaced)
    }

    /// An SA of ours as the kernel shows it, keys and all.
    fn state(&mut self, id: SaId) -> Result<Zeroizing<Vec<u8>>, NetlinkError> {
        let ours = self.ours;
        let state = self.connection.get(XFRM_MSG_GETSA, &encode::sa_id(id), |message| {
            let found = decode::sa(&message, ours)?;
            Some(found.map(|_| Zeroizing::new(message.body.to_vec())))
        })?;
        state.ok_or_else(not_ours)
    }

    /// Deletes an SA.
    ///
    /// # Errors
    /// There is none ([`NetlinkError::is_absent`]), or it is not ours.
    pub fn delete_sa(&mut self, id: SaId) -> Result<(), NetlinkError> {
        // DELSA heeds neither if_id nor reqid: whose SA it is must be asked first.
        self.usage(id)?;
        self.connection.execute(XFRM_MSG_DELSA, 0, &encode::sa_id(id))
    }

    /// Deletes the larval state that an acquire has left behind, and with it the kernel's patience:
    /// as long as there is one for the request ID and the addresses of a policy, whatever meets that
    /// is dropped without another acquire (`xfrm_state_look_at`). `trap`: the policy, of this mode.
    ///
    /// # Errors
    /// The kernel refuses it. That there is no such state any more is none.
    pub fn forget_acquire(
        &mut self,
        mode: Mode,
        trap: &PolicyValue,
        seq: u32,
    ) -> Result<(), NetlinkError> {
        self.delete_larval(encode::larval(mode, trap, seq))
    }

    /// The same for all acquires of ours.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn forget_acquires(&mut self) -> Result<(), NetlinkError> {
        let ours = self.ours;
        let all = self.connection.dump(XFRM_MSG_GETSA, &encode::everything(), |message| {
            decode::larval(&message, ours)
        })?;
        all.into_iter().try_for_each(|larval| self.delete_larval(larval))
    }

    /// Only by an SPI can a state be deleted, so it is given one first. Where there is no such state
    /// another is made (`xfrm_find_acq`), which goes at once.
    fn delete_larval(&mut self, larval: UserSaInfo) -> Result<(), NetlinkError> {
        let ours = self.ours;
        let named = encode::any_spi(larval, ours);
        let id = self.connection.get(XFRM_MSG_ALLOCSPI, &named, |message| {
            Some(decode::sa(&message, ours)?.map(|(id, _)| id))
        })?;
        self.connection.execute(XFRM_MSG_DELSA, 0, &encode::sa_id(id.ok_or_else(not_ours)?))
    }

    /// What went through an SA.
    ///
    /// # Errors
    /// There is no such SA of ours ([`NetlinkError::is_absent`]).
    pub fn usage(&mut self, id: SaId) -> Result<Usage, NetlinkError> {
        let ours = self.ours;
        let usage = self.connection.get(XFRM_MSG_GETSA, &encode::sa_id(id), |message| {
            Some(decode::sa(&message, ours)?.map(|(_, usage)| usage))
        })?;
        usage.ok_or_else(not_ours)
    }

    /// What went through each SA of ours.
    ///
    /// # Errors
    /// The kernel refuses the dump, or says something that cannot be read: it may have been an SA.
    pub fn usages(&mut self) -> Result<BTreeMap<SaId, Usage>, NetlinkError> {
        let ours = self.ours;
        let found = self.connection.dump(XFRM_MSG_GETSA, &encode::everything(), |message| {
            decode::usage(&message, ours).transpose()
        })?;
        found.into_iter().collect()
    }

    /// The keys of every SA of ours. SAs of which the kernel hides them are left out.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn keys(&mut self) -> Result<Vec<SaKeys>, NetlinkError> {
        let ours = self.ours;
        self.connection
            .dump(XFRM_MSG_GETSA, &encode::everything(), |message| keys::sa(&message, ours))
    }

    /// Every SA of ours, larval ones excepted.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn sas(&mut self) -> Result<Vec<SaId>, NetlinkError> {
        let ours = self.ours;
        self.connection.dump(XFRM_MSG_GETSA, &encode::everything(), |message| {
            decode::sa(&message, ours).flatten().map(|(id, _)| id).filter(|id| id.spi != 0)
        })
    }

    /// Whether somebody else has ESP SAs.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn others_have_sas(&mut self) -> Result<bool, NetlinkError> {
        let ours = self.ours;
        let others = self.connection.dump(XFRM_MSG_GETSA, &encode::everything(), |message| {
            is_of_others(&message, ours).then_some(())
        })?;
        Ok(!others.is_empty())
    }

    /// What the kernel has of ours, and what it has told, or was about to, if that was lost.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn survey(&mut self) -> Result<Survey, NetlinkError> {
        let (ours, now) = (self.ours, clock::unix_seconds());
        let seen = self.connection.dump(XFRM_MSG_GETSA, &encode::everything(), |message| {
            decode::seen(&message, ours, now)
        })?;
        let mut survey = Survey::default();
        for seen in seen {
            match seen {
                decode::Seen::Larval(event) => survey.events.push(event),
                decode::Seen::Sa(id, event) => {
                    survey.sas.insert(id);
                    survey.events.extend(event);
                }
            }
        }
        Ok(survey)
    }

    /// Installs a policy that is not there yet.
    ///
    /// # Errors
    /// `EEXIST`: there is one with this selector, direction and `if_id`, perhaps of somebody else.
    pub fn add_policy(&mut self, key: &PolicyKey, value: &PolicyValue) -> Result<(), NetlinkError> {
        let message = encode::policy(key, value, self.ours);
        self.connection.execute(XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Exchanges a policy for another in one step.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn replace_policy(
        &mut self,
        key: &PolicyKey,
        value: &PolicyValue,
    ) -> Result<(), NetlinkError> {
        let message = encode::policy(key, value, self.ours);
        self.connection.execute(XFRM_MSG_UPDPOLICY, 0, &message)
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// There is none ([`NetlinkError::is_absent`]).
    pub fn delete_policy(&mut self, key: &PolicyKey) -> Result<(), NetlinkError> {
        self.connection.execute(XFRM_MSG_DELPOLICY, 0, &encode::policy_id(key, self.ours))
    }

    /// Every policy of ours with its priority.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn policies(&mut self) -> Result<Vec<(PolicyKey, u32)>, NetlinkError> {
        let ours = self.ours;
        self.connection.dump(XFRM_MSG_GETPOLICY, &encode::everything(), |message| {
            decode::policy(&message, ours)
        })
    }
}

/// What is somebody else's is as good as absent.
fn not_ours() -> NetlinkError {
    NetlinkError::Refused {
        source: io::Error::from_raw_os_error(libc::ESRCH),
        words: Some("the SA with this SPI is not ours".to_owned()),
    }
}
