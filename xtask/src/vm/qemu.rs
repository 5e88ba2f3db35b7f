//! One run of QEMU: the job's output arrives over virtio ports while it runs, its exit status
//! at the end.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::accel::Accel;
use super::image::{Contents, initramfs};
use super::kernel::Kernel;
use super::share;
use crate::error::{Context as _, Result};
use crate::shell::tool;

/// How the guest sees the machine's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// virtiofsd: the faster one; needs root.
    Virtiofs,
    /// QEMU's own 9p server: works for every user.
    NineP,
}

/// A machine to boot and what to run in it.
pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) accel: Accel,
    pub(super) share: Share,
    /// Shell script to run.
    pub(super) job: &'a str,
    /// Directories that the guest may write to.
    pub(super) writable: &'a [PathBuf],
    /// Memory in QEMU's notation.
    pub(super) memory: &'a str,
    pub(super) processors: u32,
    pub(super) timeout: Duration,
    /// Print the kernel's log when the job has ended.
    pub(super) verbose: bool,
}

/// Where a piece of output belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The job's standard output.
    Out,
    /// The job's standard error.
    Err,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The job ended with this status.
    Exited(u8),
    /// The time limit passed; the end of the kernel's log.
    TimedOut(String),
    /// The guest went away before the job ended; the end of the kernel's log.
    Died(String),
}

/// The three ports of the guest, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Stream(Stream),
    Status,
}

const PORTS: [(&str, Port); 3] = [
    ("out", Port::Stream(Stream::Out)),
    ("err", Port::Stream(Stream::Err)),
    ("status", Port::Status),
];

/// Something read from a port; nothing at its end.
type Piece = (Port, Option<Vec<u8>>);

/// Kills and reaps what it holds when it goes out of scope.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Either may fail if the process has ended: then there is nothing to do.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Boots the guest, passes on what the job prints as it comes, and says how it ended.
pub(super) fn run(guest: &Guest<'_>, on_output: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome> {
    let dir = tempfile::Builder::new()
        .prefix("gateway-vm.")
        .tempdir()
        .context(|| "cannot create a temporary directory")?;
    let dir = dir.path();
    let (sender, pieces) = channel();
    for (name, port) in PORTS {
        listen(&dir.join(name), port, sender.clone())?;
    }
    drop(sender);

    let mut children = Children(Vec::new());
    let mut qemu = machine(guest, dir)?;
    share_directories(guest, dir, &mut qemu, &mut children)?;
    let child = qemu.spawn().context(|| "qemu-system-x86_64")?;
    // Last in, so that it is asked about with `last_mut`.
    children.0.push(child);

    let (status, in_time) = follow(&pieces, &mut children, guest.timeout, on_output)?;
    let log = fs::read(dir.join("console")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    if guest.verbose {
        eprint!("{log}");
    }
    Ok(match parse_status(&status) {
        Some(code) => Outcome::Exited(code),
        None if in_time => Outcome::Died(tail(&log, 40)),
        None => Outcome::TimedOut(tail(&log, 40)),
    })
}

/// Waits for one connection of QEMU and sends on what it reads from it.
fn listen(path: &Path, port: Port, sender: Sender<Piece>) -> Result {
    let listener =
        UnixListener::bind(path).context(|| format!("cannot bind {}", path.display()))?;
    // If QEMU never connects, the thread waits until this process ends.
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut buffer = vec![0; 65536];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let Some(data) = buffer.get(..length) else { return };
            if sender.send((port, Some(data.to_vec()))).is_err() {
                return;
            }
        }
        // Nobody listens any more: nothing to tell.
        drop(sender.send((port, None)));
    });
    Ok(())
}

fn machine(guest: &Guest<'_>, dir: &Path) -> Result<Command> {
    let initrd = dir.join("initrd");
    let contents = Contents {
        kernel: guest.kernel,
        share: guest.share,
        writable: &tags(guest.writable),
        job: guest.job,
    };
    fs::write(&initrd, initramfs(&contents)?).context(|| "cannot write the initramfs")?;
    let quiet = if guest.verbose { "" } else { " quiet" };
    // With us if we are killed: nobody else would end it.
    let mut command = Command::new(tool("setpriv")?);
    command
        .args(["--pdeathsig", "KILL"])
        .arg(tool("qemu-system-x86_64")?)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(guest.accel.arguments(guest.processors))
        .args(["-smp", &guest.processors.to_string(), "-m", guest.memory])
        .arg("-kernel")
        .arg(guest.kernel.image())
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &format!("console=ttyS0 panic=-1 oops=panic{quiet}")])
        .args(["-serial", &format!("file:{}", dir.join("console").display())])
        .args(["-device", "virtio-serial-pci"])
        .stdin(Stdio::null());
    for (name, _) in PORTS {
        let socket = dir.join(name);
        command
            .args(["-chardev", &format!("socket,id={name},path={}", comma(&socket))])
            .args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
    }
    Ok(command)
}

/// Adds the shared directories, with the daemons that serve them.
fn share_directories(
    guest: &Guest<'_>,
    dir: &Path,
    qemu: &mut Command,
    children: &mut Children,
) -> Result {
    let mut shares = vec![("root".to_owned(), "/".to_owned(), false)];
    shares.extend(tags(guest.writable).into_iter().map(|(tag, path)| (tag, path, true)));
    match (guest.share, share::daemon()) {
        (Share::Virtiofs, Some(daemon)) => {
            for (tag, path, writable) in &shares {
                let socket = dir.join(format!("{tag}.sock"));
                children.0.push(share::serve(&daemon, Path::new(path), &socket, *writable)?);
                let device = format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024");
                qemu.args(["-chardev", &format!("socket,id={tag},path={}", comma(&socket))])
                    .args(["-device", &device]);
            }
            // The daemons read and write the guest's memory.
            let memory = format!("memory-backend-memfd,id=mem,size={},share=on", guest.memory);
            qemu.args(["-M", "q35,memory-backend=mem", "-object", &memory]);
        }
        _ => {
            for (tag, path, writable) in &shares {
                let readonly = if *writable { "off" } else { "on" };
                let path = comma(Path::new(path));
                qemu.args([
                    "-virtfs",
                    &format!(
                        "local,path={path},mount_tag={tag},security_model=none,multidevs=remap,\
                         readonly={readonly}"
                    ),
                ]);
            }
            qemu.args(["-M", "q35"]);
        }
    }
    Ok(())
}

/// Passes output on until the guest has ended or its time is up; what it said of the job's
/// status, and whether it ended by itself.
fn follow(
    pieces: &Receiver<Piece>,
    children: &mut Children,
    timeout: Duration,
    on_output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<(Vec<u8>, bool)> {
    let limit = Instant::now().checked_add(timeout);
    let (mut status, mut in_time, mut ended) = (Vec::new(), true, None);
    loop {
        match pieces.recv_timeout(Duration::from_millis(20)) {
            Ok((Port::Stream(stream), Some(data))) => on_output(stream, &data),
            Ok((Port::Status, Some(data))) => status.extend(data),
            Ok((_, None)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(20)),
        }
        let Some(qemu) = children.0.last_mut() else { return Ok((status, in_time)) };
        let now = Instant::now();
        match ended {
            None if qemu.try_wait().context(|| "qemu-system-x86_64")?.is_some() => {
                ended = Some(now);
            }
            None if limit.is_some_and(|limit| limit <= now) => {
                in_time = false;
                qemu.kill().context(|| "qemu-system-x86_64")?;
            }
            None => {}
            // Drain what the ports still hold: all of it is in the sockets already.
            Some(end) => {
                while let Ok((port, data)) = pieces.recv_timeout(Duration::from_millis(100)) {
                    match (port, data) {
                        (Port::Stream(stream), Some(data)) => on_output(stream, &data),
                        (Port::Status, Some(data)) => status.extend(data),
                        (_, None) => {}
                    }
                    if Duration::from_secs(5) < end.elapsed() {
                        break;
                    }
                }
                return Ok((status, in_time));
            }
        }
    }
}

/// Tag and path of each writable directory.
fn tags(writable: &[PathBuf]) -> Vec<(String, String)> {
    writable
        .iter()
        .enumerate()
        .map(|(n, dir)| (format!("rw{n}"), dir.to_string_lossy().into_owned()))
        .collect()
}

/// QEMU's options separate values by commas; one inside a value is written twice.
fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// The status port carries one decimal number and a newline, or nothing.
fn parse_status(octets: &[u8]) -> Option<u8> {
    std::str::from_utf8(octets).ok()?.strip_suffix('\n')?.parse().ok()
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_number_is_a_status() {
        assert_eq!(parse_status(b"0\n"), Some(0));
        assert_eq!(parse_status(b"124\n"), Some(124));
        for bad in [&b""[..], b"1", b"256\n", b"-1\n", b"x\n", b"\xff\n"] {
            assert_eq!(parse_status(bad), None);
        }
    }

    #[test]
    fn the_tail_is_at_most_what_there_is() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 9), "a");
        assert_eq!(tail("", 9), "");
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(comma(Path::new("/a,b")), "/a,,b");
    }
}
