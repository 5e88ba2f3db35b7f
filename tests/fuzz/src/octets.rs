//! The input of a target that takes its decisions from it.

use gateway_ike::testing::Choices;

/// What is left of the input; zeros follow it.
pub struct Octets<'a>(pub &'a [u8]);

impl Octets<'_> {
    /// The next octet.
    pub fn one(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two, as a number.
    pub fn two(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.one(), self.one()]))
    }

    /// As many as are left of so many.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// An octet for each choice; zeros choose the first, and what is not there.
impl Choices for Octets<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        u64::from(self.one()).checked_rem(limit).unwrap_or(0)
    }

    fn percent(&mut self, percent: u64) -> bool {
        u64::from(self.one()) * 100 >= (100 - percent) * 256
    }
}
