//! How many IKE SAs one identity has: a peer, or with EAP one of its users.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Endpoint;
use crate::counters::Counter;
use crate::ike_sa::{IkeSa, State};
use crate::io::IkeSaId;
use crate::leases::Holder;

/// IKE SAs that are over, but for a last message that may have to be repeated. An identity keeps
/// no more of them than it may have standing, or by beginning and ending them it could take the
/// place of everybody else. What an IKE SA leaves that is rekeyed is bounded elsewhere.
#[derive(Debug, Default)]
pub(super) struct Over(BTreeMap<Holder, BTreeSet<IkeSaId>>);

impl Over {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what has become of an IKE SA; gives the oldest one if there are more than `limit`.
    pub(super) fn note(&mut self, sa: &IkeSa, limit: usize) -> Option<IkeSaId> {
        match &sa.state {
            State::Closing(_) if sa.remnant_of.is_none() => {
                let over = self.0.entry(sa.holder()?).or_default();
                over.insert(sa.id);
                over.first().copied().filter(|_| over.len() > limit)
            }
            State::Closed => {
                let holder = sa.holder()?;
                let over = self.0.get_mut(&holder)?;
                over.remove(&sa.id);
                if over.is_empty() {
                    self.0.remove(&holder);
                }
                None
            }
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::AwaitAuth(_)
            | State::HalfOpen(_)
            | State::Established(_)
            | State::Closing(_) => None,
        }
    }
}

impl Endpoint {
    /// An identity has one IKE SA more than it may have. The newest stays: most often it is there
    /// because the peer has lost the others and cannot say so, and whoever refuses it locks the
    /// peer out until the dead ones are found to be dead. The oldest goes, and the peer is told.
    ///
    /// What is counted has proved who it is, so nobody can do this to anybody else. Clients that
    /// share one identity and one secret are one, as far as anybody can know, and count together.
    pub(super) fn make_room_for(&mut self, now: Instant, holder: &Holder, newest: IkeSaId) {
        let standing = || self.shared.contacts.of(holder);
        let excess = standing().count().saturating_sub(self.shared.config.peer_ike_sa_limit);
        let oldest: Vec<IkeSaId> = standing().filter(|id| *id != newest).take(excess).collect();
        for id in oldest {
            self.shared.count(Counter::PeerIkeSaLimit);
            self.with_sa(id, |sa, shared| {
                sa.delete_ike(now, shared, "the peer has more IKE SAs than `peer-ike-sa-limit`");
            });
        }
    }
}
