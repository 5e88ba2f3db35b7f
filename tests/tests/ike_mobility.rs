//! Interoperability while the initiator goes on from another address, and while the NAT in front of it
//! maps anew, with traffic both ways. Each test does all that one start of a peer can show.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::IpAddr;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::mobility::{kept, rebind, roam, wait_at};
use gateway_tests::pair::Version;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, capture};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Result};

use Family::{V4, V6};

/// A notification in strongSwan's log: UPDATE_SA_ADDRESSES (RFC 4555 3.5).
const SAYS_SO: &str = "N(UPD_SA_ADDR)";

fn can(peer: Requirement) -> Result<bool> {
    met(&[Requirement::Esp, peer, Requirement::Gateway])
}

/// Our client moves, and its gateway's peer follows.
fn ours_moves(topology: &Topology, client: &Gateway<'_>, outer: Family, moves: u64) -> Result {
    roam(topology, outer, |address: IpAddr| wait_at(client, "local", address))?;
    kept(client, moves)
}

/// Our client's NAT maps anew, which it finds out and says; then it moves behind it.
fn we_behind_nat(version: Version) -> Result {
    if !can(version.requirement())? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let server = Connection { mobike: true, ..Connection::of_server(&topology, V4, V4) };
    let server = version.start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(&topology, V4, V4);
    client.peer_keys = "liveness = \"1s\"".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    // strongSwan may have followed our ESP already (its kernel tells it); what we say is to be more.
    let (from, to) = (&topology.client.host, topology.server.host_address(V4));
    let told = || u64::try_from(server.log().matches(SAYS_SO).count()).context("a number");
    rebind(&topology, |moves| {
        ping_until_answered(from, to, PATIENCE)?;
        wait_for("our word of it", PATIENCE, || Ok((told()? >= moves).then_some(())))
    })?;
    kept(&client, 0)?;
    ours_moves(&topology, &client, V4, 1)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn strongswan_follows_us_behind_a_nat_that_maps_anew() -> Result {
    we_behind_nat(Version::Installed)
}

#[test]
fn a_newer_strongswan_follows_us_behind_a_nat_that_maps_anew() -> Result {
    we_behind_nat(Version::Newer)
}

/// strongSwan's NAT maps anew, and then it moves behind it.
fn strongswan_behind_nat(version: Version) -> Result {
    if !can(version.requirement())? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let server = Policy::of_server(&topology, V4, V4);
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = Connection::of_client(&topology, V4, V4);
    let client = Connection { mobike: true, keys: "dpd_delay = 1s".to_owned(), ..client };
    let client = version.start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    // strongSwan compares what it hears of its NAT from one liveness check to the next.
    wait_for("a liveness check", PATIENCE, || {
        Ok(client.log().contains("parsed INFORMATIONAL response").then_some(()))
    })?;
    rebind(&topology, |moves| server.wait_counter("ike_path_changed", moves))?;
    kept(&server, 2)?;
    roam(&topology, V4, |_address| server.wait_counter("ike_path_changed", 3))?;
    kept(&server, 3)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_follow_strongswan_behind_a_nat_that_maps_anew() -> Result {
    strongswan_behind_nat(Version::Installed)
}

#[test]
fn we_follow_a_newer_strongswan_behind_a_nat_that_maps_anew() -> Result {
    strongswan_behind_nat(Version::Newer)
}

/// Without NAT; and over IPv6. Nobody is at the address of the server that we have first, and so we
/// go to the next one (RFC 4555 3.1).
#[test]
fn our_client_passes_over_a_silent_address_and_roams_to_strongswan() -> Result {
    if !can(Requirement::StrongSwan)? {
        return Ok(());
    }
    for outer in [V4, V6] {
        let topology = Topology::new(Between::Switch)?;
        let capture = capture(&topology)?;
        let server = Connection { mobike: true, ..Connection::of_server(&topology, outer, V4) };
        let server = StrongSwan::start(&topology.server.gateway, &server)?;
        let (silent, there) = (topology.server.other_outer(outer), topology.server.outer(outer));
        let client = Policy {
            addresses: vec![silent, there],
            settings: "retransmit-initial = \"200ms\"".to_owned(),
            ..Policy::of_client(&topology, outer, V4)
        };
        let mut client = Gateway::start(&topology.client.gateway, &client)?;
        ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
        wait_at(&client, "remote", there)?;
        assert_eq!(client.counter("ike_other_address_tried")?, 1);
        ours_moves(&topology, &client, outer, 1)?;
        assert!(client.daemon().stop(PATIENCE)?.success());
        server.wait_gone()?;
        capture.finish(&[between_sites(&topology, V4)?])?;
    }
    Ok(())
}

/// Without NAT; and over IPv6.
#[test]
fn strongswan_roams_to_our_server() -> Result {
    if !can(Requirement::StrongSwan)? {
        return Ok(());
    }
    for outer in [V4, V6] {
        let topology = Topology::new(Between::Switch)?;
        let capture = capture(&topology)?;
        let server = Policy::of_server(&topology, outer, V4);
        let server = Gateway::start(&topology.server.gateway, &server)?;
        let client = Connection { mobike: true, ..Connection::of_client(&topology, outer, V4) };
        let client = StrongSwan::start(&topology.client.gateway, &client)?;
        client.initiate()?;
        server.wait_child(RULE)?;
        roam(&topology, outer, |address| wait_at(&server, "remote", address))?;
        kept(&server, 1)?;
        client.terminate()?;
        server.wait_gone()?;
        capture.finish(&[between_sites(&topology, V4)?])?;
    }
    Ok(())
}
