//! When a request that is not answered is sent again, and when that is in vain (RFC 7296 2.4).

use core::time::Duration;
use std::time::Instant;

use crate::config::EndpointConfig;
use crate::time::after;

/// When a request is sent again.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    begun: Instant,
    next: Instant,
    interval: Duration,
    pub(super) sent_again: u32,
}

/// What is to be done with a request whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Not yet.
    Wait,
    /// Send it again.
    Again,
    /// The peer does not answer.
    GiveUp {
        /// How often it was sent again.
        tries: u32,
    },
}

impl Backoff {
    pub(crate) fn new(now: Instant, config: &EndpointConfig) -> Self {
        Self {
            begun: now,
            next: after(now, config.retransmit_initial),
            interval: config.retransmit_initial,
            sent_again: 0,
        }
    }

    /// How often it was sent again.
    pub(crate) const fn sent_again(&self) -> u32 {
        self.sent_again
    }

    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// RFC 7296 2.4: with growing intervals, and not for ever.
    pub(crate) fn poll(&mut self, now: Instant, config: &EndpointConfig) -> Retry {
        self.poll_for(now, config, Duration::ZERO)
    }

    /// The same, for as long as `least` in any case; once the tries are used up the intervals grow
    /// no more.
    pub(super) fn poll_for(
        &mut self,
        now: Instant,
        config: &EndpointConfig,
        least: Duration,
    ) -> Retry {
        if now < self.next {
            return Retry::Wait;
        }
        let used_up = self.sent_again >= config.retransmit_tries;
        if used_up && now.saturating_duration_since(self.begun) >= least {
            return Retry::GiveUp { tries: self.sent_again };
        }
        self.sent_again = self.sent_again.saturating_add(1);
        if !used_up {
            let longer = self.interval.saturating_mul(config.retransmit_factor_percent);
            self.interval = longer.checked_div(100).unwrap_or(longer);
        }
        self.next = after(now, self.interval);
        Retry::Again
    }
}
