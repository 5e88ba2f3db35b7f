//! What has gone through each Child SA, as the kernel counts it.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::arithmetic_side_effects, reason = "this is test code")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use core::time::Duration;

use gateway::kernel::xfrm::{SaDirection, Xfrm};
use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, ChildSpec, ChildUse, Done, KernelCommand, REQIDS};
use gateway_tests::error::{Context as _, Error, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, selector};
use node::{Node, OTHER_IF_ID, machines, ping, policies};

/// The Child SA for one host of the peer.
fn to_host(host: u32) -> ChildSpec {
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.child = ChildId(host.into());
    (spec.inbound.spi, spec.outbound.spi) = (0x1000 + host, 0x2000 + host);
    spec.outbound.reqid = *REQIDS.start() + host;
    spec.selectors = vec![(selector("10.1.0.0/16", &format!("10.2.0.{host}/32")), 100)];
    spec
}

/// Octets and packets of one SA, as `ip` shows them.
fn shown(namespace: &Namespace, spi: u32) -> Result<(u64, u64)> {
    let all = namespace.run("ip", &["-s", "-o", "xfrm", "state", "list", "proto", "esp"])?;
    let spi = format!("spi 0x{spi:08x}");
    let state = all.lines().find(|state| state.contains(&spi)).context("no such SA")?;
    let current = state.split("lifetime current:").nth(1).context("no counters")?;
    let number = |unit: &str| -> Result<u64> {
        let before = current.split(unit).next().context(unit)?;
        let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().context(unit)?;
        digits.parse().context(unit)
    };
    Ok((number("(bytes)")?, number("(packets)")?))
}

/// SAs that are not ours: of another interface, and of another protocol under an SPI of ours.
fn add_others(namespace: &Namespace) -> Result {
    let mut others = namespace.enter(|| Xfrm::open(OTHER_IF_ID))?.context("open")?;
    for number in 0..200 {
        let mut spec = child(GCM, Mode::Tunnel, false);
        spec.outbound.spi = 0x5000 + number;
        others.add_sa(&spec, SaDirection::Outbound).context("another's SA")?;
    }
    let key = format!("0x{}", "11".repeat(32));
    namespace.ip(&format!(
        "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x2003 mode tunnel \
         if_id {} auth hmac(sha256) {key}",
        node::IF_ID
    ))
}

#[test]
fn octets_and_packets_of_each_child_sa_are_told_at_once_and_exactly() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let rule = child(GCM, Mode::Tunnel, false).selectors.remove(0).0;
    let mut one = Node::open(&a, &policies(&rule))?;
    let turned = mirrored(&child(GCM, Mode::Tunnel, false)).selectors.remove(0).0;
    let mut two = Node::open(&b, &policies(&turned))?;
    assert!(one.kernel.uses().context("of none")?.is_empty());
    let specs = [3, 5, 7].map(to_host);
    for spec in &specs {
        b.ip(&format!("address add {} dev lo", spec.selectors[0].0.remote))?;
        two.install(&mirrored(spec)).context("b")?;
        one.install(spec).context("a")?;
    }
    add_others(&a)?;
    ping(&a, "10.2.0.3", &["56"])?;
    ping(&a, "10.2.0.5", &["56", "1000"])?;

    let uses = one.kernel.uses().context("of all")?;
    assert_eq!(uses.len(), specs.len());
    for (spec, packets) in specs.iter().zip([3, 6, 0]) {
        let used = uses[&spec.child];
        let (bytes_in, packets_in) = shown(&a, spec.inbound.spi)?;
        let (bytes_out, packets_out) = shown(&a, spec.outbound.spi)?;
        assert_eq!((packets_in, packets_out), (packets, packets));
        let idle_inbound = used.idle_inbound;
        let expected = ChildUse { idle_inbound, bytes_in, bytes_out, packets_in, packets_out };
        assert_eq!(used, expected, "{spec:?}");
        assert_eq!(idle_inbound.is_some_and(|idle| idle < Duration::from_mins(1)), packets > 0);
        // And so it is when it is asked for by itself.
        let command = KernelCommand::QueryUse { child: spec.child };
        let Done::Use(alone) = one.execute(command).context("alone")? else {
            return Err(Error::new("another answer"));
        };
        assert_eq!(ChildUse { idle_inbound, ..alone }, expected);
    }

    // What the kernel has lost is not told as nothing.
    a.run(
        "ip",
        &"xfrm state delete dst 192.0.2.2 proto esp spi 0x2003".split(' ').collect::<Vec<_>>(),
    )?;
    let uses = one.kernel.uses().context("of the rest")?;
    assert!(uses.keys().eq([&specs[1].child, &specs[2].child]));
    [one, two].into_iter().try_for_each(Node::end)
}
