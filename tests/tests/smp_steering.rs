//! Inbound SAs on the CPUs that they were given: none lost, none reordered.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use bpf::{Outcome, TEST_RUN, XDP_PASS, isolated, serve_at, through_xdp};
use gateway::kernel::bpf::{DataPath, DataPathConfig, NotSteered, Sa, SaDirection, XdpMode};
use gateway_common::{Reason, map};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::namespace::Namespace;
use gateway_tests::packet::{ESP, Ip, UDP, esp, ethernet, tagged, udp};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Error, Result};
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use Family::{V4, V6};

const XDP_REDIRECT: u32 = 4;
const SPIS: [u32; 2] = [0xc123_4567, 0xc123_4568];
const PEERS: [(&str, &str); 2] = [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")];
const OTHERS: [&str; 2] = ["192.0.2.77", "2001:db8::77"];
/// Of an SA that the programs hand nowhere.
const KERNEL_SPI: u32 = 0xc123_4569;

/// The CPUs on which this thread may run.
fn cpus() -> Vec<u32> {
    let may = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let set = (0..CpuSet::count()).filter(|cpu| may.is_set(*cpu).unwrap());
    set.map(|cpu| u32::try_from(cpu).unwrap()).collect()
}

fn steering(bpffs: &Path) -> DataPathConfig {
    DataPathConfig { steer_cpus: true, ..bpf::config(bpffs) }
}

fn insert(data_path: &mut DataPath, (peer, local): (&str, &str), spi: u32, port: u16, strip: bool) {
    let from = SocketAddr::new(peer.parse().unwrap(), port);
    let direction = SaDirection::Inbound { strip, from };
    let sa = Sa { destination: local.parse().unwrap(), spi, direction };
    data_path.insert_sa(&sa).unwrap();
}

fn outcome(verdict: u32, packet: &[u8], counted: &[Reason]) -> Outcome {
    let counted = counted.iter().map(|reason| (*reason, 1)).collect();
    Outcome { verdict, packet: packet.to_vec(), counted }
}

#[test]
fn what_an_inbound_sa_brings_goes_to_its_cpu_or_on_where_it_is() {
    use Reason::{BadLength, KernelDecapsulates, NotSteered, Readdressed, Steered, Stripped};
    if !met(&[Requirement::TwoCpus]).unwrap() {
        return;
    }
    isolated(|bpffs| {
        let mut data_path = bpf::load(&steering(bpffs));
        assert_eq!(data_path.steering(), Ok(cpus().len()));
        let data_path = &mut data_path;
        for ends in PEERS {
            insert(data_path, ends, SPIS[0], 31_000, true);
            insert(data_path, ends, SPIS[1], 0, true);
            insert(data_path, ends, KERNEL_SPI, 31_000, false);
        }
        let ours: Vec<&str> = PEERS.iter().map(|(_, us)| *us).chain(OTHERS).collect();
        for ((source, us), other) in PEERS.into_iter().zip(OTHERS) {
            let from = SocketAddr::new(source.parse().unwrap(), 0);
            let (at, to) = (other.parse().unwrap(), us.parse().unwrap());
            data_path.reach_sa_at(at, SPIS[1], to, from).unwrap();
            let in_udp = |spi| Ip::new(source, us, UDP).packet(&udp(31_000, 4500, &esp(spi, 40)));
            let bare = |to, spi| Ip::new(source, to, ESP).packet(&esp(spi, 40));
            let table = [
                (in_udp(SPIS[0]), bare(us, SPIS[0]), Some(Stripped)),
                (bare(us, SPIS[1]), bare(us, SPIS[1]), None),
                (bare(other, SPIS[1]), bare(us, SPIS[1]), Some(Readdressed)),
                (in_udp(KERNEL_SPI), in_udp(KERNEL_SPI), Some(KernelDecapsulates)),
            ];
            for (packet, expected, reason) in table {
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let [packet, expected] = [&packet, &expected].map(|of| tagged(tags, of));
                    for (interface, verdict, how) in
                        [(TEST_RUN, XDP_REDIRECT, Steered), (TEST_RUN + 1, XDP_PASS, NotSteered)]
                    {
                        serve_at(data_path, interface, &ours);
                        let mut reasons: Vec<Reason> = reason.into_iter().chain([how]).collect();
                        reasons.sort_unstable();
                        let expected = outcome(verdict, &expected, &reasons);
                        assert_eq!(through_xdp(data_path, &packet), expected, "{tags:x?}");
                    }
                }
            }
            serve_at(data_path, TEST_RUN, &ours);
            // What is dropped goes nowhere.
            let mut lying = ethernet(&in_udp(SPIS[0]));
            let length = if source.contains('.') { 14 + 24 } else { 14 + 44 };
            lying[length + 1] += 1;
            let found = through_xdp(data_path, &lying);
            assert_eq!(found.counted, [(BadLength, 1)]);
            // What no CPU takes goes on.
            let pin = MapData::from_pin(bpffs.join("gateway").join(map::CPUS)).unwrap();
            let mut map = HashMap::<_, u32, u64>::try_from(Map::HashMap(pin)).unwrap();
            let queues: Vec<(u32, u64)> =
                cpus().iter().map(|cpu| (*cpu, map.get(cpu, 0).unwrap())).collect();
            for (cpu, _) in &queues {
                map.remove(cpu).unwrap();
            }
            let (packet, bare) = (ethernet(&in_udp(SPIS[0])), ethernet(&bare(us, SPIS[0])));
            let expected = outcome(XDP_PASS, &bare, &[Stripped, NotSteered]);
            assert_eq!(through_xdp(data_path, &packet), expected, "nobody takes it");
            for (cpu, queue) in queues {
                // The queue's length is the first half.
                map.insert(cpu, queue & u64::from(u32::MAX), 0).unwrap();
            }
            let expected = outcome(XDP_REDIRECT, &bare, &[Stripped, Steered]);
            assert_eq!(through_xdp(data_path, &packet), expected);
        }
    });
}

#[test]
fn with_one_cpu_or_unasked_every_packet_stays_where_it_is() {
    isolated(|bpffs| {
        let (peer, us) = PEERS[0];
        let esp = esp(SPIS[0], 40);
        let packet = ethernet(&Ip::new(peer, us, UDP).packet(&udp(31_000, 4500, &esp)));
        let bare = ethernet(&Ip::new(peer, us, ESP).packet(&esp));
        let passes = |data_path: &mut DataPath| {
            insert(data_path, (peer, us), SPIS[0], 31_000, true);
            serve_at(data_path, TEST_RUN, &[us]);
            let expected = outcome(XDP_PASS, &bare, &[Reason::Stripped]);
            assert_eq!(through_xdp(data_path, &packet), expected);
        };
        let mut unasked = bpf::load(&bpf::config(bpffs));
        assert_eq!(unasked.steering(), Err(NotSteered::NotWanted));
        passes(&mut unasked);
        // The thread is this test's own.
        let mut one = CpuSet::new();
        one.set(usize::try_from(cpus()[0]).unwrap()).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let mut alone = bpf::load(&steering(bpffs));
        assert_eq!(alone.steering(), Err(NotSteered::OneCpu));
        passes(&mut alone);
    });
}

/// A raw socket that gets the ESP which this CPU handles.
fn of_cpu(us: &Namespace, cpu: u32) -> Socket {
    // linux/filter.h: where a load finds the number of the CPU instead of the packet.
    const CPU: u32 = (-0x1000_i32 + 36).cast_unsigned();
    let op = |code: u32, jf, k| SockFilter::new(u16::try_from(code).unwrap(), 0, jf, k);
    let program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, CPU),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, cpu),
        op(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
    let socket = us.enter(raw).unwrap();
    socket.attach_filter(&program).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Rounds, and packets of each SA in one.
const ROUNDS: u32 = 20;
const EACH: u32 = 25;

/// Two SAs of one peer on a wire: `link` is what has the address, attached in this mode.
fn two_sas_arrive(us: &Namespace, peer: &Namespace, bpffs: &Path, link: &str, mode: XdpMode) {
    let (from, to) = PEERS[0];
    let index = us.enter(|| nix::net::if_::if_nametoindex(link).unwrap()).unwrap();
    let prepare = || {
        let mut data_path = bpf::load(&steering(bpffs));
        serve_at(&mut data_path, index, &[to]);
        insert(&mut data_path, (from, to), SPIS[0], 31_000, true);
        insert(&mut data_path, (from, to), SPIS[1], 0, true);
        let attached = us.enter(|| data_path.attach(link).unwrap()).unwrap();
        assert_eq!(attached.xdp, mode);
        data_path
    };
    let mut data_path = prepare();
    let sockets: Vec<(u32, Socket)> = cpus().iter().map(|cpu| (*cpu, of_cpu(us, *cpu))).collect();
    let client = peer
        .enter(|| {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
            (UdpSocket::bind((from, 31_000)).unwrap(), raw)
        })
        .unwrap();
    let to: IpAddr = to.parse().unwrap();
    let mut seen: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            // Another run takes over, and does not lose what is on its way.
            data_path = prepare();
        }
        for nth in 0..EACH {
            let sequence = (round * EACH + nth).to_be_bytes();
            let of = |spi: u32| [&spi.to_be_bytes()[..], &sequence, &[7; 600]].concat();
            client.0.send_to(&of(SPIS[0]), (to, 4500)).unwrap();
            client.1.send_to(&of(SPIS[1]), &SocketAddr::new(to, 0).into()).unwrap();
        }
        let wanted = usize::try_from((round + 1) * EACH * 2).unwrap();
        for _ in 0..500 {
            for (cpu, socket) in &sockets {
                let (mut socket, mut octets) = (socket, [0; 2048]);
                while socket.read(&mut octets).is_ok() {
                    let number =
                        |at: usize| u32::from_be_bytes(octets[at..at + 4].try_into().unwrap());
                    seen.entry(number(20)).or_default().push((*cpu, number(24)));
                }
            }
            if seen.values().map(Vec::len).sum::<usize>() >= wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let mut used = BTreeSet::new();
    for spi in SPIS {
        let packets = &seen[&spi];
        let sequence: Vec<u32> = packets.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(sequence, (0..ROUNDS * EACH).collect::<Vec<_>>(), "{spi:x}: all, in order");
        let on: BTreeSet<u32> = packets.iter().map(|(cpu, _)| *cpu).collect();
        assert_eq!(on.len(), 1, "{spi:x}: on one CPU, not {on:?}");
        used.extend(on);
    }
    assert_eq!(used.len(), 2, "each on its own");
    let counters = bpf::counters(&data_path);
    assert_eq!(counters[&Reason::Steered], u64::from(ROUNDS * EACH * 2));
    assert_eq!(counters[&Reason::NotSteered], 0);
}

#[test]
fn two_sas_of_a_peer_are_handled_by_two_cpus_each_in_order() {
    if !met(&[Requirement::TwoCpus]).unwrap() {
        return;
    }
    for (link, mode) in [("eth0", XdpMode::Driver), ("br0", XdpMode::Generic)] {
        isolated(|bpffs| {
            let [us, peer] = ["us", "peer"].map(|name| Namespace::new(name).unwrap());
            us.link("eth0", &peer, "eth0").unwrap();
            if link != "eth0" {
                // A bridge has no XDP of its own.
                us.ip("link add br0 type bridge\nlink set br0 up\nlink set eth0 master br0")
                    .unwrap();
            }
            us.ip(&format!("addr add {}/24 dev {link}", PEERS[0].1)).unwrap();
            peer.ip(&format!("addr add {}/24 dev eth0", PEERS[0].0)).unwrap();
            two_sas_arrive(&us, &peer, bpffs, link, mode);
        });
    }
}

/// Sends numbered datagrams through both Child SAs and returns on which CPUs those of each arrived.
///
/// # Errors
/// One is lost, or out of order.
fn on_which(topology: &Topology) -> Result<[BTreeSet<usize>; 2]> {
    let mut used = [BTreeSet::new(), BTreeSet::new()];
    let mut pairs = Vec::new();
    for family in [V4, V6] {
        let [from, to] = [&topology.client, &topology.server]
            .map(|site| (site, SocketAddr::new(site.host_address(family), 7000)));
        let sender = from.0.host.enter(|| UdpSocket::bind(from.1))?.context("a sender")?;
        let receiver = to.0.host.enter(|| UdpSocket::bind(to.1))?.context("a receiver")?;
        // Only for a connected one the kernel notes the CPU (`__udp_queue_rcv_skb`).
        receiver.connect(from.1).context("connect")?;
        receiver.set_read_timeout(Some(Duration::from_secs(10))).context("a timeout")?;
        pairs.push((sender, receiver, to.1));
    }
    for round in 0..30_u32 {
        let numbers = round * 10..(round + 1) * 10;
        for number in numbers.clone() {
            for (sender, _, to) in &pairs {
                sender.send_to(&number.to_be_bytes(), to).context("send")?;
            }
        }
        for number in numbers {
            for ((_, receiver, to), used) in pairs.iter().zip(&mut used) {
                let mut octets = [0; 4];
                receiver.recv(&mut octets).context(format_args!("{number} to {to}"))?;
                if octets != number.to_be_bytes() {
                    return Err(Error::new(format!("{octets:?} came to {to}, not {number}")));
                }
                used.insert(SockRef::from(receiver).cpu_affinity().context("SO_INCOMING_CPU")?);
            }
        }
    }
    Ok(used)
}

#[test]
fn two_child_sas_of_a_peer_are_decrypted_by_two_cpus() -> Result {
    if !met(&[Requirement::TwoCpus, Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    for between in [Between::Switch, Between::Nat] {
        let topology = Topology::new(between)?;
        let (client, server) = (&topology.client, &topology.server);
        let both = |policy: Policy, [us, peer]: [String; 2]| {
            let mut other = policy.rules[0].clone();
            "other".clone_into(&mut other.name);
            (other.local, other.remote) = (vec![us], vec![peer]);
            let rules = [policy.rules.clone(), vec![other]].concat();
            Policy { rules, settings: "steer-cpus = true".to_owned(), ..policy }
        };
        let prefixes = [client.prefix(V6), server.prefix(V6)];
        let of_client = Policy::of_client(&topology, V4, V4)
            .with_rules(|rule| rule.lifetime = Some("5s".to_owned()));
        let of_client = both(of_client, prefixes.clone());
        let [at_client, at_server] = prefixes;
        let of_server = both(Policy::of_server(&topology, V4, V4), [at_server, at_client]);
        let at_server = Gateway::start(&server.gateway, &of_server)?;
        let at_client = Gateway::start(&client.gateway, &of_client)?;
        for family in [V4, V6] {
            ping_until_answered(&client.host, server.host_address(family), PATIENCE)?;
        }
        for rule in [RULE, "other"] {
            at_client.wait_child(rule)?;
        }
        assert!(at_server.status_text(&[])?.contains("over 2 CPUs"));
        let before = at_server.bpf_counter("esp_steered")?;
        let on = on_which(&topology)?;
        let [one, other] = &on;
        assert_eq!((one.len(), other.len()), (1, 1), "{one:?} {other:?}");
        assert_ne!(one, other, "each on its own");
        assert!(at_server.bpf_counter("esp_steered")? - before >= 600);
        assert_eq!(at_server.bpf_counter("esp_not_steered")?, 0);

        // Those that replace them follow them there.
        at_client.wait_counter("child_sa_rekeyed", 3)?;
        assert_eq!(on_which(&topology)?, on);

        // A CPU goes away: its work is done by the other, also in order. Not on somebody's machine.
        if std::env::var_os("GATEWAY_VM").is_some() {
            let online = "/sys/devices/system/cpu/cpu1/online";
            fs::write(online, "0").context(online)?;
            let found = on_which(&topology);
            fs::write(online, "1").context(online)?;
            assert_eq!(found?, [BTreeSet::from([0]), BTreeSet::from([0])]);
        }
    }
    Ok(())
}
