//! EAP-MD5 (RFC 3748 5.4): the peer shows that it knows a password, and nothing else. It leaves
//! no key and does not authenticate the authenticator.

use gateway_wire::EapType;

use super::{Fault, Method, Outcome, Round};
use crate::config::Secret;
use crate::crypto::legacy;
use crate::crypto::prf::equal;

/// Octets of our challenges.
const CHALLENGE: usize = 16;

/// What stands in a challenge or response: a value with its length, and a name, which is a hint
/// that nobody needs (RFC 1994 4.1).
fn value(data: &[u8]) -> Result<&[u8], Fault> {
    let (length, rest) = data.split_first().ok_or(Fault::Malformed("no value"))?;
    let value = rest.get(..usize::from(*length)).ok_or(Fault::Malformed("a short value"))?;
    if value.is_empty() { Err(Fault::Malformed("an empty value")) } else { Ok(value) }
}

fn encode(value: &[u8; CHALLENGE]) -> Vec<u8> {
    // Both the challenge and the hash have sixteen octets.
    let mut data = vec![16];
    data.extend_from_slice(value);
    data
}

fn response(identifier: u8, password: &[u8], challenge: &[u8]) -> [u8; CHALLENGE] {
    legacy::md5(&[&[identifier], password, challenge])
}

/// The peer's end.
pub(super) struct Md5Peer {
    password: Secret,
    answered: bool,
}

impl Md5Peer {
    pub(super) const fn new(password: Secret) -> Self {
        Self { password, answered: false }
    }
}

impl Method for Md5Peer {
    fn kind(&self) -> EapType {
        EapType::MD5_CHALLENGE
    }

    fn handle(&mut self, round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let hash = response(round.identifier, self.password.expose(), value(data)?);
        self.answered = true;
        Ok(Some(encode(&hash)))
    }

    /// There is no proof for the peer: what the authenticator says counts.
    fn outcome(&self) -> Outcome {
        if self.answered { Outcome::Proven(None) } else { Outcome::Open }
    }
}

/// The authenticator's end.
pub(super) struct Md5Authenticator {
    challenge: [u8; CHALLENGE],
    /// `None`: there is no such user; a response is awaited all the same.
    password: Option<Secret>,
    outcome: Outcome,
}

impl Md5Authenticator {
    pub(super) fn new(
        password: Option<Secret>,
        round: &mut Round<'_>,
    ) -> Result<(Self, Vec<u8>), Fault> {
        let mut challenge = [0; CHALLENGE];
        round.random.fill(&mut challenge)?;
        let request = encode(&challenge);
        Ok((Self { challenge, password, outcome: Outcome::Open }, request))
    }
}

impl Method for Md5Authenticator {
    fn kind(&self) -> EapType {
        EapType::MD5_CHALLENGE
    }

    fn handle(&mut self, round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let answer = value(data)?;
        let password = self.password.as_ref().map(Secret::expose);
        let expected = response(round.identifier, password.unwrap_or_default(), &self.challenge);
        self.outcome = match (equal(answer, &expected), password) {
            (_, None) => Outcome::Failed(Fault::UnknownUser),
            (true, Some(_)) => Outcome::Proven(None),
            (false, Some(_)) => Outcome::Failed(Fault::WrongPassword),
        };
        Ok(None)
    }

    fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    #[test]
    fn the_response_is_md5_of_identifier_password_and_challenge() {
        // md5("\x01" "testing123" 00..0f), computed with md5sum.
        let challenge: Vec<u8> = (0..16).collect();
        let expected = hex("767e40e3d099c9fb2dc0b2159800d148");
        assert_eq!(response(1, b"testing123", &challenge).to_vec(), expected);
    }

    #[test]
    fn a_value_keeps_within_its_message() {
        assert_eq!(value(&[2, 8, 9, b'n']), Ok(&[8, 9][..]));
        for bad in [&[][..], &[0], &[0, 1], &[3, 1, 2]] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }
}
