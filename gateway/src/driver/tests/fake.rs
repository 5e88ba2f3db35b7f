//! A kernel that only remembers what it was told, and what tells of changes when a test does.

use std::net::IpAddr;

use gateway_ike::config::InitLimits;
use gateway_ike::io::{ChildId, ChildSpec, ChildUse, SharedCookies};

use super::*;
use crate::control::{CapabilityReport, InterfaceReport};
use crate::kernel::ChildMtu;

/// What has gone through each Child SA.
const USED: ChildUse =
    ChildUse { idle_inbound: None, bytes_in: 1, bytes_out: 2, packets_in: 3, packets_out: 4 };

/// What a fake kernel was told.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) commands: Vec<KernelCommand>,
    pub(super) cleaned_up: bool,
    /// What a resync finds.
    pub(super) lost: Vec<KernelEvent>,
    /// Whether it does not say what has gone through Child SAs.
    pub(super) hides_use: bool,
    /// What was told about interfaces.
    pub(super) links: Vec<LinkChange>,
    /// How much IKE_SA_INIT may come.
    pub(super) limits: Vec<InitLimits>,
    /// How often it was told that somebody runs.
    pub(super) renewals: usize,
    /// Whether it was told of SAs of others.
    pub(super) other_sas: bool,
    /// The SPIs that are awaited, and all that ever were.
    pub(super) awaited: Vec<(IpAddr, u32)>,
    pub(super) were_awaited: Vec<(IpAddr, u32)>,
    /// The cookies that are good.
    pub(super) cookies: Vec<SharedCookies>,
}

impl Record {
    pub(super) fn children(&self) -> Vec<ChildSpec> {
        let mut specs = Vec::new();
        for command in &self.commands {
            if let KernelCommand::InstallChild(spec) = command {
                specs.push(ChildSpec::clone(spec));
            }
        }
        specs
    }
}

#[derive(Debug)]
pub(super) struct FakeKernel {
    pub(super) address: IpAddr,
    pub(super) record: Arc<Mutex<Record>>,
}

impl Kernel for FakeKernel {
    async fn execute(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        let done = if matches!(command, KernelCommand::FindLocalAddress { .. }) {
            Done::LocalAddress(self.address)
        } else if matches!(command, KernelCommand::QueryUse { .. }) {
            Done::Use(USED)
        } else {
            Done::Ok
        };
        self.record.lock().unwrap().commands.push(command);
        Ok(done)
    }

    #[expect(clippy::unwrap_in_result, reason = "This is test code.")]
    fn uses(&mut self) -> Result<BTreeMap<ChildId, ChildUse>, KernelError> {
        let record = self.record.lock().unwrap();
        if record.hides_use {
            return Err(KernelError::Refused("it is no day for lists".to_owned()));
        }
        Ok(record.children().into_iter().map(|spec| (spec.child, USED)).collect())
    }

    async fn resync(&mut self) -> Vec<KernelEvent> {
        std::mem::take(&mut self.record.lock().unwrap().lost)
    }

    async fn addresses(&self) -> Vec<IpAddr> {
        vec![self.address]
    }

    async fn check_links(&mut self, change: &LinkChange) -> Option<Duration> {
        let mut record = self.record.lock().unwrap();
        record.links.push(change.clone());
        // The first time something is still missing.
        (record.links.len() == 1).then_some(Duration::from_millis(20))
    }

    fn received_at(&self, _child: ChildId) -> Option<IpAddr> {
        None
    }

    async fn leave_lost_addresses(&mut self) -> Vec<(ChildId, IpAddr)> {
        Vec::new()
    }

    async fn child_mtu(&self, _child: ChildId) -> Result<ChildMtu, String> {
        Err("it has no links".to_owned())
    }

    fn limit_init(&mut self, limits: InitLimits) {
        self.record.lock().unwrap().limits.push(limits);
    }

    fn share_cookies(&mut self, cookies: &SharedCookies) {
        self.record.lock().unwrap().cookies.push(*cookies);
    }

    fn renew(&mut self) {
        let mut record = self.record.lock().unwrap();
        record.renewals = record.renewals.saturating_add(1);
    }

    fn found_other_sas(&mut self) {
        self.record.lock().unwrap().other_sas = true;
    }

    fn await_sa(&mut self, local: IpAddr, spi: u32) {
        let mut record = self.record.lock().unwrap();
        record.awaited.push((local, spi));
        record.were_awaited.push((local, spi));
    }

    fn await_no_more(&mut self, local: IpAddr, spi: u32) {
        self.record.lock().unwrap().awaited.retain(|one| *one != (local, spi));
    }

    fn interfaces(&self) -> Vec<InterfaceReport> {
        vec![InterfaceReport { name: "eth0".to_owned(), ..InterfaceReport::default() }]
    }

    fn capabilities(&self) -> Vec<CapabilityReport> {
        vec![CapabilityReport { name: "esp".to_owned(), value: "fake".to_owned() }]
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn rule_counters(&mut self) -> BTreeMap<String, RulePackets> {
        [("net".to_owned(), RulePackets { outbound: 5, refused: 6 })].into()
    }

    fn rule_ids(&self) -> BTreeMap<String, u32> {
        [("net".to_owned(), 7)].into()
    }

    async fn clean_up(&mut self) {
        self.record.lock().unwrap().cleaned_up = true;
    }
}

/// Gives the notices of the test.
#[derive(Debug)]
pub(super) struct FakeMonitor(pub(super) mpsc::Receiver<Notice>);

impl Monitor for FakeMonitor {
    async fn next(&mut self) -> Notice {
        match self.0.recv().await {
            Some(notice) => notice,
            None => std::future::pending().await,
        }
    }
}
