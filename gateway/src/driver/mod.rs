//! The event loop: everything that happens goes into the IKE core, and what comes out is done.
//!
//! One thread, one loop. It waits for sockets, the kernel, signals, control clients, a finished
//! reload and the core's timer; hands in what came; and drains the core's outputs in order. A
//! kernel command is executed and answered before what stands behind it.
//!
//! INVARIANT: only this module knows all the others, and only it calls the core.

mod error;
mod esp;
mod guard;
mod inbound;
mod journal;
mod linux;
mod load;
mod name_servers;
mod notify;
mod privileges;
mod reload;
mod seam;
mod signals;
mod start;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod underlay;
mod whole_file;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use gateway_ike::Endpoint;
use gateway_ike::config::{PeerName, PolicySet};
use gateway_ike::io::{ChildId, ChildUse, Done, Input, KernelCommand, KernelError, Output, Path};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use self::inbound::Inbound;
use self::journal::Journal;
use self::name_servers::NameServers;
use self::reload::Outcome as ReloadOutcome;
use self::status::Use;
use crate::clock;
use crate::complaints::Complaints;
use crate::control::{Call, KernelReport, Request, Response, Server, StatusReport};
use crate::kernel::{LinkChange, Notice};
use crate::metrics::{Exporter, Scrape};
use crate::net::{Early, RECEIVE_BUFFER, Ready, Received, Reinjector, Sockets};

pub use self::error::RunError;
pub use self::guard::guard;
pub use self::load::load;
pub use self::reload::Reloader;
pub use self::seam::{Kernel, Monitor, RulePackets};
pub use self::signals::Signal;
pub use self::start::run;

/// Datagrams taken from one socket before the loop looks around again.
const BATCH: usize = 64;
/// How long peers may take to answer our goodbyes.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the loop works with.
#[derive(Debug)]
pub struct Parts<K, M> {
    /// Executes commands.
    pub kernel: K,
    /// Tells what the kernel says.
    pub monitor: M,
    /// UDP.
    pub sockets: Sockets,
    /// Hands ESP back to the kernel.
    pub reinjector: Reinjector,
    /// Takes requests.
    pub control: Server,
    /// Serves metrics.
    pub exporter: Exporter,
    /// Signals of the operator.
    pub signals: mpsc::Receiver<Signal>,
    /// The policy files.
    pub reload: Reloader,
    /// The rate of log lines that the kernel shares, too.
    pub complaints: Complaints,
}

/// The event loop.
pub struct Driver<K, M> {
    endpoint: Endpoint,
    parts: Parts<K, M>,
    inbound: Inbound,
    /// ESP for SAs that are not there yet.
    early: Early,
    name_servers: NameServers,
    /// ESP on the socket for an SPI that is not ours.
    unknown_esp: u64,
    /// Reports without what has gone through Child SAs, since the kernel did not say.
    use_unknown: u64,
    buffer: Vec<u8>,
    journal: Journal,
    watchdog: Option<Interval>,
    started: Instant,
    /// When peers have had enough time to say goodbye; set once the gateway is ending.
    ending: Option<Instant>,
    /// When to look after the interfaces again, without being told that they have changed.
    look_at_links: Option<Instant>,
    /// When the kernel is to be told again that we are here.
    renewal: Option<Instant>,
    /// Our addresses, as the core knows them.
    addresses: Vec<IpAddr>,
}

/// Why the loop woke up.
enum Wake {
    Signal(Signal),
    Datagrams(Ready),
    Kernel(Notice),
    Call(Call),
    Scrape(Scrape),
    Loaded(Box<ReloadOutcome>),
    Watchdog,
    Timeout,
}

impl<K: Kernel, M: Monitor> Driver<K, M> {
    /// Puts the parts together; to be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint, parts: Parts<K, M>) -> Self {
        let journal = Journal::new(parts.reload.settings().journal);
        let early = parts.reload.settings().early;
        let early = Early::new(early.sa_limit, early.size_limit);
        let name_servers =
            NameServers::new(parts.reload.settings().resolv_conf.clone(), parts.complaints.clone());
        let watchdog = notify::watchdog_interval().map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            endpoint,
            parts,
            inbound: Inbound::default(),
            early,
            name_servers,
            unknown_esp: 0,
            use_unknown: 0,
            buffer: vec![0; RECEIVE_BUFFER],
            journal,
            watchdog,
            started: clock::now(),
            ending: None,
            look_at_links: None,
            renewal: None,
            addresses: Vec::new(),
        }
    }

    /// Applies policies and does what follows from them.
    pub async fn apply(&mut self, policies: Arc<PolicySet>) {
        self.journal.retain(&policies);
        self.name_servers.try_again();
        self.check_addresses().await;
        self.handle(Input::Policies(policies)).await;
    }

    /// Turns until a signal ends it and all peers have been told, or have not listened. Then SAs,
    /// policies and routes are taken away; the guard against clear text stays.
    ///
    /// # Errors
    /// [`RunError::Interrupted`] after a second signal, [`RunError::Monitor`] when the kernel's
    /// events can no longer be read. Then the kernel keeps what it has.
    pub async fn run(&mut self) -> Result<(), RunError> {
        self.renew(clock::now());
        while !self.has_ended() {
            let wake = self.wait().await;
            self.act(wake).await?;
        }
        if !self.endpoint.is_closed() {
            tracing::warn!("Some peers did not answer in time: they will find out by themselves");
        }
        self.parts.kernel.clean_up().await;
        self.name_servers.clear();
        tracing::info!(
            "Ended: what policies protect stays blocked by the eBPF guard until the gateway runs again"
        );
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.ending.is_some_and(|deadline| self.endpoint.is_closed() || deadline <= clock::now())
    }

    async fn wait(&mut self) -> Wake {
        let (core, early) = (self.endpoint.next_timeout(), self.early.deadline());
        let timeouts = [core, early, self.ending, self.look_at_links, self.renewal];
        let timeout = timeouts.into_iter().flatten().min();
        let Parts { monitor, sockets, control, exporter, signals, reload, .. } = &mut self.parts;
        tokio::select! {
            Some(signal) = signals.recv() => Wake::Signal(signal),
            ready = sockets.readable() => Wake::Datagrams(ready),
            notice = monitor.next() => Wake::Kernel(notice),
            Some(call) = control.next() => Wake::Call(call),
            Some(scrape) = exporter.next() => Wake::Scrape(scrape),
            outcome = reload.finished() => Wake::Loaded(Box::new(outcome)),
            () = tick(&mut self.watchdog) => Wake::Watchdog,
            () = at(timeout) => Wake::Timeout,
        }
    }

    async fn act(&mut self, wake: Wake) -> Result<(), RunError> {
        match wake {
            Wake::Signal(Signal::End) => return self.end().await,
            Wake::Signal(Signal::Reload) => self.begin_reload(),
            Wake::Datagrams(ready) => self.receive(ready).await,
            Wake::Kernel(Notice::Event(event)) => self.handle(Input::Kernel(event)).await,
            Wake::Kernel(Notice::Overrun) => self.resync().await,
            Wake::Kernel(Notice::Links(change)) => self.check_links(&change).await,
            Wake::Kernel(Notice::OtherSas) => self.parts.kernel.found_other_sas(),
            Wake::Kernel(Notice::UnknownEsp(seen)) => self.tell_unknown(&seen),
            Wake::Kernel(Notice::Failed(error)) => return Err(RunError::Monitor(error)),
            Wake::Call(call) => self.answer(call).await,
            Wake::Scrape(scrape) => scrape.answer(self.report(Use::LeftOut)),
            Wake::Loaded(outcome) => self.finish_reload(*outcome).await,
            Wake::Watchdog => notify::alive(),
            Wake::Timeout => {
                if self.look_at_links.is_some_and(|time| time <= clock::now()) {
                    self.check_links(&LinkChange::default()).await;
                }
                self.renew(clock::now());
                self.forget_early(clock::now());
                self.handle(Input::Timeout).await;
            }
        }
        Ok(())
    }

    /// Hands an input in and does everything that comes out.
    async fn handle(&mut self, input: Input<'_>) {
        let now = clock::now();
        self.endpoint.handle(now, Input::WallClock(clock::since_1970()));
        self.endpoint.handle(now, input);
        self.drain().await;
    }

    async fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { path, octets } => self.transmit(&path, &octets),
                Output::Keepalive { path } => self.keep_alive(&path),
                Output::Expect { local, spi } => self.expect(local, spi),
                Output::ExpectNoMore { spi } => {
                    if let Some(local) = self.early.withdraw(spi) {
                        self.parts.kernel.await_no_more(local, spi);
                    }
                }
                Output::Kernel(id, command) => {
                    let result = self.execute(command).await;
                    self.endpoint.handle(clock::now(), Input::CommandDone(id, result));
                }
                Output::Cookies(cookies) => self.parts.kernel.share_cookies(&cookies),
                Output::Event(event) => {
                    self.journal.note(clock::now(), clock::unix_seconds(), &event);
                }
            }
        }
        // After all that came of one input: a Child SA that replaces another changes nothing.
        self.name_servers.write_if_changed();
    }

    fn transmit(&mut self, path: &Path, octets: &[u8]) {
        if let Err(error) = self.parts.sockets.send(path, octets)
            && self.parts.complaints.take(clock::now())
        {
            tracing::warn!(%path, octets = octets.len(), %error, "Cannot send an IKE message");
        }
    }

    fn keep_alive(&mut self, path: &Path) {
        if let Err(error) = self.parts.sockets.send_keepalive(path)
            && self.parts.complaints.take(clock::now())
        {
            tracing::warn!(%path, %error, "Cannot send a NAT keepalive");
        }
    }

    async fn execute(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        let mut moves = None;
        let mut told = None;
        let installs = match &command {
            KernelCommand::InstallChild(spec) | KernelCommand::InstallInbound(spec) => {
                told = Some((PeerName::clone(&spec.peer), spec.name_servers.clone()));
                Some((spec.child, inbound::key(&spec.inbound), spec.reached_at))
            }
            KernelCommand::MoveChild { child, ends, .. } => {
                moves = Some((*child, ends.local));
                None
            }
            KernelCommand::RemoveChild { child } => {
                self.inbound.removed(*child);
                self.name_servers.removed(*child);
                None
            }
            KernelCommand::InstallOutbound(_)
            | KernelCommand::RemoveOutbound { .. }
            | KernelCommand::InstallTrap(_)
            | KernelCommand::RemoveTrap { .. }
            | KernelCommand::ForgetAcquire { .. }
            | KernelCommand::Classify(_)
            | KernelCommand::FindLocalAddress { .. }
            | KernelCommand::QueryUse { .. } => None,
        };
        let result = self.parts.kernel.execute(command).await;
        if let (Some((child, sa, reached_at)), Ok(_)) = (installs, &result) {
            self.inbound.installed(child, sa);
            self.hand_over_early(sa);
            if let Some(address) = reached_at {
                self.inbound.moved(child, address, sa.0);
            }
            if let Some((peer, servers)) = told {
                self.name_servers.installed(child, peer, servers);
            }
        }
        if let (Some((child, local)), Ok(_)) = (moves, &result) {
            let is_at = self.parts.kernel.received_at(child).unwrap_or(local);
            self.inbound.moved(child, local, is_at);
        }
        result
    }

    /// Takes what a socket has, up to a limit.
    async fn receive(&mut self, ready: Ready) {
        // The buffer is taken out so that it can be read while the rest of the driver works.
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..BATCH {
            match self.parts.sockets.receive(ready, &mut buffer) {
                None => break,
                Some(Received::Ike { path, octets }) => {
                    self.handle(Input::Datagram { path, octets }).await;
                }
                Some(Received::Esp { path, spi, octets }) => self.reinject(&path, spi, octets),
                Some(Received::Keepalive | Received::Short | Received::NotUnicast) => {}
            }
        }
        self.buffer = buffer;
    }

    async fn resync(&mut self) {
        if self.parts.complaints.take(clock::now()) {
            tracing::warn!("Events of the kernel were lost: comparing its state with ours");
        }
        for event in self.parts.kernel.resync().await {
            self.handle(Input::Kernel(event)).await;
        }
    }

    async fn check_links(&mut self, change: &LinkChange) {
        let again = self.parts.kernel.check_links(change).await;
        self.look_at_links = again.and_then(|delay| clock::now().checked_add(delay));
        self.check_addresses().await;
    }

    /// Tells the core of our addresses, if they are not those of before.
    async fn check_addresses(&mut self) {
        let addresses = self.parts.kernel.addresses().await;
        if addresses != self.addresses {
            self.addresses.clone_from(&addresses);
            for (child, address) in self.parts.kernel.leave_lost_addresses().await {
                self.inbound.moved(child, address, address);
            }
            self.handle(Input::LocalAddresses(addresses)).await;
        }
    }

    async fn end(&mut self) -> Result<(), RunError> {
        if self.ending.is_some() {
            return Err(RunError::Interrupted);
        }
        tracing::info!("Ending: deleting all SAs");
        notify::stopping();
        self.ending = Some(clock::after(GOODBYE));
        self.handle(Input::Shutdown).await;
        Ok(())
    }

    fn begin_reload(&mut self) {
        if self.ending.is_some() {
            return;
        }
        tracing::info!("Reloading the policy files");
        notify::reloading();
        self.parts.reload.request();
    }

    async fn finish_reload(&mut self, mut outcome: ReloadOutcome) {
        // Before anything is changed: where nobody can listen, the reload has failed.
        if let Ok(loaded) = &outcome
            && let Err(error) = start::move_metrics(&mut self.parts.exporter, loaded).await
        {
            outcome = Err(vec![error]);
        }
        let policies = self.parts.reload.conclude(outcome);
        if let Some(policies) = policies.filter(|_| self.ending.is_none()) {
            self.parts.kernel.limit_init(self.parts.reload.settings().ike);
            self.apply(policies).await;
        }
        if !self.parts.reload.is_running() && self.ending.is_none() {
            self.ready();
        }
    }

    /// Writes that nobody has told us a name server so far, which also takes away what a gateway
    /// has left that was killed, and tells the service manager that the gateway serves.
    pub fn begin(&mut self) {
        self.name_servers.begin();
        self.ready();
    }

    /// Tells the service manager that the gateway serves.
    fn ready(&self) {
        let report = self.parts.reload.report();
        let failed = report.last_reload.as_ref().is_some_and(|reload| !reload.ok);
        let note = if failed { "; the last reload failed" } else { "" };
        notify::ready(&format!("Policies: generation {}{note}", report.generation));
    }

    async fn answer(&mut self, call: Call) {
        let response = match call.request {
            Request::Status {} => Response::Status(Box::new(self.report(Use::Asked))),
            Request::Mtu {} => {
                let sas = self.endpoint.status(clock::now()).ike_sas;
                Response::Mtu(status::mtus(sas, &self.parts.kernel).await)
            }
            Request::Names {} => {
                let snapshot = self.endpoint.status(clock::now());
                let Parts { kernel, reload, .. } = &self.parts;
                Response::Names(status::names(snapshot, &kernel.rule_ids(), reload.if_id()))
            }
        };
        call.answer(response);
    }

    /// What has gone through each Child SA, or why that is not known.
    fn uses(&mut self) -> (BTreeMap<ChildId, ChildUse>, Option<String>) {
        match self.parts.kernel.uses() {
            Ok(uses) => (uses, None),
            Err(error) => {
                self.use_unknown = self.use_unknown.saturating_add(1);
                if self.parts.complaints.take(clock::now()) {
                    tracing::warn!(%error, "What has gone through Child SAs is not known");
                }
                (BTreeMap::new(), Some(error.to_string()))
            }
        }
    }

    fn report(&mut self, of_use: Use) -> StatusReport {
        let now = clock::now();
        let (uses, use_problem) = match of_use {
            Use::LeftOut => (BTreeMap::new(), None),
            Use::Asked => self.uses(),
        };
        let snapshot = self.endpoint.status(now);
        let Parts { kernel, sockets, reinjector, control, exporter, reload, complaints, .. } =
            &mut self.parts;
        let counters = self.endpoint.counters().iter();
        let counters = counters.chain(sockets.counters().iter()).chain(reinjector.counters());
        let counters = counters.chain(self.early.counters()).chain(self.journal.counters());
        let counters = counters.chain(exporter.counters()).chain([
            ("esp_unknown_spi", self.unknown_esp),
            ("child_sa_use_unknown", self.use_unknown),
            ("resolv_conf_not_written", self.name_servers.failures()),
            ("control_clients_refused", control.refused()),
            ("complaints_suppressed", complaints.suppressed()),
        ]);
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            shutting_down: self.ending.is_some(),
            policies: reload.report().clone(),
            kernel: KernelReport {
                release: status::kernel_release(),
                interfaces: kernel.interfaces(),
                capabilities: kernel.capabilities(),
            },
            half_open: snapshot.half_open,
            ike_sas: status::ike_sas(&snapshot.ike_sas, &uses),
            use_problem,
            refusals: self.journal.refusals(),
            rules: status::rules(snapshot.rules, &kernel.rule_counters()),
            counters: counters.map(|(name, value)| (name.to_owned(), value)).collect(),
            bpf_counters: kernel.counters(),
            xfrm_errors: status::xfrm_errors(),
        }
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
