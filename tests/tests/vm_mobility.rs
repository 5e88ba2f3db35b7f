//! Two of our gateways, one of which goes on from another address or port, with traffic both ways.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::print_stdout, reason = "how much is lost is worth knowing")]

use core::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::mobility::{
    Flowing, REBINDINGS, all_received, kept, lost_within, roam, stranger, wait_at,
};
use gateway_tests::packet::esp;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, both_ways, capture, hosts};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{Flow, ping_until_answered};
use gateway_tests::{Context as _, Error, Result};
use serde_json::Value;

use Family::{V4, V6};

#[test]
fn our_server_follows_our_client_whose_nat_maps_anew() -> Result {
    ours_behind_nat(false)
}

#[test]
fn our_client_finds_out_by_mobike_that_its_nat_maps_anew() -> Result {
    ours_behind_nat(true)
}

/// A client and a server with a Child SA. Neither asks by itself whether the other lives.
fn incurious(topology: &Topology, mobike: bool) -> Result<[Gateway<'_>; 2]> {
    let mut server = Policy::of_server(topology, V4, V4);
    server.peer_keys = format!("mobike = {mobike}\nliveness = \"1h\"");
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut client = Policy::of_client(topology, V4, V4);
    client.peer_keys = "liveness = \"1h\"".to_owned();
    let client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    Ok([client, server])
}

fn ours_behind_nat(mobike: bool) -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let [mut client, server] = incurious(&topology, mobike)?;
    for (moves, outside) in REBINDINGS {
        let followed = || server.wait_counter("ike_path_changed", moves);
        rebind_with_traffic(&topology, outside, followed)?;
    }
    kept(&server, 2)?;
    if mobike {
        // The client's own address is another one, and the server sees another port.
        roam(&topology, V4, |address| {
            wait_at(&client, "local", address)?;
            server.wait_counter("ike_path_changed", 3)
        })?;
        kept(&server, 3)?;
        kept(&client, 1)?;
    }
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// The NAT maps anew under a flow each way. What it drops itself is lost: to the server what comes
/// while it has no mapping at all, and to the client all that goes to the old mapping. When the first
/// ESP has come from the new one, the server asks the client there, and traffic flows again within a
/// second of that. Afterwards nothing is lost.
fn rebind_with_traffic(
    topology: &Topology,
    outside: Option<Ipv4Addr>,
    followed: impl Fn() -> Result,
) -> Result {
    let rebind = |flowing: &Flowing| {
        let before = flowing.numbers();
        topology.rebind(outside)?;
        let mapped = flowing.numbers();
        followed()?;
        Ok([before, mapped])
    };
    let ([before, mapped], [to_server, to_client]) = Flowing::during(hosts(topology, V4), rebind)?;
    println!("rebound at {before:?}, mapped anew at {mapped:?}: {to_server}; {to_client}");
    // One may be on its way to the NAT when its number is read.
    lost_within(&to_server, before[0].saturating_sub(1), mapped[0]).context("to the server")?;
    // The first from the client by the new mapping is the next one, if it was none before that.
    let followed = mapped[1].saturating_add(1).saturating_add(Flowing::A_SECOND);
    lost_within(&to_client, before[1].saturating_sub(1), followed).context("to the client")
}

#[test]
fn a_copy_of_esp_from_elsewhere_moves_nothing() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    for mobike in [false, true] {
        let topology = Topology::new(Between::Nat)?;
        let capture = capture(&topology)?;
        let [_client, server] = incurious(&topology, mobike)?;
        let child = server.wait_child(RULE)?;
        let spi = child.get("inbound_spi").and_then(Value::as_str).context("inbound_spi")?;
        let spi = u32::from_str_radix(spi, 16).context(spi)?;
        let at = || Ok::<_, Error>(server.established()?.get("remote").cloned());
        let (before, stranger) = (at()?, stranger(&topology)?);
        let began = Instant::now();
        let ((), flows) = Flowing::during(hosts(&topology, V4), |flowing| {
            for _ in 0..5 {
                stranger
                    .send_to(&esp(spi, 80), (topology.server.outer(V4), 4500))
                    .context("a copy")?;
                flowing.go_on(20)?;
            }
            server.wait_counter("esp_source_unanswered", 1)
        })?;
        println!("under copies from elsewhere: {flows:?}");
        flows.iter().try_for_each(Flow::whole)?;
        assert_eq!(at()?, before);
        assert!(server.bpf_counter("esp_source_changed")? >= 1);
        kept(&server, 0)?;
        // He is asked, by one small message a second.
        let asked = all_received(&stranger)?;
        let most = began.elapsed().as_secs().saturating_add(1);
        let count = u64::try_from(asked.len()).context("a number")?;
        assert!((1..=most).contains(&count), "{asked:?}");
        assert!(asked.iter().all(|octets| *octets <= 516), "{asked:?}");
        capture.finish(&[between_sites(&topology, V4)?])?;
    }
    Ok(())
}

/// The client gets another address beside its own, and a way to the server from that; once it has
/// come there it gives up the old one. Nothing is lost, either way, at any time.
fn roam_gently(topology: &Topology, [client, server]: [&Gateway<'_>; 2]) -> Result {
    let ((), flows) = Flowing::during(hosts(topology, V4), |flowing| {
        let address = topology.add_address_of_client()?;
        wait_at(client, "local", address)?;
        wait_at(server, "remote", address)?;
        for gateway in [client, server] {
            gateway.wait_counter("child_sa_rekeyed", 1)?;
            let one = || Ok((gateway.children(RULE)?.len() == 1).then_some(()));
            wait_for("the end of the old Child SA", PATIENCE, one)?;
        }
        flowing.go_on(20)?;
        topology.leave_old_address_of_client()
    })?;
    let [to_server, to_client] = &flows;
    println!("with both addresses: {to_server}; {to_client}");
    assert!(client.bpf_counter("esp_readdressed")? > 0, "received at the new by the old SA");
    flows.iter().try_for_each(Flow::whole)
}

/// The client comes to another address, and has lost its own. What is sent until it has found out
/// and the server has seen that it is there is lost, and nothing else: that takes as long as the
/// kernel's word that the address is gone and two exchanges.
fn roam_with_traffic(topology: &Topology, arrived: impl Fn(IpAddr) -> Result) -> Result {
    let move_on = |flowing: &Flowing| {
        let before = flowing.numbers();
        topology.readdress_client_back().and_then(&arrived)?;
        Ok([before, flowing.numbers()])
    };
    let ([before, after], flows) = Flowing::during(hosts(topology, V4), move_on)?;
    println!("address lost at {before:?}, arrived at {after:?}: {flows:?}");
    let [to_server, to_client] = &flows;
    lost_within(to_server, before[0].saturating_sub(1), after[0]).context("to the server")?;
    lost_within(to_client, before[1].saturating_sub(1), after[1]).context("to the client")
}

#[test]
fn our_client_roams_to_our_server_and_from_ipv4_to_ipv6() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    // Without an address that it stays at, the server tells the other one.
    let server = Policy { local_address: None, ..Policy::of_server(&topology, V4, V4) };
    let server = Gateway::start(&topology.server.gateway, &server)?;
    let client = Policy::of_client(&topology, V4, V4);
    let mut client = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(&topology.client.host, topology.server.host_address(V4), PATIENCE)?;
    let arrived = |address| {
        wait_at(&client, "local", address)?;
        wait_at(&server, "remote", address)
    };
    roam_gently(&topology, [&client, &server])?;
    roam_with_traffic(&topology, arrived)?;
    topology.take_ipv4_of_client()?;
    arrived(topology.client.outer(V6))?;
    both_ways(hosts(&topology, V4))?;
    roam(&topology, V6, arrived)?;
    kept(&client, 4)?;
    kept(&server, 4)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&[between_sites(&topology, V4)?])
}
