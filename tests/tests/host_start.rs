//! What keeps the daemon from starting is one clear line and exit status 1, and leaves nothing
//! behind. What needs a kernel with ESP is in `vm_start.rs`.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::net::UdpSocket;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, write_policies};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, gateway_binary, met};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::{Context as _, Result};

/// The daemon ends with status 1 after these words.
fn refused(namespace: &Namespace, policy: &str, words: &[&str]) -> Result {
    let mut gateway = Gateway::spawn(namespace, &policy)?;
    let status = gateway.daemon().wait(PATIENCE)?;
    let log = gateway.daemon().log();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` in: {log}");
    }
    assert!(!log.contains("Ready"), "{log}");
    let xfrm = namespace.run("ip", &["xfrm", "policy"])?;
    assert!(!xfrm.contains("if_id"), "policies are left: {xfrm}");
    assert!(!namespace.run("ip", &["link"])?.contains("ipsec0"));
    Ok(())
}

fn policy() -> Result<(Topology, String)> {
    let topology = Topology::new(Between::Switch)?;
    let policy = Policy::of_client(&topology, Family::V4, Family::V4).to_string();
    Ok((topology, policy))
}

#[test]
fn a_kernel_without_esp_is_named_with_its_option() -> Result {
    if !met(&[Requirement::NoEsp, Requirement::Gateway])? {
        return Ok(());
    }
    let (topology, policy) = policy()?;
    refused(&topology.client.gateway, &policy, &["kernel has no ESP", "CONFIG_INET_ESP"])
}

#[test]
fn errors_in_the_files_are_all_reported_with_their_place() -> Result {
    if !met(&[Requirement::Gateway])? {
        return Ok(());
    }
    let (topology, policy) = policy()?;
    let policy = policy.replace("10.2.0.0/24", "10.2.0.0/33") + "colour = \"red\"\n";
    let words = ["gateway.toml:", "10.2.0.0/33", "colour"];
    refused(&topology.client.gateway, &policy, &words)
}

#[test]
fn a_port_500_that_is_taken_is_named() -> Result {
    if !met(&[Requirement::Gateway])? {
        return Ok(());
    }
    let (topology, policy) = policy()?;
    let gateway = &topology.client.gateway;
    let _other = gateway.enter(|| UdpSocket::bind(("0.0.0.0", 500)))?.context("port 500")?;
    refused(gateway, &policy, &["port 500", "in use"])
}

#[test]
fn a_missing_capability_is_named() -> Result {
    if !met(&[Requirement::Gateway])? {
        return Ok(());
    }
    let (topology, policy) = policy()?;
    let gateway = &topology.client.gateway;
    let directory = write_policies(gateway, &policy)?;
    for capability in ["net_admin", "net_bind_service"] {
        let output = gateway
            .command("setpriv")
            .arg(format!("--bounding-set=-{capability}"))
            .arg(format!("--inh-caps=-{capability}"))
            .arg(gateway_binary())
            .arg("run")
            .arg("--policies")
            .arg(&directory)
            .output()
            .context("setpriv")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let name = format!("CAP_{}", capability.to_uppercase());
        assert!(said.contains("missing capability") && said.contains(&name), "{said}");
    }
    Ok(())
}

#[test]
fn status_without_a_daemon_says_so_and_ends_with_3() -> Result {
    if !met(&[Requirement::Gateway])? {
        return Ok(());
    }
    let namespace = Namespace::new("alone")?;
    let output = namespace.command(gateway_binary()).arg("status").output().context("status")?;
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no gateway answers"), "{said}");
    Ok(())
}

#[test]
fn the_guard_of_somebody_else_is_left_alone() -> Result {
    if !met(&[Requirement::Gateway])? {
        return Ok(());
    }
    let (topology, policy) = policy()?;
    let namespace = &topology.client.gateway;
    let said = Gateway::guard(namespace, &policy)?;
    assert!(said.contains("eth0: guarded (TC"), "{said}");
    let programs = || namespace.run("tc", &["filter", "show", "dev", "eth0", "egress"]);
    let links = || namespace.run("bpftool", &["link", "show"]);
    let before = (programs()?, links().unwrap_or_default());

    // One that starts has the directory before anybody can ask it whether it runs.
    let directory = write_policies(namespace, &policy)?;
    let meanwhile = |arguments: &[&str]| {
        let mut command = namespace.command("flock");
        command.args(["--nonblock", "/sys/fs/bpf/gateway"]).arg(gateway_binary());
        command.args(arguments).output().context("flock")
    };
    let directory = directory.to_str().context("a path")?;
    for arguments in [&["guard", "--policies", directory][..], &["unguard"]] {
        let output = meanwhile(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("another gateway, or `gateway guard`, has the BPF programs"),
            "{said}"
        );
        assert!(said.contains("/sys/fs/bpf/gateway"), "{said}");
    }
    assert_eq!((programs()?, links().unwrap_or_default()), before);

    // When that one is gone, so is its claim.
    let said = Gateway::guard(namespace, &policy)?;
    assert!(said.contains("eth0: guarded (TC"), "{said}");
    let output = meanwhile(&["version"])?;
    assert!(output.status.success());
    let removed = namespace.command(gateway_binary()).arg("unguard").output().context("unguard")?;
    assert!(removed.status.success(), "{removed:?}");
    Ok(())
}
