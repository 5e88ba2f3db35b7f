//! The responder's side: it is the authenticator.

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    AuthMethod, ExchangeType, IdType, Identification, NotifyType, Payload, PayloadType,
};

use super::super::super::{Closing, IkeSa, State};
use super::super::{Accepted, AuthAnswer, HalfOpen, PeerAuthenticated, ppk, prove};
use super::{auth_after, limits, verify_after};
use crate::algorithms::IkeSuite;
use crate::channel::{Opened, RequestId};
use crate::config::{EapAuthenticatorConfig, Identity, PeerConfig, RemoteAuth, User, UserName};
use crate::counters::Counter;
use crate::crash;
use crate::eap::{Action, Authenticator, Message, Success, Surroundings};
use crate::error::{AuthenticationFault, Error};
use crate::event::EventKind;
use crate::identity;
use crate::io::Path;
use crate::payloads::Payloads;
use crate::proposal;
use crate::reason::Claimed;
use crate::shared::Shared;
use crate::time::after;

/// What a half-open IKE SA holds while EAP is under way.
pub(in crate::ike_sa) struct EapResponder {
    peer: Arc<PeerConfig>,
    /// The first IKE_AUTH request, which asks for the Child SA that the last answer grants.
    first: Opened,
    /// The body of IDi in it, which the initiator's AUTH covers.
    id_i: Vec<u8>,
    /// IDi in words.
    who: String,
    /// Whether it has been told that the peer fails: it may never come back to hear it from us.
    told: bool,
    stage: Stage,
}

enum Stage {
    Asking(Authenticator),
    /// EAP has ended well; AUTH is awaited.
    Proven {
        success: Success,
        who: String,
        name: UserName,
        user: Option<Arc<User>>,
    },
}

/// What becomes of a request.
enum Step {
    /// EAP goes on with this message; in the first answer we say who we are, and prove it.
    Ask { eap: Box<EapResponder>, message: Message, ours: Option<Ours> },
    /// The authenticator is not convinced, and says so.
    Refuse { message: Message, error: Error, told: bool },
    /// EAP and AUTH fit together.
    Accept(Accept),
}

/// Who we are, and the proof of it unless EAP is all.
enum Ours {
    Proven(AuthAnswer),
    Named(Identity),
}

struct Accept {
    peer: Arc<PeerConfig>,
    first: Opened,
    success: Success,
    user: UserName,
}

impl Ours {
    fn id(&self) -> (IdType, Vec<u8>) {
        match self {
            Self::Proven(answer) => answer.id(),
            Self::Named(id) => id.to_wire(),
        }
    }
}

impl IkeSa {
    /// Responder: an authentic IKE_AUTH request that begins EAP, or goes on with it; `false` if
    /// it is none.
    pub(in crate::ike_sa::auth) fn eap_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) -> bool {
        let Ok(inner) = opened.payloads() else { return false };
        let Ok(payloads) = Payloads::collect(ExchangeType::IKE_AUTH, &inner) else { return false };
        let State::HalfOpen(half_open) = &mut self.state else { return false };
        if !half_open.rounds.is_empty() {
            return false;
        }
        let step = match half_open.eap.take() {
            Some(eap) => eap.advance(now, shared, half_open, &payloads),
            None => {
                let suite = half_open.channel.suite;
                let Some((peer, authenticator)) = meant(shared, path, suite, &payloads) else {
                    return false;
                };
                shared.count(Counter::EapStarted);
                half_open.transcript.int_auth = half_open.channel.take_int_auth();
                half_open.deadline = after(now, shared.config.eap_timeout);
                begin(now, shared, half_open, opened, &payloads, &peer, authenticator)
            }
        };
        self.path = path;
        if let (Err(_) | Ok(Step::Refuse { .. }), State::HalfOpen(half_open)) = (&step, &self.state)
        {
            let hashes = half_open.transcript.peer_hashes.as_deref();
            self.claimed = Claimed::in_message(opened, true, hashes);
        }
        self.take_step(now, shared, RequestId::new(opened, datagram), step, &payloads);
        true
    }

    fn take_step(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        request: RequestId,
        step: Result<Step, Error>,
        payloads: &Payloads<'_>,
    ) {
        match step {
            Ok(Step::Ask { eap, message, ours }) => {
                if let Stage::Proven { success, who, .. } = &eap.stage {
                    shared.count(Counter::EapSucceeded);
                    let (user, method) = (who.clone(), success.method);
                    self.event(shared, EventKind::EapSucceeded { user, method });
                }
                let eap = self.tell_failing(shared, eap);
                let State::HalfOpen(half_open) = &mut self.state else { return };
                half_open.eap = Some(eap);
                let id = ours.as_ref().map(Ours::id);
                let mut answer = match (&ours, &id) {
                    (Some(Ours::Proven(ours)), Some((kind, data))) => ours.payloads(*kind, data),
                    (Some(Ours::Named(_)), Some((kind, data))) => {
                        vec![Payload::IdResponder(Identification::new(*kind, data))]
                    }
                    (None, _) | (_, None) => Vec::new(),
                };
                answer.push(Payload::Eap(message.as_wire()));
                match half_open.channel.respond(shared.random.as_mut(), request, &answer) {
                    Ok(answer) => shared.transmit(self.path, answer),
                    Err(error) => self.fail(shared, error),
                }
            }
            Ok(Step::Refuse { message, error, told }) => {
                let Some(HalfOpen { mut channel, .. }) = self.take_half_open(shared) else {
                    return;
                };
                let beside = [Payload::Eap(message.as_wire())];
                if told {
                    self.answer_refused(shared, &mut channel, request, &error, &beside);
                    self.event(shared, EventKind::Closed("EAP failed"));
                    self.state = State::Closing(Box::new(Closing::new(now, shared, channel)));
                } else {
                    shared.count(Counter::EapFailed);
                    self.refuse_initiator_with(now, shared, channel, request, error, &beside);
                }
            }
            Err(error) => {
                shared.count(Counter::EapFailed);
                let Some(HalfOpen { channel, .. }) = self.take_half_open(shared) else { return };
                self.refuse_initiator(now, shared, channel, request, error);
            }
            Ok(Step::Accept(accept)) => {
                self.accept_after_eap(now, shared, request, accept, payloads);
            }
        }
    }

    /// Logs and counts a failure as soon as it is known.
    fn tell_failing(&self, shared: &mut Shared, mut eap: Box<EapResponder>) -> Box<EapResponder> {
        if let Stage::Asking(authenticator) = &eap.stage
            && let Some(fault) = authenticator.failing()
            && !eap.told
        {
            eap.told = true;
            let who = authenticator.identity().unwrap_or(&eap.who).escape_default().to_string();
            shared.count(Counter::EapFailed);
            shared.count(Counter::AuthenticationFailed);
            let error = Error::Authentication(AuthenticationFault::Eap { who, fault });
            self.event(shared, EventKind::Failed(error));
        }
        eap
    }

    /// The initiator is authenticated. What it asked for in its first request is granted now.
    fn accept_after_eap(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        request: RequestId,
        accept: Accept,
        last: &Payloads<'_>,
    ) {
        let Accept { peer, first, success, user } = accept;
        let Some(HalfOpen { channel, transcript, nat, .. }) = self.take_half_open(shared) else {
            return;
        };
        let octets = transcript.signed_octets(&channel, false, &peer.local_id.body());
        let auth = auth_after(&success, &channel, false, &octets);
        let auth = (AuthMethod::SHARED_KEY, auth);
        let ppk = channel.keys.has_ppk();
        let answer = AuthAnswer { peer: Arc::clone(&peer), auth, ppk, last: true };
        let inner = match first.payloads() {
            Ok(inner) => inner,
            Err(error) => {
                return self.refuse_initiator(now, shared, channel, request, Error::from(error));
            }
        };
        let first = match Payloads::collect(ExchangeType::IKE_AUTH, &inner) {
            Ok(first) => first,
            Err(error) => return self.refuse_initiator(now, shared, channel, request, error),
        };
        self.user = Some(user);
        let accepted = Accepted {
            channel,
            transcript,
            nat,
            peer: PeerAuthenticated::by_eap(peer, success),
            initial_contact: [&first, last]
                .iter()
                .any(|p| p.notify(NotifyType::INITIAL_CONTACT).is_some()),
            token: [last, &first]
                .iter()
                .find_map(|p| crash::given(p.notify(NotifyType::QUICK_CRASH_DETECTION))),
            answer,
        };
        self.accept_initiator(now, shared, request, accepted, &first);
    }
}

/// The peer that asks for EAP: it sends no AUTH, and EAP is configured for it.
fn meant(
    shared: &Shared,
    path: Path,
    suite: IkeSuite,
    payloads: &Payloads<'_>,
) -> Option<(Arc<PeerConfig>, Arc<EapAuthenticatorConfig>)> {
    if payloads.auth.is_some() {
        return None;
    }
    let id = payloads.id_i?;
    shared.policies.perhaps(path, id).find_map(|peer| {
        let RemoteAuth::Eap(eap) = &peer.remote_auth else { return None };
        let is_meant = payloads.id_r.is_none_or(|us| peer.local_id.is(us))
            && proposal::accepts(&peer.proposals, suite);
        is_meant.then(|| (Arc::clone(peer), Arc::clone(eap)))
    })
}

fn begin(
    now: Instant,
    shared: &mut Shared,
    half_open: &HalfOpen,
    opened: &Opened,
    payloads: &Payloads<'_>,
    peer: &Arc<PeerConfig>,
    authenticator: Arc<EapAuthenticatorConfig>,
) -> Result<Step, Error> {
    let id = payloads.id_i.ok_or(Error::MissingPayload(PayloadType::ID_I))?;
    let who = identity::describe(id);
    let asked_alone = payloads.notify(NotifyType::EAP_ONLY_AUTHENTICATION).is_some();
    let ours = match (peer.is_eap_alone(), asked_alone) {
        (true, true) => Ours::Named(peer.local_id.clone()),
        (true, false) => {
            return Err(Error::Authentication(AuthenticationFault::EapNotAlone));
        }
        // RFC 5998 3: who does not want to leave AUTH out sends it.
        (false, _) => {
            let HalfOpen { channel, transcript, .. } = half_open;
            let octets = transcript.signed_octets(channel, false, &peer.local_id.body());
            let auth = prove(peer, channel.suite.prf, transcript, &octets)?;
            // The initiator names its PPK with its AUTH, which comes last (RFC 8784 3).
            Ours::Proven(AuthAnswer { peer: Arc::clone(peer), auth, ppk: false, last: false })
        }
    };
    let known = (!authenticator.ask_identity).then(|| identity::user_name(id));
    let mut around = Surroundings {
        time_of_day: shared.time_of_day(now),
        random: shared.random.as_mut(),
        users: &shared.policies.users,
    };
    let begun = Authenticator::begin(authenticator, limits(&shared.config), &mut around, known);
    let (authenticator, message) = begun.map_err(|fault| {
        Error::Authentication(AuthenticationFault::Eap { who: who.clone(), fault })
    })?;
    let eap = EapResponder {
        peer: Arc::clone(peer),
        first: opened.clone(),
        id_i: id.body(),
        who,
        told: false,
        stage: Stage::Asking(authenticator),
    };
    Ok(Step::Ask { eap: Box::new(eap), message, ours: Some(ours) })
}

impl EapResponder {
    /// Whether the peer is known to fail.
    pub(super) const fn has_failed(&self) -> bool {
        self.told
    }

    fn advance(
        self,
        now: Instant,
        shared: &mut Shared,
        half_open: &mut HalfOpen,
        payloads: &Payloads<'_>,
    ) -> Result<Step, Error> {
        let Self { peer, first, id_i, who: outer, told, stage } = self;
        match stage {
            Stage::Asking(mut authenticator) => {
                let eap = payloads.eap.ok_or(Error::MissingPayload(PayloadType::EAP))?;
                let mut around = Surroundings {
                    time_of_day: shared.time_of_day(now),
                    random: shared.random.as_mut(),
                    users: &shared.policies.users,
                };
                let action = authenticator.handle(&mut around, eap);
                let who = authenticator.identity().unwrap_or(&outer).escape_default().to_string();
                let (message, stage) = match action {
                    Action::Send(message) => (Some(message), Stage::Asking(authenticator)),
                    Action::Success(message, success) => {
                        let alone = peer.is_eap_alone();
                        if alone && !success.method.may_stand_alone() {
                            let fault = AuthenticationFault::EapTooWeak(success.method);
                            return Err(Error::Authentication(fault));
                        }
                        let (name, user) = authenticator.proven(success.method);
                        (message, Stage::Proven { success, who, name, user })
                    }
                    Action::Failure(message, fault) => {
                        let error = Error::Authentication(AuthenticationFault::Eap { who, fault });
                        return match message {
                            Some(message) => Ok(Step::Refuse { message, error, told }),
                            None => Err(error),
                        };
                    }
                };
                let message = message.ok_or(Error::Internal("EAP ends without a message"))?;
                let eap = Box::new(Self { peer, first, id_i, who: outer, told, stage });
                Ok(Step::Ask { eap, message, ours: None })
            }
            Stage::Proven { success, who, name, user } => {
                let auth = payloads.auth.ok_or(Error::MissingPayload(PayloadType::AUTH))?;
                let HalfOpen { channel, transcript, .. } = half_open;
                let auth = ppk::accept(channel, transcript, &peer, payloads, auth)?;
                let octets = transcript.signed_octets(channel, true, &id_i);
                let expected = auth_after(&success, channel, true, &octets);
                verify_after(&expected, &auth, || who.clone())?;
                if !is_current(shared, &peer, user.as_ref()) {
                    return Err(Error::Authentication(AuthenticationFault::EapOutdated(who)));
                }
                Ok(Step::Accept(Accept { peer, first, success, user: name }))
            }
        }
    }
}

/// Policies may have changed since EAP began; nothing else looks at a half-open IKE SA.
fn is_current(shared: &Shared, peer: &Arc<PeerConfig>, user: Option<&Arc<User>>) -> bool {
    let policies = &shared.policies;
    policies.peers.get(&peer.name) == Some(peer)
        && user.is_none_or(|user| policies.users.get(&user.name) == Some(user))
}
