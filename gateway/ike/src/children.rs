//! The Child SAs of all IKE SAs: found by what the kernel calls them.

use std::collections::{BTreeMap, BTreeSet};

use crate::io::{ChildId, IkeSaId};

/// See the module. What is reserved for one that may come to be is none yet.
#[derive(Debug, Default)]
pub(crate) struct Children {
    owners: BTreeMap<ChildId, IkeSaId>,
    /// By the SPIs that peers have chosen, of which two may be the same.
    outbound: BTreeSet<(u32, ChildId)>,
}

impl Children {
    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.outbound.is_empty()
    }

    pub(crate) fn insert(&mut self, child: ChildId, outbound_spi: u32, owner: IkeSaId) {
        self.owners.insert(child, owner);
        self.outbound.insert((outbound_spi, child));
    }

    pub(crate) fn remove(&mut self, child: ChildId, outbound_spi: u32) {
        self.owners.remove(&child);
        self.outbound.remove(&(outbound_spi, child));
    }

    /// All of them, with their outbound SPIs and their IKE SAs; one of which only one table knows
    /// has an IKE SA or an SPI that there is not.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, ChildId, IkeSaId)> {
        let nobody = IkeSaId(u64::MAX);
        let sending = self
            .outbound
            .iter()
            .map(move |(spi, child)| (*spi, *child, self.owner(*child).unwrap_or(nobody)));
        let known: BTreeSet<ChildId> = self.outbound.iter().map(|(_, child)| *child).collect();
        let mute = self.owners.iter().filter(move |(child, _)| !known.contains(child));
        sending.chain(mute.map(|(child, owner)| (0, *child, *owner)))
    }

    /// The IKE SA that a Child SA belongs to.
    pub(crate) fn owner(&self, child: ChildId) -> Option<IkeSaId> {
        self.owners.get(&child).copied()
    }

    /// Those that send by an SPI.
    pub(crate) fn sending_by(&self, spi: u32) -> impl Iterator<Item = (IkeSaId, ChildId)> {
        let range = (spi, ChildId(0))..=(spi, ChildId(u64::MAX));
        self.outbound.range(range).filter_map(|(_, child)| Some((self.owner(*child)?, *child)))
    }
}
