//! The kernel that the gateway runs on, behind the driver's seam.

use std::collections::BTreeMap;

use gateway_ike::io::{Done, KernelCommand, KernelError, KernelEvent};

use super::seam::{Kernel, Monitor};
use crate::control::CapabilityReport;
use crate::kernel::{self, LinuxKernel, Notice};

impl Kernel for LinuxKernel {
    async fn execute(&mut self, command: KernelCommand) -> Result<Done, KernelError> {
        Self::execute(self, command).await
    }

    async fn resync(&mut self) -> Vec<KernelEvent> {
        Self::resync(self).await
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

    async fn clean_up(&mut self) {
        self.remove_everything_of_ours().await;
    }
}

impl Monitor for kernel::Monitor {
    async fn next(&mut self) -> Notice {
        Self::next(self).await
    }
}
