//! Child SAs: what we offer, what we accept, and how the kernel gets them (RFC 7296 1.2, 1.3.1,
//! 2.9, 2.17). The exchange that carries them, IKE_AUTH or CREATE_CHILD_SA, makes no difference
//! here.

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{NotifyType, Payload, SecurityAssociation, TrafficSelector, TrafficSelectors};

use super::auth::AuthAnswer;
use super::init::IKE_PORT;
use super::jobs::Wish;
use super::{IkeSa, Job, State, notify};
use crate::algorithms::EspSuite;
use crate::channel::RequestId;
use crate::config::{Action, Mode, Protect, Rule, RuleName};
use crate::counters::Counter;
use crate::crash;
use crate::error::{Error, notification_for};
use crate::event::EventKind;
use crate::io::{
    ChildId, ChildSpec, Encapsulation, IkeSaId, KernelCommand, KernelError, Path, SaSpec, Selector,
};
use crate::keys::ChildKeys;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::proposal;
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
    pub(crate) pairs: Vec<(Selector, u32)>,
    pub(crate) encapsulation: Option<Encapsulation>,
    pub(crate) since: Instant,
    pub(crate) state: ChildState,
    /// The Child SA that goes when this one stands.
    pub(super) replaces: Option<ChildId>,
    /// Whether a successor is wanted already.
    pub(crate) successor_wanted: bool,
}

/// What the kernel has of a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildState {
    /// It was asked to install it.
    Installing,
    /// Everything.
    Installed,
}

/// A Child SA that we ask the peer for.
#[derive(Debug, Clone)]
pub(crate) struct ChildOffer {
    pub(super) wish: Wish,
    rule: Arc<Rule>,
    protect: Protect,
    id: ChildId,
    /// Our inbound SPI, reserved.
    pub(super) spi: u32,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

/// Proof that selectors lie within a rule: made by the two checks below.
#[derive(Debug, Clone)]
struct Narrowed {
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    pairs: Vec<(Selector, u32)>,
}

/// The peer's good answer to a [`ChildOffer`].
#[derive(Debug)]
pub(super) struct ChildAnswer {
    suite: EspSuite,
    peer_spi: u32,
    narrowed: Narrowed,
}

impl ChildOffer {
    /// An offer for a rule as it is *now*; `None` when there is no such rule any more.
    pub(super) fn new(
        shared: &mut Shared,
        owner: IkeSaId,
        wish: Wish,
    ) -> Result<Option<Self>, Error> {
        let Some(rule) = shared.policies.rules.get(&wish.rule).cloned() else { return Ok(None) };
        let Action::Protect(protect) = rule.action.clone() else { return Ok(None) };
        let id = shared.child_id();
        let spi = shared.child_spi(owner, id)?;
        let (local, remote) = selector::of_rule(&rule);
        Ok(Some(Self { wish, rule, protect, id, spi, local, remote }))
    }

    pub(super) fn serves(&self, rule: &RuleName) -> bool {
        self.wish.rule == *rule && self.wish.replaces.is_none()
    }

    /// The payloads of the offer: SA, TSi, TSr and, for transport mode, its notification.
    pub(super) fn payloads(&self) -> Vec<Payload<'static>> {
        let sa = proposal::offer_esp(&self.protect.proposals, self.spi);
        let transport = (self.protect.mode == Mode::Transport)
            .then(|| notify(NotifyType::USE_TRANSPORT_MODE, &[]));
        transport
            .into_iter()
            .chain([
                Payload::SecurityAssociation(sa),
                Payload::TsInitiator(TrafficSelectors::new(self.local.clone())),
                Payload::TsResponder(TrafficSelectors::new(self.remote.clone())),
            ])
            .collect()
    }

    /// The peer's answer must be one of our proposals and lie within our selectors.
    pub(super) fn check_answer(
        &self,
        payloads: &Payloads<'_>,
        nat: NatDetected,
    ) -> Result<ChildAnswer, Error> {
        // RFC 7296 3.10.1: an error in a response means that the request has failed, known or not.
        match payloads.error() {
            Some(error) if payloads.sa.is_none() => return Err(Error::Refused(error.kind)),
            Some(_) => return Err(Error::BadAnswer("an error beside a Child SA")),
            None => {}
        }
        let (suite, peer_spi) =
            proposal::accept_esp(&self.protect.proposals, payloads.require_sa()?)?;
        let (local, remote) = payloads.require_ts()?;
        let granted = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        if granted != (self.protect.mode == Mode::Transport) {
            return Err(Error::Mode("the peer does not use the mode that the rule demands"));
        }
        if granted && nat.any() {
            return Err(Error::Mode("transport mode does not pass NAT"));
        }
        if !selector::within(local, &self.local) || !selector::within(remote, &self.remote) {
            return Err(Error::BadAnswer("traffic selectors outside those that we offered"));
        }
        let pairs = selector::pairs(&self.rule, local, remote)
            .ok_or(Error::BadAnswer("unusable traffic selectors"))?;
        let narrowed = Narrowed { local: local.to_vec(), remote: remote.to_vec(), pairs };
        Ok(ChildAnswer { suite, peer_spi, narrowed })
    }
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
    sa: SecurityAssociation,
    ts_i: Vec<TrafficSelector>,
    ts_r: Vec<TrafficSelector>,
    transport: bool,
    /// Our nonce, in CREATE_CHILD_SA.
    nonce: Option<Vec<u8>>,
}

/// A good answer that waits until the kernel has what it promises.
pub(super) struct Withheld {
    request: RequestId,
    path: Path,
    pub(super) deadline: Instant,
    identity: Option<AuthAnswer>,
    child: Option<(ChildId, ChildWords)>,
}

impl Withheld {
    pub(super) const fn new(
        now: Instant,
        request: RequestId,
        path: Path,
        identity: Option<AuthAnswer>,
    ) -> Self {
        Self { request, path, deadline: now, identity, child: None }
    }

    pub(super) fn child(&self) -> Option<ChildId> {
        self.child.as_ref().map(|(id, _)| *id)
    }
}

/// Responder: finds the rule that covers what the peer asks for and agrees on the rest.
/// `our_nonce` is given in CREATE_CHILD_SA.
pub(super) fn negotiate(
    shared: &mut Shared,
    sa: &IkeSa,
    payloads: &Payloads<'_>,
    nonces: (&[u8], &[u8]),
    our_nonce: Option<Vec<u8>>,
) -> Result<Negotiated, Error> {
    let offered = payloads.require_sa()?;
    let (theirs, ours) = payloads.require_ts()?;
    let State::Established(established) = &sa.state else {
        return Err(Error::Internal("no IKE SA"));
    };
    let asks_transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
    // The checksums inside would have to be mended, and the selectors to be translated
    // (RFC 7296 2.23.1): behind NAT the peer gets tunnel mode or nothing.
    let hindered = asks_transport && established.nat.any();
    let found = find_rule(shared, sa, ours, theirs, asks_transport && !hindered);
    let (rule, protect, narrowed) = match found {
        Err(_) if hindered => return Err(Error::Mode("transport mode does not pass NAT")),
        found => found?,
    };
    if protect.quantum_safe && !established.channel.is_quantum_safe() {
        return Err(Error::NotQuantumSafe(established.channel.suite));
    }
    let id = shared.child_id();
    let spi = shared.child_spi(sa.id, id)?;
    let Some((chosen, suite, peer_spi)) = proposal::select_esp(&protect.proposals, offered, spi)
    else {
        shared.release_spi(spi);
        return Err(Error::NoProposalChosen {
            ours: proposal::describe(&proposal::offer_esp(&protect.proposals, spi)),
            theirs: proposal::describe(offered),
        });
    };
    let keys = ChildKeys::derive(
        established.channel.suite.prf,
        established.channel.keys.sk_d(),
        None,
        nonces.0,
        nonces.1,
        suite,
    );
    let answer = ChildWords {
        sa: chosen,
        ts_i: narrowed.remote.clone(),
        ts_r: narrowed.local.clone(),
        transport: protect.mode == Mode::Transport,
        nonce: our_nonce,
    };
    let terms = Terms {
        rule,
        protect,
        id,
        spi,
        peer_spi,
        suite,
        narrowed,
        acquire_seq: None,
        replaces: None,
    };
    let (child, spec) = terms.into_child(shared, sa, &keys, false);
    Ok(Negotiated { child, spec, answer })
}

/// Whether a rule covers a request whole, and what the request names first.
type Fit = (bool, bool);

/// The first rule of the peer, by name, that shares traffic with the request; one that covers
/// it whole is preferred, and then one that covers what it names first (RFC 7296 2.9).
fn find_rule(
    shared: &Shared,
    sa: &IkeSa,
    ours: &[TrafficSelector],
    theirs: &[TrafficSelector],
    wants_transport: bool,
) -> Result<(Arc<Rule>, Protect, Narrowed), Error> {
    let peer = sa.peer.as_ref().ok_or(Error::Internal("no peer"))?;
    let mut mode_differs = false;
    let mut best: Option<(Fit, Arc<Rule>, Protect, Narrowed)> = None;
    for rule in shared.policies.rules.values() {
        let Action::Protect(protect) = &rule.action else { continue };
        if protect.peer != peer.name {
            continue;
        }
        let (local, remote) = selector::of_rule(rule);
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
    peer_spi: u32,
    suite: EspSuite,
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
                spi: self.peer_spi,
                source: ours,
                destination: theirs,
                encryption_key: outbound_keys.0.clone(),
                integrity_key: outbound_keys.1.clone(),
            },
            suite: self.suite,
            selectors: self.narrowed.pairs.clone(),
            encapsulation,
            replay_window: shared.config.replay_window,
            lifetime: self.protect.lifetime,
            acquire_seq: self.acquire_seq,
        };
        let child = ChildSa {
            id: self.id,
            rule: self.rule,
            mode: self.protect.mode,
            inbound_spi: self.spi,
            outbound_spi: self.peer_spi,
            suite: self.suite,
            pairs: self.narrowed.pairs,
            encapsulation,
            since: sa.begun,
            state: ChildState::Installing,
            replaces: self.replaces,
            successor_wanted: false,
        };
        (child, Box::new(spec))
    }
}

impl IkeSa {
    /// Initiator: the peer has agreed; the kernel gets the Child SA.
    pub(super) fn install_offered(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        answer: ChildAnswer,
        nonces: (&[u8], &[u8]),
    ) {
        let State::Established(established) = &self.state else { return };
        let channel = &established.channel;
        if offer.protect.quantum_safe && !channel.is_quantum_safe() {
            let error = Error::NotQuantumSafe(channel.suite);
            return self.offer_failed(now, shared, offer, error);
        }
        let keys = ChildKeys::derive(
            channel.suite.prf,
            channel.keys.sk_d(),
            None,
            nonces.0,
            nonces.1,
            answer.suite,
        );
        let terms = Terms {
            rule: offer.rule,
            protect: offer.protect,
            id: offer.id,
            spi: offer.spi,
            peer_spi: answer.peer_spi,
            suite: answer.suite,
            narrowed: answer.narrowed,
            acquire_seq: offer.wish.acquire_seq,
            replaces: offer.wish.replaces,
        };
        let (child, spec) = terms.into_child(shared, self, &keys, true);
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
        let State::Established(established) = &mut self.state else { return };
        child.since = now;
        let id = child.id;
        established.children.insert(id, child);
        shared.command(
            Owner::IkeSa(self.id, Purpose::InstallChild(id)),
            KernelCommand::InstallChild(spec),
        );
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
        installed.state = ChildState::Installed;
        let (rule, spi, replaces) =
            (Arc::clone(&installed.rule.name), installed.inbound_spi, installed.replaces);
        let event = EventKind::ChildInstalled {
            rule: Arc::clone(&rule),
            suite: installed.suite,
            inbound_spi: installed.inbound_spi,
            outbound_spi: installed.outbound_spi,
            selectors: selector::describe_pairs(&installed.pairs),
        };
        let withheld = established.withheld.take_if(|w| w.child() == Some(child));
        match (result, withheld) {
            (Ok(()), withheld) => {
                shared.count(Counter::ChildSaInstalled);
                self.event(shared, event);
                shared.effects.push(Effect::RuleServed { rule });
                if let Some(mut withheld) = withheld {
                    let words = withheld.child.take().map(|(_, words)| words);
                    self.release_answer(now, shared, withheld, Ok(words));
                }
                if let Some(old) = replaces {
                    self.delete_child(now, shared, old, "replaced");
                }
                self.check_superseded(shared);
            }
            (Err(error), withheld) => {
                established.children.remove(&child);
                shared.release_spi(spi);
                let error = Error::Kernel(error);
                if let Some(withheld) = withheld {
                    self.release_answer(now, shared, withheld, Err(error));
                } else {
                    // The peer believes that it stands.
                    self.child_failed(shared, Some(rule), error);
                    self.add_job(now, shared, Job::DeleteChild { spi });
                }
            }
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
        let id = withheld.identity.as_ref().map(|a| a.id.to_wire());
        let mut payloads = Vec::new();
        if let (Some(answer), Some((kind, data))) = (&withheld.identity, &id) {
            payloads.extend(answer.payloads(*kind, data));
        }
        let token = withheld
            .identity
            .as_ref()
            .and_then(|_| shared.crash_tokens.token((self.initiator_spi, self.responder_spi)));
        payloads.extend(token.iter().map(|token| crash::payload(token)));
        let error = child.as_ref().err().and_then(notification_for);
        match &child {
            Ok(Some(words)) => payloads.extend(words.payloads()),
            Ok(None) => {}
            Err(_) => payloads.extend(error.iter().map(|e| notify(e.kind, &e.data))),
        }
        match established.channel.respond(shared.random.as_mut(), withheld.request, &payloads) {
            Ok(answer) => shared.transmit(withheld.path, answer),
            Err(error) => return self.fail(shared, error),
        }
        if let Err(error) = child {
            self.child_failed(shared, None, error);
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
        self.child_failed(shared, Some(offer.wish.rule), error);
        if !refused {
            self.add_job(now, shared, Job::DeleteChild { spi: offer.spi });
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
            .chain([
                Payload::TsInitiator(TrafficSelectors::new(self.ts_i.clone())),
                Payload::TsResponder(TrafficSelectors::new(self.ts_r.clone())),
            ])
            .collect()
    }
}
