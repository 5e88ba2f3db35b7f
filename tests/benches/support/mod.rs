//! XDP programs by the kernel's own test-run, which goes on with the packet as the last run left it.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use gateway::kernel::bpf::DataPath;
use gateway_common::program;

/// The time of so many packets in a program. The kernel gives the mean in whole nanoseconds.
pub(crate) fn time(
    data_path: &mut DataPath,
    name: &'static str,
    packet: &[u8],
    packets: u64,
) -> Duration {
    let repeat = u32::try_from(packets).unwrap_or(u32::MAX);
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    let program = data_path.xdp(name).unwrap_or_else(|error| panic!("{error}"));
    program.test_run(options).unwrap().duration.saturating_mul(repeat)
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
