//! The initramfs: busybox, the modules that reach the shared directories, and the job.

use std::fs;
use std::path::Path;

use super::cpio::{DIRECTORY, Entry, FILE, LINK, PROGRAM, archive};
use super::kernel::{Kernel, read_module};
use super::modules::loading_order;
use super::qemu::Share;
use crate::error::{Context as _, Error, Result};
use crate::shell::{quote, tool};

const INIT: &str = include_str!("init.sh");
const STAGE2: &str = include_str!("stage2.sh");
const APPLETS: &[&str] =
    &["cat", "cp", "echo", "insmod", "ln", "mkdir", "mount", "poweroff", "sh", "switch_root"];

/// What the guest is to do.
pub(super) struct Contents<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) share: Share,
    /// Tag and directory of each writable share.
    pub(super) writable: &'a [(String, String)],
    /// Shell script to run under the machine's root.
    pub(super) job: &'a str,
}

/// The initramfs that runs a job.
pub(super) fn initramfs(contents: &Contents<'_>) -> Result<Vec<u8>> {
    let mut entries = base()?;
    entries.push(Entry::new("init", PROGRAM, INIT));
    entries.push(Entry::new("stage2", FILE, STAGE2));
    entries.push(Entry::new("conf", FILE, configuration(contents)));
    entries.push(Entry::new("job", FILE, contents.job));

    let modules: &[&str] = match contents.share {
        Share::Virtiofs => &["virtio_pci", "virtio_console", "overlay", "virtiofs"],
        Share::NineP => &["virtio_pci", "virtio_console", "overlay", "9pnet_virtio", "9p"],
    };
    entries.extend(module_entries(contents.kernel, modules)?);
    archive(&entries)
}

/// An initramfs whose only act is to power off: it shows whether a machine boots at all.
pub(super) fn power_off() -> Result<Vec<u8>> {
    let mut entries = base()?;
    entries.push(Entry::new("init", PROGRAM, "#!/bin/sh\npoweroff -f\n"));
    archive(&entries)
}

fn base() -> Result<Vec<Entry>> {
    let busybox = tool("busybox")?;
    let data = fs::read(&busybox).context(|| format!("cannot read {}", busybox.display()))?;
    let loader = b"/lib64/ld-linux";
    if data.windows(loader.len()).any(|window| window == loader) {
        return Err(Error::new(format!(
            "{} is not statically linked: install the package busybox-static",
            busybox.display()
        )));
    }
    let mut entries: Vec<Entry> = ["bin", "dev", "proc", "sys", "modules"]
        .into_iter()
        .map(|dir| Entry::new(dir, DIRECTORY, []))
        .collect();
    entries.push(Entry::new("bin/busybox", PROGRAM, data));
    entries.extend(APPLETS.iter().map(|name| Entry::new(format!("bin/{name}"), LINK, "busybox")));
    Ok(entries)
}

fn configuration(contents: &Contents<'_>) -> String {
    let share = match contents.share {
        Share::Virtiofs => "virtiofs",
        Share::NineP => "9p",
    };
    let calls: String = contents
        .writable
        .iter()
        .map(|(tag, dir)| format!("    \"$1\" {} {}\n", quote(tag), quote(dir)))
        .collect();
    format!(
        "SHARE={share}\nRELEASE={}\nKERNEL={}\neach_rw() {{\n    :\n{calls}}}\n",
        quote(&contents.kernel.release),
        quote(&contents.kernel.tree.to_string_lossy()),
    )
}

fn module_entries(kernel: &Kernel, names: &[&str]) -> Result<Vec<Entry>> {
    let dir = kernel.modules();
    let dep = dir.join("modules.dep");
    let dep = fs::read_to_string(&dep).context(|| format!("cannot read {}", dep.display()))?;
    let (mut entries, mut order) = (Vec::new(), Vec::new());
    for file in loading_order(&dep, names) {
        let data = read_module(&dir.join(file))?;
        let base = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        entries.push(Entry::new(format!("modules/{base}"), FILE, data));
        order.push(base.into_owned());
    }
    entries.push(Entry::new("modules/order", FILE, order.join(" ")));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_directory_with_a_space_reaches_the_guest_whole() {
        let kernel = Kernel { release: "6.1.0".into(), tree: PathBuf::from("/a b") };
        let text = configuration(&Contents {
            kernel: &kernel,
            share: Share::NineP,
            writable: &[("rw0".into(), "/x y".into())],
            job: "",
        });
        let script = format!("{text}show() {{ echo \"$1|$2\"; }}; echo \"$KERNEL\"; each_rw show");
        let out = crate::shell::capture(std::process::Command::new("sh").args(["-c", &script]));
        assert_eq!(out.unwrap(), "/a b\nrw0|/x y\n");
    }

    #[test]
    fn the_scripts_are_valid_shell() {
        for script in [INIT, STAGE2] {
            let mut sh = std::process::Command::new("sh");
            assert!(crate::shell::succeeds(sh.args(["-n", "-c", script])));
        }
    }
}
