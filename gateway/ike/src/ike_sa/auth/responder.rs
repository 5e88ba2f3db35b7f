//! The responder's side of IKE_AUTH: who the initiator is, and what it is granted or told.

use core::mem;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    AuthMethod, Authentication, ExchangeType, IdType, Identification, NotifyType, Payload,
    PayloadType,
};
use zeroize::Zeroizing;

use super::eap::EapResponder;
use super::proof::{PeerAuthenticated, prove, verify};
use super::{Transcript, certificate, claim, ppk};
use crate::algorithms::Group;
use crate::channel::{Channel, Opened, RequestId};
use crate::config::{LocalAuth, PeerConfig, RemoteAuth};
use crate::counters::Counter;
use crate::crash;
use crate::effect::Effect;
use crate::error::{AuthenticationFault, Error};
use crate::identity;
use crate::ike_sa::child::{self, ChildRequest, Withheld};
use crate::ike_sa::childless::{self, FirstChild};
use crate::ike_sa::mobility::meets_nat;
use crate::ike_sa::{Closing, IkeSa, State, notify};
use crate::io::Path;
use crate::leases::Holder;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::proposal;
use crate::reason::Claimed;
use crate::shared::{Digest, Shared};

/// Responder: IKE_SA_INIT is answered.
pub(crate) struct HalfOpen {
    pub(in crate::ike_sa) channel: Channel,
    pub(in crate::ike_sa) transcript: Transcript,
    pub(in crate::ike_sa) nat: NatDetected,
    /// The additional key exchanges that are still to come before IKE_AUTH.
    pub(in crate::ike_sa) rounds: VecDeque<Group>,
    pub(in crate::ike_sa) deadline: Instant,
    /// By which a repeated request finds this SA.
    pub(crate) key: (Digest, Path),
    /// EAP, once the initiator asks for it.
    pub(in crate::ike_sa) eap: Option<Box<EapResponder>>,
}

impl HalfOpen {
    /// The answer to the very same IKE_SA_INIT request (RFC 7296 2.1).
    pub(crate) fn repeated(&self, request: &[u8]) -> Option<&[u8]> {
        (self.transcript.request == request).then_some(&self.transcript.response)
    }
}

/// An initiator that is authenticated, and what the responder has of it.
pub(super) struct Accepted {
    pub(super) channel: Channel,
    pub(super) transcript: Transcript,
    pub(super) nat: NatDetected,
    pub(super) peer: PeerAuthenticated,
    /// Whether the initiator has no other IKE SA with us, as far as it knows.
    pub(super) initial_contact: bool,
    /// Its token (RFC 6290).
    pub(super) token: Option<Zeroizing<Vec<u8>>>,
    pub(super) answer: AuthAnswer,
}

impl IkeSa {
    /// Responder: the authentic IKE_AUTH request of a peer that has yet to say who it is.
    pub(in crate::ike_sa) fn auth_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        if let State::HalfOpen(half_open) = &mut self.state {
            half_open.channel.note_ids_agreement(opened);
        }
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
    pub(super) fn accept_initiator(
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
                holder: Holder { peer: Arc::clone(&peer.peer().name), user: self.user.clone() },
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
        let wanted = ChildRequest::in_auth(payloads, nonces, initial_contact);
        let negotiated = child::negotiate(shared, self, &wanted)
            .and_then(|agreement| agreement.conclude(shared, self, nonces));
        match negotiated {
            Ok(negotiated) => self.install_withheld(now, shared, withheld, negotiated),
            Err(error) => self.release_answer(now, shared, withheld, Err(error)),
        }
    }

    pub(in crate::ike_sa) fn take_half_open(&mut self, shared: &mut Shared) -> Option<HalfOpen> {
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
    pub(in crate::ike_sa) fn refuse_initiator(
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
    pub(super) fn refuse_initiator_with(
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
        self.state = State::Closing(Box::new(Closing::new(now, shared, channel)));
        shared.effects.push(Effect::Refused { ike_sa: self.id });
    }

    pub(super) fn answer_refused(
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
}

/// What the responder says of itself in its IKE_AUTH answer.
pub(in crate::ike_sa) struct AuthAnswer {
    pub(super) peer: Arc<PeerConfig>,
    pub(super) auth: (AuthMethod, Zeroizing<Vec<u8>>),
    /// Whether the initiator's PPK is used, which is said by naming it without a name.
    pub(super) ppk: bool,
    /// After EAP it has said who it is before.
    pub(super) last: bool,
}

impl AuthAnswer {
    /// The identity's wire form.
    pub(in crate::ike_sa) fn id(&self) -> (IdType, Vec<u8>) {
        self.peer.local_id.to_wire()
    }

    /// IDr, CERT and AUTH; `kind` and `data` are [`Self::id`], which the payloads borrow.
    pub(in crate::ike_sa) fn payloads<'a>(
        &'a self,
        kind: IdType,
        data: &'a [u8],
    ) -> Vec<Payload<'a>> {
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
        payloads.id_r.is_none_or(|us| p.local_id.is(us))
            // IKE_SA_INIT chose the suite for some peer at this address; this one may be stricter.
            && proposal::accepts(&p.proposals, channel.suite)
    };
    let uses_eap = |p: &&Arc<PeerConfig>| {
        matches!(&p.local_auth, LocalAuth::Eap(_)) || matches!(&p.remote_auth, RemoteAuth::Eap(_))
    };
    let (by_eap, by_auth): (Vec<_>, Vec<_>) =
        shared.policies.identified(path, id).filter(is_meant).partition(uses_eap);
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
