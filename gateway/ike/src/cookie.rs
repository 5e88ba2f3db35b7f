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
    pub(crate) fn check(
        &self,
        now: Instant,
        returned: &[u8],
        spi: IkeSpi,
        nonce: &[u8],
        from: SocketAddr,
    ) -> bool {
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
    let mac = prf(
        Prf::HmacSha256,
        secret.key.as_ref(),
        &[nonce, &address, &from.port().to_be_bytes(), &spi.0],
    );
    let mut cookie = [secret.version; LENGTH];
    for (to, from) in cookie.iter_mut().skip(1).zip(mac.iter()) {
        *to = *from;
    }
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeededRandom;
    use crate::time::start;

    const SPI: IkeSpi = IkeSpi([3; 8]);
    const NONCE: &[u8] = &[4; 32];

    /// Cookies whose first secret is made now, with a cookie of it.
    fn first_cookie(now: Instant) -> (Cookies, SeededRandom, [u8; LENGTH]) {
        let (mut cookies, mut random) = (Cookies::default(), SeededRandom::new(1));
        let cookie = cookies.make(now, &mut random, SPI, NONCE, from()).unwrap();
        (cookies, random, cookie)
    }

    fn from() -> SocketAddr {
        "192.0.2.1:500".parse().unwrap()
    }

    #[test]
    fn the_right_cookie_is_accepted() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        assert!(cookies.check(now, &cookie, SPI, NONCE, from()));
        // The mapped form of an address is the address itself, as sockets of both kinds show it.
        let mapped = "[::ffff:192.0.2.1]:500".parse().unwrap();
        assert!(cookies.check(now, &cookie, SPI, NONCE, mapped));
    }

    #[test]
    fn a_cookie_with_any_octet_changed_or_of_another_length_is_refused() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        for at in 0..LENGTH {
            let mut wrong = cookie;
            wrong[at] ^= 0x80;
            assert!(!cookies.check(now, &wrong, SPI, NONCE, from()), "octet {at}");
        }
        let longer = [cookie.as_slice(), &[0]].concat();
        for wrong in [&[][..], &cookie[..1], &cookie[..LENGTH - 1], &longer] {
            assert!(!cookies.check(now, wrong, SPI, NONCE, from()));
        }
    }

    #[test]
    fn a_cookie_is_good_for_one_initiator_only() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        let other = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(!cookies.check(now, &cookie, IkeSpi([9; 8]), NONCE, from()));
        assert!(!cookies.check(now, &cookie, SPI, &[5; 32], from()));
        assert!(!cookies.check(now, &cookie, SPI, &[4; 31], from()));
        assert!(!cookies.check(now, &cookie, SPI, NONCE, other("192.0.2.1:501")));
        assert!(!cookies.check(now, &cookie, SPI, NONCE, other("192.0.2.2:500")));
        assert!(!cookies.check(now, &cookie, SPI, NONCE, other("[2001:db8::1]:500")));
    }

    #[test]
    fn a_cookie_outlives_one_new_secret_but_not_two() {
        let begin = start();
        let (mut cookies, mut random, cookie) = first_cookie(begin);
        let mut renewed_at = |cookies: &mut Cookies, after_start| {
            cookies.make(begin + after_start, &mut random, SPI, NONCE, from()).unwrap()
        };
        let later = begin + ROTATION;
        let second = renewed_at(&mut cookies, ROTATION);
        assert_ne!(second, cookie);
        assert!(cookies.check(later, &cookie, SPI, NONCE, from()));
        assert!(cookies.check(later, &second, SPI, NONCE, from()));
        let third = renewed_at(&mut cookies, ROTATION * 2);
        let later = begin + ROTATION * 2;
        // Told apart by the secret, not only by the clock.
        for at in [begin, later] {
            assert!(!cookies.check(at, &cookie, SPI, NONCE, from()));
        }
        assert!(cookies.check(later, &second, SPI, NONCE, from()));
        assert!(cookies.check(later, &third, SPI, NONCE, from()));
    }

    #[test]
    fn the_same_secret_serves_until_its_time_is_over() {
        let begin = start();
        let (mut cookies, mut random, cookie) = first_cookie(begin);
        let last = begin + ROTATION - Duration::from_nanos(1);
        assert_eq!(cookies.make(last, &mut random, SPI, NONCE, from()), Ok(cookie));
    }

    #[test]
    fn an_old_cookie_is_refused_though_no_new_secret_was_made() {
        let begin = start();
        let (cookies, _, cookie) = first_cookie(begin);
        let end = begin + ROTATION * 2;
        assert!(cookies.check(end - Duration::from_nanos(1), &cookie, SPI, NONCE, from()));
        assert!(!cookies.check(end, &cookie, SPI, NONCE, from()));
    }

    #[test]
    fn without_a_secret_no_cookie_is_right() {
        assert!(!Cookies::default().check(start(), &[0; LENGTH], SPI, NONCE, from()));
    }
}
