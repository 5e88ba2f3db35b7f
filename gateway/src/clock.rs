//! The only place in the product that reads a clock: everything else is told what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// This long from now; now, if no clock will ever say that.
#[must_use]
pub fn after(delay: Duration) -> Instant {
    let now = now();
    now.checked_add(delay).unwrap_or(now)
}

/// The wall-clock time since 1970; zero when the clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The wall-clock time in seconds since 1970, for people to read.
#[must_use]
pub fn unix_seconds() -> u64 {
    since_1970().as_secs()
}
