//! The Child SAs of all IKE SAs: found by what the kernel calls them.

use std::collections::{BTreeMap, BTreeSet};

use crate::io::{ChildId, IkeSaId};
use crate::leases::Holder;

/// See the module. What is reserved for one that may come to be is none yet.
#[derive(Debug, Default)]
pub(crate) struct Children {
    owners: BTreeMap<ChildId, IkeSaId>,
    /// By the SPIs that peers have chosen, of which two may be the same.
    outbound: BTreeSet<(u32, ChildId)>,
    /// How many each peer has, or each of its users.
    counts: BTreeMap<Holder, usize>,
}

impl Children {
    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.outbound.is_empty() && self.counts.is_empty()
    }

    /// One more is there.
    pub(crate) fn insert(
        &mut self,
        child: ChildId,
        outbound_spi: u32,
        owner: IkeSaId,
        holder: Option<Holder>,
    ) {
        self.owners.insert(child, owner);
        self.outbound.insert((outbound_spi, child));
        if let Some(holder) = holder {
            let count = self.counts.entry(holder).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// One is there no longer.
    pub(crate) fn remove(&mut self, child: ChildId, outbound_spi: u32, holder: Option<&Holder>) {
        self.owners.remove(&child);
        self.outbound.remove(&(outbound_spi, child));
        if let Some(holder) = holder
            && let Some(count) = self.counts.get_mut(holder)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(holder);
            }
        }
    }

    /// How many a peer has, or one of its users.
    pub(crate) fn count(&self, holder: &Holder) -> usize {
        self.counts.get(holder).copied().unwrap_or(0)
    }

    /// How many each has.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn counts(&self) -> &BTreeMap<Holder, usize> {
        &self.counts
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
