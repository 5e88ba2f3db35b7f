//! What the kernel tells by itself: acquires, expires and changes of interfaces, by multicast
//! netlink; and new sources of ESP, by a ring of the BPF programs.

use core::fmt;
use std::collections::VecDeque;
use std::io;

use gateway_ike::io::KernelEvent;
use netlink_packet_xfrm::{XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_XFRM};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::bpf::{SourceEvents, SourceSeen};
use super::links::{LinkChange, LinkEvents};
use super::nat::NatEvents;
use super::netlink::messages;
use super::xfrm::{Ours, event};

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
    sources: Option<AsyncFd<SourceEvents>>,
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
        for group in [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE] {
            socket.socket_mut().add_membership(group)?;
        }
        // Beyond the system's limit for ordinary sockets; without the right to that, up to it.
        if setsockopt(socket.socket_ref(), RcvBufForce, &RECEIVE_QUEUE).is_err() {
            socket.socket_ref().set_rx_buf_sz(RECEIVE_QUEUE)?;
        }
        let datagram = Vec::with_capacity(RECEIVE_LEN);
        let ours = Ours { if_id };
        let (links, nat) = (LinkEvents::open()?, NatEvents::open().ok());
        Ok(Self { socket, ours, datagram, waiting: VecDeque::new(), links, nat, sources: None })
    }

    /// Tells of new sources of ESP, too.
    ///
    /// # Errors
    /// The runtime cannot wait for them.
    pub(super) fn follow(&mut self, sources: SourceEvents) -> io::Result<()> {
        // SAFETY: the ring owns its descriptor, which stays open and the same as long as it lives.
        let sources = unsafe { AsyncFd::register_with_interest(sources, Interest::READABLE) };
        self.sources = Some(sources?);
        Ok(())
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
                seen = next_source(&mut self.sources) => return match seen {
                    Ok(SourceSeen { spi, source, .. }) => {
                        Notice::Event(KernelEvent::PeerMoved { spi, from: source })
                    }
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

/// The next new source; never, if nobody tells.
async fn next_source(sources: &mut Option<AsyncFd<SourceEvents>>) -> io::Result<SourceSeen> {
    let Some(sources) = sources else { return std::future::pending().await };
    loop {
        let mut ready = sources.readable_mut().await?;
        if let Some(seen) = ready.get_inner_mut().take() {
            return Ok(seen);
        }
        ready.clear_ready();
    }
}
