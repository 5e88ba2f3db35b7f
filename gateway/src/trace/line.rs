//! A decision as a line of text or of JSON.

use core::fmt;
use core::net::IpAddr;
use std::borrow::Cow;

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use gateway_common::{Hook, Verdict};
use nix::net::if_::if_indextoname;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::names::Names;
use crate::kernel::bpf::Decided;

/// What a line says. The names of the fields are an interface: they may be added to, and not
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// When, as in RFC 3339, in UTC.
    time: String,
    cpu: u32,
    interface: String,
    /// `xdp`, `ingress` or `egress`.
    hook: &'static str,
    /// `pass`, `drop`, `redirect` or `answer`.
    verdict: &'static str,
    /// The counter's name; `passed` for what is not counted.
    reason: &'static str,
    /// The rule's name, or its number where the gateway does not tell.
    rule: Option<String>,
    peer: Option<String>,
    /// 8 hexadecimal digits.
    spi: Option<String>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// By name where it has one here.
    protocol: Option<String>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    /// Whether it is a fragment.
    fragment: bool,
    /// Octets, with the link header.
    length: u32,
}

impl Line {
    pub(super) fn new(decided: &Decided, names: &Names) -> Self {
        let sa = decided.spi.and_then(|spi| names.sa(spi));
        let rule = decided
            .rule
            .map(|id| names.rule(id).map_or_else(|| format!("#{id:08x}"), str::to_owned));
        let peer = decided.rule.and_then(|id| names.peer(id));
        let peer = peer.or_else(|| sa.and_then(|sa| sa.peer.as_deref()));
        let seen = Seen::read(decided);
        Self {
            time: time(decided),
            cpu: decided.cpu,
            interface: interface(decided.interface),
            hook: match decided.hook {
                Hook::Xdp => "xdp",
                Hook::Ingress => "ingress",
                Hook::Egress => "egress",
                Hook::Postrouting => "postrouting",
                Hook::Prerouting => "prerouting",
            },
            verdict: match decided.verdict() {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
                Verdict::Redirect => "redirect",
                Verdict::Answer => "answer",
            },
            reason: decided.reason.map_or("passed", gateway_common::Reason::name),
            peer: peer.map(str::to_owned),
            rule: rule.or_else(|| sa.map(|sa| sa.rule.clone())),
            spi: decided.spi.map(|spi| format!("{spi:08x}")),
            source: seen.addresses.map(|(source, _)| source),
            destination: seen.addresses.map(|(_, destination)| destination),
            protocol: seen.protocol.map(|number| protocol(number).into_owned()),
            source_port: seen.ports.map(|(source, _)| source),
            destination_port: seen.ports.map(|(_, destination)| destination),
            fragment: seen.fragment,
            length: decided.length,
        }
    }

    /// The line in JSON.
    pub(super) fn json(&self) -> String {
        // Strings, numbers and options of these only: it cannot fail, and is empty if it did.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Why, for the comment on a packet in a file.
    pub(super) fn comment(&self) -> String {
        let mut text = format!("{} {} (CPU {})", self.verdict, self.reason, self.cpu);
        for (name, value) in [("rule", &self.rule), ("peer", &self.peer), ("SPI", &self.spi)] {
            if let Some(value) = value {
                text.push_str(&format!(", {name} {value}"));
            }
        }
        text
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu {} {} {}", self.time, self.cpu, self.interface, self.hook)?;
        write!(f, " {} {}", self.verdict, self.reason)?;
        for (name, value) in [("rule", &self.rule), ("peer", &self.peer), ("spi", &self.spi)] {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        if let (Some(source), Some(destination)) = (self.source, self.destination) {
            f.write_str(" ")?;
            end(f, source, self.source_port)?;
            f.write_str(" > ")?;
            end(f, destination, self.destination_port)?;
        }
        if let Some(protocol) = &self.protocol {
            write!(f, " {protocol}")?;
        }
        let fragment = if self.fragment { " fragment" } else { "" };
        write!(f, "{fragment} {} octets", self.length)
    }
}

fn end(f: &mut fmt::Formatter<'_>, address: IpAddr, port: Option<u16>) -> fmt::Result {
    match (address, port) {
        (address, None) => write!(f, "{address}"),
        (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
    }
}

/// What can be seen in a packet.
#[derive(Debug, Default)]
struct Seen {
    addresses: Option<(IpAddr, IpAddr)>,
    protocol: Option<IpNumber>,
    ports: Option<(u16, u16)>,
    fragment: bool,
}

impl Seen {
    fn read(decided: &Decided) -> Self {
        let packet = if decided.ethernet {
            LaxSlicedPacket::from_ethernet(&decided.packet).ok()
        } else {
            LaxSlicedPacket::from_ip(&decided.packet).ok()
        };
        let Some(packet) = packet else { return Self::default() };
        let ports = match &packet.transport {
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            _ => None,
        };
        let (addresses, payload) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let ends = (header.source_addr().into(), header.destination_addr().into());
                (Some(ends), Some(ip.payload()))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let ends = (header.source_addr().into(), header.destination_addr().into());
                (Some(ends), Some(ip.payload()))
            }
            Some(LaxNetSlice::Arp(_)) | None => (None, None),
        };
        Self {
            addresses,
            protocol: payload.map(|payload| payload.ip_number),
            ports,
            fragment: payload.is_some_and(|payload| payload.fragmented),
        }
    }
}

fn protocol(number: IpNumber) -> Cow<'static, str> {
    match number {
        IpNumber::TCP => "TCP".into(),
        IpNumber::UDP => "UDP".into(),
        IpNumber::ICMP => "ICMP".into(),
        IpNumber::IPV6_ICMP => "ICMPv6".into(),
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => "ESP".into(),
        IpNumber(other) => format!("protocol {other}").into(),
    }
}

/// The name of an interface, or its number once it is gone.
pub(super) fn interface(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("#{index}"))
}

fn time(decided: &Decided) -> String {
    let nanoseconds = i128::try_from(decided.at.as_nanos()).unwrap_or_default();
    // Microseconds, always, so that columns stay where they are.
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds);
    let at = at.ok().map(|at| (at.replace_nanosecond(0).ok(), at.microsecond()));
    match at {
        Some((Some(second), micros)) => {
            let text = second.format(&Rfc3339).unwrap_or_default();
            format!("{}.{micros:06}Z", text.trim_end_matches('Z'))
        }
        Some((None, _)) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use gateway_common::Reason;

    use super::*;

    fn decided(packet: Vec<u8>) -> Decided {
        Decided {
            at: Duration::new(1_700_000_000, 42_000),
            reason: Some(Reason::ClearInbound),
            cpu: 1,
            hook: Hook::Ingress,
            interface: 0,
            rule: Some(7),
            spi: None,
            length: 60,
            ethernet: false,
            packet,
        }
    }

    /// IPv4 from 10.2.0.5 to 10.1.0.9 of a protocol, with a payload of which 4 octets are there.
    fn ipv4(protocol: u8, fragment: [u8; 2], payload: [u8; 4]) -> Vec<u8> {
        let header = [0x45, 0, 0, 60, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0];
        [&header[..], &[10, 2, 0, 5], &[10, 1, 0, 9], &payload].concat()
    }

    #[test]
    fn a_line_says_who_what_and_why() {
        let udp = [&ipv4(17, [0, 0], [0x30, 0x39, 0, 53])[..], &[0, 40, 0, 0]].concat();
        let line = Line::new(&decided(udp), &Names::default());
        assert_eq!(
            line.to_string(),
            "2023-11-14T22:13:20.000042Z cpu 1 #0 ingress drop ingress_clear rule #00000007 \
             10.2.0.5:12345 > 10.1.0.9:53 UDP 60 octets"
        );
        let json: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(json.get("destination_port").unwrap(), 53);
        assert_eq!(json.get("reason").unwrap(), "ingress_clear");
        assert_eq!(line.comment(), "drop ingress_clear (CPU 1), rule #00000007");
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let names = Names::default();
        let fragment = Line::new(&decided(ipv4(17, [0x00, 0x10], [0; 4])), &names).to_string();
        assert!(fragment.ends_with("10.2.0.5 > 10.1.0.9 UDP fragment 60 octets"), "{fragment}");
        let whole = ipv4(6, [0, 0], [1; 4]);
        for length in 0..whole.len() {
            let packet = whole[..length].to_vec();
            for ethernet in [false, true] {
                let decided = Decided { ethernet, ..decided(packet.clone()) };
                let text = Line::new(&decided, &names).to_string();
                assert!(text.contains("ingress_clear") && text.ends_with("60 octets"), "{text}");
            }
        }
    }

    #[test]
    fn an_ipv6_end_with_a_port_is_in_brackets_and_esp_has_its_spi() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 50, 64];
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend([0xc0, 0xff, 0xee, 1, 0, 0, 0, 9]);
        let reason = None;
        let (rule, spi) = (None, Some(0xc0ff_ee01));
        let line =
            Line::new(&Decided { reason, rule, spi, ..decided(packet.clone()) }, &Names::default());
        let text = line.to_string();
        let expected = "pass passed spi c0ffee01 2001:db8::2 > 2001:db8::1 ESP 60 octets";
        assert!(text.ends_with(expected), "{text}");
        packet[6] = 17;
        packet.splice(40.., [1, 0xf4, 0x11, 0x94, 0, 8, 0, 0]);
        let text = Line::new(&decided(packet), &Names::default()).to_string();
        assert!(text.contains("[2001:db8::2]:500 > [2001:db8::1]:4500 UDP"), "{text}");
    }
}
