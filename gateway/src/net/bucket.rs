//! A limit on how often something happens.

use core::time::Duration;
use std::time::Instant;

/// A token bucket: `rate` times a second in the long run, `burst` times at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    interval: Duration,
    burst: u32,
    tokens: u32,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket. A `rate` of zero counts as one.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(rate).unwrap_or(Duration::from_secs(1));
        Self { interval: interval.max(Duration::from_nanos(1)), burst, tokens: burst, filled: None }
    }

    /// Takes one token, or says that there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = self.filled.map(|filled| now.saturating_duration_since(filled));
        let earned =
            since.map_or(0, |s| s.as_nanos().checked_div(self.interval.as_nanos()).unwrap_or(0));
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.filled = match (self.filled, earned) {
            (None, _) => Some(now),
            (Some(filled), 0) => Some(filled),
            // What has been earned is paid out; the rest of an interval stays.
            (Some(filled), n) => {
                self.interval.checked_mul(n).and_then(|d| filled.checked_add(d)).or(Some(now))
            }
        };
        self.tokens = self.tokens.saturating_add(earned).min(self.burst);
        self.tokens.checked_sub(1).is_some_and(|rest| {
            self.tokens = rest;
            true
        })
    }

    /// Whether it is as full as a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        let since = self.filled.map(|filled| now.saturating_duration_since(filled));
        let missing = self.burst.saturating_sub(self.tokens);
        since.is_none_or(|since| since >= self.interval.saturating_mul(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let start = crate::clock::now();
        let mut bucket = TokenBucket::new(10, 3);
        assert_eq!([(); 4].map(|()| bucket.take(start)), [true, true, true, false]);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        assert!(!bucket.take(start + Duration::from_millis(199)));
        assert!(bucket.take(start + Duration::from_millis(200)));
    }

    #[test]
    fn a_long_pause_fills_no_more_than_the_burst() {
        let start = crate::clock::now();
        let mut bucket = TokenBucket::new(1000, 2);
        assert!(bucket.take(start));
        let later = start + Duration::from_secs(3600);
        assert_eq!([(); 3].map(|()| bucket.take(later)), [true, true, false]);
    }

    #[test]
    fn it_is_full_when_all_has_been_earned_again() {
        let start = crate::clock::now();
        let mut bucket = TokenBucket::new(10, 3);
        assert!(bucket.is_full(start));
        assert!(bucket.take(start) && bucket.take(start));
        assert!(!bucket.is_full(start + Duration::from_millis(199)));
        assert!(bucket.is_full(start + Duration::from_millis(200)));
    }

    #[test]
    fn a_clock_that_stands_still_earns_nothing() {
        let start = crate::clock::now();
        let mut bucket = TokenBucket::new(u32::MAX, 1);
        assert!(bucket.take(start));
        assert!(!bucket.take(start));
    }
}
