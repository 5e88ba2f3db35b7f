//! The programs attached: packets over a veth pair between two network namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "../support/bpf.rs"]
mod bpf;

mod cookies;
mod refusals;
mod taking_over;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bpf::{isolated, rule};
use caps::{CapSet, Capability};
use gateway::kernel::bpf::{
    self as data_path, Attached, BpfError, Claim, DataPath, DataPathConfig, LogLevel, Sa,
    SaDirection, TcMode, XdpMode,
};
use gateway_common::{Action, Reason, room};
use gateway_tests::namespace::Namespace;
use gateway_tests::packet::esp;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const SPI: u32 = 0xc123_4567;
const US: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";
const US_V6: &str = "2001:db8::1";
const PEER_V6: &str = "2001:db8::2";

/// How long a packet may take.
const SOON: Duration = Duration::from_secs(5);
/// How long to wait for one that is not to come.
const A_WHILE: Duration = Duration::from_millis(200);

/// A gateway and its peer on one wire, `eth0` to `eth0`; the gateway has another link `sink`.
struct Wire {
    us: Namespace,
    peer: Namespace,
    sink: Namespace,
}

impl Wire {
    fn new() -> Self {
        let [us, peer, sink] = ["us", "peer", "sink"].map(|name| Namespace::new(name).unwrap());
        us.link("eth0", &peer, "eth0").unwrap();
        us.link("sink", &sink, "eth0").unwrap();
        // What is counted there is to be what the programs sent, not what IPv6 says by itself.
        us.sysctl("net/ipv6/conf/sink/disable_ipv6", "1").unwrap();
        let addresses =
            |v4, v6| format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad");
        us.ip(&addresses(US, US_V6)).unwrap();
        peer.ip(&addresses(PEER, PEER_V6)).unwrap();
        Self { us, peer, sink }
    }

    fn index(&self, name: &str) -> u32 {
        self.us.enter(|| nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
    }

    /// Packets that came out of the link `sink`.
    fn sunk(&self) -> u64 {
        let text = self.sink.run("cat", &["/sys/class/net/eth0/statistics/rx_packets"]).unwrap();
        text.trim().parse().unwrap()
    }
}

/// Runs a test with a wire and a bpffs.
fn on_a_wire(test: impl FnOnce(&Wire, &Path) + Send) {
    isolated(|bpffs| test(&Wire::new(), bpffs));
}

fn loaded(wire: &Wire, bpffs: &Path) -> DataPath {
    let config = DataPathConfig { xfrm_ifindex: wire.index("sink"), ..bpf::config(bpffs) };
    bpf::load(&config)
}

fn attach(wire: &Wire, data_path: &mut DataPath) -> Attached {
    let attached = wire.us.enter(|| data_path.attach("eth0")).unwrap();
    attached.unwrap_or_else(|error| panic!("{error}"))
}

fn count(data_path: &DataPath, reason: Reason) -> u64 {
    bpf::counters(data_path)[&reason]
}

fn udp_socket(namespace: &Namespace, address: &str, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let socket = namespace.enter(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Whether datagrams from one socket get through to the other before long: the kernel detaches a
/// link whose last pin is gone a little later.
fn get_through(from: &UdpSocket, to: &UdpSocket) -> bool {
    (0..50).any(|_| arrives(from, to, A_WHILE))
}

/// Whether a datagram from one socket reaches the other.
fn arrives(from: &UdpSocket, to: &UdpSocket, patience: Duration) -> bool {
    comes(from, to, b"in the clear", patience)
}

/// Whether this does.
fn comes(from: &UdpSocket, to: &UdpSocket, what: &[u8], patience: Duration) -> bool {
    to.set_read_timeout(Some(patience)).unwrap();
    from.send_to(what, to.local_addr().unwrap()).unwrap();
    to.recv(&mut [0; 64]).is_ok()
}

#[test]
fn esp_arrives_without_the_udp_header_it_was_sent_with() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        for (destination, peer) in [(US, PEER), (US_V6, PEER_V6)] {
            let destination = destination.parse().unwrap();
            let from = SocketAddr::new(peer.parse().unwrap(), 31_000);
            let direction = SaDirection::Inbound { strip: true, from };
            data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
        }
        let attached = attach(wire, &mut data_path);
        assert_eq!(attached.xdp, XdpMode::Driver, "veth has XDP");
        let sent = esp(SPI, 200);
        for (family, us, peer) in [(Domain::IPV4, US, PEER), (Domain::IPV6, US_V6, PEER_V6)] {
            let raw = wire
                .us
                .enter(|| Socket::new(family, Type::RAW, Some(Protocol::from(50))).unwrap())
                .unwrap();
            raw.set_read_timeout(Some(SOON)).unwrap();
            let socket = udp_socket(&wire.us, us, 4500);
            let client = udp_socket(&wire.peer, peer, 31_000);
            let to = SocketAddr::new(us.parse().unwrap(), 4500);
            client.send_to(&sent, to).unwrap();
            let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
            let (length, from): (usize, SockAddr) = raw.recv_from(&mut buffer).unwrap();
            assert_eq!(from.as_socket().unwrap().ip(), peer.parse::<IpAddr>().unwrap());
            // A raw socket of IPv4 shows the IP header, one of IPv6 does not.
            let header = if family == Domain::IPV4 { 20 } else { 0 };
            assert_eq!(length, header + sent.len());
            assert_eq!(count(&data_path, Reason::Stripped), if header > 0 { 1 } else { 2 });
            // An unknown SPI, and IKE, reach the daemon's socket.
            let ike = [&[0; 4][..], b"an IKE message"].concat();
            for datagram in [&esp(SPI + 1, 8)[..], &ike] {
                client.send_to(datagram, to).unwrap();
                let mut buffer = [0; 64];
                let (length, _) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], datagram);
            }
        }
        assert_eq!(count(&data_path, Reason::UnknownSpi), 2);
        assert_eq!(count(&data_path, Reason::IkeOn4500), 2);
    });
}

#[test]
fn clear_traffic_of_a_protected_peer_does_not_come_in() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        bpf::serve_at(&mut data_path, wire.index("eth0"), &[US, US_V6]);
        // The header of an INFORMATIONAL request, and an Encrypted payload.
        let header = [&[7; 16][..], &[46, 0x20, 37, 0x08], &[0, 0, 0, 9], &36_u32.to_be_bytes()];
        let question = [header.concat(), vec![0, 0, 0, 8, 1, 2, 3, 4]].concat();
        for (us, peer) in [(US, PEER), (US_V6, PEER_V6)] {
            let server = udp_socket(&wire.us, us, 7000);
            let ike = udp_socket(&wire.us, us, 500);
            let client = udp_socket(&wire.peer, peer, 31_000);
            assert!(arrives(&client, &server, SOON), "nothing is attached, or selected");
            let length = if us == US { 32 } else { 128 };
            let local = format!("{us}/{length}");
            let remote = format!("{peer}/{length}");
            data_path.classify(&[rule(1, &local, &remote, Action::Protect)]).unwrap();
            attach(wire, &mut data_path);
            assert!(!arrives(&client, &server, A_WHILE));
            assert!(comes(&client, &ike, &question, SOON));
        }
        assert_eq!(count(&data_path, Reason::ClearInbound), 2);
    });
}

#[test]
fn selected_traffic_leaves_by_the_other_interface_and_nothing_by_the_wire() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        data_path
            .classify(&[
                rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect),
                rule(2, "2001:db8::1/128", "2001:db8::2/128", Action::Protect),
            ])
            .unwrap();
        attach(wire, &mut data_path);
        for (us, peer) in [(US, PEER), (US_V6, PEER_V6)] {
            let client = udp_socket(&wire.us, us, 31_000);
            let server = udp_socket(&wire.peer, peer, 7000);
            let before = wire.sunk();
            assert!(!arrives(&client, &server, A_WHILE));
            assert!(wire.sunk() > before);
        }
        assert_eq!(count(&data_path, Reason::Protected), 2);
    });
}

#[test]
fn a_link_without_ethernet_headers_is_guarded_too() {
    on_a_wire(|wire, bpffs| {
        // A stock kernel has it as a module, and no udev may be there to load it.
        drop(wire.us.run("modprobe", &["tun"]));
        wire.us
            .ip("tuntap add dev tun0 mode tun\nlink set tun0 up\naddr add 10.8.0.1/24 dev tun0")
            .unwrap();
        let mut data_path = loaded(wire, bpffs);
        data_path.classify(&[rule(1, "10.8.0.1/32", "10.8.0.2/32", Action::Discard)]).unwrap();
        let attached = wire.us.enter(|| data_path.attach("tun0").unwrap()).unwrap();
        assert_eq!(attached.xdp, XdpMode::None);
        let client = udp_socket(&wire.us, "10.8.0.1", 31_000);
        for (to, expected) in [("10.8.0.3", 0), ("10.8.0.2", 1)] {
            // The kernel may tell the sender that the packet was dropped.
            drop(client.send_to(b"in the clear", (to, 7000)));
            assert_eq!(count(&data_path, Reason::DiscardedOut), expected, "{to}");
        }
        assert_eq!(count(&data_path, Reason::UnreadableOut), 0);
    });
}

#[test]
fn programs_of_others_at_tc_run_after_ours_and_stay() {
    on_a_wire(|wire, bpffs| {
        // A filter that accepts everything would end the walk.
        let accept = "filter add dev eth0 ingress prio 7 matchall action ok";
        if tc(&wire.us, "qdisc add dev eth0 clsact").is_err() || tc(&wire.us, accept).is_err() {
            // A kernel without this classifier has another's programs in other places.
            return;
        }
        let mut data_path = loaded(wire, bpffs);
        let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
        data_path.classify(&[protect]).unwrap();
        attach(wire, &mut data_path);
        let server = udp_socket(&wire.us, US, 7000);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        assert!(!arrives(&client, &server, A_WHILE));
        let pins = bpf::config(bpffs).pin_dir;
        drop(data_path);
        wire.us.enter(|| data_path::remove(&pins).unwrap()).unwrap();
        assert!(get_through(&client, &server));
        let left = wire.us.run("tc", &["filter", "show", "dev", "eth0", "ingress"]).unwrap();
        assert!(left.contains("matchall"), "{left}");
    });
}

fn tc(namespace: &Namespace, line: &str) -> gateway_tests::Result<String> {
    namespace.run("tc", &line.split(' ').collect::<Vec<_>>())
}

#[test]
fn the_tc_programs_use_links_where_the_kernel_has_them() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        let expected = if version >= (6, 6) { TcMode::Tcx } else { TcMode::Clsact };
        assert_eq!(attach(wire, &mut data_path).tc, expected, "kernel {release}");
    });
}

#[test]
fn what_the_programs_log_can_be_read() {
    on_a_wire(|wire, bpffs| {
        // As the daemon writes its log, but that it can be read here; before anything is loaded.
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        let config = DataPathConfig { log: LogLevel::Trace, ..bpf::config(bpffs) };
        let mut data_path = bpf::load(&config);
        data_path.classify(&[rule(1, "0.0.0.0/0", "0.0.0.0/0", Action::Discard)]).unwrap();
        attach(wire, &mut data_path);
        let mut log = data_path.take_log().expect("a log");
        assert!(data_path.take_log().is_none(), "it was taken");
        let client = udp_socket(&wire.us, US, 31_000);
        drop(client.send_to(b"in the clear", (PEER, 7000)));
        let fd = std::os::fd::AsFd::as_fd(&log);
        let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut fds, 5000_u16), Ok(1));
        log.flush();
        let line = format!("reason {}, ", Reason::DiscardedOut.index());
        let text = lines.text();
        assert!(text.contains("TRACE") && text.contains(&line), "no `{line}` in: {text}");
    });
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|error| io::Error::other(error.to_string()))?.extend(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
