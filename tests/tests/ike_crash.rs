//! Quick crash detection (RFC 6290) between two of our gateways.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use gateway_tests::Result;
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::PingOptions;
use nix::sys::signal::Signal;

#[test]
fn a_responder_that_was_killed_proves_it_with_the_secret_of_before() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let of_server = Policy::of_server(&topology, Family::V4, Family::V4);
    let mut server = Gateway::start(&topology.server.gateway, &of_server)?;
    let of_client = Policy {
        peer_keys: "liveness = \"2s\"".to_owned(),
        ..Policy::of_client(&topology, Family::V4, Family::V4)
            .with_rules(|rule| rule.start = "always")
    };
    let client = Gateway::start(&topology.client.gateway, &of_client)?;
    let before = client.wait_child(RULE)?;

    server.daemon().signal(Signal::SIGKILL)?;
    server.daemon().wait(PATIENCE)?;
    drop(server);
    let server = Gateway::start(&topology.server.gateway, &of_server)?;
    wait_for("the proof that the server has crashed", PATIENCE, || {
        Ok((client.counter("ike_peer_crashed")? > 0).then_some(()))
    })?;
    assert!(server.counter("ike_crash_token_shown")? > 0);
    let after = client.wait_child(RULE)?;
    assert_ne!(after.get("inbound_spi"), before.get("inbound_spi"));
    server.wait_child(RULE)?;
    let target = topology.server.host_address(Family::V4);
    all_answered(&topology.client.host, target, &PingOptions::default())
}
