//! What the tests of the BPF programs share: a thread with its own bpffs, and packets through a
//! program by the kernel's test-run.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code"
)]
#![allow(dead_code, reason = "each test target uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use aya::programs::{TestRun as _, TestRunOptions, TestRunResult};
use gateway::kernel::bpf::{ClassRule, DataPath, DataPathConfig, LogLevel, Room};
use gateway_common::{Action, Reason, program};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// The index of the XFRM interface that the programs are told of; a test-run redirects nothing.
pub(crate) const XFRM_INTERFACE: u32 = 77;
/// Its MTU.
pub(crate) const XFRM_MTU: u32 = 1400;
/// The mark of IKE.
pub(crate) const MARK: u32 = 0x1f;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
/// `TC_ACT_UNSPEC`: the next program decides.
pub(crate) const TC_NEXT: u32 = u32::MAX;
pub(crate) const TC_DROP: u32 = 2;
pub(crate) const TC_REDIRECT: u32 = 7;

/// Runs a test on a thread of its own, in a mount namespace with an empty bpffs, and in a network
/// namespace; gives it the bpffs.
pub(crate) fn isolated(test: impl FnOnce(&Path) + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("unshare, as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let directory = tempfile::tempdir().unwrap();
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        test(directory.path());
        umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
    };
    if let Err(panic) = thread::scope(|scope| scope.spawn(inside).join()) {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn config(bpffs: &Path) -> DataPathConfig {
    DataPathConfig {
        pin_dir: bpffs.join("gateway"),
        xfrm_ifindex: XFRM_INTERFACE,
        xfrm_mtu: XFRM_MTU,
        own_mark: MARK,
        steer_cpus: false,
        room: Room::default(),
        log: LogLevel::Off,
    }
}

/// Loads the programs, or panics with the loader's own words.
pub(crate) fn load(config: &DataPathConfig) -> DataPath {
    DataPath::load(config).unwrap_or_else(|error| panic!("{error}"))
}

/// The interface by which a packet of a test-run comes: the loopback interface.
pub(crate) const TEST_RUN: u32 = 1;

/// Tells the programs which addresses are ours, all of one interface.
pub(crate) fn serve_at(data_path: &mut DataPath, interface: u32, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| (address.parse().unwrap(), interface)).collect();
    data_path.set_local(&addresses).unwrap();
}

/// What a program did with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
    /// The counters that moved, and by how many packets.
    pub(crate) counted: Vec<(Reason, u64)>,
}

/// A packet through the XDP program.
pub(crate) fn through_xdp(data_path: &mut DataPath, packet: &[u8]) -> Outcome {
    run(data_path, packet, None, |data_path, options| {
        data_path.xdp(program::NATT_INGRESS).unwrap().test_run(options).unwrap()
    })
}

/// A packet with a mark through a TC program.
pub(crate) fn through_tc(
    data_path: &mut DataPath,
    name: &'static str,
    packet: &[u8],
    mark: u32,
) -> Outcome {
    // struct __sk_buff: the length, the packet's type, the mark; the kernel takes no more.
    let mut context = [0_u8; 192];
    context[8..12].copy_from_slice(&mark.to_ne_bytes());
    run(data_path, packet, Some(&context), |data_path, options| {
        data_path.classifier(name).unwrap().test_run(options).unwrap()
    })
}

fn run(
    data_path: &mut DataPath,
    packet: &[u8],
    context: Option<&[u8]>,
    test_run: impl FnOnce(&mut DataPath, TestRunOptions<'_>) -> TestRunResult,
) -> Outcome {
    let before = counters(data_path);
    let mut out = vec![0; packet.len() + 64];
    let options = TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut out),
        ctx_in: context,
        ..TestRunOptions::default()
    };
    let result = test_run(data_path, options);
    out.truncate(usize::try_from(result.data_size_out).unwrap());
    let after = counters(data_path);
    let moved = |reason: &Reason| (*reason, after[reason] - before[reason]);
    let counted = Reason::ALL.iter().map(moved).filter(|(_, packets)| *packets > 0).collect();
    Outcome { verdict: result.return_value, packet: out, counted }
}

pub(crate) fn counters(data_path: &DataPath) -> BTreeMap<Reason, u64> {
    let counters = data_path.counters().unwrap();
    counters.into_iter().map(|counter| (counter.reason, counter.packets)).collect()
}

/// A rule for every protocol and port.
pub(crate) fn rule(id: u32, local: &str, remote: &str, action: Action) -> ClassRule {
    ClassRule {
        id,
        precedence: id,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: 0..=u16::MAX,
        remote_ports: 0..=u16::MAX,
        action,
    }
}
