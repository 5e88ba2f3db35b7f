//! A flood of IKE_SA_INIT requests in the name of many, with the XDP program before the daemon and
//! without it.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "This is test code."
)]

#[path = "support/request.rs"]
mod request;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway_tests::gateway::{Gateway, Policy};
use gateway_tests::namespace::Namespace;
use gateway_tests::packet::{Ip, UDP, udp};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::met;
use gateway_tests::strongswan::{Connection, StrongSwan};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};
use request::Initiator;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use Family::V4;

/// Requests of a flood at least, and at most while the peer has not got through; each comes from
/// another address.
const REQUESTS: u32 = 8_000;
const MOST_REQUESTS: u32 = 40_000;
/// How many are sent at once, and how long is waited after them.
const BURST: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// How long the flood goes on before the peer begins.
const BEFORE: Duration = Duration::from_secs(1);

/// Somebody on the switch.
fn attacker(topology: &Topology) -> Result<Namespace> {
    let attacker = Namespace::new("attacker")?;
    topology.middle.link("attacker", &attacker, "eth0")?;
    topology.middle.ip(&format!("link set attacker master {}", Topology::SWITCH))?;
    attacker.ip("addr add 192.0.2.66/24 dev eth0")?;
    Ok(attacker)
}

/// Sends the flood until the peer is through: what a real initiator would send, with another SPI from
/// each address. Gives how many were sent, and in which time.
fn flood(attacker: &Namespace, to: &str, through: &AtomicBool) -> Result<(u32, Duration)> {
    let mut message = Initiator::begin("192.0.2.66", to).request;
    let target: SocketAddr = format!("{to}:0").parse().context(to)?;
    attacker.enter(|| {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc_raw()))).unwrap();
        let start = Instant::now();
        let mut number = 0;
        while number < REQUESTS || number < MOST_REQUESTS && !through.load(Ordering::Relaxed) {
            let from = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number * 3);
            message[..4].copy_from_slice(&(number + 1).to_be_bytes());
            let packet = Ip::new(&from.to_string(), to, UDP).packet(&udp(500, 500, &message));
            // What does not fit into a queue is lost, as in any flood.
            drop(raw.send_to(&packet, &target.into()));
            if number % BURST == 0 {
                thread::sleep(PAUSE);
            }
            number += 1;
        }
        (number, start.elapsed())
    })
}

/// `IPPROTO_RAW`: what is sent has its IP header.
const fn libc_raw() -> i32 {
    255
}

/// CPU time of a process so far.
fn cpu_time(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).context(&path)?;
    // After the name, which may hold anything: state and 10 more, then user and system time.
    let (_, fields) = text.rsplit_once(')').context(&path)?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>());
    let ticks: u64 = ticks.sum::<core::result::Result<_, _>>().context(&path)?;
    // USER_HZ is 100 wherever Linux runs.
    Ok(Duration::from_millis(ticks * 10))
}

/// What a flood does.
struct Seen {
    /// What the daemon takes of one core, in percent.
    cpu: f64,
    /// How long the peer takes meanwhile.
    peer: Duration,
    /// Whether that was before the flood was over.
    meanwhile: bool,
    /// How many requests there were.
    requests: u32,
}

fn under_flood(
    topology: &Topology,
    attacker: &Namespace,
    server: &mut Gateway<'_>,
    peer: &StrongSwan<'_>,
) -> Result<Seen> {
    let to = topology.server.outer(V4).to_string();
    let process = server.daemon().id();
    let before = cpu_time(process)?;
    let through = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let sent = flood(attacker, &to, &through)?;
            Ok((sent, cpu_time(process)?))
        });
        thread::sleep(BEFORE);
        let start = Instant::now();
        let initiated = peer.initiate();
        let (peer, meanwhile) = (start.elapsed(), !flood.is_finished());
        through.store(true, Ordering::Relaxed);
        let ((requests, took), after) = flood.join().unwrap()?;
        initiated?;
        let cpu = (after - before).as_secs_f64() / took.as_secs_f64() * 100.0;
        Ok(Seen { cpu, peer, meanwhile, requests })
    })
}

#[test]
fn a_flood_costs_the_daemon_next_to_nothing_and_strongswan_gets_through() -> Result {
    if !met(&Pair::needed(Version::Installed))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let attacker = attacker(&topology)?;
    // Beyond this MTU veth's driver takes no program: the generic one can answer by itself, while
    // what the driver sends back reaches nobody who has no program, too.
    topology.middle.ip(&format!("link set {} mtu 9000", Topology::SERVER_PORT))?;
    let mut server =
        Gateway::start(&topology.server.gateway, &Policy::of_server(&topology, V4, V4))?;
    let programs = server.interface("eth0")?.get("programs").map(Value::to_string);
    assert!(programs.as_ref().is_some_and(|text| text.contains("generic")), "{programs:?}");
    // charon takes no answer to its request with the cookie while it is still sending that, which
    // happens where both ends have one processor.
    let settings = "retransmit_timeout = 0.5";
    let connection = Connection { settings, ..Connection::of_client(&topology, V4, V4) };
    let peer = StrongSwan::start(&topology.client.gateway, &connection)?;

    let with = under_flood(&topology, &attacker, &mut server, &peer)?;
    println!("with XDP: {:.1} % of a core, the peer after {:?}", with.cpu, with.peer);
    let answered = server.bpf_counter("ike_cookie_answered")?;
    assert!(answered > u64::from(with.requests / 2), "{answered} of {} answered", with.requests);
    assert!(with.meanwhile, "the peer came while the flood went on");
    assert!(server.bpf_counter("ike_init_with_cookie")? >= 1);
    peer.terminate()?;

    // The pin of its link is all that holds the program.
    topology.server.gateway.run("sh", &["-c", "rm /sys/fs/bpf/gateway/links/xdp-*"])?;
    let without = under_flood(&topology, &attacker, &mut server, &peer)?;
    println!("without: {:.1} % of a core, the peer after {:?}", without.cpu, without.peer);
    // In a guest with one emulated processor, which initiators, attacker and gateway share with
    // whatever else the machine does, only the ratio is worth a test.
    assert!(with.cpu * 2.0 < without.cpu, "{} % and {} %", with.cpu, without.cpu);
    Ok(())
}
