//! EAP with strongSwan, in both roles, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::certificates::{self, Authority, Issued, Key};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::reach::{strongswan_reaches_us, we_reach_strongswan};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, capture, carries};
use gateway_tests::strongswan::{Connection, PSK, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

/// The name of the PPK that both ends have beside the password.
const PPK_ID: &str = "key-of-2026";
const NEEDED: &[Requirement] =
    &[Requirement::Esp, Requirement::StrongSwan, Requirement::StrongSwanEap, Requirement::Gateway];

/// Our policy, where the peer's user shows a password: the key that the tests have. We show a
/// certificate.
fn taking_a_password(policy: Policy, ours: &Issued) -> Policy {
    Policy {
        authentication: format!("auth = \"certificate\"\n{}", certificates::own(ours)),
        peer_keys:
            "remote-auth = \"eap\"\neap-methods = [\"mschapv2\"]\neap-remote-identity = \"ask\""
                .to_owned(),
        tables: "[user.alice]\npassword-file = \"psk\"".to_owned(),
        ..policy
    }
}

/// Our policy, where we show it, under the name that we have for EAP.
fn giving_a_password(policy: Policy, authority: &Authority) -> Policy {
    Policy {
        local_id: String::new(),
        authentication: certificates::trusted(authority),
        peer_keys: "auth = \"eap\"\nremote-auth = \"certificate\"\neap-methods = [\"mschapv2\"]\n\
                    eap-identity = \"alice\"\neap-password-file = \"psk\""
            .to_owned(),
        ..policy
    }
}

/// strongSwan's secret of alice.
fn alice(password: &str) -> String {
    format!("eap-alice {{\n    id = alice\n    secret = \"{password}\"\n  }}")
}

/// strongSwan's connection, where it shows the password to one who shows a certificate.
fn showing_a_password(connection: Connection, authority: &Authority, password: &str) -> Connection {
    let root = authority.certificate();
    Connection {
        local_auth: "auth = eap-mschapv2\n      eap_id = alice".to_owned(),
        remote_auth: format!("auth = pubkey\n      cacerts = {}", root.display()),
        secrets: alice(password),
        ..connection
    }
}

/// strongSwan's connection, where it shows a certificate and knows the password.
fn knowing_a_password(
    connection: Connection,
    authority: &Authority,
    theirs: &Issued,
) -> Connection {
    Connection {
        // The name alone is a key ID.
        remote_id: "%any".to_owned(),
        remote_auth: "auth = eap-mschapv2\n      eap_id = %any".to_owned(),
        secrets: alice(PSK),
        ..connection.certified(authority, theirs, ["pubkey", "eap-mschapv2"])
    }
}

/// Our policy, where the peer shows its certificate by EAP-TLS.
fn taking_a_certificate(policy: Policy, authority: &Authority, ours: &Issued) -> Policy {
    Policy {
        authentication: certificates::policy(authority, ours),
        peer_keys: "remote-auth = \"eap\"\neap-methods = [\"tls\"]".to_owned(),
        ..policy
    }
}

/// Our policy, where we do.
fn giving_a_certificate(policy: Policy, authority: &Authority, ours: &Issued) -> Policy {
    Policy {
        authentication: certificates::files(authority, ours),
        peer_keys: "auth = \"eap\"\nremote-auth = \"certificate\"\neap-methods = [\"tls\"]"
            .to_owned(),
        ..policy
    }
}

#[test]
fn strongswan_gives_us_its_password_by_eap() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    // Through NAT, as users come.
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let authority = Authority::new(Key::P256)?;
    let issued = authority.issue("server.test")?;
    let policy = taking_a_password(Policy::of_server(&topology, V4, V4), &issued);
    let policy = Policy { ppk: Some(PPK_ID), ..policy };
    let mut server = Gateway::start(&topology.server.gateway, &policy)?;
    let connection = Connection::of_client(&topology, V4, V4);
    let connection = Connection { ppk: Some((PPK_ID, true)), ..connection };
    let user = |password| showing_a_password(connection.clone(), &authority, password);
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
    has_ppk(&server)?;
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
    let authority = Authority::new(Key::P256)?;
    let issued = authority.issue("server.test")?;
    let theirs = Connection::of_server(&topology, V4, V4);
    let theirs = knowing_a_password(theirs, &authority, &issued);
    let theirs = Connection { ppk: Some((PPK_ID, true)), ..theirs };
    let ours = giving_a_password(Policy::of_client(&topology, V4, V4), &authority);
    let ours = Policy { ppk: Some(PPK_ID), ..ours };
    we_reach_strongswan(&topology, V4, Version::Installed, &theirs, ours, |gateway| {
        has_succeeded(gateway)?;
        has_ppk(gateway)
    })
}

/// This strongSwan has no ML-KEM: only a PPK makes the IKE SA quantum-safe.
fn has_ppk(gateway: &Gateway<'_>) -> Result {
    let sa = gateway.established()?;
    assert_eq!(sa.get("quantum_safe").and_then(Value::as_bool), Some(true), "{sa}");
    Ok(())
}

fn has_succeeded(gateway: &Gateway<'_>) -> Result {
    assert_eq!(gateway.counter("eap_succeeded")?, 1);
    Ok(())
}

/// TLS inside of EAP, where the certificates are shown that IKE would show otherwise.
#[test]
fn strongswan_shows_us_its_certificate_by_eap_tls() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let ours = taking_a_certificate(Policy::of_server(&topology, V4, V4), &authority, &server);
    let theirs = Connection::of_client(&topology, V4, V4);
    let theirs = theirs.certified(&authority, &client, ["eap-tls", "pubkey"]);
    strongswan_reaches_us(&topology, V4, Version::Installed, &theirs, &ours, has_succeeded)
}

#[test]
fn we_show_strongswan_our_certificate_by_eap_tls() -> Result {
    if !met(NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let theirs = Connection::of_server(&topology, V4, V4);
    let theirs = theirs.certified(&authority, &server, ["pubkey", "eap-tls"]);
    let ours = giving_a_certificate(Policy::of_client(&topology, V4, V4), &authority, &client);
    we_reach_strongswan(&topology, V4, Version::Installed, &theirs, ours, has_succeeded)
}

/// Both methods, each with us and with strongSwan as who shows something.
#[test]
fn a_newer_strongswan_and_we_agree_by_eap_in_both_roles() -> Result {
    if !met(&Pair::needed(Version::Newer))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let authority = Authority::with_long_chains(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let ours = || Policy::of_client(&topology, V4, V4);
    let responding = || ours().with_rules(|rule| rule.start = "respond");
    // What AUTH covers of IKE_INTERMEDIATE is to be the same at both ends after EAP, too.
    let proposals = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
    let theirs = || Connection { proposals, ..Pair::connection(&topology) };
    let certified = |methods| theirs().certified(&authority, &server, methods);
    let stages = [
        (
            "our certificate",
            true,
            certified(["pubkey", "eap-tls"]),
            giving_a_certificate(ours(), &authority, &client),
        ),
        (
            "its certificate",
            false,
            certified(["eap-tls", "pubkey"]),
            taking_a_certificate(responding(), &authority, &client),
        ),
        (
            "our password",
            true,
            knowing_a_password(theirs(), &authority, &server),
            giving_a_password(ours(), &authority),
        ),
        (
            "its password",
            false,
            showing_a_password(theirs(), &authority, PSK),
            taking_a_password(responding(), &client),
        ),
    ];
    let mut started = None;
    for (succeeded, (feature, we_begin, theirs, ours)) in (1..).zip(stages) {
        let pair = Pair::go_on(&mut started, &topology, Version::Newer, &theirs, &ours)?;
        pair.one_begins(we_begin, pair.hosts(), || {
            assert_eq!(pair.gateway.counter("eap_succeeded")?, succeeded, "{feature}");
            let sa = pair.gateway.established()?;
            assert_eq!(sa.get("quantum_safe"), Some(&Value::Bool(true)), "{feature}: {sa}");
            Ok(())
        })
        .context(feature)?;
    }
    started.context("nothing to show")?.finish(&[between_sites(&topology, V4)?])
}
