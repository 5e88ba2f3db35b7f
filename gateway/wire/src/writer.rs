//! Octets being written, with lengths that are filled in afterwards.

use alloc::vec::Vec;

use crate::EncodeError;

/// Octets being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    /// With room for so many octets, so that they need not move while they are written.
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self { octets: Vec::with_capacity(octets) }
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.octets(&value.to_be_bytes());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.octets(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.octets(&value.to_be_bytes());
    }

    /// A count or length in one octet.
    pub(crate) fn count_u8(&mut self, what: &'static str, count: usize) -> Result<(), EncodeError> {
        let count = u8::try_from(count).map_err(|_too_long| EncodeError::too_long(what))?;
        self.u8(count);
        Ok(())
    }

    /// A count or length in two octets.
    pub(crate) fn count_u16(
        &mut self,
        what: &'static str,
        count: usize,
    ) -> Result<(), EncodeError> {
        let count = u16::try_from(count).map_err(|_too_long| EncodeError::too_long(what))?;
        self.u16(count);
        Ok(())
    }

    /// A frame: two octets, the length of the whole in two octets, and what `body` writes. The
    /// counterpart of `Reader::framed`.
    pub(crate) fn framed(
        &mut self,
        what: &'static str,
        [first, second]: [u8; 2],
        body: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let start = self.octets.len();
        self.octets(&[first, second, 0, 0]);
        body(self)?;
        let frame = self.octets.get_mut(start..).unwrap_or_default();
        let length = u16::try_from(frame.len()).map_err(|_too_long| EncodeError::too_long(what))?;
        if let [_, _, high, low, ..] = frame {
            [*high, *low] = length.to_be_bytes();
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::EncodeErrorKind;

    #[test]
    fn frames_nest_and_know_their_lengths() {
        let mut writer = Writer::default();
        let inner = |w: &mut Writer| {
            w.u8(5);
            Ok(())
        };
        writer.framed("outer", [1, 2], |w| w.framed("inner", [3, 4], inner)).unwrap();
        assert_eq!(writer.finish(), [1, 2, 0, 9, 3, 4, 0, 5, 5]);
    }

    #[test]
    fn a_frame_that_does_not_fit_its_length_is_refused() {
        let write = |body: usize| {
            Writer::default().framed("frame", [0, 0], |w| {
                w.octets(&vec![0; body]);
                Ok(())
            })
        };
        assert_eq!(write(65_531), Ok(()));
        assert_eq!(write(65_532).unwrap_err().kind, EncodeErrorKind::TooLong);
    }

    #[test]
    fn a_count_that_does_not_fit_is_refused() {
        assert_eq!(Writer::default().count_u8("count", 255), Ok(()));
        assert!(Writer::default().count_u8("count", 256).is_err());
        assert_eq!(Writer::default().count_u16("count", 65_535), Ok(()));
        assert!(Writer::default().count_u16("count", 65_536).is_err());
    }
}
