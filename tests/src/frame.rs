//! What an Ethernet frame is, as far as a leak check must know: addresses, protocol, ports, and
//! whether it is one of the things that may be seen between two gateways.

use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

/// What a frame is for the summary of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An IKE message, on port 500 or behind a non-ESP marker on 4500.
    Ike,
    /// ESP as an IP protocol.
    Esp,
    /// ESP in UDP on port 4500.
    EspInUdp,
    /// The one octet that keeps a NAT mapping alive.
    Keepalive,
    /// An ICMP error about IKE or ESP: nobody listens at the other end yet, or a NAT has forgotten it.
    Unreachable,
    /// ARP, neighbour discovery, multicast housekeeping.
    Neighbours,
    /// Anything else.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ike => "IKE",
            Self::Esp => "ESP",
            Self::EspInUdp => "ESP-in-UDP",
            Self::Keepalive => "NAT keepalive",
            Self::Unreachable => "ICMP about IKE or ESP",
            Self::Neighbours => "ARP/ND",
            Self::Other => "other",
        })
    }
}

/// An IP packet, or a fragment of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Source and destination port; `None` for protocols without, and for later fragments.
    pub ports: Option<(u16, u16)>,
    /// Of a fragment, the first included: what it has in common with the others of its datagram.
    pub fragment: Option<u32>,
    /// What it is.
    pub kind: Kind,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} protocol {}", self.source, self.destination, self.protocol)?;
        if let Some((from, to)) = self.ports {
            write!(f, " ports {from} -> {to}")?;
        }
        f.write_str(if self.fragment.is_some() { " (fragment)" } else { "" })
    }
}

impl Packet {
    /// Whether it goes between the two prefixes, in either direction.
    #[must_use]
    pub fn between(&self, one: &IpNet, other: &IpNet) -> bool {
        (one.contains(&self.source) && other.contains(&self.destination))
            || (other.contains(&self.source) && one.contains(&self.destination))
    }
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// What the frame is, and its IP packets from the outermost inwards: one, more where IP is
/// carried in IP without encryption, none where there is no IP or too little of it.
#[must_use]
pub fn dissect(frame: &[u8]) -> (Kind, Vec<Packet>) {
    let mut packets = Vec::new();
    let mut rest = frame.get(12..).unwrap_or_default();
    while u16_at(rest, 0).is_some_and(|t| VLAN.contains(&t)) {
        rest = rest.get(4..).unwrap_or_default();
    }
    let payload = rest.get(2..).unwrap_or_default();
    match u16_at(rest, 0) {
        Some(ARP) => return (Kind::Neighbours, packets),
        Some(IPV4) => ipv4(payload, &mut packets),
        Some(IPV6) => ipv6(payload, &mut packets),
        Some(_) | None => {}
    }
    (packets.first().map_or(Kind::Other, |p| p.kind), packets)
}

fn ipv4(ip: &[u8], packets: &mut Vec<Packet>) {
    let (Some(&first), Some(&protocol), Some(source), Some(destination)) =
        (ip.first(), ip.get(9), array::<4>(ip, 12), array::<4>(ip, 16))
    else {
        return;
    };
    let (Some(identification), Some(flags)) = (u16_at(ip, 4), u16_at(ip, 6)) else { return };
    let header = usize::from(first & 0x0f).saturating_mul(4);
    let payload = ip.get(header..).unwrap_or_default();
    let fragment = (flags & 0x3fff != 0).then_some(identification.into());
    let later = flags & 0x1fff != 0;
    push(packets, (source.into(), destination.into()), protocol, fragment, later, payload);
}

fn ipv6(ip: &[u8], packets: &mut Vec<Packet>) {
    let (Some(&next), Some(source), Some(destination)) =
        (ip.get(6), array::<16>(ip, 8), array::<16>(ip, 24))
    else {
        return;
    };
    let mut rest = ip.get(40..).unwrap_or_default();
    let (mut protocol, mut fragment, mut later) = (next, None, false);
    // RFC 8200 4: hop-by-hop, routing, fragment, destination options.
    while let (0 | 43 | 44 | 60, false, &[next, length, ..]) = (protocol, later, rest) {
        let mut header = 8;
        if protocol == 44 {
            fragment = array(rest, 4).map(u32::from_be_bytes);
            later = u16_at(rest, 2).is_some_and(|offset| offset & 0xfff8 != 0);
        } else {
            header = usize::from(length).saturating_mul(8).saturating_add(8);
        }
        rest = rest.get(header..).unwrap_or_default();
        protocol = next;
    }
    push(packets, (source.into(), destination.into()), protocol, fragment, later, rest);
}

fn push(
    packets: &mut Vec<Packet>,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    fragment: Option<u32>,
    later: bool,
    payload: &[u8],
) {
    let ports = match protocol {
        TCP | UDP | SCTP if !later => u16_at(payload, 0).zip(u16_at(payload, 2)),
        _ => None,
    };
    let kind = match (protocol, ports) {
        (ESP, _) => Kind::Esp,
        (UDP, Some(ports)) => udp(ports, payload.get(8..).unwrap_or_default()),
        (IGMP, _) => Kind::Neighbours,
        (ICMP, _) if payload.first() == Some(&3) => quoted(payload, ipv4),
        (ICMPV6, _) if payload.first() == Some(&1) => quoted(payload, ipv6),
        // Neighbour and router discovery, multicast listener discovery.
        (ICMPV6, _) if matches!(payload.first(), Some(130..=137 | 143)) => Kind::Neighbours,
        _ => Kind::Other,
    };
    packets.push(Packet { source, destination, protocol, ports, fragment, kind });
    match protocol {
        IPIP if !later => ipv4(payload, packets),
        IPV6_IN_IP if !later => ipv6(payload, packets),
        _ => {}
    }
}

/// What an ICMP "unreachable" is about, by the packet that it quotes behind its 8 octets.
fn quoted(icmp: &[u8], dissect: fn(&[u8], &mut Vec<Packet>)) -> Kind {
    let mut quoted = Vec::new();
    dissect(icmp.get(8..).unwrap_or_default(), &mut quoted);
    match quoted.first().map(|packet| packet.kind) {
        Some(Kind::Ike | Kind::Esp | Kind::EspInUdp) => Kind::Unreachable,
        Some(_) | None => Kind::Other,
    }
}

/// RFC 3948 2: on port 4500 four zero octets mark IKE, one octet 0xff is a keepalive, and all
/// else is ESP. A NAT changes one port at most.
fn udp((from, to): (u16, u16), payload: &[u8]) -> Kind {
    match (from, to) {
        (500, _) | (_, 500) => Kind::Ike,
        (4500, _) | (_, 4500) => match payload {
            [0, 0, 0, 0, ..] => Kind::Ike,
            [0xff] => Kind::Keepalive,
            [_, _, _, _, ..] => Kind::EspInUdp,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn array<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    array(octets, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet and an IPv4 header around a payload, from 10.1.0.2 to 10.2.0.2.
    fn ipv4_frame(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0, 0x45, 0, 0, 0, 0, 0]);
        frame.extend(flags.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2]);
        frame.extend(payload);
        frame
    }

    fn udp_frame(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut udp = [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat();
        udp.extend(payload);
        ipv4_frame(UDP, 0, &udp)
    }

    #[test]
    fn ike_esp_and_keepalives_are_told_apart_behind_a_nat() {
        assert_eq!(dissect(&udp_frame(23_456, 500, &[1; 28])).0, Kind::Ike);
        assert_eq!(dissect(&udp_frame(23_456, 4500, &[0, 0, 0, 0, 9])).0, Kind::Ike);
        assert_eq!(dissect(&udp_frame(4500, 23_456, &[0, 0, 0, 1, 9])).0, Kind::EspInUdp);
        assert_eq!(dissect(&udp_frame(4500, 23_456, &[0xff])).0, Kind::Keepalive);
        assert_eq!(dissect(&ipv4_frame(ESP, 0, &[1; 8])).0, Kind::Esp);
        assert_eq!(dissect(&udp_frame(53, 23_456, &[1; 8])).0, Kind::Other);
    }

    #[test]
    fn an_unreachable_port_is_told_by_what_the_error_quotes() {
        let about = |port| {
            let quoted = udp_frame(500, port, &[1; 8])[14..].to_vec();
            ipv4_frame(ICMP, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat())
        };
        assert_eq!(dissect(&about(500)).0, Kind::Unreachable);
        let esp = ipv4_frame(ESP, 0, &[1; 8])[14..].to_vec();
        let error = ipv4_frame(ICMP, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &esp].concat());
        assert_eq!(dissect(&error).0, Kind::Unreachable);
        let clear = udp_frame(53, 54, &[1; 8])[14..].to_vec();
        let error = ipv4_frame(ICMP, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &clear].concat());
        assert_eq!(dissect(&error).0, Kind::Other);
    }

    #[test]
    fn a_later_fragment_has_addresses_but_no_ports() {
        let (kind, packets) = dissect(&ipv4_frame(UDP, 0x2001, &[0x11, 0x94, 0x11, 0x94]));
        assert_eq!(kind, Kind::Other);
        let [packet] = packets[..] else { panic!("{packets:?}") };
        assert_eq!((packet.fragment, packet.ports), (Some(0), None));
        let one = "10.2.0.0/24".parse().unwrap();
        let other = "10.1.0.0/24".parse().unwrap();
        assert!(packet.between(&one, &other), "the direction does not matter");
    }

    #[test]
    fn a_packet_inside_a_plain_tunnel_is_found() {
        let inner = &ipv4_frame(TCP, 0, &[0, 80, 1, 0])[14..];
        let (_, packets) = dissect(&ipv4_frame(IPIP, 0, inner));
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[1].ports, Some((80, 256)));
    }

    #[test]
    fn ipv6_extension_headers_and_vlan_tags_are_passed_over() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 7, 0x86, 0xdd]);
        frame.extend([0x60, 0, 0, 0, 0, 24, 0, 64]);
        frame.extend([0xfd; 32]);
        // Hop-by-hop of 8 octets, then a first fragment, then UDP.
        frame.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend([UDP, 0, 0, 1, 0, 0, 0, 9]);
        frame.extend([0, 53, 0, 54, 0, 8, 0, 0]);
        let (_, packets) = dissect(&frame);
        let [packet] = packets[..] else { panic!("{packets:?}") };
        assert_eq!((packet.protocol, packet.ports), (UDP, Some((53, 54))));
        assert_eq!(packet.fragment, Some(9));
    }

    #[test]
    fn a_truncated_frame_is_no_packet_and_no_panic() {
        let frame = udp_frame(4500, 4500, &[0, 0, 0, 1, 9]);
        for length in 0..frame.len() {
            let (kind, packets) = dissect(&frame[..length]);
            assert!(length >= 34 || packets.is_empty());
            assert_ne!(kind, Kind::Ike);
        }
    }
}
