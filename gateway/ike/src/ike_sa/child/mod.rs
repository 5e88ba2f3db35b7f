//! Child SAs: what we know of one, and how the kernel gets it (RFC 7296 1.2, 1.3.1, 2.17). What a
//! responder agrees to is in `request`, how it answers in `answer`, what follows if nothing comes of
//! one in `failure`, and what both have agreed on in `terms`. The exchange that carries them, IKE_AUTH or CREATE_CHILD_SA, makes no
//! difference here.

mod answer;
mod failure;
mod request;
mod terms;

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

pub(super) use self::answer::{ChildWords, Withheld};
pub(super) use self::request::{ChildRequest, Negotiated, negotiate};
pub(super) use self::terms::{Narrowed, Terms};
use super::derive::Agreed;
use super::offer::{ChildAnswer, ChildOffer};
use super::surplus::{ALONE, Judgement, Known};
use super::switch::Poll;
use super::{IkeSa, Job, State, Wish};
use crate::algorithms::{ChildKeyExchange, EspSuite};
use crate::config::{Action, Mode, Rule, RuleName};
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{
    ChildId, ChildSpec, Encapsulation, IkeSaId, KernelCommand, KernelError, Selector,
    kernel_decapsulates,
};
use crate::reqids::Asked;
use crate::selector::{self, Sides};
use crate::shared::{Owner, Purpose, Shared};
use crate::time::{after, earlier};

/// SPIs in a row that the kernel may not take before the Child SA is given up.
const MOST_TAKEN: u32 = 3;

/// One Child SA.
#[derive(Debug, Clone)]
pub(crate) struct ChildSa {
    pub(crate) id: ChildId,
    pub(crate) rule: Arc<Rule>,
    pub(crate) mode: Mode,
    pub(crate) inbound_spi: u32,
    pub(crate) outbound_spi: u32,
    pub(crate) suite: EspSuite,
    /// Its own key exchange, if it had one.
    pub(crate) key_exchange: Option<ChildKeyExchange>,
    /// Whether that, or those of the IKE SA whose SK_d its keys come from, withstand quantum computers.
    pub(crate) quantum_safe: bool,
    pub(crate) pairs: Vec<(Selector, u32)>,
    pub(crate) encapsulation: Option<Encapsulation>,
    pub(crate) since: Instant,
    pub(crate) state: ChildState,
    /// The Child SA that goes when this one stands.
    pub(super) replaces: Option<ChildId>,
    /// Whether it, or the first that it has taken the place of, was asked for by us because of a
    /// packet.
    pub(super) for_packet: bool,
    /// Of the one that it has taken the place of, if that was still to come.
    pub(super) judgement: Option<Judgement>,
    /// Until then no other is asked for beside it.
    pub(super) alone_until: Option<Instant>,
    /// Whether a successor is wanted already.
    pub(super) successor_wanted: bool,
    /// When a successor is wanted, as far as time decides, or wanted again; of a redundant one of
    /// the peer's, when it is our turn to delete it.
    pub(super) rekey_at: Option<Instant>,
    /// Attempts in a row to get a successor that failed.
    pub(super) failures: u32,
    /// What the kernel still needs in order to send, while the peer is not known to receive.
    pub(super) waiting: Option<Box<ChildSpec>>,
    /// Whether the peer may have lost our answer in a failover: then only a packet shows that it
    /// receives.
    pub(super) doubtful: bool,
    /// It is one too many: both ends replaced the same Child SA, and this successor is the one to go,
    /// or another protects all that it does.
    pub(super) redundant: bool,
    /// Why it goes, once it does.
    pub(super) why: &'static str,
    /// When to look again whether packets come in.
    pub(super) poll: Option<Poll>,
}

impl ChildSa {
    /// Whether it is to stay: it carries traffic, or will.
    pub(crate) fn is_live(&self) -> bool {
        self.state != ChildState::Retiring && !self.redundant
    }

    /// Whether it protects this; `None`: whatever it does.
    pub(super) fn protects(&self, traffic: Option<&Sides>) -> bool {
        traffic.is_none_or(|traffic| selector::protect(&self.pairs, traffic))
    }

    /// Whether the kernel sends this by it, for this rule.
    pub(crate) fn sends(&self, rule: &RuleName, packet: &Sides) -> bool {
        self.state == ChildState::Installed
            && self.rule.name == *rule
            && self.protects(Some(packet))
    }

    /// What sends the same on another IKE SA than its own because a packet has asked for it.
    fn anew(&self, shared: &Shared, own: IkeSaId) -> Option<ChildId> {
        let sending = shared.senders.sending(&self.rule.name, &self.pairs)?;
        let is_anew = self.for_packet
            && sending.for_packet
            && shared.children.owner(sending.child).is_some_and(|owner| owner != own);
        is_anew.then_some(sending.child)
    }

    /// It sends from now on. Gives the acquire that is answered thereby.
    pub(super) fn begins(&self, shared: &mut Shared) -> Option<Asked> {
        let (rule, pairs) = (&self.rule.name, &self.pairs);
        shared.senders.begins(rule, pairs, self.id, self.for_packet);
        shared.reqids.begins(rule, pairs)
    }

    /// When something is to be done about it.
    pub(super) fn due(&self) -> Option<Instant> {
        let poll = self.poll.map(|poll| poll.at);
        earlier(earlier(self.rekey_at, poll), self.judgement.map(|judgement| judgement.at))
    }

    /// Whether the kernel sends keepalives as long as this one sends.
    pub(super) fn keeps_alive(&self) -> bool {
        self.encapsulation.is_some_and(|e| e.keepalive.is_some())
    }
}

/// What the kernel has of a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildState {
    /// It was asked to install it.
    Installing,
    /// What receives: the peer is not known to have its own half yet.
    Receiving,
    /// Everything.
    Installed,
    /// What receives, until that is silent: a successor sends.
    Retiring,
}

impl IkeSa {
    /// Initiator: the peer has agreed in IKE_AUTH; the kernel gets the Child SA.
    pub(super) fn install_offered(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        answer: ChildAnswer,
        nonces: (&[u8], &[u8]),
    ) {
        self.install_answered(now, shared, offer, answer, Agreed::new(None, nonces), false);
    }

    /// Initiator: the peer has agreed; the kernel gets the Child SA. `redundant`: only what
    /// receives, until the peer has heard that it goes again.
    pub(super) fn install_answered(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        answer: ChildAnswer,
        agreed: Agreed<'_>,
        redundant: bool,
    ) {
        let State::Established(established) = &self.state else { return };
        if offer.protect.quantum_safe && !established.channel.is_quantum_safe() {
            let error = Error::NotQuantumSafe(established.channel.suite);
            return self.offer_failed(now, shared, offer, error);
        }
        if offer.is_deleted(&answer) {
            return self.offer_failed(now, shared, offer, Error::DeletedBefore);
        }
        if !shared.policies.still_wants(&offer.rule, established.channel.is_quantum_safe()) {
            return self.offer_failed(now, shared, offer, Error::RuleChanged);
        }
        let ends = self.ends(&shared.config);
        if !answer.narrowed.suits(offer.protect.mode, offer.spi, ends) {
            let wish = offer.wish.clone();
            self.offer_failed(now, shared, offer, Error::AddressesChanged);
            return self.ask_with_another_spi(now, shared, wish);
        }
        // The peer has it all the same, and may send by it.
        let known = self.known(&offer, &answer);
        if known.is_some() {
            let rule = RuleName::clone(&offer.rule.name);
            self.child_failed(shared, Some(rule), true, Error::NothingNew);
        }
        let in_place_of = known.and_then(Known::same);
        let keys = agreed.child_keys(&established.channel, answer.choice.suite);
        let terms = Terms {
            rule: offer.rule,
            protect: offer.protect,
            id: offer.id,
            spi: offer.spi,
            choice: answer.choice,
            narrowed: answer.narrowed,
            replaces: offer.wish.replaces.or(in_place_of),
            for_packet: offer.wish.for_packet,
        };
        let (mut child, spec) = terms.into_child(shared, self, &keys, true);
        child.redundant = redundant || known.is_some_and(Known::is_too_many);
        child.alone_until = in_place_of.map(|_| after(now, ALONE));
        self.install(now, shared, child, spec);
    }

    /// Responder: the kernel gets the Child SA; the answer waits for it.
    pub(super) fn install_withheld(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        mut withheld: Withheld,
        negotiated: Negotiated,
    ) {
        withheld.spec = Some(negotiated.spec.clone());
        withheld.child = Some((negotiated.child.id, negotiated.answer));
        withheld.deadline = after(now, shared.config.install_timeout);
        if let State::Established(established) = &mut self.state {
            established.withheld = Some(Box::new(withheld));
        }
        self.install(now, shared, negotiated.child, negotiated.spec);
    }

    fn install(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        mut child: ChildSa,
        spec: Box<ChildSpec>,
    ) {
        let lifetime = match &child.rule.action {
            Action::Protect(protect) => protect.lifetime.time,
            Action::Bypass | Action::Discard => Duration::ZERO,
        };
        let holder = self.holder();
        let State::Established(established) = &mut self.state else { return };
        child.since = now;
        if !lifetime.is_zero() && !child.redundant {
            child.rekey_at = Some(after(now, shared.jittered_time(lifetime)));
        }
        let id = child.id;
        let command = if child.waiting.is_some() || child.redundant {
            KernelCommand::InstallInbound(spec)
        } else {
            KernelCommand::InstallChild(spec)
        };
        shared.children.insert(id, child.outbound_spi, self.id, holder);
        established.children.insert(id, Box::new(child));
        shared.command(Owner::IkeSa(self.id, Purpose::InstallChild(id)), command);
    }

    /// The kernel has answered an installation.
    pub(super) fn child_installed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        result: Result<(), KernelError>,
    ) {
        let State::Established(established) = &mut self.state else { return };
        // Absent: it was given up in the meantime, and its removal stands behind in the queue.
        let Some(installed) = established.children.get_mut(&child) else { return };
        let (rule, spi) = (Arc::clone(&installed.rule.name), installed.inbound_spi);
        let withheld = established.withheld.take_if(|w| w.child() == Some(child)).map(|w| *w);
        let (result, withheld) = match (result, withheld) {
            (Err(KernelError::SpiInUse), Some(withheld)) => {
                match self.take_another_spi(shared, child, withheld) {
                    None => return,
                    Some(withheld) => (Err(KernelError::SpiInUse), Some(withheld)),
                }
            }
            other => other,
        };
        let holder = self.holder();
        let State::Established(established) = &mut self.state else { return };
        let Some(installed) = established.children.get_mut(&child) else { return };
        match (result, withheld) {
            (Ok(()), withheld) => {
                established.taken = 0;
                shared.receives(spi);
                self.child_stands(now, shared, child);
                if let Some(mut withheld) = withheld {
                    let words = withheld.child.take().map(|(_, words)| words);
                    self.release_answer(now, shared, withheld, Ok(words));
                }
                self.check_superseded(now, shared);
            }
            (Err(error), withheld) => {
                let replaces = installed.replaces;
                let peer_spi = installed.outbound_spi;
                let Some(failed) = established.children.remove(&child) else { return };
                shared.children.remove(child, peer_spi, holder.as_ref());
                shared.reqids.release(&failed.rule.name, &failed.pairs);
                shared.release_spi(spi);
                // It may have inherited while the kernel was busy. Whoever waits behind it in turn
                // begins with the first packet.
                let _heir = shared.senders.ends(&failed.rule.name, &failed.pairs, child);
                let again = error == KernelError::SpiInUse && withheld.is_none();
                let error = Error::Kernel(error);
                if let Some(withheld) = withheld {
                    self.release_answer(now, shared, withheld, Err(error));
                } else {
                    // The peer believes that it stands.
                    let served = self.will_serve(&rule, None);
                    self.child_failed(shared, Some(rule), served, error);
                    self.rekey_failed(now, shared, replaces);
                    self.add_job(now, shared, Job::DeleteChild { spi, peer_spi });
                    if again {
                        shared.count(Counter::SpiTaken);
                        let wish = Wish { replaces, ..Wish::like(&failed) };
                        self.ask_with_another_spi(now, shared, wish);
                    }
                }
            }
        }
    }

    /// Responder: the SPI that we chose is that of an SA which is none of ours. Nobody has seen it
    /// yet, so another takes its place, a few times. Gives the answer back if it is to be a refusal.
    fn take_another_spi(
        &mut self,
        shared: &mut Shared,
        child: ChildId,
        mut withheld: Withheld,
    ) -> Option<Withheld> {
        let State::Established(established) = &mut self.state else { return Some(withheld) };
        let Some(installing) = established.children.get_mut(&child) else { return Some(withheld) };
        let named = withheld.child.as_ref().is_some_and(|(_, words)| words.names_spi());
        if !named || withheld.taken >= MOST_TAKEN {
            return Some(withheld);
        }
        let by_kernel = kernel_decapsulates(installing.mode, installing.encapsulation);
        let (Some(mut spec), Ok(spi)) =
            (withheld.spec.take(), shared.child_spi(self.id, child, by_kernel))
        else {
            return Some(withheld);
        };
        shared.release_spi(installing.inbound_spi);
        shared.count(Counter::SpiTaken);
        (installing.inbound_spi, spec.inbound.spi) = (spi, spi);
        if let Some(waiting) = &mut installing.waiting {
            waiting.inbound.spi = spi;
        }
        let receives_only = installing.waiting.is_some();
        if let Some((_, words)) = &mut withheld.child {
            words.set_spi(spi);
        }
        withheld.taken = withheld.taken.saturating_add(1);
        withheld.spec = Some(spec.clone());
        established.withheld = Some(Box::new(withheld));
        let command = if receives_only {
            KernelCommand::InstallInbound(spec)
        } else {
            KernelCommand::InstallChild(spec)
        };
        shared.command(Owner::IkeSa(self.id, Purpose::InstallChild(child)), command);
        None
    }

    /// Initiator: the peer knows an SPI of ours that is of no use. The Child SA is deleted again, and
    /// another one is asked for, a few times; a successor is tried again anyway.
    fn ask_with_another_spi(&mut self, now: Instant, shared: &mut Shared, wish: Wish) {
        let State::Established(established) = &mut self.state else { return };
        established.taken = established.taken.saturating_add(1);
        if wish.replaces.is_none() && established.taken <= MOST_TAKEN {
            self.ask_again(now, shared, wish);
        }
    }

    /// Asks for a Child SA in the place of one that is gone, unless another does what it did.
    pub(super) fn ask_again(&mut self, now: Instant, shared: &mut Shared, wish: Wish) {
        if !self.will_serve(&wish.rule, wish.first.as_ref()) {
            self.add_job(now, shared, Job::CreateChild(wish));
        }
    }

    /// The kernel has a Child SA, or what receives of it.
    fn child_stands(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let Some(installed) = established.children.get_mut(&child) else { return };
        let whole = installed.waiting.is_none() && !installed.redundant;
        installed.state = if whole { ChildState::Installed } else { ChildState::Receiving };
        let (replaces, redundant) = (installed.replaces, installed.redundant);
        if whole {
            if replaces.is_none()
                && let Some(old) = installed.anew(shared, self.id)
            {
                let successor = (self.id, child);
                shared.effects.push(Effect::JudgeLike { old, successor });
            }
            let asked = installed.begins(shared);
            shared.forget_acquire(asked);
        } else if !redundant {
            installed.poll = Some(Poll::first(now));
        }
        let rule = Arc::clone(&installed.rule.name);
        let event = EventKind::ChildInstalled {
            rule: Arc::clone(&rule),
            suite: installed.suite,
            key_exchange: installed.key_exchange,
            inbound_spi: installed.inbound_spi,
            outbound_spi: installed.outbound_spi,
            selectors: selector::describe_pairs(&installed.pairs),
        };
        shared.count(Counter::ChildSaInstalled);
        if replaces.is_some() {
            shared.count(Counter::ChildSaRekeyed);
        }
        self.event(shared, event);
        if !redundant {
            shared.effects.push(Effect::RuleServed { rule });
        }
        // The initiator of the exchange deletes what is too many (RFC 7296 2.8, 2.8.1).
        if redundant {
            self.retire_and_delete(now, shared, child, "redundant");
        } else if whole && let Some(old) = replaces {
            self.delete_doubtful(now, shared, old);
            self.put_judgement_off(shared, old, child);
            self.retire_and_delete(now, shared, old, "replaced");
        }
    }
}
