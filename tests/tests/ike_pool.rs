//! Addresses that we assign to strongSwan from a pool (RFC 7296 2.19).
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::IpAddr;

use gateway_tests::gateway::{Gateway, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::PingOptions;
use gateway_tests::{Context as _, Result};
use serde_json::Value;

#[test]
fn strongswan_gets_an_address_of_our_pool_and_uses_it() -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let policy = Policy {
        peer_keys: "pool = \"staff\"\n\n[pool.staff]\naddresses = [\"10.99.0.0/24\"]\n".to_owned(),
        ..Policy::of_server(&topology, Family::V4, Family::V4)
            .with_rules(|rule| rule.remote = vec!["10.99.0.0/24".to_owned()])
    };
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection {
        local_ts: "dynamic".to_owned(),
        virtual_address: true,
        ..Connection::of_client(&topology, Family::V4, Family::V4)
    };
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    let child = server.wait_child(RULE)?;
    let selector = child.pointer("/selectors/0").and_then(Value::as_str);
    assert!(selector.is_some_and(|s| s.contains("10.99.0.1/32")), "{child}");
    let status = server.status()?;
    let assigned = status.pointer("/ike_sas/0/assigned/0").and_then(Value::as_str);
    assert_eq!(assigned, Some("10.99.0.1"));
    // From either side: by the address, and to it.
    let pings = PingOptions::default();
    all_answered(&topology.client.gateway, topology.server.host_address(Family::V4), &pings)?;
    let address: IpAddr = "10.99.0.1".parse().context("an address")?;
    all_answered(&topology.server.host, address, &pings)?;
    client.terminate()?;
    server.wait_gone()
}
