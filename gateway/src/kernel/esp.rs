//! What the XDP program is told of ESP that is of no SA of ours, while the gateway runs.

use core::net::IpAddr;
use core::time::Duration;

use tracing::{info, warn};

use super::bpf::{BpfError, NotSteered, UnknownEsp};
use super::linux::LinuxKernel;
use super::probe::Feature;
use crate::clock;

/// How long the program drops such ESP before it must be told again: SAs of others come and go,
/// which only who runs can see.
const LEASE: Duration = Duration::from_secs(30);

/// How often it is told.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// What `status` calls it.
const DROPPING: &str = "drop of ESP without an SA";
/// Likewise.
const SPREADING: &str = "spreading of inbound SAs over CPUs";

impl LinuxKernel {
    /// Has the program drop ESP to us that is of no SA of ours, for a while.
    pub fn renew(&mut self) {
        let to_drop = self.to_drop();
        if to_drop != UnknownEsp::default() {
            let told = self.tables.data_path.drop_unknown_esp(to_drop, LEASE);
            self.complain(told, "The XDP program does not drop ESP without an SA");
        }
    }

    /// The program is to drop no such ESP any more.
    pub(super) fn stop_dropping(&mut self) {
        let nothing = UnknownEsp::default();
        let told = self.tables.data_path.drop_unknown_esp(nothing, Duration::ZERO);
        self.complain(told, "The XDP program goes on dropping ESP without an SA for a while");
    }

    fn to_drop(&self) -> UnknownEsp {
        let in_udp = self.config.drop_unknown_esp;
        // Port 4500 is ours, and what comes there nobody else's.
        UnknownEsp { bare: in_udp && !self.other_sas, in_udp }
    }

    /// Looks whether somebody else has SAs in this kernel; then bare ESP may be his.
    pub(super) fn look_for_other_sas(&mut self) {
        let found = self.tables.xfrm.others_have_sas().unwrap_or_else(|error| {
            if self.tables.complaints.take(clock::now()) {
                warn!(%error, "Cannot list the SAs of others: bare ESP without an SA passes");
            }
            true
        });
        if found {
            self.found_other_sas();
        }
        self.tell_of_esp();
    }

    /// Says in `status` what becomes of ESP in XDP, and where there is none.
    pub(super) fn tell_of_esp(&mut self) {
        let underlays = self.links.by_xdp();
        self.capabilities.set(dropping(self.to_drop(), &underlays));
        self.capabilities.set(spreading(self.tables.data_path.steering(), &underlays));
    }

    /// Somebody else has SAs in this kernel, or may: bare ESP is left to it until the gateway is started
    /// anew.
    pub fn found_other_sas(&mut self) {
        if self.other_sas {
            return;
        }
        self.other_sas = true;
        let to_drop = self.to_drop();
        let told = self.tables.data_path.drop_unknown_esp(to_drop, LEASE);
        self.complain(told, "The XDP program may drop bare ESP of others for a while");
        self.tell_of_esp();
        if self.config.drop_unknown_esp {
            info!("Others have SAs in this kernel: bare ESP that is of none of ours is left to it");
        }
    }

    /// A peer may send by this SPI before its SA is there.
    pub fn await_sa(&mut self, local: IpAddr, spi: u32) {
        let told = self.tables.data_path.await_sa(local, spi);
        self.complain(told, "What the peer sends before its Child SA is there will be lost");
    }

    /// There will be no such SA.
    pub fn await_no_more(&mut self, local: IpAddr, spi: u32) {
        let told = self.tables.data_path.await_no_more(local, spi);
        self.complain(told, "The XDP program goes on waiting for an SA");
    }

    fn complain(&self, outcome: Result<(), BpfError>, what: &str) {
        if let Err(error) = outcome
            && self.tables.complaints.take(clock::now())
        {
            warn!(%error, "{what}");
        }
    }
}

/// `underlays`: each with whether XDP sees what comes by it.
fn dropping(to_drop: UnknownEsp, underlays: &[(&str, bool)]) -> Feature {
    let detail = match to_drop {
        UnknownEsp { bare: true, .. } => "",
        UnknownEsp { in_udp: true, .. } => "in UDP only, since others have SAs in this kernel",
        UnknownEsp { .. } => "drop-unknown-esp = false",
    };
    by_xdp(DROPPING, to_drop.in_udp, detail, underlays)
}

fn spreading(steering: Result<usize, NotSteered>, underlays: &[(&str, bool)]) -> Feature {
    let detail =
        steering.as_ref().map_or_else(ToString::to_string, |cpus| format!("over {cpus} CPUs"));
    by_xdp(SPREADING, steering.is_ok(), &detail, underlays)
}

/// What XDP does if it is `wanted`.
fn by_xdp(name: &str, wanted: bool, detail: &str, underlays: &[(&str, bool)]) -> Feature {
    let without: Vec<_> = underlays.iter().filter(|(_, has_xdp)| !has_xdp).collect();
    let available = wanted && without.len() < underlays.len();
    let where_not = match without.as_slice() {
        _ if !wanted => String::new(),
        [] if underlays.is_empty() => "no underlay is there".to_owned(),
        [] => String::new(),
        without => {
            let names: Vec<_> = without.iter().map(|(name, _)| *name).collect();
            format!("left to the kernel where there is no XDP: {}", names.join(", "))
        }
    };
    let details = [detail, &where_not].into_iter().filter(|detail| !detail.is_empty());
    let detail = details.collect::<Vec<_>>().join("; ");
    Feature { name: name.to_owned(), available, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_the_underlays_where_nothing_drops_it() {
        let all = UnknownEsp { bare: true, in_udp: true };
        let in_udp = UnknownEsp { bare: false, in_udp: true };
        for (to_drop, underlays, available, detail) in [
            (all, &[("eth0", true), ("eth1", true)][..], true, ""),
            (
                all,
                &[("eth0", true), ("ppp0", false)],
                true,
                "left to the kernel where there is no XDP: ppp0",
            ),
            (all, &[("ppp0", false)], false, "left to the kernel where there is no XDP: ppp0"),
            (all, &[], false, "no underlay is there"),
            (
                in_udp,
                &[("eth0", true), ("ppp0", false), ("tun0", false)],
                true,
                "in UDP only, since others have SAs in this kernel; left to the kernel where \
                 there is no XDP: ppp0, tun0",
            ),
            (
                UnknownEsp::default(),
                &[("eth0", true), ("ppp0", false)],
                false,
                "drop-unknown-esp = false",
            ),
        ] {
            let found = dropping(to_drop, underlays);
            assert_eq!((found.available, found.detail.as_str()), (available, detail));
        }
    }
    #[test]
    fn status_names_the_underlays_where_nothing_spreads_it() {
        let with_ppp = &[("eth0", true), ("ppp0", false)];
        let found = spreading(Ok(4), with_ppp);
        let detail = "over 4 CPUs; left to the kernel where there is no XDP: ppp0";
        assert_eq!((found.available, found.detail.as_str()), (true, detail));
        assert!(!spreading(Ok(4), &[("ppp0", false)]).available);
        let found = spreading(Err(NotSteered::NotWanted), with_ppp);
        assert_eq!((found.available, found.detail.as_str()), (false, "steer-cpus = false"));
    }
}
