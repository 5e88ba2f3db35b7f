//! The report for `gateway status`, from the endpoint's snapshot and the kernel.

use std::collections::BTreeMap;
use std::fs;

use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, ChildUse};
use gateway_ike::status::{ChildStatus, IkeSaStatus, RuleStatus, Status};

use super::seam::{Kernel, RulePackets};
use crate::control::{
    CertificateReport, ChildReport, IkeSaReport, MtuReport, NamedRule, NamedSa, NamesReport,
    RuleReport,
};

/// What a report says of what has passed through each Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// What the kernel has counted.
    Asked,
    /// Nothing, for which the kernel need not be asked.
    LeftOut,
}

/// Child SAs of which one answer says how large their packets may be: the kernel is asked for the
/// way to the peer of each, during which the loop waits.
const MTU_LIMIT: usize = 1000;

/// The IKE SAs with their Child SAs, and what has passed through these.
pub(super) fn ike_sas(sas: &[IkeSaStatus], uses: &BTreeMap<ChildId, ChildUse>) -> Vec<IkeSaReport> {
    let report = sas.iter().map(|sa| {
        let children = sa.children.iter().map(|child| {
            let used = uses.get(&child.id);
            ChildReport {
                bytes_in: used.map(|used| used.bytes_in),
                bytes_out: used.map(|used| used.bytes_out),
                packets_in: used.map(|used| used.packets_in),
                packets_out: used.map(|used| used.packets_out),
                idle_seconds: used.and_then(|used| used.idle_inbound).map(|idle| idle.as_secs()),
                ..child_report(child)
            }
        });
        IkeSaReport { children: children.collect(), ..ike_sa_report(sa) }
    });
    report.collect()
}

/// How large a packet may be that each Child SA takes, and why.
pub(super) async fn mtus(sas: Vec<IkeSaStatus>, kernel: &impl Kernel) -> Vec<MtuReport> {
    let mut reports = Vec::new();
    let children = sas.iter().flat_map(|sa| sa.children.iter().map(move |child| (sa, child)));
    for (sa, child) in children.take(MTU_LIMIT) {
        let found = kernel.child_mtu(child.id).await;
        let ChildReport { id, rule, mode, suite, outbound_spi, .. } = child_report(child);
        let peer = sa.peer.as_deref().map(str::to_owned);
        let report =
            MtuReport { id, rule, peer, mode, suite, outbound_spi, ..MtuReport::default() };
        reports.push(match found {
            Err(problem) => MtuReport { problem: Some(problem), ..report },
            Ok(found) => {
                let part = |(name, octets): (&str, u32)| (name.to_owned(), octets);
                let overhead = found.overhead;
                MtuReport {
                    underlay: Some(found.underlay),
                    underlay_mtu: Some(found.underlay_mtu),
                    overhead: [
                        ("outer_ip", overhead.outer_ip),
                        ("udp", overhead.udp),
                        ("esp_header", overhead.esp_header),
                        ("iv", overhead.iv),
                        ("trailer", overhead.trailer),
                        ("icv", overhead.icv),
                        ("left", found.left),
                    ]
                    .map(part)
                    .into(),
                    overhead_total: Some(overhead.total().saturating_add(found.left)),
                    mtu: Some(found.mtu),
                    // Without options: an IP header and one of TCP.
                    mss_v4: Some(found.mtu.saturating_sub(20 + 20)),
                    mss_v6: Some(found.mtu.saturating_sub(40 + 20)),
                    ..report
                }
            }
        });
    }
    reports
}

/// What the eBPF programs have numbers for, with the numbers of the rules.
pub(super) fn names(snapshot: Status, ids: &BTreeMap<String, u32>, if_id: u32) -> NamesReport {
    let rules = snapshot.rules.into_iter().filter_map(|rule| {
        let name = rule.name.to_string();
        let id = *ids.get(&name)?;
        Some(NamedRule { id, name, peer: rule.peer.map(|peer| peer.to_string()) })
    });
    let children = snapshot.ike_sas.iter().flat_map(|sa| sa.children.iter().map(move |c| (sa, c)));
    let sas = children.flat_map(|(sa, child)| {
        [child.inbound_spi, child.outbound_spi].map(|spi| NamedSa {
            spi,
            rule: child.rule.to_string(),
            peer: sa.peer.as_deref().map(str::to_owned),
        })
    });
    NamesReport { if_id, rules: rules.collect(), sas: sas.collect() }
}

fn ike_sa_report(sa: &IkeSaStatus) -> IkeSaReport {
    IkeSaReport {
        id: sa.id.0,
        peer: sa.peer.as_deref().map(str::to_owned),
        state: sa.state.to_owned(),
        initiator: sa.initiator,
        initiator_spi: sa.initiator_spi.to_string(),
        responder_spi: sa.responder_spi.to_string(),
        local: sa.path.local.to_string(),
        remote: sa.path.remote.to_string(),
        local_id: sa.local_id.as_ref().map(ToString::to_string),
        remote_id: sa.remote_id.as_ref().map(ToString::to_string),
        local_auth: sa.local_auth.map(str::to_owned),
        remote_auth: sa.remote_auth.as_ref().map(|p| p.method()),
        certificate: sa.remote_auth.as_ref().and_then(|p| p.certificate.as_ref()).map(|c| {
            CertificateReport { subject: c.subject.to_string(), not_after: c.not_after.to_string() }
        }),
        user: sa.user.as_deref().map(str::to_owned),
        suite: sa.suite.as_ref().map(ToString::to_string),
        quantum_safe: sa.quantum_safe,
        nat_local: sa.nat_local,
        nat_remote: sa.nat_remote,
        fragmentation: sa.fragmentation,
        mobike: sa.mobike.as_ref().map(|others| others.iter().map(ToString::to_string).collect()),
        assigned: sa.assigned.iter().map(ToString::to_string).collect(),
        own_addresses: sa.own_addresses.iter().map(ToString::to_string).collect(),
        dns: sa.dns.iter().map(ToString::to_string).collect(),
        age_seconds: sa.age.as_secs(),
        children: Vec::new(),
    }
}

fn child_report(child: &ChildStatus) -> ChildReport {
    ChildReport {
        id: child.id.0,
        rule: child.rule.to_string(),
        state: child.state.to_owned(),
        mode: match child.mode {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
        }
        .to_owned(),
        inbound_spi: format!("{:08x}", child.inbound_spi),
        outbound_spi: format!("{:08x}", child.outbound_spi),
        suite: child.suite.to_string(),
        key_exchange: child.key_exchange.map(|group| group.to_string()),
        quantum_safe: child.quantum_safe,
        selectors: child.selectors.iter().map(ToString::to_string).collect(),
        encapsulation: child.encapsulation.map(|e| (e.local_port, e.remote_port)),
        age_seconds: child.age.as_secs(),
        ..ChildReport::default()
    }
}

/// The rules, with what the eBPF programs counted for each.
pub(super) fn rules(
    rules: Vec<RuleStatus>,
    packets: &BTreeMap<String, RulePackets>,
) -> Vec<RuleReport> {
    let report = rules.into_iter().map(|rule| {
        let packets = packets.get(&*rule.name).copied().unwrap_or_default();
        RuleReport {
            name: rule.name.to_string(),
            action: rule.action.to_owned(),
            reqid: rule.reqid,
            children: rule.children,
            packets_out: packets.outbound,
            packets_refused: packets.refused,
            last_error: rule.last_error,
        }
    });
    report.collect()
}

/// The kernel's release, or nothing where /proc is not there.
pub(super) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::new(), |s| s.trim().to_owned())
}

/// The counters of `/proc/net/xfrm_stat`.
pub(super) fn xfrm_errors() -> BTreeMap<String, u64> {
    fs::read_to_string("/proc/thread-self/net/xfrm_stat")
        .map_or_else(|_| BTreeMap::new(), |s| table_of(&s))
}

fn table_of(table: &str) -> BTreeMap<String, u64> {
    table
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_counter_is_left_out() {
        let table = "XfrmInError             \t0\nXfrmInNoStates          \t17\nbroken\nX \tx\n";
        let counters = [("XfrmInError".to_owned(), 0), ("XfrmInNoStates".to_owned(), 17)];
        assert_eq!(table_of(table), BTreeMap::from(counters));
    }
}
