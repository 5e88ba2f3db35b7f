//! EAP messages (RFC 3748 4, 5): what stands in the data of [`gateway_wire::Eap`].

use core::fmt;

use gateway_wire::{Eap, EapCode, EapType};

use super::Fault;

/// The longest identity that we take: longer ones are names of nobody.
pub(super) const MAX_IDENTITY: usize = 253; // RFC 7542 2.2

/// A message of our own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) code: EapCode,
    pub(crate) identifier: u8,
    data: Vec<u8>,
}

impl Message {
    pub(super) fn request(identifier: u8, body: &Body<'_>) -> Self {
        Self { code: EapCode::REQUEST, identifier, data: body.encode() }
    }

    pub(super) fn response(identifier: u8, body: &Body<'_>) -> Self {
        Self { code: EapCode::RESPONSE, identifier, data: body.encode() }
    }

    pub(super) const fn success(identifier: u8) -> Self {
        Self { code: EapCode::SUCCESS, identifier, data: Vec::new() }
    }

    pub(super) const fn failure(identifier: u8) -> Self {
        Self { code: EapCode::FAILURE, identifier, data: Vec::new() }
    }

    /// As an EAP payload has it.
    pub(crate) fn as_wire(&self) -> Eap<'_> {
        Eap { code: self.code, identifier: self.identifier, data: &self.data }
    }
}

impl fmt::Debug for Message {
    /// Without the data: a challenge and its response are enough to guess a password from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.data.first().map(|kind| EapType(*kind));
        write!(f, "{} {} {kind:?} ({} octets)", self.code, self.identifier, self.data.len())
    }
}

/// What a request or a response is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// Who the peer is; in a request, words for a user.
    Identity(&'a [u8]),
    /// Words for a user; in a response, nothing.
    Notification(&'a [u8]),
    /// Methods that the peer would have; none: it has no alternative (RFC 3748 5.3.1).
    Nak(Vec<EapType>),
    /// A message of a method.
    Method(EapType, &'a [u8]),
}

impl<'a> Body<'a> {
    /// Reads the data of a request or response.
    pub(super) fn decode(code: EapCode, data: &'a [u8]) -> Result<Self, Fault> {
        let (kind, rest) = data.split_first().ok_or(Fault::Malformed("no type"))?;
        match EapType(*kind) {
            EapType::IDENTITY => Ok(Self::Identity(rest)),
            EapType::NOTIFICATION => Ok(Self::Notification(rest)),
            // RFC 3748 5.3.1: valid only in a response, and never empty; 0 is "no alternative".
            EapType::NAK if code == EapCode::RESPONSE && !rest.is_empty() => {
                Ok(Self::Nak(rest.iter().filter(|k| **k != 0).map(|k| EapType(*k)).collect()))
            }
            EapType::NAK => Err(Fault::Malformed("a Nak that answers nothing")),
            kind => Ok(Self::Method(kind, rest)),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Identity(name) => (EapType::IDENTITY, name.to_vec()),
            Self::Notification(words) => (EapType::NOTIFICATION, words.to_vec()),
            Self::Nak(wanted) if wanted.is_empty() => (EapType::NAK, vec![0]),
            Self::Nak(wanted) => (EapType::NAK, wanted.iter().map(|k| k.0).collect()),
            Self::Method(kind, data) => (*kind, data.to_vec()),
        };
        core::iter::once(kind.0).chain(rest).collect()
    }
}

/// Types in words.
pub(super) fn names(types: impl IntoIterator<Item = EapType>) -> String {
    let names: Vec<String> = types.into_iter().map(|t| t.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_nak_of_nothing_is_written_as_zero_and_read_as_nothing() {
        let nak = Message::response(7, &Body::Nak(Vec::new()));
        assert_eq!(nak.as_wire(), Eap { code: EapCode::RESPONSE, identifier: 7, data: &[3, 0] });
        assert_eq!(Body::decode(EapCode::RESPONSE, &[3, 0]), Ok(Body::Nak(Vec::new())));
        assert!(Body::decode(EapCode::RESPONSE, &[3]).is_err());
        assert!(Body::decode(EapCode::REQUEST, &[3, 13]).is_err(), "only a peer refuses");
        assert!(Body::decode(EapCode::REQUEST, &[]).is_err());
    }

    #[test]
    fn the_data_of_a_message_is_not_printed() {
        let message = Message::response(1, &Body::Method(EapType::MD5_CHALLENGE, b"guess me"));
        assert_eq!(format!("{message:?}"), "RESPONSE 1 Some(MD5_CHALLENGE) (9 octets)");
    }

    fn body() -> impl Strategy<Value = (u8, Vec<u8>)> {
        (any::<u8>(), vec(any::<u8>(), 0..64))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again((kind, data) in body()) {
            let body = match EapType(kind) {
                EapType::IDENTITY => Body::Identity(&data),
                EapType::NOTIFICATION => Body::Notification(&data),
                EapType::NAK => Body::Nak(data.iter().filter(|k| **k != 0).map(|k| EapType(*k)).collect()),
                kind => Body::Method(kind, &data),
            };
            let message = Message::response(0, &body);
            prop_assert_eq!(Body::decode(EapCode::RESPONSE, message.as_wire().data), Ok(body));
        }

        #[test]
        fn any_octets_are_read_or_refused(data in vec(any::<u8>(), 0..32), code in any::<u8>()) {
            let _either_way = Body::decode(EapCode(code), &data);
        }
    }
}
