//! Which SA a packet leaves by, where a rule has several: one that protects it, or none.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::arithmetic_side_effects, clippy::panic, reason = "this is test code")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use core::time::Duration;
use std::thread;

use gateway::kernel::Notice;
use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, ChildSpec, KernelCommand, KernelEvent, REQIDS};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, selector};
use node::{Node, everything, machines, ping, policies, trap};

/// Small packets.
const SMALL: &[&str] = &["56"];

/// A Child SA of the rule for some hosts of the peer.
fn narrowed(id: u32, hosts: &[u8]) -> ChildSpec {
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.child = ChildId(id.into());
    (spec.inbound.spi, spec.outbound.spi) = (0x1000 + id, 0x2000 + id);
    spec.outbound.reqid = *REQIDS.start() + id;
    let pair = |host| (selector("10.1.0.0/16", &format!("10.2.0.{host}/32")), 100);
    spec.selectors = hosts.iter().map(pair).collect();
    spec
}

/// Two machines with the trap of the whole rule at the first one, and hosts behind the second.
fn trapped() -> Result<([Namespace; 2], [Node; 2])> {
    let [a, b] = machines()?;
    let rule = child(GCM, Mode::Tunnel, false);
    let [mut one, two] = Node::ends([&a, &b], &rule)?;
    one.execute(trap(&rule)).context("trap")?;
    for host in [3, 5, 7, 8] {
        b.ip(&format!("address add 10.2.0.{host}/32 dev lo"))?;
    }
    Ok(([a, b], [one, two]))
}

/// Installs a Child SA at both ends.
fn install([one, two]: &mut [Node; 2], spec: &ChildSpec) -> Result {
    two.install(&mirrored(spec)).context("b")?;
    one.install(spec).context("a")?;
    Ok(())
}

/// How many packets each has sent.
fn sent<const N: usize>(node: &mut Node, specs: [&ChildSpec; N]) -> [u64; N] {
    specs.map(|spec| node.used(spec).1)
}

/// A packet that no SA may carry: it raises an acquire, of which the number is given.
fn asks(from: &Namespace, node: &mut Node, host: &str) -> u32 {
    assert!(from.run("ping", &["-c", "1", "-W", "1", host]).is_err(), "{host} answers");
    let Notice::Event(KernelEvent::Acquire { reqid, seq, destination, .. }) = node.notice() else {
        panic!("no acquire for {host}");
    };
    assert_eq!((reqid, destination.to_string().as_str()), (*REQIDS.start(), host));
    seq
}

fn forget(node: &mut Node, seq: u32) -> Result {
    let command = KernelCommand::ForgetAcquire { reqid: *REQIDS.start(), seq };
    node.execute(command).context("forget").map(drop)
}

/// A peer may narrow to several pairs, which no selector of an SA can say.
#[test]
fn what_a_child_of_two_pairs_leaves_of_the_trap_asks_for_another_and_goes_by_none() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let ([a, _b], mut nodes) = trapped()?;
    let spec = narrowed(1, &[1, 3]);
    install(&mut nodes, &spec)?;
    ping(&a, "10.2.0.1", SMALL)?;
    ping(&a, "10.2.0.3", SMALL)?;
    let [one, _] = &mut nodes;
    assert_eq!(sent(one, [&spec]), [6]);
    let seq = asks(&a, one, "10.2.0.7");
    // The kernel is patient until it is told otherwise: whatever else meets the trap is dropped.
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.8"]).unwrap_err();
    let larval = |a: &Namespace| -> Result<usize> {
        let states = a.run("ip", &["-o", "xfrm", "state"])?;
        Ok(states.lines().filter(|state| state.contains("spi 0x00000000")).count())
    };
    assert_eq!(larval(&a)?, 1);
    forget(one, seq)?;
    assert_eq!(larval(&a)?, 0);
    let seq = asks(&a, one, "10.2.0.8");
    forget(one, seq)?;
    // Once more does no harm, and leaves nothing.
    forget(one, seq)?;
    assert_eq!(a.run("ip", &["-o", "xfrm", "state"])?.lines().count(), 2);
    assert_eq!(sent(one, [&spec]), [6], "nothing of the rest went by it");
    ping(&a, "10.2.0.1", SMALL)?;
    nodes.into_iter().try_for_each(Node::end)
}

#[test]
fn of_two_that_overlap_the_newer_one_carries_nothing_that_only_the_older_has() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let ([a, _b], mut nodes) = trapped()?;
    let (older, newer) = (narrowed(1, &[1, 3]), narrowed(2, &[3, 5]));
    install(&mut nodes, &older)?;
    // The kernel knows the age of an SA in seconds.
    thread::sleep(Duration::from_millis(1100));
    install(&mut nodes, &newer)?;
    ping(&a, "10.2.0.1", SMALL)?;
    let [one, two] = &mut nodes;
    assert_eq!(sent(one, [&older, &newer]), [3, 0]);
    assert_eq!(sent(two, [&mirrored(&older), &mirrored(&newer)]), [3, 0]);
    ping(&a, "10.2.0.5", SMALL)?;
    assert_eq!(sent(one, [&older, &newer]), [3, 3]);
    // Either may have what both protect.
    ping(&a, "10.2.0.3", SMALL)?;
    assert_eq!(sent(one, [&older, &newer]).iter().sum::<u64>(), 9);
    one.remove(&newer)?;
    two.remove(&mirrored(&newer))?;
    ping(&a, "10.2.0.3", SMALL)?;
    asks(&a, one, "10.2.0.5");
    nodes.into_iter().try_for_each(Node::end)
}

/// The peer may have two rules where we have one, and wants each packet by the SA of its own.
#[test]
fn of_two_of_one_rule_that_which_protects_less_goes_first() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let ([a, _b], mut nodes) = trapped()?;
    let mut wide = narrowed(1, &[]);
    wide.selectors = vec![(selector("10.1.0.0/16", "10.2.0.0/16"), 100)];
    let host = narrowed(2, &[7]);
    install(&mut nodes, &wide)?;
    // Of policies alike the kernel takes the older one.
    install(&mut nodes, &host)?;
    ping(&a, "10.2.0.7", SMALL)?;
    let [one, two] = &mut nodes;
    assert_eq!(sent(one, [&wide, &host]), [0, 3]);
    assert_eq!(sent(two, [&mirrored(&wide), &mirrored(&host)]), [0, 3]);
    ping(&a, "10.2.0.5", SMALL)?;
    assert_eq!(sent(one, [&wide, &host]), [3, 3]);
    nodes.into_iter().try_for_each(Node::end)
}

/// Replaces a Child SA as the two ends of a rekeying do it.
fn replace([one, two]: &mut [Node; 2], old: &ChildSpec, new: &ChildSpec) -> Result {
    let theirs = mirrored(new);
    two.execute(KernelCommand::InstallInbound(Box::new(theirs.clone()))).context("b in")?;
    one.install(new).context("a")?;
    one.execute(KernelCommand::RemoveOutbound { child: old.child }).context("a retires")?;
    two.execute(KernelCommand::InstallOutbound(Box::new(theirs))).context("b out")?;
    two.execute(KernelCommand::RemoveOutbound { child: old.child }).context("b retires")?;
    // What was under way has come.
    thread::sleep(Duration::from_millis(300));
    one.remove(old)?;
    two.remove(&mirrored(old))
}

#[test]
fn one_of_two_is_replaced_again_and_again_under_a_flow_without_a_loss() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let ([a, _b], mut nodes) = trapped()?;
    let (first, beside) = (narrowed(1, &[1, 3]), narrowed(2, &[3, 5]));
    for spec in [&first, &beside] {
        install(&mut nodes, spec)?;
    }
    // The same again by the same request ID; then more than before, and less, by another one.
    let mut same = narrowed(3, &[1, 3]);
    same.outbound.reqid = first.outbound.reqid;
    let successors = [same, narrowed(4, &[1, 3, 7]), narrowed(5, &[1])];
    let pinging = |host| {
        let a = &a;
        move || a.run("ping", &["-q", "-c", "150", "-i", "0.02", "-W", "2", host])
    };
    thread::scope(|scope| {
        let flows = ["10.2.0.1", "10.2.0.3", "10.2.0.5"].map(|to| scope.spawn(pinging(to)));
        let mut present = &first;
        for next in &successors {
            thread::sleep(Duration::from_millis(400));
            replace(&mut nodes, present, next)?;
            present = next;
        }
        for flow in flows {
            let Ok(text) = flow.join() else { panic!("the flow failed") };
            let text = text?;
            assert!(text.contains(" 0% packet loss"), "{text}");
        }
        Ok::<_, gateway_tests::Error>(())
    })?;
    let [_, _, last] = &successors;
    let [one, _] = &mut nodes;
    let [by_last, by_beside] = sent(one, [last, &beside]);
    assert!(by_last > 0 && by_beside >= 150, "{by_last} {by_beside}");
    ping(&a, "10.2.0.1", SMALL)?;
    assert_eq!(sent(one, [last, &beside]), [by_last + 3, by_beside]);
    asks(&a, one, "10.2.0.7");
    nodes.into_iter().try_for_each(Node::end)
}

#[test]
fn after_a_kill_nothing_is_left_that_sends_or_waits_and_traps_tell_at_once() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let ([a, b], [mut one, two]) = trapped()?;
    let rule = child(GCM, Mode::Tunnel, false);
    one.execute(KernelCommand::RemoveTrap { reqid: rule.inbound.reqid }).context("trap")?;
    let empty = everything(&a, &mut one)?;
    one.execute(trap(&rule)).context("trap")?;
    let mut nodes = [one, two];
    let (first, beside) = (narrowed(1, &[1, 3]), narrowed(2, &[3, 5]));
    let mut transport = child(GCM, Mode::Transport, false);
    transport.child = ChildId(3);
    (transport.inbound.spi, transport.outbound.spi) = (0x1003, 0x2003);
    transport.outbound.reqid = *REQIDS.end();
    for spec in [&first, &beside, &transport] {
        install(&mut nodes, spec)?;
    }
    ping(&a, "10.2.0.5", SMALL)?;
    let [mut one, two] = nodes;
    asks(&a, &mut one, "10.2.0.7");
    one.kill();
    let mut one = Node::open(&a, &policies(&rule.selectors[0].0))?;
    assert_eq!(everything(&a, &mut one)?, empty);
    two.end()?;
    let two = Node::open(&b, &policies(&mirrored(&rule).selectors[0].0))?;
    let mut nodes = [one, two];
    nodes[0].execute(trap(&rule)).context("trap")?;
    for spec in [&first, &beside] {
        install(&mut nodes, spec)?;
    }
    ping(&a, "10.2.0.1", SMALL)?;
    let [one, _] = &mut nodes;
    assert_eq!(sent(one, [&first, &beside]), [3, 0]);
    asks(&a, one, "10.2.0.7");
    nodes.into_iter().try_for_each(Node::end)
}
