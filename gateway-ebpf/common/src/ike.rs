//! How the XDP program protects the daemon's IKE ports.

use crate::{Address, CookieSecret};

/// A limit on how often something happens, in nanoseconds. Its state is one number, the time from
/// which on the next one is on time (GCRA, the leaky bucket as a meter): it is read and written
/// whole, so that CPUs can share it without a lock. Two that do so at once may let one more pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Between two of them in the long run; 0 for no limit.
    pub interval: u64,
    /// How much too early one may be.
    pub tolerance: u64,
}

const _: () = assert!(size_of::<Rate>() == 16);

impl Rate {
    /// So many a second in the long run, and so many at once; a rate of 0 is no limit.
    #[must_use]
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        let interval = match 1_000_000_000_u64.checked_div(rate as u64) {
            Some(interval) => interval,
            None => 0,
        };
        Self { interval, tolerance: interval.saturating_mul(burst.saturating_sub(1) as u64) }
    }

    /// The state after one more, if there may be one at this time; the first state is 0.
    #[inline(always)]
    #[must_use]
    pub const fn take(self, state: u64, now: u64) -> Option<u64> {
        // The clocks of two CPUs may differ a little.
        if self.interval == 0 {
            return Some(now);
        }
        let on_time = if state > now { state } else { now };
        let early = on_time.wrapping_sub(now);
        if early > self.tolerance {
            // What this rate cannot have left behind is of another one, which allowed more at once.
            let most = self.tolerance.saturating_add(self.interval.saturating_mul(2));
            return if early > most { Some(now.wrapping_add(self.tolerance)) } else { None };
        }
        Some(on_time.wrapping_add(self.interval))
    }
}

/// What the program is told; it does nothing to IKE before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IkeProtection {
    /// The secrets whose cookies are accepted; with the first one they are made.
    pub secrets: [CookieSecret; 2],
    /// IKE_SA_INIT requests without a cookie of ours, of all.
    pub all: Rate,
    /// The same of one prefix; and in a count of their own those with a cookie, of one address.
    pub prefix: Rate,
    /// Messages of other versions that may be answered; and in a count of their own those of IKEv1
    /// that go on with something.
    pub other_version: Rate,
    /// For so long after [`Self::all`] was exceeded cookies are demanded, in nanoseconds.
    pub hold: u64,
    /// 1 if the daemon wants cookies to be demanded.
    pub demand: u32,
    /// The bits of a prefix of IPv4, and 96 more for being mapped.
    pub prefix_v4: u8,
    /// The bits of a prefix of IPv6.
    pub prefix_v6: u8,
    /// Always zero.
    pub zero: [u8; 2],
}

const _: () = assert!(size_of::<IkeProtection>() == 112);

/// Who is counted: a prefix; and apart an address (IPv6: a /64) with its cookies, which nobody else
/// can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Requester {
    /// The prefix or the address, the other bits zero.
    pub prefix: Address,
    /// 1 with a cookie, else 0.
    pub shown: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<Requester>() == 24);

/// The places of numbers that say how much IKE comes; all are 0 at first.
pub mod load {
    /// The state of [`IkeProtection::all`](super::IkeProtection::all).
    pub const ALL: u32 = 0;
    /// Until when cookies are demanded because that was exceeded, on the clock of the rates.
    pub const DEMAND_UNTIL: u32 = 1;
    /// The state of [`IkeProtection::other_version`](super::IkeProtection::other_version).
    pub const OTHER_VERSION: u32 = 2;
    /// The same for messages of IKEv1 that go on with something.
    pub const IKEV1: u32 = 3;
    /// How many there are.
    pub const COUNT: usize = 4;
}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for IkeProtection {}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size, so there is no padding.
unsafe impl aya::Pod for Requester {}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` at this time are let through.
    fn through(rate: Rate, state: &mut u64, now: u64, count: usize) -> usize {
        let mut take = |_: &usize| match rate.take(*state, now) {
            Some(next) => {
                *state = next;
                true
            }
            None => false,
        };
        (0..count).filter(|number| take(number)).count()
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let rate = Rate::per_second(10, 3);
        let (mut state, start) = (0, 5_000_000_000);
        assert_eq!(through(rate, &mut state, start, 9), 3);
        assert_eq!(through(rate, &mut state, start + 99_999_999, 9), 0);
        assert_eq!(through(rate, &mut state, start + 100_000_000, 9), 1);
        // A long pause fills no more than the burst.
        let later = start + 3_600_000_000_000;
        assert_eq!(through(rate, &mut state, later, 9), 3);
        // A clock a little behind the others' earns nothing.
        assert_eq!(through(rate, &mut state, later - 1_000_000, 9), 0);
    }

    #[test]
    fn what_a_larger_burst_has_left_behind_keeps_nobody_out() {
        let (mut state, start) = (0, 5_000_000_000);
        assert_eq!(through(Rate::per_second(10, 1000), &mut state, start, 2000), 1000);
        let rate = Rate::per_second(10, 3);
        assert_eq!(through(rate, &mut state, start, 9), 2, "one for the change, one of the burst");
        assert_eq!(through(rate, &mut state, start + 100_000_000, 9), 1);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let rate = Rate::per_second(0, 0);
        assert_eq!(through(rate, &mut 8, 7, 1000), 1000);
        let rate = Rate::per_second(1, 0);
        assert_eq!(through(rate, &mut 0, 7, 9), 1, "a burst of none is one");
    }
}
