//! What happens when both ends want something of the same SA at once (RFC 7296 2.8.1, 2.8.2,
//! 2.25), as a table.
//!
//! With a window of one message each way, the most that can cross is one request of ours and one
//! of the peer's. So the table has a row for what we are doing and a column for what the peer
//! asks. The peer has the same table: what it does follows from the same cell with the roles
//! exchanged.
//!
//! A rekeying with additional key exchanges does not end with the answer to CREATE_CHILD_SA but
//! with that to the last IKE_FOLLOWUP_KE (RFC 9370 2.2.4). Collisions are decided by the first of
//! them: whoever has begun the others has decided, and puts off what comes then.
//!
//! Below the table is what follows for Child SAs where both ends have a successor; that of IKE SAs
//! is in `rekey_ike`.

use std::time::Instant;

use super::jobs::Current;
use super::{ChildState, Established, IkeSa, State};
use crate::counters::Counter;
use crate::io::ChildId;
use crate::shared::Shared;
use crate::time::after;

/// What we are doing on an IKE SA: the request of ours that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing, or something that stands in nobody's way.
    Nothing,
    /// Creating a Child SA.
    CreateChild,
    /// Replacing a Child SA: the one that the peer's request names, or another.
    RekeyChild { same: bool },
    /// Deleting a Child SA, or about to: the one that the peer's request names, or another.
    DeleteChild { same: bool },
    /// Replacing the IKE SA.
    RekeyIke,
    /// The same as [`Self::RekeyChild`], when CREATE_CHILD_SA is done and IKE_FOLLOWUP_KE is not.
    FollowUpChild { same: bool },
    /// The same for the IKE SA.
    FollowUpIke,
    /// Deleting the IKE SA.
    DeleteIke,
}

/// What the peer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    CreateChild,
    RekeyChild,
    DeleteChild,
    RekeyIke,
    DeleteIke,
}

/// What the peer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it asked for, as if we were doing nothing.
    AsUsual,
    /// What it asked for; there will be two successors, of which the nonces choose one when our
    /// own answer comes.
    Compare,
    /// What it asked for, and the Delete payload in the answer names nothing: both ends know.
    WithoutDelete,
    /// What it asked for; our own request is void, whatever is answered to it.
    ForgetOurs,
    /// TEMPORARY_FAILURE: let it try again when this is over.
    NotNow(&'static str),
}

/// The table.
pub(super) const fn verdict(doing: Doing, asked: Asked) -> Verdict {
    use Verdict::{AsUsual, Compare, ForgetOurs, NotNow, WithoutDelete};
    match (asked, doing) {
        // RFC 7296 2.25.2: a new Child SA would belong to an IKE SA that is on its way out.
        (Asked::CreateChild | Asked::RekeyChild, Doing::RekeyIke | Doing::FollowUpIke)
        | (Asked::RekeyIke, Doing::FollowUpIke) => NotNow("the IKE SA is being rekeyed"),
        (Asked::CreateChild | Asked::RekeyChild | Asked::RekeyIke, Doing::DeleteIke) => {
            NotNow("the IKE SA is being closed")
        }
        // 2.25.1
        (Asked::RekeyChild, Doing::DeleteChild { same: true }) => {
            NotNow("the Child SA is being closed")
        }
        (Asked::RekeyChild, Doing::FollowUpChild { same: true }) => {
            NotNow("the Child SA is being rekeyed")
        }
        (Asked::RekeyChild, Doing::RekeyChild { same: true })
        | (Asked::RekeyIke, Doing::RekeyIke) => Compare,
        (Asked::DeleteChild, Doing::DeleteChild { same: true }) => WithoutDelete,
        // 2.25.2: children must not come, go or change while they move.
        (
            Asked::RekeyIke,
            Doing::CreateChild
            | Doing::RekeyChild { .. }
            | Doing::FollowUpChild { .. }
            | Doing::DeleteChild { .. },
        ) => NotNow("a Child SA is being changed"),
        (
            Asked::DeleteIke,
            Doing::RekeyIke
            | Doing::FollowUpIke
            | Doing::DeleteIke
            | Doing::CreateChild
            | Doing::RekeyChild { .. }
            | Doing::FollowUpChild { .. }
            | Doing::DeleteChild { .. },
        ) => ForgetOurs,
        (_, Doing::Nothing)
        | (
            Asked::CreateChild | Asked::RekeyChild | Asked::DeleteChild,
            Doing::CreateChild
            | Doing::RekeyChild { .. }
            | Doing::FollowUpChild { .. }
            | Doing::DeleteChild { .. },
        )
        | (Asked::DeleteChild, Doing::RekeyIke | Doing::FollowUpIke | Doing::DeleteIke) => AsUsual,
    }
}

/// The peer's successor of the Child SA that we are replacing too.
pub(super) struct Collided {
    pub(super) child: ChildId,
    pub(super) lowest_nonce: Vec<u8>,
    /// It takes more than one exchange.
    pub(super) series: bool,
}

impl Established {
    /// The Child SA that the peer wanted in the place of one that we are replacing is not made.
    pub(super) fn forget_collided(&mut self, child: ChildId) {
        if let Some(Current::CreateChild(ours)) = &mut self.current
            && ours.collided.as_ref().is_some_and(|theirs| theirs.child == child)
        {
            ours.collided = None;
        }
    }
}

impl IkeSa {
    /// The peer's successor stands beside the one that we are asking for.
    pub(super) fn collide(&mut self, theirs: Option<Collided>) {
        if let (Some(theirs), State::Established(established)) = (theirs, &mut self.state)
            && let Some(Current::CreateChild(ours)) = &mut established.current
        {
            ours.collided = Some(theirs);
        }
    }

    /// Whether our successor of a Child SA gives way to the peer's; if not, the peer's is none.
    /// That holds whatever has become of the peer's meanwhile, if it was made: the peer has compared
    /// the same nonces, perhaps long ago.
    pub(super) fn yields(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        theirs: &Collided,
        our_lowest: &[u8],
    ) -> bool {
        let State::Established(established) = &self.state else { return false };
        shared.count(Counter::RekeyCollision);
        // One that has come to its end, though more than one exchange was needed, stands at both
        // ends: the peer had begun the others before it knew of our request.
        let stands = theirs.series && !established.theirs.iter().any(|s| s.makes(theirs.child));
        let yields = stands || our_lowest < theirs.lowest_nonce.as_slice();
        if !yields {
            self.drop_series(shared, |series| series.makes(theirs.child));
            self.mark_redundant(now, shared, theirs.child);
        }
        yields
    }

    /// The peer made this one, and will delete it. If it does not, since it began after it had
    /// given up ours and so saw no collision, we do.
    fn mark_redundant(&mut self, now: Instant, shared: &Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let Some(child) = established.children.get_mut(&child) else { return };
        if child.state != ChildState::Retiring {
            child.redundant = true;
            child.why = "redundant";
            (child.waiting, child.poll) = (None, None);
            child.rekey_at = Some(after(now, shared.config.patience()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOING: [Doing; 11] = [
        Doing::Nothing,
        Doing::CreateChild,
        Doing::RekeyChild { same: false },
        Doing::RekeyChild { same: true },
        Doing::DeleteChild { same: false },
        Doing::DeleteChild { same: true },
        Doing::RekeyIke,
        Doing::DeleteIke,
        Doing::FollowUpChild { same: false },
        Doing::FollowUpChild { same: true },
        Doing::FollowUpIke,
    ];

    /// RFC 7296 2.25.1 and 2.25.2, RFC 9370 2.2.4, sentence by sentence.
    #[test]
    fn the_table_is_that_of_the_rfc() {
        use Asked as A;
        use Doing as D;
        use Verdict as V;
        let row = |asked| {
            DOING.map(|doing| match verdict(doing, asked) {
                V::AsUsual => "usual",
                V::Compare => "compare",
                V::WithoutDelete => "without",
                V::ForgetOurs => "forget",
                V::NotNow(_) => "later",
            })
        };
        // nothing, create, rekey other, rekey same, delete other, delete same, rekey IKE, delete IKE,
        // and after CREATE_CHILD_SA: other, same, IKE
        let usual = "usual";
        assert_eq!(
            row(A::CreateChild),
            [usual, usual, usual, usual, usual, usual, "later", "later", usual, usual, "later"]
        );
        assert_eq!(
            row(A::RekeyChild),
            [
                usual, usual, usual, "compare", usual, "later", "later", "later", usual, "later",
                "later"
            ]
        );
        assert_eq!(
            row(A::DeleteChild),
            [usual, usual, usual, usual, usual, "without", usual, usual, usual, usual, usual]
        );
        assert_eq!(
            row(A::RekeyIke),
            [
                usual, "later", "later", "later", "later", "later", "compare", "later", "later",
                "later", "later"
            ]
        );
        assert_eq!(
            row(A::DeleteIke),
            [
                usual, "forget", "forget", "forget", "forget", "forget", "forget", "forget",
                "forget", "forget", "forget"
            ]
        );
        assert_eq!(verdict(D::RekeyIke, A::RekeyIke), V::Compare);
    }
}
