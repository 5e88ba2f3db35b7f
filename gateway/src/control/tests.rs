//! The server and its client over real sockets in a directory of their own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::complaints::Complaints;

/// A server, in a thread of its own, that answers each request with a report.
struct Running {
    path: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Serves on `directory/sub/control.sock`.
fn start(directory: &Path) -> Running {
    let path = directory.join("sub").join("control.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (ready, readiness) = std::sync::mpsc::channel();
    let bind = path.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = Server::bind(&bind, Complaints::new(5)).unwrap();
            ready.send(()).unwrap();
            let answering = async {
                while let Some(call) = server.next().await {
                    let version = "test".to_owned();
                    let counters = [("refused".to_owned(), server.refused())].into();
                    let report = StatusReport { version, counters, ..StatusReport::default() };
                    call.answer(Response::Status(Box::new(report)));
                }
            };
            tokio::select! { () = answering => {}, _ = stopped => {} }
        });
    });
    readiness.recv().unwrap();
    Running { path, stop: Some(stop), thread: Some(thread) }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Sends octets, and reads one line.
    fn raw(&self, octets: &[u8]) -> Value {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(octets).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

#[test]
fn a_request_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let Response::Status(report) = query(&running.path, &Request::Status {}).unwrap() else {
        panic!("no status");
    };
    assert_eq!(report.version, "test");
}

#[test]
fn one_connection_takes_several_requests() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let mut stream = UnixStream::connect(&running.path).unwrap();
    stream.write_all(b"{\"command\":\"status\"}\n{}\n{\"command\":\"status\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let keys: Vec<_> = answers
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l)
                .unwrap()
                .as_object()
                .unwrap()
                .keys()
                .next()
                .unwrap()
                .clone()
        })
        .collect();
    assert_eq!(keys, ["status", "error", "status"]);
}

#[test]
fn a_bad_request_is_told_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    for (request, expected) in [
        (&b"{\"command\":\"dance\"}\n"[..], "unknown variant `dance`"),
        (b"{\"command\":\"status\",\"more\":1}\n", "unknown field `more`"),
        (b"\n", "EOF while parsing"),
        (b"\xff\xfe\n", "expected value"),
        (b"[]\n", "missing field `command`"),
    ] {
        let answer = running.raw(request);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_endless_line_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let answer = running.raw(&[b'x'; 4097]);
    assert_eq!(answer, json!({"error": "the request is longer than 4096 octets"}));
}

#[test]
fn too_many_clients_are_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let mut held: Vec<_> = (0..16).map(|_| UnixStream::connect(&running.path).unwrap()).collect();
    for stream in &mut held {
        // An answer proves that the client has its place.
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
    let mut stream = UnixStream::connect(&running.path).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "{\"error\":\"too many control clients\"}\n");
    let mut served = BufReader::new(&held[0]);
    served.read_line(&mut String::new()).unwrap();
    (&held[0]).write_all(b"{\"command\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    served.read_line(&mut answer).unwrap();
    assert!(answer.contains("\"refused\":1"), "{answer}");
}

#[test]
fn the_socket_is_for_its_owner_only_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = start(directory.path());
    let mode = std::fs::metadata(&running.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop();
    assert!(!running.path.exists());
}

#[tokio::test]
async fn a_living_daemon_is_not_pushed_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let first = Server::bind(&path, Complaints::new(5)).unwrap();
    let error = Server::bind(&path, Complaints::new(5)).unwrap_err();
    assert!(error.to_string().starts_with("another gateway is running"), "{error}");
    drop(first);
    drop(Server::bind(&path, Complaints::new(5)).unwrap());
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap()); // leaves its file
    assert!(path.exists());
    drop(Server::bind(&path, Complaints::new(5)).unwrap());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    std::fs::write(&path, "precious").unwrap();
    let error = Server::bind(&path, Complaints::new(5)).unwrap_err();
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn without_a_daemon_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let error = query(&directory.path().join("none"), &Request::Status {}).unwrap_err();
    assert!(matches!(error, QueryError::NoDaemon { .. }));
    assert!(error.to_string().contains("start it with `gateway run`"), "{error}");
}

#[test]
fn the_report_keeps_the_names_of_its_fields() {
    let report = StatusReport {
        ike_sas: vec![IkeSaReport { children: vec![ChildReport::default()], ..Default::default() }],
        rules: vec![RuleReport::default()],
        refusals: vec![RefusalReport {
            candidates: vec![CandidateReport {
                fields: vec![FieldReport::default()],
                ..Default::default()
            }],
            ..Default::default()
        }],
        policies: PoliciesReport {
            last_reload: Some(ReloadReport::default()),
            ..Default::default()
        },
        kernel: KernelReport {
            capabilities: vec![CapabilityReport::default()],
            ..Default::default()
        },
        ..Default::default()
    };
    let value = serde_json::to_value(&report).unwrap();
    let keys =
        |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&value),
        "bpf_counters counters half_open ike_sas kernel pid policies refusals rules shutting_down uptime_seconds use_problem version xfrm_errors"
    );
    assert_eq!(
        keys(&value["ike_sas"][0]),
        "age_seconds assigned certificate children dns fragmentation id initiator initiator_spi local local_auth local_id mobike nat_local nat_remote own_addresses peer quantum_safe remote remote_auth remote_id responder_spi state suite user"
    );
    assert_eq!(
        keys(&value["ike_sas"][0]["children"][0]),
        "age_seconds bytes_in bytes_out encapsulation id idle_seconds inbound_spi key_exchange mode outbound_spi packets_in packets_out quantum_safe rule selectors state suite"
    );
    assert_eq!(
        keys(&value["policies"]),
        "applied_at directory generation last_reload reload_failed"
    );
    assert_eq!(keys(&value["policies"]["last_reload"]), "at errors first_error needs_restart ok");
    assert_eq!(
        keys(&value["rules"][0]),
        "action children last_error name packets_out packets_refused reqid"
    );
    let refusal = &value["refusals"][0];
    assert_eq!(
        keys(refusal),
        "candidates cause first_at ike_sa kind last_at left_out peer remote said_by_peer text times"
    );
    let candidate = &refusal["candidates"][0];
    assert_eq!(keys(candidate), "fields peer proposal rule their_proposal");
    assert_eq!(keys(&candidate["fields"][0]), "fits name ours theirs");
    assert_eq!(serde_json::from_value::<StatusReport>(value).unwrap(), report);
}
