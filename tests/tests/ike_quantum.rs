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
use gateway_tests::scenario::{between_sites, both_ways, capture, encrypted, exercise};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

const PPK_ID: &str = "key-of-2026";
const CLASSIC: &str = "aes256gcm16-prfsha256-x25519";

/// A proposal for the IKE SA and one for the Child SA, whose successors have key exchanges of their own.
type Hybrid = (&'static str, &'static str);

macro_rules! hybrid {
    ($methods:literal) => {
        (concat!("aes256gcm16-prfsha256-", $methods), concat!("aes256gcm16-", $methods))
    };
}

/// What our default comes to, but for the Child SA.
const HYBRID: Hybrid = hybrid!("x25519-ke1_mlkem768");
/// Each ML-KEM, and each method that it may stand beside.
const OTHER_HYBRIDS: [Hybrid; 8] = [
    hybrid!("x25519-ke1_mlkem512"),
    hybrid!("x25519-ke1_mlkem1024"),
    hybrid!("ecp256-ke1_mlkem512"),
    hybrid!("ecp256-ke1_mlkem768"),
    hybrid!("ecp256-ke1_mlkem1024"),
    hybrid!("ecp384-ke1_mlkem512"),
    hybrid!("ecp384-ke1_mlkem768"),
    hybrid!("ecp384-ke1_mlkem1024"),
];

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
    let theirs = Connection { proposals: HYBRID.0, ..Connection::of_server(&topology, V4, V4) };
    let ours = Policy::of_client(&topology, V4, V4);
    we_reach_strongswan(&topology, V4, Version::Newer, &theirs, ours, agreed(HYBRID.0))
}

#[test]
fn we_take_ml_kem_from_a_newer_strongswan_behind_nat() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let theirs = Connection { proposals: HYBRID.0, ..Connection::of_client(&topology, V4, V4) };
    let ours = Policy::of_server(&topology, V4, V4);
    strongswan_reaches_us(&topology, V4, Version::Newer, &theirs, &ours, agreed(HYBRID.0))
}

fn connection_with((proposals, esp_proposals): Hybrid, connection: Connection) -> Connection {
    Connection { proposals, esp_proposals, ..connection }
}

fn policy_with((ike, esp): Hybrid, policy: Policy) -> Policy {
    let policy = policy.with_rules(|rule| rule.esp_proposals = vec![esp]);
    Policy { ike_proposals: vec![ike], ..policy }
}

/// The same, where we replace the Child SA and the IKE SA when they are so old.
fn short(mut policy: Policy, child: &str, ike: &str) -> Policy {
    policy.peer_keys = format!("lifetime = \"{ike}\"");
    policy.with_rules(|rule| rule.lifetime = Some(child.to_owned()))
}

/// Both SAs have been replaced with ML-KEM by IKE_FOLLOWUP_KE, and so many IKE SAs were made.
fn rekeyed_with((ike, esp): Hybrid, established: u64, gateway: &Gateway<'_>) -> Result {
    assert_eq!(quantum_safe_suite(gateway)?, ike);
    let children = gateway.children(RULE)?;
    let methods = |c: &Value| c.get("key_exchange").and_then(Value::as_str).map(str::to_owned);
    let own = |c: &Value| methods(c).is_some_and(|m| esp.ends_with(&format!("-{m}")));
    assert!(children.iter().any(own), "{children:?}");
    assert_eq!(gateway.counter("ike_sa_established")?, established);
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
    let server = connection_with(HYBRID, Connection::of_server(&topology, V4, V4));
    let server = StrongSwan::start_newer(&topology.server.gateway, &server)?;
    let policy = policy_with(HYBRID, Policy::of_client(&topology, V4, V4));
    let policy = short(policy, "20s", "30s").with_rules(|rule| rule.start = "always");
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    wait_rekeyed(&client, "child_sa_rekeyed", 1)?;
    exercise(&topology, V4)?;
    wait_rekeyed(&client, "ike_sa_rekeyed", 1)?;
    wait_rekeyed(&client, "child_sa_rekeyed", 2)?;
    exercise(&topology, V4)?;
    rekeyed_with(HYBRID, 1, &client)?;
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
    let policy = policy_with(HYBRID, Policy::of_server(&topology, V4, V4));
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = connection_with(HYBRID, Connection::of_client(&topology, V4, V4));
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
    rekeyed_with(HYBRID, 1, &server)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// Each begins with each of them, and replaces both SAs.
#[test]
fn a_newer_strongswan_and_we_agree_on_each_ml_kem_beside_each_curve() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let mut started = None;
    for (established, hybrid) in (1..).step_by(2).zip(OTHER_HYBRIDS) {
        let theirs = connection_with(hybrid, Pair::connection(&topology));
        let ours = policy_with(hybrid, Policy::of_client(&topology, V4, V4));
        let pair = Pair::go_on(&mut started, &topology, Version::Newer, &theirs, &ours)?;
        let hosts = pair.hosts();
        let rekeyed = |pair: &Pair<'_>| {
            let names = ["child_sa_rekeyed", "ike_sa_rekeyed"];
            let [child, ike] = names.map(|name| Ok((name, pair.gateway.counter(name)? + 1)));
            Result::Ok([child?, ike?])
        };

        let [child, ike] = rekeyed(pair)?;
        pair.strongswan_begins()?;
        pair.strongswan.rekey_child()?;
        wait_rekeyed(&pair.gateway, child.0, child.1)?;
        pair.strongswan.rekey_ike()?;
        wait_rekeyed(&pair.gateway, ike.0, ike.1)?;
        both_ways(hosts)?;
        rekeyed_with(hybrid, established, &pair.gateway)?;
        pair.end()?;

        // They are older when both have been replaced and it has ended, at the pace of emulation.
        pair.change(&theirs, &short(ours, "8s", "10s"))?;
        let [child, ike] = rekeyed(pair)?;
        pair.we_begin(hosts)?;
        wait_rekeyed(&pair.gateway, child.0, child.1)?;
        wait_rekeyed(&pair.gateway, ike.0, ike.1)?;
        both_ways(hosts)?;
        rekeyed_with(hybrid, established.saturating_add(1), &pair.gateway)?;
        pair.end()?;
    }
    started.context("nothing was started")?.finish(&[between_sites(&topology, V4)?])
}
