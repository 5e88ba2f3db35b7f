//! The report of the running gateway as OpenMetrics text.
//!
//! INVARIANT: the labels are the names of counters and what the policy files name. Nothing that a
//! peer says or chooses makes a series.

use core::fmt;
use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::control::{
    IkeSaReport, InterfaceReport, KernelReport, PoliciesReport, ReloadReport, RuleReport,
    StatusReport,
};

/// Writes all metrics.
///
/// # Errors
/// A value is too large for its type.
pub(super) fn encode(report: StatusReport) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("gateway");
    registry.register_collector(Box::new(Metrics(report)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Metrics(StatusReport);

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Without `..`: what the report comes to have is decided about here.
        let StatusReport {
            version,
            pid: _,
            uptime_seconds,
            shutting_down,
            policies,
            kernel,
            half_open,
            ike_sas,
            // The counter `child_sa_use_unknown`; and nothing is asked for here.
            use_problem: _,
            rules,
            // The counters `refused_CAUSE` count them.
            refusals: _,
            counters,
            bpf_counters,
            xfrm_errors,
        } = &self.0;
        let mut writer = Writer(encoder);
        let KernelReport { release, interfaces, capabilities: _ } = kernel;
        writer.info(
            "build",
            "The program and the kernel",
            [("version", version), ("kernel", release)],
        )?;
        let seconds = Some(Unit::Seconds);
        writer.gauge("uptime", "Time since the start", seconds.as_ref(), *uptime_seconds)?;
        let help = "Whether the gateway is deleting its SAs in order to end";
        writer.gauge("shutting_down", help, None, u64::from(*shutting_down))?;
        writer.policies(policies)?;
        writer.interfaces(interfaces)?;
        let help = "IKE SAs whose peer is not authenticated yet";
        writer.gauge("half_open_ike_sas", help, None, number(*half_open))?;
        writer.ike_sas(ike_sas)?;
        writer.rules(rules)?;
        writer.counters("events", "What happened in the daemon", "event", counters)?;
        let help = "Packets that the eBPF programs decided about";
        writer.counters("bpf_packets", help, "reason", bpf_counters)?;
        let help = "Errors of the kernel's XFRM, as in /proc/net/xfrm_stat";
        writer.counters("xfrm_errors", help, "error", xfrm_errors)
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn policies(&mut self, report: &PoliciesReport) -> fmt::Result {
        let PoliciesReport { directory: _, generation, applied_at, reload_failed, last_reload } =
            report;
        let seconds = Some(Unit::Seconds);
        let help = "How often policies were applied since the start";
        self.gauge("policy_generation", help, None, *generation)?;
        let help = "When the policies in force were applied, since 1970";
        self.gauge("policy_applied_timestamp", help, seconds.as_ref(), *applied_at)?;
        self.counter("policy_reload_failures", "Reloads that failed", *reload_failed)?;
        let none = ReloadReport { ok: true, ..ReloadReport::default() };
        let ReloadReport { at, ok: _, errors, first_error: _, needs_restart } =
            last_reload.as_ref().unwrap_or(&none);
        let help = "When the last reload was, since 1970; 0: there was none";
        self.gauge("policy_last_reload_timestamp", help, seconds.as_ref(), *at)?;
        let help = "Errors of the last reload; 0: it succeeded, or there was none";
        self.gauge("policy_last_reload_errors", help, None, number(*errors))?;
        let help = "Changed settings that wait for a restart";
        self.gauge("policy_settings_waiting", help, None, number(needs_restart.len()))
    }

    fn interfaces(&mut self, reports: &[InterfaceReport]) -> fmt::Result {
        let help = "Whether an interface is there and nothing is wrong with it";
        let mut metric =
            self.0.encode_descriptor("interface_ready", help, None, MetricType::Gauge)?;
        for InterfaceReport { name, role, index, programs: _, problem } in reports {
            let ready = index.is_some() && problem.is_none();
            let labels = [("interface", name.as_str()), ("role", role)];
            metric.encode_family(&labels)?.encode_gauge(&u64::from(ready))?;
        }
        Ok(())
    }

    /// By the names of peers and states, of which there are as many as the policy files and the
    /// protocol have. What belongs to one SA is in `gateway status`.
    fn ike_sas(&mut self, reports: &[IkeSaReport]) -> fmt::Result {
        let mut counts = BTreeMap::<_, u64>::new();
        for sa in reports {
            let count = counts.entry((sa.peer.as_deref().unwrap_or(""), sa.state.as_str()));
            let count = count.or_default();
            *count = count.saturating_add(1);
        }
        let help = "IKE SAs; without a peer: of nobody who is authenticated";
        let mut metric = self.0.encode_descriptor("ike_sas", help, None, MetricType::Gauge)?;
        for ((peer, state), count) in counts {
            metric.encode_family(&[("peer", peer), ("state", state)])?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn rules(&mut self, reports: &[RuleReport]) -> fmt::Result {
        let help = "Child SAs that serve a rule";
        let mut metric =
            self.0.encode_descriptor("rule_child_sas", help, None, MetricType::Gauge)?;
        for rule in reports {
            metric.encode_family(&labels(rule))?.encode_gauge(&number(rule.children))?;
        }
        let help = "Clear packets on their way out that a rule selected";
        let packets = |rule: &RuleReport| rule.packets_out;
        self.rule_counters("rule_selected_packets", help, reports, packets)?;
        let help = "Packets on their way in that were dropped because of a rule";
        let packets = |rule: &RuleReport| rule.packets_refused;
        self.rule_counters("rule_refused_packets", help, reports, packets)
    }

    fn rule_counters(
        &mut self,
        name: &str,
        help: &str,
        reports: &[RuleReport],
        value: impl Fn(&RuleReport) -> u64,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for rule in reports {
            let labels = labels(rule);
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value(rule), None)?;
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, labels: [(&str, &String); 2]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// One series for each name.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &BTreeMap<String, u64>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            let labels = [(label, of.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }
}

fn labels(rule: &RuleReport) -> [(&str, &str); 2] {
    [("rule", &rule.name), ("action", &rule.action)]
}

/// A length, which is never more than memory has octets.
fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
