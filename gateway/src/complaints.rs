//! How much is logged of what the gateway could not do.
//!
//! A peer, or whoever sends packets, may be what leads to it, and often enough nobody can say: so all
//! such lines share one rate, wherever they are written. Milestones have their own (`driver::journal`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::log::BURST;
use crate::net::TokenBucket;

/// The rate of these lines; clones share it.
#[derive(Debug, Clone)]
pub struct Complaints(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bucket: TokenBucket,
    suppressed: u64,
}

impl Complaints {
    /// So many lines a second, and [`BURST`] times as many at once.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let bucket = TokenBucket::new(rate, rate.saturating_mul(BURST));
        Self(Arc::new(Mutex::new(State { bucket, suppressed: 0 })))
    }

    /// Whether one more line may be written. One that may not is counted.
    #[must_use]
    pub fn take(&self, now: Instant) -> bool {
        // Nothing in here leaves a state half changed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = state.bucket.take(now);
        if !may {
            state.suppressed = state.suppressed.saturating_add(1);
        }
        may
    }

    /// How many lines were not written.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).suppressed
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn all_who_complain_share_one_rate_and_what_is_left_unsaid_is_counted() {
        let complaints = Complaints::new(2);
        let other = complaints.clone();
        let now = crate::clock::now();
        let said = (0..100).filter(|n| if n % 2 == 0 { &complaints } else { &other }.take(now));
        assert_eq!(said.count(), 20, "ten seconds' worth at once");
        assert_eq!((complaints.suppressed(), other.suppressed()), (80, 80));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| other.take(later)).count(), 2);
        assert_eq!(complaints.suppressed(), 88);
    }
}
