//! A cursor over octets that cannot leave them.

use core::mem;

use crate::{DecodeError, DecodeErrorKind};

/// A cursor over the octets of one structure. Each method takes octets from the front or fails;
/// there is no way to an octet outside, and none back.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor over `octets`, which are called `what` in errors.
    pub(crate) const fn new(what: &'static str, octets: &'a [u8]) -> Self {
        Self { what, rest: octets }
    }

    /// An error in the structure being read.
    pub(crate) const fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { what: self.what, kind }
    }

    /// Fails with [`DecodeErrorKind::BadValue`] unless `holds`.
    pub(crate) const fn require(&self, holds: bool) -> Result<(), DecodeError> {
        if holds { Ok(()) } else { Err(self.error(DecodeErrorKind::BadValue)) }
    }

    /// Fails with [`DecodeErrorKind::BadLength`] unless `holds`.
    pub(crate) const fn require_length(&self, holds: bool) -> Result<(), DecodeError> {
        if holds { Ok(()) } else { Err(self.error(DecodeErrorKind::BadLength)) }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` octets.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = self.error(DecodeErrorKind::Truncated);
        let (array, rest) = self.rest.split_first_chunk().ok_or(truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next `length` octets.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = self.error(DecodeErrorKind::Truncated);
        let (octets, rest) = self.rest.split_at_checked(length).ok_or(truncated)?;
        self.rest = rest;
        Ok(octets)
    }

    /// All octets that are left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        mem::take(&mut self.rest)
    }

    /// The next frame: two octets, the length of the whole frame in two octets, and the rest of
    /// it, which is read by a cursor of its own. Payloads, proposals, transforms, traffic
    /// selectors and EAP messages all have this form.
    pub(crate) fn framed(&mut self, what: &'static str) -> Result<([u8; 2], Self), DecodeError> {
        let failed = |kind| DecodeError { what, kind };
        let truncated = failed(DecodeErrorKind::Truncated);
        let [first, second, high, low] = self.array().map_err(|_outer| truncated)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = length.checked_sub(4).ok_or_else(|| failed(DecodeErrorKind::BadLength))?;
        let body = self.take(body).map_err(|_outer| truncated)?;
        Ok(([first, second], Reader::new(what, body)))
    }

    /// Ends the reading of the structure: nothing may be left.
    pub(crate) const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(DecodeErrorKind::TrailingData)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_octets_in_order_and_then_none() {
        let mut reader = Reader::new("test", &[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert!(reader.is_empty());
        assert_eq!(reader.u8().unwrap_err().kind, DecodeErrorKind::Truncated);
    }

    #[test]
    fn a_failed_read_takes_nothing() {
        let mut reader = Reader::new("test", &[1, 2]);
        assert!(reader.u32().is_err());
        assert!(reader.take(usize::MAX).is_err());
        assert_eq!(reader.rest(), [1, 2]);
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        let mut reader = Reader::new("outer", &[9, 8, 0, 5, 7, 6]);
        let ([first, second], mut inner) = reader.framed("inner").unwrap();
        assert_eq!((first, second), (9, 8));
        assert_eq!(inner.rest(), [7]);
        assert_eq!(reader.rest(), [6]);
    }

    #[test]
    fn a_frame_shorter_than_its_own_head_is_refused() {
        for length in 0..4 {
            let error = Reader::new("outer", &[9, 8, 0, length, 7]).framed("inner").unwrap_err();
            assert_eq!(error, DecodeError { what: "inner", kind: DecodeErrorKind::BadLength });
        }
    }

    #[test]
    fn a_frame_longer_than_what_holds_it_is_refused() {
        let error = Reader::new("outer", &[9, 8, 0, 6, 7]).framed("inner").unwrap_err();
        assert_eq!(error, DecodeError { what: "inner", kind: DecodeErrorKind::Truncated });
    }

    #[test]
    fn octets_left_over_are_an_error() {
        let mut reader = Reader::new("test", &[1]);
        assert_eq!(reader.finish().unwrap_err().kind, DecodeErrorKind::TrailingData);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.finish(), Ok(()));
    }
}
