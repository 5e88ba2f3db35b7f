//! What is pinned: the directory, the maps and links in it, and how all of that is removed.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{MapData, MapInfo};
use gateway_common::{
    Address, Count, IkeProtection, Reason, Requester, RuleCount, SaKey, SaValue, TraceCount,
    TraceKey, TraceSettings, map,
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::attach::{self, pin_error};
use super::claim::Claim;
use super::error::BpfError;
use super::room;
use crate::kernel::nat;

/// The maps that are pinned, with the sizes of key and value.
pub(super) const MAPS: [(&str, usize, usize); 19] = [
    (map::SAS, size_of::<SaKey>(), size_of::<SaValue>()),
    // The length of a queue, and a program: `bpf_cpumap_val` of linux/bpf.h.
    (map::CPUS, size_of::<u32>(), 2 * size_of::<u32>()),
    (map::ELSEWHERE, size_of::<SaKey>(), size_of::<Address>()),
    // A ring has neither keys nor values.
    (map::SOURCE_CHANGES, 0, 0),
    (map::UNKNOWN_ESP, size_of::<u32>(), size_of::<u64>()),
    (map::OTHERS_PEERS, size_of::<Address>(), size_of::<u32>()),
    (map::GENERATION, size_of::<u32>(), size_of::<u32>()),
    (map::COUNTERS, size_of::<u32>(), size_of::<Count>()),
    (map::RULE_COUNTERS, size_of::<u32>(), size_of::<RuleCount>()),
    (map::MTUS, size_of::<Key<Address>>(), size_of::<u32>()),
    (map::TRACE_SETTINGS, size_of::<u32>(), size_of::<TraceSettings>()),
    (map::TRACE_WANTED, size_of::<TraceKey>(), size_of::<u8>()),
    (map::TRACE_COUNTS, size_of::<u32>(), size_of::<TraceCount>()),
    (map::TRACE_EVENTS, 0, 0),
    (map::LOCAL, size_of::<Address>(), size_of::<u32>()),
    (map::IKE, size_of::<u32>(), size_of::<IkeProtection>()),
    (map::IKE_LOAD, size_of::<u32>(), size_of::<u64>()),
    (map::REQUESTERS, size_of::<Requester>(), size_of::<u64>()),
    (map::NO_ANSWER, size_of::<u32>(), size_of::<u32>()),
];

/// The directory of the links, in the pin directory.
pub(super) const LINKS: &str = "links";

/// Makes the pin directory and the one for links in it, and returns the latter.
pub(super) fn make_pin_dir(pin_dir: &Path) -> Result<PathBuf, BpfError> {
    let parent = pin_dir.parent().unwrap_or(pin_dir);
    let on_bpffs = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if !on_bpffs(parent) && !on_bpffs(pin_dir) {
        return Err(BpfError::NoBpffs(parent.to_owned()));
    }
    let links = pin_dir.join(LINKS);
    fs::create_dir_all(&links).map_err(|error| pin_error(&links, error))?;
    Ok(links)
}

/// Whether no map and no link is pinned there.
pub(super) fn is_empty(pin_dir: &Path) -> bool {
    let has_links = fs::read_dir(pin_dir.join(LINKS)).is_ok_and(|mut links| links.next().is_some());
    !has_links && MAPS.iter().all(|(name, _, _)| !pin_dir.join(name).exists())
}

/// Lets go of what another build has pinned and nobody needs: counters, if that one has other
/// reasons to count, and SAs, if it knows other things of them, since none outlives the daemon that
/// has its keys. They begin anew, and programs that are still attached keep theirs.
pub(super) fn forget_other_layouts(pin_dir: &Path) -> Result<(), BpfError> {
    let is = |number: u32, expected: usize| usize::try_from(number) == Ok(expected);
    let forget = |name: &str, is_ours: &dyn Fn(&MapInfo) -> bool| {
        let path = pin_dir.join(name);
        let found = MapData::from_pin(&path).and_then(|map| map.info());
        if found.is_ok_and(|found| !is_ours(&found)) {
            fs::remove_file(&path).map_err(|error| pin_error(&path, error))?;
        }
        Ok(())
    };
    forget(map::COUNTERS, &|found| is(found.max_entries(), Reason::COUNT))?;
    forget(map::SAS, &|found| {
        is(found.value_size(), size_of::<SaValue>()) || !is(found.key_size(), size_of::<SaKey>())
    })
}

/// Whether keys and values of a map have these sizes.
pub(super) fn has_layout(map: &MapInfo, key: usize, value: usize) -> bool {
    usize::try_from(map.key_size()) == Ok(key) && usize::try_from(map.value_size()) == Ok(value)
}

/// aya takes a pinned map as it is; one of another version must not be written to.
pub(super) fn check_layout(pin_dir: &Path) -> Result<(), BpfError> {
    for (name, key, value) in MAPS {
        let path = pin_dir.join(name);
        let info = MapData::from_pin(&path)
            .and_then(|map| map.info())
            .map_err(|error| BpfError::kernel("a pinned map cannot be read", &error))?;
        if !has_layout(&info, key, value) {
            return Err(BpfError::OtherLayout { path, dir: pin_dir.to_owned() });
        }
    }
    Ok(())
}

/// Detaches the programs of every run with this pin directory, and removes the directory: the
/// node is then without guard.
///
/// # Errors
/// A gateway has the directory, or something cannot be removed.
pub fn remove(pin_dir: &Path) -> Result<(), BpfError> {
    if !pin_dir.exists() {
        // The tables do not depend on it.
        return Ok(nat::remove()?);
    }
    let _claim = Claim::of_existing(pin_dir)?;
    attach::detach_all(&pin_dir.join(LINKS))?;
    nat::remove()?;
    remove_maps(pin_dir)
}

/// Removes the directory with the maps, if nothing is attached any more.
///
/// # Errors
/// Something cannot be removed.
pub(in crate::kernel) fn remove_maps(pin_dir: &Path) -> Result<(), BpfError> {
    let links = pin_dir.join(LINKS);
    let remove = |path: &Path, result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(pin_error(path, error)),
        Ok(()) | Err(_) => Ok(()),
    };
    for (name, _, _) in MAPS {
        for path in [pin_dir.join(name), pin_dir.join(room::beside(name))] {
            remove(&path, fs::remove_file(&path))?;
        }
    }
    remove(&links, fs::remove_dir(&links))?;
    remove(pin_dir, fs::remove_dir(pin_dir))
}
