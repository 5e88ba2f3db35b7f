//! Which inbound SPIs are ours: only their ESP is handed back to the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_ike::io::{ChildId, SaSpec};

/// The inbound SAs that are installed.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    of_child: BTreeMap<ChildId, (IpAddr, u32)>,
    known: BTreeSet<(IpAddr, u32)>,
}

impl Inbound {
    /// Remembers the inbound SA of a Child SA.
    pub(super) fn installed(&mut self, child: ChildId, sa: (IpAddr, u32)) {
        self.removed(child);
        self.of_child.insert(child, sa);
        self.known.insert(sa);
    }

    /// It has another destination.
    pub(super) fn moved(&mut self, child: ChildId, destination: IpAddr) {
        if let Some((_, spi)) = self.of_child.get(&child).copied() {
            self.installed(child, (destination, spi));
        }
    }

    /// Forgets it.
    pub(super) fn removed(&mut self, child: ChildId) {
        if let Some(sa) = self.of_child.remove(&child) {
            self.known.remove(&sa);
        }
    }

    /// Whether an inbound SA has this destination and SPI.
    pub(super) fn contains(&self, destination: IpAddr, spi: u32) -> bool {
        self.known.contains(&(destination, spi))
    }
}

/// What identifies an inbound SA.
pub(super) const fn key(sa: &SaSpec) -> (IpAddr, u32) {
    (sa.destination, sa.spi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_is_known() {
        let mut inbound = Inbound::default();
        let (here, there): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        inbound.installed(ChildId(1), (here, 0x1000));
        inbound.installed(ChildId(2), (here, 0x2000));
        assert!(inbound.contains(here, 0x1000));
        assert!(!inbound.contains(there, 0x1000));
        inbound.moved(ChildId(1), there);
        inbound.moved(ChildId(9), there);
        assert!(inbound.contains(there, 0x1000) && !inbound.contains(here, 0x1000));
        inbound.removed(ChildId(1));
        inbound.removed(ChildId(9));
        assert!(!inbound.contains(there, 0x1000));
        assert!(inbound.contains(here, 0x2000));
    }
}
