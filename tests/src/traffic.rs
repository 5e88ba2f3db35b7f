//! Pings and bulk data between namespaces, with a payload that a capture can look for.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;
use std::io::ErrorKind::{AddrNotAvailable, Interrupted, TimedOut, WouldBlock};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::error::{Context as _, Error, Result};
use crate::namespace::Namespace;

/// What all payloads consist of, over and over.
pub const CANARY: &[u8; 16] = b"gateway-in-clear";
/// [`CANARY`] as `ping -p` wants it.
const CANARY_HEX: &str = "676174657761792d696e2d636c656172";

/// How long bulk data may stand still.
const STALL: Duration = Duration::from_secs(60);

/// What came of some pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Echo requests sent.
    pub sent: u32,
    /// Answers.
    pub received: u32,
}

/// Options of [`ping`].
#[derive(Debug, Clone, Copy)]
pub struct PingOptions {
    /// How many.
    pub count: u32,
    /// Octets of payload.
    pub size: u32,
    /// Time between two.
    pub interval: Duration,
    /// How long to wait for the last answer.
    pub wait: Duration,
}

impl Default for PingOptions {
    /// Three pings, 50 ms apart, 5 s for the answer: emulated machines are slow.
    fn default() -> Self {
        Self {
            count: 3,
            size: 56,
            interval: Duration::from_millis(50),
            wait: Duration::from_secs(5),
        }
    }
}

/// The command that pings; for a test that does something while it runs.
#[must_use]
pub fn ping_command(from: &Namespace, to: IpAddr, options: &PingOptions) -> Command {
    let mut command = from.command("ping");
    command.args(["-n", "-q", "-p", CANARY_HEX]);
    command.args(["-c", &options.count.to_string(), "-s", &options.size.to_string()]);
    command.args(["-i", &options.interval.as_secs_f32().to_string()]);
    command.args(["-W", &options.wait.as_secs_f32().to_string()]);
    command.arg(to.to_string());
    command
}

/// Pings and counts the answers; none is not an error.
///
/// # Errors
/// `ping` cannot be run, or cannot send at all.
pub fn ping(from: &Namespace, to: IpAddr, options: &PingOptions) -> Result<Pings> {
    let output = ping_command(from, to, options).output().context("ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    pings(&text).context(format_args!("ping {to} from {from}: {text}{complaint}"))
}

/// Reads "3 packets transmitted, 2 received".
fn pings(text: &str) -> Option<Pings> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some(Pings { sent: numbers.next()?, received: numbers.next()? })
}

/// Pings until the first answer.
///
/// # Errors
/// There is none within the time.
pub fn ping_until_answered(from: &Namespace, to: IpAddr, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    let options = PingOptions { count: 1, wait: Duration::from_secs(1), ..PingOptions::default() };
    while start.elapsed() < limit {
        if ping(from, to, &options)?.received > 0 {
            return Ok(start.elapsed());
        }
    }
    Err(Error::new(format!("no answer from {to} to {from} within {} s", limit.as_secs())))
}

/// What came of a bulk transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Octets that arrived, all as they were sent.
    pub octets: usize,
    /// From the connection's first packet to the receiver's acknowledgement of the last octet.
    pub elapsed: Duration,
}

impl Transfer {
    /// Millions of octets a second.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        // Only ever shown: the loss of precision above 4 GiB does not matter.
        f64::from(u32::try_from(self.octets).unwrap_or(u32::MAX)) / self.elapsed.as_secs_f64() / 1e6
    }
}

/// Sends octets over TCP from one namespace to an address in the other, which compares every one
/// of them with what was sent. The addresses are those by which either sees the other, which a NAT may
/// stand before.
///
/// # Errors
/// There is no connection, the data stands still for a minute, or differs.
pub fn transfer(
    (from, source): (&Namespace, IpAddr),
    (to, destination): (&Namespace, IpAddr),
    octets: usize,
) -> Result<Transfer> {
    let listener = to
        .enter(|| TcpListener::bind((any(destination), 0)))?
        .context(format_args!("listening in {to}"))?;
    let port = listener.local_addr().context("the listener's address")?.port();
    let address = SocketAddr::new(destination, port);
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener, source, octets));
        let sent = from.enter(|| send(address, octets)).flatten();
        // A sender that never connected leaves the receiver to its own time limit: wake it.
        if sent.is_err() {
            drop(to.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1))));
        }
        let received =
            receiver.join().map_err(|_panic| Error::new("the receiver panicked")).flatten();
        let elapsed = sent.context(format_args!("sending from {from}"))?;
        received.context(format_args!("receiving in {to}"))?;
        Ok(Transfer { octets, elapsed })
    })
}

/// All addresses of a family.
fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn send(to: SocketAddr, octets: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, STALL).context("connect")?;
    stream.set_write_timeout(Some(STALL)).context("a time limit")?;
    stream.set_read_timeout(Some(STALL)).context("a time limit")?;
    let block = block();
    let mut left = octets;
    while left > 0 {
        let part = block.get(..left).unwrap_or(&block);
        stream.write_all(part).context("write")?;
        left = left.saturating_sub(part.len());
    }
    stream.read_exact(&mut [0]).context("the receiver's acknowledgement")?;
    Ok(start.elapsed())
}

fn receive(listener: &TcpListener, source: IpAddr, octets: usize) -> Result {
    let (mut stream, peer) = listener.accept().context("accept")?;
    if peer.ip() != source {
        return Err(Error::new(format!("a connection from {peer} instead of {source}")));
    }
    stream.set_read_timeout(Some(STALL)).context("a time limit")?;
    let mut buffer = vec![0; BLOCK];
    let block = block();
    let mut at: usize = 0;
    while at < octets {
        let part = block.len().min(octets.saturating_sub(at));
        let part = buffer.get_mut(..part).unwrap_or_default();
        stream.read_exact(part).context(format_args!("after {at} octets"))?;
        if !block.starts_with(part) {
            return Err(Error::new(format!("the data differs within {BLOCK} octets of {at}")));
        }
        at = at.saturating_add(part.len());
    }
    stream.write_all(&[1]).context("acknowledging")
}

/// Octets written and compared at once.
const BLOCK: usize = 64 * 1024;

/// Canaries that alternate with a counter, so that no two packets' worth of data is equal.
fn block() -> Vec<u8> {
    (0_u64..).flat_map(|n| CANARY.iter().copied().chain(n.to_be_bytes())).take(BLOCK).collect()
}

/// Sends datagrams with the canary, as fast as it goes; for traffic that nobody answers.
///
/// # Errors
/// There is no socket. That the kernel refuses to send is none: it may be told to.
pub fn shout(from: &Namespace, to: SocketAddr, count: usize, size: usize) -> Result {
    from.enter(|| {
        let socket = UdpSocket::bind((any(to.ip()), 0)).context("a UDP socket")?;
        let data: Vec<u8> = CANARY.iter().copied().cycle().take(size).collect();
        for _ in 0..count {
            drop(socket.send_to(&data, to));
        }
        Ok(())
    })?
}

/// What came of a [`flow`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// Datagrams sent, numbered from 0.
    pub sent: u32,
    /// The numbers that never arrived.
    pub lost: Vec<u32>,
    /// Datagrams that arrived more than once.
    pub repeated: u32,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, repeated } = self;
        write!(f, "{sent} sent, lost {lost:?}, {repeated} repeated")
    }
}

impl Flow {
    /// Everything that was sent has arrived, once.
    ///
    /// # Errors
    /// It has not.
    pub fn whole(&self) -> Result {
        if self.lost.is_empty() && self.repeated == 0 {
            return Ok(());
        }
        Err(Error::new(self.to_string()))
    }
}

/// Sends numbered datagrams with the canary one way, one each `interval`, and counts by their
/// numbers what arrives. Addresses are as in [`transfer`]: a sender that does not have its own sends
/// from the one of the route.
///
/// # Errors
/// There is no socket, or the kernel refuses to send.
pub fn flow(
    from: (&Namespace, IpAddr),
    to: (&Namespace, IpAddr),
    count: u32,
    interval: Duration,
) -> Result<Flow> {
    flow_while(from, to, interval, |number| number < count)
}

/// The same as long as `more` wants the datagram of this number.
///
/// # Errors
/// As [`flow`].
pub fn flow_while(
    (from, source): (&Namespace, IpAddr),
    (to, destination): (&Namespace, IpAddr),
    interval: Duration,
    more: impl Fn(u32) -> bool,
) -> Result<Flow> {
    let receiver = to
        .enter(|| UdpSocket::bind((any(destination), 0)))?
        .context(format_args!("a UDP socket in {to}"))?;
    receiver.set_read_timeout(Some(QUIET)).context("a time limit")?;
    // A machine that stood still makes good for it at once: what the receiver has not come to read by
    // then is not lost on the way.
    setsockopt(&receiver, RcvBufForce, &RECEIVE_BUFFER).context("room for what arrives")?;
    let port = receiver.local_addr().context("the receiver's address")?.port();
    let address = SocketAddr::new(destination, port);
    let sender = from
        .enter(|| match UdpSocket::bind((source, 0)) {
            Err(error) if error.kind() == AddrNotAvailable => UdpSocket::bind((any(source), 0)),
            bound => bound,
        })?
        .context(format_args!("a UDP socket on {source} in {from}"))?;
    let all = AtomicU32::new(UNKNOWN);
    thread::scope(|scope| {
        let arrived = scope.spawn(|| arrived(&receiver, &all));
        let start = Instant::now();
        let mut count: u32 = 0;
        let mut sent = Ok(());
        while sent.is_ok() && more(count) {
            // By the clock, so that what an emulated machine is late it makes good.
            let due = interval.saturating_mul(count);
            thread::sleep(due.saturating_sub(start.elapsed()));
            let data = [count.to_be_bytes().as_slice(), CANARY, CANARY, CANARY].concat();
            sent = sender.send_to(&data, address).map(drop);
            count = count.saturating_add(1);
        }
        all.store(if sent.is_ok() { count } else { 0 }, Ordering::Relaxed);
        let arrived = arrived.join().map_err(|_panic| Error::new("the receiver panicked"))??;
        sent.context(format_args!("sending from {from}"))?;
        Ok(tally(count, &arrived))
    })
}

/// Octets of what waits for the receiver, as the kernel counts them: 20,000 datagrams.
const RECEIVE_BUFFER: usize = 16 << 20;
/// How long nothing must come until nothing more is expected, when all has arrived.
const QUIET: Duration = Duration::from_millis(200);
/// As long as the sender has not ended.
const UNKNOWN: u32 = u32::MAX;

/// The numbers of the datagrams that arrive, of which there will be `all` when that is known.
fn arrived(socket: &UdpSocket, all: &AtomicU32) -> Result<Vec<u32>> {
    let mut numbers: Vec<u32> = Vec::new();
    let mut buffer = [0; 128];
    let mut ended: Option<Instant> = None;
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                let number = buffer.first_chunk().copied().unwrap_or_default();
                numbers.push(u32::from_be_bytes(number));
            }
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {
                let all = all.load(Ordering::Relaxed);
                if all != UNKNOWN {
                    let late = ended.get_or_insert_with(Instant::now).elapsed();
                    let whole = u32::try_from(numbers.len()).unwrap_or(u32::MAX) >= all;
                    if whole || late > PingOptions::default().wait {
                        return Ok(numbers);
                    }
                }
            }
            Err(error) => return Err(error).context("receiving"),
        }
    }
}

fn tally(sent: u32, arrived: &[u32]) -> Flow {
    let different: BTreeSet<u32> = arrived.iter().copied().collect();
    let repeated = arrived.len().saturating_sub(different.len());
    Flow {
        sent,
        lost: (0..sent).filter(|number| !different.contains(number)).collect(),
        repeated: u32::try_from(repeated).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_repeated_is_known_by_its_number() {
        let flow = tally(5, &[0, 4, 2, 2]);
        assert_eq!(flow, Flow { sent: 5, lost: vec![1, 3], repeated: 1 });
        assert_eq!(flow.whole().unwrap_err().to_string(), "5 sent, lost [1, 3], 1 repeated");
        tally(2, &[1, 0]).whole().unwrap();
    }

    #[test]
    fn the_canary_of_ping_is_the_same() {
        let hex: String = CANARY.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, CANARY_HEX);
    }

    #[test]
    fn the_counts_of_ping_are_read() {
        let text = "PING\n\n3 packets transmitted, 2 received, +1 errors, 33% packet loss\n";
        assert_eq!(pings(text), Some(Pings { sent: 3, received: 2 }));
        assert_eq!(pings("ping: unknown host"), None);
    }
}
