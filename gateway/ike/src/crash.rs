//! Quick crash detection (RFC 6290): how a peer learns at once that we have lost an IKE SA, and
//! we that it has.
//!
//! Each end gives the other a token for the IKE SA, under its protection. Whoever has lost the IKE
//! SA (the process died, the machine was restarted) can make the token again from the two SPIs
//! and a secret that it has kept, and shows it in the clear to a peer that still uses the IKE SA.

use gateway_wire::{Header, IkeSpi, Message, Notify, NotifyType, Payload, ProtocolId};
use zeroize::Zeroizing;

use crate::algorithms::Prf;
use crate::config::Secret;
use crate::crypto::prf::{equal, prf};

/// RFC 6290 4.1: what a peer may take for a token.
const LENGTHS: core::ops::RangeInclusive<usize> = 16..=128;
/// Tokens in one message that are looked at: a peer that restarts has one, or few (4.5).
const MOST_TOKENS: usize = 4;

/// The tokens that we give out.
#[derive(Default)]
pub(crate) struct Tokens {
    secret: Option<Secret>,
}

impl Tokens {
    pub(crate) fn set_secret(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    /// Whether there are any.
    pub(crate) const fn is_used(&self) -> bool {
        self.secret.is_some()
    }

    /// Our token for an IKE SA (RFC 6290 5.1); `None`: there is no secret that would survive us.
    pub(crate) fn token(&self, spis: (IkeSpi, IkeSpi)) -> Option<Zeroizing<Vec<u8>>> {
        let secret = self.secret.as_ref()?;
        Some(prf(Prf::HmacSha256, secret.expose(), &[&spis.0.0, &spis.1.0]))
    }
}

/// A token as the payload that carries it (RFC 6290 4.1).
pub(crate) const fn payload(token: &[u8]) -> Payload<'_> {
    Payload::Notify(Notify {
        protocol: ProtocolId::IKE,
        spi: &[],
        kind: NotifyType::QUICK_CRASH_DETECTION,
        data: token,
    })
}

/// The token that a peer has given us, if it can be one.
pub(crate) fn given(notify: Option<&Notify<'_>>) -> Option<Zeroizing<Vec<u8>>> {
    let token = notify?.data;
    LENGTHS.contains(&token.len()).then(|| Zeroizing::new(token.to_vec()))
}

/// What a datagram in the clear says of an IKE SA for which a peer has given us `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing of this kind.
    None,
    /// The peer has lost the IKE SA: nobody else knows the token.
    Lost,
    /// Somebody says so who does not know it.
    Forged,
}

/// Reads a datagram that belongs to the IKE SA by its SPIs.
pub(crate) fn notice(token: Option<&[u8]>, header: &Header, datagram: &[u8]) -> Notice {
    let Some(token) = token.filter(|_| header.flags.response) else { return Notice::None };
    let Ok(message) = Message::decode(datagram) else { return Notice::None };
    let notifies = message.payloads.iter().filter_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        Some(notify)
    });
    let mut tokens = notifies.filter(|n| n.kind == NotifyType::QUICK_CRASH_DETECTION).peekable();
    if tokens.peek().is_none() {
        Notice::None
    } else if tokens.take(MOST_TOKENS).any(|n| equal(n.data, token)) {
        Notice::Lost
    } else {
        Notice::Forged
    }
}

#[cfg(test)]
mod tests {
    use gateway_wire::{ExchangeType, Flags, MessageId, encode_message};

    use super::*;

    const SPIS: (IkeSpi, IkeSpi) = (IkeSpi([1; 8]), IkeSpi([2; 8]));

    fn tokens() -> Tokens {
        let mut tokens = Tokens::default();
        tokens.set_secret(Secret::new(vec![7; 32]));
        tokens
    }

    const fn header(response: bool) -> Header {
        Header {
            initiator_spi: SPIS.0,
            responder_spi: SPIS.1,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags { response, version: false, initiator: true },
            message_id: MessageId(9),
        }
    }

    #[test]
    fn the_token_is_of_both_spis_and_the_secret() {
        let token = tokens().token(SPIS).unwrap();
        assert!(LENGTHS.contains(&token.len()));
        assert_eq!(tokens().token(SPIS), Some(token.clone()));
        assert_ne!(tokens().token((SPIS.1, SPIS.0)), Some(token.clone()));
        let mut other = Tokens::default();
        assert_eq!(other.token(SPIS), None);
        other.set_secret(Secret::new(vec![8; 32]));
        assert_ne!(other.token(SPIS), Some(token));
    }

    #[test]
    fn only_the_token_that_was_given_proves_the_loss() {
        let token = tokens().token(SPIS).unwrap();
        let said = encode_message(&header(true), &[payload(&token)]).unwrap();
        assert_eq!(notice(Some(&token), &header(true), &said), Notice::Lost);
        assert_eq!(notice(Some(&[0; 32]), &header(true), &said), Notice::Forged);
        assert_eq!(notice(token.get(..31), &header(true), &said), Notice::Forged);
        assert_eq!(notice(None, &header(true), &said), Notice::None, "none was given");
        assert_eq!(notice(Some(&token), &header(false), &said), Notice::None, "no response");
        let nothing = encode_message(&header(true), &[]).unwrap();
        assert_eq!(notice(Some(&token), &header(true), &nothing), Notice::None);
        assert_eq!(notice(Some(&token), &header(true), &said[..40]), Notice::None);
    }

    #[test]
    fn only_so_many_tokens_of_a_message_are_looked_at() {
        let wrong = [0; 32];
        let mut payloads = vec![payload(&wrong); MOST_TOKENS];
        payloads.push(payload(&[7; 32]));
        let message = encode_message(&header(true), &payloads).unwrap();
        assert_eq!(notice(Some(&[7; 32]), &header(true), &message), Notice::Forged);
        let message = encode_message(&header(true), &payloads[1..]).unwrap();
        assert_eq!(notice(Some(&[7; 32]), &header(true), &message), Notice::Lost);
    }

    #[test]
    fn a_token_of_a_wrong_length_is_none() {
        for (length, good) in [(0, false), (15, false), (16, true), (128, true), (129, false)] {
            let data = vec![7; length];
            let Payload::Notify(notify) = payload(&data) else { panic!("a notification") };
            assert_eq!(given(Some(&notify)).is_some(), good, "{length}");
        }
        assert_eq!(given(None), None);
    }
}
