//! Network namespaces with what a machine has of its own: network, `/sys` and `/run`.
//!
//! A [`Namespace`] is two file descriptors, one of a network and one of a mount namespace. It has
//! no name in the file system, so that the kernel removes it with everything in it (devices,
//! routes, SAs, pinned BPF objects) when the value is dropped or the process dies, however it
//! dies. To look into one by hand: `nsenter --net=/proc/PID/fd/N`, which is what its `Display`
//! prints.

use core::fmt;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::error::{Context as _, Error, Result};

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; with what it wrote to stderr.
pub fn output(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(&shown)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading says why in its status.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().context(&shown)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{shown}: {}: {}\n{text}", output.status, complaint.trim_end())))
}

/// A machine for a test: see the module.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    net: OwnedFd,
    mount: OwnedFd,
    directory: TempDir,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (nsenter --net={})", self.name, self.path())
    }
}

impl Namespace {
    /// A new one, with `lo` up, its own `/sys` with bpffs in it, and an empty `/run`.
    ///
    /// # Errors
    /// The kernel refuses; usually for want of privilege.
    pub fn new(name: &str) -> Result<Self> {
        Self::make(name, true)?.with_loopback()
    }

    /// Like [`Namespace::new`], but with `lo` down: for one that is configured by one call of
    /// [`Namespace::ip`] anyway.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub(crate) fn without_loopback(name: &str) -> Result<Self> {
        Self::make(name, true)
    }

    /// Like [`Namespace::new`], but without bpffs.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn without_bpffs(name: &str) -> Result<Self> {
        Self::make(name, false)?.with_loopback()
    }

    fn with_loopback(self) -> Result<Self> {
        self.ip("link set lo up").map(|()| self)
    }

    fn make(name: &str, bpffs: bool) -> Result<Self> {
        let directory = TempDir::with_prefix(format!("gateway-{name}-")).context("a directory")?;
        // A thread leaves its namespaces for good: use one that ends here.
        let (net, mount) = thread::scope(|scope| scope.spawn(|| unshared(bpffs)).join())
            .map_err(|_panic| Error::new("the thread that makes a namespace panicked"))?
            .context(format_args!("namespace {name}"))?;
        let namespace = Self { name: name.to_owned(), net, mount, directory };
        // No duplicate address detection: an address is usable as soon as it is there.
        for sysctl in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
            namespace.sysctl(sysctl, "0")?;
        }
        Ok(namespace)
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of its own outside the namespace, removed with it: configuration and logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file by which `ip ... netns` knows it, as long as this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        // Our number where /proc was mounted, which need not be the one getpid() gives.
        let process = fs::read_link("/proc/self").unwrap_or_else(|_gone| PathBuf::from("self"));
        format!("/proc/{}/fd/{}", process.display(), self.net.as_raw_fd())
    }

    /// A command that will run in it, and that the kernel kills when the thread that started it
    /// ends.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handles = self.net.try_clone().and_then(|net| Ok((net, self.mount.try_clone()?)));
        let enter = move || {
            let (net, mount) = handles.as_ref().map_err(|_lost| nix::errno::Errno::EBADF)?;
            setns(net, CloneFlags::CLONE_NEWNET)?;
            setns(mount, CloneFlags::CLONE_NEWNS)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing
        // and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command in it to its end, and gives what it wrote to stdout.
    ///
    /// # Errors
    /// As [`output`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(self.command(program).args(arguments), "").context(&self.name)
    }

    /// Runs `ip` with each of the lines as its arguments; empty lines are skipped.
    ///
    /// # Errors
    /// `ip` refuses one of them; the lines after it are not run.
    pub fn ip(&self, lines: &str) -> Result {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        output(&mut command, lines).map(drop).context(format_args!("{}: {lines}", self.name))
    }

    /// Loads nftables rules.
    ///
    /// # Errors
    /// `nft` refuses them.
    pub fn nft(&self, rules: &str) -> Result {
        output(self.command("nft").args(["-f", "-"]), rules).map(drop).context(&self.name)
    }

    /// Sets a kernel parameter, named by its path below `/proc/sys`.
    ///
    /// # Errors
    /// There is none of that name, or it refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result {
        self.enter(|| fs::write(Path::new("/proc/sys").join(path), value))?
            .context(format_args!("{}: sysctl {path}={value}", self.name))
    }

    /// Joins this and another namespace by a veth pair, both ends up.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn link(&self, device: &str, other: &Self, other_device: &str) -> Result {
        let path = other.path();
        self.ip(&format!(
            "link add {device} type veth peer name {other_device} netns {path}\n\
             link set {device} up"
        ))?;
        other.ip(&format!("link set {other_device} up"))
    }

    /// Runs `work` on a thread inside the network namespace: sockets it opens stay there.
    ///
    /// # Errors
    /// The thread cannot enter, or panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || setns(&self.net, CloneFlags::CLONE_NEWNET).map(|()| work());
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_panic| Error::new(format!("{}: a thread inside panicked", self.name)))?
            .context(format_args!("entering {}", self.name))
    }
}

/// Takes the calling thread into new namespaces and returns their descriptors.
fn unshared(bpffs: bool) -> Result<(OwnedFd, OwnedFd)> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare")?;
    let new = |kind: &str, target: &str| {
        mount(Some("gateway-tests"), target, Some(kind), MsFlags::empty(), None::<&str>)
            .context(format_args!("mount {kind} on {target}"))
    };
    // What is mounted below here must not spread to the machine.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("mount --make-rprivate")?;
    // sysfs shows the devices of the namespace in which it was mounted.
    new("sysfs", "/sys")?;
    if bpffs {
        new("bpf", "/sys/fs/bpf")?;
    }
    new("tmpfs", "/run")?;
    let open = |kind: &str| {
        let path = format!("/proc/thread-self/ns/{kind}");
        fs::File::open(&path).map(OwnedFd::from).context(path)
    };
    Ok((open("net")?, open("mnt")?))
}
