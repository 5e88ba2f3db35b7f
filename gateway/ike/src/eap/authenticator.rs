//! The end that authenticates (RFC 3748 4).

use std::collections::VecDeque;
use std::sync::Arc;

use gateway_wire::{Eap, EapCode, EapType};

use super::md5::Md5Authenticator;
use super::mschapv2::MsChapV2Authenticator;
use super::packet::{Body, MAX_IDENTITY, Message, names};
use super::{
    Action, EapAuthenticatorConfig, EapMethod, Fault, Limits, Method, Outcome, Round, Success,
    Surroundings, User, UserName, Users, tls,
};

/// One conversation of ours with a peer.
pub(crate) struct Authenticator {
    config: Arc<EapAuthenticatorConfig>,
    limits: Limits,
    rounds: u32,
    /// Of the request that is to be answered.
    identifier: u8,
    /// What the peer calls itself, once known.
    identity: Option<String>,
    /// The user of that name, as it was when the conversation began.
    user: Option<Arc<User>>,
    /// What has not been proposed yet.
    methods: VecDeque<EapMethod>,
    stage: Stage,
}

enum Stage {
    AwaitIdentity,
    /// `fresh`: its first request has not been answered, so that it may be refused.
    Method {
        method: EapMethod,
        end: Box<dyn Method>,
        fresh: bool,
    },
    Over,
}

impl Authenticator {
    /// A conversation and its first request. `identity` is what the peer calls itself in IKE;
    /// without one it is asked.
    ///
    /// # Errors
    /// The first method cannot begin.
    pub(crate) fn begin(
        config: Arc<EapAuthenticatorConfig>,
        limits: Limits,
        around: &mut Surroundings<'_>,
        identity: Option<String>,
    ) -> Result<(Self, Message), Fault> {
        let mut first = [0];
        around.random.fill(&mut first)?;
        let [identifier] = first;
        let mut this = Self {
            methods: config.methods.iter().copied().collect(),
            config,
            limits,
            rounds: 0,
            identifier,
            identity: None,
            user: None,
            stage: Stage::AwaitIdentity,
        };
        let request = match identity {
            Some(identity) => {
                this.identify(around.users, identity);
                this.propose(around, None)?
            }
            None => Message::request(identifier, &Body::Identity(&[])),
        };
        Ok((this, request))
    }

    /// What the peer calls itself, if it has said so.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Why the peer will be refused, while it has yet to answer the method's words about it.
    pub(crate) fn failing(&self) -> Option<Fault> {
        let Stage::Method { end, .. } = &self.stage else { return None };
        match end.outcome() {
            Outcome::Failing(fault) => Some(fault),
            Outcome::Open | Outcome::Proven(_) | Outcome::Failed(_) => None,
        }
    }

    /// Whose proof it was by a method that has ended well, by a name that has one spelling whatever the
    /// peer has called itself: that of the user whose password it was, who is given too, or that
    /// which the certificate holds.
    pub(crate) fn proven(&self, method: EapMethod) -> (UserName, Option<Arc<User>>) {
        match &self.user {
            Some(user) if method != EapMethod::Tls => {
                (UserName::clone(&user.name), Some(Arc::clone(user)))
            }
            Some(_) | None => {
                (tls::canonical(self.identity.as_deref().unwrap_or_default()).into(), None)
            }
        }
    }

    /// Takes a message of the peer.
    pub(crate) fn handle(&mut self, around: &mut Surroundings<'_>, message: &Eap<'_>) -> Action {
        self.rounds = self.rounds.saturating_add(1);
        let next = if self.rounds > self.limits.rounds {
            Err(Fault::TooManyRounds(self.limits.rounds))
        } else {
            self.advance(around, message)
        };
        match next {
            Ok(Next::Request(message)) => Action::Send(message),
            Ok(Next::Success(success)) => {
                self.stage = Stage::Over;
                Action::Success(Some(Message::success(self.identifier)), success)
            }
            Err(fault) => {
                self.stage = Stage::Over;
                Action::Failure(Some(Message::failure(self.identifier)), fault)
            }
        }
    }

    fn advance(&mut self, around: &mut Surroundings<'_>, message: &Eap<'_>) -> Result<Next, Fault> {
        if message.code != EapCode::RESPONSE {
            return Err(Fault::Malformed("no response"));
        }
        // RFC 3748 4.1 has others dropped silently; IKE delivers no old ones.
        if message.identifier != self.identifier {
            return Err(Fault::Malformed("the response to another request"));
        }
        let body = Body::decode(message.code, message.data)?;
        match (&mut self.stage, body) {
            (Stage::AwaitIdentity, Body::Identity(name)) => {
                let name = core::str::from_utf8(name).ok().filter(|name| {
                    (1..=MAX_IDENTITY).contains(&name.len()) && !name.contains('\0')
                });
                self.identify(around.users, name.ok_or(Fault::NoIdentity)?.to_owned());
                self.propose(around, None).map(Next::Request)
            }
            (Stage::Method { fresh: true, .. }, Body::Nak(wanted)) => {
                self.propose(around, Some(&wanted)).map(Next::Request)
            }
            (Stage::Method { method, end, fresh }, Body::Method(kind, data))
                if kind == end.kind() =>
            {
                *fresh = false;
                let method = *method;
                let mut round = Round { identifier: message.identifier, random: around.random };
                let asked = end.handle(&mut round, data)?;
                match (end.outcome(), asked) {
                    (Outcome::Proven(msk), None) => {
                        Ok(Next::Success(Success { method, msk, shown: end.shown() }))
                    }
                    (Outcome::Failed(fault), _) => Err(fault),
                    (_, Some(data)) => {
                        self.identifier = self.identifier.wrapping_add(1);
                        Ok(Next::Request(Message::request(
                            self.identifier,
                            &Body::Method(kind, &data),
                        )))
                    }
                    (Outcome::Open | Outcome::Failing(_), None) => {
                        Err(Fault::Unexpected("the method has stopped"))
                    }
                }
            }
            _ => Err(Fault::Unexpected("a response to another question")),
        }
    }

    fn identify(&mut self, users: &Users, identity: String) {
        // `DOMAIN\user`, as Windows has it, may stand for the user of that name.
        let local = identity.rsplit_once('\\').map(|(_, user)| user);
        let found = users.get(identity.as_str()).or_else(|| users.get(local?));
        self.user = found.cloned();
        self.identity = Some(identity);
    }

    /// The next method; after a refusal, the first that the peer would have (RFC 3748 5.3.1).
    fn propose(
        &mut self,
        around: &mut Surroundings<'_>,
        wanted: Option<&[EapType]>,
    ) -> Result<Message, Fault> {
        if let Some(wanted) = wanted {
            self.identifier = self.identifier.wrapping_add(1);
            self.methods.retain(|m| wanted.contains(&m.kind()));
        } else if matches!(self.stage, Stage::AwaitIdentity) && self.identity.is_some() {
            // After the question for the name; without one this is the first request.
            self.identifier = self.identifier.wrapping_add(1);
        }
        let Some(method) = self.methods.pop_front() else {
            return Err(Fault::NoCommonMethod {
                ours: names(self.config.methods.iter().map(|m| m.kind())),
                theirs: names(wanted.unwrap_or_default().iter().copied()),
            });
        };
        let mut round = Round { identifier: self.identifier, random: around.random };
        let password = self.user.as_ref().map(|user| &user.password);
        let (end, data): (Box<dyn Method>, _) = match method {
            EapMethod::Tls => {
                let identity = self.identity.as_deref().unwrap_or_default();
                let (named, now) = (tls::named(identity), around.time_of_day);
                let (end, data) =
                    tls::authenticator(self.config.tls.as_ref(), named, now, self.limits)?;
                (Box::new(end), data)
            }
            EapMethod::Md5 => {
                let (end, data) = Md5Authenticator::new(password.cloned(), &mut round)?;
                (Box::new(end), data)
            }
            EapMethod::MsChapV2 => {
                let identity = self.identity.as_deref().unwrap_or_default();
                let (end, data) = MsChapV2Authenticator::new(identity, password, &mut round)?;
                (Box::new(end), data)
            }
        };
        self.stage = Stage::Method { method, end, fresh: true };
        Ok(Message::request(self.identifier, &Body::Method(method.kind(), &data)))
    }
}

/// What comes after a good message.
enum Next {
    Request(Message),
    Success(Success),
}
