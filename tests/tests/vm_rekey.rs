//! Rekeying of Child SAs and of IKE SAs under a constant flow: no packet is lost.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::thread;
use std::time::Duration;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, capture};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Error, Result};

use Family::V4;

const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// With a key exchange of its own: the successors have perfect forward secrecy.
const ESP: &str = "aes128gcm16-x25519";

/// Does something while the host behind the server pings the one behind the client and the other
/// way round, and wants every ping answered.
fn under_traffic(
    topology: &Topology,
    time: Duration,
    meanwhile: impl FnOnce() -> Result,
) -> Result {
    let interval = Duration::from_millis(100);
    let count = time.as_millis().checked_div(interval.as_millis()).unwrap_or(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let options = PingOptions { count, interval, ..PingOptions::default() };
    let sites = [(&topology.client, &topology.server), (&topology.server, &topology.client)];
    thread::scope(|scope| {
        let flows = sites.map(|(from, to)| {
            let options = &options;
            scope.spawn(move || ping(&from.host, to.host_address(V4), options))
        });
        meanwhile()?;
        for flow in flows {
            let pings = flow.join().map_err(|_panic| Error::new("ping panicked"))??;
            if pings.received != pings.sent || pings.sent != options.count {
                return Err(Error::new(format!("of {} pings {pings:?}", options.count)));
            }
        }
        Ok(())
    })
}

/// Our policy with short lifetimes, or with the daemon's own.
fn short_lived(policy: Policy, lifetimes: Option<(&'static str, &'static str)>) -> Policy {
    let mut policy = policy.with_rules(|rule| {
        rule.esp_proposals = vec![ESP];
        rule.lifetime = lifetimes.map(|(child, _)| child);
    });
    policy.ike_proposals = vec![IKE];
    if let Some((_, ike)) = lifetimes {
        policy.peer_keys = format!("lifetime = \"{ike}\"");
    }
    policy
}

/// So often at least the SAs must have been replaced, and never have been made anew.
fn rekeyed(gateway: &Gateway<'_>, children: u64, ike: u64) -> Result {
    let counters = (
        gateway.counter("child_sa_rekeyed")?,
        gateway.counter("ike_sa_rekeyed")?,
        gateway.counter("ike_sa_established")?,
        gateway.counter("child_sa_expired")?,
    );
    if counters.0 >= children && counters.1 >= ike && counters.2 == 1 && counters.3 == 0 {
        return Ok(());
    }
    Err(Error::new(format!(
        "rekeyed {} Child SAs, {} IKE SAs, established {}, expired {}",
        counters.0, counters.1, counters.2, counters.3
    )))
}

fn has_pfs(gateway: &Gateway<'_>) -> Result<bool> {
    let children = gateway.children(RULE)?;
    Ok(children.iter().any(|c| c.get("key_exchange").is_some_and(|name| name == "x25519")))
}

#[test]
fn two_of_ours_rekey_all_the_time_and_lose_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let lifetimes = Some(("8s", "15s"));
    let server = short_lived(Policy::of_server(&topology, V4, V4), lifetimes);
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = short_lived(Policy::of_client(&topology, V4, V4), lifetimes);
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    under_traffic(&topology, Duration::from_secs(25), || Ok(()))?;
    for gateway in [&client, &server] {
        rekeyed(gateway, 2, 1)?;
        assert!(has_pfs(gateway)?);
    }
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_rekey_with_strongswan_and_lose_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut server = Connection::of_server(&topology, V4, V4);
    (server.proposals, server.esp_proposals) = (IKE, ESP);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let client = short_lived(Policy::of_client(&topology, V4, V4), Some(("8s", "15s")));
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    under_traffic(&topology, Duration::from_secs(20), || Ok(()))?;
    rekeyed(&client, 2, 1)?;
    assert!(has_pfs(&client)?);
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn strongswan_rekeys_with_us_and_loses_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = short_lived(Policy::of_server(&topology, V4, V4), None);
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Connection::of_client(&topology, V4, V4);
    (client.proposals, client.esp_proposals) = (IKE, ESP);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    under_traffic(&topology, Duration::from_secs(12), || {
        let wait = |name: &'static str, count: u64| {
            wait_for(name, PATIENCE, || Ok((server.counter(name)? >= count).then_some(())))
        };
        client.rekey_child()?;
        wait("child_sa_rekeyed", 1)?;
        client.rekey_ike()?;
        wait("ike_sa_rekeyed", 1)?;
        client.rekey_child()?;
        wait("child_sa_rekeyed", 2)
    })?;
    rekeyed(&server, 2, 1)?;
    assert!(has_pfs(&server)?);
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
