//! One of strongSwan and us begins, at the client's side; everything passes, and it ends it.

use crate::error::Result;
use crate::gateway::{Gateway, PATIENCE, Policy, RULE};
use crate::pair::Version;
use crate::scenario::{between_sites, capture, carries};
use crate::strongswan::Connection;
use crate::topology::{Family, Topology};

/// strongSwan begins, we answer. `check` looks at us when there is a Child SA.
///
/// # Errors
/// There is none, `check` fails, something does not arrive, or there is an end without an end.
pub fn strongswan_reaches_us(
    topology: &Topology,
    inner: Family,
    version: Version,
    theirs: &Connection,
    ours: &Policy,
    check: impl FnOnce(&Gateway<'_>) -> Result,
) -> Result {
    let capture = capture(topology)?;
    let server = Gateway::start(&topology.server.gateway, ours)?;
    let client = version.start(&topology.client.gateway, theirs)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    check(&server)?;
    carries(topology, &capture, inner)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(topology, inner)?])
}

/// We begin as soon as we are started, strongSwan answers; else as [`strongswan_reaches_us`].
///
/// # Errors
/// As there.
pub fn we_reach_strongswan(
    topology: &Topology,
    inner: Family,
    version: Version,
    theirs: &Connection,
    ours: Policy,
    check: impl FnOnce(&Gateway<'_>) -> Result,
) -> Result {
    let capture = capture(topology)?;
    let server = version.start(&topology.server.gateway, theirs)?;
    let ours = ours.with_rules(|rule| rule.start = "always");
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    check(&client)?;
    carries(topology, &capture, inner)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(topology, inner)?])
}
