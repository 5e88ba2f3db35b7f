//! The initiator's side: it is the one who is authenticated by EAP.

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{AuthMethod, Authentication, ExchangeType, NotifyType, Payload, PayloadType};

use super::super::super::{IkeSa, State, notify};
use super::super::{
    AwaitAuth, PeerAuthenticated, Proof, Transcript, check_identity, claim, verify,
};
use super::{auth_after, limits, verify_after};
use crate::channel::{Channel, Opened};
use crate::config::{EapPeerConfig, EndpointConfig, PeerConfig};
use crate::counters::Counter;
use crate::crash;
use crate::eap::{Action, Message, Peer, Success, Surroundings};
use crate::error::{AuthenticationFault, Error};
use crate::event::EventKind;
use crate::payloads::Payloads;
use crate::reason::Claimed;
use crate::shared::Shared;
use crate::time::after;

/// What an initiator holds while EAP is under way.
pub(in crate::ike_sa) struct EapInitiator {
    pub(super) deadline: Instant,
    config: Arc<EapPeerConfig>,
    end: Peer,
    /// From the first answer: the body of IDr, and proof of the responder unless EAP is all.
    responder: Option<(Vec<u8>, Option<PeerAuthenticated>)>,
    /// EAP has ended well, and AUTH is sent.
    success: Option<Success>,
}

/// What is sent next.
enum Next {
    Eap(Message),
    Auth(Proof, Success),
}

impl EapInitiator {
    pub(in crate::ike_sa::auth) fn new(
        now: Instant,
        config: &EndpointConfig,
        eap: &Arc<EapPeerConfig>,
    ) -> Self {
        Self {
            deadline: after(now, config.eap_timeout),
            config: Arc::clone(eap),
            end: Peer::new(Arc::clone(eap), limits(config)),
            responder: None,
            success: None,
        }
    }

    /// The notification that allows the responder to leave its own AUTH out (RFC 5998 3).
    pub(in crate::ike_sa::auth) fn notifications(peer: &PeerConfig) -> Option<Payload<'static>> {
        peer.is_eap_alone().then(|| notify(NotifyType::EAP_ONLY_AUTHENTICATION, &[]))
    }

    /// Whether the last answer is awaited, the one that is like any other answer to IKE_AUTH.
    const fn is_over(&self) -> bool {
        self.success.is_some()
    }

    /// The responder's last AUTH: with the key of EAP.
    pub(in crate::ike_sa::auth) fn check_last(
        self,
        peer: Arc<PeerConfig>,
        channel: &Channel,
        transcript: &Transcript,
        auth: &Authentication<'_>,
    ) -> Result<PeerAuthenticated, Error> {
        let (Some((id_r, responder)), Some(success)) = (self.responder, self.success) else {
            return Err(Error::MissingPayload(PayloadType::EAP));
        };
        let octets = transcript.signed_octets(channel, false, &id_r);
        let expected = auth_after(&success, channel, false, &octets);
        verify_after(&expected, auth, || self.config.identity.escape_default().to_string())?;
        // Where EAP stands alone, the method has authenticated the responder, and only that of a
        // method which may stand alone has come so far.
        Ok(match responder {
            Some(proven) => proven.with_eap(success),
            None => PeerAuthenticated::by_eap(peer, success),
        })
    }
}

impl IkeSa {
    /// Initiator: an authentic answer to IKE_AUTH while EAP is under way; `false` if it is not,
    /// or has ended.
    pub(in crate::ike_sa::auth) fn eap_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
    ) -> bool {
        let State::AwaitAuth(waiting) = &mut self.state else { return false };
        if waiting.eap.as_ref().is_none_or(|eap| eap.is_over()) {
            return false;
        }
        let next = opened.payloads().map_err(Error::from).and_then(|inner| {
            let payloads = Payloads::collect(ExchangeType::IKE_AUTH, &inner)?;
            self.next_of_eap(now, shared, &payloads)
        });
        match next {
            Ok(Next::Eap(message)) => {
                self.send_auth_again(now, shared, &[Payload::Eap(message.as_wire())]);
            }
            Ok(Next::Auth(proof, success)) => {
                shared.count(Counter::EapSucceeded);
                let State::AwaitAuth(waiting) = &mut self.state else { return true };
                let Some(eap) = &mut waiting.eap else { return true };
                let user = eap.config.identity.escape_default().to_string();
                let method = success.method;
                eap.success = Some(success);
                self.event(shared, EventKind::EapSucceeded { user, method });
                if let State::AwaitAuth(waiting) = &self.state
                    && let Some(offer) = &waiting.child
                {
                    self.expect(shared, offer);
                }
                let token = self.crash_token(shared);
                let mut payloads: Vec<_> = proof.payloads().collect();
                payloads.extend(token.iter().map(|token| crash::payload(token)));
                self.send_auth_again(now, shared, &payloads);
            }
            Err(error) => {
                shared.count(Counter::EapFailed);
                if let State::AwaitAuth(waiting) = &self.state {
                    let hashes = waiting.transcript.peer_hashes.as_deref();
                    self.claimed = Claimed::in_message(opened, false, hashes);
                }
                // The responder holds nothing yet that would have to hear of it: its IKE SA is
                // half-open, and ends with its time.
                self.fail(shared, error);
            }
        }
        true
    }

    fn next_of_eap(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<Next, Error> {
        let peer = self.peer.clone().ok_or(Error::Internal("no peer to check"))?;
        let State::AwaitAuth(waiting) = &mut self.state else {
            return Err(Error::Internal("no IKE_AUTH under way"));
        };
        let AwaitAuth { channel, transcript, ppk, eap: Some(eap), .. } = waiting.as_mut() else {
            return Err(Error::Internal("no EAP under way"));
        };
        let message = match (payloads.eap, payloads.error()) {
            (Some(message), _) => message,
            (None, Some(error)) => return Err(Error::Refused(error.kind)),
            (None, None) => return Err(Error::MissingPayload(PayloadType::EAP)),
        };
        if eap.responder.is_none() {
            let id = check_identity(&peer, payloads)?;
            // Before anything of ours is shown, the responder has to show who it is.
            let proof = match payloads.auth {
                Some(auth) => {
                    let octets = transcript.signed_octets(channel, false, &id.body());
                    let claim = claim(now, shared, channel, transcript, payloads, auth, &octets);
                    Some(verify(&peer, &claim)?)
                }
                None if peer.is_eap_alone() => None,
                None => return Err(Error::MissingPayload(PayloadType::AUTH)),
            };
            eap.responder = Some((id.body(), proof));
            shared.count(Counter::EapStarted);
        }
        let who = || eap.config.identity.escape_default().to_string();
        let mut around = Surroundings {
            time_of_day: shared.time_of_day(now),
            random: shared.random.as_mut(),
            users: &shared.policies.users,
        };
        match eap.end.handle(&mut around, message) {
            Action::Send(message) => Ok(Next::Eap(message)),
            Action::Success(_, success) => {
                let proven = matches!(&eap.responder, Some((_, Some(_))));
                if !proven && !success.method.may_stand_alone() {
                    let fault = AuthenticationFault::EapTooWeak(success.method);
                    return Err(Error::Authentication(fault));
                }
                let prove = |channel: &Channel, octets: &[u8]| {
                    Ok((AuthMethod::SHARED_KEY, auth_after(&success, channel, true, octets)))
                };
                let (proof, offered) = Proof::new(channel, transcript, &peer, prove)?;
                *ppk = offered;
                Ok(Next::Auth(proof, success))
            }
            Action::Failure(_, fault) => {
                Err(Error::Authentication(AuthenticationFault::Eap { who: who(), fault }))
            }
        }
    }

    fn send_auth_again(&mut self, now: Instant, shared: &mut Shared, payloads: &[Payload<'_>]) {
        if let Err(error) = self.send_request(now, shared, ExchangeType::IKE_AUTH, payloads) {
            self.fail(shared, error);
        }
    }
}
