//! The sockets over loopback, on ports that the system chooses; with root also in a network
//! namespace, where there are more addresses to choose from.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use gateway_ike::io::{KERNEL_SPIS, Path};
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::testing::{enter_namespace, ip, is_root, runtime};

const ANY: Ports = Ports { ike: 0, natt: 0 };

/// The port of a socket, plain IKE or with the marker.
fn port(sockets: &Sockets, family: Family, natt: bool) -> u16 {
    let ports: Vec<_> = sockets.local_ports().filter(|(f, _)| *f == family).collect();
    ports[usize::from(natt)].1
}

fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The next datagram, in a buffer that is never freed.
async fn receive(sockets: &mut Sockets) -> Received<'static> {
    let arrival = async {
        loop {
            let buffer = Vec::leak(vec![0; RECEIVE_BUFFER]);
            let ready = sockets.readable().await;
            // A socket counts as readable until it has been seen empty.
            if let Some(received) = sockets.receive(ready, buffer) {
                return received;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), arrival).await.expect("no datagram came")
}

/// Runs a test in a network namespace of its own, where `lo` is up and has some addresses more;
/// or says that it cannot.
fn in_namespace(name: &str, test: impl AsyncFnOnce() + Send + 'static) {
    if !is_root(name) {
        return;
    }
    std::thread::spawn(move || {
        enter_namespace();
        for address in ["192.0.2.1/32", "192.0.2.2/32"] {
            ip(&format!("address add {address} dev lo"));
        }
        for address in ["2001:db8::1/128", "2001:db8::2/128"] {
            ip(&format!("address add {address} dev lo nodad"));
        }
        runtime().block_on(test());
    })
    .join()
    .unwrap();
}

#[tokio::test]
async fn a_datagram_comes_with_both_addresses_and_is_answered_from_the_same() {
    let mut sockets = Sockets::open(ANY, None).unwrap();
    for (family, ours, theirs) in
        [(Family::V4, "127.0.0.9", "127.0.0.7"), (Family::V6, "::1", "::1")]
    {
        let peer = peer(theirs);
        let local = SocketAddr::new(ours.parse().unwrap(), port(&sockets, family, false));
        peer.send_to(b"request", local).unwrap();
        let path = Path { local, remote: peer.local_addr().unwrap() };
        let received = receive(&mut sockets).await;
        assert_eq!(received, Received::Ike { path, octets: b"request" });
        sockets.send(&path, b"answer").unwrap();
        let mut answer = [0; 64];
        let (length, from) = peer.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (&b"answer"[..], local));
    }
    assert_eq!((sockets.counters().received, sockets.counters().sent), (2, 2));
}

#[tokio::test]
async fn the_marker_lives_on_the_second_port_only() {
    let mut sockets = Sockets::open(ANY, None).unwrap();
    let peer = peer("127.0.0.1");
    let local = SocketAddr::new([127, 0, 0, 1].into(), port(&sockets, Family::V4, true));
    let path = Path { local, remote: peer.local_addr().unwrap() };
    for (datagram, expected) in [
        (&b"\0\0\0\0message"[..], Received::Ike { path, octets: b"message" }),
        (b"\xff", Received::Keepalive),
        (b"\0\0\0", Received::Short),
        (
            b"\xc0\xff\xee\x01sequence",
            Received::Esp { path, spi: 0xc0ff_ee01, octets: b"\xc0\xff\xee\x01sequence" },
        ),
    ] {
        peer.send_to(datagram, local).unwrap();
        assert_eq!(receive(&mut sockets).await, expected);
    }
    sockets.send(&path, b"answer").unwrap();
    let mut answer = [0; 64];
    let length = peer.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"\0\0\0\0answer");
    sockets.send_keepalive(&path).unwrap();
    let (length, from) = peer.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from), (&b"\xff"[..], local));
    let unserved = Path { local: SocketAddr::new(local.ip(), 1), ..path };
    assert!(sockets.send_keepalive(&unserved).is_err());
    let counters = *sockets.counters();
    assert_eq!(
        (counters.received, counters.keepalives, counters.short, counters.esp),
        (1, 1, 1, 1)
    );
}

/// It comes to no socket that is read, and there is no SA for it.
#[tokio::test]
async fn esp_that_the_kernel_decapsulates_is_left_to_it_and_nothing_else_is() {
    let mut sockets = Sockets::open(ANY, None).unwrap();
    for (family, ours) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        let natt = SocketAddr::new(ours.parse().unwrap(), port(&sockets, family, true));
        // Many, from many ports: without the program some would come by the hash of their ends.
        for round in 0..16_u8 {
            let peer = peer(ours);
            for spi in [*KERNEL_SPIS.start(), u32::MAX] {
                let esp = [&spi.to_be_bytes()[..], &[round; 16]].concat();
                peer.send_to(&esp, natt).unwrap();
            }
            let path = Path { local: natt, remote: peer.local_addr().unwrap() };
            for spi in [256, *KERNEL_SPIS.start() - 1] {
                let esp = [&spi.to_be_bytes()[..], &[round; 16]].concat();
                peer.send_to(&esp, natt).unwrap();
                let received = receive(&mut sockets).await;
                assert_eq!(received, Received::Esp { path, spi, octets: &esp });
            }
            peer.send_to(&[&[0; 4], &b"message"[..]].concat(), natt).unwrap();
            let expected = Received::Ike { path, octets: b"message" };
            assert_eq!(receive(&mut sockets).await, expected);
            peer.send_to(&[0xff; 3], natt).unwrap();
            assert_eq!(receive(&mut sockets).await, Received::Short);
        }
    }
}

#[tokio::test]
async fn a_port_that_another_gateway_has_is_taken_though_it_shares_it_with_itself() {
    let sockets = Sockets::open(ANY, None).unwrap();
    let ports = Ports { ike: 0, natt: port(&sockets, Family::V4, true) };
    let error = Sockets::open(ports, None).unwrap_err();
    assert!(matches!(error, OpenError::PortTaken { port, .. } if port == ports.natt), "{error}");
}

#[tokio::test]
async fn a_socket_is_drained_and_then_says_so() {
    let mut sockets = Sockets::open(ANY, None).unwrap();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let peer = peer("127.0.0.1");
    let local = SocketAddr::new([127, 0, 0, 1].into(), port(&sockets, Family::V4, false));
    for _ in 0..3 {
        peer.send_to(b"x", local).unwrap();
    }
    let ready = sockets.readable().await;
    for _ in 0..3 {
        assert!(sockets.receive(ready, &mut buffer).is_some());
    }
    assert_eq!(sockets.receive(ready, &mut buffer), None);
    let idle = tokio::time::timeout(Duration::from_millis(50), sockets.readable()).await;
    assert!(idle.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder() {
    let holder = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let error = Sockets::open(Ports { ike: port, natt: 0 }, None).unwrap_err();
    let expected = format!("(pid {}): stop the other IKE daemon first", std::process::id());
    let text = error.to_string();
    assert!(text.starts_with(&format!("UDP port {port} is in use by ")), "{text}");
    assert!(text.ends_with(&expected), "{text}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_counted_and_told() {
    let mut sockets = Sockets::open(ANY, None).unwrap();
    let port = port(&sockets, Family::V4, false);
    let remote: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for local in ["192.0.2.77", "::1"] {
        // Not our address, and not the remote's family.
        let local = SocketAddr::new(local.parse().unwrap(), port);
        assert!(sockets.send(&Path { local, remote }, b"x").is_err());
    }
    let local = "127.0.0.1:1".parse().unwrap();
    let error = sockets.send(&Path { local, remote }, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(sockets.counters().send_failed, 3);
}

#[test]
fn a_mark_and_a_bypass_policy_are_set_where_that_is_allowed() {
    in_namespace("a_mark_and_a_bypass_policy_are_set_where_that_is_allowed", async || {
        let mut sockets = Sockets::open(Ports::default(), Some(0x1ce)).unwrap();
        let ports: Vec<_> = sockets.local_ports().collect();
        let expected =
            [(Family::V4, 500), (Family::V4, 4500), (Family::V6, 500), (Family::V6, 4500)];
        assert_eq!(ports, expected);
        // With everything blocked by policy, IKE gets through and another socket does not.
        for direction in ["out", "in"] {
            ip(&format!("xfrm policy add dir {direction} action block"));
        }
        for file in ["disable_policy", "disable_xfrm"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/lo/{file}"), "0").unwrap();
        }
        let local = "192.0.2.1:500".parse().unwrap();
        let path = Path { local, remote: "192.0.2.2:500".parse().unwrap() };
        sockets.send(&path, b"through").unwrap();
        let back = Path { local: path.remote, remote: path.local };
        let received = receive(&mut sockets).await;
        assert_eq!(received, Received::Ike { path: back, octets: b"through" });
        let other = UdpSocket::bind("192.0.2.2:0").unwrap();
        assert!(other.send_to(b"x", "192.0.2.1:4500").is_err());
    });
}

#[test]
fn a_broadcast_is_not_answered() {
    in_namespace("a_broadcast_is_not_answered", async || {
        ip("address add 198.51.100.1/24 brd 198.51.100.255 dev lo");
        let mut sockets = Sockets::open(Ports::default(), None).unwrap();
        let peer = peer("198.51.100.1");
        peer.set_broadcast(true).unwrap();
        peer.send_to(b"x", "198.51.100.255:500").unwrap();
        assert_eq!(receive(&mut sockets).await, Received::NotUnicast);
        assert_eq!(sockets.counters().not_unicast, 1);
    });
}

#[test]
fn esp_from_the_socket_reaches_the_stack_as_bare_esp() {
    in_namespace("esp_from_the_socket_reaches_the_stack_as_bare_esp", async || {
        let mut reinjector = Reinjector::open().unwrap();
        for (domain, ours, theirs, header) in [
            (Domain::IPV4, "192.0.2.1", "203.0.113.9", 20),
            (Domain::IPV6, "2001:db8::1", "2001:db8:ffff::9", 0),
        ] {
            let listener = Socket::new(domain, Type::RAW, Some(Protocol::from(50))).unwrap();
            listener.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let (ours, theirs): (IpAddr, IpAddr) = (ours.parse().unwrap(), theirs.parse().unwrap());
            let path = Path {
                local: SocketAddr::new(ours, 4500),
                remote: SocketAddr::new(theirs, 61_234),
            };
            // As long as a packet that had to be fragmented.
            let mut esp = vec![0xab; 3_000];
            esp[..8].copy_from_slice(&[0xc0, 0xff, 0xee, 0, 0, 0, 0, 1]);
            // The kernel may lose the first ones: it is still busy with routes to IPv6 addresses
            // some time after these have been added.
            let mut packet = vec![0; 65_535];
            let length = (0..50).find_map(|_| {
                let outcome = reinjector.reinject(crate::clock::now(), &path, &esp);
                assert!(matches!(outcome, Outcome::Sent), "{outcome:?}");
                io::Read::read(&mut &listener, &mut packet).ok()
            });
            let length = length.expect("nothing arrived");
            assert_eq!(&packet[header..length], esp);
            if header == 20 {
                assert_eq!(packet[12..16], [203, 0, 113, 9]);
                assert_eq!(packet[16..20], [192, 0, 2, 1]);
            }
        }
        let counters: Vec<_> = reinjector.counters().collect();
        assert!(counters[0].0 == "esp_reinjected" && counters[0].1 >= 2, "{counters:?}");
    });
}

#[test]
fn reinjection_is_limited_and_refusals_are_counted() {
    in_namespace("reinjection_is_limited_and_refusals_are_counted", async || {
        let mut reinjector = Reinjector::open().unwrap();
        let now = crate::clock::now();
        let path = Path {
            local: "[2001:db8::1]:4500".parse().unwrap(),
            remote: "192.0.2.2:4500".parse().unwrap(),
        };
        assert!(matches!(reinjector.reinject(now, &path, b"x"), Outcome::Failed(_)));
        let limited =
            (0..3_000).any(|_| matches!(reinjector.reinject(now, &path, b"x"), Outcome::Limited));
        assert!(limited);
        let later = now + Duration::from_secs(1);
        assert!(matches!(reinjector.reinject(later, &path, b"x"), Outcome::Failed(_)));
    });
}
