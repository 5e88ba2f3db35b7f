//! The kernel's half of the gateway by itself: Child SAs with given keys between two kernels'
//! worth of XFRM, BPF programs and routes.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "this is test code"
)]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use core::time::Duration;

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{Mode, PolicySet};
use gateway_ike::io::{ChildId, ChildSpec, Done, Encapsulation, KernelCommand};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, outer, selector};
use node::{Node, SIZES, machines, ping, policies};

/// A fragment cannot be the payload of a transport mode SA (RFC 4301 4.1), and what the program
/// on the underlay redirects has been fragmented by then.
const UNFRAGMENTED: &[&str] = &["56", "1000", "1400"];

/// Sets both ends up with the Child SA and pings through it.
fn try_tunnel(spec: &ChildSpec, target: [&str; 2]) -> Result {
    let [a, b] = machines()?;
    let other = mirrored(spec);
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.install(spec).context("a")?;
    two.install(&other).context("b")?;
    let sizes = if spec.mode == Mode::Tunnel { SIZES } else { UNFRAGMENTED };
    ping(&a, target[1], sizes).context(format_args!("{spec:?}"))?;
    ping(&b, target[0], sizes).context(format_args!("{spec:?}"))?;
    for (node, spec) in [(&mut one, spec), (&mut two, &other)] {
        let (packets_in, packets_out, idle) = node.used(spec);
        assert!(packets_in >= 18 && packets_out >= 18, "{packets_in} in, {packets_out} out");
        assert!(idle.unwrap() < Duration::from_secs(10));
    }
    one.remove(spec)?;
    two.remove(&other)?;
    assert_eq!(a.run("ip", &["xfrm", "state"])?, "");
    assert_eq!(a.run("ip", &["xfrm", "policy"])?, "");
    assert_eq!(a.run("ip", &["route", "show", "proto", "171"])?, "");
    assert!(one.kernel.data_path().sas().context("BPF map")?.is_empty());
    // The guard still stands.
    a.run("ping", &["-c", "1", "-W", "1", target[1]]).unwrap_err();
    one.end()?;
    two.end()
}

#[test]
fn packets_of_every_size_pass_in_tunnel_mode() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let chacha = EspSuite { encryption: Encryption::ChaCha20Poly1305, integrity: None, esn: true };
    let cbc = EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha512),
        esn: true,
    };
    for (suite, v6) in [(GCM, false), (GCM, true), (chacha, false), (cbc, true)] {
        try_tunnel(&child(suite, Mode::Tunnel, v6), ["10.1.0.1", "10.2.0.1"])?;
    }
    Ok(())
}

#[test]
fn packets_of_every_size_pass_in_udp() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut spec = child(GCM, Mode::Tunnel, v6);
        spec.encapsulation =
            Some(Encapsulation { local_port: 4500, remote_port: 4500, keepalive: None });
        try_tunnel(&spec, ["10.1.0.1", "10.2.0.1"])?;
    }
    Ok(())
}

#[test]
fn ipv6_passes_within_ipv4() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.selectors = vec![(selector("fd00:1::/64", "fd00:2::/64"), 100)];
    try_tunnel(&spec, ["fd00:1::1", "fd00:2::1"])
}

#[test]
fn packets_pass_in_transport_mode() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    for v6 in [false, true] {
        try_tunnel(&child(GCM, Mode::Transport, v6), outer(v6))?;
    }
    Ok(())
}

#[test]
fn the_newest_child_carries_the_traffic_and_the_old_one_goes_without_a_loss() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let old = child(GCM, Mode::Tunnel, false);
    let mut new = old.clone();
    new.child = ChildId(2);
    new.inbound.spi = 0x3003;
    new.outbound.spi = 0x4004;
    let mut one = Node::open(&a, &policies(&old.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&mirrored(&old).selectors[0].0))?;
    for spec in [&old, &new] {
        one.install(spec).context("a")?;
        two.install(&mirrored(spec)).context("b")?;
    }
    let pinging = || a.run("ping", &["-q", "-c", "60", "-i", "0.05", "-W", "2", "10.2.0.1"]);
    std::thread::scope(|scope| {
        let pinging = scope.spawn(pinging);
        std::thread::sleep(Duration::from_millis(600));
        one.remove(&old)?;
        two.remove(&mirrored(&old))?;
        let text = pinging.join().unwrap()?;
        assert!(text.contains(" 0% packet loss"), "{text}");
        Ok::<_, gateway_tests::Error>(())
    })?;
    assert!(one.used(&new).0 >= 60);
    one.end()?;
    two.end()
}

#[test]
fn our_address_towards_a_peer_is_found() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let mut node = Node::open(&a, &PolicySet::default())?;
    for v6 in [false, true] {
        let [ours, peer] = outer(v6).map(|address| address.parse().unwrap());
        let found = node.execute(KernelCommand::FindLocalAddress { remote: peer });
        assert_eq!(found, Ok(Done::LocalAddress(ours)));
    }
    let nowhere = "203.0.113.9".parse().unwrap();
    let error = node.execute(KernelCommand::FindLocalAddress { remote: nowhere }).unwrap_err();
    assert!(error.to_string().starts_with("no route to 203.0.113.9"), "{error}");
    node.end()
}
