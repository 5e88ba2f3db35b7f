//! `gateway status` for people.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};

use super::{
    CandidateReport, ChildReport, IkeSaReport, InterfaceReport, PoliciesReport, RefusalReport,
    RuleReport, StatusReport,
};

/// Refusals that the table shows.
const MOST_REFUSALS: usize = 20;

/// The whole report as text, with one table for each kind of thing.
#[must_use]
pub fn render(report: &StatusReport) -> String {
    let children = report.ike_sas.iter().map(|sa| sa.children.len()).sum::<usize>();
    let ending = if report.shutting_down { ", shutting down" } else { "" };
    let unknown = report
        .use_problem
        .as_ref()
        .map_or_else(String::new, |problem| format!(" (traffic is unknown: {problem})"));
    let mut text = format!(
        "gateway {}, pid {}, up {}{ending}\n{}\nKernel {}\n",
        report.version,
        report.pid,
        duration(report.uptime_seconds),
        policies(&report.policies),
        report.kernel.release,
    );
    let counts = [
        format!("IKE SAs: {} ({} half open)", report.ike_sas.len(), report.half_open),
        format!("Child SAs: {children}{unknown}"),
        format!("Rules: {}", report.rules.len()),
        format!("Refusals of late: {}", report.refusals.len()),
        format!("Interfaces: {}", report.kernel.interfaces.len()),
    ];
    let tables = [
        ike_sas(&report.ike_sas),
        child_sas(&report.ike_sas),
        rules(&report.rules),
        refusals(&report.refusals),
        interfaces(&report.kernel.interfaces),
    ];
    for (title, table) in counts.into_iter().zip(tables) {
        section(&mut text, &title, &table);
    }
    for (title, values) in [
        ("Counters", &report.counters),
        ("eBPF counters", &report.bpf_counters),
        ("XFRM errors of the kernel", &report.xfrm_errors),
    ] {
        section(&mut text, title, &counters(values));
    }
    let mut capabilities = table(&["capability", "found"]);
    for capability in &report.kernel.capabilities {
        capabilities.add_row([&capability.name, &capability.value]);
    }
    section(&mut text, "Kernel capabilities", &capabilities);
    text
}

fn section(text: &mut String, title: &str, table: &Table) {
    text.push('\n');
    text.push_str(title);
    if table.is_empty() && !title.contains(':') {
        text.push_str(": none");
    }
    text.push('\n');
    if !table.is_empty() {
        text.push_str(&table.to_string());
        text.push('\n');
    }
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns);
    table
}

fn policies(policies: &PoliciesReport) -> String {
    let mut text = format!("Policies: {}, generation {}", policies.directory, policies.generation);
    if policies.reload_failed > 0 {
        text.push_str(&format!(", {} failed reloads", policies.reload_failed));
    }
    if let Some(reload) = &policies.last_reload {
        if let Some(error) = &reload.first_error {
            let more = reload.errors.saturating_sub(1);
            text.push_str(&format!("\nThe last reload failed and changed nothing: {error}"));
            if more > 0 {
                text.push_str(&format!(" (and {more} more)"));
            }
        }
        if !reload.needs_restart.is_empty() {
            let settings = reload.needs_restart.join(", ");
            text.push_str(&format!("\nChanged settings that wait for a restart: {settings}"));
        }
    }
    text
}

fn ike_sas(sas: &[IkeSaReport]) -> Table {
    let mut table = table(&[
        "id",
        "peer",
        "state",
        "local",
        "remote",
        "authentication",
        "NAT",
        "SPIs",
        "suite",
        "age",
    ]);
    for sa in sas {
        let nat = match (sa.nat_local, sa.nat_remote) {
            (false, false) => "no",
            (true, false) => "here",
            (false, true) => "there",
            (true, true) => "both",
        };
        let role = if sa.initiator { "initiator" } else { "responder" };
        table.add_row([
            sa.id.to_string(),
            sa.peer.clone().unwrap_or_else(|| "?".to_owned()),
            format!("{}\n{role}", sa.state),
            local(sa),
            remote(sa),
            authentication(sa),
            nat.to_owned(),
            format!("{}\n{}", sa.initiator_spi, sa.responder_spi),
            format!(
                "{}{}{}{}",
                sa.suite.as_deref().unwrap_or(""),
                match sa.quantum_safe {
                    Some(true) => "\nquantum-safe",
                    Some(false) => "\nnot quantum-safe",
                    None => "",
                },
                if sa.fragmentation { "\nfragmentation" } else { "" },
                if sa.mobike.is_some() { "\nMOBIKE" } else { "" }
            ),
            duration(sa.age_seconds),
        ]);
    }
    table
}

/// Where we are, who we are, and what the peer has assigned to us.
fn local(sa: &IkeSaReport) -> String {
    let mut text = format!("{}\n{}", sa.local, sa.local_id.as_deref().unwrap_or(""));
    for address in &sa.own_addresses {
        text.push_str(&format!("\nassigned {address}"));
    }
    for server in &sa.dns {
        text.push_str(&format!("\nname server {server}"));
    }
    text
}

/// Where the peer is, who it is, and which addresses it has been given.
fn remote(sa: &IkeSaReport) -> String {
    let mut text = format!("{}\n{}", sa.remote, sa.remote_id.as_deref().unwrap_or(""));
    if let Some(user) = &sa.user {
        text.push_str(&format!("\nuser {user}"));
    }
    for address in sa.mobike.iter().flatten() {
        text.push_str(&format!("\nalso {address}"));
    }
    for address in &sa.assigned {
        text.push_str(&format!("\ngiven {address}"));
    }
    text
}

/// Ours, the peer's, and what its certificate says.
fn authentication(sa: &IkeSaReport) -> String {
    let word = |method: &Option<String>| method.clone().unwrap_or_else(|| "?".to_owned());
    let mut text = format!("{}\n{}", word(&sa.local_auth), word(&sa.remote_auth));
    if let Some(certificate) = &sa.certificate {
        text.push_str(&format!("\n{}\nuntil {}", certificate.subject, certificate.not_after));
    }
    text
}

fn child_sas(sas: &[IkeSaReport]) -> Table {
    let mut table =
        table(&["rule", "IKE SA", "state", "selectors", "SPIs", "suite", "traffic", "age"]);
    for (sa, child) in sas.iter().flat_map(|sa| sa.children.iter().map(move |child| (sa, child))) {
        let pfs = child.key_exchange.as_ref().map_or_else(String::new, |name| format!("-{name}"));
        let udp = child.encapsulation.map_or("", |_| ", in UDP");
        table.add_row([
            child.rule.clone(),
            sa.id.to_string(),
            child.state.clone(),
            child.selectors.join("\n"),
            format!("in  {}\nout {}", child.inbound_spi, child.outbound_spi),
            format!("{}{pfs}\n{}{udp}", child.suite, child.mode),
            traffic(child),
            duration(child.age_seconds),
        ]);
    }
    table
}

fn traffic(child: &ChildReport) -> String {
    let line = |bytes: Option<u64>, packets: Option<u64>| match (bytes, packets) {
        (Some(bytes), Some(packets)) => format!("{}, {packets} packets", octets(bytes)),
        _ => "unknown".to_owned(),
    };
    format!(
        "in  {}\nout {}",
        line(child.bytes_in, child.packets_in),
        line(child.bytes_out, child.packets_out)
    )
}

fn rules(rules: &[RuleReport]) -> Table {
    let mut table =
        table(&["rule", "action", "reqid", "Child SAs", "packets out", "refused in", "last error"]);
    for rule in rules {
        table.add_row([
            rule.name.clone(),
            rule.action.clone(),
            rule.reqid.map(|r| r.to_string()).unwrap_or_default(),
            rule.children.to_string(),
            rule.packets_out.to_string(),
            rule.packets_refused.to_string(),
            rule.last_error.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// The latest refusals, of each what does not fit of what is nearest.
fn refusals(refusals: &[RefusalReport]) -> Table {
    let mut table =
        table(&["refused", "who", "times", "last", "nearest", "field", "ours", "theirs"]);
    for refusal in refusals.iter().take(MOST_REFUSALS) {
        let by = refusal.said_by_peer.as_ref().map_or("", |_| "\nby the peer");
        let nearest = refusal.candidates.first();
        let name = |c: &CandidateReport| {
            let rule = c.rule.iter().map(|rule| format!("rule {rule}"));
            let peer = c.peer.iter().map(|peer| format!("peer {peer}"));
            let proposal = c.proposal.iter().map(|number| format!("proposal {number}"));
            peer.chain(rule).chain(proposal).collect::<Vec<_>>().join("\n")
        };
        let fields = nearest.iter().flat_map(|c| &c.fields).filter(|f| f.fits != Some(true));
        let list = |values: &[String]| match values {
            [] => "-".to_owned(),
            values => values.join(" "),
        };
        let rows: Vec<_> =
            fields.map(|f| (f.name.clone(), list(&f.ours), list(&f.theirs))).collect();
        let column = |of: fn(&(String, String, String)) -> &str| {
            rows.iter().map(of).collect::<Vec<_>>().join("\n")
        };
        table.add_row([
            format!("{}{by}", refusal.cause),
            refusal.peer.clone().or_else(|| refusal.remote.clone()).unwrap_or_default(),
            refusal.times.to_string(),
            time(refusal.last_at),
            nearest.map(name).unwrap_or_default(),
            column(|(field, _, _)| field),
            column(|(_, ours, _)| ours),
            column(|(_, _, theirs)| theirs),
        ]);
    }
    table
}

fn interfaces(interfaces: &[InterfaceReport]) -> Table {
    let mut table = table(&["interface", "role", "index", "eBPF programs", "problem"]);
    for interface in interfaces {
        table.add_row([
            interface.name.clone(),
            interface.role.clone(),
            interface.index.map(|index| index.to_string()).unwrap_or_default(),
            interface.programs.clone().unwrap_or_default(),
            interface.problem.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Counters that are not zero.
fn counters(values: &BTreeMap<String, u64>) -> Table {
    let mut table = table(&["counter", "value"]);
    for (name, value) in values.iter().filter(|(_, value)| **value > 0) {
        table.add_row([name.clone(), value.to_string()]);
    }
    table
}

/// A time of day in UTC, from seconds since 1970.
fn time(seconds: u64) -> String {
    let part = |unit: u64, modulus: u64| {
        seconds.checked_div(unit).and_then(|n| n.checked_rem(modulus)).unwrap_or(0)
    };
    format!("{:02}:{:02}:{:02} UTC", part(3600, 24), part(60, 60), part(1, 60))
}

/// A span of time in its two largest units: `2d 3h`, `5m 7s`.
fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut text = String::new();
    let mut shown = 0_u8;
    for (length, unit) in UNITS {
        let count = rest.checked_div(length).unwrap_or(0);
        rest = rest.checked_rem(length).unwrap_or(0);
        if count == 0 && shown == 0 && unit != "s" {
            continue;
        }
        if shown < 2 {
            let space = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{space}{count}{unit}"));
        }
        shown = shown.saturating_add(1);
    }
    text
}

/// Octets with a binary unit, to one decimal.
fn octets(count: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in UNITS {
        let tenths = u128::from(count).saturating_mul(10) >> shift;
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths.div_euclid(10), tenths.rem_euclid(10));
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_661, "1h 1m"), (200_000, "2d 7h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn octets_have_binary_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(octets(count), text);
        }
    }

    #[test]
    fn the_tables_show_what_matters() {
        let report = StatusReport {
            version: "1.2.3".to_owned(),
            policies: PoliciesReport {
                directory: "/etc/gateway".to_owned(),
                generation: 4,
                reload_failed: 1,
                last_reload: Some(super::super::ReloadReport {
                    errors: 2,
                    first_error: Some("a.toml:1:2: bad".to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ike_sas: vec![IkeSaReport {
                id: 7,
                peer: Some("berlin".to_owned()),
                own_addresses: vec!["10.9.0.1".to_owned()],
                dns: vec!["10.9.0.53".to_owned()],
                local_auth: Some("psk".to_owned()),
                remote_auth: Some("ed25519".to_owned()),
                certificate: Some(super::super::CertificateReport {
                    subject: "CN=berlin".to_owned(),
                    not_after: "2030-01-01T00:00:00Z".to_owned(),
                }),
                children: vec![ChildReport {
                    rule: "to-berlin".to_owned(),
                    inbound_spi: "c0ffee00".to_owned(),
                    bytes_in: Some(2048),
                    packets_in: Some(3),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            refusals: vec![RefusalReport {
                cause: "proposal_prf".to_owned(),
                remote: Some("192.0.2.7:500".to_owned()),
                times: 17,
                last_at: 3_661,
                candidates: vec![CandidateReport {
                    peer: Some("munich".to_owned()),
                    proposal: Some(2),
                    fields: vec![super::super::FieldReport {
                        name: "prf".to_owned(),
                        theirs: vec!["PRF_HMAC_SHA1".to_owned()],
                        fits: Some(false),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            use_problem: Some("the kernel is silent".to_owned()),
            counters: BTreeMap::from([("seen".to_owned(), 5), ("unseen".to_owned(), 0)]),
            kernel: super::super::KernelReport {
                interfaces: vec![InterfaceReport {
                    name: "eth0".to_owned(),
                    role: "underlay".to_owned(),
                    problem: Some("there is no such interface".to_owned()),
                    ..Default::default()
                }],
                ..Default::default()
            },
            ..Default::default()
        };
        let text = render(&report);
        for expected in [
            "gateway 1.2.3",
            "generation 4, 1 failed reloads",
            "The last reload failed and changed nothing: a.toml:1:2: bad (and 1 more)",
            "berlin",
            "to-berlin",
            "assigned 10.9.0.1",
            "name server 10.9.0.53",
            "ed25519",
            "CN=berlin",
            "until 2030",
            "c0ffee00",
            "2.0 KiB, 3 packets",
            "Child SAs: 1 (traffic is unknown: the kernel is silent)",
            "out unknown",
            "seen",
            "eth0",
            "there is no such interface",
            "Refusals of late: 1",
            "proposal_prf",
            "192.0.2.7:500",
            "peer munich",
            "PRF_HMAC_SHA1",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("unseen"), "{text}");
    }
}
