//! What the kernel lists of SAs; on the kernel that runs the tests, which may have no ESP: states that
//! wait for their keys have an SPI, and no packets.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::unwrap_in_result, reason = "this is test code")]

use gateway::kernel::xfrm::{SaId, Xfrm};
use gateway_ike::io::REQIDS;
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;

const IF_ID: u32 = 7;

/// A state with an SPI. Of transport mode, which is known as ours by its request ID.
fn state(namespace: &Namespace, protocol: &str, reqid: u32, spi: u32) -> Result {
    let all = format!(
        "xfrm state allocspi src 192.0.2.1 dst 192.0.2.2 proto {protocol} mode transport \
         reqid {reqid} min {spi:#x} max {spi:#x}"
    );
    namespace.run("ip", &all.split_whitespace().collect::<Vec<_>>()).map(drop)
}

#[test]
fn of_all_sas_those_of_ours_are_told_of_whatever_the_others_are() -> Result {
    let namespace = Namespace::new("usage")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    assert!(xfrm.usages().context("dump")?.is_empty());
    // States without keys go after that time, which a slow machine may need to make them.
    namespace.sysctl("net/core/xfrm_acq_expires", "3600")?;
    // More than one datagram of the kernel holds.
    for spi in 0x1000..0x1080 {
        state(&namespace, "esp", *REQIDS.start(), spi)?;
        state(&namespace, "esp", 5, spi + 0x1000)?;
    }
    // Another protocol has SPIs of its own.
    state(&namespace, "ah", *REQIDS.start(), 0x1001)?;
    state(&namespace, "ah", *REQIDS.start(), 0x3000)?;
    let found = xfrm.usages().context("dump")?;
    let destination = "192.0.2.2".parse().unwrap();
    assert!(found.keys().copied().eq((0x1000..0x1080).map(|spi| SaId { destination, spi })));
    for (id, usage) in found {
        assert_eq!(usage, xfrm.usage(id).context("one of them")?);
        assert_eq!((usage.bytes, usage.packets, usage.last_used), (0, 0, None));
    }
    Ok(())
}
