//! ESP that comes before its SA: what a peer sends by a Child SA that it has agreed to while we are
//! still reading that it has.
//!
//! Whoever answers IKE_AUTH or CREATE_CHILD_SA may send by the new Child SA at once; to wait until it
//! has heard us is left to it (RFC 7296 2.8). An initiator has nothing by which to receive that yet,
//! and must not: before the answer has been checked it may come from anybody. So it is kept unread, as
//! long as the answer takes, and handed back to the stack once the SA is there. What the SA has
//! received itself by then is refused by its replay window.
//!
//! Who answers later than ten seconds after our request was last sent loses what comes until then.

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

/// How long each SPI is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// IP protocol of ESP (RFC 4303).
const ESP: i32 = 50;

/// A packet of ESP, from the first octet of its header.
pub type Packet = (Path, Vec<u8>);

/// What is kept for the SPIs that we have offered.
#[derive(Debug)]
pub struct Early {
    /// How many SPIs are waited for at once. Each costs the kernel a look at every packet of ESP.
    most: usize,
    /// Octets that are kept for one, in UDP, with what each packet costs us; as many at most without,
    /// by the kernel.
    size: usize,
    expected: BTreeMap<u32, Expected>,
    handed_over: u64,
    refused: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Expected {
    /// By which it comes to us.
    local: IpAddr,
    until: Instant,
    /// Takes a copy of bare ESP; the kernel's queue is where that is kept.
    bare: Socket,
    in_udp: Vec<Packet>,
    /// Of these.
    octets: usize,
}

impl Expected {
    /// How many packets go with it.
    fn lost(&self) -> u64 {
        let in_udp = u64::try_from(self.in_udp.len()).unwrap_or(u64::MAX);
        in_udp.saturating_add(options::dropped(&self.bare).unwrap_or(0).into())
    }
}

impl Early {
    /// Keeps nothing yet; for so many SPIs at once, and so many octets for each.
    #[must_use]
    pub const fn new(most: usize, size: usize) -> Self {
        let expected = BTreeMap::new();
        Self { most, size, expected, handed_over: 0, refused: 0, dropped: 0 }
    }

    /// From now on keeps what comes for an SPI, in host order; one that is waited for is so longer. If
    /// too many are waited for ([`Self::forget_old`]) it is lost, and counted.
    ///
    /// # Errors
    /// The system refuses the socket (`CAP_NET_RAW`): then it is lost too.
    pub fn expect(&mut self, now: Instant, local: IpAddr, spi: u32) -> io::Result<()> {
        let until = now.checked_add(PATIENCE).unwrap_or(now);
        if let Some(expected) = self.expected.get_mut(&spi).filter(|e| e.local == local) {
            expected.until = until;
            return Ok(());
        }
        if self.expected.len() >= self.most {
            self.refused = self.refused.saturating_add(1);
            return Ok(());
        }
        let bare = open(local, spi, self.size)
            .inspect_err(|_| self.refused = self.refused.saturating_add(1))?;
        self.expected.insert(spi, Expected { local, until, bare, in_udp: Vec::new(), octets: 0 });
        Ok(())
    }

    /// There will be no SA with this SPI: what has come for it is nobody's. Gives the address at which
    /// it was waited for.
    pub fn withdraw(&mut self, spi: u32) -> Option<IpAddr> {
        let expected = self.expected.remove(&spi)?;
        self.dropped = self.dropped.saturating_add(expected.lost());
        Some(expected.local)
    }

    /// The address of ours at which an SPI is waited for, if it is.
    #[must_use]
    pub fn expected_at(&self, spi: u32) -> Option<IpAddr> {
        self.expected.get(&spi).map(|expected| expected.local)
    }

    /// Keeps ESP that has come in UDP, if its SPI is waited for; whether it is.
    pub fn keep(&mut self, path: &Path, spi: u32, esp: &[u8]) -> bool {
        let Some(expected) = self.expected.get_mut(&spi) else { return false };
        if expected.local != path.local.ip() {
            return false;
        }
        let octets = expected.octets.saturating_add(esp.len()).saturating_add(size_of::<Packet>());
        if octets <= self.size {
            expected.octets = octets;
            expected.in_udp.push((*path, esp.to_vec()));
        } else {
            self.dropped = self.dropped.saturating_add(1);
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
        self.dropped = self.dropped.saturating_add(options::dropped(&bare).unwrap_or(0).into());
        let all = u64::try_from(in_udp.len()).unwrap_or(u64::MAX);
        self.handed_over = self.handed_over.saturating_add(all);
        in_udp
    }

    /// When to call [`Self::forget_old`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.expected.values().map(|expected| expected.until).min()
    }

    /// Gives up those that nothing has become of; they make room. Says which, and where each was waited
    /// for.
    pub fn forget_old(&mut self, now: Instant) -> Vec<(IpAddr, u32)> {
        let old = self.expected.extract_if(.., |_, expected| expected.until <= now);
        let (mut dropped, mut given_up) = (0_u64, Vec::new());
        for (spi, expected) in old {
            dropped = dropped.saturating_add(expected.lost());
            given_up.push((expected.local, spi));
        }
        self.dropped = self.dropped.saturating_add(dropped);
        given_up
    }

    /// Every counter with its name in status.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("esp_early", self.handed_over),
            ("esp_early_refused", self.refused),
            ("esp_early_dropped", self.dropped),
        ]
        .into_iter()
    }
}

/// A socket that takes ESP for an address of ours with one SPI, and keeps so many octets.
fn open(local: IpAddr, spi: u32, size: usize) -> io::Result<Socket> {
    let (domain, family) = match local {
        IpAddr::V4(_) => (Domain::IPV4, Family::V4),
        IpAddr::V6(_) => (Domain::IPV6, Family::V6),
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(ESP)))?;
    socket.attach_filter(&filter(family, spi))?;
    // A policy for what is inside may select what is outside as well.
    options::exempt_from_xfrm(&socket, family)?;
    socket.set_recv_buffer_size(size)?;
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
                let mut early = Early::new(16, 262_144);
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
            let mut early = Early::new(3, 4096);
            let path = path(["127.0.0.1", "127.0.0.2"]);
            let local = path.local.ip();
            let counted = |early: &Early| early.counters().map(|(_, n)| n).collect::<Vec<_>>();
            assert_eq!(early.deadline(), None);
            for spi in 0x100..0x103 {
                early.expect(now, local, spi).unwrap();
            }
            assert_eq!(counted(&early), [0, 0, 0]);
            early.expect(now, local, SPI).unwrap();
            assert_eq!(counted(&early), [0, 1, 0]);
            assert!(!early.keep(&path, SPI, &esp(SPI, 1)));
            // In UDP 40 octets each, and what each costs besides; not one more.
            let room = 4096_usize.checked_div(40 + size_of::<Packet>()).unwrap();
            for n in 1..=110_usize {
                assert!(early.keep(&path, 0x100, &esp(0x100, 1)));
                let dropped = u64::try_from(n.saturating_sub(room)).unwrap();
                assert_eq!(counted(&early)[2], dropped, "{n}");
            }
            assert_eq!(early.take(local, 0x100).len(), room);
            let room = u64::try_from(room).unwrap();
            // Without UDP the kernel keeps what it has room for, and tells how many there were more.
            let mut stack = Reinjector::open().unwrap();
            for _ in 0..1000 {
                assert!(matches!(stack.reinject(now, &path, &esp(0x101, 1)), Outcome::Sent));
            }
            let kept = u64::try_from(early.take(local, 0x101).len()).unwrap();
            assert!((1..1000).contains(&kept), "{kept}");
            let dropped = 110 - room + 1000 - kept;
            assert_eq!(counted(&early), [room + kept, 1, dropped]);
            early.expect(now, local, 0x103).unwrap();
            assert!(early.keep(&path, 0x103, &esp(0x103, 1)));
            early.withdraw(0x103);
            assert_eq!(counted(&early)[2], dropped + 1);
            assert!(!early.keep(&path, 0x103, &esp(0x103, 1)));
            early.expect(now, local, 0x104).unwrap();
            early.expect(now, local, 0x104).unwrap();
            assert_eq!(counted(&early)[1], 1);
            // Those that nothing becomes of make room after some time.
            assert_eq!(early.deadline(), Some(now + PATIENCE));
            early.forget_old(now + PATIENCE);
            early.expect(now + PATIENCE, local, SPI).unwrap();
            assert!(early.take(local, 0x102).is_empty());
            assert_eq!(early.expected.len(), 1);
            early.forget_old(now + PATIENCE + PATIENCE);
            assert_eq!(early.deadline(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_waited_for_no_more_is_named_with_its_address() {
        if !is_root("what_is_waited_for_no_more_is_named_with_its_address") {
            return;
        }
        std::thread::spawn(|| {
            enter_namespace();
            ip("link set lo up");
            let (now, local) = (clock::now(), path(["127.0.0.1", "127.0.0.2"]).local.ip());
            let mut early = Early::new(3, 4096);
            for spi in [0x100, 0x101, 0x102] {
                early.expect(now, local, spi).unwrap();
                assert_eq!(early.expected_at(spi), Some(local));
            }
            assert_eq!([0x101, 0x101].map(|spi| early.withdraw(spi)), [Some(local), None]);
            assert_eq!(early.expected_at(0x101), None);
            assert_eq!(early.forget_old(now), []);
            let given_up = early.forget_old(now + PATIENCE);
            assert_eq!(given_up, [0x100, 0x102].map(|spi| (local, spi)));
        })
        .join()
        .unwrap();
    }
}
