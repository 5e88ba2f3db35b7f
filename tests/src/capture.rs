//! Everything that passes some devices of a namespace, from before the test's first packet.
//!
//! tcpdump captures; what it wrote is read and judged here. A capture between two gateways shows
//! what was on the wire: what enters a device is seen before TC ingress, and what leaves it after
//! TC egress.
//!
//! A packet socket that reads frames one by one would not do: it is given a clone of the frame,
//! and when a NAT or a decapsulation has copied the head only, ESP decrypts in place the pages
//! that the clone still shares, so that the reader finds clear text that never was on the wire.
//! tcpdump's ring has each frame copied as it passes.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::error::{Context as _, Error, Result};
use crate::frame::{Kind, Packet, dissect};
use crate::namespace::Namespace;
use crate::traffic::CANARY;

/// How long tcpdump may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets kept of each frame: enough for headers, and for the canary in a payload.
const SNAP: &str = "256";
/// Kibioctets the kernel may queue for tcpdump: a bulk transfer must not overrun it.
const QUEUE: &str = "16384";

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When it passed, since the epoch.
    pub at: Duration,
    /// The device it passed.
    pub device: &'static str,
    /// Its first octets, from the Ethernet header on.
    pub octets: Vec<u8>,
    /// Its whole length.
    pub length: usize,
}

/// A moment in a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(Duration);

impl Mark {
    /// Before everything.
    pub const START: Self = Self(Duration::ZERO);
}

/// Traffic that a policy selects: what goes between two prefixes, in either direction.
pub type Selected = (IpNet, IpNet);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    name: &'static str,
    tcpdump: Daemon,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture what passes these devices, and returns when nothing will be missed.
    ///
    /// # Errors
    /// There is no such device, no tcpdump, or no privilege.
    pub fn start(namespace: &Namespace, devices: &[&'static str]) -> Result<Self> {
        let start = |name: &&'static str| {
            // AppArmor's profile for tcpdump lets it write files of this name.
            let file = namespace.directory().join(format!("{name}.pcap"));
            let mut command = namespace.command("tcpdump");
            command.args(["-i", name, "-n", "-U", "--immediate-mode", "-Z", "root"]);
            command.args(["-s", SNAP, "-B", QUEUE]).arg("-w").arg(&file);
            let mut tcpdump = Daemon::start(namespace, &format!("tcpdump-{name}"), &mut command)?;
            tcpdump.wait_for_log("listening on", 0, PATIENCE)?;
            Ok(Device { name, tcpdump, file })
        };
        Ok(Self { devices: devices.iter().map(start).collect::<Result<_>>()? })
    }

    /// This moment, for [`Capture::since`].
    ///
    /// # Errors
    /// The clock is before the epoch.
    pub fn mark(&self) -> Result<Mark> {
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock").map(Mark)
    }

    /// The frames from a moment on, by device and in the order in which they passed.
    ///
    /// # Errors
    /// A file of tcpdump cannot be read.
    pub fn since(&self, mark: Mark) -> Result<Vec<Frame>> {
        self.settle();
        let mut frames = Vec::new();
        for device in &self.devices {
            let file = fs::read(&device.file).context(device.file.display())?;
            frames.extend(frames_of(device.name, &file).filter(|frame| frame.at >= mark.0));
        }
        Ok(frames)
    }

    /// How many frames of each kind passed the first device from a moment on.
    ///
    /// # Errors
    /// As [`Capture::since`].
    pub fn summary(&self, mark: Mark) -> Result<Summary> {
        let first = self.devices.first().map_or("", |device| device.name);
        let mut counts = BTreeMap::new();
        for frame in self.since(mark)?.iter().filter(|frame| frame.device == first) {
            let count: &mut usize = counts.entry(dissect(&frame.octets).0).or_default();
            *count = count.saturating_add(1);
        }
        Ok(Summary(counts))
    }

    /// Checks that so far none of the selected traffic was seen in the clear on any device, and
    /// nowhere the payload that the tests send.
    ///
    /// # Errors
    /// It was: the first such frames.
    pub fn assert_no_clear(&self, selected: &[Selected]) -> Result {
        let frames = self.since(Mark::START)?;
        let encrypted = encrypted_in_parts(&frames);
        let found: Vec<String> = frames
            .iter()
            .filter_map(|frame| Some((frame, leak(frame, selected, &encrypted)?)))
            .map(|(frame, why)| format!("  {}, {} octets: {why}", frame.device, frame.length))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let shown = found.get(..10).unwrap_or(&found).join("\n");
        let (bad, all) = (found.len(), frames.len());
        Err(Error::new(format!("{bad} of {all} frames are in the clear, the first:\n{shown}")))
    }

    /// Ends the capture, checks that it is complete, and then as [`Capture::assert_no_clear`].
    ///
    /// # Errors
    /// Something was in the clear, or frames were lost, so that nobody can know.
    pub fn finish(mut self, selected: &[Selected]) -> Result {
        self.settle();
        for device in &mut self.devices {
            device.tcpdump.signal(Signal::SIGINT)?;
            device.tcpdump.wait(PATIENCE)?;
            let log = device.tcpdump.log();
            if !log.contains("\n0 packets dropped by kernel") {
                return Err(Error::new(format!("the capture is not complete:\n{log}")));
            }
        }
        self.assert_no_clear(selected)
    }

    /// The first frames of the first device from a moment on, as tcpdump shows them.
    ///
    /// # Errors
    /// tcpdump cannot read its file.
    pub fn listing(&self, mark: Mark, lines: usize) -> Result<Vec<String>> {
        self.settle();
        let Some(device) = self.devices.first() else { return Ok(Vec::new()) };
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-t", "-q", "-r"]).arg(&device.file);
        let file = fs::read(&device.file).context(device.file.display())?;
        let before = frames_of(device.name, &file).filter(|frame| frame.at < mark.0).count();
        // The last frame may be in the course of being written: tcpdump calls that an error.
        let output = command.output().context("tcpdump")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().skip(before).take(lines).map(str::to_owned).collect())
    }

    /// Waits until tcpdump has had time for what the kernel has queued.
    fn settle(&self) {
        let sizes = || -> Vec<u64> {
            self.devices
                .iter()
                .map(|device| fs::metadata(&device.file).map_or(0, |m| m.len()))
                .collect()
        };
        let mut before = Vec::new();
        // With traffic that goes on there is no end to wait for.
        for _ in 0..10 {
            let now = sizes();
            if now == before {
                break;
            }
            before = now;
            thread::sleep(Duration::from_millis(150));
        }
    }
}

/// How many frames of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary(BTreeMap<Kind, usize>);

impl Summary {
    /// How many of this kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.0.get(&kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let counts: Vec<String> = self.0.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// A datagram that goes in fragments: where from, where to, and its identification.
type InParts = (IpAddr, IpAddr, u32);

fn in_parts(packet: &Packet) -> Option<InParts> {
    packet.fragment.map(|identification| (packet.source, packet.destination, identification))
}

/// The datagrams whose first fragment shows that they are ESP in UDP.
fn encrypted_in_parts(frames: &[Frame]) -> BTreeSet<InParts> {
    let outermost = frames.iter().filter_map(|frame| dissect(&frame.octets).1.into_iter().next());
    outermost.filter(|p| p.kind == Kind::EspInUdp).filter_map(|p| in_parts(&p)).collect()
}

/// Why a frame is a leak, if it is one. The later fragments of what is `encrypted` have no ports to
/// tell them by.
fn leak(frame: &Frame, selected: &[Selected], encrypted: &BTreeSet<InParts>) -> Option<String> {
    let (_, packets) = dissect(&frame.octets);
    if frame.octets.windows(CANARY.len()).any(|w| w == CANARY) {
        let packet = packets.first().map_or_else(|| "no IP".to_owned(), ToString::to_string);
        return Some(format!("{packet}, with the tests' payload"));
    }
    let clear = |packet: &&Packet| {
        // The selected prefixes may contain the gateways themselves (transport mode).
        packet.kind == Kind::Other
            && selected.iter().any(|(one, two)| packet.between(one, two))
            && !(packet.ports.is_none() && in_parts(packet).is_some_and(|p| encrypted.contains(&p)))
    };
    packets.iter().find(clear).map(ToString::to_string)
}

/// The whole frames of a pcap file that was written on this machine, with times in microseconds.
fn frames_of(device: &'static str, file: &[u8]) -> impl Iterator<Item = Frame> {
    let mut rest = file.get(24..).unwrap_or_default();
    core::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<16>()?;
        let mut words = header.chunks_exact(4).map(|word| word.try_into().map(u32::from_ne_bytes));
        let mut word = || words.next()?.ok();
        let (seconds, micros, kept, length) = (word()?, word()?, word()?, word()?);
        // The last frame may be in the course of being written.
        let (octets, after) = after.split_at_checked(usize::try_from(kept).ok()?)?;
        rest = after;
        Some(Frame {
            at: Duration::new(seconds.into(), micros.saturating_mul(1000)),
            device,
            octets: octets.to_vec(),
            length: usize::try_from(length).ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with an IPv4 header and what follows it, from 10.1.0.2 to 10.2.0.2.
    fn fragment(identification: u8, offset: u8, protocol: u8, rest: &[u8]) -> Frame {
        let mut octets = vec![0; 12];
        octets.extend([
            0x08,
            0,
            0x45,
            0,
            0,
            0,
            0,
            identification,
            0x20,
            offset,
            64,
            protocol,
            0,
            0,
        ]);
        octets.extend([10, 1, 0, 2, 10, 2, 0, 2]);
        octets.extend(rest);
        Frame { at: Duration::ZERO, device: "eth0", length: octets.len(), octets }
    }

    #[test]
    fn a_later_fragment_is_clear_unless_the_first_one_was_esp_in_udp() {
        const UDP: u8 = 17;
        let esp = [0x11, 0x94, 0x11, 0x94, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        let clear = [0, 53, 0, 53, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        let frames = [
            fragment(1, 0, UDP, &esp),
            fragment(1, 1, UDP, &[7; 8]),
            fragment(2, 0, UDP, &clear),
            fragment(2, 1, UDP, &[7; 8]),
            fragment(3, 1, UDP, &[7; 8]),
        ];
        let selected = [("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())];
        let encrypted = encrypted_in_parts(&frames);
        let leaks = frames.each_ref().map(|f| leak(f, &selected, &encrypted).is_some());
        assert_eq!(leaks, [false, false, true, true, true]);
    }

    #[test]
    fn a_frame_that_is_still_being_written_is_not_read() {
        let mut file = vec![0; 24];
        for word in [7_u32, 8, 3, 60] {
            file.extend(word.to_ne_bytes());
        }
        file.extend([1, 2, 3]);
        let whole = file.len();
        file.extend([9; 17]);
        for length in 0..file.len() {
            let frames: Vec<Frame> = frames_of("eth0", &file[..length]).collect();
            assert_eq!(frames.len(), usize::from(length >= whole));
        }
        let frame = frames_of("eth0", &file).next().unwrap();
        assert_eq!((frame.octets, frame.length), (vec![1, 2, 3], 60));
        assert_eq!(frame.at, Duration::new(7, 8000));
    }
}
