//! `gateway mtu`: how large a packet may be that a Child SA takes, as a sum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The parts of the overhead in the order of the packet: their names in JSON and for people.
const PARTS: [(&str, &str); 7] = [
    ("outer_ip", "outer IP header"),
    ("udp", "UDP header"),
    ("esp_header", "SPI and sequence number"),
    ("iv", "IV"),
    ("trailer", "pad length and next header"),
    ("icv", "ICV"),
    ("left", "octets that do not fill a block"),
];

/// How large a packet may be that a Child SA takes, and why. The names of the fields are an
/// interface, as those of [`StatusReport`](super::StatusReport) are. All sizes are octets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuReport {
    /// Our number of the Child SA.
    pub id: u64,
    /// The rule that it serves.
    pub rule: String,
    /// The peer's name.
    pub peer: Option<String>,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// The algorithms.
    pub suite: String,
    /// The SPI of what goes out, 8 hexadecimal digits.
    pub outbound_spi: String,
    /// The interface by which the peer is reached now.
    pub underlay: Option<String>,
    /// Its MTU.
    pub underlay_mtu: Option<u32>,
    /// What the Child SA adds to the largest packet that fits, by part: `outer_ip` (0 in transport mode),
    /// `udp` (0 without encapsulation), `esp_header`, `iv`, `trailer`, `icv`; and `left`, what is over
    /// because encryption is by blocks.
    pub overhead: BTreeMap<String, u32>,
    /// All of that together.
    pub overhead_total: Option<u32>,
    /// The largest packet before encryption that fits, which is the MTU of the routes to what is
    /// protected. On a small underlay it is what IPv6 needs, 1280, and outer packets are fragmented.
    pub mtu: Option<u32>,
    /// The most of TCP in one packet over IPv4.
    pub mss_v4: Option<u32>,
    /// The same over IPv6.
    pub mss_v6: Option<u32>,
    /// Why there is no sum.
    pub problem: Option<String>,
}

/// The sums for people.
#[must_use]
pub fn render_mtu(reports: &[MtuReport]) -> String {
    if reports.is_empty() {
        return "there is no Child SA\n".to_owned();
    }
    reports.iter().map(sum).collect::<Vec<_>>().join("\n")
}

fn sum(report: &MtuReport) -> String {
    let peer = report.peer.as_deref().unwrap_or("?");
    let mut text = format!(
        "Child SA {} of rule {} with {peer}: {}, {}\n",
        report.outbound_spi, report.rule, report.mode, report.suite
    );
    if let Some(problem) = &report.problem {
        text.push_str(&format!("  no sum: {problem}\n"));
        return text;
    }
    let mut line = |sign: &str, what: &str, octets: Option<u32>| {
        let octets = octets.map_or_else(|| "?".to_owned(), |octets| octets.to_string());
        text.push_str(&format!("  {sign:1} {what:<46}{octets:>6}\n"));
    };
    let underlay = report.underlay.as_deref().unwrap_or("?");
    line("", &format!("MTU of {underlay}"), report.underlay_mtu);
    for (name, words) in PARTS {
        if let Some(octets) = report.overhead.get(name).filter(|octets| **octets > 0) {
            line("-", words, Some(*octets));
        }
    }
    let rest = report.underlay_mtu.zip(report.overhead_total);
    let rest = rest.map(|(mtu, overhead)| mtu.saturating_sub(overhead));
    if rest == report.mtu {
        line("=", "largest packet before encryption", report.mtu);
    } else {
        line("=", "what is left", rest);
        line("", "largest packet, which outer fragments carry", report.mtu);
    }
    line("", "TCP MSS over IPv4", report.mss_v4);
    line("", "TCP MSS over IPv6", report.mss_v6);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(underlay_mtu: u32, mtu: u32) -> MtuReport {
        let parts = [20, 8, 8, 8, 2, 16, 0];
        let overhead =
            PARTS.iter().zip(parts).map(|((name, _), octets)| ((*name).to_owned(), octets));
        MtuReport {
            id: 3,
            rule: "to-b".to_owned(),
            peer: Some("b".to_owned()),
            mode: "tunnel".to_owned(),
            suite: "aes256gcm16-esn".to_owned(),
            outbound_spi: "c0ffee00".to_owned(),
            underlay: Some("eth0".to_owned()),
            underlay_mtu: Some(underlay_mtu),
            overhead: overhead.collect(),
            overhead_total: Some(62),
            mtu: Some(mtu),
            mss_v4: Some(mtu.saturating_sub(40)),
            mss_v6: Some(mtu.saturating_sub(60)),
            problem: None,
        }
    }

    #[test]
    fn the_sum_is_shown_line_by_line() {
        let expected = "\
Child SA c0ffee00 of rule to-b with b: tunnel, aes256gcm16-esn
    MTU of eth0                                     1500
  - outer IP header                                   20
  - UDP header                                         8
  - SPI and sequence number                            8
  - IV                                                 8
  - pad length and next header                         2
  - ICV                                               16
  = largest packet before encryption                1438
    TCP MSS over IPv4                               1398
    TCP MSS over IPv6                               1378
";
        assert_eq!(render_mtu(&[report(1500, 1438)]), expected);
    }

    #[test]
    fn what_is_less_than_ipv6_needs_is_told() {
        let text = render_mtu(&[report(1300, 1280)]);
        assert!(text.contains("what is left                                    1238\n"), "{text}");
        assert!(text.contains("which outer fragments carry     1280\n"), "{text}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert_eq!(render_mtu(&[]), "there is no Child SA\n");
        let problem = Some("no way there".to_owned());
        let without = MtuReport { problem, ..report(1500, 1438) };
        assert!(render_mtu(&[without]).ends_with("\n  no sum: no way there\n"));
    }

    #[test]
    fn the_report_keeps_the_names_of_its_fields() {
        let value = serde_json::to_value(report(1500, 1438)).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys.join(" "),
            "id mode mss_v4 mss_v6 mtu outbound_spi overhead overhead_total peer problem rule suite underlay underlay_mtu"
        );
        let parts: Vec<_> = value["overhead"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(parts, ["esp_header", "icv", "iv", "left", "outer_ip", "trailer", "udp"]);
    }
}
