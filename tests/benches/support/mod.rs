//! Programs by the kernel's own test-run, which goes on with the packet as the last run left it.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, TestRunResult};
use gateway::kernel::bpf::DataPath;
use gateway_common::program;

/// The time of so many packets in a program. The kernel gives the mean in whole nanoseconds.
pub(crate) fn time(
    data_path: &mut DataPath,
    name: &'static str,
    packet: &[u8],
    packets: u64,
) -> Duration {
    let program = data_path.xdp(name).unwrap_or_else(|error| panic!("{error}"));
    of_all(packets, packet, |options| program.test_run(options).unwrap()).0
}

/// The same in a TC program; and its verdict on the last.
pub(crate) fn time_tc(
    data_path: &mut DataPath,
    name: &'static str,
    packet: &[u8],
    packets: u64,
) -> (Duration, u32) {
    let program = data_path.classifier(name).unwrap_or_else(|error| panic!("{error}"));
    of_all(packets, packet, |options| program.test_run(options).unwrap())
}

fn of_all(
    packets: u64,
    packet: &[u8],
    test_run: impl FnOnce(TestRunOptions<'_>) -> TestRunResult,
) -> (Duration, u32) {
    let repeat = u32::try_from(packets).unwrap_or(u32::MAX);
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    let result = test_run(options);
    (result.duration.saturating_mul(repeat), result.return_value)
}

/// What a change of the packet takes from the empty program up: a run that changes it and puts it
/// back, less one that only puts it back, with the empty program's time, which both have.
pub(crate) fn change(
    data_path: &mut DataPath,
    [changing, restoring]: [&'static str; 2],
    packet: &[u8],
    packets: u64,
) -> Duration {
    let both = time(data_path, changing, packet, packets);
    let restore = time(data_path, restoring, packet, packets);
    let floor = time(data_path, program::PASS, packet, packets);
    both.saturating_sub(restore).saturating_add(floor)
}
