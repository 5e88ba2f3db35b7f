//! EAP (RFC 3748) as IKE_AUTH carries it (RFC 7296 2.16): both ends, as pure state machines.
//!
//! [`Peer`] answers what an authenticator asks; [`Authenticator`] asks and decides. Neither knows
//! IKE: a message goes in, an [`Action`] comes out. What is special to a method is behind the
//! trait [`Method`], which both ends use; there are [`md5`], [`mschapv2`] and [`tls`].
//!
//! IKE delivers each message once and in order, so nothing is sent again here. How many
//! messages there may be, and how long, is bounded by [`Limits`].

mod authenticator;
mod config;
#[cfg(feature = "testing")]
pub(crate) mod decoding;
mod fault;
mod md5;
mod mschapv2;
mod packet;
mod peer;
#[cfg(test)]
mod tests;
mod tls;

use core::time::Duration;

use gateway_wire::EapType;
use zeroize::Zeroizing;

pub(crate) use self::authenticator::Authenticator;
pub use self::config::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, User, UserName, Users,
};
pub use self::fault::Fault;
pub(crate) use self::packet::Message;
pub(crate) use self::peer::Peer;
use crate::config::Identity;
use crate::crypto::x509::{Bounds, Verified};
use crate::random::Random;

/// The key that a method leaves at both ends (RFC 3748 7.10).
pub(crate) type Msk = Zeroizing<Vec<u8>>;

/// What is to be done after a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this; the conversation goes on.
    Send(Message),
    /// The peer is authenticated. The authenticator sends the message; the peer has none.
    Success(Option<Message>, Success),
    /// The peer is not authenticated. The authenticator sends the message; the peer has none.
    Failure(Option<Message>, Fault),
}

/// What a conversation that went well leaves.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Success {
    /// The method that decided.
    pub(crate) method: EapMethod,
    /// Its key, if it has one.
    pub(crate) msk: Option<Msk>,
    /// The certificate that was believed, if the method has any.
    pub(crate) shown: Option<Box<Shown>>,
}

/// What the other end has shown, and was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) verified: Verified,
    /// The DER of all certificates, its own first.
    pub(crate) chain: Vec<Vec<u8>>,
    /// The identities of which its own has to hold one.
    pub(crate) named: Vec<Identity>,
}

impl core::fmt::Debug for Success {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Success({}, …)", self.method)
    }
}

/// Bounds of one conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Messages of the other end.
    pub(crate) rounds: u32,
    /// Octets of one TLS message.
    pub(crate) message: usize,
    /// Certificates of the other end.
    pub(crate) certificates: Bounds,
}

/// What is there for every conversation.
pub(crate) struct Surroundings<'a> {
    pub(crate) random: &'a mut dyn Random,
    pub(crate) users: &'a Users,
    /// The time since 1970, if it is known.
    pub(crate) time_of_day: Option<Duration>,
}

/// What a method is given with each message.
pub(crate) struct Round<'a> {
    /// The identifier of the message: of the request, and so of its response.
    pub(crate) identifier: u8,
    pub(crate) random: &'a mut dyn Random,
}

/// How far a method has come.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not decided.
    Open,
    /// This end has seen the proof that the method gives it.
    Proven(Option<Msk>),
    /// The other end did not prove itself, and has yet to hear of it in the words of the method;
    /// some never answer those.
    Failing(Fault),
    /// The other end did not prove itself, or did not believe us.
    Failed(Fault),
}

/// One end of an authentication method. The authenticator's end is made together with its first
/// request.
pub(crate) trait Method: Send {
    /// Its number.
    fn kind(&self) -> EapType;

    /// Takes the type data of a message and gives that of the next one, if there is to be one:
    /// the peer's end always answers, the authenticator's end has nothing more to ask once
    /// [`Self::outcome`] is no longer open.
    ///
    /// # Errors
    /// The message is not what the method has at this point: the conversation is over.
    fn handle(&mut self, round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// How far it has come.
    fn outcome(&self) -> Outcome;

    /// The certificate of the other end, once it is believed.
    fn shown(&self) -> Option<Box<Shown>> {
        None
    }
}
