//! The metrics of a whole gateway, and what a reload does to the place where they are served.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

impl Gateway {
    /// The metrics; `None`: nobody listens at that port.
    fn metrics(&self, port: u16) -> Option<String> {
        let (sender, text) = std_mpsc::channel();
        self.enter(move || {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok();
            let text = stream.map(|mut stream| {
                stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
                let mut text = String::new();
                let _octets = stream.read_to_string(&mut text).unwrap();
                text
            });
            sender.send(text).unwrap();
        });
        text.recv().unwrap()
    }
}

#[test]
fn metrics_say_what_status_says_and_a_reload_moves_them() {
    if !is_root("metrics_say_what_status_says_and_a_reload_moves_them") {
        return;
    }
    let rest = policies("1", "2", "respond");
    let at = |port: u16| format!("[gateway]\nmetrics-listen = \"127.0.0.1:{port}\"\n\n");
    let mut gateway = Gateway::start("10.9.0.1", &(at(9500) + &rest), || {});
    let file = gateway.directory.path().join("a.toml");
    let rest = fs::read_to_string(&file).unwrap().replace(&at(9500), "");

    let report = gateway.until("one rule", |report| report.rules.len() == 1);
    let text = gateway.metrics(9500).unwrap();
    for name in report.counters.keys() {
        let line = format!("gateway_events_total{{event=\"{name}\"}} ");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    // Also those that are zero, and in no JSON: a series must be there before its first step.
    assert!(text.contains("gateway_xfrm_errors_total{error=\"XfrmInError\"} 0"), "{text}");
    let packets = "gateway_rule_refused_packets_total{rule=\"net\",action=\"protect\"} 6";
    assert!(text.contains(packets), "{text}");

    fs::write(&file, at(9501) + &rest).unwrap();
    gateway.signal(Signal::Reload);
    let report = gateway.until("moved", |report| report.policies.generation == 2);
    assert_eq!(report.policies.last_reload.unwrap().needs_restart, [""; 0]);
    assert_eq!(gateway.metrics(9500), None);
    assert!(gateway.metrics(9501).unwrap().contains("gateway_policy_generation 2"));

    // A port that somebody else has: nothing changes, the rule neither.
    let (sender, other) = std_mpsc::channel();
    gateway.enter(move || sender.send(TcpListener::bind("127.0.0.1:9502").unwrap()).unwrap());
    let other = other.recv().unwrap();
    fs::write(&file, at(9502) + &rest.replace("rule.net", "rule.renamed")).unwrap();
    gateway.signal(Signal::Reload);
    let report = gateway.until("failed", |report| report.policies.reload_failed == 1);
    assert_eq!((report.policies.generation, report.rules[0].name.as_str()), (2, "net"));
    let error = report.policies.last_reload.unwrap().first_error.unwrap();
    let words = "a.toml:2:18: gateway.metrics-listen: cannot listen on 127.0.0.1:9502: ";
    assert!(error.contains(words) && error.contains("ss -ltnp"), "{error}");
    let text = gateway.metrics(9501).unwrap();
    assert!(text.contains("gateway_policy_reload_failures_total 1"), "{text}");
    assert!(text.contains("gateway_policy_last_reload_errors 1"), "{text}");
    drop(other);

    fs::write(&file, &rest).unwrap();
    gateway.signal(Signal::Reload);
    gateway.until("closed", |report| report.policies.generation == 3);
    assert_eq!(gateway.metrics(9501), None);
    gateway.signal(Signal::End);
    gateway.wait();
}

#[test]
fn a_gateway_whose_metrics_nobody_can_serve_serves_its_peers() {
    if !is_root("a_gateway_whose_metrics_nobody_can_serve_serves_its_peers") {
        return;
    }
    // No address of this host.
    let settings = "[gateway]\nmetrics-listen = \"192.0.2.1:9500\"\n\n";
    let policies = settings.to_owned() + &policies("1", "2", "respond");
    let mut gateway = Gateway::start("10.9.0.1", &policies, || {});
    let report = gateway.until("one rule", |report| report.rules.len() == 1);
    assert!(report.counters["metrics_listen_failed"] >= 1);
    // Other changes are not held up by it.
    gateway.signal(Signal::Reload);
    let report = gateway.until("reloaded", |report| report.policies.last_reload.is_some());
    assert_eq!(report.policies.reload_failed, 0);
    gateway.signal(Signal::End);
    gateway.wait();
}
