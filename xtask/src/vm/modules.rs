//! Which kernel module files to load, and in which order.

use std::collections::BTreeMap;

/// The files of `names` and of all they depend on, each after what it needs.
///
/// `dep` is the text of the kernel's `modules.dep`: a file, a colon, and the files it needs, the
/// deepest last. A name without a file is built into the kernel and left out.
pub(super) fn loading_order<'a>(dep: &'a str, names: &[&str]) -> Vec<&'a str> {
    let lines: BTreeMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (module_name(file), (file, needs)))
        .collect();
    let mut order = Vec::new();
    for name in names {
        let Some((file, needs)) = lines.get(&module_name(name)) else { continue };
        for file in needs.split_whitespace().rev().chain([*file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    order
}

/// `kernel/net/9p/9pnet-virtio.ko.xz` is `9pnet_virtio`.
fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    let base = base.split_once(".ko").map_or(base, |(name, _)| name);
    base.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/fs/fuse/fuse.ko:
kernel/fs/fuse/virtio-fs.ko: kernel/fs/fuse/fuse.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
";

    #[test]
    fn what_a_module_needs_comes_first() {
        assert_eq!(
            loading_order(DEP, &["virtio_pci"]),
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/virtio/virtio_pci.ko.xz",
            ]
        );
    }

    #[test]
    fn a_module_needed_twice_is_loaded_once() {
        let order = loading_order(DEP, &["virtio_pci", "virtio_fs"]);
        assert_eq!(order.len(), 5);
        assert_eq!(order.last(), Some(&"kernel/fs/fuse/virtio-fs.ko"));
    }

    #[test]
    fn a_dash_and_an_underscore_are_the_same() {
        assert_eq!(loading_order(DEP, &["virtio-fs"]), loading_order(DEP, &["virtio_fs"]));
    }

    #[test]
    fn a_built_in_module_is_left_out() {
        assert!(loading_order(DEP, &["overlay"]).is_empty());
        assert!(loading_order("", &["overlay"]).is_empty());
        assert!(loading_order("no colon here\n", &["overlay"]).is_empty());
    }
}
