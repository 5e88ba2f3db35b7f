//! What the text says, and the server over real sockets.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::encode::encode;
use super::*;
use crate::complaints::Complaints;
use crate::control::{
    ChildReport, IkeSaReport, InterfaceReport, KernelReport, PoliciesReport, RefusalReport,
    ReloadReport, RuleReport, StatusReport,
};

const ANY_PORT: &str = "127.0.0.1:0";

/// A report in which every list and option has something.
fn report() -> StatusReport {
    let named = |name: &str| [(name.to_owned(), 1)].into();
    StatusReport {
        version: "1.2.3".to_owned(),
        shutting_down: true,
        policies: PoliciesReport {
            last_reload: Some(ReloadReport::default()),
            ..PoliciesReport::default()
        },
        kernel: KernelReport {
            release: "6.12".to_owned(),
            interfaces: vec![InterfaceReport {
                name: "eth\"0".to_owned(),
                role: "underlay".to_owned(),
                index: Some(2),
                ..InterfaceReport::default()
            }],
            ..KernelReport::default()
        },
        ike_sas: vec![IkeSaReport {
            peer: Some("berlin".to_owned()),
            state: "established".to_owned(),
            initiator_spi: "0123456789abcdef".to_owned(),
            remote: "192.0.2.7:4500".to_owned(),
            remote_id: Some("said-by-peer.example".to_owned()),
            user: Some("carol".to_owned()),
            children: vec![ChildReport { bytes_in: Some(1), ..ChildReport::default() }],
            ..IkeSaReport::default()
        }],
        rules: vec![RuleReport {
            name: "to-berlin".to_owned(),
            action: "protect".to_owned(),
            reqid: Some(1),
            last_error: Some("told-by-peer".to_owned()),
            ..RuleReport::default()
        }],
        refusals: vec![RefusalReport { text: "refused".to_owned(), ..RefusalReport::default() }],
        counters: named("ike_not_authentic"),
        bpf_counters: named("ingress_clear"),
        xfrm_errors: named("XfrmInNoStates"),
        ..StatusReport::default()
    }
}

/// Gives every number a value of its own, and collects where they are.
fn number_all(value: &mut Value, path: &str, found: &mut Vec<(String, u64)>) {
    match value {
        Value::Number(number) => {
            let unique = u64::try_from(found.len()).unwrap().saturating_add(1_000_001);
            *number = unique.into();
            found.push((path.to_owned(), unique));
        }
        Value::Array(values) => {
            for value in values {
                number_all(value, path, found);
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                number_all(value, &format!("{path}/{key}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn every_number_of_the_report_is_in_the_metrics() {
    // What is of one SA, or refusal, would make a series for each; the others are names.
    let left_out = ["/ike_sas/", "/refusals/", "/pid", "/interfaces/index", "/rules/reqid"];
    let mut json = serde_json::to_value(report()).unwrap();
    let mut numbers = Vec::new();
    number_all(&mut json, "", &mut numbers);
    let text = encode(serde_json::from_value(json).unwrap()).unwrap();
    let mut seen = 0;
    for (path, number) in numbers {
        if left_out.iter().any(|out| path.contains(out)) {
            continue;
        }
        assert!(text.contains(&format!(" {number}\n")), "{path} in\n{text}");
        seen += 1;
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn names_have_their_units_and_labels_their_values() {
    let text = encode(report()).unwrap();
    for line in [
        "gateway_build_info{version=\"1.2.3\",kernel=\"6.12\"} 1",
        "# UNIT gateway_uptime_seconds seconds",
        "gateway_uptime_seconds 0",
        "gateway_shutting_down 1",
        "gateway_policy_reload_failures_total 0",
        "gateway_policy_applied_timestamp_seconds 0",
        "gateway_interface_ready{interface=\"eth\\\"0\",role=\"underlay\"} 1",
        "gateway_ike_sas{peer=\"berlin\",state=\"established\"} 1",
        "gateway_rule_child_sas{rule=\"to-berlin\",action=\"protect\"} 0",
        "gateway_rule_refused_packets_total{rule=\"to-berlin\",action=\"protect\"} 0",
        "# TYPE gateway_events counter",
        "gateway_events_total{event=\"ike_not_authentic\"} 1",
        "gateway_bpf_packets_total{reason=\"ingress_clear\"} 1",
        "gateway_xfrm_errors_total{error=\"XfrmInNoStates\"} 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn nothing_that_a_peer_says_is_in_the_metrics() {
    let text = encode(report()).unwrap();
    for word in
        ["0123456789abcdef", "192.0.2.7", "said-by-peer", "told-by-peer", "carol", "refused\""]
    {
        assert!(!text.contains(word), "{word} in\n{text}");
    }
}

fn exporter() -> Exporter {
    Exporter::new(Complaints::new(5))
}

/// Answers clients while something is done.
async fn serving<T>(exporter: &mut Exporter, act: impl Future<Output = T>) -> T {
    tokio::pin!(act);
    loop {
        tokio::select! {
            Some(scrape) = exporter.next() => scrape.answer(report()),
            done = &mut act => return done,
        }
    }
}

/// Sends octets, and gives all that comes back; an error if there is nobody.
async fn send(to: SocketAddr, octets: impl Into<Vec<u8>>) -> std::io::Result<String> {
    let octets = octets.into();
    let talk = move || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&octets)?;
        let mut answer = String::new();
        let _octets = stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    spawn_blocking(talk).await.unwrap()
}

async fn scrape(to: SocketAddr) -> std::io::Result<String> {
    send(to, "GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n").await
}

/// Soon: a child that another test has just forked has a copy of the listener until it executes.
async fn nobody_listens(to: SocketAddr) {
    for _ in 0..250 {
        match scrape(to).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return,
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("somebody listens at {to}");
}

fn count(exporter: &Exporter, name: &str) -> u64 {
    exporter.counters().find(|(counter, _)| *counter == name).unwrap().1
}

#[tokio::test]
async fn a_request_gets_the_metrics_and_any_other_an_error_that_is_counted() {
    let mut exporter = exporter();
    exporter.listen(Some(ANY_PORT.parse().unwrap())).await.unwrap();
    let to = exporter.address().unwrap();
    let answer = serving(&mut exporter, scrape(to)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, encode(report()).unwrap());

    let head = serving(&mut exporter, send(to, "HEAD /metrics HTTP/1.1\r\n\r\n")).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(count(&exporter, "metrics_requests_failed"), 0);

    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(200));
    for (number, (request, status)) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics/x HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "405 Method Not Allowed"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400 Bad Request"),
        (&many, "431 Request Header Fields Too Large"),
        (&long, "431 Request Header Fields Too Large"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = serving(&mut exporter, send(to, request)).await;
        // Where octets are left unread, the system may end the connection before the answer is read.
        match answer {
            Ok(answer) => {
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}")
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        let failed = u64::try_from(number + 1).unwrap();
        assert_eq!(count(&exporter, "metrics_requests_failed"), failed, "{request:.40}");
    }
}

#[tokio::test]
async fn silent_clients_take_a_few_places_for_a_while() {
    let mut exporter = exporter();
    exporter.patience = Duration::from_millis(700);
    exporter.listen(Some(ANY_PORT.parse().unwrap())).await.unwrap();
    let to = exporter.address().unwrap();
    let mut silent = Vec::new();
    for begun in ["", "G", "GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nX"] {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        silent.push(stream);
    }
    // One too many is closed at once.
    let answer = serving(&mut exporter, scrape(to)).await;
    assert!(answer.map_or(true, |answer| answer.is_empty()));
    assert_eq!(count(&exporter, "metrics_clients_refused"), 1);
    // The silent ones are sent away, though they are still there.
    let ended = spawn_blocking(move || {
        for stream in &mut silent {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut rest = Vec::new();
            let _octets = stream.read_to_end(&mut rest).unwrap();
        }
    });
    serving(&mut exporter, ended).await.unwrap();
    let answer = serving(&mut exporter, scrape(to)).await.unwrap();
    assert!(answer.contains("gateway_uptime_seconds"), "{answer}");
    assert_eq!(count(&exporter, "metrics_requests_failed"), 4);
}

#[tokio::test]
async fn it_moves_and_ends_and_stays_where_it_was_if_it_cannot() {
    let mut exporter = exporter();
    assert_eq!(exporter.address(), None);
    exporter.listen(Some(ANY_PORT.parse().unwrap())).await.unwrap();
    let first = exporter.address().unwrap();
    // The same port on all addresses: our own listener stands in the way.
    let everywhere = SocketAddr::new([0, 0, 0, 0].into(), first.port());
    while let Err(error) = exporter.listen(Some(everywhere)).await {
        // A child that another test has just forked has a copy of each descriptor until it executes.
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
    let other: SocketAddr = ([127, 0, 0, 2], first.port()).into();
    assert!(serving(&mut exporter, scrape(other)).await.unwrap().contains("# EOF"));
    // An address that nobody has, and a port that somebody else has.
    let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let nowhere = SocketAddr::new([192, 0, 2, 1].into(), first.port());
    for wanted in [nowhere, taken.local_addr().unwrap()] {
        exporter.listen(Some(wanted)).await.unwrap_err();
        assert_eq!(exporter.address(), Some(everywhere));
        assert!(serving(&mut exporter, scrape(first)).await.unwrap().contains("# EOF"));
    }
    exporter.listen(Some(ANY_PORT.parse().unwrap())).await.unwrap();
    let second = exporter.address().unwrap();
    nobody_listens(first).await;
    assert!(serving(&mut exporter, scrape(second)).await.unwrap().contains("# EOF"));
    exporter.listen(None).await.unwrap();
    nobody_listens(second).await;
    assert_eq!(exporter.address(), None);
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_tried_until_it_is_free() {
    let mut exporter = exporter();
    exporter.retry = Duration::from_millis(20);
    let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let wanted = taken.local_addr().unwrap();
    let error = exporter.listen_at_last(Some(wanted)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    // A reload that wants the same is no worse off.
    exporter.listen(Some(wanted)).await.unwrap();
    while count(&exporter, "metrics_listen_failed") < 3 {
        serving(&mut exporter, tokio::time::sleep(Duration::from_millis(20))).await;
    }
    assert_eq!(exporter.address(), None);
    drop(taken);
    while exporter.address().is_none() {
        serving(&mut exporter, tokio::time::sleep(Duration::from_millis(20))).await;
    }
    assert!(serving(&mut exporter, scrape(wanted)).await.unwrap().contains("# EOF"));
    let failed = count(&exporter, "metrics_listen_failed");
    serving(&mut exporter, tokio::time::sleep(Duration::from_millis(100))).await;
    assert_eq!(count(&exporter, "metrics_listen_failed"), failed);

    // Nor does it try any more when a reload wants none.
    exporter.listen(None).await.unwrap();
    let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
    exporter.listen_at_last(Some(taken.local_addr().unwrap())).await.unwrap_err();
    exporter.listen(None).await.unwrap();
    drop(taken);
    serving(&mut exporter, tokio::time::sleep(Duration::from_millis(100))).await;
    assert_eq!(exporter.address(), None);
}

#[tokio::test]
async fn the_event_loop_makes_no_more_than_four_reports_in_a_second() {
    let mut exporter = exporter();
    exporter.listen(Some(ANY_PORT.parse().unwrap())).await.unwrap();
    let to = exporter.address().unwrap();
    let begun = crate::clock::now();
    let four = async {
        let scrapes = [(); 4].map(|()| tokio::spawn(scrape(to)));
        for scrape in scrapes {
            assert!(scrape.await.unwrap().unwrap().contains("# EOF"));
        }
    };
    serving(&mut exporter, four).await;
    let taken = crate::clock::now().duration_since(begun);
    assert!(taken >= Duration::from_millis(750), "{taken:?}");
    assert_eq!(count(&exporter, "metrics_clients_refused"), 0);
}
