//! A network that loses, repeats, delays and reorders, and may translate addresses.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::SeededRandom;
use crate::io::Path;
use crate::time::after;

/// How bad the network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Percentage of datagrams that vanish.
    pub loss: u64,
    /// Percentage of datagrams that arrive twice.
    pub duplication: u64,
    /// Percentage of datagrams that are held back by up to a second, and so overtaken.
    pub reordering: u64,
    /// Percentage of datagrams with an octet changed.
    pub corruption: u64,
}

/// A datagram under way.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) octets: Vec<u8>,
}

/// A translator that hides some addresses behind another.
#[derive(Debug)]
struct Nat {
    inside: BTreeSet<IpAddr>,
    outside: IpAddr,
    mappings: BTreeMap<SocketAddr, Mapping>,
    next_port: u16,
    /// How long a mapping lasts after the last packet from inside.
    lifetime: Duration,
}

/// What a translator makes of an inner address and port.
#[derive(Debug)]
struct Mapping {
    outside: u16,
    until: Instant,
}

/// What is under way.
#[derive(Debug)]
pub struct Network {
    faults: Faults,
    nat: Option<Nat>,
    /// Addresses that nothing reaches, and from which nothing comes.
    dead: BTreeSet<IpAddr>,
    random: SeededRandom,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    sequence: u64,
}

impl Network {
    /// A network with the faults that a seed gives.
    #[must_use]
    pub const fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            nat: None,
            dead: BTreeSet::new(),
            random: SeededRandom::new(seed),
            under_way: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Hides `inside` behind `outside` from now on, for ever.
    pub fn translate(&mut self, inside: IpAddr, outside: IpAddr) {
        self.translate_for(inside, outside, Duration::from_secs(1_000_000));
    }

    /// The same, by mappings that are forgotten when nothing is sent from inside for so long.
    pub fn translate_for(&mut self, inside: IpAddr, outside: IpAddr, lifetime: Duration) {
        let (inside, mappings) = (BTreeSet::from([inside]), BTreeMap::new());
        self.nat = Some(Nat { inside, outside, mappings, next_port: 40_000, lifetime });
    }

    /// Hides this one behind the same address, if any is hidden.
    pub fn translate_too(&mut self, inside: IpAddr) {
        if let Some(nat) = &mut self.nat {
            nat.inside.insert(inside);
        }
    }

    /// Nothing reaches this address any more, nor comes from it.
    pub fn cut_off(&mut self, address: IpAddr) {
        self.dead.insert(address);
    }

    /// It is reached again.
    pub fn connect(&mut self, address: IpAddr) {
        self.dead.remove(&address);
    }

    /// The translator forgets its mappings, as if it had been started anew: what comes from inside
    /// next comes by another port. With an address it is found there from now on.
    pub fn rebind(&mut self, outside: Option<IpAddr>) {
        if let Some(nat) = &mut self.nat {
            nat.mappings.clear();
            nat.outside = outside.unwrap_or(nat.outside);
        }
    }

    /// Where a packet from somewhere to somewhere arrives, and from where it seems to come.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> (SocketAddr, SocketAddr) {
        let from = self.translate_out(now, from);
        let mut datagram = Datagram { from, to, octets: Vec::new() };
        self.translate_in(now, &mut datagram);
        (datagram.from, datagram.to)
    }

    /// A keepalive: it may be lost, and ends at the receiver's edge.
    pub(super) fn keep_alive(&mut self, now: Instant, path: Path) {
        if !self.random.percent(self.faults.loss) {
            self.translate_out(now, path.local);
        }
    }

    /// Changes how bad the network is.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(super) fn send(&mut self, now: Instant, path: Path, octets: Vec<u8>) {
        let from = self.translate_out(now, path.local);
        let mut datagram = Datagram { from, to: path.remote, octets };
        if [path.local.ip(), path.remote.ip()].iter().any(|end| self.dead.contains(end)) {
            return;
        }
        if self.random.percent(self.faults.loss) {
            return;
        }
        if self.random.percent(self.faults.corruption) {
            let length = u64::try_from(datagram.octets.len()).unwrap_or(0);
            let at = usize::try_from(self.random.below(length)).unwrap_or(0);
            if let Some(octet) = datagram.octets.get_mut(at) {
                *octet ^= 0x55;
            }
        }
        let copies = if self.random.percent(self.faults.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let held = if self.random.percent(self.faults.reordering) {
                self.random.below(1000)
            } else {
                0
            };
            let delay =
                Duration::from_millis(held.saturating_add(10).saturating_add(self.random.below(5)));
            self.sequence = self.sequence.saturating_add(1);
            self.under_way.insert((after(now, delay), self.sequence), datagram.clone());
        }
    }

    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        let key = *self.under_way.keys().next()?;
        if key.0 > now {
            return None;
        }
        let mut datagram = self.under_way.remove(&key)?;
        self.translate_in(now, &mut datagram);
        Some(datagram)
    }

    /// Datagrams under way to an address.
    pub(super) fn under_way_to(&self, to: IpAddr) -> usize {
        self.under_way.values().filter(|d| d.to.ip() == to).count()
    }

    /// Takes the one out that was sent to an address first.
    pub(super) fn take_first(&mut self, to: IpAddr) -> Option<Datagram> {
        let of_this = self.under_way.iter().filter(|(_, d)| d.to.ip() == to);
        let key = of_this.map(|(key, _)| *key).min_by_key(|(_, sequence)| *sequence)?;
        self.under_way.remove(&key)
    }

    fn translate_out(&mut self, now: Instant, from: SocketAddr) -> SocketAddr {
        let Some(nat) = &mut self.nat else { return from };
        if !nat.inside.contains(&from.ip()) {
            return from;
        }
        let until = after(now, nat.lifetime);
        let kept = nat.mappings.get(&from).filter(|m| now <= m.until).map(|m| m.outside);
        let outside = kept.unwrap_or_else(|| {
            nat.next_port = nat.next_port.saturating_add(1);
            nat.next_port
        });
        nat.mappings.insert(from, Mapping { outside, until });
        SocketAddr::new(nat.outside, outside)
    }

    fn translate_in(&self, now: Instant, datagram: &mut Datagram) {
        let Some(nat) = &self.nat else { return };
        let port = datagram.to.port();
        if datagram.to.ip() == nat.outside
            && let Some((inner, _)) =
                nat.mappings.iter().find(|(_, m)| m.outside == port && now <= m.until)
        {
            datagram.to = *inner;
        }
    }
}
