//! IKE messages in fragments (RFC 7383) to and from strongSwan, both forced to fragment all but
//! the shortest.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::PingOptions;

use Family::{V4, V6};

const REQUIREMENTS: &[Requirement] =
    &[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway];
/// Octets of an IP packet: two or three fragments for IKE_AUTH.
const SMALL: u16 = 200;

fn small(policy: Policy) -> Policy {
    Policy { settings: format!("fragment-size = {SMALL}"), ..policy }
}

/// Both ends have cut a message, we have put one together, and traffic passes.
fn in_fragments(topology: &Topology, family: Family, gateway: &Gateway<'_>) -> Result {
    let pings = PingOptions::default();
    all_answered(&topology.client.host, topology.server.host_address(family), &pings)?;
    assert!(gateway.counter("ike_message_fragmented")? > 0, "we have sent no fragments");
    assert!(gateway.counter("ike_fragment_received")? > 0, "strongSwan has sent no fragments");
    let status = gateway.status()?;
    let said = status.pointer("/ike_sas/0/fragmentation");
    assert_eq!(said.and_then(|said| said.as_bool()), Some(true));
    Ok(())
}

#[test]
fn strongswan_reaches_us_in_fragments_through_nat() -> Result {
    if !met(REQUIREMENTS)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let policy = small(Policy::of_server(&topology, V4, V4));
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection { fragment_size: SMALL, ..Connection::of_client(&topology, V4, V4) };
    let client = StrongSwan::start(&topology.client.gateway, &client)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    in_fragments(&topology, V4, &server)?;
    client.terminate()?;
    server.wait_gone()
}

#[test]
fn we_reach_strongswan_in_fragments_over_ipv6_with_cbc() -> Result {
    if !met(REQUIREMENTS)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let (proposals, esp_proposals) = ("aes256-sha512-prfsha512-modp2048", "aes256-sha256");
    let server = Connection {
        fragment_size: SMALL,
        proposals,
        esp_proposals,
        ..Connection::of_server(&topology, V6, V6)
    };
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let policy = small(Policy::of_client(&topology, V6, V6)).with_rules(|rule| {
        rule.esp_proposals = vec![esp_proposals];
        rule.start = "always";
    });
    let policy = Policy { ike_proposals: vec![proposals], ..policy };
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    in_fragments(&topology, V6, &client)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()
}
