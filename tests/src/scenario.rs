//! What every tunnel is put through.

use core::net::IpAddr;
use core::time::Duration;
use std::thread;

use ipnet::IpNet;

use crate::capture::{Capture, Mark, Selected, Summary};
use crate::error::{Context as _, Error, Result};
use crate::frame::Kind;
use crate::gateway::Gateway;
use crate::namespace::Namespace;
use crate::topology::{Between, Family, Topology};
use crate::traffic::{Flow, PingOptions, flow, ping, transfer};

/// Octets of bulk data each way, in some hundred packets: what emulated machines that run side by
/// side do in a second.
const BULK: usize = 500_000;

/// Pings of this size are fragmented, or find out the path MTU.
const LARGE: u32 = 3000;

/// Who sends or answers: where, and with which address.
pub type End<'a> = (&'a Namespace, IpAddr);

/// A capture of both wires of the middle.
///
/// # Errors
/// As [`Capture::start`].
pub fn capture(topology: &Topology) -> Result<Capture> {
    Capture::start(&topology.middle, &[Topology::CLIENT_PORT, Topology::SERVER_PORT])
}

/// The traffic between the sites.
///
/// # Errors
/// None that can happen: the prefixes are ours.
pub fn between_sites(topology: &Topology, family: Family) -> Result<Selected> {
    let parse = |text: String| text.parse::<IpNet>().context(text);
    Ok((parse(topology.client.prefix(family))?, parse(topology.server.prefix(family))?))
}

/// The traffic between the gateways themselves.
#[must_use]
pub fn between_gateways(topology: &Topology, family: Family) -> Selected {
    (topology.client.outer(family).into(), topology.server.outer(family).into())
}

/// Pings, small and large, and bulk data, both ways between the hosts behind the gateways.
///
/// # Errors
/// Something does not arrive.
pub fn exercise(topology: &Topology, inner: Family) -> Result {
    let [client, server] = hosts(topology, inner);
    exercise_between(client, server)
}

/// The same between any two addresses.
///
/// # Errors
/// Something does not arrive.
pub fn exercise_between(one: End<'_>, other: End<'_>) -> Result {
    for (from, to) in [(one, other), (other, one)] {
        all_answered(from.0, to.1, &PingOptions::default())?;
        let large = PingOptions { size: LARGE, ..PingOptions::default() };
        // Path MTU discovery may take the first large packet of each direction.
        ping(from.0, to.1, &large)?;
        all_answered(from.0, to.1, &large)?;
        transfer(from, to, BULK)?;
    }
    Ok(())
}

/// The hosts behind the gateways, the client's first.
#[must_use]
pub fn hosts(topology: &Topology, inner: Family) -> [End<'_>; 2] {
    [&topology.client, &topology.server].map(|site| (&site.host, site.host_address(inner)))
}

/// Pings from either end, all answered.
///
/// # Errors
/// One is not.
pub fn both_ways([one, other]: [End<'_>; 2]) -> Result {
    for (from, to) in [(one, other), (other, one)] {
        all_answered(from.0, to.1, &PingOptions::default())?;
    }
    Ok(())
}

/// Pings, and wants every one answered.
///
/// # Errors
/// One is not.
pub fn all_answered(from: &Namespace, to: IpAddr, options: &PingOptions) -> Result {
    let pings = ping(from, to, options)?;
    if pings.received == pings.sent {
        return Ok(());
    }
    let (sent, received, size) = (pings.sent, pings.received, options.size);
    Err(Error::new(format!("{received} of {sent} pings of {size} octets from {from} to {to}")))
}

/// Pings, and wants none answered.
///
/// # Errors
/// One is.
pub fn none_answered(from: &Namespace, to: IpAddr) -> Result {
    let options = PingOptions { wait: Duration::from_secs(1), ..PingOptions::default() };
    match ping(from, to, &options)?.received {
        0 => Ok(()),
        n => Err(Error::new(format!("{n} pings from {from} to {to} were answered"))),
    }
}

/// Datagrams a second, each way, that do not slow an emulated machine down.
pub const RATE: u32 = 20;

/// Two flows side by side for so many seconds, of so many datagrams a second: from the first end to
/// the second, and back.
///
/// # Errors
/// As [`flow`]; not that something is lost.
pub fn flows([one, other]: [End<'_>; 2], seconds: u32, rate: u32) -> Result<[Flow; 2]> {
    let count = seconds.saturating_mul(rate);
    let interval = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
    thread::scope(|scope| {
        let there = scope.spawn(|| flow(one, other, count, interval));
        let back = flow(other, one, count, interval)?;
        let there = there.join().map_err(|_panic| Error::new("a flow panicked"))??;
        Ok([there, back])
    })
}

/// Checks that ESP was on the wire, in UDP exactly where there is a NAT.
///
/// # Errors
/// It was not, or in the other form.
pub fn encrypted(topology: &Topology, summary: &Summary) -> Result {
    let (esp, in_udp) = (summary.count(Kind::Esp), summary.count(Kind::EspInUdp));
    let right = match topology.between() {
        Between::Switch => esp > 0 && in_udp == 0,
        Between::Nat => esp == 0 && in_udp > 0,
    };
    if right { Ok(()) } else { Err(Error::new(format!("on the wire were {summary}"))) }
}

/// The tunnel carries everything both ways, and all that has been on the wire so far as ESP.
///
/// # Errors
/// As [`exercise`] and [`encrypted`].
pub fn carries(topology: &Topology, capture: &Capture, inner: Family) -> Result {
    exercise(topology, inner)?;
    encrypted(topology, &capture.summary(Mark::START)?)
}

/// Whether a gateway's IKE SA is quantum-safe.
///
/// # Errors
/// There is none.
pub fn quantum_safe(gateway: &Gateway<'_>) -> Result<bool> {
    Ok(gateway.established()?.get("quantum_safe").is_some_and(|safe| *safe == true))
}
