//! ESP of no SA of the gateway: dropped by XDP, counted and told; and what others on the same host have
//! is left alone.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy};
use gateway_tests::namespace::Namespace;
use gateway_tests::packet::esp;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use Family::{V4, V6};

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];
const SPI: u32 = 0xc0de_0001;

/// Sends ESP with an SPI that nobody has, in UDP or bare.
fn send(from: &Namespace, to: IpAddr, in_udp: bool) -> Result {
    let packet = esp(SPI, 64);
    let sent = from.enter(|| {
        if in_udp {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            return UdpSocket::bind(any)?.send_to(&packet, SocketAddr::new(to, 4500));
        }
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(50)))?;
        socket.send_to(&packet, &SocketAddr::new(to, 0).into())
    })?;
    sent.context("send ESP").map(drop)
}

/// Sends until a counter of the programs says that it has seen it.
fn is_counted(gateway: &Gateway<'_>, name: &str, send: impl Fn() -> Result) -> Result {
    let before = gateway.bpf_counter(name)?;
    wait_for(name, PATIENCE, || {
        send()?;
        Ok((gateway.bpf_counter(name)? > before).then_some(()))
    })
}

/// A line for `ip` that makes an SA in transport mode.
fn sa(source: IpAddr, destination: IpAddr, spi: u32) -> String {
    format!(
        "xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid 5 \
         mode transport aead rfc4106(gcm(aes)) 0x{} 128",
        "5a".repeat(20)
    )
}

/// What somebody else has between the two gateways, whatever policies ours has.
fn tunnel_of_others(topology: &Topology) -> Result {
    let [client, server] = [&topology.client, &topology.server].map(|site| site.outer(V4));
    for (machine, [us, peer]) in
        [(&topology.client, [client, server]), (&topology.server, [server, client])]
    {
        let lines = [
            sa(us, peer, 0x5001),
            sa(peer, us, 0x5001),
            format!(
                "xfrm policy add src {us} dst {peer} proto icmp dir out tmpl src {us} dst {peer} \
                 proto esp reqid 5 mode transport"
            ),
            format!(
                "xfrm policy add src {peer} dst {us} proto icmp dir in tmpl src {peer} dst {us} \
                 proto esp reqid 5 mode transport"
            ),
        ];
        machine.gateway.ip(&lines.join("\n"))?;
    }
    Ok(())
}

#[test]
fn esp_without_an_sa_ends_in_xdp_until_others_have_sas_here() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let of_server = Policy::of_server(&topology, V4, V4);
    let mut server = Gateway::start(&topology.server.gateway, &of_server)?;
    let from = &topology.client.gateway;
    assert!(server.status_text(&[])?.contains("drop of ESP without an SA"));
    for family in [V4, V6] {
        let to = topology.server.outer(family);
        is_counted(&server, "esp_bare_unknown_spi_dropped", || send(from, to, false))?;
        is_counted(&server, "esp_in_udp_unknown_spi_dropped", || send(from, to, true))?;
    }
    server.daemon().wait_for_log("ESP without an SA is dropped", 0, PATIENCE)?;
    assert!(server.daemon().log().contains("c0de0001"));
    assert_eq!(server.counter("esp_unknown_spi")?, 0, "none has reached the daemon");

    // A tunnel is made, and what the peer sends first is not lost.
    let client = Gateway::start(from, &Policy::of_client(&topology, V4, V4))?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    let pings = ping(host, target, &PingOptions::default())?;
    assert_eq!(pings.sent, pings.received, "{pings:?}");

    tunnel_of_others(&topology)?;
    ping_until_answered(from, topology.server.outer(V4), PATIENCE)?;
    let pings = ping(from, topology.server.outer(V4), &PingOptions::default())?;
    assert_eq!(pings.sent, pings.received, "{pings:?}");
    for gateway in [&server, &client] {
        assert!(gateway.status_text(&[])?.contains("in UDP only"));
        assert!(gateway.bpf_counter("esp_bare_unknown_spi")? > 0, "it was by that SA");
    }
    let to = topology.server.outer(V4);
    is_counted(&server, "esp_bare_unknown_spi", || send(from, to, false))?;
    // From where others have ESP it may be theirs in UDP, too.
    is_counted(&server, "esp_in_udp_unknown_spi", || send(from, to, true))?;
    let pings = ping(host, target, &PingOptions::default())?;
    assert_eq!(pings.sent, pings.received, "{pings:?}");

    // A new start finds them.
    server.daemon().stop(PATIENCE)?;
    let left = topology.server.gateway.run("ip", &["xfrm", "state"])?;
    assert_eq!(left.matches("spi 0x00005001").count(), 2, "theirs are left alone: {left}");
    let server = Gateway::start(&topology.server.gateway, &of_server)?;
    assert!(server.status_text(&[])?.contains("in UDP only"));
    let pings = ping(from, to, &PingOptions::default())?;
    assert_eq!(pings.sent, pings.received, "{pings:?}");
    Ok(())
}

/// A host behind the gateway does IPsec of its own with somebody, and the gateway gives it its address.
#[test]
fn what_comes_for_a_client_behind_nat_of_the_gateway_reaches_it() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let site = &topology.client;
    site.gateway.nft(
        "table ip other {
            chain forwarded {
                type nat hook postrouting priority srcnat
                oifname != { \"lan0\", \"lo\" } masquerade
            }
        }",
    )?;
    let gateway = Gateway::start(&site.gateway, &Policy::of_client(&topology, V4, V4))?;
    let (outside, at) = (&topology.server.gateway, topology.server.outer(V4));
    let us = SocketAddr::new(site.outer(V4), 4500);
    let peer = outside.enter(|| UdpSocket::bind(SocketAddr::new(at, 4500)))?.context("bind")?;
    peer.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    peer.send_to(&esp(SPI, 64), us).context("send ESP")?;
    is_counted(&gateway, "esp_in_udp_unknown_spi_dropped", || {
        peer.send_to(&esp(SPI, 64), us).context("send ESP").map(drop)
    })?;
    let client = site.host.enter(|| UdpSocket::bind("0.0.0.0:4500"))?.context("bind")?;
    client.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    client.send_to(&esp(SPI, 32), SocketAddr::new(at, 4500)).context("send ESP")?;
    let mut buffer = [0; 2048];
    let (_, from) = peer.recv_from(&mut buffer).context("ESP of the client")?;
    assert_eq!(from, us, "its address and port are translated to the gateway's");
    let sent = esp(SPI, 48);
    peer.send_to(&sent, from).context("send ESP")?;
    let length = client.recv(&mut buffer).context("ESP for the client")?;
    assert_eq!(buffer.get(..length), Some(&sent[..]));
    Ok(())
}
