//! The main job, step by step: a client behind a NAT and a server, a gateway at each, encrypted
//! traffic between the hosts behind them. Every claim is checked; the exit status is 1 if one
//! does not hold.
#![expect(clippy::print_stdout, reason = "this is what the demo is for")]
#![expect(unused_crate_dependencies, reason = "the library of this package uses them")]

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use gateway_tests::capture::{Capture, Mark, Selected};
use gateway_tests::frame::Kind;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE, Rule};
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture, none_answered};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered, transfer};
use gateway_tests::{Context as _, Error, Result};
use serde_json::Value;

const V4: Family = Family::V4;

const PICTURE: &str = "
    host            gateway            router             gateway           host
  10.1.0.2 -------- client ---------- with NAT ---------- server -------- 10.2.0.2
            10.1.0.1  192.168.7.2   |          |   203.0.113.2  10.2.0.1
                                    |          |
                             .......captures here.......
";

/// What is told while it runs, and what was proved.
struct Demo {
    start: Instant,
    steps: usize,
    proved: Vec<(&'static str, Result<String>)>,
}

impl Demo {
    fn step(&mut self, title: &str) {
        self.steps = self.steps.saturating_add(1);
        let at = self.start.elapsed().as_secs();
        println!("\n[{at:>3} s] {}. {title}", self.steps);
        flush();
    }

    /// Checks a claim. What depends on it goes on or fails by itself.
    fn prove(&mut self, claim: &'static str, check: Result<String>) {
        match &check {
            Ok(seen) => say(&format!("ok: {claim}: {seen}")),
            Err(error) => say(&format!("NOT PROVED: {claim}: {error}")),
        }
        self.proved.push((claim, check));
    }

    fn summary(&self) -> bool {
        println!("\nWhat was proved, in {} s:", self.start.elapsed().as_secs());
        for (claim, check) in &self.proved {
            println!("  {} {claim}", if check.is_ok() { "[yes]" } else { "[NO] " });
        }
        let all = !self.proved.is_empty() && self.proved.iter().all(|(_, check)| check.is_ok());
        println!("{}", if all { "All of it holds." } else { "Not all of it holds." });
        flush();
        all
    }
}

fn say(text: &str) {
    for line in text.lines() {
        println!("        {line}");
    }
    flush();
}

/// Progress must be seen when it happens, also through a pipe. Where nobody reads, nobody cares.
fn flush() {
    drop(stdout().flush());
}

fn main() -> ExitCode {
    let mut demo = Demo { start: Instant::now(), steps: 0, proved: Vec::new() };
    let result = show(&mut demo);
    if let Err(error) = &result {
        println!("\nThe demo broke off: {error}");
    }
    let all = demo.summary();
    if all && result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(demo: &mut Demo) -> Result {
    if !met(&[Requirement::Esp, Requirement::Gateway])? {
        return Err(Error::new("this machine cannot run it: see the line above"));
    }
    demo.step("A small internet in network namespaces");
    say(PICTURE.trim_matches('\n'));
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    say("tcpdump captures both sides of the router from here on, until the end");
    let selected = [
        between_sites(&topology, V4)?,
        (between_sites(&topology, V4)?.0, Topology::LATER_PREFIX.parse().context("a prefix")?),
    ];

    demo.step("The client's gateway alone: its peer is not there yet");
    let mut policy = Policy::of_client(&topology, V4, V4);
    say(&policy.to_string());
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    alone(demo, &topology, &capture)?;

    demo.step("The server's gateway starts, and the two negotiate");
    let mut answering = Policy::of_server(&topology, V4, V4);
    let mut server = Gateway::start(&topology.server.gateway, &answering)?;
    negotiate(demo, &topology, &mut client, &server)?;
    let before = (counters(&client)?, counters(&server)?);

    demo.step("Traffic through the tunnel");
    traffic(demo, &topology)?;

    demo.step("What was on the wire");
    wire(demo, &capture)?;

    demo.step("What the gateways counted meanwhile");
    counted(demo, "client", &before.0, &counters(&client)?);
    counted(demo, "server", &before.1, &counters(&server)?);

    demo.step("SIGHUP adds a rule while traffic flows");
    policy.rules.push(later("client", &topology));
    answering.rules.push(later("server", &topology));
    let changes = [(&mut server, &answering), (&mut client, &policy)];
    reload(demo, &topology, changes)?;

    demo.step("An orderly end");
    end(demo, &topology, client, &server)?;

    demo.step("The whole capture");
    finish(demo, capture, &selected);
    Ok(())
}

/// Before there is an SA.
fn alone(demo: &mut Demo, topology: &Topology, capture: &Capture) -> Result {
    let mark = capture.mark()?;
    let target = topology.server.host_address(V4);
    say(&format!("the client's host pings {target} ..."));
    let blocked = none_answered(&topology.client.host, target);
    let summary = capture.summary(mark)?;
    let check =
        blocked.and_then(|()| match (summary.count(Kind::Other), summary.count(Kind::Ike)) {
            (0, 1..) => Ok(format!("on the wire were {summary}")),
            _ => Err(Error::new(format!("on the wire were {summary}"))),
        });
    demo.prove("without an SA selected traffic is held back, and asks for one", check);
    Ok(())
}

fn negotiate(
    demo: &mut Demo,
    topology: &Topology,
    client: &mut Gateway<'_>,
    server: &Gateway<'_>,
) -> Result {
    let target = topology.server.host_address(V4);
    let answered = ping_until_answered(&topology.client.host, target, PATIENCE);
    say("the client's log:");
    say(&client.daemon().log());
    answered?;
    let child = client.wait_child(RULE)?;
    server.wait_child(RULE)?;
    let text = |name: &str| child.get(name).map(ToString::to_string).unwrap_or_default();
    let seen = format!(
        "{}, {} mode, UDP ports {}, SPIs {} and {}",
        text("suite"),
        text("mode"),
        text("encapsulation"),
        text("inbound_spi"),
        text("outbound_spi")
    );
    let check = if child.get("encapsulation").is_some_and(Value::is_array) {
        Ok(seen)
    } else {
        Err(Error::new(format!("the NAT was not noticed: {seen}")))
    };
    demo.prove("IKEv2 with a pre-shared key makes a tunnel through the NAT", check);
    Ok(())
}

fn traffic(demo: &mut Demo, topology: &Topology) -> Result {
    let client = (&topology.client.host, topology.client.host_address(V4));
    let server = (&topology.server.host, topology.server.host_address(V4));
    let options = PingOptions { count: 10, ..PingOptions::default() };
    let pings = all_answered(client.0, server.1, &options)
        .and_then(|()| all_answered(server.0, client.1, &options));
    demo.prove("the hosts ping each other", pings.map(|()| "10 of 10, both ways".to_owned()));
    let size = if std::env::var_os("GATEWAY_VM").is_some() { 2_000_000 } else { 100_000_000 };
    for (claim, from, to) in [
        ("bulk data arrives whole, from client to server", client, server),
        ("bulk data arrives whole, from server to client", server, client),
    ] {
        let result = transfer(from, to, size).map(|t| {
            let (megabytes, speed) = (t.octets / 1_000_000, t.megabytes_per_second());
            format!("{megabytes} MB, every octet compared, {speed:.1} MB/s")
        });
        demo.prove(claim, result);
    }
    Ok(())
}

fn wire(demo: &mut Demo, capture: &Capture) -> Result {
    let summary = capture.summary(Mark::START)?;
    for line in capture.listing(Mark::START, 12)? {
        say(&line);
    }
    say(&format!("... in all: {summary}"));
    let check = match (summary.count(Kind::Other), summary.count(Kind::EspInUdp)) {
        (0, 1..) => Ok(summary.to_string()),
        _ => Err(Error::new(summary.to_string())),
    };
    demo.prove(
        "the wire shows IKE and ESP-in-UDP, and besides only ARP/ND and the ICMP errors of step 2",
        check,
    );
    Ok(())
}

type Counters = BTreeMap<String, u64>;

/// The counters of the eBPF programs, and what the rule's SA has carried.
fn counters(gateway: &Gateway<'_>) -> Result<Counters> {
    let status = gateway.status()?;
    let bpf = status.get("bpf_counters").and_then(Value::as_object).context("no bpf_counters")?;
    let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_u64()?));
    let mut all: Counters = bpf.iter().filter_map(number).collect();
    for child in gateway.children(RULE)? {
        for name in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
            let value = child.get(name).and_then(Value::as_u64).unwrap_or(0);
            all.insert(format!("SA {name}"), value);
        }
    }
    Ok(all)
}

fn counted(demo: &mut Demo, name: &'static str, before: &Counters, after: &Counters) {
    say(&format!("{name:<28}{:>12}{:>12}", "before", "after"));
    let grown = |counter: &str| {
        let old = before.get(counter).copied().unwrap_or(0);
        let new = after.get(counter).copied().unwrap_or(0);
        if new > 0 {
            say(&format!("  {counter:<26}{old:>12}{new:>12}"));
        }
        new.saturating_sub(old)
    };
    let growth: Counters = after.keys().map(|c| (c.clone(), grown(c))).collect();
    let of = |counter: &str| growth.get(counter).copied().unwrap_or(0);
    let (steered, stripped) = (of("egress_protected"), of("esp_in_udp_stripped"));
    let claim = match name {
        "client" => "at the client, eBPF steered what left and decapsulated what came",
        _ => "at the server, eBPF steered what left and decapsulated what came",
    };
    let seen = format!("{steered} packets steered, {stripped} decapsulated");
    let enough = steered > 0 && stripped > 0 && of("SA packets_in") > 0 && of("SA packets_out") > 0;
    demo.prove(claim, if enough { Ok(seen) } else { Err(Error::new(seen)) });
}

/// A rule for the second prefix behind the server.
fn later(side: &str, topology: &Topology) -> Rule {
    let (near, far) = (topology.client.prefix(V4), Topology::LATER_PREFIX.to_owned());
    let (local, remote, start) = match side {
        "client" => (near, far, "on-demand"),
        _ => (far, near, "respond"),
    };
    Rule {
        name: "later".to_owned(),
        local: vec![local],
        remote: vec![remote],
        mode: "tunnel",
        start,
        esp_proposals: Vec::new(),
        lifetime: None,
        lifetime_packets: None,
        lifetime_bytes: None,
    }
}

fn reload(
    demo: &mut Demo,
    topology: &Topology,
    changes: [(&mut Gateway<'_>, &Policy); 2],
) -> Result {
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    let options = PingOptions {
        count: 200,
        interval: Duration::from_millis(50),
        wait: Duration::from_secs(10),
        ..PingOptions::default()
    };
    say(&format!(
        "{} pings, 50 ms apart; meanwhile both gateways load a rule more ...",
        options.count
    ));
    let (pings, loaded) = thread::scope(|scope| {
        let sender = scope.spawn(|| ping(host, target, &options));
        thread::sleep(Duration::from_secs(2));
        let mut loaded = Ok(());
        for (gateway, policy) in changes {
            let report = gateway.reload(policy);
            match report {
                Ok(report) => say(&format!("reload: {report}")),
                Err(error) => loaded = Err(error),
            }
        }
        (sender.join(), loaded)
    });
    loaded?;
    let pings = pings.map_err(|_panic| Error::new("ping panicked"))??;
    let seen = format!("{} of {} pings answered", pings.received, pings.sent);
    let check = if pings.received == pings.sent { Ok(seen) } else { Err(Error::new(seen)) };
    demo.prove("a reload under traffic loses no packet", check);
    let later: IpAddr = Topology::LATER_HOST;
    let check = ping_until_answered(host, later, PATIENCE);
    let seen = |after: Duration| format!("{later} answered after {} ms", after.as_millis());
    demo.prove("the new rule has a tunnel of its own", check.map(seen));
    Ok(())
}

fn end(
    demo: &mut Demo,
    topology: &Topology,
    mut client: Gateway<'_>,
    server: &Gateway<'_>,
) -> Result {
    say("SIGTERM to the client's gateway");
    let status = client.daemon().stop(PATIENCE)?;
    let check =
        server.wait_gone().map(|()| format!("it ended with {status}, its peer has no SA left"));
    demo.prove("a gateway that ends tells its peer", check);
    let target = topology.server.host_address(V4);
    let check =
        none_answered(&topology.client.host, target).map(|()| "no ping answered".to_owned());
    demo.prove("the guard stays when the gateway is gone", check);
    Ok(())
}

fn finish(demo: &mut Demo, capture: Capture, selected: &[Selected]) {
    let frames = capture.since(Mark::START).map_or(0, |frames| frames.len());
    let check = capture.finish(selected).map(|()| format!("none of {frames} frames, none missed"));
    demo.prove("from first to last, no selected packet was in the clear on the wire", check);
}
