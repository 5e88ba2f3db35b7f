//! Traffic of every kind, all the time, whatever becomes of it: what a leak test sends.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::error::{Context as _, Error, Result};
use crate::namespace::Namespace;
use crate::traffic::{CANARY, PingOptions, ping_command};

/// Between two rounds of one sender.
const PAUSE: Duration = Duration::from_millis(100);
/// Small, and larger than any link takes at once.
const SIZES: [usize; 2] = [48, 3000];

/// Does something while each sender sends datagrams, pings, both small and in fragments, and asks
/// for TCP connections, to each of its targets.
///
/// # Errors
/// The work fails, or a sender cannot begin. That the kernel refuses to send is no error: it may be
/// told to.
pub fn amid_noise<T>(
    senders: &[(&Namespace, IpAddr)],
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let noise: Vec<_> = senders
            .iter()
            .map(|&(from, to)| {
                let end = &end;
                scope.spawn(move || send(from, to, end))
            })
            .collect();
        let outcome = work();
        end.store(true, Ordering::Relaxed);
        for sender in noise {
            sender.join().map_err(|_panic| Error::new("a sender panicked"))??;
        }
        outcome
    })
}

fn send(from: &Namespace, to: IpAddr, end: &AtomicBool) -> Result {
    let mut pings = SIZES.map(|size| ping(from, to, size));
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let datagrams = from.enter(|| UdpSocket::bind((any, 0)))?.context("a UDP socket")?;
    let data: Vec<u8> = CANARY.iter().copied().cycle().take(3000).collect();
    while !end.load(Ordering::Relaxed) {
        for size in SIZES {
            drop(datagrams.send_to(data.get(..size).unwrap_or_default(), (to, 9)));
        }
        let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, 9), PAUSE);
        drop(from.enter(connect)?);
        thread::sleep(PAUSE);
        // While there is no route at all ping gives up.
        for (running, size) in pings.iter_mut().zip(SIZES) {
            if running.as_mut().is_ok_and(|ping| matches!(ping.try_wait(), Ok(Some(_)))) {
                *running = ping(from, to, size);
            }
        }
    }
    for ping in pings {
        let mut ping = ping?;
        ping.kill().context("ping")?;
        ping.wait().context("ping")?;
    }
    Ok(())
}

fn ping(from: &Namespace, to: IpAddr, size: usize) -> Result<Child> {
    let options = PingOptions {
        count: 100_000,
        size: u32::try_from(size).unwrap_or_default(),
        interval: PAUSE.saturating_mul(2),
        ..PingOptions::default()
    };
    let mut command = ping_command(from, to, &options);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("ping")
}
