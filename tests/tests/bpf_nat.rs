//! A gateway that masquerades what leaves by its underlay: what the rules select keeps its source.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use bpf::{isolated, rule};
use gateway::kernel::bpf::{self as data_path, DataPath, DataPathConfig, Decided, Tracer, Wish};
use gateway::kernel::nat::{NatExemption, NatInterfaces};
use gateway_common::{Action, Hook, Reason};
use gateway_tests::namespace::Namespace;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// How long a packet may take.
const SOON: Duration = Duration::from_secs(5);
/// How long to wait for one that is not to come.
const A_WHILE: Duration = Duration::from_millis(200);

/// A protected pair, one that a rule lets pass, and one that no rule knows: our pod's or host's
/// address, and those of the peer's.
struct Addresses {
    pod: &'static str,
    host: &'static str,
    protected: &'static str,
    bypassed: &'static str,
    unknown: &'static str,
    /// The rule that protects.
    rule: u32,
}

const V4: Addresses = Addresses {
    pod: "10.1.0.2",
    host: "10.1.0.1",
    protected: "10.2.0.2",
    bypassed: "10.2.0.3",
    unknown: "10.3.0.2",
    rule: 2,
};
const V6: Addresses = Addresses {
    pod: "fd01::2",
    host: "fd01::1",
    protected: "fd02::2",
    bypassed: "fd02::3",
    unknown: "fd03::2",
    rule: 4,
};

/// A pod behind a gateway, which masquerades on `eth0` to a peer; the gateway has another link
/// `sink`, where the XFRM interface would be.
struct Node {
    us: Namespace,
    pod: Namespace,
    peer: Namespace,
    sink: Namespace,
}

impl Node {
    fn new() -> Self {
        let [us, pod, peer, sink] =
            ["us", "pod", "peer", "sink"].map(|name| Namespace::new(name).unwrap());
        us.link("eth0", &peer, "eth0").unwrap();
        us.link("pod", &pod, "eth0").unwrap();
        us.link("sink", &sink, "eth0").unwrap();
        us.sysctl("net/ipv6/conf/sink/disable_ipv6", "1").unwrap();
        us.sysctl("net/ipv4/ip_forward", "1").unwrap();
        us.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        us.ip("addr add 192.0.2.1/24 dev eth0\n\
               addr add 2001:db8::1/64 dev eth0 nodad\n\
               addr add 10.1.0.1/24 dev pod\n\
               addr add fd01::1/64 dev pod nodad\n\
               route add default via 192.0.2.2\n\
               route add default via 2001:db8::2")
            .unwrap();
        pod.ip("addr add 10.1.0.2/24 dev eth0\n\
                addr add fd01::2/64 dev eth0 nodad\n\
                route add default via 10.1.0.1\n\
                route add default via fd01::1")
            .unwrap();
        peer.ip("addr add 192.0.2.2/24 dev eth0\n\
                 addr add 2001:db8::2/64 dev eth0 nodad\n\
                 route add default via 192.0.2.1\n\
                 route add default via 2001:db8::1")
            .unwrap();
        for address in [V4.protected, V4.bypassed, V4.unknown] {
            peer.ip(&format!("addr add {address}/32 dev lo")).unwrap();
        }
        for address in [V6.protected, V6.bypassed, V6.unknown] {
            peer.ip(&format!("addr add {address}/128 dev lo nodad")).unwrap();
        }
        us.nft(MASQUERADE).unwrap();
        Self { us, pod, peer, sink }
    }

    /// Packets that came out of the link `sink`.
    fn sunk(&self) -> u64 {
        let text = self.sink.run("cat", &["/sys/class/net/eth0/statistics/rx_packets"]).unwrap();
        text.trim().parse().unwrap()
    }

    fn exempt(&self, data_path: &mut DataPath) -> NatExemption {
        let interfaces =
            NatInterfaces { underlays: vec!["eth0".to_owned()], xfrm: "sink".to_owned() };
        let mut exemption = NatExemption::new(interfaces);
        let outcome = self.us.enter(|| exemption.put(data_path)).unwrap();
        outcome.unwrap_or_else(|error| panic!("{error}"));
        exemption
    }
}

const MASQUERADE: &str = "table inet other {
    chain forwarded {
        type nat hook postrouting priority srcnat
        oifname \"eth0\" masquerade
    }
}";

/// Runs a test with the programs attached, and rules for both families.
fn on_a_node(test: impl FnOnce(&Node, &mut DataPath, &Path) + Send) {
    isolated(|bpffs| {
        let node = Node::new();
        let index = |name: &'static str| {
            node.us.enter(|| nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
        };
        let config = DataPathConfig { xfrm_ifindex: index("sink"), ..bpf::config(bpffs) };
        let mut data_path = bpf::load(&config);
        test(&node, &mut data_path, bpffs);
    });
}

/// The rules, and the programs on the underlay.
fn guard(node: &Node, data_path: &mut DataPath) {
    data_path
        .classify(&[
            rule(1, "10.1.0.0/24", "10.2.0.3/32", Action::Bypass),
            rule(2, "10.1.0.0/24", "10.2.0.0/24", Action::Protect),
            rule(3, "fd01::/64", "fd02::3/128", Action::Bypass),
            rule(4, "fd01::/64", "fd02::/64", Action::Protect),
        ])
        .unwrap();
    node.us.enter(|| data_path.attach("eth0").unwrap()).unwrap();
}

fn socket(namespace: &Namespace, address: &str, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    namespace.enter(|| UdpSocket::bind(address).unwrap()).unwrap()
}

/// From where a datagram from one socket reaches the other, if it does.
fn seen_from(from: &UdpSocket, to: &UdpSocket, patience: Duration) -> Option<SocketAddr> {
    seen_at(from, to.local_addr().unwrap(), to, patience)
}

/// The same of one to an address that NAT may change.
fn seen_at(
    from: &UdpSocket,
    address: SocketAddr,
    to: &UdpSocket,
    patience: Duration,
) -> Option<SocketAddr> {
    to.set_read_timeout(Some(patience)).unwrap();
    from.send_to(b"in the clear", address).unwrap();
    to.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}

/// What is told of packets for one reason while something happens.
fn traced(bpffs: &Path, reason: Reason, happens: impl FnOnce()) -> Vec<Decided> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let pins = bpf::config(bpffs).pin_dir;
    let mut tracer = runtime.block_on(async { Tracer::open(&pins) }).unwrap();
    let (passed, selected, rate, octets) = (false, None, 1000, 192);
    tracer.wish(&Wish { reasons: vec![reason], passed, selected, rate, octets }).unwrap();
    happens();
    let mut all = Vec::new();
    runtime.block_on(async {
        while let Ok(decided) = timeout(A_WHILE, tracer.next()).await {
            all.push(decided.unwrap());
        }
    });
    all
}

fn count(data_path: &DataPath, reason: Reason) -> u64 {
    bpf::counters(data_path)[&reason]
}

#[test]
fn what_a_rule_protects_is_steered_in_spite_of_masquerading() {
    on_a_node(|node, data_path, _| {
        guard(node, data_path);
        for (addresses, outside) in [(V4, "192.0.2.1"), (V6, "2001:db8::1")] {
            let server = socket(&node.peer, addresses.protected, 7000);
            for (from, address) in [(&node.pod, addresses.pod), (&node.us, addresses.host)] {
                let seen = seen_from(&socket(from, address, 4444), &server, SOON);
                let seen = seen.map(|from| from.ip().to_string());
                assert_eq!(seen.as_deref(), Some(outside), "what the exemption is against");
            }
        }
        let _exemption = node.exempt(data_path);
        let mut steered = 0;
        for addresses in [V4, V6] {
            let server = socket(&node.peer, addresses.protected, 7000);
            // What is forwarded, and what the gateway itself sends.
            for (from, address) in [(&node.pod, addresses.pod), (&node.us, addresses.host)] {
                let client = socket(from, address, 5555);
                let before = node.sunk();
                for _ in 0..3 {
                    assert_eq!(seen_from(&client, &server, A_WHILE), None, "{address} leaks");
                    steered += 1;
                }
                assert_eq!(node.sunk(), before + 3, "{address}");
            }
        }
        assert_eq!(count(data_path, Reason::Protected), steered);
        assert_eq!(count(data_path, Reason::Translated), 0);
    });
}

#[test]
fn what_no_rule_protects_is_masqueraded_as_before() {
    on_a_node(|node, data_path, _| {
        guard(node, data_path);
        let _exemption = node.exempt(data_path);
        for (addresses, outside) in [(V4, "192.0.2.1"), (V6, "2001:db8::1")] {
            for to in [addresses.bypassed, addresses.unknown] {
                let server = socket(&node.peer, to, 7000);
                let client = socket(&node.pod, addresses.pod, 5555);
                let seen = seen_from(&client, &server, SOON).map(|from| from.ip().to_string());
                assert_eq!(seen.as_deref(), Some(outside), "{to}");
            }
        }
    });
}

#[test]
fn a_connection_that_was_masqueraded_before_a_rule_selects_it_is_dropped_and_told() {
    on_a_node(|node, data_path, bpffs| {
        let families = [(V4, "192.0.2.1"), (V6, "2001:db8::1")];
        for (before, (addresses, outside)) in (0..).zip(families) {
            let server = socket(&node.peer, addresses.protected, 7000);
            let client = socket(&node.pod, addresses.pod, 5555);
            let seen = seen_from(&client, &server, SOON).unwrap();
            assert_eq!(seen.ip().to_string(), outside, "no rule selects it so far");
            assert!(seen_at(&server, seen, &client, SOON).is_some(), "nor what answers");
            guard(node, data_path);
            let _exemption = node.exempt(data_path);
            let mut told = traced(bpffs, Reason::Translated, || {
                assert_eq!(seen_from(&client, &server, A_WHILE), None);
            });
            let decided = told.pop().unwrap();
            assert!(told.is_empty() && !decided.ethernet, "{told:?} {decided:?}");
            assert_eq!((decided.hook, decided.rule), (Hook::Postrouting, Some(addresses.rule)));
            assert_eq!(count(data_path, Reason::Translated), before + 1);
            assert_eq!(count(data_path, Reason::Protected), before);
            assert_eq!(seen_at(&server, seen, &client, A_WHILE), None, "what answers comes in");
            assert_eq!(count(data_path, Reason::ClearInbound), before + 1);
            // Another connection of the same pod is not held up by it.
            let client = socket(&node.pod, addresses.pod, 5556);
            assert_eq!(seen_from(&client, &server, A_WHILE), None);
            assert_eq!(count(data_path, Reason::Protected), before + 1);
            // The other family has no rule yet, when it is its turn.
            data_path.classify(&[]).unwrap();
        }
    });
}

const PUBLISH: &str = "table inet published {
    chain arriving {
        type nat hook prerouting priority dstnat
        iifname \"eth0\" udp dport 8080 dnat ip to 10.1.0.2:7000
        iifname \"eth0\" udp dport 8080 dnat ip6 to [fd01::2]:7000
    }
}";

#[test]
fn a_published_port_lets_nothing_in_that_must_come_encrypted() {
    on_a_node(|node, data_path, bpffs| {
        node.us.nft(PUBLISH).unwrap();
        guard(node, data_path);
        let families = [(V4, "192.0.2.1"), (V6, "2001:db8::1")];
        let open = families.map(|(addresses, outside)| {
            let published = SocketAddr::new(outside.parse().unwrap(), 8080);
            let server = socket(&node.pod, addresses.pod, 7000);
            let client = socket(&node.peer, addresses.protected, 4444);
            assert!(
                seen_at(&client, published, &server, SOON).is_some(),
                "what the chain is against"
            );
            (addresses, published, server, client)
        });
        let _exemption = node.exempt(data_path);
        for (before, (addresses, published, server, client)) in (0..).step_by(2).zip(open) {
            let mut told = traced(bpffs, Reason::ClearInbound, || {
                assert_eq!(seen_at(&client, published, &server, A_WHILE), None, "began before");
            });
            let decided = told.pop().unwrap();
            assert!(told.is_empty() && !decided.ethernet, "{told:?} {decided:?}");
            assert_eq!((decided.hook, decided.rule), (Hook::Prerouting, Some(addresses.rule)));
            let client = socket(&node.peer, addresses.protected, 5555);
            assert_eq!(seen_at(&client, published, &server, A_WHILE), None, "begins");
            assert_eq!(count(data_path, Reason::ClearInbound), before + 2);
            for allowed in [addresses.bypassed, addresses.unknown] {
                let client = socket(&node.peer, allowed, 5555);
                let seen = seen_at(&client, published, &server, SOON).unwrap();
                assert_eq!(seen.ip().to_string(), allowed);
                let answer = seen_at(&server, seen, &client, SOON);
                assert_eq!(answer, Some(published), "{allowed} has no answer");
            }
        }
    });
}

#[test]
fn the_exemption_outlives_the_one_who_made_it_and_is_taken_over_and_removed() {
    on_a_node(|node, data_path, bpffs| {
        let tables = || node.us.run("nft", &["list", "tables"]).unwrap();
        guard(node, data_path);
        drop(node.exempt(data_path));
        let made = tables();
        assert!(made.contains("ip ipsec-gateway") && made.contains("ip6 ipsec-gateway"), "{made}");
        let server = socket(&node.peer, V4.protected, 7000);
        let client = socket(&node.pod, V4.pod, 5555);
        assert_eq!(seen_from(&client, &server, A_WHILE), None);
        // Twice by one, as after somebody's `nft flush ruleset`.
        let mut exemption = node.exempt(data_path);
        node.us.enter(|| exemption.put(data_path).unwrap()).unwrap();
        assert_eq!(tables(), made);
        drop(exemption);
        let pins = bpf::config(bpffs).pin_dir;
        // Somebody has removed the directory of the pins.
        node.us.enter(|| data_path::remove(&pins.join("none")).unwrap()).unwrap();
        assert!(!tables().contains("ipsec-gateway"));
        drop(node.exempt(data_path));
        assert_eq!(tables(), made);
        node.us.enter(|| data_path::remove(&pins).unwrap()).unwrap();
        let left = tables();
        assert!(left.contains("inet other") && !left.contains("ipsec-gateway"), "{left}");
    });
}
