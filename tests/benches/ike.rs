//! What IKE costs that does not reach the daemon, in nanoseconds a packet.
//!
//! - `cookie`: the XDP program beside an empty one, by the kernel's own test-run. `answer` is a run
//!   that answers and then puts the request back, less a run that only cuts and puts it back, and
//!   with the empty program's time, which both have.
//! - `junk`: datagrams that are no IKE, by live frames. The floor is the program that drops them;
//!   what it is compared with lets them go through the stack into a socket, from which they are
//!   read. Both have what it costs to make the frames.
#![expect(unused_crate_dependencies, reason = "they belong to the test targets")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench stops where it cannot go on"
)]

#[path = "../tests/support/bpf.rs"]
mod bpf;
mod support;

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};
use criterion::Criterion;
use gateway::kernel::bpf::DataPath;
use gateway_common::{CookieSecret, program};
use gateway_ike::config::InitLimits;
use gateway_ike::io::SharedCookies;
use gateway_tests::packet::{Ip, UDP, ethernet, udp};
use socket2::Socket;
use support::{change, time};

const US: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";
/// Frames that a socket has room for.
const LOT: u64 = 512;

/// An IKE_SA_INIT request of the usual length.
fn request() -> Vec<u8> {
    let mut octets = vec![7; 400];
    octets[8..16].fill(0);
    octets[16..24].copy_from_slice(&[33, 0x20, 34, 0x08, 0, 0, 0, 0]);
    octets[24..28].copy_from_slice(&400_u32.to_be_bytes());
    octets
}

fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(&Ip::new(PEER, US, UDP).packet(&udp(500, port, payload)));
    // The address of the loopback interface, by which test-runs come.
    frame[..6].fill(0);
    frame
}

fn cookies(criterion: &mut Criterion, data_path: &mut DataPath) {
    let request = frame(500, &request());
    let mut group = criterion.benchmark_group("cookie");
    group.sample_size(20).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    for (name, program) in [
        ("floor", program::PASS),
        ("answer and restore", program::COOKIE_AND_RESTORE),
        ("restore", program::CUT_AND_RESTORE),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|packets| time(data_path, program, &request, packets));
        });
    }
    group.bench_function("answer", |bencher| {
        bencher.iter_custom(|packets| {
            let programs = [program::COOKIE_AND_RESTORE, program::CUT_AND_RESTORE];
            change(data_path, programs, &request, packets)
        });
    });
    group.finish();
}

/// The time of so many frames that come by a program as from the wire, with what the stack does
/// with those that pass, and with reading them.
fn live(
    data_path: &mut DataPath,
    name: &'static str,
    packet: &[u8],
    packets: u64,
    socket: &UdpSocket,
) -> Duration {
    let mut left = packets;
    let mut buffer = [0; 2048];
    let start = Instant::now();
    while left > 0 {
        let lot = left.min(LOT);
        let options = TestRunOptions {
            data_in: Some(packet),
            repeat: u32::try_from(lot).unwrap(),
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::default()
        };
        let program = data_path.xdp(name).unwrap_or_else(|error| panic!("{error}"));
        program.test_run(options).unwrap();
        let read = std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count();
        let expected = if name == program::PASS { lot } else { 0 };
        assert_eq!(u64::try_from(read), Ok(expected), "what was read from the socket");
        left = left.saturating_sub(lot);
    }
    start.elapsed()
}

fn junk(criterion: &mut Criterion, data_path: &mut DataPath) {
    let cut_off = [&[0; 4][..], &request()[..27]].concat();
    for (name, port, payload) in
        [("junk on 500", 500, &request()[..399]), ("junk on 4500", 4500, &cut_off)]
    {
        let frame = frame(port, payload);
        let socket = UdpSocket::bind((US, port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = Socket::from(socket);
        socket.set_recv_buffer_size(1 << 20).unwrap();
        let socket = UdpSocket::from(socket);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20).warm_up_time(Duration::from_secs(1));
        group.measurement_time(Duration::from_secs(3));
        for (name, program) in [("floor", program::NATT_INGRESS), ("socket", program::PASS)] {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|packets| live(data_path, program, &frame, packets, &socket));
            });
        }
        group.finish();
    }
}

fn main() {
    bpf::isolated(|bpffs| {
        for arguments in ["link set lo up", "addr add 192.0.2.1/32 dev lo"] {
            let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "ip {arguments}");
        }
        let mut criterion = Criterion::default().configure_from_args();
        let mut data_path = bpf::load(&bpf::config(bpffs));
        bpf::serve_at(&mut data_path, bpf::TEST_RUN, &[US]);
        let secret = CookieSecret { key: [1, 2], version: 1, zero: 0 };
        let cookies = SharedCookies { secrets: [secret; 2], demand: true };
        data_path.protect_ike(&InitLimits::default(), &cookies).unwrap();
        self::cookies(&mut criterion, &mut data_path);
        junk(&mut criterion, &mut data_path);
        criterion.final_summary();
    });
}
