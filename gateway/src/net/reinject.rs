//! Hands ESP that arrived in UDP on the socket back to the local stack as bare ESP.
//!
//! XDP strips UDP from ESP before the stack sees it, but cannot strip a fragment. What a peer
//! sends in outer fragments is reassembled by the stack and delivered to the socket. A raw socket
//! sends it once more, from the peer's address to ours: the route leads over the loopback
//! interface into the kernel's ESP input, which finds the SA by destination and SPI.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use gateway_ike::io::Path;
use socket2::{Domain, Protocol, Socket, Type};

use super::TokenBucket;

/// Packets a second that are handed back: enough for a misconfigured MTU not to cut a peer off,
/// too few to make the daemon a data path.
const RATE: u32 = 20_000;
/// Packets that may come at once.
const BURST: u32 = 2_000;
/// IP protocol of ESP (RFC 4303).
const ESP: u8 = 50;
/// Time to live of the packet, which crosses the loopback interface only.
const HOPS: u8 = 64;

/// What became of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the stack.
    Sent,
    /// There were too many.
    Limited,
    /// The system refused it.
    Failed(io::Error),
}

/// The raw sockets, with their limit.
#[derive(Debug)]
pub struct Reinjector {
    v4: Socket,
    /// Absent where the kernel has no IPv6.
    v6: Option<Socket>,
    bucket: TokenBucket,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    sent: u64,
    limited: u64,
    failed: u64,
}

impl Reinjector {
    /// Opens the raw sockets, which needs CAP_NET_RAW. They carry no mark: over the loopback
    /// interface it would stay on the packet and exempt what is decrypted from the TC programs.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW implies that the IP header is given, in both families.
        let protocol = Some(Protocol::from(libc::IPPROTO_RAW));
        let open = |domain| Socket::new(domain, Type::RAW.nonblocking(), protocol);
        let v6 = match open(Domain::IPV6) {
            Ok(socket) => Some(socket),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        Ok(Self {
            v4: open(Domain::IPV4)?,
            v6,
            bucket: TokenBucket::new(RATE, BURST),
            counters: Counters::default(),
        })
    }

    /// Sends an ESP packet, from the first octet of its header, from `path.remote` to
    /// `path.local`. The caller has checked that the SPI is one of ours.
    pub fn reinject(&mut self, now: Instant, path: &Path, esp: &[u8]) -> Outcome {
        if !self.bucket.take(now) {
            self.counters.limited = self.counters.limited.saturating_add(1);
            return Outcome::Limited;
        }
        match self.send(path, esp) {
            Ok(()) => {
                self.counters.sent = self.counters.sent.saturating_add(1);
                Outcome::Sent
            }
            Err(error) => {
                self.counters.failed = self.counters.failed.saturating_add(1);
                Outcome::Failed(error)
            }
        }
    }

    /// Every counter with its name in status.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("esp_reinjected", self.counters.sent),
            ("esp_reinjection_limited", self.counters.limited),
            ("esp_reinjection_failed", self.counters.failed),
        ]
        .into_iter()
    }

    fn send(&self, path: &Path, esp: &[u8]) -> io::Result<()> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match (path.remote.ip(), path.local.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = v4_header(from, to, esp.len())?;
                send_to(&self.v4, &header, esp, IpAddr::V4(to))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let Some(socket) = &self.v6 else { return refused("no IPv6") };
                let header = v6_header(from, to, esp.len())?;
                send_to(socket, &header, esp, IpAddr::V6(to))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                refused("the two ends are of different address families")
            }
        }
    }
}

fn send_to(socket: &Socket, header: &[u8], esp: &[u8], to: IpAddr) -> io::Result<()> {
    let iov = [IoSlice::new(header), IoSlice::new(esp)];
    socket.send_to_vectored(&iov, &SocketAddr::new(to, 0).into()).map(|_| ())
}

fn too_long<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the packet is too long for its IP header")
}

/// An IPv4 header (RFC 791 3.1). The kernel fills in identification and checksum (raw(7)).
fn v4_header(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> io::Result<[u8; 20]> {
    let length = u16::try_from(payload.saturating_add(20)).map_err(too_long)?;
    let [l0, l1] = length.to_be_bytes();
    let [s0, s1, s2, s3] = from.octets();
    let [d0, d1, d2, d3] = to.octets();
    Ok([0x45, 0, l0, l1, 0, 0, 0, 0, HOPS, ESP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3])
}

/// An IPv6 header (RFC 8200 3).
fn v6_header(from: Ipv6Addr, to: Ipv6Addr, payload: usize) -> io::Result<[u8; 40]> {
    let length = u16::try_from(payload).map_err(too_long)?;
    let [l0, l1] = length.to_be_bytes();
    let mut header = [0; 40];
    let fields = [&[0x60, 0, 0, 0, l0, l1, ESP, HOPS][..], &from.octets(), &to.octets()];
    let octets = fields.into_iter().flatten();
    header.iter_mut().zip(octets).for_each(|(field, octet)| *field = *octet);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_esp_and_both_ends() {
        let header = v4_header([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 100).unwrap();
        assert_eq!(header[..4], [0x45, 0, 0, 120]);
        assert_eq!(header[9], 50);
        assert_eq!(header[12..], [192, 0, 2, 1, 192, 0, 2, 2]);
        let (from, to) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let header = v6_header(from, to, 0x102).unwrap();
        assert_eq!(header[..8], [0x60, 0, 0, 0, 1, 2, 50, HOPS]);
        assert_eq!(header[8..24], from.octets());
        assert_eq!(header[24..], to.octets());
    }

    #[test]
    fn a_packet_too_long_for_its_header_is_refused() {
        let any = Ipv4Addr::UNSPECIFIED;
        assert!(v4_header(any, any, 65_515).is_ok());
        assert!(v4_header(any, any, 65_516).is_err());
        let any = Ipv6Addr::UNSPECIFIED;
        assert!(v6_header(any, any, 65_535).is_ok());
        assert!(v6_header(any, any, 65_536).is_err());
    }
}
