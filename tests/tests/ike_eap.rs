//! EAP with strongSwan, in both roles, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::capture::Mark;
use gateway_tests::certificates::{Authority, Key, files, policy};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture, carries, encrypted};
use gateway_tests::strongswan::{Connection, PSK, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::PingOptions;

use Family::V4;

const NEEDED: &[Requirement] =
    &[Requirement::Esp, Requirement::StrongSwan, Requirement::StrongSwanEap, Requirement::Gateway];

/// The key that the tests have is a user's password too.
#[test]
fn strongswan_gives_us_its_password_by_eap() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    // Through NAT, as users come.
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let policy = Policy {
        peer_keys:
            "remote-auth = \"eap\"\neap-methods = [\"mschapv2\"]\neap-remote-identity = \"ask\""
                .to_owned(),
        tables: "[user.alice]\npassword-file = \"psk\"".to_owned(),
        ..Policy::of_server(&topology, V4, V4)
    };
    let mut server = Gateway::start(&topology.server.gateway, &policy)?;
    let user = |password: &str| Connection {
        local_auth: "auth = eap-mschapv2\n      eap_id = alice".to_owned(),
        secrets: format!("eap-alice {{\n    id = alice\n    secret = \"{password}\"\n  }}"),
        ..Connection::of_client(&topology, V4, V4)
    };
    let client = StrongSwan::start(&topology.client.gateway, &user("another password"))?;
    let error = client.initiate().unwrap_err().to_string();
    assert!(error.contains("ERROR_AUTHENTICATION_FAILURE"), "{error}");
    // strongSwan does not come back to hear more of it: we have said it already.
    server.daemon().wait_for_log("EAP of alice failed: wrong password", 0, PATIENCE)?;
    client.load(&user(PSK))?;
    client.initiate()?;
    server.wait_child(RULE)?;
    let status = server.status()?;
    let users = status.pointer("/ike_sas").and_then(|sas| sas.as_array());
    let mut users = users.into_iter().flatten().filter_map(|sa| sa.get("user"));
    assert!(users.any(|user| user == "alice"), "{status}");
    carries(&topology, &capture, V4)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_give_strongswan_our_password_by_eap() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let server = Connection {
        remote_auth: "auth = eap-mschapv2\n      eap_id = %any".to_owned(),
        secrets: format!("eap-alice {{\n    id = alice\n    secret = \"{PSK}\"\n  }}"),
        ..Connection::of_server(&topology, V4, V4)
    };
    let server = StrongSwan::start(&topology.server.gateway, &server)?;
    let policy = Policy {
        peer_keys: "auth = \"eap\"\nremote-auth = \"psk\"\neap-methods = [\"mschapv2\"]\n\
                    eap-identity = \"alice\"\neap-password-file = \"psk\""
            .to_owned(),
        ..Policy::of_client(&topology, V4, V4)
    };
    let policy = policy.with_rules(|rule| rule.start = "always");
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    carries(&topology, &capture, V4)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

fn both_ways(topology: &Topology) -> Result {
    let (client, server) = (&topology.client, &topology.server);
    for (from, to) in [(client, server), (server, client)] {
        all_answered(&from.host, to.host_address(V4), &PingOptions::default())?;
    }
    Ok(())
}

/// TLS inside of EAP, where the certificates are shown that IKE would show otherwise.
#[test]
fn strongswan_shows_us_its_certificate_by_eap_tls() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let ours = Policy {
        authentication: policy(&authority, &server),
        peer_keys: "remote-auth = \"eap\"\neap-methods = [\"tls\"]".to_owned(),
        ..Policy::of_server(&topology, V4, V4)
    };
    let server = Gateway::start(&topology.server.gateway, &ours)?;
    let theirs = Connection::of_client(&topology, V4, V4);
    let theirs = theirs.certified(&authority, &client, ["eap-tls", "pubkey"]);
    let client = StrongSwan::start(&topology.client.gateway, &theirs)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    assert_eq!(server.counter("eap_succeeded")?, 1);
    both_ways(&topology)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn we_show_strongswan_our_certificate_by_eap_tls() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let theirs = Connection::of_server(&topology, V4, V4);
    let theirs = theirs.certified(&authority, &server, ["pubkey", "eap-tls"]);
    let server = StrongSwan::start(&topology.server.gateway, &theirs)?;
    let ours = Policy {
        authentication: files(&authority, &client),
        peer_keys: "auth = \"eap\"\nremote-auth = \"certificate\"\neap-methods = [\"tls\"]"
            .to_owned(),
        ..Policy::of_client(&topology, V4, V4).with_rules(|rule| rule.start = "always")
    };
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    client.wait_child(RULE)?;
    assert_eq!(client.counter("eap_succeeded")?, 1);
    server.wait_installed()?;
    both_ways(&topology)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
