//! What is to withstand quantum computers, with strongSwan: ML-KEM with a newer one; with the one of
//! this Debian, which has neither that nor additional key exchanges, a PPK.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::time::Duration;

use gateway_tests::capture::Mark;
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::reach::{strongswan_reaches_us, we_reach_strongswan};
use gateway_tests::requirements::met;
use gateway_tests::scenario::{between_sites, capture, encrypted, exercise};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

const PPK_ID: &str = "key-of-2026";
const CLASSIC: &str = "aes256gcm16-prfsha256-x25519";
const HYBRID: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
/// The successors of a Child SA have ML-KEM of their own.
const HYBRID_ESP: &str = "aes256gcm16-x25519-ke1_mlkem768";

fn with_ppk(policy: Policy) -> Policy {
    Policy { ppk: Some(PPK_ID), ..policy }
}

/// The suite of our one IKE SA, which must be quantum-safe.
fn quantum_safe_suite(gateway: &Gateway<'_>) -> Result<String> {
    let sa = gateway.established()?;
    assert_eq!(sa.get("quantum_safe"), Some(&Value::Bool(true)), "{sa}");
    let suite = sa.get("suite").and_then(Value::as_str).context("no suite")?;
    Ok(suite.to_owned())
}

/// We are quantum-safe with this suite.
fn agreed(suite: &str) -> impl Fn(&Gateway<'_>) -> Result {
    move |gateway| {
        assert_eq!(quantum_safe_suite(gateway)?, suite);
        Ok(())
    }
}

/// Our default proposals begin with one that it does not understand and must pass over.
#[test]
fn an_old_strongswan_takes_our_classic_default_and_a_ppk() -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let theirs = Connection::of_server(&topology, V4, V4);
    let theirs = Connection { proposals: CLASSIC, ppk: Some((PPK_ID, true)), ..theirs };
    let ours = with_ppk(Policy::of_client(&topology, V4, V4));
    we_reach_strongswan(&topology, V4, Version::Installed, &theirs, ours, agreed(CLASSIC))
}

#[test]
fn we_take_the_classic_proposal_of_an_old_strongswan_and_its_ppk() -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection::of_client(&topology, V4, V4);
    let theirs = Connection { proposals: CLASSIC, ppk: Some((PPK_ID, false)), ..theirs };
    let ours = with_ppk(Policy::of_server(&topology, V4, V4));
    strongswan_reaches_us(&topology, V4, Version::Installed, &theirs, &ours, agreed(CLASSIC))
}

#[test]
fn a_newer_strongswan_takes_ml_kem_by_our_default() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = Connection { proposals: HYBRID, ..Connection::of_server(&topology, V4, V4) };
    let ours = Policy::of_client(&topology, V4, V4);
    we_reach_strongswan(&topology, V4, Version::Newer, &theirs, ours, agreed(HYBRID))
}

#[test]
fn we_take_ml_kem_from_a_newer_strongswan_behind_nat() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let theirs = Connection { proposals: HYBRID, ..Connection::of_client(&topology, V4, V4) };
    let ours = Policy::of_server(&topology, V4, V4);
    strongswan_reaches_us(&topology, V4, Version::Newer, &theirs, &ours, agreed(HYBRID))
}

/// Both SAs have been replaced with ML-KEM by IKE_FOLLOWUP_KE, and nothing was made anew.
fn rekeyed_with_ml_kem(gateway: &Gateway<'_>) -> Result {
    assert_eq!(quantum_safe_suite(gateway)?, HYBRID);
    let children = gateway.children(RULE)?;
    let own = |c: &Value| c.get("key_exchange").is_some_and(|k| k == "x25519-ke1_mlkem768");
    assert!(children.iter().any(own), "{children:?}");
    assert_eq!(gateway.counter("ike_sa_established")?, 1);
    assert_eq!(gateway.counter("ike_state_not_found")?, 0);
    Ok(())
}

/// Longer than the lifetimes below, at the pace of emulation.
const LIFETIMES: Duration = Duration::from_secs(120);

/// Until so many have been replaced.
fn wait_rekeyed(gateway: &Gateway<'_>, name: &'static str, count: u64) -> Result {
    wait_for(name, LIFETIMES, || Ok((gateway.counter(name)? >= count).then_some(())))
}

#[test]
fn we_rekey_with_ml_kem_to_a_newer_strongswan() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = Connection::of_server(&topology, V4, V4);
    let server = Connection { proposals: HYBRID, esp_proposals: HYBRID_ESP, ..server };
    let server = StrongSwan::start_newer(&topology.server.gateway, &server)?;
    let mut policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.start = "always";
        rule.esp_proposals = vec![HYBRID_ESP];
        rule.lifetime = Some("20s".to_owned());
    });
    policy.ike_proposals = vec![HYBRID];
    policy.peer_keys = "lifetime = \"30s\"".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    wait_rekeyed(&client, "child_sa_rekeyed", 1)?;
    exercise(&topology, V4)?;
    wait_rekeyed(&client, "ike_sa_rekeyed", 1)?;
    wait_rekeyed(&client, "child_sa_rekeyed", 2)?;
    exercise(&topology, V4)?;
    rekeyed_with_ml_kem(&client)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn a_newer_strongswan_rekeys_with_ml_kem_to_us() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut policy = Policy::of_server(&topology, V4, V4)
        .with_rules(|rule| rule.esp_proposals = vec![HYBRID_ESP]);
    policy.ike_proposals = vec![HYBRID];
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection::of_client(&topology, V4, V4);
    let client = Connection { proposals: HYBRID, esp_proposals: HYBRID_ESP, ..client };
    let client = StrongSwan::start_newer(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    client.rekey_child()?;
    wait_rekeyed(&server, "child_sa_rekeyed", 1)?;
    exercise(&topology, V4)?;
    client.rekey_ike()?;
    wait_rekeyed(&server, "ike_sa_rekeyed", 1)?;
    client.rekey_child()?;
    wait_rekeyed(&server, "child_sa_rekeyed", 2)?;
    exercise(&topology, V4)?;
    rekeyed_with_ml_kem(&server)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
