//! A peer that puts off what we ask for: for a while that is as it should be, and then the two ends
//! are out of step (RFC 7296 2.25, RFC 9370 2.2.4).

use core::time::Duration;
use std::time::Instant;

use gateway_wire::NotifyType;

use super::{IkeSa, State};
use crate::error::Error;
use crate::event::EventKind;
use crate::shared::Shared;

/// After this long an IKE SA on which the peer does nothing but put off is closed (RFC 7296 2.25:
/// several minutes).
const OUT_OF_STEP: Duration = Duration::from_secs(300);
/// So often in a row the peer may forget what it was about in IKE_FOLLOWUP_KE (RFC 9370 2.2.4:
/// several retries).
const MOST_FORGOTTEN: u32 = 4;

/// Since when, and how often, the peer has put off what we asked for, without anything in between
/// that it did.
#[derive(Debug, Clone, Copy)]
pub(super) struct PutOff {
    /// The first time and the last.
    times: Option<(Instant, Instant)>,
    forgotten: u32,
}

impl PutOff {
    /// It has not.
    pub(super) const fn new() -> Self {
        Self { times: None, forgotten: 0 }
    }

    /// Once more; gives since when. What is put off is tried again within a minute, so that nothing
    /// was between two times only if they are not far apart: what was put off first may not be
    /// wanted any more.
    fn again(&mut self, now: Instant) -> Instant {
        let in_a_row =
            self.times.filter(|(_, last)| now.saturating_duration_since(*last) < OUT_OF_STEP);
        if in_a_row.is_none() {
            *self = Self::new();
        }
        let since = in_a_row.map_or(now, |(since, _)| since);
        self.times = Some((since, now));
        since
    }
}

/// Whether an answer asks us to try again later.
pub(super) const fn puts_off(error: &Error) -> bool {
    matches!(error, Error::Refused(NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND))
}

impl IkeSa {
    /// The peer puts something off. `true`: for too long, and the IKE SA is closed.
    pub(super) fn put_off(&mut self, now: Instant, shared: &mut Shared, error: Error) -> bool {
        let forgotten = error == Error::Refused(NotifyType::STATE_NOT_FOUND);
        self.event(shared, EventKind::PutOff(error));
        let State::Established(established) = &mut self.state else { return true };
        let put_off = &mut established.put_off;
        let since = put_off.again(now);
        put_off.forgotten = put_off.forgotten.saturating_add(u32::from(forgotten));
        let reason = if now.saturating_duration_since(since) >= OUT_OF_STEP {
            "the peer has put off for minutes what we ask for"
        } else if put_off.forgotten > MOST_FORGOTTEN {
            "the peer forgets key exchanges under way again and again"
        } else {
            return false;
        };
        self.delete_ike(now, shared, reason);
        true
    }

    /// The peer has done what we asked for, or refused it.
    pub(super) fn not_put_off(&mut self) {
        if let State::Established(established) = &mut self.state {
            established.put_off = PutOff::new();
        }
    }
}
