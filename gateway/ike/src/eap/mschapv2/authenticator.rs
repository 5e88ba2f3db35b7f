//! The end that knows the passwords of users.

use gateway_wire::EapType;

use super::calculation::{Calculation, PasswordHash, without_domain};
use super::{CHALLENGE, Packet, Response, op};
use crate::config::Secret;
use crate::crypto::prf::equal;
use crate::eap::{Fault, Method, Msk, Outcome, Round};

/// How we call ourselves in a challenge; nobody needs it.
const NAME: &[u8] = b"gateway";

/// The authenticator's end.
pub(in crate::eap) struct MsChapV2Authenticator {
    /// Who the peer said it is.
    identity: String,
    /// `None`: there is no such user; a response is awaited all the same.
    hash: Option<PasswordHash>,
    challenge: [u8; CHALLENGE],
    state: State,
}

enum State {
    AwaitResponse {
        id: u8,
    },
    /// The peer has proven itself, and we have.
    AwaitAcknowledgement(Msk),
    /// The peer has been told that it failed.
    AwaitResignation(Fault),
    Over(Outcome),
}

impl MsChapV2Authenticator {
    pub(in crate::eap) fn new(
        identity: &str,
        password: Option<&Secret>,
        round: &mut Round<'_>,
    ) -> Result<(Self, Vec<u8>), Fault> {
        let hash = password.map(PasswordHash::new).transpose()?;
        let mut challenge = [0; CHALLENGE];
        round.random.fill(&mut challenge)?;
        // 16 is the length of the challenge.
        let rest = [&[16], challenge.as_slice(), NAME].concat();
        let id = round.identifier;
        let request = Packet { op: op::CHALLENGE, id, rest: &rest }.encode();
        let state = State::AwaitResponse { id };
        Ok((Self { identity: identity.to_owned(), hash, challenge, state }, request))
    }

    fn check(&self, response: &Response<'_>) -> Result<(String, Msk), Fault> {
        let (inner, outer) = (without_domain(response.name), self.identity.as_bytes());
        if !inner.eq_ignore_ascii_case(without_domain(outer)) {
            return Err(Fault::OtherName {
                inner: inner.escape_ascii().to_string(),
                outer: self.identity.escape_default().to_string(),
            });
        }
        let hash = self.hash.as_ref().ok_or(Fault::UnknownUser)?;
        let calculation = Calculation {
            authenticator_challenge: &self.challenge,
            peer_challenge: &response.peer_challenge,
            user: inner,
            hash,
        };
        let expected = calculation.nt_response();
        if !equal(&response.nt_response, &expected) {
            return Err(Fault::WrongPassword);
        }
        Ok((calculation.authenticator_response(&expected), calculation.msk(&expected)))
    }
}

impl Method for MsChapV2Authenticator {
    fn kind(&self) -> EapType {
        EapType::MSCHAP_V2
    }

    fn handle(&mut self, round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        match &self.state {
            State::AwaitResponse { id } => {
                let packet = Packet::decode(data)?;
                if packet.op != op::RESPONSE || packet.id != *id {
                    return Err(Fault::Unexpected("an MS-CHAPv2 message that is no response"));
                }
                let id = *id;
                match self.check(&Response::decode(packet.rest)?) {
                    Ok((proof, msk)) => {
                        self.state = State::AwaitAcknowledgement(msk);
                        let rest = format!("{proof} M=Welcome");
                        let rest = rest.as_bytes();
                        Ok(Some(Packet { op: op::SUCCESS, id, rest }.encode()))
                    }
                    Err(fault) => {
                        self.state = State::AwaitResignation(fault);
                        let words = refusal(round)?;
                        let rest = words.as_bytes();
                        Ok(Some(Packet { op: op::FAILURE, id, rest }.encode()))
                    }
                }
            }
            State::AwaitAcknowledgement(msk) => {
                let outcome = match data.first() {
                    Some(&op::SUCCESS) => Outcome::Proven(Some(msk.clone())),
                    Some(&op::FAILURE) => {
                        Outcome::Failed(Fault::Refused("the peer does not believe us".to_owned()))
                    }
                    _ => return Err(Fault::Unexpected("an MS-CHAPv2 message out of order")),
                };
                self.state = State::Over(outcome);
                Ok(None)
            }
            State::AwaitResignation(fault) => {
                self.state = State::Over(Outcome::Failed(fault.clone()));
                Ok(None)
            }
            State::Over(_) => Err(Fault::Unexpected("an MS-CHAPv2 message after the end")),
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.state {
            State::Over(outcome) => outcome.clone(),
            State::AwaitResignation(fault) => Outcome::Failing(fault.clone()),
            State::AwaitResponse { .. } | State::AwaitAcknowledgement(_) => Outcome::Open,
        }
    }
}

/// RFC 2759 6: the same words whatever was wrong, without another try, and with a challenge that
/// nobody will use.
fn refusal(round: &mut Round<'_>) -> Result<String, Fault> {
    let mut challenge = [0; CHALLENGE];
    round.random.fill(&mut challenge)?;
    let digits: String = challenge.iter().map(|octet| format!("{octet:02X}")).collect();
    Ok(format!("E=691 R=0 C={digits} V=3 M=Authentication failure"))
}
