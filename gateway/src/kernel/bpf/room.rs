//! How much room the maps have that grow by what peers do.

use std::fs;
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, IterableMap as _, LpmTrie, Map, MapData, MapError};
use gateway_common::{Address, SaKey, SaValue, map, room};
use gateway_ike::config::EndpointConfig;

use super::attach::pin_error;
use super::error::BpfError;
use super::outer::ON_DEMAND;
use super::pins::has_layout;

/// Of the addresses with SPIs that a Child SA has, in [`map::SAS`] and [`map::ELSEWHERE`]: two, and
/// four while it is rekeyed.
const SAS_EACH: u32 = 4;
/// Of its remote prefixes, in [`map::MTUS`].
const MTUS_EACH: u32 = 2;

/// How many entries the maps have room for that grow by what peers do; never less than the programs
/// declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of [`map::SAS`] and [`map::ELSEWHERE`]. The kernel takes 16 octets for each of them at once,
    /// of which it makes a power of two, and the rest as it is needed.
    pub(super) sas: u32,
    /// Of [`map::MTUS`], of which each takes memory when it is there.
    pub(super) mtus: u32,
}

impl Room {
    /// Enough for one Child SA on each IKE SA, or for all that one peer may have. Both at their most
    /// for all peers at once would be more than any kernel has memory for.
    #[must_use]
    pub fn of(limits: &EndpointConfig) -> Self {
        let children = limits.ike_sa_limit.max(limits.peer_child_sa_limit);
        let children = u32::try_from(children).unwrap_or(u32::MAX);
        let least = Self::default();
        Self {
            sas: children.saturating_mul(SAS_EACH).max(least.sas),
            mtus: children.saturating_mul(MTUS_EACH).max(least.mtus),
        }
    }
}

/// What the programs declare.
impl Default for Room {
    fn default() -> Self {
        let [sas, mtus] = [room::SAS, room::MTUS].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Self { sas, mtus }
    }
}

/// How many entries a map has room for.
pub(super) fn of_map(map: &MapData) -> usize {
    map.info().map_or(0, |info| usize::try_from(info.max_entries()).unwrap_or(usize::MAX))
}

/// Has what an earlier run with lower limits has pinned replaced by maps with so much room, and with
/// the same in them: programs that are attached still go on with theirs, and those that come after
/// them find every SA. What has more room stays as it is, since nobody knows that it would do with
/// less.
pub(super) fn make_in(pin_dir: &Path, room: Room) -> Result<(), BpfError> {
    grow_hash::<SaKey, SaValue>(pin_dir, map::SAS, room.sas)?;
    grow_hash::<SaKey, Address>(pin_dir, map::ELSEWHERE, room.sas)?;
    let Some(old) = smaller::<Key<Address>, u32>(pin_dir, map::MTUS, room.mtus)? else {
        return Ok(());
    };
    let copy = || {
        let old = LpmTrie::<_, Address, u32>::try_from(Map::LpmTrie(old))?;
        let mut new = LpmTrie::<MapData, Address, u32>::create(room.mtus, ON_DEMAND)?;
        for entry in old.iter() {
            let (key, value) = entry?;
            new.insert(&key, value, 0)?;
        }
        Ok(new)
    };
    put(pin_dir, map::MTUS, copy().map_err(failed)?.map())
}

fn grow_hash<K: aya::Pod, V: aya::Pod>(
    pin_dir: &Path,
    name: &str,
    room: u32,
) -> Result<(), BpfError> {
    let Some(old) = smaller::<K, V>(pin_dir, name, room)? else { return Ok(()) };
    let copy = || {
        let old = HashMap::<_, K, V>::try_from(Map::HashMap(old))?;
        let mut new = HashMap::<MapData, K, V>::create(room, ON_DEMAND)?;
        for entry in old.iter() {
            let (key, value) = entry?;
            new.insert(key, value, 0)?;
        }
        Ok(new)
    };
    put(pin_dir, name, copy().map_err(failed)?.map())
}

/// What is pinned under this name, if it has less room. What has another layout is no map of ours:
/// [`check_layout`](super::pins::check_layout) says so.
fn smaller<K, V>(pin_dir: &Path, name: &str, room: u32) -> Result<Option<MapData>, BpfError> {
    let path = pin_dir.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let old = MapData::from_pin(&path).map_err(failed)?;
    let info = old.info().map_err(failed)?;
    let is_ours = has_layout(&info, size_of::<K>(), size_of::<V>());
    Ok((is_ours && info.max_entries() < room).then_some(old))
}

/// Pins a map in the place of the one that is there, in one step: whoever looks finds one of them.
fn put(pin_dir: &Path, name: &str, map: &MapData) -> Result<(), BpfError> {
    let (path, aside) = (pin_dir.join(name), pin_dir.join(beside(name)));
    // Of a run that was stopped at this place.
    let _absent = fs::remove_file(&aside);
    map.pin(&aside).map_err(|error| BpfError::kernel("a BPF map cannot be pinned", &error))?;
    fs::rename(&aside, &path).map_err(|error| pin_error(&path, error))
}

/// Where a map is pinned before it takes the place of another; bpffs takes no dots.
pub(super) fn beside(name: &str) -> String {
    format!("{name}_NEW")
}

fn failed(error: MapError) -> BpfError {
    BpfError::kernel("a BPF map cannot be replaced by one with more room", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_have_room_for_what_the_limits_permit_and_never_less_than_the_programs_declare() {
        let room = |ike_sa_limit, peer_child_sa_limit| {
            let limits =
                EndpointConfig { ike_sa_limit, peer_child_sa_limit, ..EndpointConfig::default() };
            let Room { sas, mtus } = Room::of(&limits);
            (sas, mtus)
        };
        let least = (262_144, 131_072);
        let default = Room::of(&EndpointConfig::default());
        assert_eq!((default.sas, default.mtus), least);
        assert_eq!(default, Room::default());
        assert_eq!(room(1, 1), least);
        assert_eq!(room(65_537, 1024), (262_148, 131_074));
        assert_eq!(room(1_000_000, 1024), (4_000_000, 2_000_000));
        assert_eq!(room(65_536, 1_000_000), (4_000_000, 2_000_000));
    }
}
