//! `gateway trace` beside a tunnel, and after its gateway was killed.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::fs;
use std::process::Child;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::none_answered;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Error, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use Family::V4;

/// The decisions that a trace has shown when it is through; `send` gives it something to show.
fn decisions(mut trace: Child, send: impl Fn() -> Result) -> Result<Vec<Value>> {
    wait_for("the trace", PATIENCE, || {
        send()?;
        trace.try_wait().context("gateway trace")
    })?;
    let output = trace.wait_with_output().context("gateway trace")?;
    let [out, err] =
        [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned());
    if !output.status.success() {
        return Err(Error::new(format!("gateway trace: {}: {err}", output.status)));
    }
    out.lines().map(|line| serde_json::from_str(line).context(line)).collect()
}

fn is(decision: &Value, expected: &[(&str, &str)]) -> bool {
    expected.iter().all(|(name, value)| decision.get(name).is_some_and(|found| found == value))
}

fn assert_any(decisions: &[Value], expected: &[(&str, &str)]) {
    assert!(decisions.iter().any(|one| is(one, expected)), "{expected:?} in\n{decisions:#?}");
}

#[test]
fn a_trace_shows_what_becomes_of_packets_also_when_their_gateway_is_dead() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let server = Gateway::start(&topology.server.gateway, &Policy::of_server(&topology, V4, V4))?;
    let mut client =
        Gateway::start(&topology.client.gateway, &Policy::of_client(&topology, V4, V4))?;
    let target = topology.server.host_address(V4);
    ping_until_answered(&topology.client.host, target, PATIENCE)?;
    let child = client.wait_child(RULE)?;
    let spi = |name: &str| child.get(name).and_then(Value::as_str).context(name.to_owned());
    let (inbound, outbound) = (spi("inbound_spi")?, spi("outbound_spi")?);
    let sa = client.established()?;
    let peer = sa.get("peer").and_then(Value::as_str).context("a peer")?;

    let files = tempfile::tempdir().context("a directory")?;
    let [capture, keys] = ["trace.pcapng", "keys"].map(|name| files.path().join(name));
    let [capture, keys] = [&capture, &keys].map(|path| path.to_string_lossy().into_owned());
    let of_peer = ["--peer", peer, "--count", "4", "--json", "--write", &capture, "--keys", &keys];
    let traces =
        [client.trace(&of_peer)?, server.trace(&["--spi", outbound, "--count", "1", "--json"])?];
    let send = || ping_until_answered(&topology.client.host, target, PATIENCE).map(drop);
    let [at_client, at_server] = traces.map(|trace| decisions(trace, send));
    let (at_client, at_server) = (at_client?, at_server?);
    let source = topology.client.host_address(V4).to_string();
    let out = [("reason", "egress_protected"), ("rule", RULE), ("peer", peer), ("source", &source)];
    assert_any(&at_client, &out);
    let stripped = [("reason", "esp_in_udp_stripped"), ("hook", "xdp"), ("protocol", "ESP")];
    assert_any(&at_client, &[&stripped[..], &[("spi", inbound), ("rule", RULE)]].concat());
    assert_any(&at_server, &[&stripped[..], &[("spi", outbound), ("rule", RULE)]].concat());
    let written = fs::read_to_string(files.path().join("keys/esp_sa")).context("esp_sa")?;
    for spi in [inbound, outbound] {
        let is_it = |line: &&str| line.contains(spi) && line.contains("AES-GCM with 16 octet ICV");
        assert!(written.lines().any(|line| is_it(&line)), "{spi}\n{written}");
    }
    let octets = fs::read(&capture).context("a capture")?;
    assert!(octets.windows(16).any(|octets| octets == b"egress_protected"), "a comment");

    // The guard goes on, and its programs tell whoever asks.
    client.daemon().signal(Signal::SIGKILL)?;
    client.daemon().wait(PATIENCE)?;
    topology.client.gateway.run("ip", &["xfrm", "state", "flush"])?;
    topology.client.gateway.run("ip", &["xfrm", "policy", "flush"])?;
    let refused = client.trace(&["--peer", peer])?.wait_with_output().context("gateway trace")?;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("need a gateway that runs"), "{words}");
    let numbers = client.trace(&["--count", "1", "--json", "--reason", "egress_protected"])?;
    let numbers = decisions(numbers, || none_answered(&topology.client.host, target))?;
    assert_any(&numbers, &[("source", &source), ("verdict", "redirect")]);
    let rule = numbers.first().and_then(|one| one.get("rule")?.as_str()).context("a rule")?;
    assert!(rule.starts_with('#'), "{rule}");
    Ok(())
}
