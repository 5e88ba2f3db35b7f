//! Nothing that a rule selects is on the wire in the clear, whatever happens to the gateway that
//! guards it: hosts behind it and itself send all the time, by IPv4 and IPv6, datagrams, pings,
//! fragments and requests for TCP connections.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::thread;
use std::time::Duration;

use gateway_tests::gateway::{Gateway, PATIENCE, Policy, Rule};
use gateway_tests::noise::amid_noise;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{between_sites, capture};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{ping_until_answered, shout};
use gateway_tests::{Error, Result};
use nix::sys::signal::Signal;

use Family::{V4, V6};

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

/// How long it is noisy after each thing that happens.
const WHILE: Duration = Duration::from_millis(1500);

/// Octets after which the client's SA is to be replaced; a tenth more ends it.
const LIMIT: u32 = 2_000_000;

/// The rule for both families; the client's SA bears no more than so many octets.
fn both_families(topology: &Topology, policy: Policy, at_server: bool) -> Policy {
    let (mut one, mut other) = (&topology.client, &topology.server);
    if at_server {
        core::mem::swap(&mut one, &mut other);
    }
    policy.with_rules(|rule| {
        rule.local = vec![one.prefix(V4), one.prefix(V6)];
        rule.remote = vec![other.prefix(V4), other.prefix(V6)];
        rule.lifetime_bytes = (!at_server).then_some(LIMIT);
    })
}

/// A gateway's counter of what it was to encrypt must have grown: there was something to leak.
fn selected(gateway: &Gateway<'_>, before: &mut u64, when: &str) -> Result {
    let now = gateway.bpf_counter("egress_protected")?;
    let grown = now > before.saturating_add(10);
    let text = format!("{when}: egress_protected was {before} and is {now}");
    *before = now;
    if grown { Ok(()) } else { Err(Error::new(text)) }
}

fn noisy() -> Result {
    thread::sleep(WHILE);
    Ok(())
}

#[test]
fn nothing_is_in_the_clear_whatever_happens_to_the_gateway() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let at = &topology.client.gateway;
    let targets = [V4, V6].map(|family| topology.server.host_address(family));
    let senders: Vec<_> = [&topology.client.host, at]
        .into_iter()
        .flat_map(|from| targets.map(|target| (from, target)))
        .collect();
    let of_server = both_families(&topology, Policy::of_server(&topology, V4, V4), true);
    let of_client = both_families(&topology, Policy::of_client(&topology, V4, V4), false);
    let reached = || {
        targets.iter().try_for_each(|target| {
            ping_until_answered(&topology.client.host, *target, PATIENCE).map(drop)
        })
    };

    // At boot: the guard alone, then the gateway, which the peer does not answer, then the peer.
    Gateway::guard(at, &of_client)?;
    let mut count = 0;
    let (mut server, mut client) = amid_noise(&senders, || {
        noisy()?;
        let client = Gateway::start(at, &of_client)?;
        noisy()?;
        selected(&client, &mut count, "at boot")?;
        Ok((Gateway::start(&topology.server.gateway, &of_server)?, client))
    })?;
    reached()?;

    amid_noise(&senders, || {
        // A reload that adds a rule, and one that takes it away again.
        let more = Rule {
            name: "other".to_owned(),
            local: vec!["10.77.0.0/16".to_owned()],
            remote: vec!["10.78.0.0/16".to_owned()],
            ..of_client.rules.first().cloned().ok_or_else(|| Error::new("no rule"))?
        };
        let mut changed = of_client.clone();
        changed.rules.push(more);
        client.reload(&changed)?;
        noisy()?;
        client.reload(&of_client)?;
        noisy()?;
        selected(&client, &mut count, "reload")?;

        // Somebody else takes the XDP program away, or is not let.
        let _refused = at.run("ip", &["link", "set", "dev", "eth0", "xdp", "off"]);
        noisy()?;
        selected(&client, &mut count, "XDP program detached")?;

        // The peer is gone, and more is sent than the SA may bear.
        server.daemon().signal(Signal::SIGSTOP)?;
        shout(&topology.client.host, (targets[0], 9).into(), 4000, 1000)?;
        client.wait_counter("child_sa_expired", 1)?;
        noisy()?;
        selected(&client, &mut count, "SA expired")?;
        server.daemon().signal(Signal::SIGCONT)
    })?;
    reached()?;

    amid_noise(&senders, || {
        // Somebody else empties the kernel's databases.
        at.run("ip", &["xfrm", "state", "flush"])?;
        noisy()?;
        at.run("ip", &["xfrm", "policy", "flush"])?;
        noisy()?;
        selected(&client, &mut count, "flushed")?;

        at.sysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1")?;
        at.ip("link set eth0 down")?;
        noisy()?;
        // The routes that went with it are the gateway's to bring back: the peer is on the link.
        at.ip("link set eth0 up")?;
        noisy()?;
        selected(&client, &mut count, "down and up")?;

        client.daemon().signal(Signal::SIGKILL)?;
        client.daemon().wait(PATIENCE)?;
        noisy()
    })?;
    drop(client);
    let client = amid_noise(&senders, || {
        noisy()?;
        Gateway::start(at, &of_client)
    })?;
    selected(&client, &mut count, "killed")?;
    reached()?;
    capture.finish(&[between_sites(&topology, V4)?, between_sites(&topology, V6)?])
}
