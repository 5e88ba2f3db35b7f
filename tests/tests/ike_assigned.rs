//! Addresses that a responder assigns to us (RFC 7296 2.19): on the XFRM interface, and traffic by
//! them both ways.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::IpAddr;
use core::time::Duration;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping};
use gateway_tests::{Context as _, Error, Result};
use serde_json::Value;

/// The addresses that are assigned.
const V4: &str = "10.99.0.1";
const V6: &str = "fd00:99::1";
/// Where the client writes the name servers that it is told.
const RESOLV_CONF: &str = "/run/gateway/resolv.conf";
/// What it writes, behind the first line.
const TOLD: &str = "# other: 10.2.0.53 fd00:2::53\nnameserver 10.2.0.53\nnameserver fd00:2::53";

/// A client with nothing but its underlay: it asks the server for addresses of both families.
fn client(topology: &Topology, peer_keys: &str) -> Policy {
    Policy {
        peer_keys: format!("request-address = [\"ipv4\", \"ipv6\"]\n{peer_keys}"),
        ..Policy::of_client(topology, Family::V4, Family::V4).with_rules(|rule| {
            rule.local = vec!["assigned".to_owned()];
            rule.remote =
                vec![topology.server.prefix(Family::V4), topology.server.prefix(Family::V6)];
            rule.start = "always";
        })
    }
}

/// Takes away the routes that choose the client's own inner address.
fn without_own_routes(topology: &Topology) -> Result {
    let [v4, v6] = [Family::V4, Family::V6].map(|family| topology.server.prefix(family));
    topology.client.gateway.ip(&format!("route del {v4}\nroute del {v6}"))
}

fn addresses(namespace: &Namespace) -> Result<String> {
    namespace.run("ip", &["-brief", "address", "show", "dev", "ipsec0"])
}

/// Data by the assigned addresses, from either side, without a word about the source.
fn exercise(topology: &Topology) -> Result {
    let pings = PingOptions::default();
    for (family, own) in [(Family::V4, V4), (Family::V6, V6)] {
        let own: IpAddr = own.parse().context("an address")?;
        all_answered(&topology.client.gateway, topology.server.host_address(family), &pings)?;
        all_answered(&topology.server.host, own, &pings)?;
    }
    Ok(())
}

/// The file of the client, behind its first line.
fn resolv_conf(topology: &Topology) -> Result<String> {
    let text = topology.client.gateway.run("cat", &[RESOLV_CONF])?;
    Ok(text.lines().skip(1).collect::<Vec<_>>().join("\n"))
}

fn check_assigned(gateway: &Gateway<'_>, topology: &Topology) -> Result {
    let child = gateway.wait_child(RULE)?;
    let selectors = child.pointer("/selectors").map(ToString::to_string).unwrap_or_default();
    for own in [format!("{V4}/32"), format!("{V6}/128")] {
        if !selectors.contains(&own) {
            return Err(Error::new(format!("{own} is not among {selectors}")));
        }
        let there = addresses(&topology.client.gateway)?;
        assert!(there.contains(&own), "{there}");
    }
    let status = gateway.status()?;
    let own: Vec<_> = ["0", "1"]
        .iter()
        .filter_map(|n| status.pointer(&format!("/ike_sas/0/own_addresses/{n}")))
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(own, [V4, V6]);
    Ok(())
}

#[test]
fn strongswan_assigns_us_addresses_and_traffic_passes_by_them() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    without_own_routes(&topology)?;
    let [v4, v6] = [Family::V4, Family::V6].map(|family| topology.server.prefix(family));
    let server = Connection {
        local_ts: format!("{v4},{v6}"),
        remote_ts: "dynamic".to_owned(),
        pools: vec!["10.99.0.0/24", "fd00:99::/64"],
        name_servers: "10.2.0.53, fd00:2::53",
        ..Connection::of_server(&topology, Family::V4, Family::V4)
    };
    let policy =
        Policy { settings: format!("resolv-conf = \"{RESOLV_CONF}\""), ..client(&topology, "") };
    let client = Gateway::start(&topology.client.gateway, &policy)?;
    // Before there is an address nothing leaves, in the clear or otherwise.
    let to = topology.server.host_address(Family::V4);
    let once = PingOptions { count: 1, wait: Duration::from_secs(1), ..PingOptions::default() };
    assert_eq!(ping(&topology.client.gateway, to, &once)?.received, 0);
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    check_assigned(&client, &topology)?;
    assert_eq!(resolv_conf(&topology)?, TOLD);
    exercise(&topology)?;
    // Another source is not carried, and does not leave in the clear.
    let inner = topology.client.inner(Family::V4).to_string();
    let other = topology
        .client
        .gateway
        .command("ping")
        .args(["-c1", "-W1", "-I", &inner])
        .arg(to.to_string())
        .output();
    assert!(!other.context("ping")?.status.success());
    server.rekey_child()?;
    exercise(&topology)?;
    server.rekey_ike()?;
    exercise(&topology)?;
    // What one that was killed has left is taken away at the next start.
    drop(client);
    assert!(addresses(&topology.client.gateway)?.contains(V4));
    let plain = Policy::of_client(&topology, Family::V4, Family::V4);
    let _client = Gateway::start(&topology.client.gateway, &plain)?;
    let left = addresses(&topology.client.gateway)?;
    assert!(!left.contains(V4) && !left.contains(V6), "{left}");
    Ok(())
}

#[test]
fn two_of_ours_assign_addresses_that_stay_through_reauthentication() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    without_own_routes(&topology)?;
    let pool = "[pool.staff]\naddresses = [\"10.99.0.0/24\", \"fd00:99::/64\"]\n\
                dns = [\"10.2.0.53\", \"fd00:2::53\"]\n";
    let server = Policy {
        peer_keys: format!("pool = \"staff\"\n\n{pool}"),
        ..Policy::of_server(&topology, Family::V4, Family::V4).with_rules(|rule| {
            rule.local =
                vec![topology.server.prefix(Family::V4), topology.server.prefix(Family::V6)];
            rule.remote = vec!["10.99.0.0/24".to_owned(), "fd00:99::/64".to_owned()];
        })
    };
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let reauthenticate = "renewal = \"reauthenticate\"\nlifetime = \"15s\"";
    let client = Policy {
        settings: format!("resolv-conf = \"{RESOLV_CONF}\""),
        ..client(&topology, reauthenticate)
    };
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    check_assigned(&client, &topology)?;
    assert_eq!(resolv_conf(&topology)?, TOLD, "name servers");
    exercise(&topology)?;
    let before = client.counter("ike_sa_established")?;
    let interval = Duration::from_millis(200);
    let pings = PingOptions { count: 150, interval, ..PingOptions::default() };
    let to = topology.server.host_address(Family::V4);
    all_answered(&topology.client.gateway, to, &pings)?;
    assert!(client.counter("ike_sa_established")? > before, "no reauthentication");
    check_assigned(&client, &topology)?;
    assert_eq!(resolv_conf(&topology)?, TOLD, "name servers after reauthentication");
    exercise(&topology)?;
    assert_eq!(client.counter("resolv_conf_not_written")?, 0);
    // Whoever ends takes the address along.
    client.daemon().stop(PATIENCE)?;
    assert_eq!(resolv_conf(&topology)?, "", "name servers after the end");
    let left = addresses(&topology.client.gateway)?;
    assert!(!left.contains(V4) && !left.contains(V6), "{left}");
    server.wait_gone()
}

#[test]
fn everything_goes_by_the_assigned_address_and_the_way_to_the_peer_stays() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    without_own_routes(&topology)?;
    let everything = || vec!["0.0.0.0/0".to_owned()];
    let server = Policy {
        peer_keys: "pool = \"staff\"\n\n[pool.staff]\naddresses = [\"10.99.0.0/24\"]\n".to_owned(),
        ..Policy::of_server(&topology, Family::V4, Family::V4).with_rules(|rule| {
            rule.local = everything();
            rule.remote = vec!["10.99.0.0/24".to_owned()];
        })
    };
    let _server = Gateway::start(&topology.server.gateway, &server)?;
    let mut policy = client(&topology, "").with_rules(|rule| rule.remote = everything());
    policy.peer_keys = "request-address = [\"ipv4\"]\n".to_owned();
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    let pings = PingOptions::default();
    let to = topology.server.host_address(Family::V4);
    all_answered(&topology.client.gateway, to, &pings)?;
    all_answered(&topology.server.host, V4.parse().context("an address")?, &pings)?;
    let source = |address: IpAddr| {
        topology.client.gateway.run("ip", &["route", "get", &address.to_string()])
    };
    let (elsewhere, peer) = (source(to)?, source(topology.server.outer(Family::V4))?);
    assert!(elsewhere.contains("src 10.99.0.1"), "{elsewhere}");
    assert!(!peer.contains("10.99.0.1"), "{peer}");
    client.daemon().stop(PATIENCE)?;
    let left = topology.client.gateway.run("ip", &["route", "show"])?;
    assert!(!left.contains("10.99.0.1"), "{left}");
    Ok(())
}
