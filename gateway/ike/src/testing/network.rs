//! A network that loses, repeats, delays and reorders, and may translate addresses.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
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

/// A translator that hides one address behind another.
#[derive(Debug)]
struct Nat {
    inside: IpAddr,
    outside: IpAddr,
    ports: BTreeMap<u16, u16>,
    next_port: u16,
}

/// What is under way.
#[derive(Debug)]
pub struct Network {
    faults: Faults,
    nat: Option<Nat>,
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
            random: SeededRandom::new(seed),
            under_way: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Hides `inside` behind `outside` from now on.
    pub fn translate(&mut self, inside: IpAddr, outside: IpAddr) {
        self.nat = Some(Nat { inside, outside, ports: BTreeMap::new(), next_port: 40_000 });
    }

    /// Changes how bad the network is.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(super) fn send(&mut self, now: Instant, path: Path, octets: Vec<u8>) {
        let mut datagram = Datagram { from: path.local, to: path.remote, octets };
        self.translate_out(&mut datagram);
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
        self.translate_in(&mut datagram);
        Some(datagram)
    }

    fn translate_out(&mut self, datagram: &mut Datagram) {
        let Some(nat) = &mut self.nat else { return };
        if datagram.from.ip() == nat.inside {
            let port = datagram.from.port();
            let mapped = *nat.ports.entry(port).or_insert_with(|| {
                nat.next_port = nat.next_port.saturating_add(1);
                nat.next_port
            });
            datagram.from = SocketAddr::new(nat.outside, mapped);
        }
    }

    fn translate_in(&self, datagram: &mut Datagram) {
        let Some(nat) = &self.nat else { return };
        if datagram.to.ip() == nat.outside
            && let Some((inner, _)) =
                nat.ports.iter().find(|(_, mapped)| **mapped == datagram.to.port())
        {
            datagram.to = SocketAddr::new(nat.inside, *inner);
        }
    }
}
