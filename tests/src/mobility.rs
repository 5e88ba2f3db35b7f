//! Peers that go on from another address or port, with traffic both ways.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::io::ErrorKind::WouldBlock;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use serde_json::Value;

use crate::daemon::wait_for;
use crate::error::{Context as _, Error, Result};
use crate::gateway::{Gateway, PATIENCE};
use crate::scenario::{End, both_ways, hosts};
use crate::topology::{Family, Topology};
use crate::traffic::{Flow, flow_while, ping_until_answered};

use Family::V4;

/// Another address of the router.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

/// A gateway has the IKE SA that it began with, after so many moves, and the Child SA or one that
/// has replaced it: an initiator that has both addresses when it goes renews it.
///
/// # Errors
/// One of its counters is another.
pub fn kept(gateway: &Gateway<'_>, moves: u64) -> Result {
    let replaced = gateway.counter("child_sa_rekeyed")?;
    for (name, expected) in [
        ("ike_path_changed", moves),
        ("ike_sa_established", 1),
        ("child_sa_installed", replaced.saturating_add(1)),
        ("child_sa_not_moved", 0),
    ] {
        let found = gateway.counter(name)?;
        if found != expected {
            return Err(Error::new(format!("{name} is {found}, not {expected}")));
        }
    }
    Ok(())
}

/// Datagrams that are on their way in both directions, and the numbers of those sent last.
#[derive(Debug, Default)]
pub struct Flowing {
    sent: [AtomicU32; 2],
    ended: AtomicBool,
}

/// Between two datagrams of a direction.
const INTERVAL: Duration = Duration::from_millis(25);

impl Flowing {
    /// How many are sent in each direction in a second.
    pub const A_SECOND: u32 = 40;

    /// Flows to the server and to the client as long as something is done. Gives what comes of that
    /// and of the flows.
    ///
    /// # Errors
    /// What is done fails, or a flow.
    pub fn during<T>(
        [client, server]: [End<'_>; 2],
        act: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<(T, [Flow; 2])> {
        let flowing = Self::default();
        let [to_server, to_client] = &flowing.sent;
        let more = |sent: &AtomicU32, number| {
            sent.store(number, Ordering::Relaxed);
            !flowing.ended.load(Ordering::Relaxed)
        };
        thread::scope(|scope| {
            let there =
                scope.spawn(|| flow_while(client, server, INTERVAL, |n| more(to_server, n)));
            let back = scope.spawn(|| flow_while(server, client, INTERVAL, |n| more(to_client, n)));
            let done = flowing.go_on(20).and_then(|()| act(&flowing));
            let done = done.and_then(|done| flowing.go_on(20).map(|()| done));
            flowing.ended.store(true, Ordering::Relaxed);
            let panicked = |_panic| Error::new("a flow panicked");
            let (there, back) = (there.join().map_err(panicked)?, back.join().map_err(panicked)?);
            Ok((done?, [there?, back?]))
        })
    }

    /// The numbers that are sent next, to the server and to the client.
    #[must_use]
    pub fn numbers(&self) -> [u32; 2] {
        self.sent.each_ref().map(|sent| sent.load(Ordering::Relaxed))
    }

    /// Waits until so many more have been sent in each direction.
    ///
    /// # Errors
    /// They have not within a minute.
    pub fn go_on(&self, more: u32) -> Result {
        let least = self.numbers().map(|number| number.saturating_add(more));
        wait_for("datagrams", PATIENCE, || {
            let far = self.numbers().iter().zip(least).all(|(number, least)| *number >= least);
            Ok(far.then_some(()))
        })
    }
}

/// All that is lost of a flow was sent from one number on and not after another.
///
/// # Errors
/// Something else is lost, or something has come twice.
pub fn lost_within(flow: &Flow, first: u32, last: u32) -> Result {
    let within = flow.lost.iter().all(|number| (first..=last).contains(number));
    if within && flow.repeated == 0 {
        return Ok(());
    }
    Err(Error::new(format!("{flow}; only those from {first} to {last} may be")))
}

/// Waits until a gateway has its peer (`remote`), or itself (`local`), at an address.
///
/// # Errors
/// It has not within a minute.
pub fn wait_at(gateway: &Gateway<'_>, side: &str, address: IpAddr) -> Result {
    wait_for("the SAs have moved", PATIENCE, || {
        let status = gateway.status()?;
        let sas = status.get("ike_sas").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_there = |sa: &Value| {
            let end = sa.get(side).and_then(Value::as_str);
            end.and_then(|end| end.parse::<core::net::SocketAddr>().ok())
                .is_some_and(|end| end.ip() == address)
        };
        Ok(sas.iter().any(is_there).then_some(()))
    })
}

/// Somebody beside the server who has port 4500 of an address of his own.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// His socket.
///
/// # Errors
/// `ip` or `nft` refuses, or there is no socket.
pub fn stranger(topology: &Topology) -> Result<UdpSocket> {
    let middle = &topology.middle;
    middle.ip(&format!("addr add {STRANGER}/24 dev {}", Topology::SERVER_PORT))?;
    // Else what he sends would be mapped as what the client does is.
    middle.nft(&format!(
        "table inet stranger {{
            chain output {{
                type filter hook output priority raw
                ip saddr {STRANGER} notrack
            }}
        }}"
    ))?;
    let socket = middle.enter(|| UdpSocket::bind((STRANGER, 4500)))?;
    let socket = socket.context(format_args!("a UDP socket on {STRANGER}"))?;
    socket.set_nonblocking(true).context("a socket that does not wait")?;
    Ok(socket)
}

/// The octets of each datagram that has come to a socket that does not wait.
///
/// # Errors
/// It cannot be read.
pub fn all_received(socket: &UdpSocket) -> Result<Vec<usize>> {
    let mut received = Vec::new();
    loop {
        match socket.recv(&mut [0; 2048]) {
            Ok(octets) => received.push(octets),
            Err(error) if error.kind() == WouldBlock => return Ok(received),
            Err(error) => return Err(error).context("receiving"),
        }
    }
}

/// How often the server has followed, and behind which address the router maps to other ports.
pub const REBINDINGS: [(u64, Option<Ipv4Addr>); 2] = [(1, None), (2, Some(OUTSIDE))];

/// The router maps anew, to other ports and then behind another address; `arrived` waits until the
/// server has followed so many times.
///
/// # Errors
/// The server does not follow, or a ping is lost afterwards.
pub fn rebind(topology: &Topology, arrived: impl Fn(u64) -> Result) -> Result {
    both_ways(hosts(topology, V4))?;
    for (moves, outside) in REBINDINGS {
        topology.rebind(outside)?;
        arrived(moves)?;
        both_ways_again(topology)?;
    }
    Ok(())
}

/// The client comes to another address; `arrived` waits until its SAs have.
///
/// # Errors
/// They do not, or a ping is lost afterwards.
pub fn roam(topology: &Topology, outer: Family, arrived: impl Fn(IpAddr) -> Result) -> Result {
    both_ways(hosts(topology, V4))?;
    arrived(topology.readdress_client(outer)?)?;
    both_ways_again(topology)
}

/// As soon as a first ping of each direction is answered, since the other end hears of a move later
/// than the one that moves.
fn both_ways_again(topology: &Topology) -> Result {
    for (from, to) in [(&topology.client, &topology.server), (&topology.server, &topology.client)] {
        ping_until_answered(&from.host, to.host_address(V4), PATIENCE)?;
    }
    both_ways(hosts(topology, V4))
}
