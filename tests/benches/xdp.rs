//! The XDP program beside an empty one, in nanoseconds a packet by the kernel's own test-run.
//!
//! `decapsulate` is a run that decapsulates and then puts the headers back, less a run that only
//! puts them back, and with the empty program's time, which both have: what a packet costs from the
//! empty program up. The parts are given too.
#![expect(unused_crate_dependencies, reason = "they belong to the test targets")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops where it cannot go on")]

#[path = "../tests/support/bpf.rs"]
mod bpf;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use criterion::Criterion;
use gateway::kernel::bpf::{DataPath, Sa, SaDirection};
use gateway_common::program;
use gateway_tests::packet::{Ip, TCP, UDP, esp, ethernet, tcp, udp};
use support::{change, time};

const SPI: u32 = 0xc123_4567;
const US: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";

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
            let programs = [program::NATT_AND_RESTORE, program::RESTORE];
            change(data_path, programs, &encapsulated, packets)
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
