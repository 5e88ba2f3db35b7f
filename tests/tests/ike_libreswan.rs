//! Interoperability with libreswan, unpacked beside this Debian's packages, with traffic through
//! the kernel's ESP. In each test it does all that one start of it can show.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::time::Duration;

use gateway_tests::Result;
use gateway_tests::capture::Mark;
use gateway_tests::certificates::{Authority, Key, policy};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::libreswan::{Connection, Libreswan};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    all_answered, between_gateways, between_sites, capture, carries, encrypted, quantum_safe,
};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};

use Family::V4;

const NEEDED: [Requirement; 3] = [Requirement::Esp, Requirement::Libreswan, Requirement::Gateway];
const PPK_ID: &str = "key-of-2026";

fn from_client(topology: &Topology) -> Result {
    let (from, to) = (&topology.client.host, topology.server.host_address(V4));
    all_answered(from, to, &PingOptions::default())
}

/// Both ends have shown a chain of more than 4 kB, in fragments.
fn chain_in_fragments(gateway: &Gateway<'_>) -> Result {
    assert!(gateway.counter("ike_message_fragmented")? > 0, "we have sent no fragments");
    assert!(gateway.counter("ike_fragment_received")? >= 3, "libreswan has sent no fragments");
    Ok(())
}

/// By a shared key, and a post-quantum one with it.
#[test]
fn libreswan_reaches_us_through_nat() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let policy = Policy { ppk: Some(PPK_ID), ..Policy::of_server(&topology, V4, V4) };
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection { ppk_id: Some(PPK_ID), ..Connection::of_client(&topology, V4) };
    let client = Libreswan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    assert!(quantum_safe(&server)?);
    carries(&topology, &capture, V4)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_reach_libreswan() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = Connection { ppk_id: Some(PPK_ID), ..Connection::of_server(&topology, V4) };
    let server = Libreswan::start(&topology.server.gateway, &server)?;
    let policy = Policy { ppk: Some(PPK_ID), ..Policy::of_client(&topology, V4, V4) };
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    client.wait_child(RULE)?;
    assert!(quantum_safe(&client)?);
    carries(&topology, &capture, V4)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn libreswan_shows_us_a_long_chain_of_rsa_and_rekeys() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let authority = Authority::with_long_chains(Key::Rsa)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let ours = Policy {
        authentication: policy(&authority, &server),
        ..Policy::of_server(&topology, V4, V4)
            .with_rules(|rule| rule.esp_proposals = vec!["aes256gcm16-ecp384"])
    };
    let server = Gateway::start(&topology.server.gateway, &ours)?;
    let theirs = Connection {
        esp: "aes_gcm256-none-dh20".to_owned(),
        ..Connection::of_client(&topology, V4)
    };
    let theirs = theirs.certified(&authority, &client, "rsa-sha2")?;
    let client = Libreswan::start(&topology.client.gateway, &theirs)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    chain_in_fragments(&server)?;
    from_client(&topology)?;
    for round in 1..=2 {
        client.rekey_child()?;
        server.wait_counter("child_sa_rekeyed", round)?;
        from_client(&topology)?;
        client.rekey_ike()?;
        server.wait_counter("ike_sa_rekeyed", round)?;
        from_client(&topology)?;
    }
    assert!(server.children(RULE)?.iter().any(|c| c["key_exchange"] == "ecp384"));
    assert_eq!(server.counter("ike_sa_established")?, 1);
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_show_libreswan_a_long_chain_of_ecdsa_and_rekey() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let theirs = Connection {
        esp: "aes_gcm256-none-dh31".to_owned(),
        ..Connection::of_server(&topology, V4)
    };
    let theirs = theirs.certified(&authority, &server, "ecdsa-sha2")?;
    let server = Libreswan::start(&topology.server.gateway, &theirs)?;
    let ours = Policy {
        authentication: policy(&authority, &client),
        peer_keys: "lifetime = \"15s\"\nchildless = \"require\"".to_owned(),
        ..Policy::of_client(&topology, V4, V4).with_rules(|rule| {
            rule.esp_proposals = vec!["aes256gcm16-x25519"];
            rule.lifetime = Some("8s".to_owned());
            rule.start = "always";
        })
    };
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    client.wait_child(RULE)?;
    chain_in_fragments(&client)?;
    let pings =
        PingOptions { count: 200, interval: Duration::from_millis(100), ..PingOptions::default() };
    // libreswan sends by the new SA as soon as it has answered, before we can have the keys: what
    // comes until then is lost, a packet or two at each rekeying.
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    let answered = ping(host, target, &pings)?.received;
    assert!(answered >= pings.count.saturating_sub(10), "{answered} of {}", pings.count);
    assert!(client.counter("child_sa_rekeyed")? >= 2);
    assert!(client.counter("ike_sa_rekeyed")? >= 1);
    assert_eq!(client.counter("ike_sa_established")?, 1);
    assert!(client.children(RULE)?.iter().any(|c| c["key_exchange"] == "x25519"));
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// First a packet makes us begin, then libreswan does.
#[test]
fn libreswan_and_we_agree_on_transport_mode() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (client, server) = (topology.client.outer(V4), topology.server.outer(V4));
    let theirs = Connection::of_transport(&topology, V4);
    let libreswan = Libreswan::start(&topology.server.gateway, &theirs)?;
    let policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.mode = "transport";
        (rule.local, rule.remote) = (vec![format!("{client}/32")], vec![format!("{server}/32")]);
    });
    let gateway = Gateway::start(&topology.client.gateway, &policy)?;
    let pings = || all_answered(&topology.client.gateway, server, &PingOptions::default());
    ping_until_answered(&topology.client.gateway, server, PATIENCE)?;
    gateway.wait_child(RULE)?;
    pings()?;
    libreswan.terminate()?;
    gateway.wait_gone()?;
    libreswan.initiate()?;
    gateway.wait_child(RULE)?;
    pings()?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    capture.finish(&[between_gateways(&topology, V4)])
}
