//! From one Child SA to its successor without losing a packet (RFC 7296 2.8): who switches when,
//! and when the old one goes.
//!
//! The initiator of the exchange has the peer's word that the successor receives: it sends by it
//! at once, and then deletes the old one. The responder receives by the successor before it
//! answers, and sends by it when the initiator is known to have the answer: its next request, the
//! Delete of the old one as a rule, or its first packet. At both ends the old one receives until
//! it has been silent, since packets may still be under way.
//!
//! It is no different where the successor belongs to another IKE SA, made for reauthentication
//! (RFC 7296 2.8.3), but that nothing in the exchange names the old one: `Senders` finds it.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::jobs::{Current, Wish};
use super::{ChildSa, ChildState, Established, IkeSa, Job, State};
use crate::config::{Action, RuleName, Start};
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, Done, KernelCommand, KernelError};
use crate::selector;
use crate::shared::{Owner, Purpose, Shared};
use crate::time::{after, earlier};

/// A responder looks after this long whether packets come in by the successor, and then after
/// twice as long …
const FIRST_POLL: Duration = Duration::from_millis(100);
/// … up to this long.
const LAST_POLL: Duration = Duration::from_secs(5);
/// An old Child SA goes when no packet has come in for this long …
const SILENCE: Duration = Duration::from_secs(1);
/// … and after so many looks in any case.
const MOST_LOOKS: u32 = 60;
/// After so many looks, 6.4 s, whoever made another IKE SA has its Child SA or has given it up. It
/// may as well have lost the old one, by which we would send for ever if it said nothing.
const MOST_LOOKS_OF_HEIR: u32 = 7;

/// When to look again whether packets come in on a Child SA.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    pub(super) at: Instant,
    interval: Duration,
    /// How many had come at the last look.
    packets: Option<u64>,
    looks: u32,
    /// Whether none had come since the look before.
    silent: bool,
}

impl Poll {
    /// For the first packet of a successor.
    pub(super) fn first(now: Instant) -> Self {
        Self {
            at: after(now, FIRST_POLL),
            interval: FIRST_POLL,
            packets: None,
            looks: 0,
            silent: false,
        }
    }

    /// For the silence of an old one: counted from the first look, at once.
    const fn silence(now: Instant) -> Self {
        Self { at: now, interval: SILENCE, packets: None, looks: 0, silent: false }
    }

    fn next(&mut self, now: Instant, state: ChildState) {
        self.looks = self.looks.saturating_add(1);
        if state == ChildState::Receiving && self.looks > 1 {
            self.interval = self.interval.saturating_mul(2).min(LAST_POLL);
        }
        self.at = after(now, self.interval);
    }
}

impl Established {
    /// When something is to be done about Child SAs.
    pub(super) fn children_due(&self) -> Option<Instant> {
        let children = self.children.values();
        let due = children.filter_map(|c| c.due()).min();
        let later = self.later.iter().map(|(at, _)| *at).min();
        earlier(later, due)
    }

    /// The live successor of a Child SA; one that the peer may not know only if there is no other.
    fn successor(&self, child: ChildId) -> Option<&ChildSa> {
        let children = self.children.values().map(Box::as_ref);
        let live = children.filter(|c| c.replaces == Some(child) && c.is_live());
        live.min_by_key(|c| (c.doubtful, c.id))
    }

    /// Whether a Child SA can and needs to be replaced by us.
    pub(super) fn wants_successor(&self, child: ChildId) -> bool {
        let is_live = self.children.get(&child).is_some_and(|c| c.is_live());
        is_live && self.successor(child).is_none_or(|c| c.doubtful)
    }

    /// Whether it is not clear yet which of two successors stays: both ends replace the same
    /// Child SA, and the answer to our own request is still to come.
    fn is_contested(&self, child: &ChildSa) -> bool {
        let Some(Current::CreateChild(current)) = &self.current else { return false };
        current.collided.as_ref().is_some_and(|c| c.child == child.id)
            && child
                .replaces
                .and_then(|old| self.children.get(&old))
                .is_some_and(|old| old.state == ChildState::Installed)
    }
}

impl IkeSa {
    /// The peer has sent another request: with a window of one, it has our answers to those
    /// before (RFC 7296 2.3), unless a failover was in between.
    pub(super) fn peer_has_answers(&mut self, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        established.answered = None;
        let waiting = established
            .children
            .values()
            .filter(|c| c.state == ChildState::Receiving && c.waiting.is_some() && !c.doubtful)
            .filter(|c| !established.is_contested(c));
        let waiting: Vec<ChildId> = waiting.map(|c| c.id).collect();
        for child in waiting {
            self.switch_to(shared, child);
        }
    }

    /// From now on we send by this Child SA.
    pub(crate) fn switch_to(&mut self, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let Some(successor) = established.children.get_mut(&child) else { return };
        let Some(spec) = successor.waiting.take() else { return };
        successor.state = ChildState::Installed;
        successor.poll = None;
        let old = successor.replaces;
        let asked = successor.begins(shared);
        // It is the one of our last answer, or of one before.
        established.answered = None;
        shared.command(
            Owner::IkeSa(self.id, Purpose::InstallOutbound(child)),
            KernelCommand::InstallOutbound(spec),
        );
        shared.forget_acquire(asked);
        if let Some(old) = old {
            self.put_judgement_off(shared, old, child);
            self.retire(shared, old);
        }
    }

    /// The kernel has answered the installation of what sends.
    pub(super) fn outbound_installed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        result: Result<(), KernelError>,
    ) {
        let State::Established(established) = &self.state else { return };
        let Some(rule) = established.children.get(&child).map(|c| Arc::clone(&c.rule.name)) else {
            return;
        };
        if let Err(error) = result {
            self.child_failed(shared, Some(rule), false, Error::Kernel(error));
            self.delete_child(now, shared, child, "the kernel refused its outbound SA");
        }
    }

    /// A successor sends instead of this Child SA, or it is redundant: it only receives from now on.
    fn retire(&mut self, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let Some(old) = established.children.get_mut(&child) else { return };
        let before = old.state;
        if before == ChildState::Retiring {
            return;
        }
        old.state = ChildState::Retiring;
        (old.waiting, old.poll, old.rekey_at, old.judgement) = (None, None, None, None);
        if before == ChildState::Installed {
            let words = format!("retiring the Child SA of rule {}", old.rule.name);
            let heir = shared.senders.ends(&old.rule.name, &old.pairs, child);
            let command = KernelCommand::RemoveOutbound { child };
            shared.command_after(heir, Owner::Endpoint(words), command);
        }
    }

    /// Initiator: the old Child SA, or our redundant new one, goes at both ends.
    pub(super) fn retire_and_delete(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        why: &'static str,
    ) {
        self.retire(shared, child);
        let State::Established(established) = &mut self.state else { return };
        let Some(old) = established.children.get_mut(&child) else { return };
        old.why = why;
        // Deleted by the peer already: it is being watched.
        if old.poll.is_none() {
            let (spi, peer_spi) = (old.inbound_spi, old.outbound_spi);
            self.add_job(now, shared, Job::DeleteChild { spi, peer_spi });
        }
    }

    /// Who makes a successor deletes the old Child SA; if the successor goes before that, nobody
    /// would. Each end holds something else for the one in use then: both are rid of it.
    pub(super) fn delete_stranded(&mut self, shared: &mut Shared) {
        let State::Established(established) = &self.state else { return };
        let deleting = |spi: u32| {
            let current = matches!(
                &established.current,
                Some(Current::DeleteChild { spi: s, .. }) if *s == spi
            );
            current
                || self
                    .jobs
                    .iter()
                    .any(|j| matches!(j, Job::DeleteChild { spi: s, .. } if *s == spi))
        };
        let stranded = established.children.values().filter(|c| {
            c.state == ChildState::Retiring
                && c.poll.is_none()
                && established.successor(c.id).is_none()
                && !deleting(c.inbound_spi)
        });
        let stranded: Vec<(u32, u32)> = stranded.map(|c| (c.inbound_spi, c.outbound_spi)).collect();
        for (spi, peer_spi) in stranded {
            shared.half_close(spi, self.id);
            self.jobs.push_back(Job::DeleteChild { spi, peer_spi });
        }
    }

    /// The peer knows that a Child SA is gone: it goes here too, when no packet comes any more.
    pub(super) fn await_silence(&mut self, now: Instant, spi: u32) {
        let State::Established(established) = &mut self.state else { return };
        let retiring = established
            .children
            .values_mut()
            .find(|c| c.inbound_spi == spi && c.state == ChildState::Retiring && c.poll.is_none());
        if let Some(old) = retiring {
            old.poll = Some(Poll::silence(now));
        }
    }

    /// The peer deletes a Child SA, named by its SPI in ESP from us. Gives our SPI for the Delete
    /// payload of the answer, if it is to have one (RFC 7296 1.4.1, 2.25.1).
    pub(super) fn deleted_by_peer(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
    ) -> Option<u32> {
        let State::Established(established) = &self.state else { return None };
        let old = established.children.get(&child)?;
        let spi = old.inbound_spi;
        let ours =
            matches!(&established.current, Some(Current::DeleteChild { spi: s, .. }) if *s == spi);
        let rule = Arc::clone(&old.rule.name);
        let mut others = established.children.values().filter(|c| c.id != child);
        // Others of the rule may protect something else, if the peer has narrowed all of them. As
        // for `Senders` the first of the selectors decides: a peer may delete many at once.
        let first = old.pairs.first().map(|(pair, _)| selector::sides(pair));
        let does_the_same = |c: &ChildSa| {
            c.replaces == Some(child) || c.rule.name == rule && c.protects(first.as_ref())
        };
        if !others.any(|c| c.is_live() && does_the_same(c)) {
            self.remove_child(shared, child, "deleted by the peer");
            return Some(spi);
        }
        let successor = established.successor(child).map(|c| c.id);
        if let Some(successor) = successor {
            self.switch_to(shared, successor);
        }
        self.retire(shared, child);
        if let (None, State::Established(established)) = (successor, &mut self.state)
            && let Some(old) = established.children.get_mut(&child)
        {
            old.why = "deleted by the peer";
        }
        self.await_silence(now, spi);
        self.jobs.retain(|job| !matches!(job, Job::DeleteChild { spi: s, .. } if *s == spi));
        (!ours).then_some(spi)
    }

    /// Another IKE SA serves all that this one did but the Child SAs that are `left`, for which the peer
    /// gave no other: those stay, and another attempt is made. If none is left, the peer may
    /// send by the old Child SAs until it has got a packet by the new ones: the old ones receive until
    /// they are silent, and then the IKE SA ends.
    pub(crate) fn superseded(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        left: &BTreeSet<ChildId>,
    ) {
        let State::Established(established) = &mut self.state else {
            return self.delete_ike(now, shared, "superseded");
        };
        if !left.is_empty() {
            let live = established.children.values().filter(|c| c.is_live());
            let served = live.map(|c| c.id).filter(|child| !left.contains(child));
            for child in served.collect::<Vec<_>>() {
                self.retire_and_delete(now, shared, child, "superseded");
            }
            return self.not_superseded(now, shared);
        }
        established.superseded = true;
        let mut lost: Vec<_> = established.later.drain(..).map(|(_, wish)| wish.rule).collect();
        self.jobs.retain(|job| {
            lost.extend(job.rule().cloned());
            !matches!(job, Job::CreateChild(_) | Job::RekeyIke)
        });
        let lost = lost.into_iter().map(|rule| Effect::RuleLost { rule, error: None });
        shared.effects.extend(lost);
        self.next_job(now, shared);
    }

    /// If it is superseded: whatever it still got only receives as well, and it ends when all of
    /// that is silent.
    pub(super) fn wind_up(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &self.state else { return };
        if !established.superseded {
            return;
        }
        let mut children = established.children.values();
        let silent =
            children.all(|c| c.state == ChildState::Retiring && c.poll.is_some_and(|p| p.silent));
        if silent && established.withheld.is_none() {
            return self.delete_ike(now, shared, "superseded");
        }
        let live = established.children.values().filter(|c| c.is_live());
        let standing = live.filter(|c| c.state != ChildState::Installing);
        let standing: Vec<_> =
            standing.map(|c| (c.id, c.inbound_spi, RuleName::clone(&c.rule.name))).collect();
        for (child, spi, rule) in standing {
            self.retire(shared, child);
            self.await_silence(now, spi);
            // As a rule its successor serves that, but the peer may have refused it.
            shared.effects.push(Effect::RuleLost { rule, error: None });
        }
    }

    /// What time brings to Child SAs.
    pub(super) fn children_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        let (mut looks, mut limits, mut judgements) = (Vec::new(), Vec::new(), Vec::new());
        for child in established.children.values_mut() {
            if let Some(poll) = &mut child.poll
                && poll.at <= now
            {
                poll.next(now, child.state);
                looks.push(child.id);
            }
            if child.rekey_at.is_some_and(|at| at <= now) {
                child.rekey_at = None;
                limits.push(child.id);
            }
            let judgement = child.judgement.take_if(|judgement| judgement.at <= now);
            judgements.extend(judgement.map(|judgement| (child.id, judgement)));
        }
        let due: Vec<Wish> =
            established.later.extract_if(.., |(at, _)| *at <= now).map(|(_, wish)| wish).collect();
        for wish in due {
            self.add_job(now, shared, Job::CreateChild(wish));
        }
        for child in looks {
            let owner = Owner::IkeSa(self.id, Purpose::Poll(child));
            shared.command(owner, KernelCommand::QueryUse { child });
        }
        for (child, judgement) in judgements {
            self.judge(now, shared, child, judgement);
        }
        for child in limits {
            self.child_expired(now, shared, child, false);
        }
    }

    /// The kernel has said how many packets have come in.
    pub(super) fn poll_answered(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        result: Result<Done, KernelError>,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let contested =
            established.children.get(&child).is_some_and(|c| established.is_contested(c));
        let superseded = established.superseded;
        let Some(polled) = established.children.get_mut(&child) else { return };
        let Some(poll) = &mut polled.poll else { return };
        let packets = if let Ok(Done::Use(used)) = result { Some(used.packets_in) } else { None };
        let before = core::mem::replace(&mut poll.packets, packets);
        // One look is no silence yet; an error means that the kernel has no such SA any more.
        poll.silent = packets.is_none() || packets == before || poll.looks >= MOST_LOOKS;
        let silent = poll.silent;
        let (state, looks) = (polled.state, poll.looks);
        let heard = packets.is_some_and(|p| p > 0);
        let heir = polled.replaces.is_none();
        match state {
            ChildState::Receiving
                if (heard || heir && looks >= MOST_LOOKS_OF_HEIR) && !contested =>
            {
                self.switch_to(shared, child);
            }
            // The peer has all of them until it is told that the IKE SA goes.
            ChildState::Retiring if superseded => self.wind_up(now, shared),
            ChildState::Retiring if silent => {
                let why = polled.why;
                self.remove_child(shared, child, why);
            }
            ChildState::Installing
            | ChildState::Receiving
            | ChildState::Installed
            | ChildState::Retiring => {}
        }
    }

    /// A soft limit was reached, or a hard one: the Child SA gets a successor, or goes.
    pub(crate) fn child_expired(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        hard: bool,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let begins = established.channel.initiator;
        let Some(expired) = established.children.get_mut(&child) else { return };
        let again = Wish::like(expired);
        if hard {
            if !expired.is_live() {
                return self.remove_child(shared, child, "expired");
            }
            shared.count(Counter::ChildSaExpired);
            if expired.failures > 0 {
                // RFC 7296 2.8: where rekeying fails, the IKE SA and all its Child SAs are closed.
                return self.delete_ike(now, shared, "rekeying has failed up to the hard limit");
            }
            let by_us =
                matches!(&expired.rule.action, Action::Protect(p) if p.start != Start::Respond);
            self.delete_child(now, shared, child, "expired before it had a successor");
            // One end begins, lest there be two; the other one finds out soon enough if it does not.
            if begins && by_us {
                self.ask_again(now, shared, again);
            }
            return;
        }
        if expired.redundant {
            return self.end_redundant(now, shared, child);
        }
        self.renew_child(now, shared, child);
    }

    /// A Child SA gets a successor.
    pub(super) fn want_successor(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let old = established.children.get_mut(&child);
        let Some(old) = old.filter(|c| c.is_live() && !c.successor_wanted) else { return };
        old.successor_wanted = true;
        let wish = Wish { replaces: Some(child), ..Wish::like(old) };
        self.add_job(now, shared, Job::CreateChild(wish));
    }

    /// The peer has left it to us to delete the successor that it made and that the nonces are
    /// against: so it has compared none, and takes that one, which is its newest, for the one in use.
    /// libreswan sends nothing any more when that goes. So it gets a newer one first.
    fn end_redundant(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &self.state else { return };
        let Some(redundant) = established.children.get(&child) else { return };
        let (rule, pairs) = (Arc::clone(&redundant.rule.name), redundant.pairs.clone());
        let stays = established.children.values().find(|c| {
            let same = c.pairs.iter().map(|(s, _)| s).eq(pairs.iter().map(|(s, _)| s));
            c.is_live() && c.rule.name == rule && same
        });
        if let Some(stays) = stays.map(|stays| stays.id) {
            self.want_successor(now, shared, stays);
        }
        self.retire_and_delete(now, shared, child, "redundant");
    }

    /// A Child SA did not get its successor: it is tried again, until the hard limit ends it.
    pub(super) fn rekey_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        replaces: Option<ChildId>,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let old = replaces.and_then(|old| established.children.get_mut(&old));
        let Some(old) = old.filter(|c| c.is_live()) else { return };
        let wait = shared.backoff(old.failures);
        old.failures = old.failures.saturating_add(1);
        old.successor_wanted = false;
        old.rekey_at = Some(after(now, wait));
    }

    /// The peer does not know the Child SA that we want to replace: neither do we any more, and
    /// its rule gets one from scratch (RFC 7296 2.25).
    pub(super) fn replaced_is_unknown(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
    ) {
        let State::Established(established) = &self.state else { return };
        let Some(old) = established.children.get(&child).filter(|c| c.is_live()) else { return };
        let again = Wish::like(old);
        self.event(shared, EventKind::PutOff(Error::ChildSaNotFound(old.inbound_spi)));
        self.remove_child(shared, child, "the peer does not have it");
        self.ask_again(now, shared, again);
    }
}
