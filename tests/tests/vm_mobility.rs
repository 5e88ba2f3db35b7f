//! Peers that go on from another address or port, with traffic in both directions.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::thread;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Error, Result};
use serde_json::Value;

use Family::V4;

/// Another address of the router.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

/// Pings both ways, one after the other, all answered.
fn both_ways(topology: &Topology) -> Result {
    let interval = Duration::from_millis(50);
    let options = PingOptions { count: 10, interval, ..PingOptions::default() };
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
    ours_rebound(false)
}

#[test]
fn our_client_finds_out_by_mobike_that_its_nat_maps_anew() -> Result {
    ours_rebound(true)
}

fn ours_rebound(mobike: bool) -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let mut server = Policy::of_server(&topology, V4, V4);
    server.peer_keys = format!("mobike = {mobike}");
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = format!("liveness = \"2s\"\nmobike = {mobike}");
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

/// The client's addresses.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 77)];

/// Has the client come to another address, and back, while the hosts ping each other all the time.
/// What is under way when the address goes is lost, and nothing else.
#[expect(clippy::print_stdout, reason = "how much is lost is worth knowing")]
fn roam(topology: &Topology, arrived: impl Fn(Ipv4Addr) -> Result) -> Result {
    both_ways(topology)?;
    let [one, other] = ADDRESSES;
    for (from, to) in [(one, other), (other, one)] {
        let interval = Duration::from_millis(100);
        let options = PingOptions { count: PINGS, interval, ..PingOptions::default() };
        let sites = [(&topology.client, &topology.server), (&topology.server, &topology.client)];
        let lost = thread::scope(|scope| {
            let flows = sites.map(|(from, to)| {
                let options = &options;
                scope.spawn(move || ping(&from.host, to.host_address(V4), options))
            });
            thread::sleep(Duration::from_secs(1));
            topology.readdress_client(from, to)?;
            arrived(to)?;
            let mut lost = Vec::new();
            for flow in flows {
                let pings = flow.join().map_err(|_panic| Error::new("ping panicked"))??;
                lost.push(pings.sent.saturating_sub(pings.received));
            }
            Ok::<_, Error>(lost)
        })?;
        println!("from {from} to {to}: {lost:?} of {PINGS} pings lost");
        assert!(lost.iter().all(|lost| *lost <= MOST_LOST), "{lost:?} lost");
        both_ways(topology)?;
    }
    Ok(())
}

/// In six seconds.
const PINGS: u32 = 60;
/// On an emulated machine the exchange takes up to a second, or two beside others.
const MOST_LOST: u32 = 25;

/// Waits until one of our gateways has its peer, or itself, at an address.
fn at(gateway: &Gateway<'_>, side: &str, address: Ipv4Addr) -> Result {
    wait_for("the SAs have moved", PATIENCE, || {
        let status = gateway.status()?;
        let sas = status.get("ike_sas").and_then(Value::as_array).cloned().unwrap_or_default();
        let there = format!("{address}:4500");
        let is_there = |sa: &Value| sa.get(side).and_then(Value::as_str) == Some(&there);
        Ok(sas.iter().any(is_there).then_some(()))
    })
}

/// The SAs of the beginning are still there, with so many moves.
fn kept(gateway: &Gateway<'_>) -> Result {
    followed(gateway, 2)
}

#[test]
fn our_client_roams_to_our_server() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut server = Policy::of_server(&topology, V4, V4);
    server.peer_keys = "mobike = true".to_owned();
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = "mobike = true".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    roam(&topology, |address| {
        at(&client, "local", address)?;
        at(&server, "remote", address)
    })?;
    kept(&client)?;
    kept(&server)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn our_client_roams_to_strongswan() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut server = Connection::of_server(&topology, V4, V4);
    server.mobike = true;
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = "mobike = true".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    roam(&topology, |address| at(&client, "local", address))?;
    kept(&client)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn strongswan_roams_to_our_server() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut server = Policy::of_server(&topology, V4, V4);
    server.peer_keys = "mobike = true".to_owned();
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Connection::of_client(&topology, V4, V4);
    client.mobike = true;
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    roam(&topology, |address| at(&server, "remote", address))?;
    kept(&server)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
