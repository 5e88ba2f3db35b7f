//! How large packets may be before encryption, which the programs lower TCP's segment sizes by.

use aya::maps::IterableMap as _;
use aya::maps::lpm_trie::Key;
use gateway_common::{Address, map};
use ipnet::IpNet;

use super::room::of_map;
use super::rules::address;
use super::{BpfError, DataPath, is_absent};

impl DataPath {
    /// Tells the programs how large a packet to a prefix may be before encryption, in octets.
    /// Until then it is the MTU of the XFRM interface.
    ///
    /// # Errors
    /// [`BpfError::Full`], or the kernel refuses, for want of memory.
    pub fn set_mtu(&mut self, prefix: IpNet, mtu: u32) -> Result<(), BpfError> {
        const WHAT: &str = "an MTU cannot be told to the programs";
        self.mtus
            .insert(&key(prefix), mtu, 0)
            .map_err(|error| BpfError::insertion(WHAT, map::MTUS, of_map(self.mtus.map()), &error))
    }

    /// Makes the programs forget it again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_mtu(&mut self, prefix: IpNet) -> Result<(), BpfError> {
        match self.mtus.remove(&key(prefix)) {
            Err(error) if !is_absent(&error) => {
                Err(BpfError::kernel("an MTU cannot be removed from the BPF map", &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes the programs forget what an earlier run has told them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_mtus(&mut self) -> Result<(), BpfError> {
        let failed =
            |error| BpfError::kernel("the MTUs cannot be removed from the BPF map", &error);
        let known: Vec<_> = self.mtus.keys().collect::<Result<_, _>>().map_err(failed)?;
        known.iter().try_for_each(|key| self.mtus.remove(key)).map_err(failed)
    }
}

/// An IPv4 prefix is mapped, as addresses are.
fn key(prefix: IpNet) -> Key<Address> {
    let mapped = if prefix.addr().is_ipv4() { Address::MAPPED_BITS } else { 0 };
    let length = mapped.saturating_add(prefix.prefix_len());
    Key::new(u32::from(length), address(prefix.network()))
}
