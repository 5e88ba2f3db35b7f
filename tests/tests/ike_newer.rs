//! Interoperability with a strongSwan newer than this Debian's, unpacked beside it.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, capture, carries};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;

use Family::V4;

const NEEDED: [Requirement; 3] =
    [Requirement::Esp, Requirement::NewerStrongSwan, Requirement::Gateway];

#[test]
fn a_newer_strongswan_reaches_us_through_nat() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_server(&topology, V4, V4);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection::of_client(&topology, V4, V4);
    let client = StrongSwan::start_newer(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    carries(&topology, &capture, V4)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_reach_a_newer_strongswan() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = Connection::of_server(&topology, V4, V4);
    let server = StrongSwan::start_newer(&topology.server.gateway, &server)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let client = Gateway::start(&topology.client.gateway, &policy)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    client.wait_child(RULE)?;
    carries(&topology, &capture, V4)?;
    drop(client);
    drop(server);
    capture.finish(&[between_sites(&topology, V4)?])
}
