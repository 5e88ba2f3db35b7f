//! The end that is authenticated (RFC 3748 4).

use std::sync::Arc;

use gateway_wire::{Eap, EapCode, EapType};

use super::md5::Md5Peer;
use super::mschapv2::MsChapV2Peer;
use super::packet::{Body, Message, names};
use super::{
    Action, EapMethod, EapPeerConfig, Fault, Limits, Method, Outcome, Round, Success, Surroundings,
    tls,
};

/// One conversation of ours with an authenticator.
pub(crate) struct Peer {
    config: Arc<EapPeerConfig>,
    limits: Limits,
    rounds: u32,
    method: Option<(EapMethod, Box<dyn Method>)>,
    /// What we refused last.
    refused: Option<EapType>,
}

impl Peer {
    pub(crate) const fn new(config: Arc<EapPeerConfig>, limits: Limits) -> Self {
        Self { config, limits, rounds: 0, method: None, refused: None }
    }

    /// Takes a message of the authenticator.
    pub(crate) fn handle(&mut self, around: &mut Surroundings<'_>, message: &Eap<'_>) -> Action {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > self.limits.rounds {
            return Action::Failure(None, Fault::TooManyRounds(self.limits.rounds));
        }
        match message.code {
            EapCode::REQUEST => match self.answer(around, message) {
                Ok(message) => Action::Send(message),
                Err(fault) => Action::Failure(None, fault),
            },
            EapCode::SUCCESS => self.success(),
            EapCode::FAILURE => Action::Failure(None, self.reason()),
            _ => Action::Failure(None, Fault::Malformed("neither a request nor an end")),
        }
    }

    fn answer(
        &mut self,
        around: &mut Surroundings<'_>,
        request: &Eap<'_>,
    ) -> Result<Message, Fault> {
        let identifier = request.identifier;
        let (kind, data) = match Body::decode(request.code, request.data)? {
            // RFC 7296 3.16: IKE has told it already; an authenticator may ask all the same.
            Body::Identity(_) => {
                let name = Body::Identity(self.config.identity.as_bytes());
                return Ok(Message::response(identifier, &name));
            }
            // RFC 3748 5.2: it must be answered; nobody is here to read it.
            Body::Notification(_) => {
                return Ok(Message::response(identifier, &Body::Notification(&[])));
            }
            Body::Nak(_) => return Err(Fault::Malformed("a request that refuses")),
            Body::Method(kind, data) => (kind, data),
        };
        if self.method.is_none() {
            let Some(method) = self.config.methods.iter().copied().find(|m| m.kind() == kind)
            else {
                self.refused = Some(kind);
                let wanted = self.config.methods.iter().map(|m| m.kind()).collect();
                return Ok(Message::response(identifier, &Body::Nak(wanted)));
            };
            self.method = Some((method, self.begin(around, method)?));
        }
        let Some((_, method)) = &mut self.method else {
            return Err(Fault::Unexpected("no method"));
        };
        if method.kind() != kind {
            // RFC 3748 2.1: one method in a conversation.
            return Err(Fault::Unexpected("another method after the first"));
        }
        let mut round = Round { identifier, random: around.random };
        let answer = method.handle(&mut round, data)?;
        let answer = answer.ok_or(Fault::Unexpected("a request after the end of the method"))?;
        Ok(Message::response(identifier, &Body::Method(kind, &answer)))
    }

    fn begin(
        &self,
        around: &Surroundings<'_>,
        method: EapMethod,
    ) -> Result<Box<dyn Method>, Fault> {
        let password =
            || self.config.password.as_ref().ok_or(Fault::NotConfigured("a password of our own"));
        Ok(match method {
            EapMethod::Tls => {
                let (config, limits) = (&self.config, self.limits);
                let named = vec![config.authenticator.clone()];
                Box::new(tls::peer(config.tls.as_ref(), named, around.time_of_day, limits)?)
            }
            EapMethod::Md5 => Box::new(Md5Peer::new(password()?.clone())),
            EapMethod::MsChapV2 => Box::new(MsChapV2Peer::new(&self.config.identity, password()?)?),
        })
    }

    /// An authenticator that ends the conversation before it has proven itself, where the
    /// method demands that, is not believed.
    fn success(&self) -> Action {
        let early = Fault::Unexpected("success before the method has come to its end");
        let Some((kind, method)) = &self.method else { return Action::Failure(None, early) };
        match method.outcome() {
            Outcome::Proven(msk) => {
                let shown = method.shown();
                Action::Success(None, Success { method: *kind, msk, shown })
            }
            Outcome::Open => Action::Failure(None, early),
            Outcome::Failed(fault) | Outcome::Failing(fault) => Action::Failure(None, fault),
        }
    }

    fn reason(&self) -> Fault {
        match self.method.as_ref().map(|(_, method)| method.outcome()) {
            Some(Outcome::Failed(fault) | Outcome::Failing(fault)) => fault,
            Some(Outcome::Open | Outcome::Proven(_)) => {
                Fault::Refused("EAP-Failure, without a reason".to_owned())
            }
            None => match self.refused {
                Some(kind) => Fault::MethodNotAcceptable {
                    theirs: kind.to_string(),
                    ours: names(self.config.methods.iter().map(|m| m.kind())),
                },
                None => Fault::Refused("EAP-Failure, before any method".to_owned()),
            },
        }
    }
}
