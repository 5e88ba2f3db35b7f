//! An IKE SA that is made anew (RFC 7296 2.8.3) by strongSwan and by us, with traffic both ways all
//! the time.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::print_stdout, reason = "what strongSwan loses is worth knowing")]

use gateway_tests::gateway::Policy;
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::met;
use gateway_tests::scenario::{RATE, between_sites, flows};
use gateway_tests::strongswan::Connection;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::Flow;
use gateway_tests::{Context as _, Result};

use Family::V4;

/// Seconds that an IKE SA lives.
const LIFETIME: u32 = 5;
/// Seconds of traffic: of two lifetimes, and what is late in a guest that others keep waiting.
const TIME: u32 = 20;

/// What comes to us while an IKE SA is made anew at least twice, with both ends proven anew.
fn made_anew(pair: &Pair<'_>, who: &str) -> Result<Flow> {
    let before = pair.gateway.counter("ike_sa_established")?;
    let [to_strongswan, to_us] = flows(pair.hosts(), TIME, RATE)?;
    println!("made anew by {who}: to us {to_us}; to strongSwan {to_strongswan}");
    let established = pair.gateway.counter("ike_sa_established")?.saturating_sub(before);
    assert!(established >= 2, "{who}: only {established} times");
    for gone in ["ike_sa_rekeyed", "child_sa_rekeyed", "child_sa_expired", "ike_peer_dead"] {
        assert_eq!(pair.gateway.counter(gone)?, 0, "{who}: {gone}");
    }
    Ok(to_us)
}

/// Nothing that strongSwan sends is lost, whoever begins. When we do, it sends by the new Child SA as
/// soon as it has answered, before we can have that: what comes until then is kept for it.
#[test]
fn either_end_reauthenticates_with_a_newer_strongswan() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let ours = Policy::of_client(&topology, V4, V4);
    let theirs = Pair::connection(&topology);
    let impatient = Connection {
        keys: format!("reauth_time = {LIFETIME}s\n    over_time = 30s\n    rand_time = 0s"),
        ..theirs.clone()
    };
    let mut pair = Pair::start(&topology, Version::Newer, &impatient, &ours)?;
    pair.strongswan_begins()?;
    made_anew(&pair, "strongSwan")?.whole().context("made anew by strongSwan")?;
    pair.end()?;

    let peer_keys = format!("renewal = \"reauthenticate\"\nlifetime = \"{LIFETIME}s\"");
    pair.change(&theirs, &Policy { peer_keys, ..ours })?;
    pair.we_begin(pair.hosts())?;
    made_anew(&pair, "us")?.whole().context("made anew by us")?;
    let early = pair.gateway.counter("esp_early")?;
    println!("came before their SA: {early}");
    assert_eq!(pair.gateway.counter("esp_early_refused")?, 0);
    pair.end()?;
    pair.finish(&[between_sites(&topology, V4)?])
}
