//! Rekeying of Child SAs and of IKE SAs under a constant flow: no packet is lost.
//!
//! `GATEWAY_REKEY_SECONDS` in the environment makes each test keep it up for so long, with
//! lifetimes of five seconds:
//! `cargo xtask test vm -k 6.12 -e GATEWAY_REKEY_SECONDS=600 -- rekey --nocapture`.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::print_stdout, reason = "the figures of a long run are what it is for")]

use core::net::SocketAddr;
use core::time::Duration;
use std::env;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{RATE, all_answered, between_sites, capture, flows, hosts};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{Flow, PingOptions, ping_until_answered, shout};
use gateway_tests::{Context as _, Error, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use Family::V4;

/// What strongSwan of this Debian can do, and we.
const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// With a key exchange of its own: the successors have perfect forward secrecy.
const ESP: &str = "aes128gcm16-x25519";
/// What two of ours agree on by default.
const OUR_IKE: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
/// What makes them replace Child SAs with IKE_FOLLOWUP_KE too; by default they do so without.
const HYBRID_ESP: &str = "aes256gcm16-x25519-ke1_mlkem768";

/// Octets after which an SA is to be replaced: some seconds of traffic.
const LIMIT: u32 = 240_000;

/// Datagrams a second of a long run, in which a gap of some milliseconds at each of some hundred
/// replacements would be seen.
const DENSE: u32 = 200;

/// How often SAs are replaced, and for how long.
struct Pace {
    /// Seconds that a Child SA lives, and an IKE SA.
    lifetimes: (u32, u32),
    /// Seconds of traffic.
    time: u32,
    /// Datagrams a second.
    rate: u32,
}

impl Pace {
    /// What the environment asks for, or what the usual run has time for.
    fn new() -> Result<Self> {
        match env::var("GATEWAY_REKEY_SECONDS") {
            Ok(time) => {
                let time = time.parse().context("GATEWAY_REKEY_SECONDS")?;
                Ok(Self { lifetimes: (5, 5), time, rate: DENSE })
            }
            Err(_) => Ok(Self { lifetimes: (6, 12), time: 18, rate: RATE }),
        }
    }

    /// Our policy with these lifetimes.
    fn short(&self, mut policy: Policy) -> Policy {
        let (child, ike) = self.lifetimes;
        policy.peer_keys = format!("lifetime = \"{ike}s\"");
        policy.with_rules(|rule| rule.lifetime = Some(format!("{child}s")))
    }

    /// strongSwan's connection with these lifetimes, or with its own.
    fn connection(&self, connection: Connection, short: bool) -> Connection {
        let rekey_time = short.then_some(self.lifetimes);
        Connection { proposals: IKE, esp_proposals: ESP, rekey_time, ..connection }
    }

    /// A flow from the host behind the client to the one behind the server, and one back.
    fn flows(&self, topology: &Topology) -> Result<[Flow; 2]> {
        let flows = flows(hosts(topology, V4), self.time, self.rate)?;
        for (name, flow) in ["to the server", "to the client"].iter().zip(&flows) {
            println!("{name}: {flow}");
        }
        Ok(flows)
    }

    /// The SAs of a gateway must have been replaced half as often as they should at least, and
    /// never have been made anew.
    fn check_rekeyed(&self, gateway: &Gateway<'_>) -> Result {
        let [children, ike, established, expired] =
            ["child_sa_rekeyed", "ike_sa_rekeyed", "ike_sa_established", "child_sa_expired"]
                .map(|name| gateway.counter(name));
        let (children, ike, established, expired) = (children?, ike?, established?, expired?);
        let all = format!(
            "rekeyed {children} Child SAs and {ike} IKE SAs, established {established}, expired {expired}"
        );
        println!("{all}");
        let status = gateway.status()?;
        for counted in ["xfrm_errors", "bpf_counters"] {
            println!("{counted}: {}", status.get(counted).unwrap_or(&Value::Null));
        }
        let least = |lifetime: u32| {
            u64::from(self.time.checked_div(lifetime.saturating_mul(2)).unwrap_or_default())
        };
        let (child_lifetime, ike_lifetime) = self.lifetimes;
        let often = children >= least(child_lifetime).max(2) && ike >= least(ike_lifetime).max(1);
        if often && established == 1 && expired == 0 { Ok(()) } else { Err(Error::new(all)) }
    }
}

/// Our policy with what strongSwan can do.
fn classic(mut policy: Policy) -> Policy {
    policy.ike_proposals = vec![IKE];
    policy.with_rules(|rule| rule.esp_proposals = vec![ESP])
}

/// Whether a Child SA has come from this key exchange of its own.
fn has_pfs(gateway: &Gateway<'_>, method: &str) -> Result<bool> {
    let children = gateway.children(RULE)?;
    Ok(children.iter().any(|c| c.get("key_exchange").is_some_and(|name| name == method)))
}

#[test]
fn two_of_ours_rekey_all_the_time_and_lose_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let pace = Pace::new()?;
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let hybrid = |policy: Policy| policy.with_rules(|rule| rule.esp_proposals = vec![HYBRID_ESP]);
    let server = pace.short(hybrid(Policy::of_server(&topology, V4, V4)));
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = pace.short(hybrid(Policy::of_client(&topology, V4, V4)));
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    let flows = pace.flows(&topology)?;
    for gateway in [&client, &server] {
        pace.check_rekeyed(gateway)?;
        // The last successors, which have come about by IKE_FOLLOWUP_KE.
        let sa = gateway.established()?;
        assert_eq!(sa.get("quantum_safe"), Some(&Value::Bool(true)), "{sa}");
        assert_eq!(sa.get("suite").and_then(Value::as_str), Some(OUR_IKE), "{sa}");
        assert!(has_pfs(gateway, "x25519-ke1_mlkem768")?);
    }
    flows.iter().try_for_each(Flow::whole)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_rekey_with_strongswan_and_lose_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let pace = Pace::new()?;
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = pace.connection(Connection::of_server(&topology, V4, V4), false);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let client = pace.short(classic(Policy::of_client(&topology, V4, V4)));
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    // What strongSwan loses of ours is its own affair.
    let [_to_strongswan, to_us] = pace.flows(&topology)?;
    pace.check_rekeyed(&client)?;
    assert!(has_pfs(&client, "x25519")?);
    to_us.whole()?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn strongswan_rekeys_with_us_and_loses_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let pace = Pace::new()?;
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    // strongSwan loses its own order to replace a Child SA that comes while it replaces the IKE SA
    // (its log: "not found for rekey"), and when that SA's life ends, half a minute later, it
    // deletes it before it asks for another. We replace before that what it has forgotten.
    let late = format!("{}s", pace.lifetimes.0.saturating_mul(4));
    let server = classic(Policy::of_server(&topology, V4, V4))
        .with_rules(|rule| rule.lifetime = Some(late.clone()));
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = pace.connection(Connection::of_client(&topology, V4, V4), true);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    let [to_us, _to_strongswan] = pace.flows(&topology)?;
    pace.check_rekeyed(&server)?;
    assert!(has_pfs(&server, "x25519")?);
    to_us.whole()?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// What the kernel says of a soft limit brings about a successor in time, so that nothing is lost.
/// While the peer does not answer there is none, and a burst goes beyond the hard limit, a tenth
/// above: the kernel ends the SA there, and another is made for what comes after.
#[test]
fn a_number_of_octets_is_replaced_in_time_and_ends_what_has_no_successor() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let server = Policy::of_server(&topology, V4, V4);
    let mut server = Gateway::start(&topology.server.gateway, &server)?;
    let client = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.lifetime_bytes = Some(LIMIT);
    });
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    let [(from, _), (_, to)] = hosts(&topology, V4);
    ping_until_answered(from, to, PATIENCE)?;

    let interval = Duration::from_millis(25);
    let options = PingOptions { count: 300, size: 1000, interval, ..PingOptions::default() };
    all_answered(from, to, &options)?;
    let [rekeyed, expired] = ["child_sa_rekeyed", "child_sa_expired"].map(|n| client.counter(n));
    let (rekeyed, expired) = (rekeyed?, expired?);
    assert!(rekeyed >= 1 && expired == 0, "rekeyed {rekeyed}, expired {expired}");

    server.daemon().signal(Signal::SIGSTOP)?;
    shout(from, SocketAddr::new(to, 9), 2000, 1000)?;
    client.wait_counter("child_sa_expired", 1)?;
    server.daemon().signal(Signal::SIGCONT)?;
    client.daemon().wait_for_log("expired before it had a successor", 0, PATIENCE)?;
    ping_until_answered(from, to, PATIENCE)?;
    let established = client.counter("ike_sa_established")?;
    assert_eq!(established, 1, "the IKE SA stands");
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()
}
