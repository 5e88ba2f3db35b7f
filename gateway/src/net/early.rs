//! ESP that comes before its SA: what a peer sends by a Child SA that it has agreed to while we are
//! still reading that it has.
//!
//! Whoever answers IKE_AUTH may send by the new Child SA at once; to wait until it has heard us is
//! left to it (RFC 7296 2.8). An initiator that makes an IKE SA anew (2.8.3) has nothing by which to
//! receive that yet, and must not: before the answer has been checked it may come from anybody. So
//! it is kept unread, as long as the answer takes, and handed back to the stack once the SA is there.
//! What the SA has received itself by then is refused by its replay window.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use gateway_ike::io::Path;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::socket::source;
use super::{Family, RECEIVE_BUFFER, options};

/// How many SPIs are waited for at once. Each costs the kernel a look at every packet of ESP.
const MOST: usize = 16;
/// How long each is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets that the kernel keeps for one, at the most.
const QUEUE: usize = 256 * 1024;
/// Packets in UDP that are kept for one, at the most.
const MOST_IN_UDP: usize = 128;
/// IP protocol of ESP (RFC 4303).
const ESP: i32 = 50;

/// A packet of ESP, from the first octet of its header.
pub type Packet = (Path, Vec<u8>);

/// What is kept for the SPIs that we have offered.
#[derive(Debug, Default)]
pub struct Early {
    expected: BTreeMap<u32, Expected>,
    handed_over: u64,
    refused: u64,
}

#[derive(Debug)]
struct Expected {
    /// By which it comes to us.
    local: IpAddr,
    until: Instant,
    /// Takes a copy of bare ESP; the kernel's queue is where that is kept.
    bare: Socket,
    in_udp: Vec<Packet>,
}

impl Early {
    /// From now on keeps what comes for an SPI, in host order.
    ///
    /// # Errors
    /// The system refuses the socket (`CAP_NET_RAW`), or too many are waited for: then it is lost.
    pub fn expect(&mut self, now: Instant, local: IpAddr, spi: u32) -> io::Result<()> {
        self.forget_old(now);
        let opened = if self.expected.len() >= MOST {
            Err(io::Error::other("too many Child SAs are being made at once"))
        } else {
            open(local, spi)
        };
        let bare = opened.inspect_err(|_| self.refused = self.refused.saturating_add(1))?;
        let until = now.checked_add(PATIENCE).unwrap_or(now);
        self.expected.insert(spi, Expected { local, until, bare, in_udp: Vec::new() });
        Ok(())
    }

    /// Keeps ESP that has come in UDP, if its SPI is waited for; whether it is.
    pub fn keep(&mut self, path: &Path, spi: u32, esp: &[u8]) -> bool {
        let Some(expected) = self.expected.get_mut(&spi) else { return false };
        if expected.local != path.local.ip() {
            return false;
        }
        if expected.in_udp.len() < MOST_IN_UDP {
            expected.in_udp.push((*path, esp.to_vec()));
        }
        true
    }

    /// The SA is there: gives what has come for it, and waits no longer.
    pub fn take(&mut self, local: IpAddr, spi: u32) -> Vec<Packet> {
        if self.expected.get(&spi).is_none_or(|expected| expected.local != local) {
            return Vec::new();
        }
        let Some(Expected { bare, mut in_udp, .. }) = self.expected.remove(&spi) else {
            return Vec::new();
        };
        let mut buffer = vec![0; RECEIVE_BUFFER];
        while let Ok((length, from)) = read(&bare, &mut buffer) {
            let Some(esp) = buffer.get(..length).and_then(|octets| esp_of(local, octets)) else {
                continue;
            };
            // What came before the filter was there is for anybody.
            if esp.first_chunk() == Some(&spi.to_be_bytes()) {
                let path = Path { local: SocketAddr::new(local, 0), remote: from };
                in_udp.push((path, esp.to_vec()));
            }
        }
        let all = u64::try_from(in_udp.len()).unwrap_or(u64::MAX);
        self.handed_over = self.handed_over.saturating_add(all);
        in_udp
    }

    /// When to call [`Self::forget_old`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.expected.values().map(|expected| expected.until).min()
    }

    /// Gives up those that nothing has become of.
    pub fn forget_old(&mut self, now: Instant) {
        self.expected.retain(|_, expected| expected.until > now);
    }

    /// Every counter with its name in status.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("esp_early", self.handed_over), ("esp_early_refused", self.refused)].into_iter()
    }
}

/// A socket that takes ESP for an address of ours with one SPI.
fn open(local: IpAddr, spi: u32) -> io::Result<Socket> {
    let (domain, family) = match local {
        IpAddr::V4(_) => (Domain::IPV4, Family::V4),
        IpAddr::V6(_) => (Domain::IPV6, Family::V6),
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(ESP)))?;
    socket.attach_filter(&filter(family, spi))?;
    // A policy for what is inside may select what is outside as well.
    options::exempt_from_xfrm(&socket, family)?;
    socket.set_recv_buffer_size(QUEUE)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    Ok(socket)
}

/// A filter in classic BPF (linux/filter.h): takes what has this SPI.
fn filter(family: Family, spi: u32) -> Vec<SockFilter> {
    const LDX_MSH: u16 = 0xb1; // X = 4 * (octet & 0xf)
    const LD_W_IND: u16 = 0x40; // A = word at X + k
    const LD_W_ABS: u16 = 0x20; // A = word at k
    const JEQ_K: u16 = 0x15;
    const RET_K: u16 = 0x06;
    let load = match family {
        // raw(7): with the IP header, and ipv6(7): without.
        Family::V4 => vec![SockFilter::new(LDX_MSH, 0, 0, 0), SockFilter::new(LD_W_IND, 0, 0, 0)],
        Family::V6 => vec![SockFilter::new(LD_W_ABS, 0, 0, 0)],
    };
    let judge = [
        SockFilter::new(JEQ_K, 0, 1, spi),
        SockFilter::new(RET_K, 0, 0, u32::MAX),
        SockFilter::new(RET_K, 0, 0, 0),
    ];
    load.into_iter().chain(judge).collect()
}

fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
        if let Some(from) = from.as_ref().and_then(source) {
            return Ok((length, from));
        }
    }
}

/// What a raw socket has received, without the IP header that one of IPv4 gives.
fn esp_of(local: IpAddr, octets: &[u8]) -> Option<&[u8]> {
    match local {
        IpAddr::V4(_) => {
            let words = octets.first()? & 0x0f;
            octets.get(usize::from(words).checked_mul(4)?..)
        }
        IpAddr::V6(_) => Some(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::net::{Outcome, Reinjector};
    use crate::testing::{enter_namespace, ip, is_root};

    const SPI: u32 = 0xc123_4567;

    fn esp(spi: u32, content: u8) -> Vec<u8> {
        [&spi.to_be_bytes()[..], &[0, 0, 0, 1], &[content; 32]].concat()
    }

    fn path(ends: [&str; 2]) -> Path {
        let [local, remote] = ends.map(|end| SocketAddr::new(end.parse().unwrap(), 0));
        Path { local, remote }
    }

    #[test]
    fn what_comes_for_an_spi_that_is_waited_for_is_kept_and_nothing_else() {
        let test = "what_comes_for_an_spi_that_is_waited_for_is_kept_and_nothing_else";
        if !is_root(test) {
            return;
        }
        std::thread::spawn(|| {
            enter_namespace();
            ip("link set lo up");
            let now = clock::now();
            let mut stack = Reinjector::open().unwrap();
            for ends in [["127.0.0.1", "127.0.0.2"], ["::1", "::1"]] {
                let mut early = Early::default();
                let path = path(ends);
                let local = path.local.ip();
                let mut send = |packet: &[u8]| {
                    assert!(matches!(stack.reinject(now, &path, packet), Outcome::Sent));
                };
                send(&esp(SPI, 1));
                early.expect(now, local, SPI).unwrap();
                send(&esp(SPI, 2));
                send(&esp(SPI ^ 1, 3));
                send(&esp(SPI, 4));
                assert!(early.keep(&path, SPI, &esp(SPI, 5)));
                assert!(!early.keep(&path, SPI ^ 1, &esp(SPI ^ 1, 6)), "not waited for");
                assert!(early.take(local, SPI ^ 1).is_empty());
                assert!(early.take([192, 0, 2, 9].into(), SPI).is_empty(), "another address");
                let mut kept = early.take(local, SPI);
                assert!(kept.iter().all(|(p, _)| p.remote.ip() == path.remote.ip()));
                kept.sort_by_key(|(_, packet)| packet.last().copied());
                let packets: Vec<_> = kept.into_iter().map(|(_, packet)| packet).collect();
                assert_eq!(packets, [2, 4, 5].map(|n| esp(SPI, n)), "{ends:?}");
                assert!(early.take(local, SPI).is_empty(), "it is waited for no more");
                assert_eq!(early.counters().collect::<Vec<_>>()[0], ("esp_early", 3));
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn how_much_is_kept_and_for_how_long_is_bounded() {
        if !is_root("how_much_is_kept_and_for_how_long_is_bounded") {
            return;
        }
        std::thread::spawn(|| {
            enter_namespace();
            ip("link set lo up");
            let now = clock::now();
            let mut early = Early::default();
            let path = path(["127.0.0.1", "127.0.0.2"]);
            let local = path.local.ip();
            assert_eq!(early.deadline(), None);
            for spi in (0x100..).take(MOST) {
                early.expect(now, local, spi).unwrap();
            }
            let error = early.expect(now, local, SPI).unwrap_err();
            assert!(error.to_string().contains("too many"), "{error}");
            assert_eq!(early.counters().collect::<Vec<_>>()[1], ("esp_early_refused", 1));
            for _ in 0..2 * MOST_IN_UDP {
                assert!(early.keep(&path, 0x100, &esp(0x100, 1)));
            }
            assert_eq!(early.take(local, 0x100).len(), MOST_IN_UDP);
            // Those that nothing becomes of make room after some time.
            assert_eq!(early.deadline(), Some(now + PATIENCE));
            early.expect(now + PATIENCE, local, SPI).unwrap();
            assert!(early.take(local, 0x101).is_empty());
            assert_eq!(early.expected.len(), 1);
            early.forget_old(now + PATIENCE + PATIENCE);
            assert_eq!(early.deadline(), None);
        })
        .join()
        .unwrap();
    }
}
