//! Certificates between strongSwan and us, with traffic through the kernel's ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::certificates::{Authority, Key, policy};
use gateway_tests::gateway::{Gateway, Policy};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::met;
use gateway_tests::scenario::between_sites;
use gateway_tests::strongswan::Connection;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};

use Family::V4;

/// A kind of key, and how the status begins to call its signatures.
type Kind = (Key, &'static str);

const RSA: Kind = (Key::Rsa, "rsa-");
const ECDSA: Kind = (Key::P256, "ecdsa-sha256");
const ED25519: Kind = (Key::Ed25519, "ed25519");

/// With keys of each kind either begins. Where an algorithm can do without being shown in its
/// smallest message, the chains have more than 4 kB, and go in fragments.
fn both_roles(version: Version, kinds: &[Kind]) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let mut started = None;
    for (key, scheme) in kinds {
        let long = *key != Key::Ed25519;
        let authority =
            if long { Authority::with_long_chains(*key)? } else { Authority::new(*key)? };
        let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
        let theirs = Pair::connection(&topology).certified(&authority, &server, ["pubkey"; 2]);
        let mut ours = Policy::of_client(&topology, V4, V4);
        ours.authentication = policy(&authority, &client);
        let pair = Pair::go_on(&mut started, &topology, version, &theirs, &ours)?;
        let cut = pair.gateway.counter("ike_message_fragmented")?;
        let received = pair.gateway.counter("ike_fragment_received")?;
        pair.either_begins(pair.hosts(), |ours| proven(&pair.gateway, ours, scheme))
            .context(scheme)?;
        if long {
            // Twice each way, once in each role, and more than three fragments of 1280 octets each.
            let cut = pair.gateway.counter("ike_message_fragmented")?.saturating_sub(cut);
            let received = pair.gateway.counter("ike_fragment_received")?.saturating_sub(received);
            assert!(cut >= 2 && received >= 2 * 3, "{scheme}: {cut} cut, {received} received");
        }
    }
    started.context("nothing to show")?.finish(&[between_sites(&topology, V4)?])
}

/// The status shows who began, how the peer proved who it is, and its certificate.
fn proven(gateway: &Gateway<'_>, initiator: bool, scheme: &str) -> Result {
    let sa = gateway.established()?;
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
    both_roles(Version::Installed, &[RSA])
}

#[test]
fn ecdsa_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Version::Installed, &[ECDSA])
}

/// Who names no hashes in IKE_SA_INIT knows no Digital Signature (RFC 7427 3): it is shown, and shows,
/// an ECDSA signature by the method of its curve (RFC 4754 3).
#[test]
fn strongswan_without_digital_signatures_agrees_by_the_older_ecdsa_in_both_roles() -> Result {
    let version = Version::Installed;
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let authority = Authority::new(Key::P256)?;
    let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
    let theirs = Pair::connection(&topology).certified(&authority, &server, ["pubkey"; 2]);
    let theirs = Connection { settings: "signature_authentication = no", ..theirs };
    let mut ours = Policy::of_client(&topology, V4, V4);
    ours.authentication = policy(&authority, &client);
    let pair = Pair::start(&topology, version, &theirs, &ours)?;
    pair.either_begins(pair.hosts(), |ours| proven(&pair.gateway, ours, "ecdsa"))?;
    let log = pair.strongswan.log();
    let proofs = log.lines().filter(|line| line.contains("with ECDSA-256 signature successful"));
    // Each of the two times strongSwan's own proof, and ours.
    assert_eq!(proofs.count(), 4, "{log}");
    pair.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn ed25519_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Version::Installed, &[ED25519])
}

#[test]
fn certificates_of_all_kinds_agree_with_a_newer_strongswan_in_both_roles() -> Result {
    both_roles(Version::Newer, &[RSA, ECDSA, ED25519])
}
