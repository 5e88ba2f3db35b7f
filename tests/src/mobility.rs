//! Peers that go on from another address or port, with traffic both ways.

use core::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::daemon::wait_for;
use crate::error::{Error, Result};
use crate::gateway::{Gateway, PATIENCE};
use crate::scenario::{both_ways, hosts};
use crate::topology::{Family, Topology};
use crate::traffic::ping_until_answered;

use Family::V4;

/// Another address of the router.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

/// A gateway has the SAs that it began with, after so many moves.
///
/// # Errors
/// One of its counters is another.
pub fn kept(gateway: &Gateway<'_>, moves: u64) -> Result {
    for (name, expected) in [
        ("ike_path_changed", moves),
        ("ike_sa_established", 1),
        ("child_sa_installed", 1),
        ("child_sa_not_moved", 0),
    ] {
        let found = gateway.counter(name)?;
        if found != expected {
            return Err(Error::new(format!("{name} is {found}, not {expected}")));
        }
    }
    Ok(())
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

/// The router maps anew, to other ports and then behind another address; `arrived` waits until the
/// server has followed so many times.
///
/// # Errors
/// The server does not follow, or a ping is lost afterwards.
pub fn rebind(topology: &Topology, arrived: impl Fn(u64) -> Result) -> Result {
    both_ways(hosts(topology, V4))?;
    for (moves, outside) in [(1, None), (2, Some(OUTSIDE))] {
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
