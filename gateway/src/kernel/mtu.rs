//! How large a packet may be that a Child SA takes, and why.

use gateway_ike::io::ChildId;

use super::linux::LinuxKernel;
use super::overhead::{Overhead, overhead};

/// What leaves of an underlay's MTU how much for packets before encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildMtu {
    /// The interface by which the peer is reached now.
    pub underlay: String,
    /// Its MTU in octets.
    pub underlay_mtu: u32,
    /// What the Child SA adds.
    pub overhead: Overhead,
    /// What the largest packet leaves of it, since it does not fill a block, in octets.
    pub left: u32,
    /// The largest packet that fits, in octets; it is that of the routes to what is protected.
    pub mtu: u32,
}

impl LinuxKernel {
    /// How large a packet may be that a Child SA takes.
    ///
    /// # Errors
    /// In words: there is no such Child SA any more, or no way to the peer.
    pub async fn child_mtu(&self, id: ChildId) -> Result<ChildMtu, String> {
        let child = self.children.get(&id).ok_or("it is not installed")?;
        let (suite, mode, ends) = (child.suite, child.mode, child.ends);
        let overhead = overhead(suite, mode, ends.encapsulation.is_some(), ends.remote.is_ipv6());
        let (_, underlay) = self.way(ends.remote).await?;
        let (left, mtu) = (overhead.largest(underlay.mtu).1, overhead.inner_mtu(underlay.mtu));
        Ok(ChildMtu { underlay: underlay.name, underlay_mtu: underlay.mtu, overhead, left, mtu })
    }
}
