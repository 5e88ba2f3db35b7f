//! Child SAs that their rule can do without. A rule has several where the peer narrows each to the
//! packet that asks for it (RFC 7296 2.9): of those that we have asked for, at their soft limits those
//! go that carry nothing, and those that a wider one covers, since the peer does not narrow any more;
//! and no later if the peer is the first to rekey.
//! And what a peer narrows to is nothing new sometimes. What a peer asks for is its own business, and
//! that two have the same selectors is no reason to delete one (2.8).

use core::time::Duration;
use std::time::Instant;

use super::follow_up::TheirSeries;
use super::offer::{ChildAnswer, ChildOffer};
use super::{ChildSa, ChildState, Established, IkeSa, State};
use crate::io::{ChildId, ChildUse, Done, KernelCommand, KernelError};
use crate::selector;
use crate::shared::{Owner, Purpose, Shared};

/// A peer that has narrowed what we asked for to what is there is not asked again for this long, since
/// the same packet may come again at once. For as long the kernel has no second acquire for a trap
/// (xfrm_state_find(), net.core.xfrm_acq_expires), unless it forgets that since a Child SA begins to send
/// what has asked last.
pub(super) const ALONE: Duration = Duration::from_secs(30);

/// When it is judged whether a rule can do without a Child SA, if that has taken the place of one before
/// our soft limit, by a rekeying, on an IKE SA that was made anew, or for another path: where that happens
/// again and again what carries nothing would else be kept for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement {
    /// The soft limit of the first that has been replaced since the last judgement.
    pub(super) at: Instant,
    /// Whether something went by it, or by what has been in its place since and is no longer; `None`: the
    /// kernel is still to say.
    used: Option<bool>,
}

/// The judgement that a Child SA is to have which takes the place of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    /// What it takes the place of.
    old: ChildId,
    at: Instant,
    /// Whether something is known, or may have, to have gone by what was before that.
    used: bool,
}

/// Whether a rule needs a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Whatever it carries.
    Always,
    /// If it carries anything.
    IfUsed,
    /// A wider one protects the same.
    Never,
}

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

    /// Whether others protect the same and none of them is newer. The peer may send by its newest
    /// only: libreswan does, and sends nothing when that goes. Numbers are in the order in which the
    /// peer has come to know of them: of two that both ends have asked for at once it has answered for
    /// ours before it got our answer for its own.
    fn is_newest_of_the_same(&self, child: &ChildSa) -> bool {
        let is_same = |other: &&ChildSa| {
            selector::protect_all(&other.pairs, &child.pairs)
                && selector::protect_all(&child.pairs, &other.pairs)
        };
        let newest = self.beside(child).filter(is_same).map(|other| other.id).max();
        newest.is_some_and(|newest| newest < child.id)
    }

    /// The last one of a rule stays: there is no crowd, and the rule may be one that is always up.
    fn need(&self, child: &ChildSa) -> Need {
        let is_last = self.beside(child).next().is_none();
        if is_last || !child.for_packet || !self.is_left_alone(child) {
            Need::Always
        } else if self.is_covered(child) {
            Need::Never
        } else if self.is_newest_of_the_same(child) {
            Need::Always
        } else {
            Need::IfUsed
        }
    }
}

impl IkeSa {
    /// A Child SA has reached a soft limit: it gets a successor, unless its rule can do without.
    pub(super) fn renew_child(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        match self.need(child) {
            Need::Always => self.want_successor(now, shared, child),
            Need::IfUsed => self.ask_for_use(shared, child, true),
            Need::Never => self.retire_covered(now, shared, child),
        }
    }

    /// The same before its soft limit, at that of what it has taken the place of: what the rule needs
    /// is left as it is.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        judgement: Judgement,
    ) {
        match self.need(child) {
            Need::IfUsed if judgement.used == Some(false) => {
                self.ask_for_use(shared, child, false);
            }
            Need::Always | Need::IfUsed => {}
            Need::Never => self.retire_covered(now, shared, child),
        }
    }

    /// A Child SA is put in the place of one that a packet has asked for: it is judged when that would
    /// have been, and by what that has carried, too.
    pub(super) fn put_judgement_off(
        &mut self,
        shared: &mut Shared,
        old: ChildId,
        successor: ChildId,
    ) {
        if let Some(judgement) = self.judgement_of(old) {
            self.judge_like(shared, successor, judgement);
        }
    }

    /// The judgement that is still to come of a Child SA that a packet has asked for.
    pub(crate) fn judgement_of(&self, old: ChildId) -> Option<Inherited> {
        let State::Established(established) = &self.state else { return None };
        let child = established.children.get(&old).filter(|child| child.for_packet)?;
        match child.judgement {
            Some(Judgement { at, used }) => Some(Inherited { old, at, used: used != Some(false) }),
            None => child.rekey_at.map(|at| Inherited { old, at, used: false }),
        }
    }

    /// A Child SA takes the place of one that has this judgement.
    pub(crate) fn judge_like(&mut self, shared: &mut Shared, child: ChildId, like: Inherited) {
        let State::Established(established) = &mut self.state else { return };
        let Some(child) = established.children.get_mut(&child) else { return };
        child.judgement = Some(Judgement { at: like.at, used: like.used.then_some(true) });
        if !like.used {
            let owner = Owner::IkeSa(self.id, Purpose::IdleBefore(child.id));
            shared.command(owner, KernelCommand::QueryUse { child: like.old });
        }
    }

    /// The kernel has said what went by the one in whose place this is.
    pub(super) fn idle_before(&mut self, child: ChildId, result: &Result<Done, KernelError>) {
        if let State::Established(established) = &mut self.state
            && let Some(child) = established.children.get_mut(&child)
            && let Some(judgement) = &mut child.judgement
        {
            judgement.used = Some(!is_idle(result));
        }
    }

    /// The kernel has said what went by a Child SA that was asked for because of a packet. If nothing
    /// has since it was made anew, the next packet asks for another. `due`: else it gets a successor.
    pub(super) fn idle_reported(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        due: bool,
        result: &Result<Done, KernelError>,
    ) {
        if is_idle(result) && self.need(child) != Need::Always {
            self.retire_and_delete(now, shared, child, "idle");
        } else if due {
            self.want_successor(now, shared, child);
        }
    }

    fn need(&self, child: ChildId) -> Need {
        let State::Established(established) = &self.state else { return Need::Always };
        established.children.get(&child).map_or(Need::Always, |child| established.need(child))
    }

    fn ask_for_use(&self, shared: &mut Shared, child: ChildId, due: bool) {
        let owner = Owner::IkeSa(self.id, Purpose::Idle { child, due });
        shared.command(owner, KernelCommand::QueryUse { child });
    }

    fn retire_covered(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        self.retire_and_delete(now, shared, child, "a wider one protects the same");
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

/// Whether nothing went by a Child SA, in either direction.
const fn is_idle(result: &Result<Done, KernelError>) -> bool {
    matches!(result, Ok(Done::Use(ChildUse { packets_in: 0, packets_out: 0, .. })))
}
