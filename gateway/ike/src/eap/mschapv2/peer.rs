//! The end that knows one password.

use gateway_wire::EapType;

use super::calculation::{Calculation, PasswordHash, without_domain};
use super::{Packet, Response, challenge, op};
use crate::config::Secret;
use crate::crypto::prf::equal;
use crate::eap::{Fault, Method, Msk, Outcome, Round};

/// The peer's end.
pub(in crate::eap) struct MsChapV2Peer {
    name: String,
    hash: PasswordHash,
    state: State,
}

enum State {
    AwaitChallenge,
    /// Answered: what the authenticator has to prove, and the key if it does.
    AwaitSuccess {
        expected: String,
        msk: Msk,
    },
    Over(Outcome),
}

impl MsChapV2Peer {
    pub(in crate::eap) fn new(name: &str, password: &Secret) -> Result<Self, Fault> {
        let hash = PasswordHash::new(password)?;
        Ok(Self { name: name.to_owned(), hash, state: State::AwaitChallenge })
    }

    fn answer(&mut self, round: &mut Round<'_>, packet: &Packet<'_>) -> Result<Vec<u8>, Fault> {
        let authenticator_challenge = challenge(packet.rest)?;
        let mut peer_challenge = [0; super::CHALLENGE];
        round.random.fill(&mut peer_challenge)?;
        let calculation = Calculation {
            authenticator_challenge: &authenticator_challenge,
            peer_challenge: &peer_challenge,
            user: without_domain(self.name.as_bytes()),
            hash: &self.hash,
        };
        let nt_response = calculation.nt_response();
        self.state = State::AwaitSuccess {
            expected: calculation.authenticator_response(&nt_response),
            msk: calculation.msk(&nt_response),
        };
        let response = Response { peer_challenge, nt_response, name: self.name.as_bytes() };
        Ok(Packet { op: op::RESPONSE, id: packet.id, rest: &response.encode() }.encode())
    }
}

impl Method for MsChapV2Peer {
    fn kind(&self) -> EapType {
        EapType::MSCHAP_V2
    }

    fn handle(&mut self, round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let packet = Packet::decode(data)?;
        let answer = match (packet.op, &self.state) {
            (op::CHALLENGE, State::AwaitChallenge) => self.answer(round, &packet)?,
            (op::SUCCESS, State::AwaitSuccess { expected, msk }) => {
                // RFC 2759 5: "S=" and the proof, then perhaps a message for the user.
                let proof = packet.rest.get(..expected.len()).unwrap_or_default();
                if !equal(&proof.to_ascii_uppercase(), expected.as_bytes()) {
                    return Err(Fault::UnprovenAuthenticator);
                }
                self.state = State::Over(Outcome::Proven(Some(msk.clone())));
                vec![op::SUCCESS]
            }
            (op::FAILURE, State::AwaitChallenge | State::AwaitSuccess { .. }) => {
                let words = Fault::Refused(failure_words(packet.rest));
                self.state = State::Over(Outcome::Failed(words));
                vec![op::FAILURE]
            }
            _ => return Err(Fault::Unexpected("an MS-CHAPv2 message out of order")),
        };
        Ok(Some(answer))
    }

    fn outcome(&self) -> Outcome {
        match &self.state {
            State::AwaitChallenge | State::AwaitSuccess { .. } => Outcome::Open,
            State::Over(outcome) => outcome.clone(),
        }
    }
}

/// `E=691 R=0 C=... V=3 M=...` in words (RFC 2759 6).
fn failure_words(rest: &[u8]) -> String {
    let code = rest.strip_prefix(b"E=").map(|rest| {
        let digits = rest.iter().take_while(|o| o.is_ascii_digit()).take(10);
        digits.map(|o| char::from(*o)).collect::<String>()
    });
    match code.as_deref() {
        Some("646") => "E=646, the account may not log in at this time".to_owned(),
        Some("647") => "E=647, the account is disabled".to_owned(),
        Some("648") => "E=648, the password has expired".to_owned(),
        Some("649") => "E=649, the account may not dial in".to_owned(),
        Some("691") => "E=691, wrong name or password".to_owned(),
        Some(code) if !code.is_empty() => format!("E={code}"),
        _ => "an MS-CHAPv2 failure without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::failure_words;

    #[test]
    fn a_failure_is_told_by_its_code() {
        let full = b"E=691 R=1 C=0123456789abcdef0123456789abcdef V=3 M=no";
        assert_eq!(failure_words(full), "E=691, wrong name or password");
        assert_eq!(failure_words(b"E=7"), "E=7");
        assert_eq!(failure_words(b"E="), "an MS-CHAPv2 failure without a code");
        assert_eq!(failure_words(b"\xff"), "an MS-CHAPv2 failure without a code");
        assert_eq!(failure_words(b"E=99999999999999999999"), "E=9999999999");
    }
}
