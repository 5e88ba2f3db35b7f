//! Peers that go on from another address or port, with traffic in both directions.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::Ipv4Addr;

use gateway_tests::Result;
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping_until_answered};

use Family::V4;

/// Another address of the router.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

/// Pings both ways, one after the other, all answered.
fn both_ways(topology: &Topology) -> Result {
    let options = PingOptions { count: 10, ..PingOptions::default() };
    for (from, to) in [(&topology.client, &topology.server), (&topology.server, &topology.client)] {
        all_answered(&from.host, to.host_address(V4), &options)?;
    }
    Ok(())
}

/// The same two SAs as before, and as many moves.
fn followed(server: &Gateway<'_>, moves: u64) -> Result {
    for (name, expected) in [
        ("ike_path_changed", moves),
        ("ike_sa_established", 1),
        ("child_sa_installed", 1),
        ("child_sa_not_moved", 0),
    ] {
        assert_eq!(server.counter(name)?, expected, "{name}");
    }
    Ok(())
}

/// The router maps anew, to other ports and then behind another address: the server's SAs follow
/// as soon as the client has said something.
fn rebound(topology: &Topology, server: &Gateway<'_>) -> Result {
    both_ways(topology)?;
    for (moves, outside) in [(1, None), (2, Some(OUTSIDE))] {
        topology.rebind(outside)?;
        wait_for("the server follows", PATIENCE, || {
            Ok((server.counter("ike_path_changed")? >= moves).then_some(()))
        })?;
        both_ways(topology)?;
        followed(server, moves)?;
    }
    Ok(())
}

#[test]
fn our_server_follows_our_client_whose_nat_maps_anew() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let server = Policy::of_server(&topology, V4, V4);
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = "liveness = \"2s\"".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    rebound(&topology, &server)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn our_server_follows_strongswan_whose_nat_maps_anew() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let server = Policy::of_server(&topology, V4, V4);
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Connection::of_client(&topology, V4, V4);
    client.keys = "dpd_delay = 2s".to_owned();
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    rebound(&topology, &server)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
