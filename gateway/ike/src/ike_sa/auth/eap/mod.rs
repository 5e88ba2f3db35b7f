//! EAP within IKE_AUTH, both roles (RFC 7296 2.16, RFC 5998).
//!
//! ```text
//! initiator                          responder
//! IDi, SA, TSi, TSr            -->
//!                              <--   IDr, AUTH, EAP     AUTH is absent when EAP stands alone
//! EAP                          -->   … as often as the method wants …
//!                              <--   EAP Success
//! AUTH                         -->                      with the key of EAP, as both of these
//!                              <--   AUTH, SA, TSi, TSr
//! ```
//!
//! A PPK goes with the AUTHs at the end (RFC 8784 3): it is in the keys that they prove, not yet in
//! those of the responder's first one.
//!
//! Until the last request has been verified the initiator is nobody: the responder's IKE SA stays
//! half-open, with a deadline of its own.

mod initiator;
mod responder;

use std::time::Instant;

use gateway_wire::{AuthMethod, Authentication};

pub(super) use self::initiator::EapInitiator;
pub(super) use self::responder::EapResponder;
use super::super::{IkeSa, State};
use super::AwaitAuth;
use super::certificate::bounds;
use crate::channel::Channel;
use crate::config::EndpointConfig;
use crate::counters::Counter;
use crate::crypto::prf::equal;
use crate::eap::{Limits, Success};
use crate::error::{AuthenticationFault, Error};
use crate::keys::{Key, shared_key_auth};
use crate::shared::Shared;

const fn limits(config: &EndpointConfig) -> Limits {
    Limits {
        rounds: config.eap_round_limit,
        message: config.eap_message_limit,
        certificates: bounds(config),
    }
}

/// AUTH over these octets after EAP: with its key or, of a method that leaves none, with `SK_pi`
/// for the initiator and `SK_pr` for the responder (RFC 7296 2.16).
fn auth_after(success: &Success, channel: &Channel, initiator: bool, octets: &[u8]) -> Key {
    let sk_p = if initiator { channel.keys.sk_pi() } else { channel.keys.sk_pr() };
    let key = success.msk.as_ref().map_or(sk_p, |msk| msk.as_slice());
    shared_key_auth(channel.suite.prf, key, octets)
}

/// Whether the other end came to the same key: then nobody stood between the two.
fn verify_after(
    expected: &Key,
    auth: &Authentication<'_>,
    who: impl FnOnce() -> String,
) -> Result<(), Error> {
    if auth.method != AuthMethod::SHARED_KEY {
        return Err(AuthenticationFault::Method { found: auth.method, expected: "eap" }.into());
    }
    if !equal(auth.data, expected) {
        return Err(Error::Authentication(AuthenticationFault::WrongEapAuth(who())));
    }
    Ok(())
}

impl AwaitAuth {
    /// When EAP must have ended, if it is under way.
    pub(in crate::ike_sa) fn eap_deadline(&self) -> Option<Instant> {
        self.eap.as_ref().map(|eap| eap.deadline)
    }
}

impl IkeSa {
    /// EAP took too long, in either role.
    pub(in crate::ike_sa) fn eap_timed_out(&mut self, shared: &mut Shared) {
        if let State::HalfOpen(half_open) = &self.state {
            if half_open.eap.as_ref().is_some_and(|eap| eap.has_failed()) {
                return self.close(shared, "EAP failed");
            }
            shared.count(Counter::HalfOpenTimeout);
        }
        shared.count(Counter::EapTimeout);
        self.close(shared, "EAP did not end in time");
    }
}
