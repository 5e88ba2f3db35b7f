//! Child SAs: what we accept, and how the kernel gets them (RFC 7296 1.2, 1.3.1, 2.9, 2.17). The exchange that carries them, IKE_AUTH or CREATE_CHILD_SA, makes no difference
//! here.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    KeyExchange, Notify, NotifyType, Payload, ProtocolId, SecurityAssociation, TrafficSelector,
    TrafficSelectors,
};

use super::auth::AuthAnswer;
use super::derive::Agreed;
use super::established::AnsweredChild;
use super::init::IKE_PORT;
use super::offer::{ChildAnswer, ChildOffer};
use super::switch::Poll;
use super::{IkeSa, Job, State, notify};
use crate::algorithms::{EspSuite, Group};
use crate::channel::RequestId;
use crate::config::{Action, ChildLifetime, Mode, Protect, Rule, RuleName};
use crate::counters::Counter;
use crate::crash;
use crate::crypto::key_exchange;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{
    ChildId, ChildSpec, Encapsulation, KernelCommand, KernelError, Path, SaSpec, Selector,
};
use crate::keys::ChildKeys;
use crate::leases::Reply;
use crate::payloads::Payloads;
use crate::proposal::{self, ChildExchange, EspChoice};
use crate::selector;
use crate::shared::{Effect, Owner, Purpose, Shared};
use crate::time::after;

/// One Child SA.
#[derive(Debug, Clone)]
pub(crate) struct ChildSa {
    pub(crate) id: ChildId,
    pub(crate) rule: Arc<Rule>,
    pub(crate) mode: Mode,
    pub(crate) inbound_spi: u32,
    pub(crate) outbound_spi: u32,
    pub(crate) suite: EspSuite,
    /// The method of its own key exchange, if it had one.
    pub(crate) group: Option<Group>,
    pub(crate) pairs: Vec<(Selector, u32)>,
    pub(crate) encapsulation: Option<Encapsulation>,
    pub(crate) since: Instant,
    pub(crate) state: ChildState,
    /// The Child SA that goes when this one stands.
    pub(super) replaces: Option<ChildId>,
    /// Whether a successor is wanted already.
    pub(super) successor_wanted: bool,
    /// When a successor is wanted, as far as time decides, or wanted again.
    pub(super) rekey_at: Option<Instant>,
    /// Attempts in a row to get a successor that failed.
    pub(super) failures: u32,
    /// What the kernel still needs in order to send, while the peer is not known to receive.
    pub(super) waiting: Option<Box<ChildSpec>>,
    /// Both ends replaced the same Child SA, and this successor is the one to go.
    pub(super) redundant: bool,
    /// When to look again whether packets come in.
    pub(super) poll: Option<Poll>,
}

impl ChildSa {
    /// Whether it is to stay: it carries traffic, or will.
    pub(super) fn is_live(&self) -> bool {
        self.state != ChildState::Retiring && !self.redundant
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

/// Proof that selectors lie within a rule: made by the checks of an answer and of a request.
#[derive(Debug, Clone)]
pub(super) struct Narrowed {
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    pub(super) pairs: Vec<(Selector, u32)>,
}

/// What a responder has agreed to; nothing is installed or answered yet.
pub(super) struct Negotiated {
    child: ChildSa,
    spec: Box<ChildSpec>,
    answer: ChildWords,
}

/// The responder's answer about the Child SA.
#[derive(Debug, Clone)]
pub(super) struct ChildWords {
    spi: u32,
    sa: SecurityAssociation,
    ts_i: Vec<TrafficSelector>,
    ts_r: Vec<TrafficSelector>,
    transport: bool,
    /// Our nonce, in CREATE_CHILD_SA.
    nonce: Option<Vec<u8>>,
    /// Our public value, if the Child SA has a key exchange of its own.
    ke: Option<(Group, Vec<u8>)>,
}

/// What a request for a Child SA is answered by.
pub(super) struct ChildRequest<'a> {
    pub(super) payloads: &'a Payloads<'a>,
    /// Of the initiator and of the responder.
    pub(super) nonces: (&'a [u8], &'a [u8]),
    pub(super) exchange: ChildExchange,
    /// The Child SA that is replaced: its rule is the new one's too.
    pub(super) replaces: Option<(ChildId, Arc<Rule>)>,
}

impl<'a> ChildRequest<'a> {
    /// For the first Child SA, in IKE_AUTH.
    pub(super) const fn in_auth(payloads: &'a Payloads<'a>, nonces: (&'a [u8], &'a [u8])) -> Self {
        Self { payloads, nonces, exchange: ChildExchange::Auth, replaces: None }
    }
}

impl Negotiated {
    /// Of the Child SA that will be.
    pub(super) const fn id(&self) -> ChildId {
        self.child.id
    }
}

/// A good answer that waits until the kernel has what it promises.
pub(super) struct Withheld {
    request: RequestId,
    path: Path,
    pub(super) deadline: Instant,
    identity: Option<AuthAnswer>,
    /// The addresses that the peer has asked for.
    pub(super) configuration: Option<Reply>,
    child: Option<(ChildId, ChildWords)>,
}

impl Withheld {
    pub(super) const fn new(
        now: Instant,
        request: RequestId,
        path: Path,
        identity: Option<AuthAnswer>,
    ) -> Self {
        Self { request, path, deadline: now, identity, configuration: None, child: None }
    }

    pub(super) fn child(&self) -> Option<ChildId> {
        self.child.as_ref().map(|(id, _)| *id)
    }
}

/// Responder: finds the rule that covers what the peer asks for and agrees on the rest.
pub(super) fn negotiate(
    shared: &mut Shared,
    sa: &IkeSa,
    request: &ChildRequest<'_>,
) -> Result<Negotiated, Error> {
    let payloads = request.payloads;
    let offered = payloads.require_sa()?;
    let (theirs, ours) = payloads.require_ts()?;
    let State::Established(established) = &sa.state else {
        return Err(Error::Internal("no IKE SA"));
    };
    let asks_transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
    // The checksums inside would have to be mended, and the selectors to be translated
    // (RFC 7296 2.23.1): behind NAT the peer gets tunnel mode or nothing.
    let hindered = asks_transport && established.nat.any();
    let only = request.replaces.as_ref().map(|(_, rule)| &rule.name);
    let found = find_rule(shared, sa, only, (ours, theirs), asks_transport && !hindered);
    let (rule, protect, narrowed) = match found {
        Err(_) if hindered => return Err(Error::Mode("transport mode does not pass NAT")),
        found => found?,
    };
    if protect.quantum_safe && !established.channel.is_quantum_safe() {
        return Err(Error::NotQuantumSafe(established.channel.suite));
    }
    let id = shared.child_id();
    let spi = shared.child_spi(sa.id, id)?;
    let chosen = proposal::select_esp(&protect.proposals, offered, spi, request.exchange)
        .ok_or_else(|| Error::NoProposalChosen {
            ours: proposal::describe(&proposal::offer_esp(&protect.proposals, spi, true)),
            theirs: proposal::describe(offered),
        })
        .and_then(|(chosen, choice)| {
            let exchanged = choice.group.map(|g| exchange_keys(shared, payloads, g)).transpose()?;
            Ok((chosen, choice, exchanged))
        });
    let (chosen, choice, exchanged) = match chosen {
        Ok(chosen) => chosen,
        Err(error) => {
            shared.release_spi(spi);
            return Err(error);
        }
    };
    let secret = exchanged.as_ref().map(|e| e.secret.as_slice());
    let keys = Agreed::new(secret, request.nonces).child_keys(&established.channel, choice.suite);
    let our_nonce = match request.exchange {
        ChildExchange::Auth => None,
        ChildExchange::CreateChild(_) => Some(request.nonces.1.to_vec()),
    };
    let answer = ChildWords {
        spi,
        sa: chosen,
        ts_i: narrowed.remote.clone(),
        ts_r: narrowed.local.clone(),
        transport: protect.mode == Mode::Transport,
        nonce: our_nonce,
        ke: choice.group.zip(exchanged.map(|e| e.value)),
    };
    let replaces = request.replaces.as_ref().map(|(child, _)| *child);
    let terms = Terms { rule, protect, id, spi, choice, narrowed, acquire_seq: None, replaces };
    let (mut child, spec) = terms.into_child(shared, sa, &keys, false);
    if replaces.is_some() {
        // The old one sends until the peer is known to have the new one.
        child.waiting = Some(spec.clone());
    }
    Ok(Negotiated { child, spec, answer })
}

/// Responder: the key exchange of the Child SA's own.
fn exchange_keys(
    shared: &Shared,
    payloads: &Payloads<'_>,
    group: Group,
) -> Result<key_exchange::Agreed, Error> {
    let theirs = payloads.ke.filter(|ke| ke.method == group.id());
    let theirs = theirs.ok_or(Error::InvalidKePayload { wanted: group })?;
    Ok(shared.key_exchange.respond(group, theirs.data)?)
}

/// Whether a rule covers a request whole, and what the request names first.
type Fit = (bool, bool);

/// The first rule of the peer, by name, that shares traffic with the request; one that covers
/// it whole is preferred, and then one that covers what it names first (RFC 7296 2.9). `only`: the
/// rule of the Child SA that is replaced.
fn find_rule(
    shared: &Shared,
    sa: &IkeSa,
    only: Option<&RuleName>,
    (ours, theirs): (&[TrafficSelector], &[TrafficSelector]),
    wants_transport: bool,
) -> Result<(Arc<Rule>, Protect, Narrowed), Error> {
    let peer = sa.peer.as_ref().ok_or(Error::Internal("no peer"))?;
    let mut mode_differs = false;
    let mut best: Option<(Fit, Arc<Rule>, Protect, Narrowed)> = None;
    for rule in shared.policies.rules.values() {
        let Action::Protect(protect) = &rule.action else { continue };
        if protect.peer != peer.name || only.is_some_and(|name| rule.name != *name) {
            continue;
        }
        let (local, remote) = shared.selectors(rule, sa.user.as_ref());
        let (local, remote) = (selector::narrow(&local, ours), selector::narrow(&remote, theirs));
        let Some(pairs) = selector::pairs(rule, &local, &remote) else { continue };
        if (protect.mode == Mode::Transport) != wants_transport {
            // A peer that offers transport mode may be answered with tunnel mode
            // (RFC 7296 1.3.1); one that does not may not be answered with transport mode.
            if protect.mode == Mode::Transport {
                mode_differs = true;
                continue;
            }
        }
        let whole = selector::within(ours, &local) && selector::within(theirs, &remote);
        // RFC 7296 2.9: what the initiator names first must be in the subset, if it can be.
        let first = |proposed: &[TrafficSelector], narrowed: &[TrafficSelector]| {
            selector::within(proposed.get(..1).unwrap_or_default(), narrowed)
        };
        let fit = (whole, first(ours, &local) && first(theirs, &remote));
        if best.as_ref().is_none_or(|(before, ..)| fit > *before) {
            best =
                Some((fit, Arc::clone(rule), protect.clone(), Narrowed { local, remote, pairs }));
        }
    }
    match best {
        Some((_, rule, protect, narrowed)) => Ok((rule, protect, narrowed)),
        None if mode_differs => Err(Error::Mode("the rule demands transport mode")),
        None => {
            let theirs = format!("{} == {}", selector::describe(ours), selector::describe(theirs));
            Err(Error::TsUnacceptable { theirs })
        }
    }
}

/// Everything that both ends have agreed on.
struct Terms {
    rule: Arc<Rule>,
    protect: Protect,
    id: ChildId,
    spi: u32,
    choice: EspChoice,
    narrowed: Narrowed,
    acquire_seq: Option<u32>,
    replaces: Option<ChildId>,
}

impl Terms {
    /// The record that we keep and the one that the kernel gets. `initiator`: whether we began
    /// this exchange, since its initiator's keys come first (RFC 7296 2.17).
    fn into_child(
        self,
        shared: &mut Shared,
        sa: &IkeSa,
        keys: &ChildKeys,
        initiator: bool,
    ) -> (ChildSa, Box<ChildSpec>) {
        let reqid = shared.reqids.give(&self.rule.name);
        let behind_nat = matches!(&sa.state, State::Established(e) if e.nat.any());
        // RFC 7296 2.23: never on port 500, whatever the peer does.
        let encapsulate = behind_nat && sa.path.local.port() != IKE_PORT;
        let encapsulation = encapsulate.then(|| Encapsulation {
            local_port: sa.path.local.port(),
            remote_port: sa.path.remote.port(),
        });
        let (outbound_keys, inbound_keys) = keys.by_direction(initiator);
        let (ours, theirs) = (sa.path.local.ip(), sa.path.remote.ip());
        let limits = self.protect.lifetime;
        let spec = ChildSpec {
            child: self.id,
            rule: Arc::clone(&self.rule.name),
            reqid,
            mode: self.protect.mode,
            inbound: SaSpec {
                spi: self.spi,
                source: theirs,
                destination: ours,
                encryption_key: inbound_keys.0.clone(),
                integrity_key: inbound_keys.1.clone(),
            },
            outbound: SaSpec {
                spi: self.choice.peer_spi,
                source: ours,
                destination: theirs,
                encryption_key: outbound_keys.0.clone(),
                integrity_key: outbound_keys.1.clone(),
            },
            suite: self.choice.suite,
            selectors: self.narrowed.pairs.clone(),
            encapsulation,
            replay_window: shared.config.replay_window,
            lifetime: ChildLifetime {
                time: limits.time,
                bytes: shared.jittered(limits.bytes),
                packets: shared.jittered(limits.packets),
            },
            acquire_seq: self.acquire_seq,
        };
        let child = ChildSa {
            id: self.id,
            rule: self.rule,
            mode: self.protect.mode,
            inbound_spi: self.spi,
            outbound_spi: self.choice.peer_spi,
            suite: self.choice.suite,
            group: self.choice.group,
            pairs: self.narrowed.pairs,
            encapsulation,
            since: sa.begun,
            state: ChildState::Installing,
            replaces: self.replaces,
            successor_wanted: false,
            rekey_at: None,
            failures: 0,
            waiting: None,
            redundant: false,
            poll: None,
        };
        (child, Box::new(spec))
    }
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
        let keys = agreed.child_keys(&established.channel, answer.choice.suite);
        let terms = Terms {
            rule: offer.rule,
            protect: offer.protect,
            id: offer.id,
            spi: offer.spi,
            choice: answer.choice,
            narrowed: answer.narrowed,
            acquire_seq: offer.wish.acquire_seq,
            replaces: offer.wish.replaces,
        };
        let (mut child, spec) = terms.into_child(shared, self, &keys, true);
        child.redundant = redundant;
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
        withheld.child = Some((negotiated.child.id, negotiated.answer));
        withheld.deadline = after(now, shared.config.install_timeout);
        if let State::Established(established) = &mut self.state {
            established.withheld = Some(withheld);
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
        established.children.insert(id, child);
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
        let withheld = established.withheld.take_if(|w| w.child() == Some(child));
        match (result, withheld) {
            (Ok(()), withheld) => {
                self.child_stands(now, shared, child);
                if let Some(mut withheld) = withheld {
                    let words = withheld.child.take().map(|(_, words)| words);
                    self.release_answer(now, shared, withheld, Ok(words));
                }
                self.check_superseded(shared);
            }
            (Err(error), withheld) => {
                let replaces = installed.replaces;
                let peer_spi = installed.outbound_spi;
                established.children.remove(&child);
                shared.release_spi(spi);
                let error = Error::Kernel(error);
                if let Some(withheld) = withheld {
                    self.release_answer(now, shared, withheld, Err(error));
                } else {
                    // The peer believes that it stands.
                    self.child_failed(shared, Some(rule), error);
                    self.rekey_failed(now, shared, replaces);
                    self.add_job(now, shared, Job::DeleteChild { spi, peer_spi });
                }
            }
        }
    }

    /// The kernel has a Child SA, or what receives of it.
    fn child_stands(&mut self, now: Instant, shared: &mut Shared, child: ChildId) {
        let State::Established(established) = &mut self.state else { return };
        let Some(installed) = established.children.get_mut(&child) else { return };
        let whole = installed.waiting.is_none() && !installed.redundant;
        installed.state = if whole { ChildState::Installed } else { ChildState::Receiving };
        let (replaces, redundant) = (installed.replaces, installed.redundant);
        if !whole && !redundant {
            installed.poll = Some(Poll::first(now));
        }
        let rule = Arc::clone(&installed.rule.name);
        let event = EventKind::ChildInstalled {
            rule: Arc::clone(&rule),
            suite: installed.suite,
            group: installed.group,
            inbound_spi: installed.inbound_spi,
            outbound_spi: installed.outbound_spi,
            selectors: selector::describe_pairs(&installed.pairs),
        };
        shared.count(Counter::ChildSaInstalled);
        if replaces.is_some() {
            shared.count(Counter::ChildSaRekeyed);
        }
        self.event(shared, event);
        shared.effects.push(Effect::RuleServed { rule });
        // The initiator of the exchange deletes what is too many (RFC 7296 2.8, 2.8.1).
        if redundant {
            self.retire_and_delete(now, shared, child);
        } else if whole && let Some(old) = replaces {
            self.retire_and_delete(now, shared, old);
        }
    }

    /// Responder: the answer goes out, with the Child SA or with the reason why there is none.
    pub(super) fn release_answer(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        withheld: Withheld,
        child: Result<Option<ChildWords>, Error>,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let id = withheld.identity.as_ref().map(AuthAnswer::id);
        let mut payloads = Vec::new();
        if let (Some(answer), Some((kind, data))) = (&withheld.identity, &id) {
            payloads.extend(answer.payloads(*kind, data));
        }
        let token = withheld
            .identity
            .as_ref()
            .and_then(|_| shared.crash_tokens.token((self.initiator_spi, self.responder_spi)));
        payloads.extend(token.iter().map(|token| crash::payload(token)));
        payloads.extend(withheld.configuration.iter().map(|c| Payload::Configuration(c.payload())));
        let error = child.as_ref().err().and_then(notification_for);
        let named = match &child {
            // RFC 7296 2.25: the SPI field is copied from the REKEY_SA notification.
            Err(Error::ChildSaNotFound(spi)) => Some(spi.to_be_bytes()),
            Ok(_) | Err(_) => None,
        };
        match &child {
            Ok(Some(words)) => payloads.extend(words.payloads()),
            Ok(None) => {}
            Err(_) => payloads.extend(error.iter().map(|e| match &named {
                Some(spi) => Payload::Notify(Notify {
                    protocol: ProtocolId::ESP,
                    spi,
                    kind: e.kind,
                    data: &e.data,
                }),
                None => notify(e.kind, &e.data),
            })),
        }
        match established.channel.respond(shared.random.as_mut(), withheld.request, &payloads) {
            Ok(answer) => shared.transmit(withheld.path, answer),
            Err(error) => return self.fail(shared, error),
        }
        // RFC 7296 2.21.2, 2.21.3: that one is fatal at both ends, without a Delete.
        let fatal = error.is_some_and(|e| e.kind == NotifyType::INVALID_SYNTAX);
        if fatal && let Err(error) = child {
            self.child_failed(shared, None, error);
            return self.end(now, shared, "the peer sent an invalid message");
        }
        match child {
            Ok(Some(ChildWords { spi, nonce: Some(_), .. })) => {
                let until = after(now, shared.config.patience());
                if let State::Established(established) = &mut self.state {
                    established.answered = Some(AnsweredChild { spi, until });
                }
            }
            Ok(_) => {}
            Err(error @ (Error::TemporaryFailure(_) | Error::ChildSaNotFound(_))) => {
                // The ends were out of step for a moment: nothing is wrong.
                shared.count(Counter::TemporaryFailure);
                self.event(shared, EventKind::PutOff(error));
            }
            Err(error) => {
                if matches!(error, Error::NoAdditionalSas(_)) {
                    shared.count(Counter::NoAdditionalSas);
                }
                self.child_failed(shared, None, error);
            }
        }
        self.next_job(now, shared);
    }

    /// A Child SA could not be made: counted, logged, and told to the rule that wanted it.
    pub(super) fn child_failed(&self, shared: &mut Shared, rule: Option<Arc<str>>, error: Error) {
        shared.count(Counter::ChildSaFailed);
        if matches!(
            error,
            Error::NoProposalChosen { .. } | Error::Refused(NotifyType::NO_PROPOSAL_CHOSEN)
        ) {
            shared.count(Counter::NoProposalChosen);
        }
        if matches!(
            error,
            Error::TsUnacceptable { .. } | Error::Refused(NotifyType::TS_UNACCEPTABLE)
        ) {
            shared.count(Counter::TsUnacceptable);
        }
        if let Some(rule) = &rule {
            shared
                .effects
                .push(Effect::RuleLost { rule: Arc::clone(rule), error: Some(error.to_string()) });
        }
        self.event(shared, EventKind::ChildFailed { rule, error });
    }

    /// Initiator: our offer came to nothing.
    pub(super) fn offer_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        error: Error,
    ) {
        shared.release_spi(offer.spi);
        // Unless the peer itself refused, it believes that the Child SA stands.
        let refused = matches!(error, Error::Refused(_));
        let replaces = offer.wish.replaces;
        // A Child SA that should be replaced still serves its rule.
        let lost = replaces.is_none().then_some(offer.wish.rule);
        self.child_failed(shared, lost, error);
        self.rekey_failed(now, shared, replaces);
        if !refused {
            self.add_job(now, shared, Job::DeleteChild { spi: offer.spi, peer_spi: 0 });
        }
    }
}

impl ChildWords {
    fn payloads(&self) -> Vec<Payload<'_>> {
        let transport = self.transport.then(|| notify(NotifyType::USE_TRANSPORT_MODE, &[]));
        let nonce = self.nonce.as_deref().map(|n| Payload::Nonce(gateway_wire::Nonce(n)));
        transport
            .into_iter()
            .chain([Payload::SecurityAssociation(self.sa.clone())])
            .chain(nonce)
            .chain(self.ke.as_ref().map(|(group, data)| {
                Payload::KeyExchange(KeyExchange { method: group.id(), data })
            }))
            .chain([
                Payload::TsInitiator(TrafficSelectors::new(self.ts_i.clone())),
                Payload::TsResponder(TrafficSelectors::new(self.ts_r.clone())),
            ])
            .collect()
    }
}
