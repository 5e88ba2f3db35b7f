//! What keeps the daemon from starting, or does not, on a kernel with ESP.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::os::unix::net::UnixDatagram;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, gateway_binary, met};
use gateway_tests::scenario::{between_sites, capture, exercise, none_answered};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::ping_until_answered;
use gateway_tests::{Context as _, Result};
use nix::sys::signal::Signal;

use Family::V4;

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

/// The daemon ends with status 1 after these words, and without what it had set up by then.
fn refused(namespace: &Namespace, policy: &str, words: &[&str]) -> Result {
    let mut gateway = Gateway::spawn(namespace, &policy)?;
    let status = gateway.daemon().wait(PATIENCE)?;
    let log = gateway.daemon().log();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` in: {log}");
    }
    assert!(!log.contains("Ready"), "{log}");
    assert_eq!(namespace.run("ip", &["xfrm", "state"])?.trim(), "");
    assert!(!namespace.run("ip", &["link"])?.contains("ipsec0"));
    Ok(())
}

#[test]
fn a_missing_bpffs_is_named_with_the_command_that_mounts_it() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let bare = Namespace::without_bpffs("bare")?;
    bare.ip("link add eth0 type veth peer name other\nlink set eth0 up\nlink set other up")?;
    refused(&bare, &policy.to_string(), &["/sys/fs/bpf", "mount"])
}

#[test]
fn an_interface_that_is_not_there_is_named() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let policy = Policy::of_client(&topology, V4, V4).to_string().replace("eth0", "eth7");
    refused(&topology.client.gateway, &policy, &["eth7"])
}

/// Whether the guard is on an interface, by a pinned link or a filter.
fn is_guarded(namespace: &Namespace, interface: &str) -> Result<bool> {
    let index = namespace.run("cat", &[&format!("/sys/class/net/{interface}/ifindex")])?;
    let end = format!("-{}", index.trim());
    let pins = namespace.run("ls", &["/sys/fs/bpf/gateway/links"])?;
    let filters = namespace.run("tc", &["filter", "show", "dev", interface, "egress"])?;
    Ok(pins.lines().any(|pin| pin.ends_with(&end)) || filters.contains("steer_egress"))
}

#[test]
fn what_is_selected_is_blocked_from_before_the_first_start_on() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let server = Policy::of_server(&topology, V4, V4);
    let client = Policy::of_client(&topology, V4, V4);
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    // Each to the other itself, past the middle, which forwards nothing: in the clear all is reached.
    for (from, to) in [(&topology.client, &topology.server), (&topology.server, &topology.client)] {
        from.gateway.ip(&format!("route replace {} via {}", to.prefix(V4), to.outer(V4)))?;
    }
    ping_until_answered(host, target, PATIENCE)?;

    // What comes in is refused by the one, though the other sends it.
    let said = Gateway::guard(&topology.server.gateway, &server)?;
    assert!(said.contains("eth0: guarded (TC"), "{said}");
    none_answered(host, target)?;
    // What goes out does not leave the other.
    let more = client.to_string().replace("[\"eth0\"]", "[\"eth0\", \"lan0\"]");
    let said = Gateway::guard(&topology.client.gateway, &more)?;
    assert!(said.contains("lan0: guarded (TC"), "{said}");
    assert!(is_guarded(&topology.client.gateway, "lan0")?);
    let capture = capture(&topology)?;
    none_answered(host, target)?;
    none_answered(&topology.server.host, topology.client.host_address(V4))?;

    let server = Gateway::start(&topology.server.gateway, &server)?;
    let mut gateway = Gateway::start(&topology.client.gateway, &client)?;
    ping_until_answered(host, target, PATIENCE)?;
    server.wait_child(RULE)?;
    let said = Gateway::guard(&topology.client.gateway, &client)?;
    assert!(said.contains("a gateway is running"), "{said}");
    // At boot nobody knew what the underlay is; now it is known.
    assert!(!is_guarded(&topology.client.gateway, "lan0")?);
    exercise(&topology, V4)?;
    // The SAs of one that was killed go on under the guard that is put up again.
    gateway.daemon().signal(Signal::SIGKILL)?;
    gateway.daemon().wait(PATIENCE)?;
    let said = Gateway::guard(&topology.client.gateway, &client)?;
    assert!(said.contains("eth0: guarded (TC"), "{said}");
    exercise(&topology, V4)?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn a_guard_without_an_interface_says_so_and_one_that_lacks_one_guards_the_others() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let namespace = &topology.client.gateway;
    let policy = Policy::of_client(&topology, V4, V4).to_string();
    let two = policy.replace("[\"eth0\"]", "[\"eth7\", \"eth0\"]");
    assert_ne!(two, policy);
    let refused = Gateway::guard(namespace, &two).unwrap_err().to_string();
    assert!(refused.contains("eth7 is not guarded: there is no interface eth7"), "{refused}");
    assert!(refused.contains("eth0: guarded"), "{refused}");
    // A namespace has no hardware.
    let none = policy.replace("interfaces = [\"eth0\"]", "");
    assert_ne!(none, policy);
    let bare = Namespace::new("bare")?;
    let refused = Gateway::guard(&bare, &none).unwrap_err().to_string();
    assert!(refused.contains("there is no interface to guard"), "{refused}");
    Ok(())
}

#[test]
fn the_guard_is_removed_on_purpose_and_not_from_under_a_running_gateway() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let namespace = &topology.client.gateway;
    let program = gateway_binary().to_string_lossy().into_owned();
    let policy = Policy::of_client(&topology, V4, V4);
    let mut gateway = Gateway::start(namespace, &policy)?;
    let refused = namespace.run(&program, &["unguard"]).unwrap_err().to_string();
    assert!(refused.contains("a gateway is running"), "{refused}");

    gateway.daemon().signal(Signal::SIGKILL)?;
    gateway.daemon().wait(PATIENCE)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    none_answered(host, target)?;
    let said = namespace.run(&program, &["unguard"])?;
    assert!(said.contains("is removed"), "{said}");
    // Each to the other itself, past the middle, which forwards nothing; the routes of the dead
    // gateway go with their interface.
    namespace.ip("link delete ipsec0")?;
    for (from, to) in [(&topology.client, &topology.server), (&topology.server, &topology.client)] {
        from.gateway.ip(&format!("route replace {} via {}", to.prefix(V4), to.outer(V4)))?;
    }
    ping_until_answered(host, target, PATIENCE)?;
    let said = namespace.run(&program, &["unguard"])?;
    assert!(said.contains("nothing is pinned"), "{said}");
    Ok(())
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let policy = Policy::of_server(&topology, V4, V4);
    let _server = Gateway::start(&topology.server.gateway, &policy)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let client = Gateway::start(&topology.client.gateway, &policy)?;
    let target = topology.server.host_address(V4);
    ping_until_answered(&topology.client.host, target, PATIENCE)?;
    let before = client.wait_child(RULE)?;

    let mut second = Gateway::spawn(&topology.client.gateway, &policy)?;
    let status = second.daemon().wait(PATIENCE)?;
    assert_eq!(status.code(), Some(1), "{}", second.daemon().log());
    let after = client.wait_child(RULE)?;
    assert_eq!(after.get("inbound_spi"), before.get("inbound_spi"));
    exercise(&topology, V4)?;
    capture.finish(&[between_sites(&topology, V4)?])
}

#[test]
fn a_start_that_fails_at_the_last_underlay_leaves_the_others_alone() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let namespace = &topology.client.gateway;
    let mut policy = Policy::of_client(&topology, V4, V4);
    policy.settings = "pin-dir = \"/sys/fs/bpf/other\"".to_owned();
    let other = policy.to_string().replace("\"eth0\"", "\"lan0\"");
    let mut gateway = Gateway::start(namespace, &other)?;
    gateway.daemon().stop(PATIENCE)?;
    // Its guard stays.
    namespace.ip("link del ipsec0")?;
    policy.settings.clear();
    let both = policy.to_string().replace("\"eth0\"", "\"eth0\", \"lan0\"");
    refused(namespace, &both, &["another XDP program is attached to lan0"])?;
    let link = |name| namespace.run("ip", &["-details", "link", "show", name]);
    assert!(!link("eth0")?.contains("xdp"), "{}", link("eth0")?);
    assert!(link("lan0")?.contains("xdp"), "{}", link("lan0")?);
    assert_eq!(namespace.run("ls", &["/sys/fs/bpf"])?.trim(), "other");
    for direction in ["ingress", "egress"] {
        let filters = namespace.run("tc", &["filter", "show", "dev", "eth0", direction])?;
        assert!(!filters.contains("bpf"), "{filters}");
    }
    Ok(())
}

/// What a service manager is told.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// Waits for a message with this line, and gives the message.
    fn told(&self, line: &str) -> Result<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while !heard.iter().any(|message: &String| message.lines().any(|l| l == line)) {
            let length =
                self.socket.recv(&mut buffer).context(format_args!("{line}: {heard:?}"))?;
            let octets = buffer.get(..length).unwrap_or_default();
            heard.push(String::from_utf8_lossy(octets).into_owned());
        }
        heard.pop().context("nothing")
    }
}

#[test]
fn the_service_manager_is_told_of_readiness_reloads_and_the_end() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let namespace = &topology.client.gateway;
    let path = namespace.directory().join("notify");
    let socket = UnixDatagram::bind(&path).context(path.display())?;
    socket.set_read_timeout(Some(PATIENCE)).context("a time limit")?;
    let manager = Manager { socket };
    let policy = Policy::of_client(&topology, V4, V4);
    let mut gateway = Gateway::spawn_with(namespace, &policy, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    })?;
    let ready = manager.told("READY=1")?;
    assert!(ready.contains("STATUS=Policies: generation 1"), "{ready}");
    assert!(gateway.daemon().log().contains("Kernel probed"), "{}", gateway.daemon().log());
    manager.told("WATCHDOG=1")?;

    gateway.daemon().signal(Signal::SIGHUP)?;
    let reloading = manager.told("RELOADING=1")?;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let ready = manager.told("READY=1")?;
    assert!(ready.contains("STATUS=Policies: generation 2"), "{ready}");

    gateway.daemon().signal(Signal::SIGTERM)?;
    manager.told("STOPPING=1")?;
    assert!(gateway.daemon().wait(PATIENCE)?.success());
    Ok(())
}
