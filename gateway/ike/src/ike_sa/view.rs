//! What others may know of an IKE SA: the endpoint, to choose one, and those who ask for the status.

use std::time::Instant;

use super::{ChildSa, IkeSa, Job, State};
use crate::algorithms::IkeSuite;
use crate::config::{PeerName, RuleName};
use crate::leases::Holder;
use crate::natt::NatDetected;
use crate::selector::Sides;

impl IkeSa {
    /// Whether a rule has a Child SA here, or will get one: one more would be too many. A peer may
    /// have narrowed the one that there is: `of` the rule's traffic it must protect this.
    pub(crate) fn will_serve(&self, rule: &RuleName, of: Option<&Sides>) -> bool {
        let wanted = |job: &Job| matches!(job, Job::CreateChild(wish) if wish.rule == *rule && wish.replaces.is_none());
        let here = match &self.state {
            State::AwaitAuth(s) => s.child.as_ref().is_some_and(|child| child.serves(rule)),
            State::Established(s) => s.serves(rule, of),
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::HalfOpen(_)
            | State::Closing(_)
            | State::Closed => false,
        };
        here || self.jobs.iter().any(wanted)
    }

    /// The rule that it is made for, or that it serves.
    pub(crate) fn rule(&self) -> Option<&RuleName> {
        let asked = match &self.state {
            State::AwaitAuth(waiting) => waiting.child.as_ref().map(|child| &child.wish.rule),
            State::Established(_)
            | State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::HalfOpen(_)
            | State::Closing(_)
            | State::Closed => None,
        };
        let wanted = || self.jobs.iter().find_map(Job::rule);
        asked.or_else(wanted).or_else(|| self.children().next().map(|child| &child.rule.name))
    }

    /// Whether a job given to it will be done: it stands and is to stay, or is being made by us.
    pub(crate) fn takes_jobs(&self) -> bool {
        match &self.state {
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::AwaitAuth(_) => true,
            State::Established(s) => {
                let ending = self.jobs.iter().any(|j| matches!(j, Job::DeleteIke { .. }));
                !ending && !s.replaced
            }
            State::HalfOpen(_) | State::Closing(_) | State::Closed => false,
        }
    }

    /// Its Child SAs, if it stands.
    pub(crate) fn children(&self) -> impl Iterator<Item = &ChildSa> {
        let established = if let State::Established(e) = &self.state { Some(e) } else { None };
        established.into_iter().flat_map(|e| e.children.values()).map(Box::as_ref)
    }

    /// Whether it stood before some moment.
    pub(crate) fn stood_before(&self, moment: Instant) -> bool {
        matches!(&self.state, State::Established(s) if s.since <= moment)
    }

    /// With whom it is, or was.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let peer = PeerName::clone(&self.peer.as_ref()?.name);
        Some(Holder { peer, user: self.user.clone() })
    }

    /// What was negotiated, and who is behind NAT.
    pub(crate) fn negotiated(&self) -> (Option<IkeSuite>, NatDetected) {
        let nat = match &self.state {
            State::AwaitIntermediate(s) => s.rounds.nat,
            State::AwaitAuth(s) => s.nat,
            State::HalfOpen(s) => s.nat,
            State::Established(s) => s.nat,
            State::FindingAddress | State::AwaitInit(_) | State::Closing(_) | State::Closed => {
                NatDetected::default()
            }
        };
        (self.state.channel().map(|c| c.suite), nat)
    }

    /// Whether both ends fragment their messages.
    pub(crate) fn fragments(&self) -> bool {
        self.state.channel().is_some_and(|c| c.fragmentation().is_some())
    }

    /// Whether it withstands quantum computers; only what stands can be judged, since a PPK
    /// comes in at the end.
    pub(crate) fn is_quantum_safe(&self) -> Option<bool> {
        match &self.state {
            State::Established(s) => Some(s.channel.is_quantum_safe()),
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::AwaitAuth(_)
            | State::HalfOpen(_)
            | State::Closing(_)
            | State::Closed => None,
        }
    }

    /// Whether we are the original initiator.
    pub(crate) fn is_initiator(&self) -> bool {
        self.state.channel().is_none_or(|c| c.initiator)
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
