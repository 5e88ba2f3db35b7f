//! Who is connected: the IKE SAs that stand with each peer or, where many users come as one peer,
//! with each of those.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::PeerName;
use crate::io::IkeSaId;
use crate::leases::Holder;

/// See the module. Nobody is kept who has none.
#[derive(Debug, Default)]
pub(crate) struct Contacts(BTreeMap<Holder, BTreeSet<IkeSaId>>);

impl Contacts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more stands; gives how many do now.
    pub(crate) fn insert(&mut self, holder: Holder, ike_sa: IkeSaId) -> usize {
        let of_holder = self.0.entry(holder).or_default();
        of_holder.insert(ike_sa);
        of_holder.len()
    }

    /// One stands no longer; gives whether it was the last.
    pub(crate) fn remove(&mut self, holder: &Holder, ike_sa: IkeSaId) -> bool {
        let Some(of_holder) = self.0.get_mut(holder) else { return false };
        of_holder.remove(&ike_sa);
        let last = of_holder.is_empty();
        if last {
            self.0.remove(holder);
        }
        last
    }

    /// All of them.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn all(&self) -> impl Iterator<Item = (Holder, IkeSaId)> {
        self.0.iter().flat_map(|(holder, ids)| ids.iter().map(|id| (holder.clone(), *id)))
    }

    /// Whether any stands.
    pub(crate) fn has(&self, holder: &Holder) -> bool {
        self.0.contains_key(holder)
    }

    /// Whether any stands with a peer or one of its users.
    pub(crate) fn has_peer(&self, peer: &PeerName) -> bool {
        let first = Holder { peer: PeerName::clone(peer), user: None };
        self.0.range(first..).next().is_some_and(|(holder, _)| holder.peer == *peer)
    }

    /// Those that stand, the oldest first: their numbers ascend.
    pub(crate) fn of(&self, holder: &Holder) -> impl DoubleEndedIterator<Item = IkeSaId> {
        self.0.get(holder).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(peer: &str, user: Option<&str>) -> Holder {
        Holder { peer: peer.into(), user: user.map(Into::into) }
    }

    #[test]
    fn each_has_its_own_and_goes_with_the_last() {
        let mut contacts = Contacts::default();
        let (alice, bob) = (holder("p", Some("alice")), holder("p", Some("bob")));
        assert_eq!(contacts.insert(alice.clone(), IkeSaId(7)), 1);
        assert_eq!(contacts.insert(alice.clone(), IkeSaId(3)), 2);
        assert_eq!(contacts.insert(bob.clone(), IkeSaId(5)), 1);
        assert_eq!(contacts.of(&alice).collect::<Vec<_>>(), [IkeSaId(3), IkeSaId(7)]);
        assert!(contacts.has_peer(&"p".into()) && !contacts.has(&holder("p", None)));
        assert!(!contacts.has_peer(&"o".into()) && !contacts.has_peer(&"q".into()));
        assert!(!contacts.remove(&alice, IkeSaId(3)));
        assert!(!contacts.remove(&bob, IkeSaId(7)), "it is not bob's");
        assert!(contacts.remove(&alice, IkeSaId(7)));
        assert!(!contacts.remove(&alice, IkeSaId(7)), "once");
        assert!(!contacts.has(&alice) && contacts.remove(&bob, IkeSaId(5)));
        assert!(contacts.is_empty());
    }
}
