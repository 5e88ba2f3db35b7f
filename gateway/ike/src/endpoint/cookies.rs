//! Cookies that somebody in front of us makes and accepts, too.

use core::time::Duration;
use std::time::Instant;

use super::Endpoint;
use crate::io::{Output, SharedCookies};
use crate::time::after;

/// After so long a secret that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What was shared.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    told: Option<SharedCookies>,
    /// When a new secret is due, or is to be tried again.
    due: Option<Instant>,
}

impl Sharing {
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Endpoint {
    /// Tells of new secrets in time, whether or not we need one ourselves, and of the mode.
    pub(super) fn share_cookies(&mut self, now: Instant) {
        if !self.shared.config.shares_cookies {
            return;
        }
        if self.sharing.due.is_none_or(|due| due <= now) {
            let outcome = self.cookies.renew(now, self.shared.random.as_mut());
            let due = self.cookies.due().filter(|_| outcome.is_ok());
            self.sharing.due = Some(due.unwrap_or_else(|| after(now, RETRY)));
        }
        let Some(secrets) = self.cookies.shared() else { return };
        let mode = SharedCookies { secrets, demand: self.demanding_cookies };
        if self.sharing.told != Some(mode) {
            self.sharing.told = Some(mode);
            self.shared.output(Output::Cookies(mode));
        }
    }
}
