//! Addresses that we assign to strongSwan from a pool (RFC 7296 2.19), and with a newer one those
//! that it assigns to us.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::{IpAddr, Ipv4Addr};

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, both_ways};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::PingOptions;
use gateway_tests::{Context as _, Result};
use ipnet::IpNet;
use serde_json::Value;

/// The prefix of the pool, at whichever end, and the address that comes first.
const POOL: &str = "10.99.0.0/24";
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// With a pool for the peer.
fn with_pool(policy: Policy) -> Policy {
    let peer_keys = format!("pool = \"staff\"\n\n[pool.staff]\naddresses = [\"{POOL}\"]\n");
    Policy { peer_keys, ..policy }.with_rules(|rule| rule.remote = vec![POOL.to_owned()])
}

/// strongSwan's connection, by which it asks for an address.
fn asking(connection: Connection) -> Connection {
    Connection { local_ts: "dynamic".to_owned(), virtual_address: true, ..connection }
}

/// The peer has the first address, and nothing else is selected.
fn has_first(gateway: &Gateway<'_>) -> Result {
    let child = gateway.wait_child(RULE)?;
    let selector = child.pointer("/selectors/0").and_then(Value::as_str);
    assert!(selector.is_some_and(|s| s.contains("10.99.0.1/32")), "{child}");
    let sa = gateway.established()?;
    let assigned = sa.pointer("/assigned/0").and_then(Value::as_str);
    assert_eq!(assigned, Some("10.99.0.1"));
    Ok(())
}

#[test]
fn strongswan_gets_an_address_of_our_pool_and_uses_it() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let policy = with_pool(Policy::of_server(&topology, Family::V4, Family::V4));
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = asking(Connection::of_client(&topology, Family::V4, Family::V4));
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    has_first(&server)?;
    // From either side: by the address, and to it.
    let pings = PingOptions::default();
    all_answered(&topology.client.gateway, topology.server.host_address(Family::V4), &pings)?;
    all_answered(&topology.server.host, FIRST, &pings)?;
    client.terminate()?;
    server.wait_gone()
}

/// First it gets one from us, then we get one from it.
#[test]
fn a_newer_strongswan_and_we_give_each_other_addresses() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let (client, server) = (&topology.client, &topology.server);
    // The route that chooses our own inner address.
    client.gateway.ip(&format!("route del {}", server.prefix(Family::V4)))?;
    let ours = Policy::of_client(&topology, Family::V4, Family::V4);
    let theirs = Pair::connection(&topology);
    let giving = Policy { addresses: Vec::new(), ..with_pool(ours.clone()) };
    let giving = giving.with_rules(|rule| rule.start = "respond");
    let mut pair = Pair::start(&topology, Version::Newer, &asking(theirs.clone()), &giving)?;
    let [our_host, its_host] = pair.hosts();
    let its_own = (&server.gateway, FIRST);
    pair.one_begins(false, [our_host, its_own], || has_first(&pair.gateway))?;

    let theirs = Connection { remote_ts: "dynamic".to_owned(), pools: vec![POOL], ..theirs };
    let ours = ours.with_rules(|rule| {
        rule.local = vec!["assigned".to_owned()];
        rule.start = "always";
    });
    let ours = Policy { peer_keys: "request-address = [\"ipv4\"]".to_owned(), ..ours };
    pair.change(&theirs, &ours)?;
    pair.gateway.wait_child(RULE)?;
    both_ways([(&client.gateway, FIRST), its_host])?;
    let sa = pair.gateway.established()?;
    let own = sa.pointer("/own_addresses/0").and_then(Value::as_str);
    assert_eq!(own, Some("10.99.0.1"));
    assert!(pair.gateway.daemon().stop(PATIENCE)?.success());
    pair.strongswan.wait_gone()?;
    let prefix = |text: String| text.parse::<IpNet>().context(text);
    pair.finish(&[
        (prefix(client.prefix(Family::V4))?, FIRST.into()),
        (FIRST.into(), prefix(server.prefix(Family::V4))?),
    ])
}
