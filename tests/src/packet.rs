//! Builds packets, from the inside out, with every length and checksum right; a test that wants a
//! wrong one changes the octets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ESP protocol.
pub const ESP: u8 = 50;
/// The UDP protocol.
pub const UDP: u8 = 17;
/// The TCP protocol.
pub const TCP: u8 = 6;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// An IP header to put before a payload.
#[derive(Clone, Debug)]
pub struct Ip {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// The field of flags and offset (IPv4), or of offset and flags (IPv6).
    fragment: Option<u16>,
    /// Octets of IPv4 options.
    options: Vec<u8>,
    /// IPv6 extension headers: the kind and the octets after the next header's kind.
    extensions: Vec<(u8, Vec<u8>)>,
    hop_limit: u8,
}

impl Ip {
    /// A plain header.
    ///
    /// # Panics
    /// An address does not parse.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test gives literals")]
    pub fn new(source: &str, destination: &str, protocol: u8) -> Self {
        Self {
            source: source.parse().expect("a source address"),
            destination: destination.parse().expect("a destination address"),
            protocol,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
            hop_limit: 64,
        }
    }

    /// Makes it a fragment, at an offset in octets, a multiple of 8.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some(match self.source {
            IpAddr::V4(_) => (offset >> 3) | (u16::from(more) << 13),
            IpAddr::V6(_) => offset | u16::from(more),
        });
        self
    }

    /// Adds IPv4 options: `words` times four octets of "no operation".
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        self.options = vec![1; words.saturating_mul(4)];
        self
    }

    /// Adds an IPv6 extension header of this kind and of 8 octets.
    #[must_use]
    pub fn extension(mut self, kind: u8) -> Self {
        // Its length, then padding (RFC 8200 4.2).
        self.extensions.push((kind, vec![0, 1, 4, 0, 0, 0, 0]));
        self
    }

    /// Sets the time to live, or the hop limit.
    #[must_use]
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = hops;
        self
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination, payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.v6(source, destination, payload),
            _ => Vec::new(),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let header = self.options.len().saturating_add(20);
        let words = u8::try_from(header >> 2).unwrap_or(0);
        let mut packet = vec![0x40 | words, 0];
        packet.extend(length(header.saturating_add(payload.len())));
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.unwrap_or(0).to_be_bytes());
        packet.extend([self.hop_limit, self.protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(&self.options);
        let checksum = checksum(&packet);
        if let Some(field) = packet.get_mut(10..12) {
            field.copy_from_slice(&checksum);
        }
        packet.extend(payload);
        packet
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if let Some(fragment) = self.fragment {
            let [high, low] = fragment.to_be_bytes();
            headers.push((44, vec![0, high, low, 0, 0, 0, 9]));
        }
        // Each names the one after it.
        let mut body = payload.to_vec();
        let mut next = self.protocol;
        for (kind, rest) in headers.iter().rev() {
            let mut header = vec![next];
            header.extend(rest);
            header.extend(&body);
            (body, next) = (header, *kind);
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length(body.len()));
        packet.extend([next, self.hop_limit]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(body);
        packet
    }
}

/// A UDP datagram without a checksum.
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend(length(payload.len().saturating_add(8)));
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A TCP segment without data.
#[must_use]
pub fn tcp(source: u16, destination: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// An ESP packet's beginning and as much of anything as it takes to have `octets` after the
/// sequence number.
#[must_use]
pub fn esp(spi: u32, octets: usize) -> Vec<u8> {
    let mut packet = [spi.to_be_bytes(), 1_u32.to_be_bytes()].concat();
    packet.extend((0..octets).map(|place| u8::try_from(place & 0xff).unwrap_or(0)));
    packet
}

/// An Ethernet frame with VLAN tags, the outer first, by their EtherTypes.
#[must_use]
pub fn tagged(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    frame.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    frame
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    tagged(&[], packet)
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}

/// The checksum of RFC 1071.
#[must_use]
pub fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        _ => 0,
    });
    let sum = words.fold(0_u32, u32::wrapping_add);
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    let folded = (once & 0xffff).wrapping_add(once >> 16);
    (!u16::try_from(folded).unwrap_or(0)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Kind, dissect};

    #[test]
    fn a_built_frame_is_dissected_into_what_it_was_built_from() {
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
            let packet = Ip::new(source, destination, UDP).packet(&udp(53, 54, b"hello"));
            let (kind, packets) = dissect(&tagged(&[0x8100], &packet));
            assert_eq!(kind, Kind::Other);
            assert_eq!(packets[0].source, source.parse::<IpAddr>().unwrap());
            assert_eq!((packets[0].protocol, packets[0].ports), (UDP, Some((53, 54))));
            assert_eq!(packets[0].fragment, None);
        }
    }

    #[test]
    fn a_header_with_its_checksum_sums_up_to_nothing() {
        let packet = Ip::new("192.0.2.1", "192.0.2.2", UDP).options(2).packet(&[0; 7]);
        assert_eq!(checksum(&packet[..28]), [0, 0]);
        assert_eq!(packet[2..4], [0, 35]);
    }
}
