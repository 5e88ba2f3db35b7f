//! IKE_AUTH, both roles (RFC 7296 1.2, 2.15, 2.21.2): the exchange, and the proof that it yields.
//! What AUTH covers is in `transcript`; how it is made and checked, in a module for each method.

mod certificate;
mod eap;
mod ppk;
mod proof;
mod psk;
mod signature;
mod transcript;

use core::mem;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use self::eap::{EapInitiator, EapResponder};
use gateway_wire::{
    AuthMethod, Authentication, ExchangeType, IdType, Identification, NotifyType, Payload,
    PayloadType,
};
use zeroize::Zeroizing;

pub(in crate::ike_sa) use self::certificate::Wanted;
use self::proof::{Claim, PeerAuthenticated, prove, verify};
pub use self::proof::{PeerCertificate, PeerProof};
pub(in crate::ike_sa) use self::signature::{hash_list, parse_hash_list};
pub(crate) use self::transcript::Transcript;
use super::child::{self, ChildRequest, Withheld};
use super::childless::{self, FirstChild};
use super::init::candidates;
use super::intermediate::KeyRounds;
use super::mobility::{forbids_nats, meets_nat, mobike};
use super::offer::ChildOffer;
use super::{Established, IkeSa, Job, State, notify};
use crate::algorithms::Group;
use crate::assignment::Request;
use crate::channel::{Channel, Opened, RequestId};
use crate::config::{LocalAuth, PeerConfig, PeerName, RemoteAuth};
use crate::counters::Counter;
use crate::crash;
use crate::error::{AuthenticationFault, Error};
use crate::event::EventKind;
use crate::identity;
use crate::io::Path;
use crate::leases::Holder;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::proposal;
use crate::reason::Claimed;
use crate::shared::{Digest, Effect, Shared};

/// Responder: IKE_SA_INIT is answered.
pub(crate) struct HalfOpen {
    pub(super) channel: Channel,
    pub(super) transcript: Transcript,
    pub(super) nat: NatDetected,
    /// The additional key exchanges that are still to come before IKE_AUTH.
    pub(super) rounds: VecDeque<Group>,
    pub(super) deadline: Instant,
    /// By which a repeated request finds this SA.
    pub(crate) key: (Digest, Path),
    /// EAP, once the initiator asks for it.
    pub(super) eap: Option<Box<EapResponder>>,
}

impl HalfOpen {
    /// The answer to the very same IKE_SA_INIT request (RFC 7296 2.1).
    pub(crate) fn repeated(&self, request: &[u8]) -> Option<&[u8]> {
        (self.transcript.request == request).then_some(&self.transcript.response)
    }
}

/// Initiator: IKE_AUTH is sent.
pub(crate) struct AwaitAuth {
    pub(super) channel: Channel,
    pub(super) transcript: Transcript,
    pub(super) nat: NatDetected,
    /// The first Child SA, if it travels in the same exchange.
    pub(super) child: Option<ChildOffer>,
    /// The PPK that we offered.
    ppk: Option<ppk::Offered>,
    /// EAP, if it is how we authenticate.
    pub(super) eap: Option<Box<EapInitiator>>,
}

/// An initiator that is authenticated, and what the responder has of it.
struct Accepted {
    channel: Channel,
    transcript: Transcript,
    nat: NatDetected,
    peer: PeerAuthenticated,
    /// Whether the initiator has no other IKE SA with us, as far as it knows.
    initial_contact: bool,
    /// Its token (RFC 6290).
    token: Option<Zeroizing<Vec<u8>>>,
    answer: AuthAnswer,
}

impl IkeSa {
    /// Initiator: sends IKE_AUTH, with the first job that is a Child SA unless that is left out.
    pub(super) fn send_auth(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        rounds: KeyRounds,
    ) -> Result<(), Error> {
        let KeyRounds { mut channel, mut transcript, nat, childless, rounds: _ } = rounds;
        transcript.int_auth = channel.take_int_auth();
        let peer = self.peer.clone().ok_or(Error::Internal("no peer to authenticate to"))?;
        let eap = match &peer.local_auth {
            LocalAuth::Eap(eap) => Some(Box::new(EapInitiator::new(now, &shared.config, eap))),
            LocalAuth::Psk(_) | LocalAuth::Certificate(_) | LocalAuth::PublicKey(_) => None,
        };
        let (ours, ppk) = match &eap {
            Some(_) => (None, None),
            None => {
                let (ours, ppk) = Proof::new(&mut channel, &transcript, &peer)?;
                (Some(ours), ppk)
            }
        };
        let wanted = Wanted::of(&[&peer]);
        let offer = self.first_child(shared, childless)?;
        let (our_id, their_id) = (peer.local_id.to_wire(), peer.remote_id.to_wire());
        let mut payloads = vec![Payload::IdInitiator(Identification::new(our_id.0, &our_id.1))];
        payloads.extend(certificate::ours(&peer.local_auth));
        if shared.is_first_contact(&peer.name) {
            payloads.push(notify(NotifyType::INITIAL_CONTACT, &[]));
        }
        payloads.extend(wanted.payloads());
        payloads.push(Payload::IdResponder(Identification::new(their_id.0, &their_id.1)));
        match &ours {
            Some(ours) => payloads.extend(ours.payloads()),
            // RFC 7296 2.16: who sends no AUTH asks for EAP.
            None => payloads.extend(EapInitiator::notifications(&peer)),
        }
        // RFC 7296 2.19: before SA.
        let request = Request::new(peer.request_address, self.keep);
        payloads.extend(request.iter().map(|r| Payload::Configuration(r.payload())));
        if let Some(offer) = &offer {
            payloads.extend(offer.payloads());
        }
        let mut mobility = mobike::announcement(shared, &peer, self.path);
        if peer.mobike {
            mobility.extend(forbids_nats(self.path, nat));
        }
        payloads.extend(mobike::payloads(&mobility));
        // RFC 6290 4.1: the token goes with AUTH.
        let token = ours.as_ref().and_then(|_| self.crash_token(shared));
        payloads.extend(token.iter().map(|token| crash::payload(token)));
        let waiting = AwaitAuth { channel, transcript, nat, child: offer, ppk, eap };
        self.state = State::AwaitAuth(Box::new(waiting));
        self.send_request(now, shared, ExchangeType::IKE_AUTH, &payloads)
    }

    /// Initiator: the authentic answer to IKE_AUTH.
    pub(super) fn auth_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
    ) {
        if self.eap_response(now, shared, opened) {
            return;
        }
        let State::AwaitAuth(waiting) = mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let AwaitAuth { mut channel, transcript, nat, child, ppk, eap } = *waiting;
        let inner = opened.payloads().map_err(Error::from);
        let checked = inner.as_ref().map_err(Clone::clone).and_then(|payloads| {
            let payloads = Payloads::collect(ExchangeType::IKE_AUTH, payloads)?;
            ppk::settle(&mut channel, ppk, &payloads)?;
            certificate::count_ignored(shared, &payloads.certificates);
            let peer = self.check_responder(now, shared, &channel, &transcript, &payloads, eap)?;
            let token = crash::given(payloads.notify(NotifyType::QUICK_CRASH_DETECTION));
            let answer = self.first_child_answered(&payloads, child.as_ref(), nat);
            Ok((peer, answer, token, payloads.notifies))
        });
        let (peer, answer, token, notifies) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                if let Some(child) = child {
                    shared.release_spi(child.spi);
                    self.jobs.push_front(Job::CreateChild(child.wish));
                }
                self.claimed =
                    Claimed::in_message(opened, false, transcript.peer_hashes.as_deref());
                return self.reject_responder(now, shared, channel, error);
            }
        };
        // RFC 7296 2.23: we follow the address from which the peer answers, now that we know it.
        self.path = path;
        let nonces = (transcript.initiator_nonce, transcript.responder_nonce);
        self.establish(now, shared, channel, nat, &peer);
        self.keep_token(token);
        self.agree_on_mobike(shared, &notifies, true);
        match (child, answer) {
            (Some(child), Ok((Some(answer), given))) => {
                self.accept_assignment(shared, given);
                self.install_offered(now, shared, child, answer, (&nonces.0, &nonces.1));
            }
            (_, Ok((_, given))) => self.accept_assignment(shared, given),
            (child, Err(error)) if !peer.peer().request_address.is_empty() => {
                self.end_without_address(now, shared, child, error);
            }
            (Some(child), Err(error)) => self.offer_failed(now, shared, child, error),
            (None, Err(error)) => self.childless_answer_failed(now, shared, error),
        }
        self.next_job(now, shared);
    }

    /// Our token of this IKE SA, by which it dies.
    fn crash_token(&self, shared: &Shared) -> Option<Zeroizing<Vec<u8>>> {
        shared.crash_tokens.token((self.initiator_spi, self.responder_spi))
    }

    fn check_responder(
        &self,
        now: Instant,
        shared: &Shared,
        channel: &Channel,
        transcript: &Transcript,
        payloads: &Payloads<'_>,
        eap: Option<Box<EapInitiator>>,
    ) -> Result<PeerAuthenticated, Error> {
        let peer = self.peer.clone().ok_or(Error::Internal("no peer to check"))?;
        // RFC 7296 2.21.2: with one of these there is no IKE SA, whatever stands beside it.
        let fatal = payloads.notifies.iter().find(|n| super::informational::refuses_auth(n.kind));
        if let Some(fatal) = fatal {
            return Err(Error::Refused(fatal.kind));
        }
        let Some(auth) = payloads.auth else {
            return Err(payloads
                .error()
                .map_or(Error::MissingPayload(PayloadType::AUTH), |e| Error::Refused(e.kind)));
        };
        if let Some(eap) = eap {
            return eap.check_last(peer, channel, transcript, auth);
        }
        let id = check_identity(&peer, payloads)?;
        let octets = transcript.signed_octets(channel, false, &id.body());
        verify(&peer, &claim(now, shared, channel, transcript, payloads, auth, &octets))
    }

    /// RFC 7296 2.21.2: the responder believes that the SA stands; it must hear that it does not.
    fn reject_responder(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        error: Error,
    ) {
        let heard_no = matches!(error, Error::Refused(_));
        let words = crate::error::notification_for(&error);
        self.fail(shared, error);
        if heard_no {
            return;
        }
        self.state = State::Closing(Box::new(super::Closing::new(now, shared, channel)));
        let Some(words) = words else { return };
        if self
            .send_request(
                now,
                shared,
                ExchangeType::INFORMATIONAL,
                &[notify(words.kind, &words.data)],
            )
            .is_err()
        {
            self.state = State::Closed;
        }
    }

    /// Responder: the authentic IKE_AUTH request of a peer that has yet to say who it is.
    pub(super) fn auth_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        if self.eap_request(now, shared, path, opened, datagram) {
            return;
        }
        let request = RequestId::new(opened, datagram);
        let Some(half_open) = self.take_half_open(shared) else { return };
        let HalfOpen { mut channel, mut transcript, nat, rounds, .. } = half_open;
        self.path = path;
        if !rounds.is_empty() {
            let error = Error::UnexpectedExchange;
            return self.refuse_initiator(now, shared, channel, request, error);
        }
        transcript.int_auth = channel.take_int_auth();
        let inner = match opened.payloads() {
            Ok(inner) => inner,
            Err(error) => {
                return self.refuse_initiator(now, shared, channel, request, Error::from(error));
            }
        };
        let authenticated =
            Payloads::collect(ExchangeType::IKE_AUTH, &inner).and_then(|payloads| {
                certificate::count_ignored(shared, &payloads.certificates);
                let peer =
                    check_initiator(now, shared, path, &mut channel, &transcript, &payloads)?;
                let octets =
                    transcript.signed_octets(&channel, false, &peer.peer().local_id.body());
                let ours = prove(peer.peer(), channel.suite.prf, &transcript, &octets)?;
                Ok((payloads, peer, ours))
            });
        let (payloads, peer, ours) = match authenticated {
            Ok(authenticated) => authenticated,
            Err(error) => {
                self.claimed = Claimed::in_message(opened, true, transcript.peer_hashes.as_deref());
                return self.refuse_initiator(now, shared, channel, request, error);
            }
        };
        let ppk = channel.keys.has_ppk();
        let answer = AuthAnswer { peer: Arc::clone(peer.peer()), auth: ours, ppk, last: false };
        let initial_contact = payloads.notify(NotifyType::INITIAL_CONTACT).is_some();
        let token = crash::given(payloads.notify(NotifyType::QUICK_CRASH_DETECTION));
        let accepted = Accepted { channel, transcript, nat, peer, initial_contact, token, answer };
        self.accept_initiator(now, shared, request, accepted, &payloads);
    }

    /// Responder: the IKE SA stands; `payloads` ask for the first Child SA.
    fn accept_initiator(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        request: RequestId,
        accepted: Accepted,
        payloads: &Payloads<'_>,
    ) {
        let Accepted { channel, transcript, nat, peer, initial_contact, token, answer } = accepted;
        // RFC 4555 3.9.
        if peer.peer().mobike && meets_nat(self.path, payloads) {
            shared.count(Counter::NatUnexpected);
            return self.refuse_initiator(now, shared, channel, request, Error::UnexpectedNat);
        }
        // Before it is counted: those that are dead are not too many.
        if initial_contact {
            shared.effects.push(Effect::InitialContact {
                peer: Arc::clone(&peer.peer().name),
                user: self.user.clone(),
                except: self.id,
                before: self.begun,
            });
        }
        self.establish(now, shared, channel, nat, &peer);
        self.keep_token(token);
        self.agree_on_mobike(shared, &payloads.notifies, false);
        let nonces = (transcript.initiator_nonce.as_slice(), transcript.responder_nonce.as_slice());
        let mut withheld = Withheld::new(now, request, self.path, Some(answer));
        match self.configure(shared, peer.peer(), payloads.cp) {
            Ok(configuration) => withheld.configuration = configuration,
            Err(error) => return self.release_answer(now, shared, withheld, Err(error)),
        }
        match childless::check_request(peer.peer(), payloads) {
            FirstChild::LeftOut => return self.release_answer(now, shared, withheld, Ok(None)),
            FirstChild::Refused(error) => {
                return self.release_answer(now, shared, withheld, Err(error));
            }
            FirstChild::Asked => {}
        }
        let wanted = ChildRequest::in_auth(payloads, nonces);
        let negotiated = child::negotiate(shared, self, &wanted)
            .and_then(|agreement| agreement.conclude(shared, self, nonces));
        match negotiated {
            Ok(negotiated) => self.install_withheld(now, shared, withheld, negotiated),
            Err(error) => self.release_answer(now, shared, withheld, Err(error)),
        }
    }

    /// The configuration of the peer differs in certificates only. What stands goes on if the peer
    /// would be believed again, and what comes next is judged by the new configuration.
    pub(crate) fn peer_renewed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        peer: &Arc<PeerConfig>,
    ) {
        self.peer = Some(Arc::clone(peer));
        let State::Established(_) = &self.state else { return };
        let Some(proof) = &self.proof else { return };
        if let Err(fault) = proof.judge(&shared.config, shared.time_of_day(now), peer) {
            shared.count(Counter::AuthenticationFailed);
            self.event(shared, EventKind::NoLongerBelieved(fault));
            self.delete_ike(now, shared, "the peer's certificate is not believed any more");
        }
    }

    pub(super) fn take_half_open(&mut self, shared: &mut Shared) -> Option<HalfOpen> {
        if !matches!(self.state, State::HalfOpen(_)) {
            return None;
        }
        let State::HalfOpen(half_open) = mem::replace(&mut self.state, State::Closed) else {
            return None;
        };
        shared.effects.push(Effect::NoLongerHalfOpen { key: half_open.key });
        Some(*half_open)
    }

    /// RFC 7296 2.21.2: the refusal is encrypted, and the IKE SA is over; what is left answers
    /// the same request in the same way until the initiator has heard.
    pub(super) fn refuse_initiator(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        request: RequestId,
        error: Error,
    ) {
        self.refuse_initiator_with(now, shared, channel, request, error, &[]);
    }

    /// The same, with something beside the notification.
    fn refuse_initiator_with(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        mut channel: Channel,
        request: RequestId,
        error: Error,
        beside: &[Payload<'_>],
    ) {
        self.answer_refused(shared, &mut channel, request, &error, beside);
        self.fail(shared, error);
        self.state = State::Closing(Box::new(super::Closing::new(now, shared, channel)));
        shared.effects.push(Effect::Refused { ike_sa: self.id });
    }

    fn answer_refused(
        &self,
        shared: &mut Shared,
        channel: &mut Channel,
        request: RequestId,
        error: &Error,
        beside: &[Payload<'_>],
    ) {
        if let Some(words) = crate::error::notification_for(error) {
            let mut payloads = beside.to_vec();
            payloads.push(notify(words.kind, &words.data));
            if let Ok(answer) = channel.respond(shared.random.as_mut(), request, &payloads) {
                shared.transmit(self.path, answer);
            }
        }
    }

    /// Both ends are authenticated: the IKE SA stands.
    fn establish(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        nat: NatDetected,
        peer: &PeerAuthenticated,
    ) {
        let suite = channel.suite;
        let PeerConfig { name, remote_id, .. } = &**peer.peer();
        self.peer = Some(Arc::clone(peer.peer()));
        self.proof = Some(peer.proof().clone());
        let mut established = Established::new(now, channel, nat);
        established.begin_life(now, shared, peer.peer());
        self.state = State::Established(Box::new(established));
        shared.count(Counter::IkeSaEstablished);
        let holder = Holder { peer: PeerName::clone(name), user: self.user.clone() };
        shared.contacted(holder, self.id);
        self.event(
            shared,
            EventKind::Established {
                suite,
                remote_id: self
                    .user
                    .as_ref()
                    .map_or_else(|| remote_id.to_string(), ToString::to_string),
                proof: peer.proof().to_string(),
                nat_local: nat.local,
                nat_remote: nat.remote,
            },
        );
    }
}

/// The initiator's proof: AUTH and, with a PPK, what goes with that.
struct Proof {
    method: AuthMethod,
    data: Zeroizing<Vec<u8>>,
    notifications: Vec<(NotifyType, Vec<u8>)>,
}

impl Proof {
    /// The proof, and what to do if the responder does not use the PPK that it names.
    fn new(
        channel: &mut Channel,
        transcript: &Transcript,
        peer: &PeerConfig,
    ) -> Result<(Self, Option<ppk::Offered>), Error> {
        let (id, prf) = (peer.local_id.body(), channel.suite.prf);
        let octets = |channel: &Channel| transcript.signed_octets(channel, true, &id);
        let plain = octets(channel);
        let (ppk, offered) = ppk::offer(channel, transcript, peer).unzip();
        let (method, data) = prove(peer, prf, transcript, &octets(channel))?;
        let notifications = match ppk {
            None => Vec::new(),
            Some(ppk) => {
                let (_method, plain_auth) = prove(peer, prf, transcript, &plain)?;
                ppk::notifications(ppk, &plain_auth)
            }
        };
        Ok((Self { method, data, notifications }, offered))
    }

    fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let auth = Authentication { method: self.method, data: &self.data };
        let notifications = self.notifications.iter().map(|(kind, data)| notify(*kind, data));
        core::iter::once(Payload::Authentication(auth)).chain(notifications)
    }
}

/// What the responder says of itself in its IKE_AUTH answer.
pub(super) struct AuthAnswer {
    peer: Arc<PeerConfig>,
    auth: (AuthMethod, Zeroizing<Vec<u8>>),
    /// Whether the initiator's PPK is used, which is said by naming it without a name.
    ppk: bool,
    /// After EAP it has said who it is before.
    last: bool,
}

impl AuthAnswer {
    /// The identity's wire form.
    pub(super) fn id(&self) -> (IdType, Vec<u8>) {
        self.peer.local_id.to_wire()
    }

    /// IDr, CERT and AUTH; `kind` and `data` are [`Self::id`], which the payloads borrow.
    pub(super) fn payloads<'a>(&'a self, kind: IdType, data: &'a [u8]) -> Vec<Payload<'a>> {
        let mut payloads = Vec::new();
        if !self.last {
            payloads.push(Payload::IdResponder(Identification::new(kind, data)));
            payloads.extend(certificate::ours(&self.peer.local_auth));
        }
        let (method, data) = &self.auth;
        payloads.push(Payload::Authentication(Authentication { method: *method, data }));
        payloads.extend(self.ppk.then_some(notify(NotifyType::PPK_IDENTITY, &[])));
        payloads
    }
}

/// What the peer claims by AUTH, over these octets.
fn claim<'a>(
    now: Instant,
    shared: &'a Shared,
    channel: &Channel,
    transcript: &'a Transcript,
    payloads: &'a Payloads<'a>,
    auth: &'a Authentication<'a>,
    octets: &'a [u8],
) -> Claim<'a> {
    Claim {
        limits: &shared.config,
        now: shared.time_of_day(now),
        prf: channel.suite.prf,
        transcript,
        auth,
        certificates: &payloads.certificates,
        octets,
    }
}

/// Initiator: whether the responder says that it is the peer.
fn check_identity<'a>(
    peer: &PeerConfig,
    payloads: &Payloads<'a>,
) -> Result<&'a Identification<'a>, Error> {
    let id = payloads.id_r.ok_or(Error::MissingPayload(PayloadType::ID_R))?;
    if !peer.remote_id.is(id) {
        let fault = AuthenticationFault::WrongIdentity {
            found: identity::describe(id),
            expected: peer.remote_id.to_string(),
        };
        return Err(Error::Authentication(fault));
    }
    Ok(id)
}

fn check_initiator(
    now: Instant,
    shared: &Shared,
    path: Path,
    channel: &mut Channel,
    transcript: &Transcript,
    payloads: &Payloads<'_>,
) -> Result<PeerAuthenticated, Error> {
    let id = payloads.id_i.ok_or(Error::MissingPayload(PayloadType::ID_I))?;
    let is_meant = |p: &&Arc<PeerConfig>| {
        p.remote_id.is(id)
            && payloads.id_r.is_none_or(|us| p.local_id.is(us))
            // IKE_SA_INIT chose the suite for some peer at this address; this one may be stricter.
            && proposal::accepts(&p.proposals, channel.suite)
    };
    let uses_eap = |p: &&Arc<PeerConfig>| {
        matches!(&p.local_auth, LocalAuth::Eap(_)) || matches!(&p.remote_auth, RemoteAuth::Eap(_))
    };
    let (by_eap, by_auth): (Vec<_>, Vec<_>) =
        candidates(&shared.policies, path).filter(is_meant).partition(uses_eap);
    let peer = by_auth.first();
    let unknown =
        || Error::Authentication(AuthenticationFault::UnknownIdentity(identity::describe(id)));
    let auth = payloads.auth.ok_or(Error::Authentication(AuthenticationFault::EapNotConfigured))?;
    if peer.is_none() && !by_eap.is_empty() {
        return Err(Error::Authentication(AuthenticationFault::EapDemanded));
    }
    let peer = peer.ok_or_else(unknown)?;
    let auth = ppk::accept(channel, transcript, peer, payloads, auth)?;
    let octets = transcript.signed_octets(channel, true, &id.body());
    verify(peer, &claim(now, shared, channel, transcript, payloads, &auth, &octets))
}
