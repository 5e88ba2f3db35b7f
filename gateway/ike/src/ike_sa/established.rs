//! An IKE SA that stands, and one that is on its way out.

use std::collections::BTreeMap;
use std::time::Instant;

use gateway_wire::Header;
use zeroize::Zeroizing;

use super::child::{ChildSa, Withheld};
use super::follow_up::TheirSeries;
use super::init::NATT_PORT;
use super::jobs::{Current, Wish};
use super::mobility::Hints;
use super::put_off::PutOff;
use super::{ChildState, IkeSa, Job, Mobike, State};
use crate::algorithms::Group;
use crate::channel::Channel;
use crate::config::{PeerConfig, Renewal, RuleName, hard_limit};
use crate::counters::Counter;
use crate::crash::{self, Notice};
use crate::effect::Effect;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, ChildUse, Done, KernelCommand, KernelError};
use crate::natt::NatDetected;
use crate::selector::Sides;
use crate::shared::{Owner, Purpose, Shared};
use crate::time::{after, earlier};

/// An IKE SA that stands.
pub(crate) struct Established {
    pub(crate) channel: Channel,
    pub(crate) nat: NatDetected,
    pub(crate) since: Instant,
    /// Boxed: a node of the map has room for eleven, and mostly there is one.
    pub(crate) children: BTreeMap<ChildId, Box<ChildSa>>,
    /// The request of ours that is under way.
    pub(super) current: Option<Current>,
    /// Key exchanges that the peer has begun and that are to go on.
    pub(super) theirs: Vec<TheirSeries>,
    /// Whether the peer puts off what we ask for.
    pub(super) put_off: PutOff,
    /// New Child SAs that the peer has put off, and when to ask again.
    pub(super) later: Vec<(Instant, Wish)>,
    /// The answer to the peer's request that waits for the kernel; boxed, since mostly there is none.
    pub(super) withheld: Option<Box<Withheld>>,
    /// The Child SA of our last answer, which the peer may not have yet.
    pub(super) answered: Option<AnsweredChild>,
    /// SPIs of ours in a row that were of no use, since the kernel would not take them or addresses
    /// changed.
    pub(super) taken: u32,
    /// When the peer last proved that it lives, by IKE or by ESP.
    pub(super) last_inbound: Instant,
    /// When we last sent the peer an IKE message or a keepalive.
    pub(super) last_sent: Instant,
    /// What proves that the peer has lost the IKE SA (RFC 6290), once it has told us.
    pub(super) peer_token: Option<Zeroizing<Vec<u8>>>,
    /// Answers of the kernel that are awaited before the peer is asked whether it lives.
    queries: usize,
    /// Whether we began the first IKE SA of which this has come by rekeying: that is ours to make anew,
    /// whoever gave it the keys that it has.
    pub(super) began: bool,
    /// Whether the initiator may yet say that it did not accept our IKE_AUTH (RFC 7296 2.21.2).
    pub(super) unconfirmed: bool,
    /// When it is to be replaced.
    pub(super) renew_at: Option<Instant>,
    /// When it ends, replaced or not.
    pub(super) dies_at: Option<Instant>,
    /// Attempts in a row to rekey it that failed.
    pub(super) failures: u32,
    /// The key exchange method that the peer has asked for, and how often it did.
    pub(super) rekey_group: Option<(Group, u32)>,
    /// Whether another IKE SA has been begun in its place.
    pub(super) replaced: bool,
    /// Whether that one has taken over.
    pub(super) superseded: bool,
    /// If both ends speak MOBIKE.
    pub(super) mobike: Option<Box<Mobike>>,
    /// Where the peer may be, by its ESP.
    pub(super) hints: Hints,
}

/// A Child SA that we have agreed to. Until the peer is known to have our answer nothing can be
/// asked about it: the question could come first, and the peer would know nothing of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredChild {
    /// Our inbound SPI.
    pub(super) spi: u32,
    /// By then the peer has the answer, or has given us up.
    pub(super) until: Instant,
}

impl Established {
    pub(super) const fn new(now: Instant, channel: Channel, nat: NatDetected) -> Self {
        Self {
            began: channel.initiator,
            unconfirmed: !channel.initiator,
            channel,
            nat,
            since: now,
            children: BTreeMap::new(),
            current: None,
            theirs: Vec::new(),
            put_off: PutOff::new(),
            later: Vec::new(),
            withheld: None,
            answered: None,
            taken: 0,
            last_inbound: now,
            last_sent: now,
            peer_token: None,
            queries: 0,
            renew_at: None,
            dies_at: None,
            failures: 0,
            rekey_group: None,
            replaced: false,
            superseded: false,
            mobike: None,
            hints: Hints::NONE,
        }
    }

    /// An authentic message has come: the peer lives, and has the keys in use.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_inbound = now;
        if let Some(mobike) = &mut self.mobike {
            mobike.unconfirmed = false;
        }
    }

    /// From now on its lifetime counts.
    pub(super) fn begin_life(&mut self, now: Instant, shared: &mut Shared, peer: &PeerConfig) {
        if peer.lifetime.is_zero() {
            return;
        }
        self.renew_at = Some(after(now, shared.jittered_time(peer.lifetime)));
        self.dies_at = Some(after(now, hard_limit(peer.lifetime)));
    }

    pub(super) fn next_timeout(
        &self,
        peer: Option<&PeerConfig>,
        shared: &Shared,
    ) -> Option<Instant> {
        let retransmission = self.channel.next_retransmission();
        let withheld = self.withheld.as_ref().map(|w| w.deadline);
        let lifetime = earlier(self.renew_at, self.dies_at);
        let due = [
            retransmission,
            withheld,
            lifetime,
            self.liveness_due(peer),
            self.keepalive_due(shared),
            self.children_due(),
            self.answered.map(|a| a.until),
            self.series_due(),
            self.mobike.as_ref().and_then(|m| m.due()),
            self.hints.due(),
        ];
        due.into_iter().flatten().min()
    }

    /// RFC 3948 4: whoever is behind NAT keeps its mapping alive. ESP would do that too, but the
    /// octet costs less than to ask the kernel for it. Where the kernel sends it, it does so for
    /// IKE as well, which goes by the same ports.
    fn keepalive_due(&self, shared: &Shared) -> Option<Instant> {
        let interval = shared.config.keepalive_interval;
        let ours = self.nat.local && !interval.is_zero() && !self.kernel_keeps_alive();
        ours.then(|| after(self.last_sent, interval))
    }

    /// Whether a Child SA that sends has the kernel keep our mapping alive, by the path of IKE.
    fn kernel_keeps_alive(&self) -> bool {
        // Until the peer has shown that it is at its new address, ESP goes to the old one.
        self.mobike.as_ref().is_none_or(|mobike| mobike.unproven().is_none())
            && self.children.values().any(|c| c.keeps_alive() && c.state == ChildState::Installed)
    }

    /// While a request is under way its retransmission asks the question already, unless it was sent
    /// because of a hint.
    fn liveness_due(&self, peer: Option<&PeerConfig>) -> Option<Instant> {
        let interval = peer?.liveness_interval;
        let asks = self.channel.is_busy() && !matches!(self.current, Some(Current::Probe));
        let quiet = !interval.is_zero() && !asks && self.queries == 0;
        quiet.then(|| after(self.last_inbound, interval))
    }

    /// As [`IkeSa::will_serve`].
    pub(super) fn serves(&self, rule: &RuleName, of: Option<&Sides>) -> bool {
        if self.later.iter().any(|(_, wish)| wish.rule == *rule) {
            return true;
        }
        let under_way = self.current.as_ref().and_then(Current::offer);
        under_way.is_some_and(|offer| offer.serves(rule))
            || self.children.values().any(|c| c.rule.name == *rule && c.is_live() && c.protects(of))
    }

    /// Whether a Child SA that we have asked for is still to come.
    pub(super) fn awaits_child(&self) -> bool {
        let asking = self.current.as_ref().and_then(Current::offer).is_some();
        let mut children = self.children.values();
        let installing = children.any(|c| c.state == ChildState::Installing);
        asking || !self.later.is_empty() || installing
    }
}

impl IkeSa {
    /// What time brings to an IKE SA that stands.
    pub(super) fn established_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let peer = self.peer.clone();
        let path = self.path;
        let State::Established(established) = &mut self.state else { return };
        if established.keepalive_due(shared).is_some_and(|due| due <= now) {
            established.last_sent = now;
            if path.local.port() == NATT_PORT {
                shared.keepalive(path);
            }
        }
        if established.mobike.as_ref().and_then(|m| m.due()).is_some_and(|due| due <= now) {
            return self.addresses_changed(now, shared, false);
        }
        if established.withheld.as_ref().is_some_and(|w| w.deadline <= now) {
            return self.install_timed_out(now, shared);
        }
        if established.dies_at.is_some_and(|due| due <= now) {
            return self.delete_ike(now, shared, "lifetime over, and nothing has replaced it");
        }
        if established.renew_at.is_some_and(|due| due <= now) {
            established.renew_at = None;
            return self.renew(now, shared);
        }
        if established.answered.is_some_and(|a| a.until <= now) {
            established.answered = None;
            return self.next_job(now, shared);
        }
        if established.series_due().is_some_and(|due| due <= now) {
            return self.series_timed_out(now, shared);
        }
        if established.children_due().is_some_and(|due| due <= now) {
            return self.children_timeout(now, shared);
        }
        if established.hints.due().is_some_and(|due| due <= now) {
            return self.follow_hint(now, shared);
        }
        if established.liveness_due(peer.as_deref()).is_some_and(|due| due <= now) {
            self.check_liveness(now, shared);
        }
    }

    /// RFC 7296 2.4: ESP that arrives proves as much as an IKE message does, so the kernel is
    /// asked first.
    fn check_liveness(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        let installed = established.children.values().filter(|c| c.state != ChildState::Installing);
        let children: Vec<ChildId> = installed.map(|c| c.id).collect();
        established.queries = children.len();
        if children.is_empty() {
            return self.add_job(now, shared, Job::Liveness);
        }
        for child in children {
            shared.command(
                Owner::IkeSa(self.id, Purpose::QueryUse(child)),
                KernelCommand::QueryUse { child },
            );
        }
    }

    /// The kernel's answer for one Child SA; after the last one we know whether to ask the peer.
    pub(super) fn use_reported(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        _child: ChildId,
        result: Result<Done, KernelError>,
    ) {
        let peer = self.peer.clone();
        let State::Established(established) = &mut self.state else { return };
        if let Ok(Done::Use(ChildUse { idle_inbound: Some(idle), .. })) = result {
            let heard = now.checked_sub(idle).unwrap_or(established.last_inbound);
            established.last_inbound = established.last_inbound.max(heard);
        }
        established.queries = established.queries.saturating_sub(1);
        if established.queries == 0
            && established.liveness_due(peer.as_deref()).is_some_and(|due| due <= now)
        {
            self.add_job(now, shared, Job::Liveness);
        }
    }

    /// The IKE SA has lived its time: it gets new keys, or its rules get another IKE SA first and
    /// it goes when they have it (make before break). One that serves nobody just ends; all but
    /// rekeying is the business of the side that began.
    fn renew(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &self.state else { return };
        let began = established.began;
        if began && !established.children.values().any(|c| c.is_live()) {
            return self.delete_ike(now, shared, "lifetime over, no Child SA");
        }
        match self.peer.as_ref().map(|p| p.renewal) {
            Some(Renewal::Rekey) => self.add_job(now, shared, Job::RekeyIke),
            Some(_) if began => self.reauthenticate(shared),
            Some(_) | None => {}
        }
    }

    /// Gives up everything that the IKE SA holds: Child SAs, reserved SPIs, waiting jobs. The
    /// rules that lose something are told, with the error if it was one.
    pub(super) fn abandon(
        &mut self,
        shared: &mut Shared,
        reason: &'static str,
        error: Option<String>,
    ) {
        if let Some(ike_sa) = self.supersedes.take() {
            shared.effects.push(Effect::NotSuperseded { ike_sa });
        }
        let mut lost = Vec::new();
        let with = self.holder();
        match &mut self.state {
            State::Established(established) => {
                if let Some(holder) = with {
                    shared.contact_lost(&holder, self.id);
                }
                established.withheld = None;
                let current = established.current.take();
                if let Some(offer) = current.as_ref().and_then(Current::offer) {
                    shared.release_spi(offer.spi);
                    lost.push(RuleName::clone(&offer.wish.rule));
                }
                lost.extend(established.later.drain(..).map(|(_, wish)| wish.rule));
                let children: Vec<ChildId> = established.children.keys().copied().collect();
                for child in children {
                    self.remove_child(shared, child, reason);
                }
                self.drop_series(shared, |_| true);
            }
            State::AwaitAuth(waiting) => {
                if let Some(child) = &waiting.child {
                    shared.release_spi(child.spi);
                    lost.push(RuleName::clone(&child.wish.rule));
                }
            }
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::HalfOpen(_)
            | State::Closing(_)
            | State::Closed => {}
        }
        for job in self.jobs.drain(..) {
            if let Job::CreateChild(wish) = job {
                lost.push(wish.rule);
            }
        }
        let error = error.or_else(|| (!lost.is_empty()).then(|| reason.to_owned()));
        shared
            .effects
            .extend(lost.into_iter().map(|rule| Effect::RuleLost { rule, error: error.clone() }));
    }

    /// Takes a Child SA out of the kernel and out of our tables.
    pub(super) fn remove_child(
        &mut self,
        shared: &mut Shared,
        child: ChildId,
        reason: &'static str,
    ) {
        let holder = self.holder();
        let State::Established(established) = &mut self.state else { return };
        let Some(removed) = established.children.remove(&child) else { return };
        shared.children.remove(child, removed.outbound_spi, holder.as_ref());
        shared.reqids.release(&removed.rule.name, &removed.pairs);
        self.drop_series(shared, |series| series.replaces(child));
        shared.release_spi(removed.inbound_spi);
        shared.count(Counter::ChildSaRemoved);
        let words = format!("removing the Child SA of rule {}", removed.rule.name);
        let heir = shared.senders.ends(&removed.rule.name, &removed.pairs, child);
        shared.command_after(heir, Owner::Endpoint(words), KernelCommand::RemoveChild { child });
        self.event(
            shared,
            EventKind::ChildRemoved {
                rule: RuleName::clone(&removed.rule.name),
                inbound_spi: removed.inbound_spi,
                outbound_spi: removed.outbound_spi,
                reason,
            },
        );
        // One that has been replaced is no loss.
        if removed.is_live() {
            let rule = RuleName::clone(&removed.rule.name);
            shared.effects.push(Effect::RuleLost { rule, error: None });
        }
    }

    /// The peer has told us its token, perhaps not for the first time (RFC 6290 4.2, 4.4).
    pub(super) fn keep_token(&mut self, token: Option<Zeroizing<Vec<u8>>>) {
        if let (State::Established(established), Some(token)) = (&mut self.state, token) {
            established.peer_token = Some(token);
        }
    }

    /// Whether a datagram in the clear proves that the peer has lost the IKE SA; if so, it ends
    /// here without a word, and its rules get another one (RFC 6290 4.5).
    pub(super) fn check_crash(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        datagram: &[u8],
    ) -> bool {
        let State::Established(established) = &self.state else { return false };
        let token = established.peer_token.as_ref().map(|t| t.as_slice());
        match crash::notice(token, header, datagram) {
            Notice::None => return false,
            Notice::Forged => shared.count(Counter::CrashTokenForged),
            Notice::Lost => {
                shared.count(Counter::PeerCrashed);
                self.event(shared, EventKind::PeerCrashed);
                self.close(shared, "the peer has lost it");
            }
        }
        true
    }

    /// The kernel did not answer in time: the Child SA is refused, the IKE SA stands.
    fn install_timed_out(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        let Some(withheld) = established.withheld.take() else { return };
        if let Some(child) = withheld.child() {
            // It may yet succeed: what is removed afterwards is gone either way.
            self.remove_child(shared, child, "the kernel did not answer in time");
        }
        self.release_answer(now, shared, *withheld, Err(Error::KernelTimeout));
    }
}
