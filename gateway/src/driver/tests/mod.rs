//! Two whole gateways, each with a namespace, sockets, policy files and a control socket of its
//! own, and a kernel that only remembers what it was told.

mod esp;
mod fake;
mod metrics;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc as std_mpsc};
use std::thread::JoinHandle;

use gateway_ike::config::EndpointConfig;
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::io::KernelEvent;
use gateway_ike::random::SystemSource;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use self::fake::{FakeKernel, FakeMonitor, Record};
use super::*;
use crate::control::query;
use crate::net::Ports;
use crate::policy;
use crate::testing::{enter_namespace, ip, is_root, runtime};

fn namespace_of_this_thread() -> PathBuf {
    format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()).into()
}

/// A gateway that runs in a thread and a namespace of its own.
struct Gateway {
    directory: tempfile::TempDir,
    record: Arc<Mutex<Record>>,
    signals: mpsc::Sender<Signal>,
    notices: mpsc::Sender<Notice>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    /// The namespace, for `ip link set ... netns`.
    namespace: PathBuf,
}

impl Gateway {
    /// Starts one. `wire` is run in its namespace before anything else.
    fn start(address: &str, policies: &str, wire: impl FnOnce() + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("psk");
        fs::write(&secret, "correct horse battery staple").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let text = policies.replace("PSK", &secret.display().to_string());
        fs::write(directory.path().join("a.toml"), text).unwrap();

        let record = Arc::new(Mutex::new(Record::default()));
        let (signals, receiver) = mpsc::channel(8);
        let (notices, monitor) = mpsc::channel(8);
        let (report, namespace) = std_mpsc::channel();
        let address = address.parse().unwrap();
        let kernel = FakeKernel { address, record: Arc::clone(&record) };
        let path = directory.path().to_owned();
        let thread = std::thread::spawn(move || {
            enter_namespace();
            wire();
            runtime().block_on(async {
                let loaded = policy::load(&path).unwrap();
                let random = Box::new(SystemSource::default());
                let key_exchange = Box::new(SystemKeyExchange);
                let limits =
                    EndpointConfig { shares_cookies: true, ..loaded.settings.endpoint.clone() };
                let mut exporter = Exporter::new(Complaints::new(5));
                start::begin_metrics(&mut exporter, &loaded).await;
                let parts = Parts {
                    kernel,
                    exporter,
                    monitor: FakeMonitor(monitor),
                    sockets: Sockets::open(Ports::default(), None).unwrap(),
                    reinjector: Reinjector::open().unwrap(),
                    control: Server::bind(&path.join("control.sock"), Complaints::new(5)).unwrap(),
                    signals: receiver,
                    reload: Reloader::new(&path, loaded.settings),
                    complaints: Complaints::new(5),
                };
                let mut driver = Driver::new(Endpoint::new(limits, random, key_exchange), parts);
                report.send(namespace_of_this_thread()).unwrap();
                driver.apply(Arc::new(loaded.policies)).await;
                driver.begin();
                driver.run().await
            })
        });
        let namespace = namespace.recv().unwrap();
        Self { directory, record, signals, notices, thread: Some(thread), namespace }
    }

    fn status(&self) -> StatusReport {
        let socket = self.directory.path().join("control.sock");
        match query(&socket, &Request::Status {}).unwrap() {
            Response::Status(report) => *report,
            other @ (Response::Mtu(_) | Response::Names(_) | Response::Error(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// Waits for a status that is as it should be.
    fn until(&self, what: &str, is: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let deadline = clock::now().checked_add(Duration::from_secs(20)).unwrap();
        loop {
            let report = self.status();
            if is(&report) {
                return report;
            }
            assert!(clock::now() < deadline, "never {what}: {report:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs something in its namespace, in a thread of its own.
    fn enter(&self, act: impl FnOnce() + Send + 'static) {
        let file = fs::File::open(&self.namespace).unwrap();
        let thread = std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act();
        });
        thread.join().unwrap();
    }

    fn signal(&self, signal: Signal) {
        self.signals.blocking_send(signal).unwrap();
    }

    fn notice(&self, notice: Notice) {
        self.notices.blocking_send(notice).unwrap();
    }

    /// Waits for its end, which must be a good one.
    fn wait(&mut self) {
        let ended = self.thread.take().unwrap().join().unwrap();
        ended.unwrap();
    }
}

fn policies(ours: &str, theirs: &str, start: &str) -> String {
    format!(
        "[peer.other]
address = \"10.9.0.{theirs}\"
local-id = \"gw{ours}.example\"
remote-id = \"gw{theirs}.example\"
psk-file = \"PSK\"

[rule.net]
action = \"protect\"
peer = \"other\"
local = [\"10.{ours}.0.0/16\"]
remote = [\"10.{theirs}.0.0/16\"]
start = \"{start}\"
"
    )
}

/// Two gateways on one wire: the first waits, the second initiates.
fn pair() -> (Gateway, Gateway) {
    pair_that_starts("always")
}

/// Two gateways on one wire: the first waits, the second initiates when its rule says.
fn pair_that_starts(start: &'static str) -> (Gateway, Gateway) {
    pair_with(policies("1", "2", "respond"), policies("2", "1", start))
}

/// Two gateways on one wire, with these policies.
fn pair_with(first: String, second: String) -> (Gateway, Gateway) {
    let first = Gateway::start("10.9.0.1", &first, || {
        ip("link add left type veth peer name right");
        ip("address add 10.9.0.1/24 dev left");
        ip("link set left up");
    });
    // The second must find its end of the wire before it starts to talk.
    let (ready, wired) = std_mpsc::channel();
    let (name, namespace) = std_mpsc::channel();
    let started = std::thread::spawn(move || {
        Gateway::start("10.9.0.2", &second, move || {
            name.send(namespace_of_this_thread()).unwrap();
            wired.recv().unwrap();
            ip("address add 10.9.0.2/24 dev right");
            ip("link set right up");
        })
    });
    let to = namespace.recv().unwrap();
    first.enter(move || ip(&format!("link set right netns {}", to.display())));
    ready.send(()).unwrap();
    (first, started.join().unwrap())
}

#[test]
fn two_gateways_agree_on_a_child_sa_and_take_it_down_again() {
    if !is_root("two_gateways_agree_on_a_child_sa_and_take_it_down_again") {
        return;
    }
    let (mut first, mut second) = pair();
    let established = |report: &StatusReport| {
        report.ike_sas.iter().any(|sa| sa.children.iter().any(|c| c.state == "installed"))
    };
    let seen = second.until("established", established);
    first.until("established", established);

    let sa = &seen.ike_sas[0];
    assert_eq!((sa.peer.as_deref(), sa.state.as_str()), (Some("other"), "established"));
    // Both ends speak MOBIKE unless they are told not to (RFC 4555 3.3).
    assert_eq!((sa.local.as_str(), sa.initiator), ("10.9.0.2:4500", true));
    assert_eq!(sa.mobike.as_deref(), Some([].as_slice()));
    assert_eq!(sa.remote_id.as_deref(), Some("gw1.example"));
    assert_eq!(sa.initiator_spi.len(), 16);
    let child = &sa.children[0];
    assert_eq!((child.inbound_spi.len(), child.rule.as_str()), (8, "net"));
    assert_eq!((child.bytes_in, child.packets_out), (Some(1), Some(4)));
    assert_eq!(seen.counters["child_sa_installed"], 1);
    assert_eq!((seen.rules[0].packets_out, seen.rules[0].packets_refused), (5, 6));
    assert_eq!(seen.kernel.capabilities[0].value, "fake");

    // A kernel that does not tell has not counted nothing.
    second.record.lock().unwrap().hides_use = true;
    let hidden = second.status();
    assert_eq!(hidden.use_problem.as_deref(), Some("it is no day for lists"));
    assert_eq!(hidden.counters["child_sa_use_unknown"], 1);
    let child = &hidden.ike_sas[0].children[0];
    assert_eq!((child.bytes_in, child.packets_in, child.bytes_out), (None, None, None));
    second.record.lock().unwrap().hides_use = false;
    assert_eq!(second.status().use_problem, None);

    // What one side sends with, the other receives with; each has request IDs of its own.
    let ours = first.record.lock().unwrap().children().remove(0);
    let mut theirs = second.record.lock().unwrap().children().remove(0);
    (theirs.outbound.reqid, theirs.inbound.reqid) = (ours.inbound.reqid, ours.outbound.reqid);
    assert_eq!(ours.inbound, theirs.outbound);
    assert_eq!(ours.outbound, theirs.inbound);

    second.signal(Signal::End);
    second.wait();
    let record = second.record.lock().unwrap();
    assert!(record.cleaned_up);
    // The XDP program has known from the start which cookies are good.
    assert_eq!(record.cookies.iter().map(|c| c.secrets[0].version).min(), Some(1));
    assert!(record.commands.iter().any(|c| matches!(c, KernelCommand::RemoveChild { .. })));
    drop(record);
    // A closing SA stays for a while, to answer a repeated request.
    first.until("told", |report| report.ike_sas.iter().all(|sa| sa.state == "closing"));
    first.signal(Signal::End);
    first.wait();
    assert!(!first.directory.path().join("control.sock").exists());
}

#[test]
fn both_ends_show_a_refusal_field_by_field() {
    if !is_root("both_ends_show_a_refusal_field_by_field") {
        return;
    }
    let only = |policies: String, proposal: &str| {
        policies.replace("\n\n[rule", &format!("\nike-proposals = [\"{proposal}\"]\n\n[rule"))
    };
    let ours = only(policies("1", "2", "respond"), "aes256gcm16-prfsha256-ecp256");
    let theirs = only(policies("2", "1", "always"), "aes256gcm16-prfsha256-x25519");
    let (mut first, mut second) = pair_with(ours, theirs);
    let refused = |report: &StatusReport| !report.refusals.is_empty();
    let report = first.until("refused", refused);
    let refusal = &report.refusals[0];
    assert_eq!(
        (refusal.kind.as_str(), refusal.cause.as_str(), refusal.said_by_peer.as_deref()),
        ("proposal", "proposal_key_exchange", None)
    );
    assert!(report.counters["refused_proposal_key_exchange"] >= 1);
    assert!(refusal.times >= 1 && refusal.first_at <= refusal.last_at);
    assert_eq!((refusal.peer.as_ref(), refusal.remote.as_deref()), (None, Some("10.9.0.2:500")));
    let nearest = &refusal.candidates[0];
    assert_eq!((nearest.peer.as_deref(), nearest.proposal), (Some("other"), Some(1)));
    let unfit: Vec<_> = nearest.fields.iter().filter(|f| f.fits == Some(false)).collect();
    let [field] = unfit.as_slice() else { panic!("{nearest:#?}") };
    assert_eq!(
        (field.name.as_str(), field.theirs.as_slice()),
        ("key_exchange", &["CURVE25519".to_owned()][..])
    );

    let report = second.until("told", refused);
    let refusal = &report.refusals[0];
    assert_eq!(refusal.cause, "proposal_by_peer");
    assert_eq!(refusal.said_by_peer.as_deref(), Some("NO_PROPOSAL_CHOSEN"));
    assert!(crate::control::render(&report).contains("CURVE25519"));
    for gateway in [&mut first, &mut second] {
        gateway.signal(Signal::End);
        gateway.wait();
    }
}

#[test]
fn a_broken_file_changes_nothing_and_a_mended_one_is_applied() {
    if !is_root("a_broken_file_changes_nothing_and_a_mended_one_is_applied") {
        return;
    }
    let mut gateway = Gateway::start("10.9.0.1", &policies("1", "2", "respond"), || {});
    let file = gateway.directory.path().join("a.toml");
    let good = fs::read_to_string(&file).unwrap();
    gateway.until("one rule", |report| report.rules.len() == 1);

    fs::write(&file, good.replace("start =", "strat =")).unwrap();
    gateway.signal(Signal::Reload);
    let report = gateway.until("failed", |report| report.policies.reload_failed == 1);
    let error = report.policies.last_reload.unwrap().first_error.unwrap();
    assert!(error.contains("a.toml:12:1"), "{error}");
    assert_eq!((report.policies.generation, report.rules.len()), (1, 1));

    let mended = good.replace("rule.net", "rule.renamed");
    fs::write(&file, format!("[gateway]\ninit-rate = 77\n\n{mended}")).unwrap();
    gateway.signal(Signal::Reload);
    let report = gateway.until("applied", |report| report.policies.generation == 2);
    assert_eq!(report.rules[0].name, "renamed");
    // The XDP program keeps to the new limits at once.
    assert_eq!(report.policies.last_reload.unwrap().needs_restart, [""; 0]);
    let limits = gateway.record.lock().unwrap().limits.last().copied();
    assert_eq!(limits.map(|limits| limits.init_rate), Some(77));
    gateway.signal(Signal::End);
    gateway.wait();
}

fn reqid(gateway: &Gateway) -> u32 {
    let record = gateway.record.lock().unwrap();
    let trap = record.commands.iter().find_map(|command| {
        if let KernelCommand::InstallTrap(trap) = command { Some(trap.reqid) } else { None }
    });
    trap.unwrap()
}

fn acquire(reqid: u32, seq: u32) -> KernelEvent {
    KernelEvent::Acquire {
        reqid,
        seq,
        source: [10, 2, 0, 1].into(),
        destination: [10, 1, 0, 1].into(),
        protocol: 17,
        source_port: 7,
        destination_port: 7,
    }
}

#[test]
fn what_a_resync_finds_after_lost_events_is_acted_on() {
    if !is_root("what_a_resync_finds_after_lost_events_is_acted_on") {
        return;
    }
    let (mut first, mut second) = pair_that_starts("on-demand");
    second.until("a trap", |report| report.rules.len() == 1);
    // The acquire itself never arrived.
    second.record.lock().unwrap().lost = vec![acquire(reqid(&second), 77)];
    second.notice(Notice::Overrun);
    second.until("established", |report| report.ike_sas.iter().any(|sa| !sa.children.is_empty()));
    let child = second.record.lock().unwrap().children().remove(0);
    let forgotten = KernelCommand::ForgetAcquire { reqid: reqid(&second), seq: 77 };
    assert!(second.record.lock().unwrap().commands.contains(&forgotten), "the next may ask");

    // The SA went without a word: it is taken down with the peer.
    let vanished = KernelEvent::Vanished { child: child.child };
    second.record.lock().unwrap().lost = vec![vanished];
    second.notice(Notice::Overrun);
    second.until("gone", |report| report.ike_sas.iter().all(|sa| sa.children.is_empty()));
    for gateway in [&mut second, &mut first] {
        gateway.signal(Signal::End);
        gateway.wait();
    }
}

#[test]
fn the_kernel_is_told_of_changed_interfaces_until_nothing_is_missing() {
    if !is_root("the_kernel_is_told_of_changed_interfaces_until_nothing_is_missing") {
        return;
    }
    let mut gateway = Gateway::start("10.9.0.1", &policies("1", "2", "respond"), || {});
    let change = LinkChange { gone: [7].into(), lost: false };
    gateway.notice(Notice::Links(change.clone()));
    let report = gateway.until("looked again", |_| gateway.record.lock().unwrap().links.len() > 1);
    assert_eq!(report.kernel.interfaces[0].name, "eth0");
    assert_eq!(gateway.record.lock().unwrap().links, [change, LinkChange::default()]);
    gateway.signal(Signal::End);
    gateway.wait();
}

#[test]
fn a_second_signal_ends_at_once() {
    if !is_root("a_second_signal_ends_at_once") {
        return;
    }
    let (first, mut second) = pair();
    second.until("established", |report| report.ike_sas.iter().any(|sa| !sa.children.is_empty()));
    // The first can no longer answer, so that the second has to wait.
    first.enter(|| ip("link set left down"));
    second.signal(Signal::End);
    second.signal(Signal::End);
    let ended = second.thread.take().unwrap().join().unwrap();
    assert!(matches!(ended, Err(RunError::Interrupted)), "{ended:?}");
    assert!(!second.record.lock().unwrap().cleaned_up);
}

#[test]
fn esp_on_the_socket_is_handed_back_only_for_our_spis() {
    if !is_root("esp_on_the_socket_is_handed_back_only_for_our_spis") {
        return;
    }
    let (first, second) = pair();
    let report = first
        .until("established", |report| report.ike_sas.iter().any(|sa| !sa.children.is_empty()));
    let spi = u32::from_str_radix(&report.ike_sas[0].children[0].inbound_spi, 16).unwrap();
    let (listener, opened) = std_mpsc::channel();
    first.enter(move || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        listener.send(socket).unwrap();
    });
    second.enter(move || {
        let socket = std::net::UdpSocket::bind("10.9.0.2:0").unwrap();
        let to: SocketAddr = "10.9.0.1:4500".parse().unwrap();
        for spi in [spi ^ 1, spi] {
            let mut esp = spi.to_be_bytes().to_vec();
            esp.extend_from_slice(&[7; 32]);
            socket.send_to(&esp, to).unwrap();
        }
    });
    let mut packet = vec![0; 2048];
    let length = std::io::Read::read(&mut opened.recv().unwrap(), &mut packet).unwrap();
    let esp = &packet[20..length];
    assert_eq!(esp[..4], spi.to_be_bytes());
    assert_eq!(esp.len(), 36);
    let report = first.status();
    assert_eq!(report.counters["esp_unknown_spi"], 1);
    assert_eq!(report.counters["esp_reinjected"], 1);
    for mut gateway in [first, second] {
        gateway.signal(Signal::End);
        gateway.wait();
    }
}
