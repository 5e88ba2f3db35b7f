//! Child SAs with a key exchange of their own (PFS) between strongSwan and us, with each group that
//! both have, begun by either end on one IKE SA. Both ends leave the first one out of IKE_AUTH
//! (RFC 6023), so that it has a key exchange too, whoever begins the IKE SA. At last the algorithms
//! of old peers.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::met;
use gateway_tests::scenario::{between_sites, both_ways};
use gateway_tests::strongswan::Connection;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

/// In the words of both.
const GROUPS: [&str; 5] = [
    "aes128gcm16-x25519",
    "aes128gcm16-ecp256",
    "aes128gcm16-ecp384",
    "aes128gcm16-ecp521",
    "aes128gcm16-modp2048",
];
const ALL: &str = "aes128gcm16-x25519-ecp256-ecp384-ecp521-modp2048";

/// For IKE, where the PRF follows from the integrity algorithm, and for ESP.
const SHA1: (&str, &str) = ("aes128-sha1-modp2048", "aes128-sha1");
const SHA1_IKE: &str = "aes128-sha1-prfsha1-modp2048";

fn wait_group(gateway: &Gateway<'_>, proposal: &str) -> Result {
    let has = |gateway: &Gateway<'_>| {
        let children = gateway.children(RULE)?;
        let mut names = children.iter().filter_map(|child| child.get("key_exchange")?.as_str());
        Ok(names.any(|name| proposal.ends_with(name)).then_some(()))
    };
    wait_for(proposal, PATIENCE, || has(gateway))
}

fn every_group(version: Version) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let keys = "childless = force".to_owned();
    let theirs = Connection { esp_proposals: ALL, keys, ..Pair::connection(&topology) };
    let peer_keys = "childless = \"require\"".to_owned();
    let ours = Policy { peer_keys, ..Policy::of_client(&topology, V4, V4) }
        .with_rules(|rule| rule.esp_proposals = vec![ALL]);
    let mut pair = Pair::start(&topology, version, &theirs, &ours)?;
    let hosts = pair.hosts();
    let Pair { strongswan, gateway, .. } = &pair;
    let delete = || {
        strongswan.terminate_child()?;
        wait_for("the end of the Child SA", PATIENCE, || {
            Ok(gateway.children(RULE)?.is_empty().then_some(()))
        })
    };

    // The IKE SA outlives the first Child SA.
    pair.we_begin(hosts)?;
    wait_group(gateway, GROUPS[0])?;
    both_ways(hosts)?;
    for proposal in GROUPS {
        strongswan.load(&Connection { esp_proposals: proposal, ..theirs.clone() })?;
        delete()?;
        // A packet makes us begin, with the first group; strongSwan names the one that it wants.
        pair.we_begin(hosts)?;
        wait_group(gateway, proposal)?;
        both_ways(hosts)?;
        delete()?;
        strongswan.initiate()?;
        wait_group(gateway, proposal)?;
        both_ways(hosts)?;
    }
    assert_eq!(gateway.counter("ike_sa_established")?, 1, "not on one IKE SA");
    pair.end()?;
    by_sha1(&mut pair, &theirs, &ours)?;
    let Pair { strongswan, gateway, .. } = &pair;
    strongswan.initiate()?;
    wait_group(gateway, GROUPS[0])?;
    both_ways(hosts)?;
    assert_eq!(gateway.counter("ike_sa_established")?, 4);
    assert_eq!(gateway.counter("child_sa_failed")?, 0);
    // A rule that is taken away takes its Child SA with it, and that the IKE SA: in this order.
    pair.gateway.reload(&Policy { rules: Vec::new(), ..ours })?;
    pair.strongswan.wait_gone()?;
    let log = pair.strongswan.log();
    let last = |words: &str| log.rfind(words).context(words);
    assert!(last("received DELETE for ESP CHILD_SA")? < last("received DELETE for IKE_SA")?);
    assert!(pair.gateway.daemon().stop(PATIENCE)?.success());
    pair.finish(&[between_sites(&topology, V4)?])
}

/// What an old peer may have and no better: HMAC-SHA1 for all that is authenticated, and for the
/// keys. Each end begins once.
fn by_sha1(pair: &mut Pair<'_>, theirs: &Connection, ours: &Policy) -> Result {
    let old = Connection { proposals: SHA1.0, esp_proposals: SHA1.1, ..theirs.clone() };
    let policy = ours.clone().with_rules(|rule| rule.esp_proposals = vec![SHA1.1]);
    pair.change(&old, &Policy { ike_proposals: vec![SHA1.0], ..policy })?;
    pair.either_begins(pair.hosts(), |_| {
        let suite = |sa: &Value| sa.get("suite").and_then(Value::as_str).map(str::to_owned);
        assert_eq!(suite(&pair.gateway.established()?).as_deref(), Some(SHA1_IKE));
        let suites: Vec<_> = pair.gateway.children(RULE)?.iter().filter_map(suite).collect();
        assert!(!suites.is_empty() && suites.iter().all(|s| s.starts_with(SHA1.1)), "{suites:?}");
        Ok(())
    })?;
    pair.change(theirs, ours)
}

#[test]
fn either_end_begins_child_sas_with_each_group_with_strongswan() -> Result {
    every_group(Version::Installed)
}

#[test]
fn either_end_begins_child_sas_with_each_group_with_a_newer_strongswan() -> Result {
    every_group(Version::Newer)
}
