//! Stateless cookies for IKE_SA_INIT (RFC 7296 2.6): proof that the initiator receives what we
//! send to its address, before we spend memory or a key exchange on it.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::time::Instant;

use gateway_wire::IkeSpi;
use zeroize::Zeroizing;

use crate::algorithms::Prf;
use crate::crypto::prf::{equal, prf};
use crate::random::{Random, RandomFailed};
use crate::time::after;

/// How long a secret makes cookies; it accepts them for as long again.
const ROTATION: Duration = Duration::from_secs(60);
/// Octets of a cookie: the version of the secret and a truncated MAC.
const LENGTH: usize = 1 + 16;

/// A secret with its version.
struct Secret {
    version: u8,
    key: Zeroizing<[u8; 32]>,
    until: Instant,
}

/// The current secret and the one before.
#[derive(Default)]
pub(crate) struct Cookies {
    current: Option<Secret>,
    previous: Option<Secret>,
}

impl Cookies {
    /// The cookie for an initiator.
    ///
    /// # Errors
    /// [`RandomFailed`] when a secret is due and cannot be made.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
        spi: IkeSpi,
        nonce: &[u8],
        from: SocketAddr,
    ) -> Result<[u8; LENGTH], RandomFailed> {
        let expired = self.current.as_ref().is_none_or(|s| s.until <= now);
        if expired {
            let mut key = Zeroizing::new([0; 32]);
            random.fill(key.as_mut())?;
            let version = self.current.as_ref().map_or(0, |s| s.version.wrapping_add(1));
            let fresh = Secret { version, key, until: after(now, ROTATION) };
            self.previous = self.current.replace(fresh);
        }
        self.current.as_ref().map(|s| cookie(s, spi, nonce, from)).ok_or(RandomFailed)
    }

    /// Whether a returned cookie is one of ours for this very initiator, and recent.
    pub(crate) fn check(&self, now: Instant, returned: &[u8], spi: IkeSpi, nonce: &[u8], from: SocketAddr) -> bool {
        let recent = |s: &&Secret| now < after(s.until, ROTATION);
        let version = returned.first().copied();
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(recent)
            .filter(|s| Some(s.version) == version)
            .any(|s| equal(&cookie(s, spi, nonce, from), returned))
    }
}

/// `version | HMAC(secret, Ni | IPi | porti | SPIi)`.
fn cookie(secret: &Secret, spi: IkeSpi, nonce: &[u8], from: SocketAddr) -> [u8; LENGTH] {
    let address = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mac = prf(Prf::HmacSha256, secret.key.as_ref(), &[nonce, &address, &from.port().to_be_bytes(), &spi.0]);
    let mut cookie = [secret.version; LENGTH];
    for (to, from) in cookie.iter_mut().skip(1).zip(mac.iter()) {
        *to = *from;
    }
    cookie
}
