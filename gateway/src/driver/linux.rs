//! The kernel that the gateway runs on, behind the driver's seam.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use gateway_common::RuleCount;
use gateway_ike::config::InitLimits;
use gateway_ike::io::{
    ChildId, ChildUse, Done, KernelCommand, KernelError, KernelEvent, SharedCookies,
};

use super::seam::{Kernel, Monitor, RulePackets};
use crate::control::{CapabilityReport, InterfaceReport};
use crate::kernel::{self, ChildMtu, LinkChange, LinkStatus, LinuxKernel, Notice};

impl Kernel for LinuxKernel {
    async fn execute(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        Self::execute(self, command).await
    }

    fn uses(&mut self) -> Result<BTreeMap<ChildId, ChildUse>, KernelError> {
        Self::uses(self)
    }

    async fn resync(&mut self) -> Vec<KernelEvent> {
        Self::resync(self).await
    }

    async fn check_links(&mut self, change: &LinkChange) -> Option<Duration> {
        Self::check_links(self, change).await
    }

    async fn addresses(&self) -> Vec<IpAddr> {
        Self::addresses(self).await
    }

    fn received_at(&self, child: ChildId) -> Option<IpAddr> {
        Self::received_at(self, child)
    }

    async fn leave_lost_addresses(&mut self) -> Vec<(ChildId, IpAddr)> {
        Self::leave_lost_addresses(self).await
    }

    async fn child_mtu(&self, child: ChildId) -> Result<ChildMtu, String> {
        Self::child_mtu(self, child).await
    }

    fn limit_init(&mut self, limits: InitLimits) {
        Self::limit_init(self, limits);
    }

    fn share_cookies(&mut self, cookies: &SharedCookies) {
        Self::share_cookies(self, cookies);
    }

    fn renew(&mut self) {
        Self::renew(self);
    }

    fn found_other_sas(&mut self) {
        Self::found_other_sas(self);
    }

    fn await_sa(&mut self, local: IpAddr, spi: u32) {
        Self::await_sa(self, local, spi);
    }

    fn await_no_more(&mut self, local: IpAddr, spi: u32) {
        Self::await_no_more(self, local, spi);
    }

    fn interfaces(&self) -> Vec<InterfaceReport> {
        self.links().into_iter().map(report).collect()
    }

    fn capabilities(&self) -> Vec<CapabilityReport> {
        let found = &Self::capabilities(self).features;
        let report = found.iter().map(|feature| {
            let available = if feature.available { "yes" } else { "no" };
            let value = if feature.detail.is_empty() {
                available.to_owned()
            } else {
                format!("{available}: {}", feature.detail)
            };
            CapabilityReport { name: feature.name.clone(), value }
        });
        report.collect()
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        Self::counters(self)
    }

    fn rule_counters(&mut self) -> BTreeMap<String, RulePackets> {
        let names: BTreeMap<u32, String> =
            self.rule_names().map(|(id, name)| (id, name.to_string())).collect();
        let packets = |count: RuleCount| RulePackets {
            outbound: count.outbound.packets,
            refused: count.refused.packets,
        };
        let named =
            self.rule_counts().into_iter().filter_map(|(id, count)| Some((names.get(&id)?, count)));
        named.map(|(name, count)| (name.clone(), packets(count))).collect()
    }

    fn rule_ids(&self) -> BTreeMap<String, u32> {
        self.rule_names().map(|(id, name)| (name.to_string(), id)).collect()
    }

    async fn clean_up(&mut self) {
        self.remove_everything_of_ours().await;
    }
}

fn report(link: LinkStatus) -> InterfaceReport {
    let LinkStatus { name, index, is_xfrm, attached, problem } = link;
    InterfaceReport {
        name,
        role: if is_xfrm { "xfrm" } else { "underlay" }.to_owned(),
        index,
        programs: attached.map(|attached| attached.to_string()),
        problem,
    }
}

impl Monitor for kernel::Monitor {
    async fn next(&mut self) -> Notice {
        Self::next(self).await
    }
}
