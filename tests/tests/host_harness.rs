//! The harness itself: a leak check that cannot fail proves nothing.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::net::UdpSocket;

use gateway_tests::capture::{Capture, Selected};
use gateway_tests::frame::Kind;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, Pings, ping, transfer};
use gateway_tests::{Context as _, Result};

/// The middle carries the sites' prefixes in the clear.
fn open(topology: &Topology) -> Result {
    let (client, server) = (&topology.client, &topology.server);
    for family in [Family::V4, Family::V6] {
        client.gateway.ip(&format!(
            "route replace {} via {}",
            server.prefix(family),
            server.outer(family)
        ))?;
        server.gateway.ip(&format!(
            "route replace {} via {}",
            client.prefix(family),
            client.outer(family)
        ))?;
    }
    Ok(())
}

fn selected(topology: &Topology) -> Result<Vec<Selected>> {
    [Family::V4, Family::V6]
        .into_iter()
        .map(|family| {
            let parse = |text: String| text.parse().context(text);
            Ok((parse(topology.client.prefix(family))?, parse(topology.server.prefix(family))?))
        })
        .collect()
}

#[test]
fn clear_traffic_between_the_sites_is_found_whatever_it_is() -> Result {
    let topology = Topology::new(Between::Switch)?;
    let ports = [Topology::CLIENT_PORT, Topology::SERVER_PORT];
    let capture = Capture::start(&topology.middle, &ports)?;
    open(&topology)?;
    capture.assert_no_clear(&selected(&topology)?).context("nothing was sent")?;
    for family in [Family::V4, Family::V6] {
        let target = topology.server.host_address(family);
        for size in [56, 3000] {
            let mark = capture.mark()?;
            let options = PingOptions { size, count: 1, ..PingOptions::default() };
            let pings = ping(&topology.client.host, target, &options)?;
            assert_eq!(pings, Pings { sent: 1, received: 1 }, "{family:?} {size}");
            let expected = if size > 1500 { 6 } else { 2 };
            assert_eq!(capture.summary(mark)?.count(Kind::Other), expected, "{family:?} {size}");
        }
    }
    let error = capture.finish(&selected(&topology)?).unwrap_err().to_string();
    // One request and one answer, and three fragments each, on two devices, in two families.
    assert!(error.starts_with("32 of "), "{error}");
    Ok(())
}

#[test]
fn bulk_data_arrives_whole_and_every_frame_of_it_is_captured() -> Result {
    let topology = Topology::new(Between::Switch)?;
    let capture = Capture::start(&topology.middle, &[Topology::CLIENT_PORT])?;
    open(&topology)?;
    let (client, server) = (&topology.client, &topology.server);
    for family in [Family::V4, Family::V6] {
        let one = (&client.host, client.host_address(family));
        let other = (&server.host, server.host_address(family));
        let mark = capture.mark()?;
        transfer(one, other, 3_000_000)?;
        transfer(other, one, 1_000_001)?;
        let octets: usize = capture.since(mark)?.iter().map(|frame| frame.length).sum();
        assert!(octets > 4_000_001, "{octets}");
    }
    // The payload betrays itself where no prefix is asked for.
    let error = capture.finish(&[]).unwrap_err().to_string();
    assert!(error.contains("with the tests' payload"), "{error}");
    Ok(())
}

#[test]
fn the_router_hides_the_client_and_changes_udp_ports() -> Result {
    let topology = Topology::new(Between::Nat)?;
    let (client, server) = (&topology.client, &topology.server);
    for family in [Family::V4, Family::V6] {
        let listener = server
            .gateway
            .enter(|| UdpSocket::bind((server.outer(family), 4500)))?
            .context("a listener")?;
        let sender = client
            .gateway
            .enter(|| UdpSocket::bind((client.outer(family), 4500)))?
            .context("a sender")?;
        sender.send_to(b"x", (server.outer(family), 4500)).context("send")?;
        let (_, from) = listener.recv_from(&mut [0; 8]).context("receive")?;
        assert_eq!(from.ip(), topology.client_as_seen(family));
        assert_ne!(from.port(), 4500, "a NAT that keeps ports hides mistakes");
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_topology() -> Result {
    let devices = || std::fs::read_dir("/sys/class/net").map(Iterator::count).context("devices");
    let before = devices()?;
    drop(Topology::new(Between::Nat)?);
    assert_eq!(devices()?, before);
    Ok(())
}
