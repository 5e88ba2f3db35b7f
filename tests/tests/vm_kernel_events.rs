//! What the kernel tells: that traffic wants a Child SA, and that one has reached a limit or is gone.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use core::time::Duration;

use gateway::kernel::Notice;
use gateway::kernel::xfrm::Xfrm;
use gateway_ike::config::{ChildLifetime, Mode};
use gateway_ike::io::{KernelCommand, KernelError, KernelEvent};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, selector};
use node::{IF_ID, Node, SIZES, everything, machines, ping, policies, trap};

#[test]
fn traffic_raises_an_acquire_and_passes_once_it_is_answered() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    one.execute(trap(&spec)).context("trap")?;
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    let Notice::Event(KernelEvent::Acquire { reqid, seq, destination, protocol, .. }) =
        one.notice()
    else {
        panic!("no acquire");
    };
    assert_eq!((reqid, protocol), (spec.inbound.reqid, 1));
    assert_eq!(destination.to_string(), "10.2.0.1");
    two.install(&other).context("b")?;
    one.install(&spec).context("a")?;
    one.execute(KernelCommand::ForgetAcquire { reqid, seq }).context("forget")?;
    let states = a.run("ip", &["-o", "xfrm", "state"])?;
    assert_eq!(states.lines().count(), 2, "the larval state stayed:\n{states}");
    ping(&a, "10.2.0.1", SIZES)?;
    // The trap is back as soon as the Child SA is gone.
    one.remove(&spec)?;
    assert_eq!(a.run("ip", &["-o", "xfrm", "policy"])?.lines().count(), 1);
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    assert!(matches!(one.notice(), Notice::Event(KernelEvent::Acquire { .. })));
    one.execute(KernelCommand::RemoveTrap { reqid }).context("trap")?;
    assert_eq!(a.run("ip", &["xfrm", "policy"])?, "");
    one.end()?;
    two.end()
}

/// A peer may narrow to less than the trap has: the rest asks for another SA, and goes by none.
#[test]
fn what_a_narrowed_sa_leaves_of_a_trap_raises_an_acquire_of_its_own() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    one.execute(trap(&spec)).context("trap")?;
    spec.selectors = vec![(selector("10.1.0.0/16", "10.2.0.1/32"), 100)];
    two.install(&mirrored(&spec)).context("b")?;
    one.install(&spec).context("a")?;
    ping(&a, "10.2.0.1", SIZES)?;
    let (_, before, _) = one.used(&spec);
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.7"]).unwrap_err();
    let Notice::Event(KernelEvent::Acquire { reqid, destination, .. }) = one.notice() else {
        panic!("no acquire");
    };
    assert_eq!((reqid, destination.to_string().as_str()), (spec.inbound.reqid, "10.2.0.7"));
    assert_eq!(one.used(&spec).1, before, "nothing of the rest went by it");
    ping(&a, "10.2.0.1", SIZES)?;
    one.end()?;
    two.end()
}

#[test]
fn a_trap_that_is_installed_again_changes_in_place() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    node.execute(trap(&spec)).context("trap")?;
    let before = everything(&a, &mut node)?;
    node.execute(trap(&spec)).context("trap")?;
    assert_eq!(everything(&a, &mut node)?, before);
    spec.selectors = vec![(selector("10.1.0.0/16", "10.3.0.0/16"), 100)];
    node.execute(trap(&spec)).context("trap")?;
    let policies = a.run("ip", &["-o", "xfrm", "policy"])?;
    assert!(policies.contains("10.3.0.0/16") && !policies.contains("10.2.0.0/16"), "{policies}");
    let routes = a.run("ip", &["route", "show", "proto", "171"])?;
    assert!(routes.contains("10.3.0.0/16") && !routes.contains("10.2.0.0/16"), "{routes}");
    assert!(routes.contains("mtu lock") && routes.contains("src 10.1.0.1"), "{routes}");
    node.end()
}

#[test]
fn limits_are_reported_and_sas_that_are_gone_are_missed() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.lifetime = ChildLifetime { time: Duration::ZERO, bytes: 0, packets: 10 };
    let other = mirrored(&child(GCM, Mode::Tunnel, false));
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    assert_eq!(one.runtime.block_on(one.kernel.resync()), []);
    assert_eq!(one.used(&spec), (0, 0, None));
    // The hard limit lies a tenth above the soft one.
    let text = a.run("ping", &["-q", "-c", "14", "-i", "0.2", "-W", "1", "10.2.0.1"])?;
    assert!(text.contains(" 11 received"), "{text}");
    let mut soft = false;
    loop {
        let notice = one.notice();
        let Notice::Event(KernelEvent::Expire { spi, hard, .. }) = notice else {
            panic!("{notice:?}");
        };
        assert!(spi == spec.inbound.spi || spi == spec.outbound.spi);
        if hard {
            break;
        }
        soft = true;
    }
    assert!(soft);
    // One direction is gone. The packets after that asked for an SA, and the other direction may
    // be beyond its soft limit: a resync tells both again.
    let events = one.runtime.block_on(one.kernel.resync());
    assert!(events.contains(&KernelEvent::Vanished { child: spec.child }), "{events:?}");
    let told = |event: &KernelEvent| {
        matches!(
            event,
            KernelEvent::Vanished { .. }
                | KernelEvent::Acquire { .. }
                | KernelEvent::Expire { hard: false, .. }
        )
    };
    assert!(events.iter().all(told), "{events:?}");
    let gone = one.execute(KernelCommand::QueryUse { child: spec.child }).unwrap_err();
    assert_eq!(gone, KernelError::NoSuchSa);
    one.remove(&spec)?;
    let mut ours = a.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    assert_eq!(ours.sas().context("dump")?, []);
    one.end()?;
    two.end()
}
