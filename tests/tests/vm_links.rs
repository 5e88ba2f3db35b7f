//! Interfaces that go and come back under a running daemon.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::thread;
use std::time::Duration;

use gateway_tests::Result;
use gateway_tests::capture::Capture;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use serde_json::Value;

use Family::V4;

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

#[test]
fn interfaces_that_are_made_anew_leak_nothing_and_carry_traffic_again() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = Capture::start(&topology.middle, &[Topology::SERVER_PORT, Topology::SWITCH])?;
    let _server = Gateway::start(&topology.server.gateway, &Policy::of_server(&topology, V4, V4))?;
    let mut client =
        Gateway::start(&topology.client.gateway, &Policy::of_client(&topology, V4, V4))?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    let before = client.interface("eth0")?;
    assert!(before.get("programs").is_some_and(Value::is_string), "{before}");

    topology.unplug_client()?;
    let line = client.daemon().wait_for_log("Underlay is gone", 0, PATIENCE)?;
    assert!(line.contains("ERROR") && line.contains("eth0"), "{line}");
    let gone = client.interface("eth0")?;
    assert!(gone.get("problem").is_some_and(Value::is_string), "{gone}");
    assert!(gone.get("index").is_some_and(Value::is_null), "{gone}");
    assert!(client.status_text(&[])?.contains("there is no such interface"));

    // Traffic goes on all the time: what could leave in the clear would.
    let options = PingOptions {
        count: 100,
        interval: Duration::from_millis(50),
        wait: Duration::from_secs(1),
        ..PingOptions::default()
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| ping(host, target, &options));
        topology.plug_client()?;
        // Nobody can guard an interface before it is there. As for others, addresses and routes
        // come after it.
        client.daemon().wait_for_log("Underlay is there", 0, PATIENCE)?;
        topology.configure_client()?;
        sender.join().map_err(|_panic| gateway_tests::Error::new("ping panicked"))?
    })?;
    ping_until_answered(host, target, PATIENCE)?;
    all_answered(host, target, &PingOptions::default())?;
    let after = client.interface("eth0")?;
    assert_eq!(after.get("programs"), before.get("programs"));
    assert_ne!(after.get("index"), before.get("index"));

    topology.client.gateway.ip("link del ipsec0")?;
    let line = client.daemon().wait_for_log("it is there again", 0, PATIENCE)?;
    assert!(line.contains("ipsec0"), "{line}");
    ping_until_answered(host, target, PATIENCE)?;
    all_answered(host, target, &PingOptions { size: 1300, ..PingOptions::default() })?;
    capture.finish(&[between_sites(&topology, V4)?])
}
