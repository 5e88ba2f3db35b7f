//! Gateways that masquerade whatever leaves by their underlay, as container hosts do.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::capture::Mark;
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture, encrypted, exercise};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};

use Family::{V4, V6};

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

/// As Docker does: whatever does not stay inside, by whichever interface it leaves.
fn masquerade(at: &Namespace) -> Result {
    at.nft(
        "table inet other {
            chain forwarded {
                type nat hook postrouting priority srcnat
                oifname != { \"lan0\", \"lo\" } masquerade
            }
        }",
    )
}

/// Whether the gateway's table is there, in both families.
fn is_exempt(at: &Namespace) -> Result<bool> {
    let tables = at.run("nft", &["list", "tables"])?;
    let has = |family| tables.lines().any(|line| line == format!("table {family} ipsec-gateway"));
    Ok(has("ip") && has("ip6"))
}

fn everything_is_encrypted_though_the_gateways_masquerade(inner: Family) -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let ends = [&topology.client.gateway, &topology.server.gateway];
    ends.iter().try_for_each(|at| masquerade(at))?;
    let policies =
        [Policy::of_client(&topology, V4, inner), Policy::of_server(&topology, V4, inner)];
    // The guard alone, which has nothing to encrypt by.
    let host = topology.server.host_address(inner);
    Gateway::guard(ends[0], &policies[0])?;
    assert!(is_exempt(ends[0])?);
    assert_eq!(ping(&topology.client.host, host, &PingOptions::default())?.received, 0);
    capture.assert_no_clear(&[between_sites(&topology, inner)?])?;

    let _server = Gateway::start(ends[1], &policies[1])?;
    let client = Gateway::start(ends[0], &policies[0])?;
    let status = client.status()?;
    let found = status.pointer("/kernel/capabilities").and_then(|all| all.as_array());
    let found = found
        .into_iter()
        .flatten()
        .find(|one| one.get("name").is_some_and(|name| name == "exemption from source NAT"));
    assert!(found.and_then(|one| one.get("value")).is_some_and(|value| value == "yes"), "{status}");
    ping_until_answered(&topology.client.host, host, PATIENCE)?;
    exercise(&topology, inner)?;
    // What the gateways send themselves is selected as well.
    all_answered(ends[0], topology.server.inner(inner), &PingOptions::default())?;

    // Somebody else loads all his rules anew.
    for at in ends {
        at.nft("flush ruleset")?;
    }
    wait_for("the exemption", PATIENCE, || Ok(is_exempt(ends[0])?.then_some(())))?;
    wait_for("the exemption", PATIENCE, || Ok(is_exempt(ends[1])?.then_some(())))?;
    ends.iter().try_for_each(|at| masquerade(at))?;
    exercise(&topology, inner)?;
    encrypted(&topology, &capture.summary(Mark::START)?)?;
    assert_eq!(client.bpf_counter("egress_translated")?, 0);
    capture.finish(&[between_sites(&topology, inner)?])
}

#[test]
fn ipv4_is_encrypted_though_the_gateways_masquerade() -> Result {
    everything_is_encrypted_though_the_gateways_masquerade(V4)
}

#[test]
fn ipv6_is_encrypted_though_the_gateways_masquerade() -> Result {
    everything_is_encrypted_though_the_gateways_masquerade(V6)
}
