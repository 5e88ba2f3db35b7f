//! Transport mode between the gateways themselves, also where a NAT hides one of them.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_tests::capture::{Capture, Mark, Selected};
use gateway_tests::daemon::wait_for;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::pair::{Pair, Version};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    End, RATE, between_gateways, capture, encrypted, exercise_between, flows,
};
use gateway_tests::strongswan::Connection;
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{Flow, ping_until_answered};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::{V4, V6};

/// Seconds that a Child SA lives where it is rekeyed, and for how long there is traffic then.
const LIFETIME: u32 = 5;
const TIME: u32 = 14;

/// The gateways by the addresses that the other one sees: the client, the server.
fn ends(topology: &Topology, family: Family) -> [End<'_>; 2] {
    [
        (&topology.client.gateway, topology.client_as_seen(family)),
        (&topology.server.gateway, topology.server.outer(family)),
    ]
}

/// All that is selected, by the addresses that it has on either side of a NAT.
fn selected(topology: &Topology, family: Family) -> [Selected; 2] {
    let (one, other) = (topology.client_as_seen(family), topology.server.outer(family));
    [between_gateways(topology, family), (one.into(), other.into())]
}

/// The policies of the client and of the server, each by the addresses that it sees.
fn policies(topology: &Topology, family: Family) -> (Policy, Policy) {
    let prefix = |address| vec![ipnet::IpNet::from(address).to_string()];
    let (client, server) = (topology.client.outer(family), topology.server.outer(family));
    let of_server = Policy::of_server(topology, family, family).with_rules(|rule| {
        rule.mode = "transport";
        (rule.local, rule.remote) = (prefix(server), prefix(topology.client_as_seen(family)));
    });
    let of_client = Policy::of_client(topology, family, family).with_rules(|rule| {
        (rule.mode, rule.start) = ("transport", "always");
        (rule.local, rule.remote) = (prefix(client), prefix(server));
    });
    (of_client, of_server)
}

/// strongSwan's connection of one end, in the place of such a policy.
fn of_strongswan(connection: Connection, topology: &Topology, is_client: bool) -> Connection {
    let server = topology.server.outer(V4).to_string();
    let (local_ts, remote_ts) = if is_client {
        (topology.client.outer(V4).to_string(), server)
    } else {
        (server, topology.client_as_seen(V4).to_string())
    };
    Connection { mode: "transport", local_ts, remote_ts, ..connection }
}

/// Pings, small and large, and TCP, both ways: what has the checksums of other addresses inside.
fn carries(topology: &Topology, capture: &Capture, family: Family) -> Result {
    let [one, other] = ends(topology, family);
    exercise_between(one, other)?;
    encrypted(topology, &capture.summary(Mark::START)?)
}

/// Behind NAT, and only there, the kernel has taken ESP out of UDP, and XDP has left it to it.
fn decapsulated_by_the_kernel(topology: &Topology, gateway: &Gateway<'_>) -> Result {
    let nat = topology.between() == Between::Nat;
    assert_eq!(gateway.bpf_counter("esp_in_udp_kernel")? > 0, nat);
    assert_eq!(gateway.bpf_counter("esp_in_udp_stripped")?, 0);
    // Fragments too, which the stack has put together.
    assert_eq!(gateway.counter("esp_reinjected")?, 0);
    Ok(())
}

/// The client's own NAT leads to the server what is for another address, as that of a service in
/// Kubernetes: what answers passes netfilter by the underlay after it has been decrypted.
fn answers_to_a_virtual_address(topology: &Topology, family: Family) -> Result {
    let server = topology.server.outer(family);
    let address: IpAddr = match server {
        IpAddr::V4(server) => {
            let [a, b, c, _] = server.octets();
            Ipv4Addr::new(a, b, c, 77).into()
        }
        IpAddr::V6(server) => {
            let [a, b, c, d, e, f, g, _] = server.segments();
            Ipv6Addr::new(a, b, c, d, e, f, g, 77).into()
        }
    };
    let (ip, target) = match server {
        IpAddr::V4(_) => ("ip", server.to_string()),
        IpAddr::V6(_) => ("ip6", format!("[{server}]")),
    };
    topology.client.gateway.nft(&format!(
        "table inet service {{
            chain leaving {{
                type nat hook output priority -100
                {ip} daddr {address} dnat {ip} to {target}
            }}
        }}"
    ))?;
    ping_until_answered(&topology.client.gateway, address, PATIENCE).map(drop)
}

fn transport(between: Between, family: Family) -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let (of_client, of_server) = policies(&topology, family);
    let of_client = Policy { settings: "keepalive-interval = \"1s\"".to_owned(), ..of_client };
    let server = Gateway::start(&topology.server.gateway, &of_server)?;
    let client = Gateway::start(&topology.client.gateway, &of_client)?;
    let child = client.wait_child(RULE)?;
    assert_eq!(child.get("mode").and_then(Value::as_str), Some("transport"));
    server.wait_child(RULE)?;
    carries(&topology, &capture, family)?;
    for gateway in [&client, &server] {
        decapsulated_by_the_kernel(&topology, gateway)?;
        assert_eq!(gateway.children(RULE)?.len(), 1, "one SA serves all of it");
    }
    if between == Between::Switch {
        answers_to_a_virtual_address(&topology, family)?;
    }
    if between == Between::Nat {
        client.wait_counter("udp_keepalives_sent", 2)?;
        wait_for("keepalives", PATIENCE, || {
            Ok((server.bpf_counter("nat_keepalive")? >= 2).then_some(()))
        })?;
    }
    capture.finish(&selected(&topology, family))
}

#[test]
fn transport_mode_works_over_ipv4() -> Result {
    transport(Between::Switch, V4)
}

#[test]
fn transport_mode_works_over_ipv6() -> Result {
    transport(Between::Switch, V6)
}

#[test]
fn transport_mode_works_through_nat() -> Result {
    transport(Between::Nat, V4)
}

#[test]
fn transport_mode_works_through_nat_of_ipv6() -> Result {
    transport(Between::Nat, V6)
}

/// Replaced again and again, and no datagram is lost; then the NAT maps anew, to another port.
#[test]
fn in_transport_mode_through_nat_sas_are_replaced_and_follow_the_nat() -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let (of_client, of_server) = policies(&topology, V4);
    let short = |policy: Policy, lifetime| {
        policy.with_rules(|rule| rule.lifetime = Some(format!("{lifetime}s")))
    };
    let mut server = Gateway::start(&topology.server.gateway, &short(of_server, LIFETIME))?;
    let client = Gateway::start(&topology.client.gateway, &short(of_client, LIFETIME))?;
    client.wait_child(RULE)?;
    server.wait_child(RULE)?;
    let ends = ends(&topology, V4);
    flows(ends, TIME, RATE)?.iter().try_for_each(Flow::whole)?;
    for gateway in [&client, &server] {
        assert!(gateway.counter("child_sa_rekeyed")? >= 2);
        assert_eq!(gateway.counter("ike_sa_established")?, 1);
    }
    topology.rebind(None)?;
    ping_until_answered(ends[0].0, ends[1].1, PATIENCE)?;
    server.wait_counter("ike_path_changed", 1)?;
    carries(&topology, &capture, V4)?;
    // What receives has the new port, too: of another the kernel would tell with every packet.
    let remote = server.established()?.get("remote").and_then(Value::as_str).map(str::to_owned);
    let (_, port) = remote.as_deref().and_then(|r| r.rsplit_once(':')).context("remote")?;
    let states = ends[1].0.run("ip", &["xfrm", "state"])?;
    for ports in [format!("sport {port} dport 4500"), format!("sport 4500 dport {port}")] {
        assert!(states.contains(&ports), "{ports} in {states}");
    }
    for gateway in [&client, &server] {
        assert_eq!(gateway.counter("ike_sa_established")?, 1);
        assert_eq!(gateway.counter("child_sa_not_moved")?, 0);
        // They are replaced meanwhile, too: in this order one that was made anew cannot hide in that.
        wait_for("none is made anew", PATIENCE, || {
            let replaced = gateway.counter("child_sa_rekeyed")?;
            let installed = gateway.counter("child_sa_installed")?;
            Ok((installed == replaced.saturating_add(1)).then_some(()))
        })?;
        decapsulated_by_the_kernel(&topology, gateway)?;
    }
    assert!(server.daemon().stop(PATIENCE)?.success());
    capture.finish(&selected(&topology, V4))
}

/// We begin, from behind NAT, and rekey.
fn we_begin(version: Version) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let theirs = of_strongswan(Connection::of_server(&topology, V4, V4), &topology, false);
    let server = version.start(&topology.server.gateway, &theirs)?;
    let (ours, _) = policies(&topology, V4);
    let ours = ours.with_rules(|rule| rule.lifetime = Some(format!("{LIFETIME}s")));
    let mut client = Gateway::start(&topology.client.gateway, &ours)?;
    client.wait_child(RULE)?;
    server.wait_installed()?;
    carries(&topology, &capture, V4)?;
    flows(ends(&topology, V4), TIME, RATE)?.iter().try_for_each(Flow::whole)?;
    assert!(client.counter("child_sa_rekeyed")? >= 2);
    assert_eq!(client.counter("ike_sa_established")?, 1);
    decapsulated_by_the_kernel(&topology, &client)?;
    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    capture.finish(&selected(&topology, V4))
}

/// strongSwan begins, from behind NAT, and rekeys.
fn strongswan_begins(version: Version) -> Result {
    if !met(&Pair::needed(version))? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let (_, ours) = policies(&topology, V4);
    let server = Gateway::start(&topology.server.gateway, &ours)?;
    let theirs = of_strongswan(Connection::of_client(&topology, V4, V4), &topology, true);
    let theirs = Connection { rekey_time: Some((LIFETIME, 600)), ..theirs };
    let client = version.start(&topology.client.gateway, &theirs)?;
    client.initiate()?;
    server.wait_child(RULE)?;
    carries(&topology, &capture, V4)?;
    flows(ends(&topology, V4), TIME, RATE)?.iter().try_for_each(Flow::whole)?;
    assert!(server.counter("child_sa_rekeyed")? >= 2);
    assert_eq!(server.counter("ike_sa_established")?, 1);
    decapsulated_by_the_kernel(&topology, &server)?;
    client.terminate()?;
    server.wait_gone()?;
    capture.finish(&selected(&topology, V4))
}

#[test]
fn we_reach_strongswan_in_transport_mode_through_nat() -> Result {
    we_begin(Version::Installed)
}

#[test]
fn strongswan_reaches_us_in_transport_mode_through_nat() -> Result {
    strongswan_begins(Version::Installed)
}

#[test]
fn we_reach_a_newer_strongswan_in_transport_mode_through_nat() -> Result {
    we_begin(Version::Newer)
}

#[test]
fn a_newer_strongswan_reaches_us_in_transport_mode_through_nat() -> Result {
    strongswan_begins(Version::Newer)
}
