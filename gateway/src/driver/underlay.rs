//! The underlay when the operator names none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A route is usable (RTF_UP of linux/route.h).
const UP: u32 = 0x1;
/// A route refuses packets (RTF_REJECT).
const REJECT: u32 = 0x200;

/// The interfaces that a default route leads to, of either family, by name.
pub(super) fn default_interfaces() -> Vec<String> {
    // Of the calling thread, for its network namespace may differ from that of the process.
    let read = |table: &str| {
        fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default()
    };
    let (v4, v6) = (read("route"), read("ipv6_route"));
    let names: BTreeSet<&str> =
        v4.lines().filter_map(v4_default).chain(v6.lines().filter_map(v6_default)).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The interfaces that are hardware: sooner or later default routes lead to some of them.
pub(super) fn hardware_interfaces() -> Vec<String> {
    hardware_below(Path::new("/sys/class/net"))
}

/// Only hardware has a `device` (Documentation/ABI/testing/sysfs-class-net).
fn hardware_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let hardware = entries.filter(|entry| entry.path().join("device").exists());
    let names: BTreeSet<_> =
        hardware.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.into_iter().collect()
}

/// The interface of a line of `/proc/net/route` that is a default route.
fn v4_default(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (name, destination, flags, mask) =
        (*fields.first()?, *fields.get(1)?, *fields.get(3)?, *fields.get(7)?);
    (is_zero(destination) && is_zero(mask) && leads_on(flags)).then_some(name)
}

/// The interface of a line of `/proc/net/ipv6_route` that is a default route.
fn v6_default(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (destination, length, flags, name) =
        (*fields.first()?, *fields.get(1)?, *fields.get(8)?, *fields.get(9)?);
    (is_zero(destination) && is_zero(length) && leads_on(flags)).then_some(name)
}

fn is_zero(hex: &str) -> bool {
    hex.bytes().all(|digit| digit == b'0')
}

fn leads_on(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0 && flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{enter_namespace, ip, is_root};

    #[test]
    fn only_usable_default_routes_count() {
        let v4 = |line| v4_default(line);
        assert_eq!(v4("eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0"), Some("eth0"));
        assert_eq!(v4("eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0"), None);
        assert_eq!(v4("* 00000000 00000000 0200 0 0 0 00000000 0 0 0"), None);
        assert_eq!(v4("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU"), None);
        assert_eq!(v4("short"), None);
    }

    #[test]
    fn hardware_is_what_has_a_device() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["lo", "veth0", "eth1/device", "eth0/device"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        assert_eq!(hardware_below(directory.path()), ["eth0", "eth1"]);
        assert!(hardware_below(&directory.path().join("nowhere")).is_empty());
    }

    #[test]
    fn the_interfaces_of_both_families_are_found_once() {
        if !is_root("the_interfaces_of_both_families_are_found_once") {
            return;
        }
        std::thread::spawn(|| {
            enter_namespace();
            let names = default_interfaces;
            assert!(names().is_empty());
            for (name, address) in [("up0", "192.0.2.1/24"), ("up1", "198.51.100.1/24")] {
                ip(&format!("link add {name} type veth peer name {name}-far"));
                ip(&format!("address add {address} dev {name}"));
                ip(&format!("link set {name} up"));
            }
            ip("route add default via 198.51.100.9");
            assert_eq!(names(), ["up1"]);
            ip("-6 route add default dev up1");
            ip("-6 route add default dev up0 metric 2000");
            assert_eq!(names(), ["up0", "up1"]);
        })
        .join()
        .unwrap();
    }
}
