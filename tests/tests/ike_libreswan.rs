//! Interoperability with libreswan, unpacked beside this Debian's packages, with traffic through
//! the kernel's ESP. In each test it does all that one start of it can show.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::IpAddr;
use core::time::Duration;

use gateway_tests::capture::Mark;
use gateway_tests::certificates::{Authority, Key, policy};
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::libreswan::{Connection, Libreswan};
use gateway_tests::mobility::{kept, rebind};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    all_answered, between_gateways, between_sites, capture, carries, encrypted, quantum_safe,
};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

const NEEDED: [Requirement; 3] = [Requirement::Esp, Requirement::Libreswan, Requirement::Gateway];
const PPK_ID: &str = "key-of-2026";

fn from_client(topology: &Topology) -> Result {
    let (from, to) = (&topology.client.host, topology.server.host_address(V4));
    all_answered(from, to, &PingOptions::default())
}

/// Both ends have shown a chain of more than 4 kB, in fragments.
fn chain_in_fragments(gateway: &Gateway<'_>) -> Result {
    assert!(gateway.counter("ike_message_fragmented")? > 0, "we have sent no fragments");
    assert!(gateway.counter("ike_fragment_received")? >= 3, "libreswan has sent no fragments");
    Ok(())
}

/// By a shared key, and a post-quantum one with it. It says only that it lives, and we see from
/// where.
#[test]
fn libreswan_reaches_us_through_a_nat_that_maps_anew() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let policy = Policy { ppk: Some(PPK_ID), ..Policy::of_server(&topology, V4, V4) };
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let client = Connection { ppk_id: Some(PPK_ID), ..Connection::of_client(&topology, V4) };
    let client = Libreswan::start(&topology.client.gateway, &client.impatient())?;
    client.initiate()?;
    server.wait_child(RULE)?;
    assert!(quantum_safe(&server)?);
    carries(&topology, &capture, V4)?;
    rebind(&topology, |moves| server.wait_counter("ike_path_changed", moves))?;
    kept(&server, 2)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// The groups of key exchange that both have: our name, our proposal with it, libreswan's name.
const GROUPS: [(&str, &str, &str); 5] = [
    ("x25519", "aes256gcm16-x25519", "dh31"),
    ("ecp256", "aes256gcm16-ecp256", "dh19"),
    ("ecp384", "aes256gcm16-ecp384", "dh20"),
    ("ecp521", "aes256gcm16-ecp521", "dh21"),
    ("modp2048", "aes256gcm16-modp2048", "dh14"),
];

/// The part of the server's prefix that a group protects, and a host in it.
fn part(group: usize) -> (String, IpAddr) {
    let first = u8::try_from(group).map_or(u8::MAX, |n| n.saturating_add(1).saturating_mul(16));
    (format!("10.2.0.{first}/28"), [10, 2, 0, first.saturating_add(1)].into())
}

/// By a shared key, and a post-quantum one with it. On the one IKE SA, Child SAs with a key
/// exchange of their own (PFS), with each group: we make them, then libreswan rekeys them.
#[test]
fn we_reach_libreswan_and_either_begins_child_sas_with_each_group() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut policy = Policy { ppk: Some(PPK_ID), ..Policy::of_client(&topology, V4, V4) };
    let theirs = Connection { ppk_id: Some(PPK_ID), ..Connection::of_server(&topology, V4) }
        .known(&topology, V4);
    // For a Child SA that we begin libreswan has the groups of the connection of the IKE SA.
    let groups = GROUPS.map(|(_, _, group)| group).join("+");
    let mut connections =
        vec![Connection { esp: format!("aes_gcm256-none-{groups}"), ..theirs.clone() }];
    for (n, (name, ours, group)) in GROUPS.into_iter().enumerate() {
        let (prefix, host) = part(n);
        topology.server.host.ip(&format!("addr add {host}/24 dev eth0"))?;
        let mut rule = policy.rules.first().context("no rule")?.clone();
        name.clone_into(&mut rule.name);
        rule.remote = vec![prefix.clone()];
        rule.esp_proposals = vec![ours];
        policy.rules.push(rule);
        let mut connection =
            Connection { esp: format!("aes_gcm256-none-{group}"), ..theirs.clone() };
        connection.ends = connection.ends.replace(&topology.server.prefix(V4), &prefix);
        connections.push(connection);
    }
    let server =
        Libreswan::start_with(&topology.server.gateway, &connections.iter().collect::<Vec<_>>())?;
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    client.wait_child(RULE)?;
    assert!(quantum_safe(&client)?);
    carries(&topology, &capture, V4)?;

    let has_group = |group: &str| {
        let children = client.children(group)?;
        Result::Ok(children.iter().any(|child| child["key_exchange"] == *group))
    };
    for (n, (group, _, _)) in GROUPS.into_iter().enumerate() {
        let (_, host) = part(n);
        ping_until_answered(&topology.client.host, host, PATIENCE)?;
        assert!(has_group(group)?, "{group}, by us");
        let rekeyed = client.counter("child_sa_rekeyed")?;
        server.rekey_child_of(n.saturating_add(1))?;
        client.wait_counter("child_sa_rekeyed", rekeyed.saturating_add(1))?;
        all_answered(&topology.client.host, host, &PingOptions::default())?;
        assert!(has_group(group)?, "{group}, by libreswan");
    }
    assert_eq!(client.counter("ike_sa_established")?, 1, "not on one IKE SA");
    // A rule that is taken away takes its Child SA with it, and no other.
    let children = || Result::Ok(server.states()?.matches("ESTABLISHED_CHILD_SA").count());
    let before = children()?;
    assert_eq!(before, policy.rules.len(), "{}", server.states()?);
    policy.rules.pop();
    client.reload(&policy)?;
    wait_for("our Delete", PATIENCE, || Ok((children()? < before).then_some(())))?;
    assert_eq!(children()?, policy.rules.len(), "{}", server.states()?);
    all_answered(&topology.client.host, topology.server.host_address(V4), &PingOptions::default())?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// Both ends, each with its certificate and the same root; libreswan's key may be of another kind.
fn certified(
    topology: &Topology,
    (key, of_server): (Key, Key),
    authby: &str,
) -> Result<(Authority, Policy, Connection)> {
    let authority = Authority::with_long_chains(key)?;
    let client = authority.issue("client.test")?;
    let server = authority.issue_for("server.test", of_server)?;
    let theirs = Connection {
        esp: "aes_gcm256-none-dh31".to_owned(),
        ..Connection::of_server(topology, V4).known(topology, V4)
    };
    let theirs = theirs.certified(&authority, &server, authby)?;
    let ours = Policy {
        authentication: policy(&authority, &client),
        ..Policy::of_client(topology, V4, V4)
            .with_rules(|rule| rule.esp_proposals = vec!["aes256gcm16-x25519"])
    };
    Ok((authority, ours, theirs))
}

/// Who began, and how both have proved who they are: libreswan by our status, and we by the last
/// line of its log about it.
fn proven(
    (gateway, libreswan): (&Gateway<'_>, &Libreswan<'_>),
    initiator: bool,
    (theirs, ours): (&str, &str),
) -> Result {
    let sa = gateway.established()?;
    assert_eq!(sa.get("remote_auth").and_then(|by| by.as_str()), Some(theirs));
    assert_eq!(sa.get("initiator").and_then(|it| it.as_bool()), Some(initiator));
    let log = libreswan.log();
    let seen = log.lines().rfind(|line| line.contains("authenticated peer certificate"));
    assert!(seen.is_some_and(|line| line.contains(&format!("{ours} digital signature"))), "{log}");
    Ok(())
}

/// libreswan begins, and rekeys; then a packet makes us begin. As initiator it signs by PSS with the
/// best hash that both ends have, as responder as we have signed.
#[test]
fn libreswan_shows_us_a_long_chain_of_rsa_and_rekeys_and_we_begin() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (_authority, mut ours, theirs) = certified(&topology, (Key::Rsa, Key::Rsa), "rsa")?;
    let libreswan = Libreswan::start(&topology.server.gateway, &theirs)?;
    let mut gateway = Gateway::start(&topology.client.gateway, &ours)?;
    libreswan.initiate()?;
    gateway.wait_child(RULE)?;
    let pss = ("rsa-pss-sha512", "2048-bit RSASSA-PSS with SHA2_256");
    proven((&gateway, &libreswan), false, pss)?;
    chain_in_fragments(&gateway)?;
    from_client(&topology)?;
    for round in 1..=2 {
        libreswan.rekey_child()?;
        gateway.wait_counter("child_sa_rekeyed", round)?;
        from_client(&topology)?;
        libreswan.rekey_ike()?;
        gateway.wait_counter("ike_sa_rekeyed", round)?;
        from_client(&topology)?;
    }
    assert!(gateway.children(RULE)?.iter().any(|c| c["key_exchange"] == "x25519"));
    assert_eq!(gateway.counter("ike_sa_established")?, 1);
    libreswan.terminate()?;
    gateway.wait_gone()?;

    let we_begin = |gateway: &Gateway<'_>, proofs| {
        ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
        proven((gateway, &libreswan), true, proofs)
    };
    we_begin(&gateway, ("rsa-pss-sha256", pss.1))?;
    libreswan.terminate()?;
    gateway.wait_gone()?;
    ours.authentication.push_str("\nsignature-schemes = [\"rsa-pkcs1-sha384\"]");
    gateway.reload(&ours)?;
    we_begin(&gateway, ("rsa-pkcs1-sha384", "2048-bit PKCS#1 1.5 RSA with SHA2_384"))?;
    from_client(&topology)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert!(gateway.daemon().stop(PATIENCE)?.success());
    libreswan.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// A packet makes us begin, and time makes us rekey; then libreswan begins, and we have another key.
#[test]
fn we_show_libreswan_a_long_chain_of_ecdsa_and_rekey_and_it_begins() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let keys = (Key::P256, Key::P384);
    let (authority, mut ours, theirs) = certified(&topology, keys, "ecdsa-sha2")?;
    ours.peer_keys = "lifetime = \"9s\"\nchildless = \"require\"".to_owned();
    let mut ours = ours.with_rules(|rule| rule.lifetime = Some("5s".to_owned()));
    let libreswan = Libreswan::start(&topology.server.gateway, &theirs)?;
    let mut gateway = Gateway::start(&topology.client.gateway, &ours)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    let p256 = ("ecdsa-sha256", "P-256 ECDSA with SHA2_256");
    proven((&gateway, &libreswan), true, p256)?;
    chain_in_fragments(&gateway)?;
    // libreswan sends by the new SA as soon as it has answered, before we can have the keys: that is
    // kept until we have.
    let pings =
        PingOptions { count: 120, interval: Duration::from_millis(100), ..PingOptions::default() };
    let answered = ping(host, target, &pings)?.received;
    assert_eq!(answered, pings.count);
    assert!(gateway.counter("child_sa_rekeyed")? >= 2);
    assert!(gateway.counter("ike_sa_rekeyed")? >= 1);
    assert_eq!(gateway.counter("ike_sa_established")?, 1);
    assert!(gateway.children(RULE)?.iter().any(|c| c["key_exchange"] == "x25519"));
    libreswan.terminate()?;
    gateway.wait_gone()?;

    ours.authentication = policy(&authority, &authority.issue_for("client.test", Key::P521)?);
    gateway.reload(&ours)?;
    libreswan.initiate()?;
    gateway.wait_child(RULE)?;
    let p521 = ("ecdsa-sha512", "P-521 ECDSA with SHA2_512");
    proven((&gateway, &libreswan), false, p521)?;
    from_client(&topology)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    libreswan.terminate()?;
    gateway.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// First a packet makes us begin, then libreswan does.
#[test]
fn libreswan_and_we_agree_on_transport_mode() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (client, server) = (topology.client.outer(V4), topology.server.outer(V4));
    let theirs = Connection::of_transport(&topology, V4);
    let libreswan = Libreswan::start(&topology.server.gateway, &theirs)?;
    let policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        rule.mode = "transport";
        (rule.local, rule.remote) = (vec![format!("{client}/32")], vec![format!("{server}/32")]);
    });
    let gateway = Gateway::start(&topology.client.gateway, &policy)?;
    let pings = || all_answered(&topology.client.gateway, server, &PingOptions::default());
    ping_until_answered(&topology.client.gateway, server, PATIENCE)?;
    gateway.wait_child(RULE)?;
    pings()?;
    libreswan.terminate()?;
    gateway.wait_gone()?;
    libreswan.initiate()?;
    gateway.wait_child(RULE)?;
    pings()?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    capture.finish(&[between_gateways(&topology, V4)])
}

/// What an old peer may have and no better, for all that is authenticated and for the keys. First a
/// packet makes us begin, then libreswan does.
#[test]
fn libreswan_and_we_agree_on_hmac_sha1() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let theirs = Connection {
        ike: "aes128-sha1-dh14",
        esp: "aes128-sha1".to_owned(),
        ..Connection::of_server(&topology, V4).known(&topology, V4)
    };
    let libreswan = Libreswan::start(&topology.server.gateway, &theirs)?;
    let policy = Policy {
        ike_proposals: vec!["aes128-sha1-modp2048"],
        ..Policy::of_client(&topology, V4, V4)
            .with_rules(|rule| rule.esp_proposals = vec!["aes128-sha1"])
    };
    let gateway = Gateway::start(&topology.client.gateway, &policy)?;
    let by_sha1 = |initiator: bool| {
        let child = gateway.wait_child(RULE)?;
        let sa = gateway.established()?;
        let suite = |of: &Value| of.get("suite").and_then(Value::as_str).map(str::to_owned);
        assert_eq!(suite(&sa).as_deref(), Some("aes128-sha1-prfsha1-modp2048"));
        assert!(suite(&child).is_some_and(|suite| suite.starts_with("aes128-sha1")), "{child}");
        assert_eq!(sa.get("initiator").and_then(Value::as_bool), Some(initiator), "{sa}");
        carries(&topology, &capture, V4)
    };
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    by_sha1(true)?;
    libreswan.terminate()?;
    gateway.wait_gone()?;
    libreswan.initiate()?;
    by_sha1(false)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    capture.finish(&[between_sites(&topology, V4)?])
}
