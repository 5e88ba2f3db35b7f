//! Interoperability with strongSwan, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::fs;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::reach::{strongswan_reaches_us, we_reach_strongswan};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    between_gateways, between_sites, capture, carries, exercise_between, none_answered,
    quantum_safe,
};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Result};

use Family::{V4, V6};

/// The algorithms of a test: for IKE and for ESP.
#[derive(Clone, Copy)]
struct Suite(&'static str, &'static str);

const GCM: Suite = Suite("aes128gcm16-prfsha256-x25519", "aes128gcm16");
const CBC: Suite = Suite("aes256-sha512-prfsha512-modp2048", "aes256-sha256");
const CHACHA: Suite = Suite("chacha20poly1305-prfsha384-ecp384", "chacha20poly1305");

const PPK_ID: &str = "key-of-2026";

/// That the harness is right is shown by two strongSwans.
fn strongswan_with_itself(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan])? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let server = suited(Connection::of_server(&topology, family, family), suite);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let client = suited(Connection::of_client(&topology, family, family), suite);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_installed()?;
    carries(&topology, &capture, family)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, family)?])
}

fn suited(connection: Connection, suite: Suite) -> Connection {
    Connection { proposals: suite.0, esp_proposals: suite.1, ..connection }
}

fn strongswan_initiates(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let theirs = suited(Connection::of_client(&topology, family, family), suite);
    let ours = Policy::of_server(&topology, family, family)
        .with_rules(|rule| rule.esp_proposals = vec![suite.1]);
    let ours = Policy { ike_proposals: vec![suite.0], ..ours };
    strongswan_reaches_us(&topology, family, Version::Installed, &theirs, &ours, |_| Ok(()))
}

fn we_initiate(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let theirs = suited(Connection::of_server(&topology, family, family), suite);
    let ours = Policy::of_client(&topology, family, family)
        .with_rules(|rule| rule.esp_proposals = vec![suite.1]);
    let ours = Policy { ike_proposals: vec![suite.0], ..ours };
    we_reach_strongswan(&topology, family, Version::Installed, &theirs, ours, |_| Ok(()))
}

#[test]
fn two_strongswans_agree_directly_over_ipv6() -> Result {
    strongswan_with_itself(Between::Switch, V6, CHACHA)
}

#[test]
fn two_strongswans_agree_through_nat() -> Result {
    strongswan_with_itself(Between::Nat, V4, CBC)
}

#[test]
fn strongswan_reaches_us_directly() -> Result {
    strongswan_initiates(Between::Switch, V4, GCM)
}

#[test]
fn strongswan_reaches_us_directly_over_ipv6_with_chacha() -> Result {
    strongswan_initiates(Between::Switch, V6, CHACHA)
}

#[test]
fn strongswan_reaches_us_through_nat_with_cbc() -> Result {
    strongswan_initiates(Between::Nat, V4, CBC)
}

#[test]
fn we_reach_strongswan_directly_with_cbc() -> Result {
    we_initiate(Between::Switch, V4, CBC)
}

#[test]
fn we_reach_strongswan_through_nat() -> Result {
    we_initiate(Between::Nat, V4, GCM)
}

#[test]
fn we_reach_strongswan_through_nat_of_ipv6() -> Result {
    we_initiate(Between::Nat, V6, GCM)
}

/// It is named first in what we ask for. strongSwan takes the whole rule with it, or as much as it
/// has; what it leaves is asked for in vain, once for each packet that waits.
#[test]
fn a_packet_has_us_reach_strongswan_for_all_that_it_protects() -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (host, ours) = (topology.server.host_address(V4), Policy::of_client(&topology, V4, V4));
    let theirs = Connection::of_server(&topology, V4, V4);
    let server = Version::Installed.start(&topology.server.gateway, &theirs)?;
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    ping_until_answered(&topology.client.host, host, PATIENCE)?;
    server.wait_installed()?;
    let selectors = |client: &Gateway<'_>| {
        let children = client.children(RULE)?;
        Result::Ok(children.iter().map(|child| child["selectors"].to_string()).collect::<Vec<_>>())
    };
    let whole = selectors(&client)?;
    assert!(whole.len() == 1 && whole[0].contains(&topology.server.prefix(V4)), "{whole:?}");
    carries(&topology, &capture, V4)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;

    // Two pairs, which no SA in our kernel can say: still nothing else goes by it.
    let only = Connection { local_ts: format!("{host}/32,10.2.0.78/32"), ..theirs };
    server.load(&only)?;
    topology.server.host.ip("addr add 10.2.0.77/24 dev eth0\naddr add 10.2.0.78/24 dev eth0")?;
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    ping_until_answered(&topology.client.host, host, PATIENCE)?;
    none_answered(&topology.client.host, [10, 2, 0, 77].into())?;
    client.wait_counter("child_sa_failed", 1)?;
    // What is answered is the same once more, and takes the place of what is there.
    let both = [format!("{host}/32"), "10.2.0.78/32".to_owned()];
    wait_for("one Child SA for both", PATIENCE, || {
        let narrowed = selectors(&client)?;
        let [one] = narrowed.as_slice() else { return Ok(None) };
        Ok(both.iter().all(|prefix| one.contains(prefix)).then_some(()))
    })?;
    ping_until_answered(&topology.client.host, [10, 2, 0, 78].into(), PATIENCE)?;
    carries(&topology, &capture, V4)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// By a shared key, and a post-quantum one with it.
#[test]
fn a_newer_strongswan_reaches_us_through_nat() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let theirs = Connection::of_client(&topology, V4, V4);
    let theirs = Connection { ppk: Some((PPK_ID, true)), ..theirs };
    let ours = Policy { ppk: Some(PPK_ID), ..Policy::of_server(&topology, V4, V4) };
    strongswan_reaches_us(&topology, V4, Version::Newer, &theirs, &ours, with_ppk)
}

#[test]
fn we_reach_a_newer_strongswan() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_server(&topology, V4, V4);
    let theirs = Connection { ppk: Some((PPK_ID, true)), ..theirs };
    let ours = Policy { ppk: Some(PPK_ID), ..Policy::of_client(&topology, V4, V4) };
    we_reach_strongswan(&topology, V4, Version::Newer, &theirs, ours, with_ppk)
}

fn with_ppk(gateway: &Gateway<'_>) -> Result {
    assert!(quantum_safe(gateway)?);
    Ok(())
}

#[test]
fn strongswan_and_we_agree_on_transport_mode() -> Result {
    transport_mode(Version::Installed)
}

#[test]
fn a_newer_strongswan_and_we_agree_on_transport_mode() -> Result {
    transport_mode(Version::Newer)
}

fn transport_mode(version: Version) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let (client, server) = (topology.client.outer(V4), topology.server.outer(V4));
    let connection = Connection {
        mode: "transport",
        local_ts: server.to_string(),
        remote_ts: client.to_string(),
        ..Pair::connection(&topology)
    };
    let policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.mode = "transport";
        (rule.local, rule.remote) = (vec![format!("{client}/32")], vec![format!("{server}/32")]);
    });
    let pair = Pair::start(&topology, version, &connection, &policy)?;
    let [one, other] = [(&topology.client.gateway, client), (&topology.server.gateway, server)];
    pair.either_begins([one, other], |ours| {
        // Once, all that there is to carry.
        if ours { Ok(()) } else { exercise_between(one, other) }
    })?;
    pair.finish(&[between_gateways(&topology, V4)])
}

#[test]
fn a_wrong_key_is_refused_and_named() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_server(&topology, V4, V4);
    let mut server = Gateway::start(&topology.server.gateway, &policy)?;
    fs::write(server.policies().join("psk"), "another key, of no use").context("psk")?;
    server.reload(&policy)?;
    let client = Connection::of_client(&topology, V4, V4);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    let error = client.initiate().unwrap_err().to_string();
    assert!(error.contains("AUTH_FAILED"), "{error}");
    server.wait_gone()?;
    let log = server.daemon().log();
    assert!(log.to_lowercase().contains("authentication"), "{log}");
    capture.finish(&[between_sites(&topology, V4)?])
}
