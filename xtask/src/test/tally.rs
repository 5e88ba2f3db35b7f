//! How many tests passed, failed and were skipped.

use std::fmt;
use std::iter::Sum;

/// Counts of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// Ignored, or ended early because the machine lacks something.
    pub(crate) skipped: u32,
}

impl Tally {
    /// One test, or one check that counts as one, that failed.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    /// One that passed.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One that could not run here.
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Adds the counts of another.
    pub(crate) const fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.add(tally);
            sum
        })
    }
}

/// The form that whoever runs the tests reads: do not change it.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_has_the_form_that_is_read_by_machines() {
        let total: Tally = [Tally::PASSED, Tally::PASSED, Tally::FAILED, Tally::SKIPPED]
            .into_iter()
            .chain([Tally { passed: 10, failed: 0, skipped: 3 }])
            .sum();
        assert_eq!(total.to_string(), "12 passed, 1 failed, 4 skipped");
    }
}
