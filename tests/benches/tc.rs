//! The search for a packet's rule beside an empty TC program, in nanoseconds a packet by the kernel's own
//! test-run, with as many rules as the group's name says, each for a prefix of its own.
//!
//! Each packet is to another prefix at random, so that no cache knows its rule. `classify` is a run that
//! picks the packet and finds its rule, less one that only picks it, and with the empty program's time.
#![expect(unused_crate_dependencies, reason = "they belong to the test targets")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops where it cannot go on")]

#[path = "../tests/support/bpf.rs"]
mod bpf;
mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use bpf::{TC_DROP, rule};
use criterion::Criterion;
use gateway::kernel::bpf::DataPath;
use gateway_common::{Action, program};
use gateway_tests::packet::{Ip, UDP, ethernet, udp};
use support::time_tc;

/// The first of the prefixes (`FIRST_PREFIX` of the programs).
const FIRST: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);

fn measure(criterion: &mut Criterion, data_path: &mut DataPath, count: u32) {
    let rules: Vec<_> = (0..count)
        .map(|number| {
            let prefix = Ipv4Addr::from_bits(FIRST.to_bits().saturating_add(number << 8));
            rule(number, "10.1.0.0/16", &format!("{prefix}/24"), Action::Protect)
        })
        .collect();
    data_path.classify(&rules).unwrap_or_else(|error| panic!("{error}"));
    // The programs read from the destination how many prefixes there are.
    let to = Ipv4Addr::from_bits(count).to_string();
    let packet = ethernet(&Ip::new("10.1.0.9", &to, UDP).packet(&udp(40_000, 53, b"?")));
    let mut group = criterion.benchmark_group(format!("tc, {count} rules"));
    group.sample_size(20).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    for (name, program) in [
        ("floor", program::PASS_TC),
        ("pick", program::PICK),
        ("pick and classify", program::CLASSIFY_PICKED),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|packets| time_tc(data_path, program, &packet, packets).0);
        });
    }
    group.bench_function("classify", |bencher| {
        bencher.iter_custom(|packets| {
            let mut time = |program| time_tc(data_path, program, &packet, packets);
            let (both, verdict) = time(program::CLASSIFY_PICKED);
            assert_eq!(verdict, TC_DROP, "a packet without a rule");
            let (pick, _) = time(program::PICK);
            both.saturating_sub(pick).saturating_add(time(program::PASS_TC).0)
        });
    });
    group.finish();
}

fn main() {
    bpf::isolated(|bpffs| {
        let mut criterion = Criterion::default().configure_from_args();
        let mut data_path = bpf::load(&bpf::config(bpffs));
        for count in [100, 10_000, 100_000] {
            measure(&mut criterion, &mut data_path, count);
        }
        criterion.final_summary();
    });
}
