//! Arithmetic on time that cannot overflow.

use core::time::Duration;
use std::time::Instant;

/// `now + wait`; a wait beyond what the clock can count is as good as none.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

/// The earlier of two deadlines, either of which may be absent.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Where the clock of a test starts does not matter.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "The one look at the clock in unit tests.")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
