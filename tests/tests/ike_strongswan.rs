//! Interoperability with strongSwan, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::fs;

use gateway_tests::capture::Mark;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    between_gateways, between_sites, capture, carries, encrypted, exercise_between,
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

/// That the harness is right is shown by two strongSwans.
fn strongswan_with_itself(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan])? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let mut server = Connection::of_server(&topology, family, family);
    (server.proposals, server.esp_proposals) = (suite.0, suite.1);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let mut client = Connection::of_client(&topology, family, family);
    (client.proposals, client.esp_proposals) = (suite.0, suite.1);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_installed()?;
    carries(&topology, &capture, family)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, family)?])
}

/// strongSwan begins, we answer; strongSwan ends it.
fn strongswan_initiates(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let mut policy = Policy::of_server(&topology, family, family);
    policy.ike_proposals = vec![suite.0];
    let policy = policy.with_rules(|rule| rule.esp_proposals = vec![suite.1]);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let mut client = Connection::of_client(&topology, family, family);
    (client.proposals, client.esp_proposals) = (suite.0, suite.1);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    carries(&topology, &capture, family)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, family)?])
}

/// A host's packet makes us begin, strongSwan answers; we end it.
fn we_initiate(between: Between, family: Family, suite: Suite) -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let mut server = Connection::of_server(&topology, family, family);
    (server.proposals, server.esp_proposals) = (suite.0, suite.1);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let mut policy = Policy::of_client(&topology, family, family);
    policy.ike_proposals = vec![suite.0];
    let policy = policy.with_rules(|rule| {
        rule.esp_proposals = vec![suite.1];
        rule.start = "always";
    });
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    carries(&topology, &capture, family)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, family)?])
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

#[test]
fn strongswan_and_we_agree_on_transport_mode() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (client, server) = (topology.client.outer(V4), topology.server.outer(V4));
    let mut connection = Connection::of_server(&topology, V4, V4);
    connection.mode = "transport";
    connection.remote = Some(client);
    (connection.local_ts, connection.remote_ts) = (server.to_string(), client.to_string());
    let strongswan = StrongSwan::start(&topology.server.gateway, &connection)?;
    let policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.mode = "transport";
        (rule.local, rule.remote) = (vec![format!("{client}/32")], vec![format!("{server}/32")]);
    });
    let gateway = Gateway::start(&topology.client.gateway, &policy)?;
    // First a packet makes us begin, then strongSwan does.
    ping_until_answered(&topology.client.gateway, server, PATIENCE)?;
    gateway.wait_child(RULE)?;
    strongswan.terminate()?;
    gateway.wait_gone()?;
    strongswan.initiate()?;
    gateway.wait_child(RULE)?;
    let one = (&topology.client.gateway, client);
    exercise_between(one, (&topology.server.gateway, server))?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    capture.finish(&[between_gateways(&topology, V4)])
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
