//! The kernel's half of the gateway by itself: Child SAs with given keys between two kernels'
//! worth of XFRM, BPF programs and routes.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::unwrap_in_result, clippy::unwrap_used, reason = "this is test code")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use core::time::Duration;

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{Mode, PolicySet};
use gateway_ike::io::{ChildId, ChildSpec, Done, Encapsulation, Ends, KernelCommand};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, outer, selector};
use node::{Node, SIZES, everything, machines, ping};

/// A fragment cannot be the payload of a transport mode SA (RFC 4301 4.1), and what the program
/// on the underlay redirects has been fragmented by then.
const UNFRAGMENTED: &[&str] = &["56", "1000", "1400"];

/// Sets both ends up with the Child SA and pings through it.
fn try_tunnel(spec: &ChildSpec, target: [&str; 2]) -> Result {
    let [a, b] = machines()?;
    let other = mirrored(spec);
    let [mut one, mut two] = Node::ends([&a, &b], spec)?;
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
    let [mut one, mut two] = Node::ends([&a, &b], &old)?;
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

/// Two inbound SAs with one key would take the same packet twice: there is one at any time.
#[test]
fn a_child_that_leaves_an_address_is_received_at_both_by_one_sa_until_that_is_gone() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    let empty = everything(&a, &mut one)?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    let (old, new) = (spec.ends().local, "192.0.2.7".parse().unwrap());
    a.sysctl("net/ipv4/conf/under/promote_secondaries", "1")?;
    a.ip(&format!("address add {new}/24 dev under"))?;
    let to = |ends, gently| KernelCommand::MoveChild { child: spec.child, ends, gently };
    let inbound = |a: &Namespace| -> Result<Vec<String>> {
        let states = a.run("ip", &["-o", "xfrm", "state"])?;
        let ours = states.lines().filter(|state| state.contains("spi 0x00001001"));
        Ok(ours.map(|state| state.split('\\').next().unwrap().to_owned()).collect())
    };

    let ends = Ends { local: new, ..spec.ends() };
    one.execute(to(ends, true)).context("a moves")?;
    // The peer has not followed; and then it has.
    ping(&a, "10.2.0.1", SIZES)?;
    let followed = Ends { remote: new, ..other.ends() };
    two.execute(to(followed, false)).context("b follows")?;
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    assert_eq!(inbound(&a)?, [format!("src 192.0.2.2 dst {old}")]);
    assert!(one.kernel.counters()["esp_readdressed"] > 0, "the old one received at the new");
    assert_eq!(one.runtime.block_on(one.kernel.leave_lost_addresses()), [], "none is");
    // A successor that is made there is received at the old one, too: the peer may send to either.
    let mut next = spec.clone();
    next.child = ChildId(2);
    next.set_ends(ends);
    next.reached_at = Some(old);
    (next.inbound.spi, next.outbound.spi) = (0x1003, 0x2004);
    let mut others = mirrored(&next);
    others.reached_at = None;
    others.set_ends(other.ends());
    one.install(&next).context("a's successor")?;
    two.install(&others).context("b's successor")?;
    ping(&b, "10.1.0.1", SIZES)?;
    assert!(one.used(&next).0 >= 9, "at its old address");
    one.remove(&next)?;
    two.remove(&others)?;
    ping(&b, "10.1.0.1", SIZES)?;

    // Now the old address goes: the SAs follow, and each is in one place still.
    a.ip(&format!("address del {old}/24 dev under"))?;
    let moved = one.runtime.block_on(one.kernel.leave_lost_addresses());
    assert_eq!(moved, [(spec.child, new)]);
    assert_eq!(inbound(&a)?, [format!("src 192.0.2.2 dst {new}")]);
    assert_eq!(one.kernel.data_path().sas().context("BPF map")?.len(), 2);
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    one.remove(&spec)?;
    a.ip(&format!("address add {old}/24 dev under\naddress del {new}/24 dev under"))?;
    assert_eq!(everything(&a, &mut one)?, empty);
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
