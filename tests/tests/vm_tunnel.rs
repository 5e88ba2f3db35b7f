//! Two of our gateways with a whole tunnel between them.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{fs, thread};

use gateway_tests::Result;
use gateway_tests::capture::{Capture, Mark};
use gateway_tests::daemon::wait_for;
use gateway_tests::error::Context as _;
use gateway_tests::frame::{Kind, Packet, dissect};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{
    all_answered, between_sites, capture, encrypted, exercise, none_answered,
};
use gateway_tests::topology::{Between, Family, Site, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered, shout};
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use serde_json::Value;

use Family::{V4, V6};

/// The MTU of the XFRM interface over an underlay of 1500.
const XFRM_MTU: u64 = 1390;

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// A tunnel that a host's packet makes, with everything through it, and an orderly end.
fn tunnel(between: Between, outer: Family, inner: Family, esp: &'static str) -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(between)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_server(&topology, outer, inner);
    let policy = policy.with_rules(|rule| rule.esp_proposals = vec![esp]);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let policy = Policy::of_client(&topology, outer, inner);
    let policy = policy.with_rules(|rule| rule.esp_proposals = vec![esp]);
    let policy = Policy { settings: "keepalive-interval = \"1s\"".to_owned(), ..policy };
    let has_own_route = (outer, inner) == (V6, V6);
    if has_own_route {
        let site = topology.server.prefix(inner);
        topology.client.gateway.run("ip", &["-6", "route", "del", &site])?;
    }
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    assert_eq!(client.children(RULE)?.len(), 0, "nobody has asked for it yet");

    ping_until_answered(&topology.client.host, topology.server.host_address(inner), PATIENCE)?;
    let child = client.wait_child(RULE)?;
    let by_daemon = client.counter("udp_keepalives_sent")?;
    assert!(field(&child, "suite").as_str().is_some_and(|s| s.starts_with(esp)), "{child}");
    assert_eq!(field(&child, "encapsulation").is_array(), between == Between::Nat, "{child}");
    exercise(&topology, inner)?;
    // What the gateways send themselves is selected as well.
    let (one, other) = (&topology.client, &topology.server);
    all_answered(&one.gateway, other.inner(inner), &PingOptions::default())?;
    all_answered(&other.gateway, one.inner(inner), &PingOptions::default())?;
    as_large_as_it_says(&topology, &client, inner, has_own_route)?;
    let summary = capture.summary(Mark::START)?;
    encrypted(&topology, &summary)?;
    // Behind NAT, and only there, keepalives are sent.
    let nat = between == Between::Nat;
    if nat {
        kept_alive(&capture, &client, &server, by_daemon)?;
    } else {
        assert_eq!(client.counter("udp_keepalives_sent")?, 0);
        assert_eq!(summary.count(Kind::Keepalive), 0, "on the wire were {summary}");
        assert_eq!(server.bpf_counter("nat_keepalive")?, 0);
    }
    assert!(client.bpf_counter("egress_protected")? > 0);
    for gateway in [&client, &server] {
        let stripped = gateway.bpf_counter("esp_in_udp_stripped")?;
        assert_eq!(stripped > 0, nat, "{stripped} stripped by XDP");
        assert_eq!(gateway.children(RULE)?.len(), 1, "one SA serves all of it");
    }

    assert!(client.daemon().stop(PATIENCE)?.success());
    server.wait_gone()?;
    none_answered(&topology.client.host, other.host_address(inner))?;
    none_answered(&topology.server.host, one.host_address(inner))?;
    capture.finish(&[between_sites(&topology, inner)?])
}

/// A packet of a host as large as `gateway mtu` says passes, whatever it grows by on the way, and of one
/// that is larger the host is told. The underlay has an MTU of 1500, and nothing may be fragmented.
fn as_large_as_it_says(
    topology: &Topology,
    gateway: &Gateway<'_>,
    inner: Family,
    has_own_route: bool,
) -> Result {
    let report = gateway.mtu()?;
    let octets = |name| field(&report, name).as_u64().context(format_args!("{report}"));
    assert_eq!(octets("underlay_mtu")?, 1500);
    let mtu = octets("mtu")?;
    assert_eq!(mtu, 1500_u64.saturating_sub(octets("overhead_total")?), "{report}");
    let (from, to) = (&topology.client.host, topology.server.host_address(inner).to_string());
    let headers = if inner == V4 { 20 + 8 } else { 40 + 8 };
    let whole = |size: u64| {
        let size = size.saturating_sub(headers).to_string();
        let mut command = from.command("ping");
        command.args(["-n", "-M", "do", "-c", "1", "-W", "5", "-s", &size, &to]);
        command.output().context("ping")
    };
    let fits = whole(mtu)?;
    assert!(fits.status.success(), "{mtu}: {fits:?}");
    let too_large = whole(mtu.saturating_add(1))?;
    let told = String::from_utf8_lossy(&[too_large.stdout, too_large.stderr].concat()).into_owned();
    assert!(!too_large.status.success() && told.contains("mtu"), "{told}");
    assert!(told.contains(&mtu.to_string()), "{told}");
    // Where another route leads to the site, as here to all but the one without, it is what passes
    // under any algorithm.
    let (mss, headers) = if inner == V4 { ("mss_v4", 40) } else { ("mss_v6", 60) };
    let any = XFRM_MTU.saturating_sub(headers);
    assert!(any < octets(mss)?, "{report}");
    let expected = if has_own_route { octets(mss)? } else { any };
    assert_eq!(announced(topology, inner)?, expected, "{report}");
    // A host that has been told of the MTU may announce no more than that by itself.
    assert!(has_own_route || gateway.bpf_counter("egress_mss_clamped")? > 0);
    Ok(())
}

/// The TCP segment size that the client's host has announced, as the server's host heard it.
fn announced(topology: &Topology, inner: Family) -> Result<u64> {
    let address = topology.server.host_address(inner);
    let listen = || TcpListener::bind((address, 0));
    let listener = topology.server.host.enter(listen)?.context("bind")?;
    let port = listener.local_addr().context("its port")?.port();
    let connect = || TcpStream::connect((address, port));
    let _client = topology.client.host.enter(connect)?.context("connect")?;
    let (accepted, _) = listener.accept().context("accept")?;
    let most = getsockopt(&accepted, TcpMaxSeg).context("TCP_MAXSEG")?;
    // Each segment has a timestamp, of 12 octets with its padding.
    Ok(u64::from(most).saturating_add(12))
}

/// Where the kernel can, it sends the keepalives of a Child SA, else the daemon, which had sent
/// `by_daemon` when it was installed. They end in the peer's XDP program, and come from where the
/// NAT has mapped IKE and ESP to.
fn kept_alive(
    capture: &Capture,
    client: &Gateway<'_>,
    server: &Gateway<'_>,
    by_daemon: u64,
) -> Result {
    let before = server.bpf_counter("nat_keepalive")?;
    wait_for("a keepalive after the last packet", PATIENCE, || {
        Ok((server.bpf_counter("nat_keepalive")? > before).then_some(()))
    })?;
    let by_kernel = kernel_keeps_alive(client)?;
    assert_eq!(client.counter("udp_keepalives_sent")? == by_daemon, by_kernel);
    let mut sources = BTreeMap::<_, BTreeSet<_>>::new();
    for frame in capture.since(Mark::START)? {
        if frame.device == Topology::SERVER_PORT
            && let (kind, packets) = dissect(&frame.octets)
            && let Some(Packet { source, ports: Some((port, 4500)), .. }) = packets.first().copied()
            && port != 4500
        {
            sources.entry((source, port)).or_default().insert(kind);
        }
    }
    let kinds: Vec<Vec<Kind>> = sources.values().map(|k| k.iter().copied().collect()).collect();
    assert_eq!(kinds, [[Kind::Ike, Kind::EspInUdp, Kind::Keepalive]], "{sources:?}");
    Ok(())
}

/// Whether the kernel sends keepalives, as it can since 6.11; `gateway status` says the same.
fn kernel_keeps_alive(gateway: &Gateway<'_>) -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>());
    let mut number = || numbers.next().and_then(core::result::Result::ok).context(&release);
    let can = (number()?, number()?) >= (6, 11);
    let status = gateway.status()?;
    let kernel = field(&status, "kernel");
    let capabilities = field(kernel, "capabilities").as_array().context("no capabilities")?;
    let found = capabilities.iter().find(|c| field(c, "name") == "NAT keepalives");
    let value = field(found.context("not probed")?, "value").as_str();
    assert_eq!(
        value,
        Some(if can { "yes" } else { "no: since 6.11; the gateway sends them itself" })
    );
    Ok(can)
}

#[test]
fn a_tunnel_over_ipv4_works_with_aes_gcm() -> Result {
    tunnel(Between::Switch, V4, V4, "aes256gcm16")
}

#[test]
fn a_tunnel_over_ipv6_works_with_chacha() -> Result {
    tunnel(Between::Switch, V6, V6, "chacha20poly1305")
}

#[test]
fn ipv6_in_ipv4_works_with_aes_cbc() -> Result {
    tunnel(Between::Switch, V4, V6, "aes128-sha256")
}

#[test]
fn ipv4_in_ipv6_works_through_nat_of_ipv6() -> Result {
    tunnel(Between::Nat, V6, V4, "aes128gcm16")
}

#[test]
fn a_tunnel_through_nat_works_with_aes_cbc() -> Result {
    tunnel(Between::Nat, V4, V4, "aes256-sha512")
}

/// RFC 7296 2.24: full ECN support. The outer header is ECN-capable where the inner one is, and a
/// router that marks the outer one is heard inside, also where XDP has taken the UDP header away.
fn congestion_is_seen_inside(outer: Family) -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let policy = Policy::of_server(&topology, outer, V4);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let _client =
        Gateway::start(&topology.client.gateway, &Policy::of_client(&topology, outer, V4))?;
    let (from, to) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(from, to, PATIENCE)?;
    // Under congestion a router marks what is capable of it, and would drop the rest.
    let header = if outer == V4 { "ip" } else { "ip6" };
    topology.middle.nft(&format!(
        "table inet congestion {{
            counter marked {{ }}
            chain forward {{
                type filter hook forward priority 0
                iifname \"{}\" {header} ecn {{ ect0, ect1 }} {header} ecn set ce counter name marked
            }}
        }}",
        Topology::CLIENT_PORT
    ))?;
    topology.server.host.nft(
        "table ip congestion {
            counter seen { }
            chain input {
                type filter hook input priority 0
                icmp type echo-request ip ecn ce counter name seen
            }
        }",
    )?;
    let packets = |namespace: &Namespace, family: &str, name: &str| -> Result<u64> {
        let listed = namespace.run("nft", &["list", "counter", family, "congestion", name])?;
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        let packets = words.nth(1).and_then(|word| word.parse().ok());
        packets.context(format_args!("{listed}"))
    };
    let counts = || -> Result<(u64, u64)> {
        let marked = packets(&topology.middle, "inet", "marked")?;
        Ok((marked, packets(&topology.server.host, "ip", "seen")?))
    };
    // What is not capable, ECT(1), ECT(0).
    for (ecn, expected) in [("0", (0, 0)), ("1", (2, 2)), ("2", (4, 4))] {
        let target = to.to_string();
        let pinged = from.run("ping", &["-n", "-q", "-c", "2", "-W", "5", "-Q", ecn, &target])?;
        assert!(pinged.contains(" 2 received"), "{pinged}");
        assert_eq!(counts()?, expected, "ECN {ecn}");
    }
    assert!(server.bpf_counter("esp_in_udp_stripped")? > 0);
    Ok(())
}

#[test]
fn congestion_that_is_marked_outside_over_ipv4_is_seen_inside() -> Result {
    congestion_is_seen_inside(V4)
}

#[test]
fn congestion_that_is_marked_outside_over_ipv6_is_seen_inside() -> Result {
    congestion_is_seen_inside(V6)
}

#[test]
fn one_rule_protects_both_families() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let both = |policy: Policy, one: &Site, other: &Site| {
        policy.with_rules(|rule| {
            rule.local = vec![one.prefix(V4), one.prefix(V6)];
            rule.remote = vec![other.prefix(V4), other.prefix(V6)];
        })
    };
    let (one, other) = (&topology.client, &topology.server);
    let policy = both(Policy::of_server(&topology, V4, V4), other, one);
    let server = Gateway::start(&other.gateway, &policy)?;
    let policy = both(Policy::of_client(&topology, V4, V4), one, other);
    let client = Gateway::start(&one.gateway, &policy.with_rules(|rule| rule.start = "always"))?;
    client.wait_child(RULE)?;
    server.wait_child(RULE)?;
    exercise(&topology, V4)?;
    exercise(&topology, V6)?;
    capture.finish(&[between_sites(&topology, V4)?, between_sites(&topology, V6)?])
}

#[test]
fn without_a_peer_selected_traffic_goes_nowhere() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let client = Gateway::start(&topology.client.gateway, &policy)?;
    let target = topology.server.host_address(V4);
    for from in [&topology.client.host, &topology.client.gateway] {
        none_answered(from, target)?;
        shout(from, (target, 7).into(), 50, 3000)?;
    }
    // The packets asked for an SA, and the peer does not answer.
    let summary = capture.summary(Mark::START)?;
    assert!(summary.count(Kind::Ike) > 0, "{summary}");
    assert!(client.bpf_counter("egress_protected")? > 0);
    // The other way: what arrives in the clear is not let in.
    topology.server.gateway.ip(&format!(
        "route replace {} via {}",
        topology.client.prefix(V4),
        topology.client.outer(V4)
    ))?;
    let inside = Capture::start(&topology.client.gateway, &["lan0"])?;
    none_answered(&topology.server.host, topology.client.host_address(V4))?;
    assert!(client.bpf_counter("ingress_clear")? > 0);
    inside.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn after_a_crash_nothing_leaks_and_a_new_start_recovers() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_server(&topology, V4, V4);
    let _server = Gateway::start(&topology.server.gateway, &policy)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    client.daemon().signal(Signal::SIGKILL)?;
    client.daemon().wait(PATIENCE)?;
    drop(client);
    let _client = thread::scope(|scope| {
        // Packets all along, whatever becomes of them.
        let sender = scope.spawn(|| {
            let options = PingOptions {
                count: 60,
                interval: Duration::from_millis(50),
                wait: Duration::from_secs(1),
                ..PingOptions::default()
            };
            ping(host, target, &options)
        });
        let client = Gateway::start(&topology.client.gateway, &policy);
        sender.join().unwrap()?;
        client
    })?;
    ping_until_answered(host, target, PATIENCE)?;
    capture.finish(&[between_sites(&topology, V4)?])
}

/// The peer narrows a rule to a host that another rule selects by a longer prefix. That one's Child SA
/// the peer refuses: so what goes to the host goes by none.
#[test]
fn a_rule_goes_before_another_however_far_the_peer_narrows_that_one() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    let policy = Policy::of_server(&topology, V4, V4).with_rules(|rule| {
        rule.local = vec![ipnet::IpNet::from(target).to_string()];
        rule.esp_proposals = vec!["aes256gcm16"];
    });
    let _server = Gateway::start(&topology.server.gateway, &policy)?;
    let mut policy = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        (rule.start, rule.esp_proposals) = ("always", vec!["aes256gcm16"]);
    });
    let part = Policy::of_client(&topology, V4, V4).with_rules(|rule| {
        (rule.name, rule.remote) = ("part".to_owned(), vec!["10.2.0.0/28".to_owned()]);
        rule.esp_proposals = vec!["chacha20poly1305"];
    });
    policy.rules.extend(part.rules);
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    client.wait_child(RULE)?;
    none_answered(host, target)?;
    assert_eq!(*field(&client.wait_child(RULE)?, "packets_out"), 0);
    client.wait_counter("child_sa_failed", 1)?;
    assert_eq!(client.children("part")?.len(), 0);
    // It is that rule which holds it back, and nothing else.
    policy.rules.pop();
    client.reload(&policy)?;
    all_answered(host, target, &PingOptions::default())?;
    capture.finish(&[between_sites(&topology, V4)?])
}
