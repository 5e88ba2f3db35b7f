//! SIGHUP while traffic flows: a good file is applied without a lost packet, a broken one changes
//! nothing.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use gateway_tests::capture::Selected;
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE, Rule};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::{all_answered, between_sites, capture};
use gateway_tests::topology::{Between, Family, Topology};
use gateway_tests::traffic::{PingOptions, ping, ping_until_answered};
use gateway_tests::{Context as _, Result};
use serde_json::Value;

use Family::V4;

const NEEDED: [Requirement; 2] = [Requirement::Esp, Requirement::Gateway];

/// A rule for the second prefix behind the server, seen from the client.
fn later_rule(topology: &Topology) -> Rule {
    Rule {
        name: "later".to_owned(),
        local: vec![topology.client.prefix(V4)],
        remote: vec![Topology::LATER_PREFIX.to_owned()],
        mode: "tunnel",
        start: "on-demand",
        esp_proposals: Vec::new(),
        lifetime: None,
        lifetime_packets: None,
        lifetime_bytes: None,
    }
}

fn later_traffic(topology: &Topology) -> Result<Selected> {
    let later = Topology::LATER_PREFIX.parse().context("a prefix")?;
    Ok((between_sites(topology, V4)?.0, later))
}

/// What must not change: the SPIs of all Child SAs, and the names of the rules.
fn state(gateway: &Gateway<'_>) -> Result<(Vec<Value>, Vec<Value>)> {
    let spi = |child: &Value| child.get("inbound_spi").cloned();
    let spis = gateway.children(RULE)?.iter().filter_map(spi).collect();
    let status = gateway.status()?;
    let rules = status.get("rules").and_then(Value::as_array).context("no rules")?;
    Ok((spis, rules.iter().filter_map(|rule| rule.get("name").cloned()).collect()))
}

#[test]
fn adding_a_rule_loses_no_packet_of_the_others() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Nat)?;
    let capture = capture(&topology)?;
    let mut policy = Policy::of_server(&topology, V4, V4);
    let mut server = Gateway::start(&topology.server.gateway, &policy)?;
    let mut client_policy = Policy::of_client(&topology, V4, V4);
    let mut client = Gateway::start(&topology.client.gateway, &client_policy)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    let before = (state(&client)?, state(&server)?);

    let mut rule = later_rule(&topology);
    client_policy.rules.push(rule.clone());
    std::mem::swap(&mut rule.local, &mut rule.remote);
    rule.start = "respond";
    policy.rules.push(rule);
    let options = PingOptions {
        count: 200,
        interval: Duration::from_millis(50),
        wait: Duration::from_secs(10),
        ..PingOptions::default()
    };
    let pings = thread::scope(|scope| {
        let sender = scope.spawn(|| ping(host, target, &options));
        thread::sleep(Duration::from_secs(1));
        for (gateway, policy) in [(&mut server, &policy), (&mut client, &client_policy)] {
            let report = gateway.reload(policy)?;
            assert_eq!(report.get("ok"), Some(&Value::Bool(true)), "{report}");
        }
        sender.join().map_err(|_panic| gateway_tests::Error::new("ping panicked"))?
    })?;
    assert_eq!(pings.received, pings.sent, "packets lost during the reload");
    assert_eq!((state(&client)?.0, state(&server)?.0), (before.0.0, before.1.0), "SPIs");

    ping_until_answered(host, Topology::LATER_HOST, PATIENCE)?;
    client.wait_child("later")?;
    capture.finish(&[between_sites(&topology, V4)?, later_traffic(&topology)?])
}

#[test]
fn a_rule_that_is_taken_away_takes_its_sa_along() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let capture = capture(&topology)?;
    let mut policy = Policy::of_server(&topology, V4, V4);
    let mut rule = later_rule(&topology);
    std::mem::swap(&mut rule.local, &mut rule.remote);
    rule.start = "respond";
    policy.rules.push(rule);
    let server = Gateway::start(&topology.server.gateway, &policy)?;
    let mut policy = Policy::of_client(&topology, V4, V4);
    policy.rules.push(later_rule(&topology));
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    ping_until_answered(host, Topology::LATER_HOST, PATIENCE)?;

    policy.rules.pop();
    client.reload(&policy)?;
    gateway_tests::daemon::wait_for("the end of the SA of rule later", PATIENCE, || {
        let gone = client.children("later")?.is_empty() && server.children("later")?.is_empty();
        Ok(gone.then_some(()))
    })?;
    all_answered(host, target, &PingOptions::default())?;
    assert_eq!(client.children(RULE)?.len(), 1);
    // No rule speaks for the later prefix any more, so it passes: until here nothing did.
    capture.finish(&[between_sites(&topology, V4)?, later_traffic(&topology)?])
}

/// The metrics of the gateway in a namespace, or why there are none.
fn metrics(namespace: &Namespace) -> Result<io::Result<String>> {
    namespace.enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 9500))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")?;
        let mut text = String::new();
        let _octets = stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

#[test]
fn a_reload_opens_and_closes_the_metrics() -> Result {
    if !met(&NEEDED)? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let policy = Policy::of_server(&topology, V4, V4);
    let _server = Gateway::start(&topology.server.gateway, &policy)?;
    let policy = Policy::of_client(&topology, V4, V4);
    let mut client = Gateway::start(&topology.client.gateway, &policy)?;
    let (host, target) = (&topology.client.host, topology.server.host_address(V4));
    ping_until_answered(host, target, PATIENCE)?;
    let gateway = &topology.client.gateway;
    assert!(metrics(gateway)?.is_err(), "nobody has asked for them");

    // By now it has no more rights than it needs.
    let settings = "metrics-listen = \"127.0.0.1:9500\"".to_owned();
    client.reload(&Policy { settings, ..policy.clone() })?;
    let text = metrics(gateway)?.context("the metrics")?;
    let line = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse::<u64>().ok());
        value.context(format_args!("{name} in\n{text}"))
    };
    let rule = format!("{{rule=\"{RULE}\",action=\"protect\"}}");
    assert_eq!(line(&format!("gateway_rule_child_sas{rule}"))?, 1);
    assert!(line(&format!("gateway_rule_selected_packets_total{rule}"))? >= 1);
    assert!(line("gateway_bpf_packets_total{reason=\"egress_protected\"}")? >= 1);
    assert_eq!(line("gateway_events_total{event=\"ike_sa_established\"}")?, 1);
    assert_eq!(line("gateway_xfrm_errors_total{error=\"XfrmInStateProtoError\"}")?, 0);
    assert_eq!(line("gateway_policy_generation")?, 2);

    client.reload(&policy)?;
    assert!(metrics(gateway)?.is_err(), "nobody wants them any more");
    Ok(())
}

/// What is written into the directory, and what the log must say of it.
struct Mistake {
    what: &'static str,
    policy: String,
    key_mode: u32,
    says: &'static str,
}

fn mistakes(good: &Policy) -> Vec<Mistake> {
    let text = good.to_string();
    let mistake = |what, policy, says| Mistake { what, policy, key_mode: 0o600, says };
    let with_rule = |extra: &str| {
        format!(
            "{text}\n[rule.wrong]\naction = \"protect\"\npeer = \"other\"\n\
             local = [\"10.9.0.0/24\"]\nremote = [\"10.8.0.0/24\"]\n{extra}\n"
        )
    };
    vec![
        mistake("an unknown key", with_rule("colour = \"red\""), "colour"),
        mistake(
            "rules that contradict each other",
            format!(
                "{text}\n[rule.wrong]\naction = \"discard\"\nlocal = {:?}\nremote = {:?}\n",
                good.rules.first().map(|r| r.local.clone()).unwrap_or_default(),
                good.rules.first().map(|r| r.remote.clone()).unwrap_or_default(),
            ),
            "rule.wrong",
        ),
        mistake("an unreadable secret", text.replace("\"psk\"", "\"absent.psk\""), "absent.psk"),
        Mistake {
            what: "a secret that others can read",
            policy: text.clone(),
            key_mode: 0o644,
            says: "psk",
        },
        mistake("a bad prefix", text.replace("10.1.0.0/24", "10.1.0.0/33"), "10.1.0.0/33"),
        mistake(
            "a port range the wrong way round",
            with_rule("protocol = \"tcp\"\nlocal-ports = \"9000-8000\""),
            "9000-8000",
        ),
        mistake("something that is not TOML", format!("{text}\n[["), "gateway.toml"),
    ]
}

#[test]
fn a_broken_file_changes_nothing_and_is_named() -> Result {
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
    let before = state(&client)?;
    let key = client.policies().join("psk");
    for (number, mistake) in (1..).zip(mistakes(&policy)) {
        let what = mistake.what;
        fs::set_permissions(&key, Permissions::from_mode(mistake.key_mode)).context("psk")?;
        let skip = client.daemon().log().len();
        let report = client.reload(&mistake.policy)?;
        assert_eq!(report.get("ok"), Some(&Value::Bool(false)), "{what}: {report}");
        let log = client.daemon().log();
        let said = log.get(skip..).unwrap_or_default();
        assert!(said.contains(mistake.says) && said.contains("gateway.toml:"), "{what}: {said}");
        assert_eq!(state(&client)?, before, "{what}");
        let status = client.status()?;
        let failed = status.pointer("/policies/reload_failed").and_then(Value::as_u64);
        assert_eq!(failed, Some(number), "{what}");
        all_answered(host, target, &PingOptions { count: 1, ..PingOptions::default() })?;
    }
    fs::set_permissions(&key, Permissions::from_mode(0o600)).context("psk")?;
    let report = client.reload(&policy)?;
    assert_eq!(report.get("ok"), Some(&Value::Bool(true)), "{report}");
    assert_eq!(state(&client)?, before);
    capture.finish(&[between_sites(&topology, V4)?])
}
