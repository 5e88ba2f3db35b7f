//! Which CPU handles what an inbound SA brings.
//!
//! By itself the kernel decrypts a packet on the CPU that its network card has interrupted, which for
//! all SAs of one peer is mostly the same. The daemon gives each SA the CPU that has the fewest, for
//! as long as the SA lives, so that its packets stay in order; the next SA after rekeying follows it
//! there, since both stand for a while, and together they would push others off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::{CpuMap, MapData, MapError};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::error::chain;

/// Packets that wait for a CPU before the kernel drops those that follow: four times what it lets a
/// CPU take from all network cards at once (`net.core.netdev_max_backlog` is 1000).
const QUEUE: u32 = 4096;

/// Why no SA has a CPU of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSteered {
    /// The operator wants none to have.
    #[error("steer-cpus = false")]
    NotWanted,
    /// There is nothing to choose from.
    #[error("the gateway may run on one CPU only")]
    OneCpu,
    /// The kernel does not say on which CPUs the gateway may run.
    #[error("the CPUs cannot be listed: {0}")]
    Unknown(nix::Error),
    /// The kernel has a CPU take no packets.
    #[error("CPU {cpu} cannot take packets: {why}")]
    Refused {
        /// The CPU.
        cpu: u32,
        /// The kernel's words.
        why: String,
    },
}

/// The CPUs among which inbound SAs are spread.
#[derive(Debug)]
pub(super) struct Cpus {
    /// Each with how many SAs it has.
    cpus: Result<Vec<(u32, usize)>, NotSteered>,
    /// By the SPI, the place of its CPU among them, and the addresses at which the SA is reached.
    chosen: BTreeMap<u32, (usize, BTreeSet<IpAddr>)>,
    /// The SPI of an SA that is about to come, and the place of the one that it replaces.
    heir: Option<(u32, usize)>,
}

impl Cpus {
    /// Has those CPUs take packets on which the gateway may run: what keeps it from others (isolated
    /// CPUs, a cpuset, `CPUAffinity=` of systemd) keeps the work for its packets from them, too.
    pub(super) fn set_up(map: &mut CpuMap<&mut MapData>, wanted: bool) -> Self {
        Self::of(if wanted { take_part(map) } else { Err(NotSteered::NotWanted) })
    }

    fn of(cpus: Result<Vec<u32>, NotSteered>) -> Self {
        let with_none = |cpus: Vec<u32>| cpus.into_iter().map(|cpu| (cpu, 0)).collect();
        Self { cpus: cpus.map(with_none), chosen: BTreeMap::new(), heir: None }
    }

    /// How many there are, or why none.
    pub(super) fn count(&self) -> Result<usize, NotSteered> {
        self.cpus.as_ref().map(Vec::len).map_err(Clone::clone)
    }

    /// An SA is about to come in the place of another, by their SPIs.
    pub(super) fn follow(&mut self, old: u32, new: u32) {
        self.heir = self.chosen.get(&old).map(|(place, _)| (new, *place));
    }

    /// The CPU of an inbound SA that is reached at this address: the same at each, and while it
    /// lives.
    pub(super) fn choose(&mut self, destination: IpAddr, spi: u32) -> Option<u32> {
        let cpus = self.cpus.as_mut().ok()?;
        let place = match self.chosen.get_mut(&spi) {
            Some((place, destinations)) => {
                destinations.insert(destination);
                *place
            }
            None => {
                let inherited = self.heir.take_if(|(heir, _)| *heir == spi).map(|(_, place)| place);
                let with_fewest = || {
                    let all = cpus.iter().enumerate();
                    all.min_by_key(|(_, (_, sas))| *sas).map(|(place, _)| place)
                };
                let place = inherited.or_else(with_fewest)?;
                let (_, sas) = cpus.get_mut(place)?;
                *sas = sas.saturating_add(1);
                self.chosen.insert(spi, (place, BTreeSet::from([destination])));
                place
            }
        };
        cpus.get(place).map(|(cpu, _)| *cpu)
    }

    /// The SA is not reached at this address any more.
    pub(super) fn release(&mut self, destination: IpAddr, spi: u32) {
        let Some((place, destinations)) = self.chosen.get_mut(&spi) else { return };
        destinations.remove(&destination);
        if !destinations.is_empty() {
            return;
        }
        if let Ok(cpus) = &mut self.cpus
            && let Some((_, sas)) = cpus.get_mut(*place)
        {
            *sas = sas.saturating_sub(1);
        }
        self.chosen.remove(&spi);
    }
}

fn take_part(map: &mut CpuMap<&mut MapData>) -> Result<Vec<u32>, NotSteered> {
    let may = sched_getaffinity(Pid::from_raw(0)).map_err(NotSteered::Unknown)?;
    let may = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| may.is_set(cpu) == Ok(true));
    let limit = u32::try_from(CpuSet::count()).unwrap_or(u32::MAX).min(map.len());
    let cpus: Vec<u32> = (0..limit).filter(may).collect();
    if cpus.len() < 2 {
        return Err(NotSteered::OneCpu);
    }
    for cpu in &cpus {
        let refused = |why| NotSteered::Refused { cpu: *cpu, why };
        match map.get(*cpu, 0) {
            // Of an earlier run: another queue in its place could overtake what waits in this one.
            Ok(_queue) => {}
            Err(MapError::KeyNotFound) => {
                map.set(*cpu, QUEUE, None, 0).map_err(|error| refused(chain(&error)))?;
            }
            Err(error) => return Err(refused(chain(&error))),
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V6(core::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn each_sa_has_the_cpu_with_the_fewest_and_keeps_it_while_it_is_reached() {
        let mut cpus = Cpus::of(Ok(vec![1, 3, 6]));
        assert_eq!(cpus.count(), Ok(3));
        let of_four = [10, 11, 12, 13].map(|spi| cpus.choose(ONE, spi));
        assert_eq!(of_four, [1, 3, 6, 1].map(Some));
        assert_eq!(cpus.choose(OTHER, 11), Some(3), "the same at another address");
        assert_eq!(cpus.choose(ONE, 11), Some(3), "and when it is told again");
        cpus.release(ONE, 11);
        cpus.release(ONE, 11);
        assert_eq!(cpus.choose(OTHER, 11), Some(3), "it has moved");
        assert_eq!(cpus.choose(ONE, 14), Some(3), "it counts once");
        assert_eq!(cpus.choose(ONE, 15), Some(6));
        cpus.release(ONE, 12);
        cpus.release(ONE, 15);
        cpus.release(ONE, 99);
        assert_eq!(cpus.choose(ONE, 16), Some(6), "they are gone");
        assert_eq!(cpus.choose(ONE, 17), Some(6));
    }

    #[test]
    fn the_next_sa_follows_the_one_that_it_replaces() {
        let mut cpus = Cpus::of(Ok(vec![0, 1]));
        assert_eq!([10, 11].map(|spi| cpus.choose(ONE, spi)), [Some(0), Some(1)]);
        let rekeyed = |cpus: &mut Cpus, old, new| {
            cpus.follow(old, new);
            let cpu = cpus.choose(ONE, new);
            cpus.release(ONE, old);
            cpu
        };
        // The other one's CPU has no more at that moment.
        assert_eq!(rekeyed(&mut cpus, 11, 21), Some(1));
        assert_eq!(rekeyed(&mut cpus, 21, 31), Some(1));
        assert_eq!(rekeyed(&mut cpus, 10, 20), Some(0));
        // One that never comes leaves its place to nobody, nor one of which nothing is known.
        cpus.follow(20, 30);
        assert_eq!(cpus.choose(ONE, 12), Some(0), "the first of two with as many");
        assert_eq!(cpus.choose(ONE, 13), Some(1));
        assert_eq!(rekeyed(&mut cpus, 99, 14), Some(0));
    }

    #[test]
    fn no_sa_has_a_cpu_where_none_is_to_be_steered() {
        let mut cpus = Cpus::of(Err(NotSteered::OneCpu));
        assert_eq!(cpus.choose(ONE, 1), None);
        cpus.release(ONE, 1);
        assert_eq!(cpus.count(), Err(NotSteered::OneCpu));
    }
}
