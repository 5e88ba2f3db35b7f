//! IKE SAs that we answered and nobody has authenticated on yet: which there are, and how many
//! one address has.
//!
//! Whoever can send from an address can make as many as its limit; whoever cannot must not be able
//! to use up what is another's. So the limit comes in two steps (RFC 7296 2.6). While an address has
//! fewer than its limit, requests are answered as they come: these may be forged. From the limit on
//! each request must return a cookie, which only the address itself gets. Those that did are counted
//! apart, and only when *they* reach the limit are requests dropped. A forger costs an address
//! a cookie, one round trip, and never its place; an address has twice its limit at most. That
//! is less than it seems: from `cookie_threshold` on everybody must return a cookie.
//!
//! Whoever has many addresses must not keep out those with few: when there is no room for more, who
//! has returned a cookie takes the place of the oldest of the network that has most. That is a /48
//! of IPv6, which is what one customer may get (RFC 6177 2).

use core::cmp::Reverse;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::io::{IkeSaId, Path};
use crate::shared::Digest;

/// By its request and the path of that a half-open IKE SA is found again.
pub(super) type Key = (Digest, Path);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HalfOpenSas {
    sas: BTreeMap<Key, HalfOpenSa>,
    networks: BTreeMap<IpAddr, OfNetwork>,
    /// By address, or /48 of IPv6, the oldest first.
    sites: BTreeMap<IpAddr, BTreeSet<IkeSaId>>,
}

#[derive(Debug)]
struct HalfOpenSa {
    id: IkeSaId,
    /// Whether its initiator has returned a cookie.
    shown: bool,
}

/// How many half-open IKE SAs one address has, or one /64 of IPv6.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct OfNetwork {
    /// All of them, some of which others may have forged.
    pub(super) all: usize,
    /// Those whose initiator has returned a cookie.
    pub(super) shown: usize,
}

impl HalfOpenSas {
    pub(super) fn len(&self) -> usize {
        self.sas.len()
    }

    /// Whether nothing is left of any.
    pub(super) fn is_empty(&self) -> bool {
        self.sas.is_empty() && self.networks.is_empty() && self.sites.is_empty()
    }

    /// The one that the very same request has made.
    pub(super) fn get(&self, key: &Key) -> Option<IkeSaId> {
        self.sas.get(key).map(|sa| sa.id)
    }

    /// How many the network of an address has.
    pub(super) fn of_network(&self, address: IpAddr) -> OfNetwork {
        self.networks.get(&network_of(address)).copied().unwrap_or_default()
    }

    /// One more; `shown`: its initiator has returned a cookie.
    pub(super) fn insert(&mut self, key: Key, id: IkeSaId, shown: bool) {
        let network = network_of(key.1.remote.ip());
        self.remove(&key);
        self.sites.entry(site_of(key.1.remote.ip())).or_default().insert(id);
        self.sas.insert(key, HalfOpenSa { id, shown });
        let of_network = self.networks.entry(network).or_default();
        of_network.all = of_network.all.saturating_add(1);
        of_network.shown = of_network.shown.saturating_add(usize::from(shown));
    }

    /// Whose place is taken when there is no room: see the module.
    pub(super) fn to_displace(&self) -> Option<IkeSaId> {
        let oldest = |ids: &BTreeSet<IkeSaId>| ids.first().copied();
        let largest = self.sites.values().max_by_key(|ids| (ids.len(), Reverse(oldest(ids))));
        largest.and_then(oldest)
    }

    /// One is half-open no longer.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(removed) = self.sas.remove(key) else { return };
        let site = site_of(key.1.remote.ip());
        if let Some(ids) = self.sites.get_mut(&site) {
            ids.remove(&removed.id);
            if ids.is_empty() {
                self.sites.remove(&site);
            }
        }
        let network = network_of(key.1.remote.ip());
        if let Some(of_network) = self.networks.get_mut(&network) {
            of_network.all = of_network.all.saturating_sub(1);
            of_network.shown = of_network.shown.saturating_sub(usize::from(removed.shown));
            if of_network.all == 0 {
                self.networks.remove(&network);
            }
        }
    }
}

/// What one host surely has at hand: an address, or the /64 of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    prefix(address, !(u128::MAX >> 64))
}

/// What one customer may have at hand: an address, or the /48 of an IPv6 address.
fn site_of(address: IpAddr) -> IpAddr {
    prefix(address, !(u128::MAX >> 48))
}

fn prefix(address: IpAddr, mask_of_v6: u128) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & mask_of_v6).into()),
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;

    fn key(number: u8, from: &str) -> Key {
        let local = SocketAddr::new([192, 0, 2, 2].into(), 500);
        let remote = SocketAddr::new(from.parse().unwrap(), 500);
        ([number; 20], Path { local, remote })
    }

    fn count(sas: &HalfOpenSas, address: &str) -> (usize, usize) {
        let of_network = sas.of_network(address.parse().unwrap());
        (of_network.all, of_network.shown)
    }

    #[test]
    fn an_address_has_its_own_and_a_64_shares_them() {
        let mut sas = HalfOpenSas::default();
        sas.insert(key(1, "192.0.2.1"), IkeSaId(1), false);
        sas.insert(key(2, "192.0.2.1"), IkeSaId(2), true);
        sas.insert(key(3, "192.0.2.3"), IkeSaId(3), true);
        sas.insert(key(4, "2001:db8::1"), IkeSaId(4), true);
        sas.insert(key(5, "2001:db8::ffff:0:0:1"), IkeSaId(5), false);
        sas.insert(key(6, "2001:db8:0:1::1"), IkeSaId(6), false);
        assert_eq!(count(&sas, "192.0.2.1"), (2, 1));
        assert_eq!(count(&sas, "192.0.2.3"), (1, 1));
        assert_eq!(count(&sas, "192.0.2.4"), (0, 0));
        assert_eq!(count(&sas, "2001:db8::"), (2, 1));
        assert_eq!(count(&sas, "2001:db8:0:1::2"), (1, 0));
        assert_eq!((sas.len(), sas.get(&key(3, "192.0.2.3"))), (6, Some(IkeSaId(3))));
        assert_eq!(sas.get(&key(3, "192.0.2.1")), None);
    }

    #[test]
    fn the_oldest_of_the_largest_site_gives_way() {
        let mut sas = HalfOpenSas::default();
        assert_eq!(sas.to_displace(), None);
        sas.insert(key(1, "192.0.2.1"), IkeSaId(1), true);
        sas.insert(key(2, "2001:db8:1:1::1"), IkeSaId(2), true);
        assert_eq!(sas.to_displace(), Some(IkeSaId(1)), "of equals the oldest of all");
        // Two /64 of one /48, and one of another.
        sas.insert(key(3, "2001:db8:1:2::1"), IkeSaId(3), true);
        sas.insert(key(4, "2001:db8:2:1::1"), IkeSaId(4), true);
        assert_eq!(sas.to_displace(), Some(IkeSaId(2)));
        sas.remove(&key(2, "2001:db8:1:1::1"));
        sas.insert(key(5, "192.0.2.1"), IkeSaId(5), true);
        sas.insert(key(6, "192.0.2.2"), IkeSaId(6), true);
        assert_eq!(sas.to_displace(), Some(IkeSaId(1)));
    }

    #[test]
    fn what_goes_leaves_nothing_and_goes_once() {
        let mut sas = HalfOpenSas::default();
        for number in 1..=3 {
            sas.insert(key(number, "2001:db8::1"), IkeSaId(number.into()), number == 2);
        }
        // The same one again is still one.
        sas.insert(key(3, "2001:db8::1"), IkeSaId(3), true);
        assert_eq!(count(&sas, "2001:db8::1"), (3, 2));
        for _ in 0..2 {
            sas.remove(&key(2, "2001:db8::1"));
            assert_eq!(count(&sas, "2001:db8::1"), (2, 1));
        }
        sas.remove(&key(1, "2001:db8::1"));
        sas.remove(&key(3, "2001:db8::1"));
        assert!(sas.is_empty());
    }
}
