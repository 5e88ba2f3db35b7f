//! The kernel's half of the gateway by itself: Child SAs with given keys between two kernels'
//! worth of XFRM, BPF programs and routes.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "this is test code"
)]

#[path = "support/kernel.rs"]
mod kernel;

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use gateway::kernel::xfrm::{PolicyDirection, PolicyValue, SaDirection, Xfrm, policy_keys};
use gateway::kernel::{
    KernelConfig, KernelSetupError, LinkChange, LinuxKernel, Monitor, Notice, bpf,
};
use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{
    ALL_PORTS, Action, ChildLifetime, Mode, PolicySet, Protect, Rule, Start,
};
use gateway_ike::io::{
    ChildId, ChildSpec, Done, Encapsulation, KernelCommand, KernelError, KernelEvent, Selector,
    TrapSpec,
};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use tokio::runtime::Runtime;

use kernel::{GCM, child, mirrored, outer, selector};

const IF_ID: u32 = 7;
const OTHER_IF_ID: u32 = 8;

/// A rule that protects what the selector says.
fn policies(selector: &Selector) -> PolicySet {
    let rule = Rule {
        name: "rule".into(),
        priority: Rule::DEFAULT_PRIORITY,
        assigned: false,
        local: vec![selector.local],
        remote: vec![selector.remote],
        protocol: None,
        local_ports: ALL_PORTS,
        remote_ports: ALL_PORTS,
        action: Action::Protect(Protect {
            peer: "peer".into(),
            mode: Mode::Tunnel,
            start: Start::OnDemand,
            proposals: Vec::new(),
            quantum_safe: false,
            lifetime: ChildLifetime { time: Duration::ZERO, bytes: 0, packets: 0 },
        }),
    };
    let rules = [("rule".into(), Arc::new(rule))].into_iter().collect();
    PolicySet { rules, ..PolicySet::default() }
}

/// A machine whose kernel is set up.
struct Node {
    kernel: LinuxKernel,
    monitor: Monitor,
    runtime: Runtime,
    pin_dir: PathBuf,
}

impl Node {
    fn open(namespace: &Namespace, policies: &PolicySet) -> Result<Self> {
        Self::try_open(namespace, policies, "under")?.context("set the kernel up")
    }

    fn try_open(
        namespace: &Namespace,
        policies: &PolicySet,
        interface: &str,
    ) -> Result<core::result::Result<Self, KernelSetupError>> {
        let pin_dir = PathBuf::from("/sys/fs/bpf").join(namespace.name());
        let config = KernelConfig {
            interfaces: vec![interface.to_owned()],
            if_id: IF_ID,
            pin_dir: pin_dir.clone(),
            ..KernelConfig::default()
        };
        namespace.enter(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (kernel, monitor) = runtime.block_on(LinuxKernel::open(config, policies))?;
            Ok(Self { kernel, monitor, runtime, pin_dir })
        })
    }

    fn execute(&mut self, command: KernelCommand) -> core::result::Result<Done, KernelError> {
        self.runtime.block_on(self.kernel.execute(command))
    }

    fn install(&mut self, spec: &ChildSpec) -> core::result::Result<Done, KernelError> {
        self.execute(KernelCommand::InstallChild(Box::new(spec.clone())))
    }

    fn remove(&mut self, spec: &ChildSpec) -> Result {
        self.execute(KernelCommand::RemoveChild { child: spec.child }).context("remove").map(drop)
    }

    /// Packets in and out, and for how long none has come in.
    fn used(&mut self, spec: &ChildSpec) -> (u64, u64, Option<Duration>) {
        let answer = self.execute(KernelCommand::QueryUse { child: spec.child }).unwrap();
        let Done::Use { idle_inbound, packets_in, packets_out, .. } = answer else {
            panic!("{answer:?}");
        };
        (packets_in, packets_out, idle_inbound)
    }

    fn notice(&mut self) -> Notice {
        let next = async {
            loop {
                // Links may become ready meanwhile.
                let notice = self.monitor.next().await;
                if !matches!(notice, Notice::Links(_)) {
                    return notice;
                }
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), next).await })
            .unwrap()
    }

    /// Has the kernel looked after until it tells nothing more of interfaces, as the driver does.
    fn tend(&mut self, namespace: &Namespace) -> Result {
        let Self { kernel, monitor, runtime, .. } = self;
        // Interfaces are looked up in the namespace of the thread.
        namespace.enter(move || {
            runtime.block_on(async {
                let mut again = None;
                for _ in 0..60 {
                    let quiet = again.unwrap_or(Duration::from_secs(1));
                    match tokio::time::timeout(quiet, monitor.next()).await {
                        Ok(Notice::Links(change)) => again = kernel.check_links(&change).await,
                        Ok(_) => {}
                        Err(_quiet) if again.is_none() => break,
                        Err(_quiet) => again = kernel.check_links(&LinkChange::default()).await,
                    }
                }
            });
        })
    }

    /// What is wrong with an interface.
    fn problem(&self, name: &str) -> Option<String> {
        let links = self.kernel.links();
        links.into_iter().find(|link| link.name == name).unwrap().problem
    }

    /// Ends as by kill -9: nothing is taken back.
    fn kill(self) {
        drop(self);
    }

    /// Takes everything away, the guard too.
    fn end(mut self) -> Result {
        self.runtime.block_on(self.kernel.remove_everything_of_ours());
        let pin_dir = self.pin_dir.clone();
        drop(self);
        bpf::remove(&pin_dir).context("remove the guard")
    }
}

/// Two machines with a wire between them, and inner addresses of their own.
fn machines() -> Result<[Namespace; 2]> {
    let [a, b] = [Namespace::new("kernel-a")?, Namespace::new("kernel-b")?];
    a.link("under", &b, "under")?;
    for (namespace, n) in [(&a, 1), (&b, 2)] {
        namespace.ip(&format!(
            "address add {v4}/24 dev under\n\
             address add {v6}/64 dev under\n\
             address add 10.{n}.0.1/32 dev lo\n\
             address add fd00:{n}::1/128 dev lo",
            v4 = outer(false)[n - 1],
            v6 = outer(true)[n - 1],
        ))?;
    }
    Ok([a, b])
}

/// Pings with packets of these sizes; every one must be answered.
fn ping(from: &Namespace, to: &str, sizes: &[&str]) -> Result {
    for size in sizes {
        let text = from.run("ping", &["-q", "-c", "3", "-i", "0.2", "-W", "5", "-s", size, to])?;
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
    Ok(())
}

/// Small, nearly as large as the underlay's MTU, and fragmented.
const SIZES: &[&str] = &["56", "1400", "3000"];
/// A fragment cannot be the payload of a transport mode SA (RFC 4301 4.1), and what the program
/// on the underlay redirects has been fragmented by then.
const UNFRAGMENTED: &[&str] = &["56", "1000", "1400"];

/// Everything that the kernel has of ours and of others.
fn everything(namespace: &Namespace, node: &mut Node) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for arguments in [
        &["-o", "xfrm", "state"][..],
        &["-o", "xfrm", "policy"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ] {
        let text = namespace.run("ip", arguments)?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        all.extend(lines);
    }
    all.extend(
        node.kernel.data_path().sas().context("BPF map")?.iter().map(|sa| format!("{sa:?}")),
    );
    Ok(all)
}

/// Sets both ends up with the Child SA and pings through it.
fn try_tunnel(spec: &ChildSpec, target: [&str; 2]) -> Result {
    let [a, b] = machines()?;
    let other = mirrored(spec);
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.install(spec).context("a")?;
    two.install(&other).context("b")?;
    let sizes = if spec.mode == Mode::Tunnel { SIZES } else { UNFRAGMENTED };
    ping(&a, target[1], sizes).context(format_args!("{spec:?}"))?;
    ping(&b, target[0], sizes).context(format_args!("{spec:?}"))?;
    for (node, spec) in [(&mut one, spec), (&mut two, &other)] {
        let (packets_in, packets_out, idle) = node.used(spec);
        assert!(packets_in >= 18 && packets_out >= 18, "{packets_in} in, {packets_out} out");
        assert!(idle.unwrap() < Duration::from_secs(10));
    }
    one.remove(spec)?;
    two.remove(&other)?;
    assert_eq!(a.run("ip", &["xfrm", "state"])?, "");
    assert_eq!(a.run("ip", &["xfrm", "policy"])?, "");
    assert_eq!(a.run("ip", &["route", "show", "proto", "171"])?, "");
    assert!(one.kernel.data_path().sas().context("BPF map")?.is_empty());
    // The guard still stands.
    a.run("ping", &["-c", "1", "-W", "1", target[1]]).unwrap_err();
    one.end()?;
    two.end()
}

#[test]
fn packets_of_every_size_pass_in_tunnel_mode() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let chacha = EspSuite { encryption: Encryption::ChaCha20Poly1305, integrity: None, esn: true };
    let cbc = EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha512),
        esn: true,
    };
    for (suite, v6) in [(GCM, false), (GCM, true), (chacha, false), (cbc, true)] {
        try_tunnel(&child(suite, Mode::Tunnel, v6), ["10.1.0.1", "10.2.0.1"])?;
    }
    Ok(())
}

#[test]
fn packets_of_every_size_pass_in_udp() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut spec = child(GCM, Mode::Tunnel, v6);
        spec.encapsulation = Some(Encapsulation { local_port: 4500, remote_port: 4500 });
        try_tunnel(&spec, ["10.1.0.1", "10.2.0.1"])?;
    }
    Ok(())
}

#[test]
fn ipv6_passes_within_ipv4() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.selectors = vec![(selector("fd00:1::/64", "fd00:2::/64"), 100)];
    try_tunnel(&spec, ["fd00:1::1", "fd00:2::1"])
}

#[test]
fn packets_pass_in_transport_mode() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    for v6 in [false, true] {
        try_tunnel(&child(GCM, Mode::Transport, v6), outer(v6))?;
    }
    Ok(())
}

fn index(namespace: &Namespace, name: &str) -> Result<String> {
    let text = namespace.run("cat", &[&format!("/sys/class/net/{name}/ifindex")])?;
    Ok(text.trim().to_owned())
}

fn mtu(namespace: &Namespace, name: &str) -> Result<String> {
    namespace.run("cat", &[&format!("/sys/class/net/{name}/mtu")])
}

#[test]
fn an_xfrm_interface_that_is_deleted_is_made_anew() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    ping(&a, "10.2.0.1", &["56"])?;
    let before = (index(&a, "ipsec0")?, mtu(&a, "ipsec0")?);

    a.ip("link del ipsec0")?;
    one.tend(&a)?;
    assert_eq!((index(&a, "ipsec0")?, mtu(&a, "ipsec0")?), before);
    ping(&a, "10.2.0.1", SIZES)?;

    // Its index is taken, and for a while its name.
    let taken = &before.0;
    a.ip(&format!(
        "link del ipsec0\n\
         link add foreign index {taken} type veth peer name far\n\
         link set far up\n\
         link set foreign name ipsec0\n\
         link set ipsec0 up"
    ))?;
    one.tend(&a)?;
    let problem = one.problem("ipsec0").unwrap();
    assert!(problem.starts_with("interface ipsec0 exists and is of kind veth"), "{problem}");
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    a.ip("link set ipsec0 down\nlink set ipsec0 name foreign\nlink set foreign up")?;
    one.tend(&a)?;
    assert_eq!(one.problem("ipsec0"), None);
    assert_ne!(index(&a, "ipsec0")?, *taken);
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    one.end()?;
    two.end()
}

#[test]
fn an_underlay_that_is_made_anew_gets_its_programs_and_routes_again() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.execute(trap(&spec)).context("trap")?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    ping(&a, "10.2.0.1", &["56"])?;
    let routes = || a.run("ip", &["route", "show", "proto", "171"]);
    let before = routes()?;
    assert!(before.contains("10.2.0.0/16"), "{before}");

    // The wire has two ends.
    a.ip("link del under")?;
    one.tend(&a)?;
    assert_eq!(routes()?, "");
    assert_eq!(one.problem("under").unwrap(), "there is no such interface");
    a.link("under", &b, "under")?;
    for (namespace, n) in [(&a, 0), (&b, 1)] {
        namespace.ip(&format!("address add {}/24 dev under", outer(false)[n]))?;
    }
    one.tend(&a)?;
    two.tend(&b)?;
    assert_eq!(one.problem("under"), None);
    assert_eq!(routes()?, before);
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    one.remove(&spec)?;
    one.execute(KernelCommand::RemoveTrap { reqid: spec.reqid }).context("trap")?;
    assert_eq!(routes()?, "");
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    one.end()?;
    two.end()
}

fn trap(spec: &ChildSpec) -> KernelCommand {
    KernelCommand::InstallTrap(TrapSpec {
        rule: "rule".into(),
        reqid: spec.reqid,
        local: None,
        remote: spec.outbound.destination,
        mode: spec.mode,
        selectors: spec.selectors.clone(),
    })
}

#[test]
fn traffic_raises_an_acquire_and_passes_once_it_is_answered() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.execute(trap(&spec)).context("trap")?;
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    let Notice::Event(KernelEvent::Acquire { reqid, seq, destination, protocol, .. }) =
        one.notice()
    else {
        panic!("no acquire");
    };
    assert_eq!((reqid, protocol), (spec.reqid, 1));
    assert_eq!(destination.to_string(), "10.2.0.1");
    spec.acquire_seq = Some(seq);
    two.install(&other).context("b")?;
    one.install(&spec).context("a")?;
    let states = a.run("ip", &["-o", "xfrm", "state"])?;
    assert_eq!(states.lines().count(), 2, "the larval state stayed:\n{states}");
    ping(&a, "10.2.0.1", SIZES)?;
    // The trap is back as soon as the Child SA is gone.
    one.remove(&spec)?;
    assert_eq!(a.run("ip", &["-o", "xfrm", "policy"])?.lines().count(), 1);
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    assert!(matches!(one.notice(), Notice::Event(KernelEvent::Acquire { .. })));
    one.execute(KernelCommand::RemoveTrap { reqid: spec.reqid }).context("trap")?;
    assert_eq!(a.run("ip", &["xfrm", "policy"])?, "");
    one.end()?;
    two.end()
}

#[test]
fn a_trap_that_is_installed_again_changes_in_place() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    node.execute(trap(&spec)).context("trap")?;
    let before = everything(&a, &mut node)?;
    node.execute(trap(&spec)).context("trap")?;
    assert_eq!(everything(&a, &mut node)?, before);
    spec.selectors = vec![(selector("10.1.0.0/16", "10.3.0.0/16"), 100)];
    node.execute(trap(&spec)).context("trap")?;
    let policies = a.run("ip", &["-o", "xfrm", "policy"])?;
    assert!(policies.contains("10.3.0.0/16") && !policies.contains("10.2.0.0/16"), "{policies}");
    let routes = a.run("ip", &["route", "show", "proto", "171"])?;
    assert!(routes.contains("10.3.0.0/16") && !routes.contains("10.2.0.0/16"), "{routes}");
    assert!(routes.contains("mtu lock") && routes.contains("src 10.1.0.1"), "{routes}");
    node.end()
}

#[test]
fn the_newest_child_carries_the_traffic_and_the_old_one_goes_without_a_loss() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let old = child(GCM, Mode::Tunnel, false);
    let mut new = old.clone();
    new.child = ChildId(2);
    new.inbound.spi = 0x3003;
    new.outbound.spi = 0x4004;
    let mut one = Node::open(&a, &policies(&old.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&mirrored(&old).selectors[0].0))?;
    for spec in [&old, &new] {
        one.install(spec).context("a")?;
        two.install(&mirrored(spec)).context("b")?;
    }
    let pinging = || a.run("ping", &["-q", "-c", "60", "-i", "0.05", "-W", "2", "10.2.0.1"]);
    std::thread::scope(|scope| {
        let pinging = scope.spawn(pinging);
        std::thread::sleep(Duration::from_millis(600));
        one.remove(&old)?;
        two.remove(&mirrored(&old))?;
        let text = pinging.join().unwrap()?;
        assert!(text.contains(" 0% packet loss"), "{text}");
        Ok::<_, gateway_tests::Error>(())
    })?;
    assert!(one.used(&new).0 >= 60);
    one.end()?;
    two.end()
}

#[test]
fn an_installation_that_fails_leaves_the_kernel_as_it_was() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    node.execute(trap(&spec)).context("trap")?;
    let (mut ours, mut others) = a
        .enter(|| Ok::<_, std::io::Error>((Xfrm::open(IF_ID)?, Xfrm::open(OTHER_IF_ID)?)))?
        .context("open")?;

    // Somebody else has the inbound SPI; then the outbound one.
    for direction in [SaDirection::Inbound, SaDirection::Outbound] {
        let mut foreign = spec.clone();
        foreign.selectors.clear();
        others.add_sa(&foreign, direction).context("foreign SA")?;
        let before = everything(&a, &mut node)?;
        let error = node.install(&spec).unwrap_err();
        match direction {
            SaDirection::Inbound => assert_eq!(error, KernelError::SpiInUse),
            SaDirection::Outbound => {
                assert!(
                    error.to_string().contains("cannot install SA 00002002 to 192.0.2.2"),
                    "{error}"
                );
            }
        }
        assert_eq!(everything(&a, &mut node)?, before);
        let sa = if direction == SaDirection::Inbound { &spec.inbound } else { &spec.outbound };
        let id = gateway::kernel::xfrm::SaId { destination: sa.destination, spi: sa.spi };
        others.delete_sa(id).context("foreign SA")?;
    }

    // A policy stands where one of ours should, in each direction.
    for direction in [PolicyDirection::In, PolicyDirection::Forward] {
        let key = policy_keys(&spec.selectors[0].0, Mode::Tunnel, direction).unwrap()[0];
        let value = PolicyValue {
            priority: 1,
            reqid: 1,
            source: None,
            destination: spec.inbound.destination,
        };
        ours.add_policy(&key, &value).context("policy in the way")?;
        let before = everything(&a, &mut node)?;
        let error = node.install(&spec).unwrap_err();
        assert!(error.to_string().starts_with("cannot install policy"), "{error}");
        assert_eq!(everything(&a, &mut node)?, before);
        ours.delete_policy(&key).context("policy in the way")?;
    }

    // A key that is too short for the algorithm.
    let mut short = spec.clone();
    short.outbound.encryption_key = zeroize::Zeroizing::new(vec![1; 7]);
    let before = everything(&a, &mut node)?;
    node.install(&short).unwrap_err();
    assert_eq!(everything(&a, &mut node)?, before);

    // And nothing of all that is in the way of the real one, or of its removal.
    node.install(&spec).context("install")?;
    assert_ne!(everything(&a, &mut node)?, before);
    node.remove(&spec)?;
    assert_eq!(everything(&a, &mut node)?, before);
    node.remove(&spec)?;
    node.end()
}

#[test]
fn a_route_of_another_to_the_same_prefix_stays() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    a.ip("route add 10.2.0.0/16 via 192.0.2.2 src 10.1.0.1")?;
    let spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let before = a.run("ip", &["route"])?;
    node.install(&spec).context("install")?;
    assert_eq!(a.run("ip", &["route"])?, before);
    node.remove(&spec)?;
    assert_eq!(a.run("ip", &["route"])?, before);
    node.end()
}

#[test]
fn the_next_run_removes_what_a_killed_one_left_and_nothing_else() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let rules = policies(&spec.selectors[0].0);
    let mut node = Node::open(&a, &rules)?;
    let mut others = a.enter(|| Xfrm::open(OTHER_IF_ID))?.context("open")?;
    let mut foreign = spec.clone();
    foreign.inbound.spi = 0x7007;
    others.add_sa(&foreign, SaDirection::Inbound).context("foreign SA")?;
    a.ip("route add 10.9.0.0/16 via 192.0.2.2")?;
    let empty = everything(&a, &mut node)?;
    node.execute(trap(&spec)).context("trap")?;
    node.install(&spec).context("install")?;
    let interface = a.run("ip", &["-o", "link", "show", "ipsec0"])?;
    node.kill();
    // Still guarded: nothing leaves in the clear.
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    let mut node = Node::open(&a, &rules)?;
    assert_eq!(everything(&a, &mut node)?, empty);
    assert_eq!(a.run("ip", &["-o", "link", "show", "ipsec0"])?, interface);
    node.end()
}

#[test]
fn limits_are_reported_and_sas_that_are_gone_are_missed() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let mut spec = child(GCM, Mode::Tunnel, false);
    spec.lifetime = ChildLifetime { time: Duration::ZERO, bytes: 0, packets: 10 };
    let other = mirrored(&child(GCM, Mode::Tunnel, false));
    let mut one = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let mut two = Node::open(&b, &policies(&other.selectors[0].0))?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    assert_eq!(one.runtime.block_on(one.kernel.resync()), []);
    assert_eq!(one.used(&spec), (0, 0, None));
    // The hard limit lies a tenth above the soft one.
    let text = a.run("ping", &["-q", "-c", "14", "-i", "0.2", "-W", "1", "10.2.0.1"])?;
    assert!(text.contains(" 11 received"), "{text}");
    let mut soft = false;
    loop {
        let notice = one.notice();
        let Notice::Event(KernelEvent::Expire { spi, hard, .. }) = notice else {
            panic!("{notice:?}");
        };
        assert!(spi == spec.inbound.spi || spi == spec.outbound.spi);
        if hard {
            break;
        }
        soft = true;
    }
    assert!(soft);
    // One direction is gone. The packets after that asked for an SA, and the other direction may
    // be beyond its soft limit: a resync tells both again.
    let events = one.runtime.block_on(one.kernel.resync());
    assert!(events.contains(&KernelEvent::Vanished { child: spec.child }), "{events:?}");
    let told = |event: &KernelEvent| {
        matches!(
            event,
            KernelEvent::Vanished { .. }
                | KernelEvent::Acquire { .. }
                | KernelEvent::Expire { hard: false, .. }
        )
    };
    assert!(events.iter().all(told), "{events:?}");
    let gone = one.execute(KernelCommand::QueryUse { child: spec.child }).unwrap_err();
    assert_eq!(gone, KernelError::NoSuchSa);
    one.remove(&spec)?;
    let mut ours = a.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    assert_eq!(ours.sas().context("dump")?, []);
    one.end()?;
    two.end()
}

#[test]
fn our_address_towards_a_peer_is_found() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let mut node = Node::open(&a, &PolicySet::default())?;
    for v6 in [false, true] {
        let [ours, peer] = outer(v6).map(|address| address.parse().unwrap());
        let found = node.execute(KernelCommand::FindLocalAddress { remote: peer });
        assert_eq!(found, Ok(Done::LocalAddress(ours)));
    }
    let nowhere = "203.0.113.9".parse().unwrap();
    let error = node.execute(KernelCommand::FindLocalAddress { remote: nowhere }).unwrap_err();
    assert!(error.to_string().starts_with("no route to 203.0.113.9"), "{error}");
    node.end()
}

#[test]
fn an_interface_in_the_way_is_named() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let open =
        || Ok::<_, gateway_tests::Error>(Node::try_open(&a, &PolicySet::default(), "under")?.err());
    a.ip("link add ipsec0 type veth peer name other")?;
    let error = open()?.unwrap();
    assert!(
        matches!(&error, KernelSetupError::NameTaken { name, .. } if name == "ipsec0"),
        "{error}"
    );
    a.ip("link delete ipsec0\nlink add ipsec0 type xfrm dev under if_id 99")?;
    let error = open()?.unwrap();
    assert!(error.to_string().contains("an XFRM interface with if_id 99"), "{error}");
    a.ip("link delete ipsec0\nlink add mine type xfrm dev under if_id 7")?;
    let error = open()?.unwrap();
    assert!(matches!(error, KernelSetupError::IfIdTaken(7)), "{error}");
    Ok(())
}
