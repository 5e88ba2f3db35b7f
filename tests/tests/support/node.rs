//! Machines whose kernels are set up as the daemon does it, with a wire between them.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "this is test code"
)]
#![allow(dead_code, reason = "each test target uses a part of it")]

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use gateway::complaints::Complaints;
use gateway::kernel::{
    KernelConfig, KernelSetupError, LinkChange, LinuxKernel, Monitor, Notice, bpf,
};
use gateway_ike::config::{
    ALL_PORTS, Action, ChildLifetime, Mode, PolicySet, Protect, Rule, Start,
};
use gateway_ike::io::{ChildSpec, Done, KernelCommand, KernelError, Selector, TrapSpec};
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;
use tokio::runtime::Runtime;

use crate::kernel::{mirrored, outer};

/// The `if_id` of our XFRM interface.
pub(crate) const IF_ID: u32 = 7;
/// And that of somebody else.
pub(crate) const OTHER_IF_ID: u32 = 8;

/// A rule that protects what the selector says.
pub(crate) fn policies(selector: &Selector) -> PolicySet {
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
pub(crate) struct Node {
    pub(crate) kernel: LinuxKernel,
    monitor: Monitor,
    pub(crate) runtime: Runtime,
    pin_dir: PathBuf,
}

impl Node {
    /// Sets the kernel up for a gateway whose underlay is `under`.
    pub(crate) fn open(namespace: &Namespace, policies: &PolicySet) -> Result<Self> {
        Self::try_open(namespace, policies, "under")?.context("set the kernel up")
    }

    /// The same for both ends of a Child SA, of which `spec` is the first one's.
    pub(crate) fn ends([one, two]: [&Namespace; 2], spec: &ChildSpec) -> Result<[Self; 2]> {
        let of = |spec: &ChildSpec| policies(&spec.selectors[0].0);
        Ok([Self::open(one, &of(spec))?, Self::open(two, &of(&mirrored(spec)))?])
    }

    /// The same with another underlay, or the reason why not.
    pub(crate) fn try_open(
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
            let (kernel, monitor) =
                runtime.block_on(LinuxKernel::open(config, policies, Complaints::new(5)))?;
            Ok(Self { kernel, monitor, runtime, pin_dir })
        })
    }

    /// Has a command executed.
    pub(crate) fn execute(
        &mut self,
        command: KernelCommand,
    ) -> core::result::Result<Done, KernelError> {
        self.runtime.block_on(self.kernel.execute(command))
    }

    /// Installs a Child SA.
    pub(crate) fn install(&mut self, spec: &ChildSpec) -> core::result::Result<Done, KernelError> {
        self.execute(KernelCommand::InstallChild(Box::new(spec.clone())))
    }

    /// Removes a Child SA.
    pub(crate) fn remove(&mut self, spec: &ChildSpec) -> Result {
        self.execute(KernelCommand::RemoveChild { child: spec.child }).context("remove").map(drop)
    }

    /// Packets in and out, and for how long none has come in.
    pub(crate) fn used(&mut self, spec: &ChildSpec) -> (u64, u64, Option<Duration>) {
        let answer = self.execute(KernelCommand::QueryUse { child: spec.child }).unwrap();
        let Done::Use(used) = answer else {
            panic!("{answer:?}");
        };
        (used.packets_in, used.packets_out, used.idle_inbound)
    }

    /// The next notice that is not of links, or of others who have SAs.
    pub(crate) fn notice(&mut self) -> Notice {
        let next = async {
            loop {
                // Links may become ready meanwhile.
                let notice = self.monitor.next().await;
                if !matches!(notice, Notice::Links(_) | Notice::OtherSas) {
                    return notice;
                }
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), next).await })
            .unwrap()
    }

    /// Waits until it is told of others who have SAs.
    pub(crate) fn wait_for_others(&mut self) {
        let next = async { while !matches!(self.monitor.next().await, Notice::OtherSas) {} };
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), next).await })
            .unwrap();
    }

    /// Has the kernel looked after until it tells nothing more of interfaces, as the driver does.
    pub(crate) fn tend(&mut self, namespace: &Namespace) -> Result {
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
    pub(crate) fn problem(&self, name: &str) -> Option<String> {
        let links = self.kernel.links();
        links.into_iter().find(|link| link.name == name).unwrap().problem
    }

    /// Ends as by kill -9: nothing is taken back.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Takes everything away, the guard too.
    pub(crate) fn end(mut self) -> Result {
        self.runtime.block_on(self.kernel.remove_everything_of_ours());
        let pin_dir = self.pin_dir.clone();
        drop(self);
        bpf::remove(&pin_dir).context("remove the guard")
    }
}

/// Two machines with a wire between them, and inner addresses of their own.
pub(crate) fn machines() -> Result<[Namespace; 2]> {
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
pub(crate) fn ping(from: &Namespace, to: &str, sizes: &[&str]) -> Result {
    for size in sizes {
        let text = from.run("ping", &["-q", "-c", "3", "-i", "0.2", "-W", "5", "-s", size, to])?;
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
    Ok(())
}

/// Small, nearly as large as the underlay's MTU, and fragmented.
pub(crate) const SIZES: &[&str] = &["56", "1400", "3000"];
/// Everything that the kernel has of ours and of others.
pub(crate) fn everything(namespace: &Namespace, node: &mut Node) -> Result<Vec<String>> {
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

/// What catches the traffic of a rule until it has a Child SA.
pub(crate) fn trap(spec: &ChildSpec) -> KernelCommand {
    KernelCommand::InstallTrap(TrapSpec {
        rule: "rule".into(),
        reqid: spec.inbound.reqid,
        local: None,
        remote: spec.outbound.destination,
        mode: spec.mode,
        selectors: spec.selectors.clone(),
    })
}
