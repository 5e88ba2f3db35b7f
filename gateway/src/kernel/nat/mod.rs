//! Keeps this host's own NAT from what the rules select.
//!
//! Netfilter changes a packet's source in POSTROUTING, before TC egress sees it. On a host that
//! masquerades what it forwards, as container hosts do, a rule for the prefix of the containers would
//! then never match, and what it protects would leave in the clear. So an nftables table of ours
//! stands before every NAT there, for what leaves by an underlay or the XFRM interface:
//!
//! - A new connection that a rule selects is given the source that it has, which settles its NAT:
//!   the kernel asks no other chain after that (`nf_nat_inet_fn`).
//! - Packets of a connection that NAT has given another source before are dropped, if a rule
//!   selects them by their own.
//!
//! In the other direction netfilter changes a packet's destination in PREROUTING, after TC ingress has
//! seen it: a clear packet for a published port would come to what a rule protects. What arrives by an
//! underlay, not out of an SA, and has been changed there is judged again, by the destination that it
//! has got.
//!
//! What a rule selects is asked of a BPF program, by the match `bpf`: of the same maps as at TC. The
//! table outlives the gateway, as all that guards does.

mod message;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket,
    protocols::NETLINK_NETFILTER,
};
use tracing::{info, warn};

use self::message::{Family, batch};
use super::bpf::DataPath;
use super::netlink::{NLMSG_ERROR, NetlinkError, messages, outcome};
use crate::clock;
use crate::complaints::Complaints;

/// Octets that one receive call can take: more than the kernel puts into one datagram.
const RECEIVE_LEN: usize = 64 * 1024;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFNLGRP_NFTABLES: u32 = 7;

/// `NFT_TABLE_F_OWNER` and `NFT_TABLE_F_PERSIST` (6.9): only the socket that made the table may
/// change it, so that `nft flush ruleset` leaves it alone; and it stays when the socket is closed.
const OWNED: u32 = 2 | 4;

/// The programs that the table asks.
#[derive(Debug)]
pub struct NatPrograms<'a> {
    /// Whether a connection must keep its source.
    pub keep_source: BorrowedFd<'a>,
    /// Whether to drop a packet that is about to get another one.
    pub drop_translated: BorrowedFd<'a>,
    /// Whether to drop a packet that has got another destination.
    pub drop_destined: BorrowedFd<'a>,
}

/// Where the packets go by that the table is about.
#[derive(Debug)]
pub struct NatInterfaces {
    /// Those on which the programs guard.
    pub underlays: Vec<String>,
    /// The one that encrypts, to which routes lead where the families inside and outside differ.
    pub xfrm: String,
}

/// The table, and the socket that owns it.
#[derive(Debug)]
pub struct NatExemption {
    socket: Option<Socket>,
    interfaces: NatInterfaces,
}

impl NatExemption {
    /// Nothing is in force yet.
    #[must_use]
    pub const fn new(interfaces: NatInterfaces) -> Self {
        Self { socket: None, interfaces }
    }

    /// Puts the exemption in force, in the place of that of an earlier run: in one step for each
    /// address family. The rules are to be there before.
    ///
    /// # Errors
    /// The programs cannot be loaded, or nftables lacks something or refuses it.
    pub fn put(&mut self, data_path: &mut DataPath) -> Result<(), NatError> {
        let programs = data_path.nat_programs().map_err(|error| NatError(error.to_string()))?;
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(open().map_err(NetlinkError::Socket)?),
        };
        for family in families() {
            let exists = is_there(socket, family)?;
            let table = |flags| batch(family, exists, flags, &programs, &self.interfaces);
            match exchange(socket, &table(OWNED)) {
                Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                    exchange(socket, &table(0))?;
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Puts it in force again, if somebody has removed it; then tells what came of that.
    pub(super) fn check(
        &mut self,
        data_path: &mut DataPath,
        complaints: &Complaints,
    ) -> Option<Result<(), NatError>> {
        // Where it could not be put in force, that was said.
        let socket = self.socket.as_ref()?;
        if families().all(|family| is_there(socket, family).unwrap_or(true)) {
            return None;
        }
        let outcome = self.put(data_path);
        if complaints.take(clock::now()) {
            match &outcome {
                Ok(()) => warn!(
                    table = message::TABLE,
                    "The nftables table was gone: it is there again. What began meanwhile, and NAT \
                     has given another source, is dropped"
                ),
                Err(error) => warn!(table = message::TABLE, %error, "{NOT_EXEMPT}"),
            }
        }
        Some(outcome)
    }
}

/// What follows if the exemption is not in force.
pub(super) const NOT_EXEMPT: &str = "Source NAT of this host is NOT kept from what rules select: exempt that by its rules, or it \
     leaves in the clear";

/// Why the exemption is not in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NatError(String);

impl From<NetlinkError> for NatError {
    fn from(error: NetlinkError) -> Self {
        Self(format!(
            "nftables: {error} (CONFIG_NF_TABLES, NFT_NAT, NFT_CT, NFT_COMPAT, NETFILTER_XT_MATCH_BPF)"
        ))
    }
}

/// Removes the exemption, if it is there.
///
/// # Errors
/// The kernel refuses; or a gateway that runs owns it.
pub fn remove() -> Result<(), NatError> {
    // Without nftables there is none.
    let Ok(socket) = open() else { return Ok(()) };
    for family in families() {
        if is_there(&socket, family).unwrap_or(false) {
            exchange(&socket, &message::removal(family))?;
            info!(table = message::TABLE, family = ?family, "nftables table removed");
        }
    }
    Ok(())
}

/// The families that this kernel has.
fn families() -> impl Iterator<Item = Family> {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    [Family::V4].into_iter().chain(has_v6.then_some(Family::V6))
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Whether the table is there.
fn is_there(socket: &Socket, family: Family) -> Result<bool, NetlinkError> {
    match exchange(socket, &message::question(family)) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends messages of which the last asks for an acknowledgement. They have been executed, and the
/// answers lie ready, when the call that sends them returns.
fn exchange(socket: &Socket, request: &[u8]) -> Result<(), NetlinkError> {
    socket.send(request, 0)?;
    let mut buffer = Vec::with_capacity(RECEIVE_LEN);
    let mut answer = Err(NetlinkError::Malformed("missing"));
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return answer,
            Err(error) => return Err(error.into()),
        }
        for message in messages(&buffer).filter(|message| message.kind == NLMSG_ERROR) {
            // The first error is the cause.
            if !matches!(answer, Err(NetlinkError::Refused { .. })) {
                answer = outcome(message);
            }
        }
    }
}

/// Listens for the removal of the table.
pub(super) struct NatEvents {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl NatEvents {
    /// Starts listening in the network namespace of the calling thread, on the current tokio
    /// runtime.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self { socket, datagram: Vec::with_capacity(RECEIVE_LEN) })
    }

    /// Waits until the table may have been removed. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram).await {
                // Port 0 is the kernel; nobody else has a say.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_kernel) => {
                    if messages(&self.datagram).any(|told| message::removes(&told)) {
                        return Ok(());
                    }
                }
                // Events were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
