//! The initiator's side of IKE_AUTH: who we are, and whether the responder is the peer.

use core::mem;
use std::time::Instant;

use gateway_wire::{
    AuthMethod, Authentication, ExchangeType, Identification, NotifyType, Payload, PayloadType,
};
use zeroize::Zeroizing;

use super::eap::EapInitiator;
use super::proof::{PeerAuthenticated, prove, verify};
use super::{Transcript, Wanted, certificate, claim, ppk};
use crate::assignment::Request;
use crate::channel::{Channel, Opened};
use crate::config::{LocalAuth, PeerConfig};
use crate::crash;
use crate::error::{AuthenticationFault, Error};
use crate::identity;
use crate::ike_sa::intermediate::KeyRounds;
use crate::ike_sa::mobility::{forbids_nats, mobike};
use crate::ike_sa::offer::ChildOffer;
use crate::ike_sa::{Closing, IkeSa, Job, State, informational, notify};
use crate::io::Path;
use crate::leases::Lease;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::reason::Claimed;
use crate::shared::Shared;

/// Initiator: IKE_AUTH is sent.
pub(crate) struct AwaitAuth {
    pub(in crate::ike_sa) channel: Channel,
    pub(in crate::ike_sa) transcript: Transcript,
    pub(in crate::ike_sa) nat: NatDetected,
    /// The first Child SA, if it travels in the same exchange.
    pub(in crate::ike_sa) child: Option<ChildOffer>,
    /// The PPK that we offered.
    pub(super) ppk: Option<ppk::Offered>,
    /// EAP, if it is how we authenticate.
    pub(in crate::ike_sa) eap: Option<Box<EapInitiator>>,
}

impl IkeSa {
    /// Initiator: sends IKE_AUTH, with the first job that is a Child SA unless that is left out.
    pub(in crate::ike_sa) fn send_auth(
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
                let prove = |channel: &Channel, octets: &[u8]| {
                    prove(&peer, channel.suite.prf, &transcript, octets)
                };
                let (ours, ppk) = Proof::new(&mut channel, &transcript, &peer, prove)?;
                (Some(ours), ppk)
            }
        };
        let wanted = Wanted::of(&peer);
        let offer = self.first_child(shared, childless, nat)?;
        let (our_id, their_id) = (peer.local_id.to_wire(), peer.remote_id.to_wire());
        let mut payloads = vec![Payload::IdInitiator(Identification::new(our_id.0, &our_id.1))];
        payloads.extend(certificate::ours(&peer.local_auth));
        // RFC 7296 2.4.
        if !shared.contacts.has_peer(&peer.name) {
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
            // With EAP there is more to come before the peer has the Child SA.
            if ours.is_some() {
                self.expect(shared, offer);
            }
        }
        let mut mobility = mobike::announcement(shared, &peer, self.path);
        if peer.mobike {
            mobility.extend(forbids_nats(self.path, nat));
        }
        payloads.extend(mobike::payloads(&mobility));
        payloads.push(notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]));
        // RFC 6290 4.1: the token goes with AUTH.
        let token = ours.as_ref().and_then(|_| self.crash_token(shared));
        payloads.extend(token.iter().map(|token| crash::payload(token)));
        let waiting = AwaitAuth { channel, transcript, nat, child: offer, ppk, eap };
        self.state = State::AwaitAuth(Box::new(waiting));
        self.send_request(now, shared, ExchangeType::IKE_AUTH, &payloads)
    }

    /// Initiator: the authentic answer to IKE_AUTH.
    pub(in crate::ike_sa) fn auth_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
    ) {
        if let State::AwaitAuth(waiting) = &mut self.state {
            waiting.channel.note_ids_agreement(opened);
        }
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
            let (given, answer) =
                self.first_child_answered(shared, &payloads, child.as_ref(), (nat, path));
            Ok((peer, (given, answer), token, payloads.notifies))
        });
        let (peer, (given, answer), token, notifies) = match checked {
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
        self.accept_assignment(shared, given);
        let has_no_address = self.assignment.lease == Lease::default();
        match (child, answer) {
            (Some(child), Ok(Some(answer))) => {
                self.install_offered(now, shared, child, answer, (&nonces.0, &nonces.1));
            }
            (_, Ok(_)) => {}
            (child, Err(error)) if has_no_address && !peer.peer().request_address.is_empty() => {
                self.end_without_address(now, shared, child, error);
            }
            (Some(child), Err(Error::Refused(NotifyType::SINGLE_PAIR_REQUIRED))) => {
                self.single_pair_required(now, shared, child);
            }
            (Some(child), Err(error)) => self.offer_failed(now, shared, child, error),
            (None, Err(error)) => self.childless_answer_failed(now, shared, error),
        }
        // A reload leaves alone what does not stand yet.
        let is_needed = shared.policies.rules_of(&peer.peer().name).next().is_some();
        if !is_needed && self.is_established() {
            self.add_job(now, shared, Job::DeleteIke { reason: "no rule needs it" });
        }
        self.next_job(now, shared);
    }

    /// Our token of this IKE SA, by which it dies.
    pub(super) fn crash_token(&self, shared: &Shared) -> Option<Zeroizing<Vec<u8>>> {
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
        let fatal = payloads.notifies.iter().find(|n| informational::refuses_auth(n.kind));
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
        self.state = State::Closing(Box::new(Closing::new(now, shared, channel)));
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
}

/// The initiator's proof: AUTH and, with a PPK, what goes with that.
pub(super) struct Proof {
    method: AuthMethod,
    data: Zeroizing<Vec<u8>>,
    notifications: Vec<(NotifyType, Vec<u8>)>,
}

impl Proof {
    /// The proof, and what to do if the responder does not use the PPK that it names. `prove`
    /// makes AUTH from the octets that it covers, with the keys that the channel has by then.
    pub(super) fn new(
        channel: &mut Channel,
        transcript: &Transcript,
        peer: &PeerConfig,
        prove: impl Fn(&Channel, &[u8]) -> Result<(AuthMethod, Zeroizing<Vec<u8>>), Error>,
    ) -> Result<(Self, Option<ppk::Offered>), Error> {
        let id = peer.local_id.body();
        let proven =
            |channel: &Channel| prove(channel, &transcript.signed_octets(channel, true, &id));
        // With the keys as they are, for a responder that has another PPK.
        let plain = ppk::is_optional(transcript, peer).then(|| proven(channel)).transpose()?;
        let (ppk, offered) = ppk::offer(channel, transcript, peer).unzip();
        let (method, data) = proven(channel)?;
        let plain = plain.as_ref().map(|(_method, data)| data.as_slice());
        let notifications = ppk.map(|ppk| ppk::notifications(ppk, plain)).unwrap_or_default();
        Ok((Self { method, data, notifications }, offered))
    }

    pub(super) fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let auth = Authentication { method: self.method, data: &self.data };
        let notifications = self.notifications.iter().map(|(kind, data)| notify(*kind, data));
        core::iter::once(Payload::Authentication(auth)).chain(notifications)
    }
}

/// Initiator: whether the responder says that it is the peer.
pub(super) fn check_identity<'a>(
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
