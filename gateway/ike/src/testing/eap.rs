//! The decoders of EAP by themselves, for octets that no good peer or authenticator sends.

use std::sync::Arc;

use gateway_wire::{Eap, EapCode};

use super::SeededRandom;
use crate::config::{Identity, Secret};
use crate::crypto::x509::Bounds;
pub use crate::eap::EapMethod;
pub use crate::eap::decoding::{rewritten, rewritten_tls_piece};
use crate::eap::{
    Action, Authenticator, EapAuthenticatorConfig, EapPeerConfig, Limits, Peer, Surroundings, User,
    Users,
};

const LIMITS: Limits =
    Limits { rounds: 20, message: 65_536, certificates: Bounds { count: 8, size: 16_384 } };
const NAME: &str = "alice";

/// Begins a conversation with a method by password, lets at most `good` messages after the first
/// one pass between both ends, and hands whoever is to hear the next one these octets of the
/// method instead. What was made of them is its own business; here it matters that it ends.
pub fn instead(method: EapMethod, good: usize, data: &[u8]) {
    let password = Secret::new(b"correct horse".to_vec());
    let user = User { name: NAME.into(), password: password.clone() };
    let users: Users = [(NAME.into(), Arc::new(user))].into();
    let mut random = SeededRandom::new(1);
    let mut around = Surroundings { random: &mut random, users: &users, time_of_day: None };
    let mut peer = Peer::new(
        Arc::new(EapPeerConfig {
            identity: NAME.to_owned(),
            methods: vec![method],
            password: Some(password),
            tls: None,
            authenticator: Identity::Fqdn("b.test".to_owned()),
        }),
        LIMITS,
    );
    let config = EapAuthenticatorConfig {
        methods: vec![method],
        tls: None,
        ask_identity: false,
        any_ike_identity: false,
    };
    let begun = Authenticator::begin(Arc::new(config), LIMITS, &mut around, Some(NAME.to_owned()));
    let Ok((mut authenticator, mut next)) = begun else { return };
    for passed in 0.. {
        let octets = [&[method.kind().0], data].concat();
        let message = match next.as_wire() {
            Eap { code, identifier, .. } if passed == good => {
                Eap { code, identifier, data: &octets }
            }
            genuine => genuine,
        };
        let action = match message.code {
            EapCode::RESPONSE => authenticator.handle(&mut around, &message),
            _ => peer.handle(&mut around, &message),
        };
        next = match action {
            Action::Send(answer) => answer,
            Action::Success(Some(last), _) | Action::Failure(Some(last), _) => last,
            Action::Success(None, _) | Action::Failure(None, _) => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eap::Fault;

    #[test]
    fn conversations_end_whatever_is_said_and_whenever() {
        for method in [EapMethod::Md5, EapMethod::MsChapV2] {
            for good in 0..6 {
                for data in [&[][..], &[16; 17], &[3, 0, 0, 4], &[0xff; 300]] {
                    instead(method, good, data);
                }
            }
        }
    }

    #[test]
    fn what_is_read_is_written_in_one_way() {
        let nak = rewritten(EapCode::RESPONSE, &[3, 0, 13, 0]);
        assert_eq!(nak, Ok(vec![3, 13]), "0 is no method");
        assert!(matches!(rewritten(EapCode::REQUEST, &[3, 13]), Err(Fault::Malformed(_))));
        // The reserved bits of the flags go.
        assert_eq!(rewritten_tls_piece(&[0x1f, 7]), Ok(vec![0, 7]));
        assert!(matches!(rewritten_tls_piece(&[0x80, 0, 0]), Err(Fault::Malformed(_))));
    }
}
