//! Policies and acquires on the kernel that runs the tests; it needs XFRM, but no ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "this is test code"
)]

#[path = "support/kernel.rs"]
mod kernel;

use core::net::IpAddr;
use core::time::Duration;
use std::net::UdpSocket;

use gateway::kernel::xfrm::{PolicyDirection, PolicyKey, PolicyValue, Xfrm, policy_keys};
use gateway::kernel::{Monitor, Notice};
use gateway_ike::config::Mode;
use gateway_ike::io::{KernelEvent, REQIDS};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;

use kernel::selector;

const IF_ID: u32 = 7;
const OTHER_IF_ID: u32 = 8;

fn value(priority: u32) -> PolicyValue {
    PolicyValue {
        priority,
        reqid: *REQIDS.start(),
        source: Some("192.0.2.1".parse().unwrap()),
        destination: "192.0.2.2".parse().unwrap(),
    }
}

fn key(direction: PolicyDirection) -> PolicyKey {
    policy_keys(&selector("10.1.0.0/16", "10.2.0.0/16"), Mode::Tunnel, direction).unwrap()[0]
}

fn shown(namespace: &Namespace) -> Result<String> {
    namespace.run("ip", &["xfrm", "policy"])
}

#[test]
fn a_policy_is_installed_replaced_and_removed() -> Result {
    let namespace = Namespace::new("policy")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    for direction in [PolicyDirection::Out, PolicyDirection::In, PolicyDirection::Forward] {
        xfrm.add_policy(&key(direction), &value(200)).context("add")?;
    }
    let text = shown(&namespace)?;
    for expected in [
        "src 10.1.0.0/16 dst 10.2.0.0/16",
        "dir out priority 200",
        "dir in priority 200",
        "dir fwd priority 200",
        "tmpl src 192.0.2.1 dst 192.0.2.2",
        "proto esp reqid 1728053248 mode tunnel",
        "if_id 0x7",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    let key = key(PolicyDirection::Out);
    xfrm.replace_policy(&key, &value(150)).context("replace")?;
    let text = shown(&namespace)?;
    assert!(text.contains("dir out priority 150"), "{text}");
    let mut found = xfrm.policies().context("dump")?;
    found.sort_unstable();
    let directions: Vec<_> =
        found.iter().map(|(key, priority)| (key.direction, *priority)).collect();
    let [i, o, f] = [PolicyDirection::In, PolicyDirection::Out, PolicyDirection::Forward];
    assert_eq!(directions, [(i, 200), (o, 150), (f, 200)]);
    for (key, _) in found {
        xfrm.delete_policy(&key).context("delete")?;
        assert!(xfrm.delete_policy(&key).unwrap_err().is_absent());
    }
    assert_eq!(shown(&namespace)?, "");
    Ok(())
}

#[test]
fn a_policy_that_is_there_is_not_added_again() -> Result {
    let namespace = Namespace::new("policy")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    let key = key(PolicyDirection::Out);
    xfrm.add_policy(&key, &value(200)).context("add")?;
    let error = xfrm.add_policy(&key, &value(150)).unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::EEXIST), "{error}");
    assert_eq!(xfrm.policies().context("dump")?, [(key, 200)]);
    Ok(())
}

#[test]
fn policies_of_another_if_id_are_neither_seen_nor_touched() -> Result {
    let namespace = Namespace::new("policy")?;
    let (mut ours, mut others) = namespace
        .enter(|| Ok::<_, std::io::Error>((Xfrm::open(IF_ID)?, Xfrm::open(OTHER_IF_ID)?)))?
        .context("open")?;
    let key = key(PolicyDirection::Out);
    others.add_policy(&key, &value(1)).context("add")?;
    assert_eq!(ours.policies().context("dump")?, []);
    assert!(ours.delete_policy(&key).unwrap_err().is_absent());
    ours.add_policy(&key, &value(2)).context("add beside it")?;
    ours.delete_policy(&key).context("delete")?;
    assert_eq!(others.policies().context("dump")?, [(key, 1)]);
    Ok(())
}

/// Policies of transport mode have no `if_id`: whose they are, their reqid says.
#[test]
fn in_transport_mode_what_has_a_reqid_of_others_is_neither_seen_nor_touched() -> Result {
    let namespace = Namespace::new("policy")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    let selector = selector("192.0.2.1/32", "192.0.2.2/32");
    let key = policy_keys(&selector, Mode::Transport, PolicyDirection::Out).unwrap()[0];
    xfrm.add_policy(&key, &value(200)).context("add")?;
    namespace.ip("xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir in \
         tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 1 mode transport")?;
    assert_eq!(xfrm.policies().context("dump")?, [(key, 200)]);
    xfrm.delete_policy(&key).context("delete")?;
    assert_eq!(xfrm.policies().context("dump")?, []);
    assert!(shown(&namespace)?.contains("reqid 1 mode transport"));
    Ok(())
}

#[test]
fn a_range_of_ports_becomes_policies_that_the_kernel_gives_back() -> Result {
    let namespace = Namespace::new("policy")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    let mut wanted = selector("fd00:1::/64", "fd00:2::/64");
    wanted.protocol = Some(6);
    wanted.remote_ports = 1000..=1024;
    let keys = policy_keys(&wanted, Mode::Tunnel, PolicyDirection::Out).unwrap();
    for key in &keys {
        xfrm.add_policy(key, &value(9)).context(key)?;
    }
    let mut found: Vec<_> = xfrm.policies().context("dump")?.into_iter().map(|(k, _)| k).collect();
    found.sort_unstable();
    assert_eq!(found, keys);
    assert_eq!(keys.len(), 3);
    Ok(())
}

/// A namespace whose traffic to 10.2.0.0/16 goes to a neighbour that never answers, and a trap
/// for it. Its `if_id` is none: only packets through an XFRM interface have one.
fn trapped(mode: Mode) -> Result<(Namespace, Namespace)> {
    let (namespace, other) = (Namespace::new("trap")?, Namespace::new("peer")?);
    namespace.link("under", &other, "under")?;
    namespace.ip("address add 192.0.2.1/24 dev under\n\
         address add 10.1.0.1/32 dev lo\n\
         neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev under\n\
         route add 10.2.0.0/16 via 192.0.2.2 src 10.1.0.1")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(0))?.context("open")?;
    let keys = policy_keys(&selector("10.1.0.0/16", "10.2.0.0/16"), mode, PolicyDirection::Out);
    xfrm.add_policy(&keys.unwrap()[0], &value(200)).context("trap")?;
    Ok((namespace, other))
}

/// Sends one datagram from port 4000 to port 80 of each address; the trap drops them.
fn send(addresses: impl Iterator<Item = IpAddr>) {
    let socket = UdpSocket::bind("10.1.0.1:4000").unwrap();
    for address in addresses {
        // The kernel says EAGAIN, or nothing.
        let _dropped = socket.send_to(b"x", (address, 80));
    }
}

/// Runs a future in the namespace for at most ten seconds.
fn run<T: Send>(namespace: &Namespace, future: impl AsyncFnOnce() -> T + Send) -> Result<T> {
    namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), future()).await.unwrap()
        })
    })
}

/// The next notice about XFRM; links may become ready meanwhile.
async fn next(monitor: &mut Monitor) -> Notice {
    loop {
        let notice = monitor.next().await;
        if !matches!(notice, Notice::Links(_)) {
            return notice;
        }
    }
}

#[test]
fn traffic_that_meets_a_trap_raises_an_acquire_with_the_packet_in_it() -> Result {
    let (namespace, _peer) = trapped(Mode::Tunnel)?;
    let notice = run(&namespace, async || {
        let mut monitor = Monitor::open(0).unwrap();
        send(core::iter::once("10.2.0.9".parse().unwrap()));
        next(&mut monitor).await
    })?;
    let Notice::Event(KernelEvent::Acquire {
        reqid,
        seq,
        source,
        destination,
        protocol,
        source_port,
        destination_port,
    }) = notice
    else {
        panic!("{notice:?}");
    };
    assert_eq!(reqid, *REQIDS.start());
    assert_ne!(seq, 0);
    assert_eq!((source, destination), ("10.1.0.1".parse().unwrap(), "10.2.0.9".parse().unwrap()));
    assert_eq!((protocol, source_port, destination_port), (17, 4000, 80));
    Ok(())
}

#[test]
fn an_acquire_of_another_if_id_is_not_told() -> Result {
    let (namespace, _peer) = trapped(Mode::Tunnel)?;
    let silent = run(&namespace, async || {
        let mut monitor = Monitor::open(IF_ID).unwrap();
        send(core::iter::once("10.2.0.9".parse().unwrap()));
        tokio::time::timeout(Duration::from_millis(300), next(&mut monitor)).await.is_err()
    })?;
    assert!(silent);
    Ok(())
}

#[test]
fn events_that_had_to_be_dropped_are_reported_as_an_overrun_and_then_it_goes_on() -> Result {
    let (namespace, _peer) = trapped(Mode::Transport)?;
    let seen = run(&namespace, async || {
        let mut monitor = Monitor::open(0).unwrap();
        // In transport mode each destination has a larval state, and an acquire, of its own.
        send((0..20_000_u32).map(|n| IpAddr::from((0x0a02_0000 + n + 1).to_be_bytes())));
        let mut acquires = 0_u32;
        let mut overruns = 0_u32;
        while let Ok(notice) =
            tokio::time::timeout(Duration::from_millis(300), next(&mut monitor)).await
        {
            match notice {
                Notice::Event(_) => acquires += 1,
                Notice::Overrun => overruns += 1,
                Notice::Failed(error) => panic!("{error}"),
                other @ (Notice::Links(_) | Notice::OtherSas | Notice::UnknownEsp(_)) => {
                    panic!("{other:?}")
                }
            }
        }
        send(core::iter::once("10.2.255.1".parse().unwrap()));
        (acquires, overruns, matches!(next(&mut monitor).await, Notice::Event(_)))
    })?;
    assert!(seen.0 > 100 && seen.0 < 20_000, "{seen:?}");
    assert!(seen.1 >= 1 && seen.2, "{seen:?}");
    Ok(())
}

#[test]
fn an_acquire_that_was_lost_is_found_in_the_kernel() -> Result {
    let (namespace, _peer) = trapped(Mode::Tunnel)?;
    let told = run(&namespace, async || {
        let mut monitor = Monitor::open(0).unwrap();
        send(core::iter::once("10.2.0.9".parse().unwrap()));
        let told = next(&mut monitor).await;
        // The kernel says it once: more packets raise no more.
        send(core::iter::once("10.2.0.9".parse().unwrap()));
        let again = tokio::time::timeout(Duration::from_millis(300), next(&mut monitor)).await;
        assert!(again.is_err(), "{told:?} {again:?}");
        told
    })?;
    let Notice::Event(told) = told else { panic!("{told:?}") };
    let mut xfrm = namespace.enter(|| Xfrm::open(0))?.context("open")?;
    let survey = xfrm.survey().context("survey")?;
    assert_eq!(survey.events, [told]);
    assert!(survey.sas.is_empty());
    Ok(())
}
