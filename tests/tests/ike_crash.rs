//! A peer is killed and comes back without its SAs: quick crash detection (RFC 6290) between two of
//! our gateways, and what there is without it, with strongSwan.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::crash::{self, Told, from_client, kill};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::Version;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::strongswan::Connection;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;

use Family::V4;

/// First the responder, then the initiator, which does not begin anew by itself: what is told is
/// the token alone.
#[test]
fn either_end_that_was_killed_proves_it_with_the_secret_of_before() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let peer_keys = "liveness = \"2s\"".to_owned();
    let of_server = Policy { peer_keys: peer_keys.clone(), ..Policy::of_server(&topology, V4, V4) };
    let mut server = Gateway::start(&topology.server.gateway, &of_server)?;
    let of_client = Policy { peer_keys, ..Policy::of_client(&topology, V4, V4) };
    let eager = of_client.clone().with_rules(|rule| rule.start = "always");
    let mut client = Gateway::start(&topology.client.gateway, &eager)?;
    let before = client.wait_child(RULE)?;

    kill(server.daemon())?;
    drop(server);
    let server = Gateway::start(&topology.server.gateway, &of_server)?;
    client.wait_counter("ike_peer_crashed", 1)?;
    assert!(server.counter("ike_crash_token_shown")? > 0);
    let after = client.wait_child(RULE)?;
    assert_ne!(after.get("inbound_spi"), before.get("inbound_spi"));
    server.wait_child(RULE)?;
    from_client(&topology)?;

    kill(client.daemon())?;
    drop(client);
    let client = Gateway::start(&topology.client.gateway, &of_client)?;
    server.wait_counter("ike_peer_crashed", 1)?;
    assert!(client.counter("ike_crash_token_shown")? > 0);
    server.wait_gone()?;
    // Traffic brings it back.
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    from_client(&topology)
}

/// strongSwan knows nothing of RFC 6290: the survivor asks in vain and gives it up.
fn strongswan_began(version: Version) -> Result {
    if !met(&[Requirement::Esp, version.requirement(), Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection { liveness: Some(2), ..Connection::of_client(&topology, V4, V4) };
    let start = || version.start(&topology.client.gateway, &theirs);
    crash::of_client_and_ours(&topology, Told::InitialContact, start, |_client| Ok(()))
}

fn strongswan_answered(version: Version) -> Result {
    if !met(&[Requirement::Esp, version.requirement(), Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_server(&topology, V4, V4);
    crash::of_server_and_ours(&topology, || version.start(&topology.server.gateway, &theirs))
}

#[test]
fn strongswan_that_began_and_was_killed_is_back_by_its_initial_contact_or_ours() -> Result {
    strongswan_began(Version::Installed)
}

#[test]
fn strongswan_that_answered_and_was_killed_is_found_dead_and_reached_anew() -> Result {
    strongswan_answered(Version::Installed)
}

#[test]
fn a_newer_strongswan_that_began_and_was_killed_is_back_by_its_initial_contact_or_ours() -> Result {
    strongswan_began(Version::Newer)
}

#[test]
fn a_newer_strongswan_that_answered_and_was_killed_is_found_dead_and_reached_anew() -> Result {
    strongswan_answered(Version::Newer)
}
