//! Addresses that we assign to strongSwan from a pool (RFC 7296 2.19), and with a newer one those
//! that it assigns to us.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, both_ways};
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Site, Topology};
use gateway_tests::traffic::PingOptions;
use gateway_tests::{Context as _, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

/// The prefixes of the pool, and of each the address that comes first.
const POOL: &str = "10.99.0.0/24";
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
const POOL_V6: &str = "fd00:99::/64";
const FIRST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1));

/// With a pool of both families, and name servers, for the peer.
fn with_pool(policy: Policy, topology: &Topology, ours: fn(&Topology) -> &Site) -> Policy {
    let peer_keys = format!(
        "pool = \"staff\"\n\n[pool.staff]\naddresses = [\"{POOL}\", \"{POOL_V6}\"]\n\
         dns = [\"10.2.0.53\", \"fd00:2::53\"]\n"
    );
    Policy { peer_keys, ..policy }.with_rules(|rule| {
        rule.local = [Family::V4, Family::V6].map(|f| ours(topology).prefix(f)).to_vec();
        rule.remote = vec![POOL.to_owned(), POOL_V6.to_owned()];
    })
}

/// strongSwan's connection, by which it asks for addresses, and reaches this site by them.
fn asking(connection: Connection, site: &Site) -> Connection {
    let [v4, v6] = [Family::V4, Family::V6].map(|family| site.prefix(family));
    Connection {
        local_ts: "dynamic".to_owned(),
        remote_ts: format!("{v4},{v6}"),
        virtual_address: true,
        ..connection
    }
}

/// The peer has the first addresses, and nothing else is selected.
fn has_first(gateway: &Gateway<'_>) -> Result {
    let child = gateway.wait_child(RULE)?;
    let selectors = child.get("selectors").and_then(Value::as_array).context("selectors")?;
    for selector in selectors.iter().filter_map(Value::as_str) {
        let is_theirs = selector.contains("10.99.0.1/32") || selector.contains("fd00:99::1/128");
        assert!(is_theirs, "{child}");
    }
    assert_eq!(selectors.len(), 2, "{child}");
    let sa = gateway.established()?;
    assert_eq!(sa.get("assigned"), Some(&json!(["10.99.0.1", "fd00:99::1"])));
    Ok(())
}

/// It has heard of the name servers.
fn told(strongswan: &StrongSwan<'_>) {
    let log = strongswan.log();
    for address in ["10.2.0.53", "fd00:2::53"] {
        assert!(log.contains(&format!("installing DNS server {address}")), "{log}");
    }
}

#[test]
fn strongswan_gets_an_address_of_our_pool_and_uses_it() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let policy = Policy::of_server(&topology, Family::V4, Family::V4);
    let policy = with_pool(policy, &topology, |topology| &topology.server);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection::of_client(&topology, Family::V4, Family::V4);
    let client = asking(client, &topology.server);
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    has_first(&server)?;
    told(&client);
    // From either side: by the address, and to it.
    let pings = PingOptions::default();
    for (family, first) in [(Family::V4, FIRST), (Family::V6, FIRST_V6)] {
        all_answered(&topology.client.gateway, topology.server.host_address(family), &pings)?;
        all_answered(&topology.server.host, first, &pings)?;
    }
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
    let giving = with_pool(ours.clone(), &topology, |topology| &topology.client);
    let giving = Policy { addresses: Vec::new(), ..giving };
    let giving = giving.with_rules(|rule| rule.start = "respond");
    let mut pair =
        Pair::start(&topology, Version::Newer, &asking(theirs.clone(), client), &giving)?;
    let [our_host, its_host] = pair.hosts();
    let its_own = (&server.gateway, FIRST);
    pair.one_begins(false, [our_host, its_own], || has_first(&pair.gateway))?;
    told(&pair.strongswan);

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
