//! The outer slot and the maps that it can hold.
//!
//! Made here and not by aya's loader: that gives type information (BTF) to the sample of an inner
//! map, but none to a map that is made later, and kernels before 6.2 then find the two unlike
//! (`bpf_map_meta_equal` compares where a timer would be, which is unknown in two ways). The loader
//! takes the slot that it finds pinned.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use aya::maps::{HashMap, IterableMap as _, MapData, MapError};
use gateway_common::{Entry, RuleKey, map};

use super::error::BpfError;

/// A generation of rules.
pub(super) type Inner = HashMap<MapData, RuleKey, Entry>;

/// `BPF_F_NO_PREALLOC`, as the programs declare the inner map.
pub(super) const ON_DEMAND: u32 = 1;

/// `BPF_MAP_CREATE` of bpf(2).
const MAP_CREATE: libc::c_long = 0;

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const ARRAY_OF_MAPS: u32 = 12;

/// The first part of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: RawFd,
    numa_node: u32,
    map_name: [u8; 16],
}

/// A map for a generation, with room for this many entries.
pub(super) fn inner(room: u32) -> Result<Inner, MapError> {
    Inner::create(room, ON_DEMAND)
}

/// Makes the outer slot and pins it, unless it is there.
pub(super) fn create(path: &Path) -> Result<(), BpfError> {
    const WHAT: &str = "the BPF map of rules cannot be created";
    if path.exists() {
        return Ok(());
    }
    let sample = inner(1).map_err(|error| BpfError::kernel(WHAT, &error))?;
    let outer = array_of_maps(&sample).map_err(|error| BpfError::kernel(WHAT, &error))?;
    MapData::from_fd(outer)
        .map_err(|error| BpfError::kernel(WHAT, &error))?
        .pin(path)
        .map_err(|error| BpfError::kernel(WHAT, &error))
}

/// An array with one place, for maps like the sample.
fn array_of_maps(sample: &Inner) -> io::Result<OwnedFd> {
    let mut map_name = [0; 16];
    for (place, octet) in map_name.iter_mut().zip(map::GENERATION.bytes()) {
        *place = octet;
    }
    let attributes = MapCreate {
        map_type: ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: sample.map().fd().as_fd().as_raw_fd(),
        numa_node: 0,
        map_name,
    };
    let size = size_of::<MapCreate>();
    // SAFETY: the kernel reads as many octets of the attributes as it is told.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, &raw const attributes, size) };
    let Ok(fd) = RawFd::try_from(fd) else { return Err(io::Error::other("no descriptor")) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
