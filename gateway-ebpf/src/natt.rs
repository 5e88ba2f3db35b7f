//! ESP in UDP (RFC 3948) to port 4500: takes the UDP header off, so that the kernel sees bare ESP.
//!
//! Only packets of an SA in the map are touched, so that everything else meets the kernel, and the
//! daemon's socket, as it came. The UDP checksum is not looked at: ESP authenticates its content.

use aya_ebpf::programs::XdpContext;
use gateway_common::{Address, Reason, SaKey, SaValue};

use crate::header::{Ethernet, Ipv4InPlace, Ipv6InPlace, Udp, Vlan, ethertype, port, protocol};
use crate::{checksum, maps, packet};

/// What a UDP header takes.
const UDP: usize = size_of::<Udp>();

/// The length that a UDP header gives for a NAT keepalive.
const KEEPALIVE_LENGTH: u16 = 9;

/// The least for a datagram with a non-ESP marker, or an SPI.
const MARKER_LENGTH: u16 = 12;

/// The least for ESP: the SPI and the sequence number.
const ESP_LENGTH: u16 = 16;

/// What stands where ESP has its SPI if the datagram is IKE (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// A frame's headers up to the IP header, with a link header of `L` words of two octets.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head<const L: usize, Ip> {
    link: [u16; L],
    ip: Ip,
}

/// The words of an Ethernet header.
const ETHERNET: usize = 7;
/// The words of an Ethernet header with one VLAN tag.
const TAGGED: usize = 9;

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Vlan>() == 4);

/// Handles a frame. Frames with more than one VLAN tag, with IPv4 options or with IPv6 extension
/// headers are left to the kernel.
#[inline(always)]
pub fn ingress(context: &XdpContext) -> Result<(), Reason> {
    let Some(ethernet) = packet::at::<Ethernet>(context, 0) else { return Ok(()) };
    match ethernet.kind {
        ethertype::IPV4 => ipv4::<ETHERNET>(context),
        ethertype::IPV6 => ipv6::<ETHERNET>(context),
        kind if ethertype::is_vlan(kind) => {
            let Some(vlan) = packet::at::<Vlan>(context, size_of::<Ethernet>()) else {
                return Ok(());
            };
            match vlan.kind {
                ethertype::IPV4 => ipv4::<TAGGED>(context),
                ethertype::IPV6 => ipv6::<TAGGED>(context),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn ipv4<const L: usize>(context: &XdpContext) -> Result<(), Reason> {
    let Some(head) = packet::at::<Head<L, Ipv4InPlace>>(context, 0) else { return Ok(()) };
    let ip = &head.ip;
    if ip.version_and_length != 0x45 || ip.protocol != protocol::UDP || ip.is_later_fragment() {
        return Ok(());
    }
    let total = u16::from_be_bytes(ip.total_length);
    let (fragment, destination) = (ip.has_more_fragments(), address_v4(ip.destination));
    let start = size_of::<Head<L, Ipv4InPlace>>();
    let payload = u32::from(total).wrapping_sub(size_of::<Ipv4InPlace>() as u32);
    if !is_to_strip(context, start, fragment, payload, destination)? {
        return Ok(());
    }
    let mut head = *head;
    let length = total.wrapping_sub(UDP as u16).to_be_bytes();
    let ip = &mut head.ip;
    ip.checksum = checksum::replace(ip.checksum, ip.total_length, length);
    ip.checksum = checksum::replace(ip.checksum, [ip.ttl, protocol::UDP], [ip.ttl, protocol::ESP]);
    ip.total_length = length;
    ip.protocol = protocol::ESP;
    finish(packet::shorten::<_, UDP>(context, head))
}

#[inline(always)]
fn ipv6<const L: usize>(context: &XdpContext) -> Result<(), Reason> {
    let Some(head) = packet::at::<Head<L, Ipv6InPlace>>(context, 0) else { return Ok(()) };
    let ip = &head.ip;
    if ip.version_class_flow[0] >> 4 != 6 || ip.next_header != protocol::UDP {
        return Ok(());
    }
    let payload = u16::from_be_bytes(ip.payload_length);
    let start = size_of::<Head<L, Ipv6InPlace>>();
    let destination = address_v6(ip.destination);
    if !is_to_strip(context, start, false, u32::from(payload), destination)? {
        return Ok(());
    }
    let mut head = *head;
    head.ip.payload_length = payload.wrapping_sub(UDP as u16).to_be_bytes();
    head.ip.next_header = protocol::ESP;
    finish(packet::shorten::<_, UDP>(context, head))
}

#[inline(always)]
fn address_v4([ab, cd]: [u16; 2]) -> Address {
    let ([a, b], [c, d]) = (ab.to_ne_bytes(), cd.to_ne_bytes());
    Address::v4([a, b, c, d])
}

#[inline(always)]
fn address_v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> Address {
    Address::from_words([word([a, b, c, d]), word([e, f, g, h])])
}

/// The word that has these octets.
#[inline(always)]
fn word(halves: [u16; 4]) -> u64 {
    let [[a, b], [c, d], [e, f], [g, h]] = halves.map(u16::to_ne_bytes);
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn finish(done: bool) -> Result<(), Reason> {
    Err(if done { Reason::Stripped } else { Reason::NotStripped })
}

/// Whether the datagram whose header is at `start` is ESP of an SA to strip. Then all its lengths
/// agree: the IP payload is the datagram, and the frame holds all of it.
#[inline(always)]
fn is_to_strip(
    context: &XdpContext,
    start: usize,
    is_fragment: bool,
    payload: u32,
    destination: Address,
) -> Result<bool, Reason> {
    let Some(udp) = packet::at::<Udp>(context, start) else { return Ok(false) };
    if u16::from_be_bytes(udp.destination) != port::NAT_TRAVERSAL {
        return Ok(false);
    }
    if is_fragment {
        return Err(Reason::OuterFragment);
    }
    let length = u16::from_be_bytes(udp.length);
    let content = start.wrapping_add(UDP);
    // RFC 3948 2.3. A short frame is padded by the link, so the header says how long it is.
    if length == KEEPALIVE_LENGTH && packet::at(context, content) == Some(&[0xff_u8]) {
        return Err(Reason::Keepalive);
    }
    let Some(spi) = packet::at::<[u8; 4]>(context, content) else { return Err(Reason::TooShort) };
    if length < MARKER_LENGTH {
        return Err(Reason::TooShort);
    }
    if *spi == NON_ESP_MARKER {
        return Err(Reason::IkeOn4500);
    }
    if length < ESP_LENGTH {
        return Err(Reason::TooShort);
    }
    let Some(sa) = maps::sa(&SaKey::new(destination, *spi)) else {
        return Err(Reason::UnknownSpi);
    };
    if !sa.has(SaValue::INBOUND) {
        return Err(Reason::UnknownSpi);
    }
    if !sa.has(SaValue::STRIP) {
        return Err(Reason::KernelDecapsulates);
    }
    // Compared as numbers: the verifiers of 6.12 and older do not see that a length with swapped
    // octets is bounded, and refuse to add it to a pointer.
    let end = (start as u64).wrapping_add(u64::from(length));
    if payload != u32::from(length) || packet::length(context) < end {
        return Err(Reason::BadLength);
    }
    Ok(true)
}
