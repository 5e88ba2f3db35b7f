//! The UDP sockets of IKE: ports 500 and 4500, IPv4 and IPv6 (RFC 7296 2.23, RFC 3948).
//!
//! [`Sockets`] gives datagrams with the pair of addresses that they came by, and sends from the
//! address that it is told. The non-ESP marker of port 4500 exists only in here. ESP that reaches
//! port 4500 although XDP strips it before (outer fragments, which the kernel reassembled) is
//! handed back to the local stack by [`Reinjector`], and so is what [`Early`] has kept. Where the kernel
//! itself takes ESP out of UDP, a second socket at the port has it do so ([`socket`]).

mod bucket;
mod early;
mod holder;
mod options;
mod reinject;
mod socket;
#[cfg(test)]
mod tests;

use core::future::poll_fn;
use core::task::Poll;
use std::io;

use gateway_ike::io::Path;

pub use self::bucket::TokenBucket;
pub use self::early::{Early, Packet};
pub use self::reinject::{Outcome, Reinjector};
pub use self::socket::{Family, IkeSocket, Received};

/// Octets that a receive buffer must hold: the largest UDP datagram.
pub const RECEIVE_BUFFER: usize = 65_535;

/// The two ports of IKE. Zero lets the system choose, for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Plain IKE; 500 on the wire (RFC 7296 2).
    pub ike: u16,
    /// IKE with the non-ESP marker, and ESP in UDP; 4500 on the wire (RFC 3948).
    pub natt: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { ike: 500, natt: 4500 }
    }
}

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has the port.
    #[error("UDP port {port} is in use{}: stop the other IKE daemon first",
        .holder.as_ref().map_or_else(
            || format!(" (`ss -ulpn sport = :{port}` names the process)"),
            |holder| format!(" by {holder}"),
        ))]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, if that could be found out, as `name (pid n)`.
        holder: Option<String>,
    },
    /// The system refuses to open or configure a socket.
    #[error("cannot {what} for UDP port {port} ({family}): {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The port; 0 for the raw socket.
        port: u16,
        /// The address family.
        family: Family,
        /// The system's error.
        source: io::Error,
    },
    /// The raw sockets could not be opened.
    #[error("cannot open the raw socket that hands ESP back to the kernel: {0}")]
    Raw(io::Error),
}

/// What the sockets have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// IKE messages received.
    pub received: u64,
    /// IKE messages sent.
    pub sent: u64,
    /// IKE messages and keepalives that the system refused to send.
    pub send_failed: u64,
    /// NAT keepalives (RFC 3948 2.3), dropped.
    pub keepalives: u64,
    /// NAT keepalives sent.
    pub keepalives_sent: u64,
    /// Datagrams on port 4500 that are too short to be anything.
    pub short: u64,
    /// Datagrams without a unicast destination, or whose destination is not known; dropped.
    pub not_unicast: u64,
    /// Receive calls that failed.
    pub receive_failed: u64,
    /// ESP in UDP that reached the socket.
    pub esp: u64,
}

impl Counters {
    /// Every counter with its name in status.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("udp_received", self.received),
            ("udp_sent", self.sent),
            ("udp_send_failed", self.send_failed),
            ("udp_keepalives", self.keepalives),
            ("udp_keepalives_sent", self.keepalives_sent),
            ("udp_short", self.short),
            ("udp_not_unicast", self.not_unicast),
            ("udp_receive_failed", self.receive_failed),
            ("udp_esp", self.esp),
        ]
        .into_iter()
    }
}

/// Names one of the sockets between [`Sockets::readable`] and [`Sockets::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready(usize);

/// All sockets of IKE.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<IkeSocket>,
    /// Where the next search for a readable socket begins, so that none starves the others.
    next: usize,
    counters: Counters,
}

impl Sockets {
    /// Opens both ports for both families. IPv6 is left out where the kernel has none.
    ///
    /// With `mark` (SO_MARK) each datagram carries it, so that the TC programs let it pass, and
    /// the sockets get a policy of their own that exempts them from XFRM; both need
    /// CAP_NET_ADMIN.
    ///
    /// # Errors
    /// [`OpenError`], which names the port and, where it is taken, by whom.
    pub fn open(ports: Ports, mark: Option<u32>) -> Result<Self, OpenError> {
        let mut sockets = Vec::with_capacity(4);
        for family in [Family::V4, Family::V6] {
            for (port, natt) in [(ports.ike, false), (ports.natt, true)] {
                match IkeSocket::open(family, port, natt, mark) {
                    Ok(socket) => sockets.push(socket),
                    Err(OpenError::System { source, .. })
                        if family == Family::V6
                            && source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
                    {
                        tracing::warn!(port, "This kernel has no IPv6: only IPv4 is served");
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(Self { sockets, next: 0, counters: Counters::default() })
    }

    /// The ports in use, which differ from those asked for where these were zero.
    pub fn local_ports(&self) -> impl Iterator<Item = (Family, u16)> + '_ {
        self.sockets.iter().map(|s| (s.family(), s.port()))
    }

    /// Waits until a socket has something to read. Cancelling it loses nothing.
    pub async fn readable(&mut self) -> Ready {
        poll_fn(|cx| {
            let count = self.sockets.len();
            let order = (self.next..count).chain(0..self.next.min(count));
            for index in order {
                let Some(socket) = self.sockets.get(index) else { continue };
                if socket.poll_readable(cx).is_ready() {
                    self.next = index.checked_add(1).filter(|n| *n < count).unwrap_or(0);
                    return Poll::Ready(Ready(index));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes one datagram from a socket; `None` when it has no more.
    pub fn receive<'b>(&mut self, ready: Ready, buffer: &'b mut [u8]) -> Option<Received<'b>> {
        let socket = self.sockets.get_mut(ready.0)?;
        let counter = match socket.receive(buffer) {
            Ok(None) => return None,
            Ok(Some(received)) => {
                let counter = match received {
                    Received::Ike { .. } => &mut self.counters.received,
                    Received::Esp { .. } => &mut self.counters.esp,
                    Received::Keepalive => &mut self.counters.keepalives,
                    Received::Short => &mut self.counters.short,
                    Received::NotUnicast => &mut self.counters.not_unicast,
                };
                *counter = counter.saturating_add(1);
                return Some(received);
            }
            Err(error) => {
                tracing::debug!(%error, port = socket.port(), "Receiving failed");
                &mut self.counters.receive_failed
            }
        };
        *counter = counter.saturating_add(1);
        None
    }

    /// Sends an IKE message from `path.local` to `path.remote`.
    ///
    /// # Errors
    /// The system's, already counted: a datagram may get lost anyway, so the caller at most
    /// writes it down. `NotFound` where there is no socket for `path.local`.
    pub fn send(&mut self, path: &Path, octets: &[u8]) -> io::Result<()> {
        let result = self.serving(path).and_then(|s| s.send(path, octets));
        let counter = match result {
            Ok(()) => &mut self.counters.sent,
            Err(_) => &mut self.counters.send_failed,
        };
        *counter = counter.saturating_add(1);
        result
    }

    /// Sends a NAT keepalive from `path.local` to `path.remote`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_keepalive(&mut self, path: &Path) -> io::Result<()> {
        let result = self.serving(path).and_then(|s| s.send_keepalive(path));
        let counter = match result {
            Ok(()) => &mut self.counters.keepalives_sent,
            Err(_) => &mut self.counters.send_failed,
        };
        *counter = counter.saturating_add(1);
        result
    }

    fn serving(&self, path: &Path) -> io::Result<&IkeSocket> {
        self.sockets
            .iter()
            .find(|s| s.serves(path.local))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no socket has this port"))
    }

    /// What the sockets have seen so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
