//! Letting the guest see directories of the machine through virtiofs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::shell::{is_root, quote, succeeds, tool};

/// Where Debian puts it: with QEMU until 12, in a package of its own since.
const DAEMONS: &[&str] = &["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// The virtiofsd to use; none without the right to make private bind mounts.
pub(super) fn daemon() -> Option<PathBuf> {
    let daemon = DAEMONS.iter().map(PathBuf::from).find(|path| path.exists())?;
    let may_mount = is_root()
        && succeeds(Command::new("unshare").args(["-m", "mount", "--make-rprivate", "/"]));
    may_mount.then_some(daemon)
}

/// Starts a virtiofsd for `source` and waits for its socket.
///
/// It works on a private bind mount, so that nothing has to be unmounted afterwards and it is
/// this machine's kernel that keeps a read-only share read-only. For the root, the machine's
/// other file systems are mounted in their places too.
pub(super) fn serve(daemon: &Path, source: &Path, socket: &Path, writable: bool) -> Result<Child> {
    let root = socket.with_extension("root");
    fs::create_dir(&root).context(|| format!("cannot create {}", root.display()))?;
    let mode = if writable { "rw" } else { "ro" };
    let (from, to) = (quote(&source.to_string_lossy()), quote(&root.to_string_lossy()));
    let mut script = format!(
        "mount --make-rprivate / && mount --bind {from} {to} && \
         mount -o remount,bind,{mode} {to} || exit 1\n"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for place in inner_mounts(&mounts, source) {
        let (from, to) = (quote(&place), quote(&format!("{}{place}", root.display())));
        // A file system that cannot be shown is not worth failing for.
        script.push_str(&format!(
            "mount --bind {from} {to} && mount -o remount,bind,{mode} {to} || :\n"
        ));
    }
    let cache = if writable { "auto" } else { "always" };
    script.push_str(&format!(
        "exec {} --socket-path={} -o source={to} -o cache={cache} -o sandbox=chroot \
         -o log_level=err --rlimit-nofile=65536 --thread-pool-size=0 -f\n",
        quote(&daemon.to_string_lossy()),
        quote(&socket.to_string_lossy()),
    ));
    let log = socket.with_extension("log");
    let file = File::create(&log).context(|| format!("cannot create {}", log.display()))?;
    let errors = file.try_clone().context(|| "cannot open virtiofsd's log")?;
    // It ends by itself when QEMU closes the connection, and with us if we are killed before.
    let mut child = Command::new(tool("setpriv")?)
        .args(["--pdeathsig", "KILL", "unshare", "-m", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .context(|| "virtiofsd")?;
    for _ in 0..1000 {
        if socket.exists() {
            return Ok(child);
        }
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    if child.kill().is_ok() {
        child.wait().context(|| "virtiofsd")?;
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    Err(Error::new(format!("virtiofsd did not start: {}", said.trim_end())))
}

/// The file systems with ordinary files that are mounted below the root, in mounting order;
/// nothing for any other directory.
fn inner_mounts(mountinfo: &str, source: &Path) -> Vec<String> {
    if source != Path::new("/") {
        return Vec::new();
    }
    let of_the_guest = ["/proc", "/sys", "/dev", "/run"];
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let place = unescape(mount.split(' ').nth(4)?);
            let kind = kind.split(' ').next()?;
            let hidden = kind == "autofs"
                || place == "/"
                || of_the_guest.iter().any(|dir| Path::new(&place).starts_with(dir));
            (!hidden).then_some(place)
        })
        .collect()
}

/// Undoes proc_pid_mountinfo(5)'s escapes for space, tab, newline and backslash.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /sys rw - sysfs sysfs rw
25 24 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
26 22 8:1 / /home rw,relatime shared:2 master:3 - ext4 /dev/sda1 rw
27 22 0:24 / /tmp rw - tmpfs tmpfs rw
28 22 8:2 / /mnt/a\\040b rw - xfs /dev/sdb1 rw
29 22 0:30 / /run rw - tmpfs tmpfs rw
30 22 0:31 / /runner rw - ext4 /dev/sdc rw
31 22 0:32 / /net rw - autofs auto rw
";

    #[test]
    fn the_root_brings_the_file_systems_with_ordinary_files() {
        assert_eq!(inner_mounts(MOUNTS, Path::new("/")), ["/home", "/tmp", "/mnt/a b", "/runner"]);
    }

    #[test]
    fn another_directory_brings_nothing() {
        assert!(inner_mounts(MOUNTS, Path::new("/home")).is_empty());
        assert!(inner_mounts("garbage", Path::new("/")).is_empty());
    }
}
