//! ESP that meets the daemon: before its SA is there, on the socket, or without an SA.

use core::net::IpAddr;
use std::time::Instant;

use gateway_ike::io::Path;

use super::{Driver, Kernel, Monitor};
use crate::clock;
use crate::kernel::RENEWAL;
use crate::kernel::bpf::EspSource;
use crate::net::Outcome;

impl<K: Kernel, M: Monitor> Driver<K, M> {
    /// A peer may send by an SPI before its SA is there.
    pub(super) fn expect(&mut self, local: IpAddr, spi: u32) {
        let now = clock::now();
        self.forget_early(now);
        if let Some(before) = self.early.expected_at(spi).filter(|before| *before != local) {
            self.parts.kernel.await_no_more(before, spi);
        }
        if let Err(error) = self.early.expect(now, local, spi)
            && self.parts.complaints.take(now)
        {
            tracing::warn!(%error, "What the peer sends before its Child SA is there will be lost");
        }
        if self.early.expected_at(spi) == Some(local) {
            self.parts.kernel.await_sa(local, spi);
        }
    }

    /// Nothing has become of some that were expected.
    pub(super) fn forget_early(&mut self, now: Instant) {
        for (local, spi) in self.early.forget_old(now) {
            self.parts.kernel.await_no_more(local, spi);
        }
    }

    /// Tells the kernel again that we are here, if it is time.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.renewal.is_none_or(|time| time <= now) {
            self.parts.kernel.renew();
            self.renewal = now.checked_add(RENEWAL);
        }
    }

    /// Somebody sends by an SA that we do not have: it may have been lost here, by a crash or by who
    /// has flushed it.
    pub(super) fn tell_unknown(&self, seen: &EspSource) {
        if self.parts.complaints.take(clock::now()) {
            let EspSource { destination: to, spi, source: from } = seen;
            let (spi, in_udp) = (format!("{spi:08x}"), from.port() != 0);
            tracing::info!(
                spi, %from, %to, in_udp,
                "ESP without an SA is dropped; counters esp_bare_unknown_spi_dropped and \
                 esp_in_udp_unknown_spi_dropped"
            );
        }
    }

    /// What has come for an SA before it was there.
    pub(super) fn hand_over_early(&mut self, (local, spi): (IpAddr, u32)) {
        let waiting = self.early.take(local, spi);
        for (path, esp) in waiting {
            self.reinject(&path, spi, &esp);
        }
    }

    /// ESP that has come on a socket goes to the kernel, if it is of an SA of ours.
    pub(super) fn reinject(&mut self, path: &Path, spi: u32, esp: &[u8]) {
        let Some(destination) = self.inbound.destination(path.local.ip(), spi) else {
            if self.early.keep(path, spi, esp) {
                return;
            }
            self.unknown_esp = self.unknown_esp.saturating_add(1);
            return;
        };
        let mut path = *path;
        path.local.set_ip(destination);
        let path = &path;
        if let Outcome::Failed(error) = self.parts.reinjector.reinject(clock::now(), path, esp) {
            tracing::debug!(%path, %error, "Cannot hand ESP back to the kernel");
        }
    }
}
