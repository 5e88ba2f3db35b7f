//! Whether QEMU can use KVM here.
//!
//! That `/dev/kvm` opens says little: inside some virtual machines it exists, and then QEMU
//! aborts or the guest never starts. So one boot is tried, and its outcome kept in the cache.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::image;
use super::kernel::Kernel;
use crate::error::{Context as _, Result};
use crate::progress::{Step, say};
use crate::shell::{cache_dir, tool};

/// A kernel with KVM is at its `poweroff` in two or three seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accel {
    /// The processor itself.
    Kvm,
    /// QEMU's emulation: slower, works everywhere.
    Tcg,
}

/// TCG runs "rep movsb" octet by octet, and drops its translations at each of SMAP's switches: without
/// the two, copies are several times faster.
const TCG_CPU: &str = "max,-erms,-smap";

impl Accel {
    /// The arguments for QEMU.
    pub(super) const fn arguments(self, processors: u32) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // With a thread for each of several processors it now and then breaks code that the
            // guest's kernel patches while it runs.
            Self::Tcg if processors > 1 => ["-accel", "tcg,thread=single", "-cpu", TCG_CPU],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", TCG_CPU],
        }
    }
}

/// KVM if it boots this kernel, else emulation.
pub(super) fn choose(kernel: &Kernel) -> Result<Accel> {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accel::Tcg);
    }
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let name = format!("kvm-on-{}-boots-{}", host.trim(), kernel.release);
    let memory = cache_dir()?.join("kernels").join(name);
    if let Ok(outcome) = fs::read_to_string(&memory) {
        return Ok(if outcome == "yes" { Accel::Kvm } else { Accel::Tcg });
    }
    let step = Step::start(format!("trying whether KVM boots {} here (once)", kernel.release));
    let works = boots(kernel)?;
    step.done();
    if !works {
        say("/dev/kvm is there but boots no guest: using QEMU's emulation");
    }
    fs::write(&memory, if works { "yes" } else { "no" })
        .context(|| format!("cannot write {}", memory.display()))?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

/// Whether a guest powers itself off in time.
fn boots(kernel: &Kernel) -> Result<bool> {
    let dir = tempfile::tempdir().context(|| "cannot create a temporary directory")?;
    let initrd = dir.path().join("initrd");
    fs::write(&initrd, image::power_off()?).context(|| "cannot write the initramfs")?;
    let mut child = command(kernel, &initrd)?.spawn().context(|| "qemu-system-x86_64")?;
    let end = Instant::now().checked_add(LIMIT);
    loop {
        if let Some(status) = child.try_wait().context(|| "qemu-system-x86_64")? {
            // A guest that resets (triple fault) also ends QEMU with success, but it does so
            // before its kernel has powered off: the shutdown event tells them apart.
            let log = fs::read_to_string(dir.path().join("console")).unwrap_or_default();
            return Ok(status.success() && log.contains("Power down"));
        }
        if end.is_none_or(|end| end <= Instant::now()) {
            child.kill().and_then(|()| child.wait()).context(|| "qemu-system-x86_64")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn command(kernel: &Kernel, initrd: &Path) -> Result<Command> {
    let console = initrd.with_file_name("console");
    let mut command = Command::new(tool("qemu-system-x86_64")?);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-M", "q35", "-m", "512M", "-append", "console=ttyS0 panic=-1"])
        .args(Accel::Kvm.arguments(1))
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(initrd)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}
