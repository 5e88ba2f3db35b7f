//! One UDP socket that knows by which of our addresses each datagram came and goes.

use core::fmt;
use core::task::{Context, Poll};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use gateway_ike::io::{KERNEL_SPIS, Path};
use gateway_wire::natt::{self, Datagram};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{OpenError, holder, options};

/// Octets of receive buffer asked for: some hundreds of handshakes at once.
const RECEIVE_QUEUE: usize = 1 << 20;

/// Octets that nobody reads: what is too short for ESP.
const NO_QUEUE: usize = 1 << 10;

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// An IKE message, the non-ESP marker removed.
    Ike {
        /// By which addresses it came.
        path: Path,
        /// From the first octet of the IKE header.
        octets: &'b [u8],
    },
    /// ESP in UDP.
    Esp {
        /// By which addresses it came.
        path: Path,
        /// The SPI in host order.
        spi: u32,
        /// From the first octet of the ESP header.
        octets: &'b [u8],
    },
    /// A NAT keepalive.
    Keepalive,
    /// Too short for anything.
    Short,
    /// Sent to a broadcast or multicast address, or to one that the system did not tell.
    NotUnicast,
}

/// One of the sockets of IKE.
#[derive(Debug)]
pub struct IkeSocket {
    socket: UdpSocket,
    family: Family,
    /// Whether datagrams carry the non-ESP marker.
    natt: bool,
    port: u16,
    /// At the same port: see [`decapsulator`].
    _decapsulator: Option<Socket>,
    /// Room for the control messages of a receive call, reused.
    control: Vec<u8>,
}

impl IkeSocket {
    /// Opens and configures a socket on all addresses of the family.
    pub(super) fn open(
        family: Family,
        port: u16,
        natt: bool,
        mark: Option<u32>,
    ) -> Result<Self, OpenError> {
        let failed = |what| failed(what, family, port);
        let socket = unbound(family, port, mark)?;
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true),
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true),
        }
        .map_err(io::Error::from)
        .map_err(failed("ask for packet information"))?;
        options::allow_fragments(&socket, family).map_err(failed("allow fragments"))?;
        ask_for_queue(&socket, RECEIVE_QUEUE);
        socket.bind(&any(family, port).into()).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                OpenError::PortTaken { port, holder: holder::of_udp_port(port) }
            } else {
                OpenError::System { what: "bind", port, family, source }
            }
        })?;
        let port = socket
            .local_addr()
            .map_err(failed("read the local address"))?
            .as_socket()
            .map_or(port, |address| address.port());
        let decapsulator = natt.then(|| decapsulator(&socket, family, port, mark)).transpose()?;
        let socket = UdpSocket::from_std(socket.into()).map_err(failed("register the socket"))?;
        let control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
        Ok(Self { socket, family, natt, port, _decapsulator: decapsulator, control })
    }

    /// The address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The local port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether datagrams from this address leave by this socket.
    #[must_use]
    pub const fn serves(&self, local: SocketAddr) -> bool {
        let family = matches!(
            (self.family, local),
            (Family::V4, SocketAddr::V4(_)) | (Family::V6, SocketAddr::V6(_))
        );
        family && local.port() == self.port
    }

    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error here means that the runtime is going down: nothing will be read any more.
        self.socket.poll_recv_ready(cx).map(|_| ())
    }

    /// Takes one datagram; `None` when there is none.
    pub(super) fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        let Self { socket, control, port, natt, .. } = self;
        let result = socket.try_io(Interest::READABLE, || {
            let mut iov = [IoSliceMut::new(&mut *buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message =
                recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(control), flags)?;
            let local = message.cmsgs()?.find_map(|c| destination(&c));
            Ok((message.bytes, local, message.address.as_ref().and_then(source)))
        });
        let (length, local, remote) = match result {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        let (Some(local), Some(remote)) = (local, remote) else {
            return Ok(Some(Received::NotUnicast));
        };
        let path = Path { local: SocketAddr::new(local, *port), remote };
        let octets = buffer.get(..length).unwrap_or_default();
        Ok(Some(classify(path, octets, *natt)))
    }

    /// Sends one IKE message, with the marker where this socket has it.
    pub(super) fn send(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        let marker: &[u8] = if self.natt { &natt::NON_ESP_MARKER } else { &[] };
        self.send_parts(path, marker, octets)
    }

    /// Sends one octet that says nothing, to a NAT on the way (RFC 3948 2.3).
    pub(super) fn send_keepalive(&self, path: &Path) -> io::Result<()> {
        self.send_parts(path, &[], &[natt::KEEPALIVE])
    }

    fn send_parts(&self, path: &Path, first: &[u8], second: &[u8]) -> io::Result<()> {
        let iov = [IoSlice::new(first), IoSlice::new(second)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        match (path.local.ip(), path.remote) {
            (IpAddr::V4(local), SocketAddr::V4(remote)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &iov, &control, flags, Some(&SockaddrIn::from(remote)))?;
            }
            (IpAddr::V6(local), SocketAddr::V6(remote)) => {
                // A link-local source needs its interface; it is the destination's.
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                    ipi6_ifindex: remote.scope_id(),
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &iov, &control, flags, Some(&SockaddrIn6::from(remote)))?;
            }
            (IpAddr::V4(_), SocketAddr::V6(_)) | (IpAddr::V6(_), SocketAddr::V4(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the two ends are of different address families",
                ));
            }
        }
        Ok(())
    }
}

/// That the system refuses what is done to a socket of a port.
fn failed(what: &'static str, family: Family, port: u16) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::System { what, port, family, source }
}

fn ask_for_queue(socket: &Socket, octets: usize) {
    if let Err(error) = socket.set_recv_buffer_size(octets) {
        tracing::debug!(%error, "The receive buffer keeps its default size");
    }
}

/// All our addresses of a family.
const fn any(family: Family, port: u16) -> SocketAddr {
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(any, port)
}

/// A socket that is of one family only, and exempt from the data path.
fn unbound(family: Family, port: u16, mark: Option<u32>) -> Result<Socket, OpenError> {
    let failed = |what| failed(what, family, port);
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(failed("open a socket"))?;
    if family == Family::V6 {
        socket.set_only_v6(true).map_err(failed("keep IPv4 out"))?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark).map_err(failed("set SO_MARK"))?;
        options::exempt_from_xfrm(&socket, family).map_err(failed("set a bypass policy"))?;
    }
    Ok(socket)
}

/// A second socket at port 4500, from which nobody reads: the kernel takes the ESP out of what comes to
/// it, for the SAs whose inbound SPI is one of [`KERNEL_SPIS`]. All other ESP must come to the first
/// one. Its SA has no encapsulation template, so that the kernel would drop it; or there is none yet,
/// and it is kept until there is.
///
/// The first one is bound already, without sharing the port, so that nobody else had it.
fn decapsulator(
    first: &Socket,
    family: Family,
    port: u16,
    mark: Option<u32>,
) -> Result<Socket, OpenError> {
    let failed = |what| failed(what, family, port);
    let socket = unbound(family, port, mark)?;
    ask_for_queue(&socket, NO_QUEUE);
    options::decapsulate(&socket).map_err(failed("have the kernel take ESP out of UDP"))?;
    for socket in [first, &socket] {
        socket.set_reuse_port(true).map_err(failed("share the port"))?;
    }
    socket.bind(&any(family, port).into()).map_err(failed("bind a second socket"))?;
    let mut program = by_spi();
    let length = u16::try_from(program.len()).unwrap_or(0);
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    setsockopt(&socket, sockopt::AttachReusePortCbpf, &program)
        .map_err(io::Error::from)
        .map_err(failed("divide the port"))?;
    Ok(socket)
}

/// A program in classic BPF (linux/filter.h), which gives the number of a socket in the order in which
/// they came to the port: 1 for ESP with one of [`KERNEL_SPIS`], which end with the greatest number; 0
/// for other datagrams, also for those without a whole SPI, at which it ends.
fn by_spi() -> [libc::sock_filter; 4] {
    const LD_W_ABS: u16 = 0x20; // A = word at k
    const JGE_K: u16 = 0x35;
    const RET_K: u16 = 0x06;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        instruction(LD_W_ABS, 0, 0, 0),
        instruction(JGE_K, 0, 1, *KERNEL_SPIS.start()),
        instruction(RET_K, 0, 0, 1),
        instruction(RET_K, 0, 0, 0),
    ]
}

fn classify(path: Path, octets: &[u8], natt: bool) -> Received<'_> {
    if !natt {
        return Received::Ike { path, octets };
    }
    match natt::classify(octets) {
        Datagram::Ike(octets) => Received::Ike { path, octets },
        Datagram::Esp { spi } => Received::Esp { path, spi, octets },
        Datagram::Keepalive => Received::Keepalive,
        Datagram::Short => Received::Short,
    }
}

/// The unicast address that a datagram was sent to. For IPv4 the kernel gives the header's
/// destination and the address that an answer should come from; they differ where the former was
/// a broadcast or multicast address.
fn destination(message: &ControlMessageOwned) -> Option<IpAddr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "other control messages are not asked for")]
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let unicast = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
            unicast.then(|| IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            (!address.is_multicast()).then_some(IpAddr::V6(address))
        }
        _ => None,
    }
}

pub(super) fn source(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
    let v6 = || address.as_sockaddr_in6().map(|a| SocketAddr::V6(SocketAddrV6::from(*a)));
    v4().or_else(v6)
}
