//! Whether the indices say what a walk over all IKE SAs would find.

use std::collections::{BTreeMap, BTreeSet};

use super::Endpoint;
use crate::config::PeerName;
use crate::ike_sa::IkeSa;
use crate::reqids::Reqids;

impl Endpoint {
    /// The indices that say something else.
    pub(crate) fn out_of_step(&self) -> impl Iterator<Item = &'static str> {
        let peers = self.sas.values().filter_map(|sa| {
            let peer = sa.peer.as_ref()?;
            Some((PeerName::clone(&peer.name), sa.id))
        });
        let remnants = self.sas.values().filter_map(|sa| Some((sa.remnant_of?, sa.id)));
        let standing = self.sas.values().filter(|sa| sa.is_established());
        let contacts = standing.filter_map(|sa| Some((sa.holder()?, sa.id)));
        let children = self
            .sas
            .values()
            .flat_map(|sa| sa.children().map(|child| (child.outbound_spi, child.id, sa.id)));
        let mut counts = BTreeMap::new();
        for sa in self.sas.values().filter(|sa| sa.children().next().is_some()) {
            if let Some(holder) = sa.holder() {
                let count: &mut usize = counts.entry(holder).or_default();
                *count = count.saturating_add(sa.children().count());
            }
        }
        let mut sharing = BTreeMap::new();
        for child in self.sas.values().flat_map(IkeSa::children) {
            let count: &mut usize =
                sharing.entry(Reqids::key(&child.rule.name, &child.pairs)).or_default();
            *count = count.saturating_add(1);
        }
        let deadlines = self.sas.values().filter_map(|sa| {
            let at = sa.next_timeout(&self.shared)?;
            Some((sa.id, at))
        });
        let shared = self.shared.reqids.counts().map(|(key, count)| (key.clone(), count));
        [
            ("request IDs of Child SAs", sharing == shared.collect()),
            ("deadlines", deadlines.collect::<BTreeMap<_, _>>() == self.deadline_of),
            ("numbers of Child SAs", counts == *self.shared.children.counts()),
            ("IKE SAs with peers", peers.collect::<BTreeSet<_>>() == self.by_peer),
            ("IKE SAs with old keys", remnants.collect::<BTreeSet<_>>() == self.remnants),
            ("contacts", contacts.collect::<BTreeSet<_>>() == self.shared.contacts.all().collect()),
            (
                "Child SAs",
                children.collect::<BTreeSet<_>>() == self.shared.children.all().collect(),
            ),
        ]
        .into_iter()
        .filter_map(|(what, is_in_step)| (!is_in_step).then_some(what))
    }
}
