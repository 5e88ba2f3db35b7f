//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2-02, RFC 2759): both ends show that they know a
//! password, and get a key. The method is weak: who sees the messages of one conversation can
//! find the password by trying 2^56 keys. So it is used only under the responder's own AUTH, which
//! the peer checks before it answers.

mod authenticator;
mod calculation;
mod peer;

pub(super) use self::authenticator::MsChapV2Authenticator;
use self::calculation::CHALLENGE;
use self::calculation::NT_RESPONSE;
pub(super) use self::peer::MsChapV2Peer;

use super::Fault;

/// Kind of a message.
mod op {
    pub(super) const CHALLENGE: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const SUCCESS: u8 = 3;
    pub(super) const FAILURE: u8 = 4;
}

/// A message: kind, identifier, length, and the rest.
#[derive(Debug, PartialEq, Eq)]
struct Packet<'a> {
    op: u8,
    id: u8,
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    fn decode(data: &'a [u8]) -> Result<Self, Fault> {
        let short = Fault::Malformed("a short MS-CHAPv2 message");
        let Some(([op, id, high, low], rest)) = data.split_first_chunk() else {
            return Err(short);
        };
        if usize::from(u16::from_be_bytes([*high, *low])) != data.len() {
            return Err(Fault::Malformed("an MS-CHAPv2 message of another length than it says"));
        }
        Ok(Self { op: *op, id: *id, rest })
    }

    fn encode(&self) -> Vec<u8> {
        let length = self.rest.len().saturating_add(4);
        let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        [&[self.op, self.id, high, low], self.rest].concat()
    }
}

/// The rest of a challenge: the length of the value, the value, a name.
fn challenge(rest: &[u8]) -> Result<[u8; CHALLENGE], Fault> {
    match rest.split_first() {
        Some((16, value)) => value.first_chunk().copied(),
        _ => None,
    }
    .ok_or(Fault::Malformed("a challenge of another length"))
}

/// The rest of a response.
#[derive(Debug, PartialEq, Eq)]
struct Response<'a> {
    peer_challenge: [u8; CHALLENGE],
    nt_response: [u8; NT_RESPONSE],
    name: &'a [u8],
}

impl<'a> Response<'a> {
    fn decode(rest: &'a [u8]) -> Result<Self, Fault> {
        let read = || {
            let (49, rest) = rest.split_first()? else { return None };
            let (peer_challenge, rest) = rest.split_first_chunk()?;
            let (_reserved, rest) = rest.split_first_chunk::<8>()?;
            let (nt_response, rest) = rest.split_first_chunk()?;
            let (_flags, name) = rest.split_first()?;
            Some(Self { peer_challenge: *peer_challenge, nt_response: *nt_response, name })
        };
        read().ok_or(Fault::Malformed("a response of another length"))
    }

    fn encode(&self) -> Vec<u8> {
        let mut rest = vec![49];
        rest.extend_from_slice(&self.peer_challenge);
        rest.extend_from_slice(&[0; 8]);
        rest.extend_from_slice(&self.nt_response);
        rest.push(0);
        rest.extend_from_slice(self.name);
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(op: u8, id: u8, rest in vec(any::<u8>(), 0..80)) {
            let packet = Packet { op, id, rest: &rest };
            let data = packet.encode();
            prop_assert_eq!(Packet::decode(&data), Ok(packet));
            let (_last, cut) = data.split_last().unwrap();
            prop_assert!(Packet::decode(cut).is_err());
        }

        #[test]
        fn a_response_is_read_again_and_none_of_its_beginnings_is(
            peer_challenge: [u8; 16], nt_response: [u8; 24], name in vec(any::<u8>(), 0..20),
        ) {
            let response = Response { peer_challenge, nt_response, name: &name };
            let rest = response.encode();
            for end in 0..50 {
                prop_assert!(Response::decode(&rest[..end]).is_err());
            }
            prop_assert_eq!(Response::decode(&rest), Ok(response));
        }
    }

    #[test]
    fn a_challenge_has_sixteen_octets() {
        assert!(challenge(&[&[16][..], &[1; 16], b"name"].concat()).is_ok());
        assert!(challenge(&[&[8][..], &[1; 16]].concat()).is_err());
        assert!(challenge(&[&[16][..], &[1; 15]].concat()).is_err());
        assert!(challenge(&[]).is_err());
    }
}
