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

/// How both ends sign.
struct Case {
    key: Key,
    /// Whether the chains have more than 4 kB, and go in fragments.
    long: bool,
    /// strongSwan's `auth`, both for itself and for us.
    theirs: &'static str,
    /// What we may sign with and take; empty: all.
    schemes: &'static str,
    /// What our status calls strongSwan's proof.
    scheme: &'static str,
    /// What strongSwan's log calls its own proof and ours.
    logged: &'static str,
}

/// `ike:` says how AUTH is signed, and leaves alone how certificates are. strongSwan, not told
/// otherwise, signs by PKCS #1 v1.5 and takes both. We prefer PSS.
static RSA: [Case; 2] = [
    Case {
        key: Key::Rsa,
        long: true,
        theirs: "ike:rsa/pss-sha256",
        schemes: "",
        scheme: "rsa-pss-sha256",
        logged: "RSA_EMSA_PSS_SHA2_256_SALT_32",
    },
    Case {
        key: Key::Rsa,
        long: false,
        theirs: "ike:rsa-sha384",
        schemes: "signature-schemes = [\"rsa-pkcs1-sha384\"]\n",
        scheme: "rsa-pkcs1-sha384",
        logged: "RSA_EMSA_PKCS1_SHA2_384",
    },
];

static ECDSA: [Case; 3] = [
    Case {
        key: Key::P256,
        long: true,
        theirs: "pubkey",
        schemes: "",
        scheme: "ecdsa-sha256",
        logged: "ECDSA_WITH_SHA256_DER",
    },
    Case {
        key: Key::P384,
        long: false,
        theirs: "pubkey",
        schemes: "",
        scheme: "ecdsa-sha384",
        logged: "ECDSA_WITH_SHA384_DER",
    },
    Case {
        key: Key::P521,
        long: false,
        theirs: "pubkey",
        schemes: "",
        scheme: "ecdsa-sha512",
        logged: "ECDSA_WITH_SHA512_DER",
    },
];

static ED25519: [Case; 1] = [Case {
    key: Key::Ed25519,
    long: false,
    theirs: "pubkey",
    schemes: "",
    scheme: "ed25519",
    logged: "ED25519",
}];

/// Either begins, and both sign as the case says.
fn both_roles(version: Version, cases: impl IntoIterator<Item = &'static Case>) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let mut started = None;
    for Case { key, long, theirs, schemes, scheme, logged } in cases {
        let authority =
            if *long { Authority::with_long_chains(*key)? } else { Authority::new(*key)? };
        let (client, server) = (authority.issue("client.test")?, authority.issue("server.test")?);
        let theirs = Pair::connection(&topology).certified(&authority, &server, [theirs; 2]);
        let mut ours = Policy::of_client(&topology, V4, V4);
        ours.authentication = format!("{schemes}{}", policy(&authority, &client));
        let pair = Pair::go_on(&mut started, &topology, version, &theirs, &ours)?;
        let before = pair.strongswan.log().len();
        let cut = pair.gateway.counter("ike_message_fragmented")?;
        let received = pair.gateway.counter("ike_fragment_received")?;
        pair.either_begins(pair.hosts(), |ours| proven(&pair.gateway, ours, scheme))
            .context(scheme)?;
        // Twice each way, once in each role.
        let log = pair.strongswan.log();
        let log = log.get(before..).context("a log that is shorter")?;
        for whose in ["server.test' (myself)", "client.test'"] {
            let line = format!("authentication of '{whose} with {logged} successful");
            assert_eq!(log.matches(&line).count(), 2, "{line}\n{log}");
        }
        if *long {
            // More than three fragments of 1280 octets each.
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
    assert_eq!(text("/remote_auth"), scheme);
    assert_eq!(text("/certificate/subject"), "O=Test, CN=server.test");
    assert!(text("/certificate/not_after").ends_with('Z'));
    Ok(())
}

#[test]
fn rsa_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Version::Installed, &RSA)
}

#[test]
fn ecdsa_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Version::Installed, &ECDSA)
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
    pair.either_begins(pair.hosts(), |ours| proven(&pair.gateway, ours, "ecdsa-sha256"))?;
    let log = pair.strongswan.log();
    let proofs = log.lines().filter(|line| line.contains("with ECDSA-256 signature successful"));
    // Each of the two times strongSwan's own proof, and ours.
    assert_eq!(proofs.count(), 4, "{log}");
    pair.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn ed25519_certificates_agree_with_strongswan_in_both_roles() -> Result {
    both_roles(Version::Installed, &ED25519)
}

#[test]
fn certificates_of_all_kinds_agree_with_a_newer_strongswan_in_both_roles() -> Result {
    both_roles(Version::Newer, RSA.iter().chain(&ECDSA).chain(&ED25519))
}
