//! Stateless cookies for IKE_SA_INIT (RFC 7296 2.6): proof that the initiator receives what we
//! send to its address, before we spend memory or a key exchange on it. What a cookie is, and what
//! it proves, is said in [`gateway_common::CookieSecret`]: a program in front of us may make the
//! same ones.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::time::Instant;

use gateway_common::{Address, Cookie, CookieSecret, Initiator};
use gateway_wire::IkeSpi;
use zeroize::Zeroizing;

use crate::crypto::prf::equal;
use crate::random::{Random, RandomFailed};
use crate::time::after;

/// How long a secret makes cookies; it accepts them for as long again.
const ROTATION: Duration = Duration::from_secs(60);

/// A secret with its version.
struct Secret {
    version: u32,
    key: Zeroizing<[u64; 2]>,
    until: Instant,
}

impl Secret {
    fn cookie(&self, spi: IkeSpi, from: SocketAddr) -> [u8; Cookie::LENGTH] {
        let address = match from.ip() {
            IpAddr::V4(ip) => Address::v4(ip.octets()),
            IpAddr::V6(ip) => Address::v6(ip.octets()),
        };
        self.shared().cookie(&Initiator::new(address, from.port(), spi.0)).octets()
    }

    fn shared(&self) -> CookieSecret {
        CookieSecret { key: *self.key, version: self.version, zero: 0 }
    }
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
        from: SocketAddr,
    ) -> Result<[u8; Cookie::LENGTH], RandomFailed> {
        self.renew(now, random)?;
        self.current.as_ref().map(|s| s.cookie(spi, from)).ok_or(RandomFailed)
    }

    /// Makes a secret if one is due.
    ///
    /// # Errors
    /// [`RandomFailed`]; the old one stays.
    pub(crate) fn renew(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<(), RandomFailed> {
        if self.due().is_some_and(|due| now < due) {
            return Ok(());
        }
        let mut halves = Zeroizing::new([[0; 8]; 2]);
        halves.iter_mut().try_for_each(|half| random.fill(half))?;
        let key = Zeroizing::new(halves.map(u64::from_ne_bytes));
        // Zero is no version.
        let version = self.current.as_ref().map_or(1, |s| s.version.wrapping_add(1).max(1));
        let fresh = Secret { version, key, until: after(now, ROTATION) };
        self.previous = self.current.replace(fresh);
        Ok(())
    }

    /// When the next secret is due; `None` while there is none.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.current.as_ref().map(|secret| secret.until)
    }

    /// The secrets for somebody else who makes and accepts the same cookies, the current one first;
    /// `None` while there is none.
    pub(crate) fn shared(&self) -> Option<[CookieSecret; 2]> {
        let current = self.current.as_ref()?.shared();
        Some([current, self.previous.as_ref().map(Secret::shared).unwrap_or_default()])
    }

    /// Whether a returned cookie is one of ours for this very initiator, and recent.
    pub(crate) fn check(
        &self,
        now: Instant,
        returned: &[u8],
        spi: IkeSpi,
        from: SocketAddr,
    ) -> bool {
        let recent = |s: &&Secret| now < after(s.until, ROTATION);
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(recent)
            .any(|s| equal(&s.cookie(spi, from), returned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeededRandom;
    use crate::time::start;

    const SPI: IkeSpi = IkeSpi([3; 8]);
    const LENGTH: usize = Cookie::LENGTH;

    /// Cookies whose first secret is made now, with a cookie of it.
    fn first_cookie(now: Instant) -> (Cookies, SeededRandom, [u8; LENGTH]) {
        let (mut cookies, mut random) = (Cookies::default(), SeededRandom::new(1));
        let cookie = cookies.make(now, &mut random, SPI, from()).unwrap();
        (cookies, random, cookie)
    }

    fn from() -> SocketAddr {
        "192.0.2.1:500".parse().unwrap()
    }

    #[test]
    fn the_right_cookie_is_accepted() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        assert!(cookies.check(now, &cookie, SPI, from()));
        // The mapped form of an address is the address itself, as sockets of both kinds show it.
        let mapped = "[::ffff:192.0.2.1]:500".parse().unwrap();
        assert!(cookies.check(now, &cookie, SPI, mapped));
    }

    #[test]
    fn a_cookie_with_any_octet_changed_or_of_another_length_is_refused() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        for at in 0..LENGTH {
            let mut wrong = cookie;
            wrong[at] ^= 0x80;
            assert!(!cookies.check(now, &wrong, SPI, from()), "octet {at}");
        }
        let longer = [cookie.as_slice(), &[0]].concat();
        for wrong in [&[][..], &cookie[..1], &cookie[..LENGTH - 1], &longer] {
            assert!(!cookies.check(now, wrong, SPI, from()));
        }
    }

    #[test]
    fn a_cookie_is_good_for_one_initiator_only() {
        let now = start();
        let (cookies, _, cookie) = first_cookie(now);
        let other = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(!cookies.check(now, &cookie, IkeSpi([9; 8]), from()));
        assert!(!cookies.check(now, &cookie, SPI, other("192.0.2.1:501")));
        assert!(!cookies.check(now, &cookie, SPI, other("192.0.2.2:500")));
        assert!(!cookies.check(now, &cookie, SPI, other("[2001:db8::1]:500")));
    }

    #[test]
    fn a_cookie_outlives_one_new_secret_but_not_two() {
        let begin = start();
        let (mut cookies, mut random, cookie) = first_cookie(begin);
        let mut renewed_at = |cookies: &mut Cookies, after_start| {
            cookies.make(begin + after_start, &mut random, SPI, from()).unwrap()
        };
        let later = begin + ROTATION;
        let second = renewed_at(&mut cookies, ROTATION);
        assert_ne!(second, cookie);
        assert!(cookies.check(later, &cookie, SPI, from()));
        assert!(cookies.check(later, &second, SPI, from()));
        let third = renewed_at(&mut cookies, ROTATION * 2);
        let later = begin + ROTATION * 2;
        // Told apart by the secret, not only by the clock.
        for at in [begin, later] {
            assert!(!cookies.check(at, &cookie, SPI, from()));
        }
        assert!(cookies.check(later, &second, SPI, from()));
        assert!(cookies.check(later, &third, SPI, from()));
    }

    #[test]
    fn the_same_secret_serves_until_its_time_is_over() {
        let begin = start();
        let (mut cookies, mut random, cookie) = first_cookie(begin);
        let last = begin + ROTATION - Duration::from_nanos(1);
        assert_eq!(cookies.make(last, &mut random, SPI, from()), Ok(cookie));
    }

    #[test]
    fn an_old_cookie_is_refused_though_no_new_secret_was_made() {
        let begin = start();
        let (cookies, _, cookie) = first_cookie(begin);
        let end = begin + ROTATION * 2;
        assert!(cookies.check(end - Duration::from_nanos(1), &cookie, SPI, from()));
        assert!(!cookies.check(end, &cookie, SPI, from()));
    }

    #[test]
    fn without_a_secret_no_cookie_is_right() {
        assert!(!Cookies::default().check(start(), &[0; LENGTH], SPI, from()));
    }

    #[test]
    fn who_shares_the_secrets_makes_and_accepts_the_same_cookies() {
        let now = start();
        assert_eq!(Cookies::default().shared(), None);
        let (mut cookies, mut random, cookie) = first_cookie(now);
        let initiator = Initiator::new(Address::v4([192, 0, 2, 1]), 500, SPI.0);
        let theirs = |secret: CookieSecret| secret.cookie(&initiator).octets();
        let [first, none] = cookies.shared().unwrap();
        assert_eq!((theirs(first), none.version), (cookie, 0));
        let later = now + ROTATION;
        assert_eq!(cookies.due(), Some(later));
        cookies.renew(later, &mut random).unwrap();
        let [second, before] = cookies.shared().unwrap();
        assert_eq!((before, second.version), (first, 2));
        assert!(cookies.check(later, &theirs(second), SPI, from()));
        assert!(cookies.check(later, &theirs(before), SPI, from()));
    }
}
