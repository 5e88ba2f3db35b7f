//! Which inbound SPIs are ours: only their ESP is handed back to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_ike::io::{ChildId, SaSpec};

/// The inbound SAs that are installed.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The addresses at which each is reached.
    of_child: BTreeMap<ChildId, Vec<(IpAddr, u32)>>,
    /// Under which destination the kernel has it.
    known: BTreeMap<(IpAddr, u32), IpAddr>,
}

impl Inbound {
    /// Remembers the inbound SA of a Child SA.
    pub(super) fn installed(&mut self, child: ChildId, sa: (IpAddr, u32)) {
        self.removed(child);
        self.of_child.insert(child, vec![sa]);
        self.known.insert(sa, sa.0);
    }

    /// It is reached at `destination` from now on, and the kernel has it under `is_at`: if that is
    /// another address, it is still reached wherever it was.
    pub(super) fn moved(&mut self, child: ChildId, destination: IpAddr, is_at: IpAddr) {
        let Some(names) = self.of_child.get_mut(&child) else { return };
        let Some((_, spi)) = names.first().copied() else { return };
        let name = (destination, spi);
        if is_at == destination {
            self.installed(child, name);
        } else {
            if !names.contains(&name) {
                names.push(name);
            }
            self.known.insert(name, is_at);
        }
    }

    /// Forgets it.
    pub(super) fn removed(&mut self, child: ChildId) {
        for name in self.of_child.remove(&child).unwrap_or_default() {
            self.known.remove(&name);
        }
    }

    /// Under which destination the kernel has the inbound SA that is reached by this one.
    pub(super) fn destination(&self, destination: IpAddr, spi: u32) -> Option<IpAddr> {
        self.known.get(&(destination, spi)).copied()
    }
}

/// What identifies an inbound SA.
pub(super) const fn key(sa: &SaSpec) -> (IpAddr, u32) {
    (sa.destination, sa.spi)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPI: u32 = 0x1000;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn only_what_is_installed_is_known() {
        let mut inbound = Inbound::default();
        let (here, there) = (address(1), address(2));
        inbound.installed(ChildId(1), (here, SPI));
        inbound.installed(ChildId(2), (here, 0x2000));
        assert_eq!(inbound.destination(here, SPI), Some(here));
        assert_eq!(inbound.destination(there, SPI), None);
        inbound.moved(ChildId(1), there, there);
        inbound.moved(ChildId(9), there, there);
        assert_eq!(inbound.destination(there, SPI), Some(there));
        assert_eq!(inbound.destination(here, SPI), None);
        inbound.removed(ChildId(1));
        inbound.removed(ChildId(9));
        assert_eq!(inbound.destination(there, SPI), None);
        assert_eq!(inbound.destination(here, 0x2000), Some(here));
    }

    #[test]
    fn an_sa_that_is_reached_at_two_addresses_is_in_one_place() {
        let mut inbound = Inbound::default();
        let (here, there, beyond) = (address(1), address(2), address(3));
        inbound.installed(ChildId(1), (here, SPI));
        for new in [there, beyond, there] {
            inbound.moved(ChildId(1), new, here);
        }
        for one in [here, there, beyond] {
            assert_eq!(inbound.destination(one, SPI), Some(here));
        }
        inbound.moved(ChildId(1), beyond, beyond);
        let found = [here, there, beyond].map(|one| inbound.destination(one, SPI));
        assert_eq!(found, [None, None, Some(beyond)]);
        inbound.moved(ChildId(1), here, beyond);
        inbound.removed(ChildId(1));
        assert!(inbound.known.is_empty() && inbound.of_child.is_empty());
    }
}
