//! The only place in the product that reads a clock: everything else is told what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall-clock time in seconds since 1970, for people to read; 0 when the clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
