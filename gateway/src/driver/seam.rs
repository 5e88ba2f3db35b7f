//! What the driver wants of the kernel: a seam, so that the loop runs in tests without one that
//! has ESP.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::future::Future;

use gateway_ike::config::InitLimits;
use gateway_ike::io::{
    ChildId, ChildUse, Done, KernelCommand, KernelError, KernelEvent, SharedCookies,
};

use crate::control::{CapabilityReport, InterfaceReport};
use crate::kernel::{ChildMtu, LinkChange, Notice};

/// Executes commands.
pub trait Kernel {
    /// Does what the command says, whole or not at all.
    ///
    /// # Errors
    /// The kernel refuses; nothing has changed.
    fn execute(
        &mut self,
        command: KernelCommand,
    ) -> impl Future<Output = Result<Done, KernelError>>;

    /// What has gone through each Child SA that is installed. Those that the kernel has lost are
    /// left out.
    ///
    /// # Errors
    /// The kernel does not tell: then nothing is known of any.
    fn uses(&mut self) -> Result<BTreeMap<ChildId, ChildUse>, KernelError>;

    /// Finds out what has changed while events were lost.
    fn resync(&mut self) -> impl Future<Output = Vec<KernelEvent>>;

    /// Looks after the interfaces, which have changed. Gives the time after which to do so again.
    fn check_links(&mut self, change: &LinkChange) -> impl Future<Output = Option<Duration>>;

    /// Our addresses by which peers may reach us.
    fn addresses(&self) -> impl Future<Output = Vec<IpAddr>>;

    /// Our address under which the kernel has the inbound SA of a Child SA.
    fn received_at(&self, child: ChildId) -> Option<IpAddr>;

    /// Our addresses have changed: what is still at one that is gone goes to where its Child SA is.
    /// Gives the Child SAs whose inbound SA has, and where that is now.
    fn leave_lost_addresses(&mut self) -> impl Future<Output = Vec<(ChildId, IpAddr)>>;

    /// How large a packet may be that a Child SA takes.
    ///
    /// # Errors
    /// In words: it is not there, or there is no way to the peer.
    fn child_mtu(&self, child: ChildId) -> impl Future<Output = Result<ChildMtu, String>>;

    /// Has the XDP program keep to other limits.
    fn limit_init(&mut self, limits: InitLimits);

    /// Has the XDP program demand and accept these cookies.
    fn share_cookies(&mut self, cookies: &SharedCookies);

    /// Has the XDP program go on with what it does only while somebody runs.
    fn renew(&mut self);

    /// Somebody else has SAs in this kernel.
    fn found_other_sas(&mut self);

    /// ESP with this SPI may come to an address of ours before its SA is there.
    fn await_sa(&mut self, local: IpAddr, spi: u32);

    /// There will be no SA with this SPI, or it is there.
    fn await_no_more(&mut self, local: IpAddr, spi: u32);

    /// The interfaces as they are now, for status.
    fn interfaces(&self) -> Vec<InterfaceReport>;

    /// What was probed at start, for status.
    fn capabilities(&self) -> Vec<CapabilityReport>;

    /// The counters of the eBPF programs by reason.
    fn counters(&mut self) -> BTreeMap<String, u64>;

    /// What the eBPF programs did for each rule: clear packets on their way out that it selected,
    /// and packets on their way in that were dropped because of it.
    fn rule_counters(&mut self) -> BTreeMap<String, RulePackets>;

    /// The numbers that the eBPF programs have for rules, by their names.
    fn rule_ids(&self) -> BTreeMap<String, u32>;

    /// Takes away SAs, policies and routes; the guard against clear text stays.
    fn clean_up(&mut self) -> impl Future<Output = ()>;
}

/// Packets that one rule selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RulePackets {
    /// On their way out.
    pub outbound: u64,
    /// On their way in, and dropped.
    pub refused: u64,
}

/// Tells what the kernel says by itself.
pub trait Monitor {
    /// The next notice. Cancelling it loses nothing.
    fn next(&mut self) -> impl Future<Output = Notice>;
}
