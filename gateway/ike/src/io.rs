//! What goes into the endpoint and what comes out: owned data, no handles.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU32;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::sync::Arc;

use gateway_common::CookieSecret;
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::algorithms::EspSuite;
use crate::config::{ChildLifetime, Mode, PeerName, PolicySet, PortRange, RuleName, breadth};
use crate::event::Event;

/// Where a datagram came from and to, or is to be sent. The 4500 framing (RFC 3948 non-ESP
/// marker) follows from the local port and is added and removed by the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.local, self.remote)
    }
}

/// What the endpoint is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// An IKE message arrived; the non-ESP marker of port 4500 has been removed.
    Datagram {
        /// From where and to where.
        path: Path,
        /// The message, from the first octet of the IKE header.
        octets: &'a [u8],
    },
    /// The kernel's answer to an [`Output::Kernel`].
    CommandDone(CommandId, Result<Done, KernelError>),
    /// The kernel tells something by itself.
    Kernel(KernelEvent),
    /// The operator's wishes, whole: at start, and again after each successful reload.
    Policies(Arc<PolicySet>),
    /// What the wall clock says, as time since 1970. It is for the validity of certificates, which
    /// none has before this is known; it goes on with the time that the other inputs come with,
    /// and is to be told again when it may have been set.
    WallClock(Duration),
    /// Our addresses that lead to peers, whenever they have changed: with MOBIKE an IKE SA whose
    /// address is gone goes on from another, and the peer hears where else we are.
    LocalAddresses(Vec<IpAddr>),
    /// Delete every SA in good order; [`crate::Endpoint::is_closed`] says when that is done.
    Shutdown,
    /// The time of [`crate::Endpoint::next_timeout`] has come. Harmless when it has not.
    Timeout,
}

/// What the endpoint wants done. There is one queue, in order: a command that stands before a
/// datagram must have been executed, and its result handed in, before the datagram is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send an IKE message; a local port of 4500 means that the non-ESP marker is prepended.
    Transmit {
        /// From where and to where.
        path: Path,
        /// The message, from the first octet of the IKE header.
        octets: Vec<u8>,
    },
    /// Send the one octet that keeps a NAT's mapping alive (RFC 3948 2.3), without a marker.
    Keepalive {
        /// From our port 4500 to the peer's.
        path: Path,
    },
    /// ESP with this SPI may come before its SA is installed, since the peer may send as soon as it
    /// has answered what is transmitted next: until then it is to be kept, unread and bounded.
    Expect {
        /// The address of ours to which it comes.
        local: IpAddr,
        /// The SPI in host order.
        spi: u32,
    },
    /// There will be no SA with this SPI: what has come for it is nobody's. Of one that is installed
    /// this is not said.
    ExpectNoMore {
        /// The SPI in host order.
        spi: u32,
    },
    /// Have the kernel do something, and hand in the result.
    Kernel(CommandId, KernelCommand),
    /// Have what is in front of us make and accept these cookies from now on; only with
    /// [`EndpointConfig::shares_cookies`](crate::config::EndpointConfig::shares_cookies).
    Cookies(SharedCookies),
    /// Something that an operator may want to read.
    Event(Event),
}

/// How IKE_SA_INIT requests show that their initiators are where they say (RFC 7296 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedCookies {
    /// The secret whose cookies are made, and the one whose cookies are accepted too.
    pub secrets: [CookieSecret; 2],
    /// Whether everybody must return a cookie.
    pub demand: bool,
}

/// Our number for an IKE SA: never reused, in every log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSaId(pub u64);

impl fmt::Display for IkeSaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Our number for a Child SA: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// Ties an answer of the kernel to the command it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// The request IDs that an endpoint gives. In the kernel a policy or SA of transport mode is known as
/// ours by them; strongSwan (from 1), libreswan (from 16384), Cilium (1) and the kernel
/// itself (from 16384) do not come near.
pub const REQIDS: RangeInclusive<u32> = 0x6700_0000..=0x67ff_ffff;

/// The inbound SPIs of SAs that the kernel takes out of UDP itself ([`kernel_decapsulates`]), and of no
/// others: whoever sees ESP in UDP before its SA is looked up can tell by the SPI whose it is.
pub const KERNEL_SPIS: RangeInclusive<u32> = 0xf000_0000..=u32::MAX;

/// Whether what comes in by such an SA is taken out of UDP by the kernel, with the ESP. It must be so
/// in transport mode: the checksums inside are for the addresses that the sender has, and
/// `esp_input_done2` takes them for right if it is known that there was a NAT, which the
/// encapsulation template says (RFC 7296 2.23.1, RFC 3948 3.1.2). Else the UDP header is gone before.
#[must_use]
pub const fn kernel_decapsulates(mode: Mode, encapsulation: Option<Encapsulation>) -> bool {
    matches!(mode, Mode::Transport) && encapsulation.is_some()
}

/// What the kernel must do, whole or not at all. Commands are executed in the order in which
/// they leave the endpoint, and each is answered by exactly one [`crate::Input::CommandDone`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelCommand {
    /// Policies of a `protect` rule towards a peer whose address is known: traffic without an SA
    /// raises an acquire and is dropped. Replaces the trap of the same `reqid`.
    InstallTrap(TrapSpec),
    /// Takes away the policies of a trap.
    RemoveTrap {
        /// The `reqid` of the trap.
        reqid: u32,
    },
    /// What a packet that met a trap waited for is there: the kernel is to tell of the next one. As
    /// long as it remembers the acquire, it raises no other for any traffic of the trap.
    ForgetAcquire {
        /// The `reqid` of the trap.
        reqid: u32,
        /// The acquire's.
        seq: u32,
    },
    /// Makes the TC programs classify by these rules from now on, in one swap.
    Classify(Arc<PolicySet>),
    /// Installs the SAs, policies, routes and BPF entries of a Child SA.
    InstallChild(Box<ChildSpec>),
    /// Installs what receives: the inbound SA, its BPF entry, and the policies of what comes in.
    InstallInbound(Box<ChildSpec>),
    /// Adds what sends to a Child SA of [`Self::InstallInbound`], by the same specification: from
    /// now on traffic leaves by it.
    InstallOutbound(Box<ChildSpec>),
    /// Has a Child SA, or what is there of it, go on between other addresses or ports: keys,
    /// sequence numbers and replay window stay, and no number is used twice. As long as the address
    /// that it leaves is ours it is reached there, too. One in transport mode has its addresses in its
    /// selectors and can go to other ports only.
    MoveChild {
        /// Which.
        child: ChildId,
        /// Where it goes on.
        ends: Ends,
        /// Whether the path that it leaves still carries: then what sends may stay on it as long as
        /// only our own address differs. A successor is made for the new path, and until it is
        /// there nothing has to be taken away.
        gently: bool,
    },
    /// Takes away what sends; what receives stays until [`Self::RemoveChild`].
    RemoveOutbound {
        /// Whose.
        child: ChildId,
    },
    /// Takes all of it away. Unknown children are not an error.
    RemoveChild {
        /// Whose.
        child: ChildId,
    },
    /// Asks the routing table from which of our addresses the peer is reached, when the operator
    /// has not said: [`Done::LocalAddress`].
    FindLocalAddress {
        /// The peer's outer address.
        remote: IpAddr,
    },
    /// Asks for [`Done::Use`].
    QueryUse {
        /// Whose.
        child: ChildId,
    },
}

/// Policies without SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrapSpec {
    /// The rule, for logs.
    pub rule: RuleName,
    /// The rule's request ID, which the acquire will carry. Nothing that sends has it.
    pub reqid: u32,
    /// Outer source address; `None`: let the kernel's routing choose (tunnel mode resolves it when installing).
    pub local: Option<IpAddr>,
    /// Outer destination address.
    pub remote: IpAddr,
    /// Tunnel or transport.
    pub mode: Mode,
    /// What is selected, each with its precedence ([`crate::config::Rule::precedence`]).
    pub selectors: Vec<(Selector, u32)>,
}

/// Selected traffic as XFRM can express it: one pair of prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Prefix on our side.
    pub local: IpNet,
    /// Prefix on the other side; of the same family.
    pub remote: IpNet,
    /// IP protocol number; `None`: any.
    pub protocol: Option<u8>,
    /// Ports on our side.
    pub local_ports: PortRange,
    /// Ports on the other side.
    pub remote_ports: PortRange,
}

impl Selector {
    /// How much it selects, in the last [`BREADTH_BITS`](crate::config::BREADTH_BITS) bits: a selector
    /// that lies in another has less.
    #[must_use]
    pub fn breadth(&self) -> u32 {
        let ports = [&self.local_ports, &self.remote_ports];
        breadth(&self.local, &self.remote, self.protocol, ports)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, net: &IpNet, ports: &PortRange| {
            write!(f, "{net}")?;
            if *ports == crate::config::ALL_PORTS {
                Ok(())
            } else if ports.start() == ports.end() {
                write!(f, ":{}", ports.start())
            } else {
                write!(f, ":{}-{}", ports.start(), ports.end())
            }
        };
        side(f, &self.local, &self.local_ports)?;
        f.write_str(" == ")?;
        side(f, &self.remote, &self.remote_ports)?;
        self.protocol.map_or(Ok(()), |p| write!(f, " proto {p}"))
    }
}

/// Everything the kernel must know of a Child SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// Ours.
    pub child: ChildId,
    /// The one that goes when this one stands, at rekeying.
    pub replaces: Option<ChildId>,
    /// The rule it serves, for logs.
    pub rule: RuleName,
    /// Tunnel or transport.
    pub mode: Mode,
    /// From the peer to us.
    pub inbound: SaSpec,
    /// From us to the peer.
    pub outbound: SaSpec,
    /// What was negotiated.
    pub suite: EspSuite,
    /// What was agreed to be protected, each with the precedence of what the rule has around it; what
    /// the rule has for a part of it comes once more, with the precedence of that.
    pub selectors: Vec<(Selector, u32)>,
    /// Addresses that the peer has assigned to us: they are ours while one of its Child SAs is
    /// installed.
    pub addresses: Vec<IpAddr>,
    /// Another address of ours, of the same family, at which the inbound SA is to be reached too:
    /// we have come from there, and the peer may not have followed yet.
    pub reached_at: Option<IpAddr>,
    /// The peer, by which whoever reads [`Self::name_servers`] is told who said so.
    pub peer: PeerName,
    /// Name servers that the peer has told us, at most 8, in its order; for as long as its
    /// addresses.
    pub name_servers: Vec<IpAddr>,
    /// The UDP ports of ESP-in-UDP (ours, the peer's), where NAT was found or is forced.
    pub encapsulation: Option<Encapsulation>,
    /// Replay window in packets.
    pub replay_window: u32,
    /// Soft limits, with jitter where the kernel alone counts; hard ones lie a tenth above.
    pub lifetime: ChildLifetime,
}

impl ChildSpec {
    /// Between which addresses it is.
    #[must_use]
    pub const fn ends(&self) -> Ends {
        Ends {
            local: self.outbound.source,
            remote: self.outbound.destination,
            encapsulation: self.encapsulation,
        }
    }

    /// Puts it between other addresses.
    pub const fn set_ends(&mut self, ends: Ends) {
        self.outbound.source = ends.local;
        self.outbound.destination = ends.remote;
        self.inbound.source = ends.remote;
        self.inbound.destination = ends.local;
        self.encapsulation = ends.encapsulation;
    }
}

/// One direction of a Child SA.
#[derive(Clone, PartialEq, Eq)]
pub struct SaSpec {
    /// Security parameter index in host order; at least 256.
    pub spi: u32,
    /// The request ID, in the SA and in the policies that demand it. What receives has the rule's;
    /// what sends shares one with those of the rule that protect the same, and with nothing else:
    /// the kernel takes any SA of a policy's request ID.
    pub reqid: u32,
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// Encryption key, followed by the salt for an AEAD, as KEYMAT gave it (RFC 7296 2.17).
    pub encryption_key: Zeroizing<Vec<u8>>,
    /// Integrity key; empty for an AEAD.
    pub integrity_key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SaSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaSpec")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("source", &self.source)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// ESP in UDP (RFC 3948).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encapsulation {
    /// Our UDP port.
    pub local_port: u16,
    /// The peer's UDP port, as its NAT shows it.
    pub remote_port: u16,
    /// Seconds without a packet after which the kernel is to send the octet that keeps the mapping
    /// of our NAT alive (RFC 3948 4); `None`: it sends none.
    pub keepalive: Option<NonZeroU32>,
}

/// Between which addresses, and in UDP or not, the ESP of a Child SA travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's; of the same family.
    pub remote: IpAddr,
    /// The UDP ports, if ESP is sent in UDP.
    pub encapsulation: Option<Encapsulation>,
}

impl Ends {
    /// The same without keepalives of the kernel.
    #[must_use]
    pub fn without_keepalive(self) -> Self {
        let encapsulation = self.encapsulation.map(|e| Encapsulation { keepalive: None, ..e });
        Self { encapsulation, ..self }
    }
}

/// A good answer of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The command was executed.
    Ok,
    /// The answer to [`KernelCommand::FindLocalAddress`].
    LocalAddress(IpAddr),
    /// The answer to [`KernelCommand::QueryUse`].
    Use(ChildUse),
}

/// What has gone through a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildUse {
    /// Time since the last packet came in on the SA; `None`: none has yet.
    pub idle_inbound: Option<Duration>,
    /// Octets received.
    pub bytes_in: u64,
    /// Octets sent.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
}

/// A bad answer of the kernel. Whatever the command had done has been undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The kernel lacks what the command needs, such as an algorithm or ESP itself.
    #[error("not supported by this kernel: {0}")]
    Unsupported(String),
    /// Another SA has this SPI: choose another.
    #[error("the SPI is in use")]
    SpiInUse,
    /// There is no such SA (any more).
    #[error("no such SA")]
    NoSuchSa,
    /// Any other refusal, in words: what was tried, on what, and the system's error.
    #[error("{0}")]
    Refused(String),
}

/// What the kernel tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// Traffic met a trap without an SA.
    Acquire {
        /// Of the trap.
        reqid: u32,
        /// The kernel's number for its larval state, by which it is forgotten.
        seq: u32,
        /// The packet's inner source address.
        source: IpAddr,
        /// The packet's inner destination address.
        destination: IpAddr,
        /// The packet's IP protocol.
        protocol: u8,
        /// The packet's source port, 0 if none.
        source_port: u16,
        /// The packet's destination port, 0 if none.
        destination_port: u16,
    },
    /// An SA reached a limit.
    Expire {
        /// The SA's SPI in host order.
        spi: u32,
        /// The SA's destination.
        destination: IpAddr,
        /// Whether the kernel has deleted it (hard limit).
        hard: bool,
    },
    /// ESP for this inbound SPI came from another address or port than before. Unauthenticated:
    /// it may only start a liveness exchange.
    PeerMoved {
        /// The inbound SPI in host order.
        spi: u32,
        /// The new source; port 0: not in UDP.
        from: SocketAddr,
    },
    /// SAs of ours are gone without our doing, found by a resync after events were lost.
    Vanished {
        /// Whose.
        child: ChildId,
    },
}
