//! Until when the XDP program drops ESP to us that is of no SA of ours.

use std::time::Duration;

use gateway_common::unknown;
use nix::time::{ClockId, clock_gettime};

use super::{BpfError, DataPath};

/// What is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownEsp {
    /// ESP that comes bare.
    pub bare: bool,
    /// ESP in UDP.
    pub in_udp: bool,
}

impl DataPath {
    /// Has the program drop this, and nothing else, for so long from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drop_unknown_esp(&mut self, what: UnknownEsp, lease: Duration) -> Result<(), BpfError> {
        let failed = |error: &dyn std::error::Error| {
            BpfError::kernel("the programs cannot be told what ESP to drop", error)
        };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|errno| failed(&errno))?;
        let until = Duration::from(now).saturating_add(lease);
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        let UnknownEsp { bare, in_udp } = what;
        for (place, is_dropped) in [(unknown::BARE_UNTIL, bare), (unknown::IN_UDP_UNTIL, in_udp)] {
            let until = if is_dropped { until } else { 0 };
            self.unknown_esp.set(place, until, 0).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}
