//! The reader of what the programs tell of their decisions. It needs the pinned maps only, and no
//! gateway that runs: what guards after the gateway has ended can be asked too.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use gateway_common::{Hook, Reason, TraceCount, TraceEvent, TraceKey, TraceSettings, Verdict, map};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::attach::pin_error;
use super::error::BpfError;
use super::pins::{LINKS, MAPS};
use super::{check_capabilities, is_absent};

/// How long a wish is good for: who traces renews it well before.
const LEASE: Duration = Duration::from_secs(3);

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Decisions for these reasons.
    pub reasons: Vec<Reason>,
    /// ESP of known SAs too that passes without a reason to count.
    pub passed: bool,
    /// By these rules and of these SAs only; `None` for all.
    pub selected: Option<BTreeSet<TraceKey>>,
    /// The most decisions that a CPU tells in a second or so.
    pub rate: u32,
    /// The most octets of a packet.
    pub octets: u32,
}

/// A decision about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// When, since 1970.
    pub at: Duration,
    /// Why; none for what passed and is not counted.
    pub reason: Option<Reason>,
    /// The CPU.
    pub cpu: u32,
    /// Where on the packet's way.
    pub hook: Hook,
    /// The interface's index.
    pub interface: u32,
    /// The identifier of the rule that decided.
    pub rule: Option<u32>,
    /// The SPI of ESP.
    pub spi: Option<u32>,
    /// Octets of the packet, with its link header.
    pub length: u32,
    /// Whether it begins with an Ethernet header.
    pub ethernet: bool,
    /// Its first octets, as they are after the decision.
    pub packet: Vec<u8>,
}

impl Decided {
    /// What became of the packet.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.reason.map_or(Verdict::Pass, Reason::verdict)
    }
}

/// Reads decisions, as the only one who does.
pub struct Tracer {
    settings: Array<MapData, TraceSettings>,
    wanted: HashMap<MapData, TraceKey, u8>,
    counts: PerCpuArray<MapData, TraceCount>,
    events: AsyncFd<Events>,
    /// From the clock of events to that of the day.
    to_wall: Duration,
    _lock: Flock<File>,
}

/// The ring, with its descriptor for the runtime.
struct Events(RingBuf<MapData>);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Tracer {
    /// Opens the pinned maps; within a runtime. What an earlier reader has left is thrown away.
    ///
    /// # Errors
    /// Capabilities are missing, no programs of this version are pinned there, or somebody else
    /// reads.
    pub fn open(pin_dir: &Path) -> Result<Self, BpfError> {
        check_capabilities()?;
        let links = pin_dir.join(LINKS);
        let nothing = || BpfError::NothingToTrace(pin_dir.to_owned());
        let directory = File::open(&links).map_err(|_absent| nothing())?;
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| {
            let is_traced = errno == Errno::EWOULDBLOCK;
            if is_traced {
                BpfError::Traced(pin_dir.to_owned())
            } else {
                pin_error(&links, errno.into())
            }
        })?;
        let pinned = |name: &'static str| {
            let map = MapData::from_pin(pin_dir.join(name)).map_err(|_absent| nothing())?;
            let info = map.info().map_err(failed)?;
            let sizes = (usize::try_from(info.key_size()), usize::try_from(info.value_size()));
            let is_ours =
                MAPS.iter().any(|(n, key, value)| *n == name && sizes == (Ok(*key), Ok(*value)));
            if is_ours { Ok(map) } else { Err(nothing()) }
        };
        // Programs of another build may have other reasons under the same numbers.
        let reasons = pinned(map::COUNTERS)?.info().map_err(failed)?.max_entries();
        if usize::try_from(reasons) != Ok(Reason::COUNT) {
            return Err(nothing());
        }
        let mut events =
            RingBuf::try_from(Map::RingBuf(pinned(map::TRACE_EVENTS)?)).map_err(failed)?;
        while events.next().is_some() {}
        // SAFETY: it gives the descriptor of the map that it owns, always the same.
        let events = unsafe { AsyncFd::register_with_interest(Events(events), Interest::READABLE) };
        Ok(Self {
            settings: Array::try_from(Map::Array(pinned(map::TRACE_SETTINGS)?)).map_err(failed)?,
            wanted: HashMap::try_from(Map::HashMap(pinned(map::TRACE_WANTED)?)).map_err(failed)?,
            counts: PerCpuArray::try_from(Map::PerCpuArray(pinned(map::TRACE_COUNTS)?))
                .map_err(failed)?,
            events: events.map_err(|error| failed(error.into_parts().1))?,
            to_wall: clock(ClockId::CLOCK_REALTIME)?
                .saturating_sub(clock(ClockId::CLOCK_MONOTONIC)?),
            _lock: lock,
        })
    }

    /// Has the programs tell what is wished, for the next seconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wish(&mut self, wish: &Wish) -> Result<(), BpfError> {
        if let Some(selected) = &wish.selected {
            let known: BTreeSet<TraceKey> = self.wanted.keys().flatten().collect();
            for key in selected.difference(&known) {
                self.wanted.insert(key, 0, 0).map_err(failed)?;
            }
            for key in known.difference(selected) {
                match self.wanted.remove(key) {
                    Err(error) if !is_absent(&error) => return Err(failed(error)),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        let until = clock(ClockId::CLOCK_MONOTONIC)?.saturating_add(LEASE);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let settings = TraceSettings {
            until: u64::try_from(until.as_nanos()).unwrap_or(u64::MAX),
            reasons: mask(&wish.reasons),
            rate: wish.rate,
            octets: wish.octets,
            flags: flag(wish.selected.is_some(), TraceSettings::SELECTED)
                | flag(wish.passed, TraceSettings::PASSED),
            zero: 0,
        };
        self.settings.set(0, settings, 0).map_err(failed)
    }

    /// The next decision. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The ring cannot be waited for.
    pub async fn next(&mut self) -> Result<Decided, BpfError> {
        let to_wall = self.to_wall;
        loop {
            if let Some(decided) = take(&mut self.events.get_mut().0, to_wall) {
                return Ok(decided);
            }
            // Told again only after there was nothing: so the ring is looked at once more.
            self.events.readable_mut().await.map_err(failed)?.clear_ready();
        }
    }

    /// How many decisions were not told, ever: those above the rate, and those for which there
    /// was no room.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn untold(&self) -> Result<(u64, u64), BpfError> {
        let counts = self.counts.get(&0, 0).map_err(failed)?;
        Ok(counts.iter().fold((0_u64, 0_u64), |(over, full), count| {
            (over.wrapping_add(count.over_rate), full.wrapping_add(count.full))
        }))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // If it fails the wish ends by itself.
        let _ends_anyway = self.settings.set(0, TraceSettings::default(), 0);
    }
}

/// The next whole entry.
fn take(events: &mut RingBuf<MapData>, to_wall: Duration) -> Option<Decided> {
    loop {
        let item = events.next()?;
        let Some((event, packet)) = TraceEvent::read(&item) else { continue };
        let Some(hook) = Hook::new(event.hook) else { continue };
        let reason = usize::try_from(event.reason).ok().and_then(|n| Reason::ALL.get(n).copied());
        let has = |flag| event.flags & flag != 0;
        return Some(Decided {
            at: Duration::from_nanos(event.at).saturating_add(to_wall),
            reason,
            cpu: event.cpu,
            hook,
            interface: event.interface,
            rule: has(TraceEvent::HAS_RULE).then_some(event.rule),
            spi: has(TraceEvent::HAS_SPI).then_some(u32::from_be(event.spi)),
            length: event.length,
            ethernet: has(TraceEvent::ETHERNET),
            packet: packet.to_vec(),
        });
    }
}

fn mask(reasons: &[Reason]) -> [u64; 2] {
    let bit = |reason: &Reason| 1_u128.checked_shl(reason.index()).unwrap_or(0);
    let mask = reasons.iter().map(bit).fold(0, |all, one| all | one);
    let half = |half: u128| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0);
    [half(mask), half(mask >> u64::BITS)]
}

fn clock(which: ClockId) -> Result<Duration, BpfError> {
    clock_gettime(which).map(Duration::from).map_err(|errno| failed(io::Error::from(errno)))
}

fn failed(error: impl std::error::Error + 'static) -> BpfError {
    BpfError::kernel("what the BPF programs tell cannot be read", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_bit() {
        const { assert!(Reason::COUNT <= 128, "TraceSettings::reasons has room for no more") };
        for reason in Reason::ALL {
            let [low, high] = mask(&[*reason]);
            assert_eq!(low.count_ones() + high.count_ones(), 1, "{reason:?}");
        }
        let [low, high] = mask(Reason::ALL);
        assert_eq!(usize::try_from(low.count_ones() + high.count_ones()).unwrap(), Reason::COUNT);
    }
}
