//! Words to the service manager (`sd_notify(3)`); without one they go nowhere.

use core::time::Duration;

use sd_notify::NotifyState;

/// The gateway serves: at start, and after each reload.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The policy files are being loaded again. `Type=notify-reload` wants to know when that began.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(since) => tell(&[NotifyState::Reloading, since]),
        Err(error) => tracing::debug!(%error, "Cannot read the clock for the service manager"),
    }
}

/// The gateway is ending.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The event loop turns.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be said: twice in the time that the service manager waits.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .and_then(|timeout| timeout.checked_div(2))
        .filter(|interval| !interval.is_zero())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "Cannot tell the service manager");
    }
}
