//! The XDP program beside an empty one, in nanoseconds a packet by the kernel's own test-run.
//!
//! `decapsulate` is a run that decapsulates and then puts the headers back, less a run that only
//! puts them back, and with the empty program's time, which both have: what a packet costs from the
//! empty program up. The parts are given too.
#![expect(unused_crate_dependencies, reason = "they belong to the test targets")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops where it cannot go on")]

#[path = "../tests/support/bpf.rs"]
mod bpf;

use std::net::SocketAddr;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use criterion::Criterion;
use gateway::kernel::bpf::{DataPath, Sa, SaDirection};
use gateway_common::program;
use gateway_tests::packet::{Ip, TCP, UDP, esp, ethernet, tcp, udp};

const SPI: u32 = 0xc123_4567;
const US: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";

/// The time of so many packets in a program. The kernel gives the mean in whole nanoseconds.
fn time(data_path: &mut DataPath, name: &'static str, packet: &[u8], packets: u64) -> Duration {
    let repeat = u32::try_from(packets).unwrap_or(u32::MAX);
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    let program = data_path.xdp(name).unwrap_or_else(|error| panic!("{error}"));
    program.test_run(options).unwrap().duration.saturating_mul(repeat)
}

fn measure(criterion: &mut Criterion, data_path: &mut DataPath) {
    let encapsulated = Ip::new(PEER, US, UDP).packet(&udp(31_000, 4500, &esp(SPI, 1356)));
    let encapsulated = ethernet(&encapsulated);
    let unknown = Ip::new(PEER, US, UDP).packet(&udp(31_000, 4500, &esp(1, 1356)));
    let unknown = ethernet(&unknown);
    let other = ethernet(&Ip::new(PEER, US, TCP).packet(&tcp(40_000, 443)));
    let mut group = criterion.benchmark_group("xdp");
    group.sample_size(20).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    for (name, program, packet) in [
        ("floor", program::PASS, &encapsulated),
        ("another protocol", program::NATT_INGRESS, &other),
        ("unknown SPI", program::NATT_INGRESS, &unknown),
        ("decapsulate and restore", program::NATT_AND_RESTORE, &encapsulated),
        ("restore", program::RESTORE, &encapsulated),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|packets| time(data_path, program, packet, packets));
        });
    }
    group.bench_function("decapsulate", |bencher| {
        bencher.iter_custom(|packets| {
            let both = time(data_path, program::NATT_AND_RESTORE, &encapsulated, packets);
            let restore = time(data_path, program::RESTORE, &encapsulated, packets);
            let floor = time(data_path, program::PASS, &encapsulated, packets);
            both.saturating_sub(restore).saturating_add(floor)
        });
    });
    group.finish();
}

fn main() {
    bpf::isolated(|bpffs| {
        let mut criterion = Criterion::default().configure_from_args();
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let from = SocketAddr::new(PEER.parse().unwrap(), 31_000);
        let direction = SaDirection::Inbound { strip: true, from };
        data_path
            .insert_sa(&Sa { destination: US.parse().unwrap(), spi: SPI, direction })
            .unwrap_or_else(|error| panic!("{error}"));
        measure(&mut criterion, &mut data_path);
        criterion.final_summary();
    });
}
