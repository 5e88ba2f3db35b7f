//! Two of our gateways, one of which goes on from another address or port, with traffic both ways.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::IpAddr;
use core::time::Duration;
use std::thread;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy};
use gateway_tests::mobility::{kept, rebind, roam, wait_at};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, both_ways, capture, hosts};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Error, Result};

use Family::{V4, V6};

#[test]
fn our_server_follows_our_client_whose_nat_maps_anew() -> Result {
    ours_behind_nat(false)
}

#[test]
fn our_client_finds_out_by_mobike_that_its_nat_maps_anew() -> Result {
    ours_behind_nat(true)
}

fn ours_behind_nat(mobike: bool) -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let mut server = Policy::of_server(&topology, V4, V4);
    server.peer_keys = format!("mobike = {mobike}");
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = "liveness = \"1s\"".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    rebind(&topology, |moves| server.wait_counter("ike_path_changed", moves))?;
    kept(&server, 2)?;
    if mobike {
        // The client's own address is another one, and the server sees another port.
        roam(&topology, V4, |address| {
            wait_at(&client, "local", address)?;
            server.wait_counter("ike_path_changed", 3)
        })?;
        kept(&server, 3)?;
        kept(&client, 1)?;
    }
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// In four seconds.
const PINGS: u32 = 40;
/// On an emulated machine the exchange takes up to a second, or two beside others.
const MOST_LOST: u32 = 25;

/// The client comes to another address while the hosts ping each other all the time. What is under
/// way when the address goes is lost, and nothing else.
#[expect(clippy::print_stdout, reason = "how much is lost is worth knowing")]
fn roam_with_traffic(topology: &Topology, arrived: impl Fn(IpAddr) -> Result) -> Result {
    let interval = Duration::from_millis(100);
    let options = PingOptions { count: PINGS, interval, ..PingOptions::default() };
    let sites = [(&topology.client, &topology.server), (&topology.server, &topology.client)];
    let lost = thread::scope(|scope| {
        let flows = sites.map(|(from, to)| {
            let options = &options;
            scope.spawn(move || ping(&from.host, to.host_address(V4), options))
        });
        thread::sleep(Duration::from_millis(500));
        roam(topology, V4, arrived)?;
        let mut lost = Vec::new();
        for flow in flows {
            let pings = flow.join().map_err(|_panic| Error::new("ping panicked"))??;
            lost.push(pings.sent.saturating_sub(pings.received));
        }
        Ok::<_, Error>(lost)
    })?;
    println!("{lost:?} of {PINGS} pings lost");
    assert!(lost.iter().all(|lost| *lost <= MOST_LOST), "{lost:?} lost");
    Ok(())
}

#[test]
fn our_client_roams_to_our_server_and_from_ipv4_to_ipv6() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    // Without an address that it stays at, the server tells the other one.
    let server = Policy { local_address: None, ..Policy::of_server(&topology, V4, V4) };
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = Policy::of_client(&topology, V4, V4);
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    let arrived = |address| {
        wait_at(&client, "local", address)?;
        wait_at(&server, "remote", address)
    };
    roam_with_traffic(&topology, arrived)?;
    topology.take_ipv4_of_client()?;
    arrived(topology.client.outer(V6))?;
    both_ways(hosts(&topology, V4))?;
    roam(&topology, V6, arrived)?;
    kept(&client, 3)?;
    kept(&server, 3)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
