//! Certificates between strongSwan and us, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::certificates::{Authority, Key, policy};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping_until_answered};
use gateway_tests::{Context as _, Result};

use Family::V4;

/// First a packet makes us begin, then strongSwan does. Where an algorithm can do without being
/// shown in its smallest message, the chains have more than 4 kB, and go in fragments.
fn both_roles(key: Key, scheme: &str) -> Result {
    if !met(&[Requirement::Esp, Requirement::StrongSwan, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let long = key != Key::Ed25519;
    let authority = if long { Authority::with_long_chains(key)? } else { Authority::new(key)? };
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);

    let connection = Connection {
        remote: Some(topology.client.outer(V4)),
        ..Connection::of_server(&topology, V4, V4)
    };
    let connection = connection.certified(&authority, &server, ["pubkey"; 2]);
    let strongswan = StrongSwan::start(&topology.server.gateway, &connection)?;

    let mut ours = Policy::of_client(&topology, V4, V4);
    ours.authentication = policy(&authority, &client);
    let gateway = Gateway::start(&topology.client.gateway, &ours)?;
    let pings = || {
        let (from, to) = (&topology.client.host, topology.server.host_address(V4));
        all_answered(from, to, &PingOptions::default())
    };
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    proven(&gateway, true, scheme)?;
    pings()?;
    strongswan.terminate()?;
    gateway.wait_gone()?;
    strongswan.initiate()?;
    gateway.wait_child(RULE)?;
    proven(&gateway, false, scheme)?;
    if long {
        // Twice each way, once in each role, and more than three fragments of 1280 octets each.
        assert!(gateway.counter("ike_message_fragmented")? >= 2);
        assert!(gateway.counter("ike_fragment_received")? >= 2 * 3);
    }
    pings()
}

/// The status shows who began, how the peer proved who it is, and its certificate.
fn proven(gateway: &Gateway<'_>, initiator: bool, scheme: &str) -> Result {
    let status = gateway.status()?;
    let sa = status.pointer("/ike_sas/0").context("no IKE SA")?;
    let text = |path: &str| sa.pointer(path).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    assert_eq!(sa.pointer("/initiator").and_then(|v| v.as_bool()), Some(initiator));
    assert_eq!(text("/local_auth"), "certificate");
    assert!(text("/remote_auth").starts_with(scheme), "{}", text("/remote_auth"));
    assert_eq!(text("/certificate/subject"), "O=Test, CN=server.test");
    assert!(text("/certificate/not_after").ends_with('Z'));
    Ok(())
}

#[test]
fn rsa_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Key::Rsa, "rsa-")
}

#[test]
fn ecdsa_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Key::P256, "ecdsa-sha256")
}

#[test]
fn ed25519_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Key::Ed25519, "ed25519")
}
