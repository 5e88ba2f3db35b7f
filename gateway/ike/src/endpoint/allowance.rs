//! How much a stranger can make us send.

use core::time::Duration;
use std::time::Instant;

/// Counts answers to messages that nothing protects: RFC 7296 2.4 and 2.21.4 want their rate
/// limited, so that we are of no use to reflect a flood.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// When the second that is being counted began, and what is left of it.
    second: Option<(Instant, u32)>,
}

impl Allowance {
    /// Whether one more is allowed, of `limit` a second.
    pub(super) fn take(&mut self, now: Instant, limit: u32) -> bool {
        let (since, left) = match self.second {
            Some((since, left))
                if now.saturating_duration_since(since) < Duration::from_secs(1) =>
            {
                (since, left)
            }
            _ => (now, limit),
        };
        self.second = Some((since, left.saturating_sub(1)));
        left != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::start;

    #[test]
    fn a_second_has_its_limit_and_the_next_one_has_it_again() {
        let (mut allowance, now) = (Allowance::default(), start());
        let taken =
            |allowance: &mut Allowance, at| (0..10).filter(|_| allowance.take(at, 3)).count();
        assert_eq!(taken(&mut allowance, now), 3);
        assert_eq!(taken(&mut allowance, now + Duration::from_millis(999)), 0);
        assert_eq!(taken(&mut allowance, now + Duration::from_secs(1)), 3);
        assert_eq!(taken(&mut allowance, now + Duration::from_secs(100)), 3);
    }

    #[test]
    fn a_limit_of_zero_allows_nothing() {
        let (mut allowance, now) = (Allowance::default(), start());
        assert!(!allowance.take(now, 0));
        assert!(!allowance.take(now + Duration::from_secs(5), 0));
    }
}
