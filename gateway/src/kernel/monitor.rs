//! What the kernel tells by itself: acquires, expires and changes of interfaces, by multicast
//! netlink; and what the BPF programs see of ESP, by a ring.

use core::fmt;
use std::collections::VecDeque;
use std::io;

use gateway_ike::io::KernelEvent;
use netlink_packet_xfrm::{XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_XFRM};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;
use zeroize::Zeroize as _;

use super::bpf::{EspEvent, EspEvents, EspSource};
use super::links::{LinkChange, LinkEvents};
use super::nat::NatEvents;
use super::netlink::messages;
use super::xfrm::{Ours, event, is_of_others};

/// Octets of events that the kernel may queue for us: some ten thousand.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;
/// Octets that one receive call can take: more than the kernel puts into one datagram.
const RECEIVE_LEN: usize = 64 * 1024;

/// What [`Monitor::next`] gives.
#[derive(Debug)]
pub enum Notice {
    /// The kernel tells something.
    Event(KernelEvent),
    /// The kernel had to drop events: what it has must be compared with what we believe
    /// ([`super::LinuxKernel::resync`]). Nothing that was lost comes again by itself: while an
    /// acquire waits for its answer, the kernel raises no other for the same traffic.
    Overrun,
    /// Interfaces have changed, or the exemption from NAT may be gone: [`super::LinuxKernel::check_links`] wants to know.
    Links(LinkChange),
    /// Somebody else has ESP SAs in this kernel. Told once.
    OtherSas,
    /// ESP has come in that is of no SA of ours, and was dropped.
    UnknownEsp(EspSource),
    /// The socket failed; nothing will come any more.
    Failed(io::Error),
}

/// Listens to the kernel's XFRM events about what is ours, to those about interfaces, and
/// to the removal of the exemption from NAT.
pub struct Monitor {
    socket: TokioSocket,
    ours: Ours,
    datagram: Vec<u8>,
    /// Events of the last datagram that have not been given yet.
    waiting: VecDeque<KernelEvent>,
    links: LinkEvents,
    /// None where the kernel has no nftables.
    nat: Option<NatEvents>,
    esp: Option<AsyncFd<EspEvents>>,
    /// Whether SAs of somebody else are still to be told of.
    looks_for_others: bool,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("ours", &self.ours).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Starts listening for what goes through the XFRM interface with this `if_id`, or is ours
    /// without one, in the network namespace of the calling thread and on the current
    /// tokio runtime.
    ///
    /// # Errors
    /// The kernel has no XFRM, or refuses the socket or the multicast groups (`CAP_NET_ADMIN`).
    pub fn open(if_id: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_XFRM)?;
        socket.socket_mut().bind_auto()?;
        for group in [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA] {
            socket.socket_mut().add_membership(group)?;
        }
        // Beyond the system's limit for ordinary sockets; without the right to that, up to it.
        if setsockopt(socket.socket_ref(), RcvBufForce, &RECEIVE_QUEUE).is_err() {
            socket.socket_ref().set_rx_buf_sz(RECEIVE_QUEUE)?;
        }
        let datagram = Vec::with_capacity(RECEIVE_LEN);
        let ours = Ours { if_id };
        let (links, nat) = (LinkEvents::open()?, NatEvents::open().ok());
        let waiting = VecDeque::new();
        let (esp, looks_for_others) = (None, true);
        Ok(Self { socket, ours, datagram, waiting, links, nat, esp, looks_for_others })
    }

    /// Tells of what the programs see of ESP, too.
    ///
    /// # Errors
    /// The runtime cannot wait for it.
    pub(super) fn follow(&mut self, esp: EspEvents) -> io::Result<()> {
        // SAFETY: the ring owns its descriptor, which stays open and the same as long as it lives.
        let esp = unsafe { AsyncFd::register_with_interest(esp, Interest::READABLE) };
        self.esp = Some(esp?);
        Ok(())
    }

    /// Whether the last datagram tells of an SA of somebody else, for the first time. That is all
    /// that is looked for in what it tells of SAs, which holds their keys: it is wiped.
    fn has_found_others(&mut self) -> bool {
        let ours = self.ours;
        let found = messages(&self.datagram).any(|message| is_of_others(&message, ours));
        self.datagram.as_mut_slice().zeroize();
        if !self.looks_for_others || !found {
            return false;
        }
        self.looks_for_others = false;
        if let Err(error) = self.socket.socket_mut().drop_membership(XFRMNLGRP_SA) {
            debug!(%error, "The kernel goes on telling of SAs");
        }
        true
    }

    /// Waits for the next notice. Cancelling loses nothing.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Notice::Event(event);
            }
            self.datagram.clear();
            let received = tokio::select! {
                received = self.socket.recv_from(&mut self.datagram) => received,
                change = self.links.next() => {
                    return change.map_or_else(Notice::Failed, Notice::Links);
                }
                gone = next_removal(&mut self.nat) => {
                    return gone.map_or_else(Notice::Failed, |()| Notice::Links(LinkChange::default()));
                }
                seen = next_esp(&mut self.esp) => return match seen {
                    Ok(EspEvent::Moved(EspSource { spi, source, .. })) => {
                        Notice::Event(KernelEvent::PeerMoved { spi, from: source })
                    }
                    Ok(EspEvent::Unknown(seen)) => Notice::UnknownEsp(seen),
                    Err(error) => Notice::Failed(error),
                },
            };
            match received {
                // Port 0 is the kernel; nobody else has a say.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_kernel) => {
                    let ours = self.ours;
                    self.waiting.extend(
                        messages(&self.datagram).filter_map(|message| event(&message, ours)),
                    );
                    if self.has_found_others() {
                        return Notice::OtherSas;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Notice::Overrun;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Notice::Failed(error),
            }
        }
    }
}

/// The next time that the exemption from NAT may have been removed; never, if nobody tells.
async fn next_removal(nat: &mut Option<NatEvents>) -> io::Result<()> {
    match nat {
        Some(nat) => nat.next().await,
        None => std::future::pending().await,
    }
}

/// What the programs see next of ESP; never, if nobody tells.
async fn next_esp(esp: &mut Option<AsyncFd<EspEvents>>) -> io::Result<EspEvent> {
    let Some(esp) = esp else { return std::future::pending().await };
    loop {
        let mut ready = esp.readable_mut().await?;
        if let Some(seen) = ready.get_inner_mut().take() {
            return Ok(seen);
        }
        ready.clear_ready();
    }
}
