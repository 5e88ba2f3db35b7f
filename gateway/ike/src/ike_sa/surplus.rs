//! Child SAs that their rule can do without. A rule has several where the peer narrows each to the
//! packet that asks for it (RFC 7296 2.9): of those that we have asked for, at their soft limits those
//! go that carry nothing, and those that a wider one covers, since the peer does not narrow any more.
//! And what a peer narrows to is nothing new sometimes. What a peer asks for is its own business, and
//! that two have the same selectors is no reason to delete one (2.8).

use core::time::Duration;
use std::time::Instant;

use super::follow_up::TheirSeries;
use super::offer::{ChildAnswer, ChildOffer};
use super::{ChildSa, ChildState, Established, IkeSa, State};
use crate::io::{ChildId, Done, KernelCommand, KernelError};
use crate::selector;
use crate::shared::{Owner, Purpose, Shared};

/// A peer that has narrowed what we asked for to what is there is not asked again for this long, since
/// the same packet may come again at once. For as long the kernel has no second acquire for a trap
/// (xfrm_state_find(), net.core.xfrm_acq_expires), unless it forgets that since a Child SA of the rule
/// begins to send.
pub(super) const ALONE: Duration = Duration::from_secs(30);

/// What the peer has narrowed a Child SA to, if its rule has that already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// What this one protects. The peer may send by its newest only: libreswan does, and sends
    /// nothing when that goes. So it takes the place of the other.
    Same(ChildId),
    /// Less than another protects: it is too many.
    Within,
}

impl Known {
    /// The one whose place it takes.
    pub(super) fn same(self) -> Option<ChildId> {
        if let Self::Same(other) = self { Some(other) } else { None }
    }

    /// Whether it goes again, when the peer has heard that.
    pub(super) fn is_too_many(self) -> bool {
        self == Self::Within
    }
}

impl Established {
    /// The live ones of the same rule.
    fn beside<'a>(&'a self, child: &'a ChildSa) -> impl Iterator<Item = &'a ChildSa> {
        let children = self.children.values().map(Box::as_ref);
        children.filter(|c| c.id != child.id && c.is_live() && c.rule.name == child.rule.name)
    }

    /// Whether neither end is replacing a Child SA that stands.
    fn is_left_alone(&self, child: &ChildSa) -> bool {
        child.state == ChildState::Installed
            && !child.successor_wanted
            && self.wants_successor(child.id)
            && !self.theirs.iter().any(|series: &TheirSeries| series.replaces(child.id))
    }

    /// Whether another one protects all that this one does, and more.
    fn is_covered(&self, child: &ChildSa) -> bool {
        self.beside(child).any(|other| {
            other.state == ChildState::Installed
                && selector::protect_all(&other.pairs, &child.pairs)
                && !selector::protect_all(&child.pairs, &other.pairs)
        })
    }
}

impl IkeSa {
    /// A Child SA has reached a soft limit: it gets a successor, unless its rule can do without.
    pub(super) fn renew_child(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &self.state else { return };
        let Some(old) = established.children.get(&child) else { return };
        let is_last = established.beside(old).next().is_none();
        if is_last || !old.for_packet || !established.is_left_alone(old) {
            return self.want_successor(now, shared, child);
        }
        if established.is_covered(old) {
            return self.retire_and_delete(now, shared, child, "a wider one protects the same");
        }
        let owner = Owner::IkeSa(self.id, Purpose::Idle(child));
        shared.command(owner, KernelCommand::QueryUse { child });
    }

    /// The kernel has said what went by a Child SA that was asked for because of a packet. If nothing
    /// has since it was made anew, the next packet asks for another. The last one of a rule stays:
    /// there is no crowd, and the rule may be one that is always up.
    pub(super) fn idle_reported(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        result: &Result<Done, KernelError>,
    ) {
        let State::Established(established) = &self.state else { return };
        let Some(old) = established.children.get(&child) else { return };
        let idle = matches!(result, Ok(Done::Use { packets_in: 0, packets_out: 0, .. }));
        let is_last = established.beside(old).next().is_none();
        if idle && !is_last && established.is_left_alone(old) {
            return self.retire_and_delete(now, shared, child, "idle");
        }
        self.want_successor(now, shared, child);
    }

    /// Whether a peer has narrowed what we asked for to something else than was named first, which
    /// is protected already: there would be one more with each packet that waits.
    pub(super) fn known(&self, offer: &ChildOffer, answer: &ChildAnswer) -> Option<Known> {
        let State::Established(established) = &self.state else { return None };
        let (Some(first), None) = (&offer.wish.first, offer.wish.replaces) else { return None };
        let pairs = &answer.narrowed.pairs;
        if selector::protect(pairs, first) {
            return None;
        }
        let covers = |c: &&ChildSa| {
            c.rule.name == offer.rule.name && c.is_live() && selector::protect_all(&c.pairs, pairs)
        };
        let mut same = self
            .children()
            .filter(covers)
            .filter(|c| selector::protect_all(pairs, &c.pairs) && established.is_left_alone(c));
        let same = same.next().map(|c| Known::Same(c.id));
        same.or_else(|| self.children().find(covers).map(|_| Known::Within))
    }
}
