//! libreswan for remote access, as server and as client, with an end that moves; and after either
//! end was killed.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::time::Duration;

use gateway_tests::crash::{self, Told};
use gateway_tests::daemon::{tail, wait_for};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::libreswan::{Connection, Libreswan};
use gateway_tests::mobility::{kept, wait_at};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{both_ways, hosts};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Error, Result};
use serde_json::Value;

use Family::V4;

const NEEDED: [Requirement; 3] = [Requirement::Esp, Requirement::Libreswan, Requirement::Gateway];

/// The first address of either end's pool.
const ASSIGNED: &str = "10.99.0.1";

/// Pings between the client's gateway, by its assigned address, and the host behind the server: as
/// soon as a first one each way is answered.
fn by_the_assigned_address(topology: &Topology) -> Result {
    let own = (&topology.client.gateway, ASSIGNED.parse().context("an address")?);
    let other = (&topology.server.host, topology.server.host_address(V4));
    ping_until_answered(own.0, other.1, PATIENCE)?;
    ping_until_answered(other.0, own.1, PATIENCE)?;
    both_ways([own, other])
}

/// What the only Child SA of a gateway selects holds the assigned address.
fn selects_the_assigned_address(gateway: &Gateway<'_>) -> Result {
    let child = gateway.wait_child(RULE)?;
    let selector = child.pointer("/selectors/0").and_then(Value::as_str);
    assert!(selector.is_some_and(|s| s.contains("10.99.0.1/32")), "{child}");
    Ok(())
}

/// And then we go on from another address (MOBIKE).
#[test]
fn libreswan_assigns_us_an_address_and_follows_us() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    topology.client.gateway.ip(&format!("route del {}", topology.server.prefix(V4)))?;
    let theirs = Connection::of_server(&topology, V4).with_pool("10.99.0.1-10.99.0.20").mobile();
    let server = Libreswan::start(&topology.server.gateway, &theirs)?;
    let ours = Policy {
        peer_keys: "request-address = [\"ipv4\"]".to_owned(),
        ..Policy::of_client(&topology, V4, V4).with_rules(|rule| {
            rule.local = vec!["assigned".to_owned()];
            rule.start = "always";
        })
    };
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    selects_the_assigned_address(&client)?;
    by_the_assigned_address(&topology)?;
    let address = topology.readdress_client(V4)?;
    wait_at(&client, "local", address)?;
    by_the_assigned_address(&topology)?;
    kept(&client, 1)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()
}

/// And then it goes on from another address (MOBIKE), which it shows by our COOKIE2.
#[test]
fn libreswan_gets_an_address_of_our_pool_and_roams() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let policy = Policy {
        peer_keys: "pool = \"staff\"\n\n[pool.staff]\naddresses = [\"10.99.0.0/24\"]\n".to_owned(),
        ..Policy::of_server(&topology, V4, V4)
            .with_rules(|rule| rule.remote = vec!["10.99.0.0/24".to_owned()])
    };
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let theirs = Connection::of_client(&topology, V4).with_request().mobile();
    let client = Libreswan::start(&topology.client.gateway, &theirs)?;
    client.initiate()?;
    selects_the_assigned_address(&server)?;
    // What its script would do.
    let (route, via) = (topology.server.prefix(V4), topology.server.outer(V4));
    topology.client.gateway.ip(&format!(
        "addr add {ASSIGNED}/32 dev lan0\nroute change {route} via {via} src {ASSIGNED}"
    ))?;
    by_the_assigned_address(&topology)?;
    let address = topology.readdress_client(V4)?;
    wait_at(&server, "remote", address)?;
    by_the_assigned_address(&topology)?;
    kept(&server, 1)?;
    client.terminate()?;
    server.wait_gone()
}

#[test]
fn libreswan_that_began_and_was_killed_is_back_and_finds_us_when_we_were() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_client(&topology, V4).impatient();
    let start = || Libreswan::start(&topology.client.gateway, &theirs);
    crash::of_client_and_ours(&topology, Told::Silence, start, Libreswan::terminate)
}

#[test]
fn libreswan_that_answered_and_was_killed_is_reached_anew_and_takes_us_again() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_server(&topology, V4);
    crash::of_server_and_ours(&topology, || Libreswan::start(&topology.server.gateway, &theirs))
}

/// How long everything is on its way while both ask: longer than it takes a slow machine to see that
/// we have asked and to tell libreswan to.
const SLOW: Duration = Duration::from_secs(10);

/// What we say of a peer that has not answered a request.
const SILENT: &str = "Peer does not answer";
/// What libreswan says before it ends an IKE SA without a word to us.
const FATAL: &str = "delete response missing Delete Payload for Child SA";

/// Both ends replace the Child SA at once: we by time, on a slow wire, and libreswan before it hears
/// of it. It compares no nonces and would keep both successors. If its own is the one to go, we wait
/// in vain for it to delete that, and do so ourselves; traffic passes then as before.
///
/// If ours is to stay, both ends delete the old Child SA, and the Deletes cross: our answer has no
/// Delete payload (RFC 7296 1.4.1). For libreswan that is fatal as long as it has not had our Delete,
/// which may still be on the slow wire: it ends the IKE SA, says nothing, and drops what we send. It
/// is reached anew then, and there is one Child SA all the same.
#[test]
fn libreswan_and_we_rekey_a_child_sa_at_once_and_one_is_left() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_server(&topology, V4).known(&topology, V4);
    let server = Libreswan::start(&topology.server.gateway, &theirs)?;
    let ours = Policy {
        settings: "retransmit-initial = \"200ms\"\nretransmit-tries = 8".to_owned(),
        ..Policy::of_client(&topology, V4, V4).with_rules(|rule| {
            rule.start = "always";
            rule.lifetime = Some("14s".to_owned());
        })
    };
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    client.wait_child(RULE)?;
    let repeated = client.counter("ike_request_retransmitted")?;
    topology.delay(SLOW)?;
    client.wait_counter("ike_request_retransmitted", repeated.saturating_add(1))?;
    server.begin_to_rekey_child()?;
    client.wait_counter("ike_rekey_collision", 1)?;
    topology.delay(Duration::ZERO)?;
    wait_for("one Child SA at both ends", 2 * PATIENCE, || {
        let theirs = server.states()?.matches("ESTABLISHED_CHILD_SA").count();
        Ok((theirs == 1 && client.children(RULE)?.len() == 1).then_some(()))
    })
    .map_err(|error| Error::new(format!("{error}\n{}", tail(&server.log()))))?;
    both_ways(hosts(&topology, V4))?;
    let ours = client.daemon().log();
    let expected = if ours.contains(SILENT) {
        let theirs = server.log();
        assert!(theirs.contains(FATAL), "another reason than is known: {theirs}");
        2
    } else {
        assert!(ours.contains(": redundant"), "{ours}");
        1
    };
    assert_eq!(client.counter("ike_sa_established")?, expected);
    Ok(())
}
