//! TLS messages in pieces (RFC 5216 3.1, 3.2): each EAP message carries one, and the next is sent
//! when the other end has answered with an empty one.

use crate::eap::Fault;

/// Octets of TLS in one message of ours: with EAP and IKE around it, what every path carries.
const PIECE: usize = 1024;

const LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
const START: u8 = 0x20;

/// The data of one message.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::eap) struct Piece<'a> {
    pub(super) start: bool,
    pub(super) more: bool,
    /// Octets of the whole, where they are told.
    pub(super) whole: Option<usize>,
    pub(super) octets: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Nothing: what acknowledges a piece, or the end.
    pub(super) const EMPTY: Piece<'static> =
        Piece { start: false, more: false, whole: None, octets: &[] };
    /// With what the authenticator begins.
    pub(super) const START: Piece<'static> = Piece { start: true, ..Self::EMPTY };

    pub(in crate::eap) fn decode(data: &'a [u8]) -> Result<Self, Fault> {
        let short = Fault::Malformed("a short EAP-TLS message");
        let Some((flags, rest)) = data.split_first() else { return Err(short) };
        let (whole, octets) = if flags & LENGTH == 0 {
            (None, rest)
        } else {
            let Some((length, octets)) = rest.split_first_chunk() else { return Err(short) };
            // More than fits into memory is too long in any case.
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            (Some(length), octets)
        };
        Ok(Self { start: flags & START != 0, more: flags & MORE != 0, whole, octets })
    }

    pub(in crate::eap) fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        for (flag, set) in [(LENGTH, self.whole.is_some()), (MORE, self.more), (START, self.start)]
        {
            flags |= if set { flag } else { 0 };
        }
        let whole = self.whole.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
        let mut data = vec![flags];
        data.extend(whole.into_iter().flat_map(u32::to_be_bytes));
        data.extend_from_slice(self.octets);
        data
    }

    pub(super) const fn is_empty(&self) -> bool {
        !self.start && !self.more && self.octets.is_empty()
    }
}

/// What is being received.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    octets: Vec<u8>,
}

impl Incoming {
    /// Takes a piece; gives the whole when it was the last.
    pub(super) fn push(
        &mut self,
        piece: &Piece<'_>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let length = self.octets.len().saturating_add(piece.octets.len());
        if length > limit || piece.whole.is_some_and(|whole| whole > limit) {
            return Err(Fault::TooLong(limit));
        }
        if piece.more && piece.octets.is_empty() {
            return Err(Fault::Malformed("an empty piece with more to come"));
        }
        self.octets.extend_from_slice(piece.octets);
        Ok((!piece.more).then(|| core::mem::take(&mut self.octets)))
    }
}

/// What is being sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    octets: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn new(octets: Vec<u8>) -> Self {
        Self { octets, sent: 0 }
    }

    /// Whether something is left.
    pub(super) fn is_under_way(&self) -> bool {
        self.sent < self.octets.len()
    }

    /// The next piece; the length of the whole stands in the first of several.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let rest = self.octets.get(self.sent..).unwrap_or_default();
        let octets = rest.get(..PIECE).unwrap_or(rest);
        let more = octets.len() < rest.len();
        let whole = (more && self.sent == 0).then_some(self.octets.len());
        let data = Piece { start: false, more, whole, octets }.encode();
        self.sent = self.sent.saturating_add(octets.len());
        data
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            start: bool, more: bool, whole: Option<u32>, octets in vec(any::<u8>(), 0..40),
        ) {
            let whole = whole.and_then(|w| usize::try_from(w).ok());
            let piece = Piece { start, more, whole, octets: &octets };
            let data = piece.encode();
            prop_assert_eq!(Piece::decode(&data), Ok(piece));
        }

        #[test]
        fn any_octets_are_read_or_refused(data in vec(any::<u8>(), 0..16)) {
            let _either_way = Piece::decode(&data);
        }

        #[test]
        fn what_is_cut_is_joined_again(octets in vec(any::<u8>(), 1..5000)) {
            let (mut outgoing, mut incoming) = (Outgoing::new(octets.clone()), Incoming::default());
            let mut pieces = 0_usize;
            let whole = loop {
                prop_assert!(outgoing.is_under_way());
                let data = outgoing.next();
                pieces = pieces.saturating_add(1);
                prop_assert!(data.len() <= PIECE.saturating_add(5));
                let piece = Piece::decode(&data).unwrap();
                prop_assert_eq!(piece.whole.is_some(), pieces == 1 && piece.more);
                if let Some(whole) = incoming.push(&piece, 5000).unwrap() {
                    break whole;
                }
            };
            prop_assert!(!outgoing.is_under_way());
            prop_assert_eq!(whole, octets);
        }
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let mut incoming = Incoming::default();
        let piece = |whole, octets| Piece { start: false, more: true, whole, octets };
        assert_eq!(incoming.push(&piece(Some(101), &[0]), 100), Err(Fault::TooLong(100)));
        assert_eq!(incoming.push(&piece(None, &[0; 60]), 100), Ok(None));
        assert_eq!(incoming.push(&piece(None, &[0; 41]), 100), Err(Fault::TooLong(100)));
        assert!(incoming.push(&piece(None, &[]), 100).is_err(), "this could go on for ever");
    }
}
