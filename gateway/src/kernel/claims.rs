//! Who wants what of the kernel where the kernel keeps only one.
//!
//! XFRM has one policy per selector and direction, the routing table one route per prefix, but a
//! trap and several Child SAs (during a rekey) may each want one. [`Claims`] remembers every
//! claim and says what the kernel must have: the best one's, the next best when that goes,
//! nothing with the last. It does nothing itself.

use std::collections::BTreeMap;

use gateway_ike::io::ChildId;

/// Who has a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The trap with this `reqid`.
    Trap(u32),
    /// A Child SA.
    Child(ChildId),
}

/// The order among claims to one thing.
pub(super) trait Rank {
    /// The lowest number wins; among equals the newest owner.
    fn rank(&self) -> u64;
}

/// Values that are all alike, such as the wish that an address be ours.
impl Rank for () {
    fn rank(&self) -> u64 {
        0
    }
}

/// What the kernel must be told after a claim was made or released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change<V> {
    /// Nothing: it has what it must have.
    Keep,
    /// Have this, for the first time.
    Add(V),
    /// Have this instead of what it has.
    Replace(V),
    /// Have nothing.
    Remove,
}

/// Claims of owners to values under keys.
#[derive(Debug)]
pub(super) struct Claims<K, V> {
    claims: BTreeMap<K, BTreeMap<Owner, V>>,
}

impl<K, V> Default for Claims<K, V> {
    fn default() -> Self {
        Self { claims: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V: Rank + Clone + PartialEq> Claims<K, V> {
    /// What the kernel has under this key, if every change was carried out.
    pub(super) fn effective(&self, key: &K) -> Option<&V> {
        self.claims
            .get(key)?
            .iter()
            .min_by(|(a, x), (b, y)| x.rank().cmp(&y.rank()).then(b.cmp(a)))
            .map(|(_, value)| value)
    }

    /// What an owner claims under this key.
    pub(super) fn of(&self, key: &K, owner: Owner) -> Option<&V> {
        self.claims.get(key)?.get(&owner)
    }

    /// Makes (`Some`) or releases (`None`) the claim of an owner; gives back what the kernel must
    /// be told and what the owner claimed before. Setting that again undoes this call.
    pub(super) fn set(
        &mut self,
        key: &K,
        owner: Owner,
        value: Option<V>,
    ) -> (Change<V>, Option<V>) {
        let before = self.effective(key).cloned();
        let owners = self.claims.entry(key.clone()).or_default();
        let previous = match value {
            Some(value) => owners.insert(owner, value),
            None => owners.remove(&owner),
        };
        if owners.is_empty() {
            self.claims.remove(key);
        }
        let change = match (before, self.effective(key)) {
            (None, None) => Change::Keep,
            (None, Some(new)) => Change::Add(new.clone()),
            (Some(_), None) => Change::Remove,
            (Some(old), Some(new)) if old == *new => Change::Keep,
            (Some(_), Some(new)) => Change::Replace(new.clone()),
        };
        (change, previous)
    }

    /// Everything that somebody claims.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.claims.keys()
    }

    /// Forgets every claim.
    pub(super) fn clear(&mut self) {
        self.claims.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Rank for (u8, char) {
        fn rank(&self) -> u64 {
            self.0.into()
        }
    }

    const TRAP: Owner = Owner::Trap(7);
    const fn child(id: u64) -> Owner {
        Owner::Child(ChildId(id))
    }

    #[test]
    fn a_child_takes_over_from_the_trap_and_gives_back() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(&1, TRAP, Some((9, 't'))), (Change::Add((9, 't')), None));
        assert_eq!(claims.set(&1, child(1), Some((8, 'c'))), (Change::Replace((8, 'c')), None));
        assert_eq!(claims.set(&1, child(1), None), (Change::Replace((9, 't')), Some((8, 'c'))));
        assert_eq!(claims.set(&1, TRAP, None), (Change::Remove, Some((9, 't'))));
        assert!(claims.claims.is_empty());
    }

    #[test]
    fn a_worse_claim_waits() {
        let mut claims = Claims::default();
        claims.set(&1, child(1), Some((8, 'c')));
        assert_eq!(claims.set(&1, TRAP, Some((9, 't'))).0, Change::Keep);
        assert_eq!(claims.set(&1, child(1), None).0, Change::Replace((9, 't')));
    }

    #[test]
    fn among_equals_the_newest_child_wins() {
        let mut claims = Claims::default();
        claims.set(&1, child(1), Some((8, 'a')));
        assert_eq!(claims.set(&1, child(2), Some((8, 'b'))).0, Change::Replace((8, 'b')));
        assert_eq!(claims.set(&1, child(1), None).0, Change::Keep);
    }

    #[test]
    fn an_equal_value_needs_no_call_to_the_kernel() {
        let mut claims = Claims::default();
        claims.set(&1, child(1), Some((8, 'a')));
        assert_eq!(claims.set(&1, child(2), Some((8, 'a'))).0, Change::Keep);
    }

    #[test]
    fn releasing_what_was_never_claimed_changes_nothing() {
        let mut claims = Claims::<u8, (u8, char)>::default();
        assert_eq!(claims.set(&1, TRAP, None), (Change::Keep, None));
        assert!(claims.claims.is_empty());
    }

    proptest! {
        /// A model of the kernel that obeys every change always holds the best claim of each key,
        /// and every call can be undone.
        #[test]
        fn the_kernel_always_has_the_best_claim(
            calls in prop::collection::vec((0..3_u8, 0..4_u64, prop::option::of(0..3_u8)), 0..60),
        ) {
            let mut claims = Claims::default();
            let mut model = BTreeMap::<(u8, u64), (u8, char)>::new();
            let mut kernel = BTreeMap::<u8, (u8, char)>::new();
            for (key, id, rank) in calls {
                let owner = if id == 0 { TRAP } else { child(id) };
                let value = rank.map(|rank| (rank, ['t', 'a', 'b', 'c'][usize::try_from(id).unwrap()]));
                let (_, previous) = claims.set(&key, owner, value);
                claims.set(&key, owner, previous);
                match claims.set(&key, owner, value).0 {
                    Change::Keep => {}
                    Change::Add(v) => prop_assert!(kernel.insert(key, v).is_none()),
                    Change::Replace(v) => prop_assert!(kernel.insert(key, v).is_some_and(|old| old != v)),
                    Change::Remove => prop_assert!(kernel.remove(&key).is_some()),
                }
                match value {
                    Some(value) => model.insert((key, id), value),
                    None => model.remove(&(key, id)),
                };
                for key in 0..3 {
                    let best = (0..4_u64)
                        .filter_map(|id| Some((model.get(&(key, id))?, id)))
                        .min_by_key(|(value, id)| (value.0, core::cmp::Reverse(*id)))
                        .map(|(value, _)| value);
                    prop_assert_eq!(kernel.get(&key), best);
                    prop_assert_eq!(claims.effective(&key), best);
                }
            }
        }
    }
}
