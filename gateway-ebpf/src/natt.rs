//! ESP in UDP (RFC 3948) to port 4500: takes the UDP header off, so that the kernel sees bare ESP.
//! And ESP of an SA that is reached at more than one address of ours, while it moves from one to
//! the other: it gets the destination under which the kernel has the SA. `xfrm_input` finds an SA
//! by its destination, too, but two SAs with one key would each have a replay window, and who
//! repeats a packet to the other address would get it in twice. So there is one.
//!
//! Only packets of an SA in the map are touched, so that everything else but IKE to us ([`ike`]) and
//! ESP to us without an SA ([`unknown`]) meets the kernel as it came. The UDP checksum is not looked
//! at: ESP authenticates its content.

use aya_ebpf::programs::XdpContext;
use gateway_common::unknown::{BARE_UNTIL, IN_UDP_UNTIL};
use gateway_common::{Address, Reason, SaKey, SaValue, Source, Subject};

use crate::header::{
    Ethernet, Ipv4InPlace, Ipv6Fragment, Ipv6InPlace, Udp, Vlan, ethertype, port, protocol,
};
use crate::ike::{self, Datagram, Internet};
use crate::unknown::{self, Fate};
use crate::{checksum, cpu, endpoint, maps, packet};

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
/// The words of an Ethernet header with two (802.1ad, "QinQ").
const TAGGED_TWICE: usize = 11;

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Vlan>() == 4);

/// Handles a frame. What stands behind more than two VLAN tags no IP stack here takes. IPv4 options
/// and IPv6 extension headers are left to the kernel, which walks them: what is behind them comes to
/// the same end, at a higher price. Bare ESP finds its SA there; IKE and ESP in UDP come to the
/// daemon's socket, which hands the latter back, as it does with reassembled fragments.
#[inline(always)]
pub fn ingress(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(ethernet) = packet::at::<Ethernet>(context, 0) else { return Ok(()) };
    match ethernet.kind {
        ethertype::IPV4 => ipv4::<ETHERNET>(context, subject),
        ethertype::IPV6 => ipv6::<ETHERNET>(context, subject),
        kind if ethertype::is_vlan(kind) => {
            let Some(vlan) = packet::at::<Vlan>(context, size_of::<Ethernet>()) else {
                return Ok(());
            };
            match vlan.kind {
                ethertype::IPV4 => ipv4::<TAGGED>(context, subject),
                ethertype::IPV6 => ipv6::<TAGGED>(context, subject),
                kind if ethertype::is_vlan(kind) => tagged_twice(context, subject),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn tagged_twice(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let inner = size_of::<Ethernet>().wrapping_add(size_of::<Vlan>());
    match packet::at::<Vlan>(context, inner).map(|vlan| vlan.kind) {
        Some(ethertype::IPV4) => ipv4::<TAGGED_TWICE>(context, subject),
        Some(ethertype::IPV6) => ipv6::<TAGGED_TWICE>(context, subject),
        _ => Ok(()),
    }
}

#[inline(always)]
fn ipv4<const L: usize>(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(head) = packet::at::<Head<L, Ipv4InPlace>>(context, 0) else { return Ok(()) };
    let ip = &head.ip;
    if ip.version_and_length >> 4 != 4 || ip.is_later_fragment() {
        return Ok(());
    }
    let (fragment, destination) = (ip.has_more_fragments(), address_v4(ip.destination));
    if ip.header_length() != size_of::<Ipv4InPlace>() as u32 {
        let may_carry = matches!(ip.protocol, protocol::ESP | protocol::UDP);
        return behind_options(may_carry && ip.header_length() > 20, &destination);
    }
    let total = u16::from_be_bytes(ip.total_length);
    let start = size_of::<Head<L, Ipv4InPlace>>();
    if ip.protocol == protocol::ESP {
        // A later fragment does not show its SPI: the others of its packet stay with it.
        if fragment {
            return Ok(());
        }
        let ends = (address_v4(ip.source), destination);
        let Some(to) = bare(context, start, ends, subject)? else { return Ok(()) };
        let mut head = *head;
        readdress_v4(&mut head.ip, to);
        return readdressed(packet::replace(context, head));
    }
    if ip.protocol != protocol::UDP {
        return Ok(());
    }
    let payload = u32::from(total).saturating_sub(size_of::<Ipv4InPlace>() as u32);
    let ends = (address_v4(ip.source), destination);
    let udp = Datagram { start, payload, is_fragment: fragment };
    let Some(sa) = to_strip::<Ipv4InPlace>(context, udp, ends, subject)? else {
        return Ok(());
    };
    let mut head = *head;
    let length = total.wrapping_sub(UDP as u16).to_be_bytes();
    let ip = &mut head.ip;
    if let Some(to) = sa.elsewhere {
        readdress_v4(ip, to);
    }
    ip.checksum = checksum::replace(ip.checksum, ip.total_length, length);
    ip.checksum = checksum::replace(ip.checksum, [ip.ttl, protocol::UDP], [ip.ttl, protocol::ESP]);
    ip.total_length = length;
    ip.protocol = protocol::ESP;
    finish(packet::shorten::<_, UDP>(context, head))
}

#[inline(always)]
fn ipv6<const L: usize>(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(head) = packet::at::<Head<L, Ipv6InPlace>>(context, 0) else { return Ok(()) };
    let ip = &head.ip;
    if ip.version_class_flow[0] >> 4 != 6 {
        return Ok(());
    }
    let payload = u16::from_be_bytes(ip.payload_length);
    let start = size_of::<Head<L, Ipv6InPlace>>();
    let destination = address_v6(ip.destination);
    if ip.next_header == protocol::ESP {
        let ends = (address_v6(ip.source), destination);
        let Some(to) = bare(context, start, ends, subject)? else { return Ok(()) };
        let mut head = *head;
        head.ip.destination = words_v6(to);
        return readdressed(packet::replace(context, head));
    }
    if ip.next_header == protocol::FRAGMENT {
        return v6_fragment(context, start);
    }
    if ip.next_header != protocol::UDP {
        return behind_options(protocol::is_options(ip.next_header), &destination);
    }
    let ends = (address_v6(ip.source), destination);
    let udp = Datagram { start, payload: u32::from(payload), is_fragment: false };
    let Some(sa) = to_strip::<Ipv6InPlace>(context, udp, ends, subject)? else {
        return Ok(());
    };
    let mut head = *head;
    if let Some(to) = sa.elsewhere {
        head.ip.destination = words_v6(to);
    }
    head.ip.payload_length = payload.wrapping_sub(UDP as u16).to_be_bytes();
    head.ip.next_header = protocol::ESP;
    finish(packet::shorten::<_, UDP>(context, head))
}

/// The first fragment of a datagram to port 4500 is counted, as that of IPv4 is.
#[inline(always)]
fn v6_fragment(context: &XdpContext, start: usize) -> Result<(), Reason> {
    let udp = start.wrapping_add(size_of::<Ipv6Fragment>());
    let Some(header) = packet::at::<Ipv6Fragment>(context, start) else { return Ok(()) };
    let Some(udp) = packet::at::<Udp>(context, udp) else { return Ok(()) };
    let is_first = u16::from_be_bytes(header.offset) & 0xfff8 == 0;
    let is_udp = header.next_header == protocol::UDP;
    if is_first && is_udp && u16::from_be_bytes(udp.destination) == port::NAT_TRAVERSAL {
        return Err(Reason::OuterFragment);
    }
    Ok(())
}

/// What is behind options is not looked at, and counted if it is to us and may be ours.
#[inline(always)]
fn behind_options(may_be: bool, destination: &Address) -> Result<(), Reason> {
    if may_be && maps::is_local(destination) { Err(Reason::BehindOptions) } else { Ok(()) }
}

#[inline(always)]
pub(crate) fn address_v4([ab, cd]: [u16; 2]) -> Address {
    let ([a, b], [c, d]) = (ab.to_ne_bytes(), cd.to_ne_bytes());
    Address::v4([a, b, c, d])
}

#[inline(always)]
pub(crate) fn address_v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> Address {
    Address::from_words([word([a, b, c, d]), word([e, f, g, h])])
}

/// The word that has these octets.
#[inline(always)]
pub(crate) fn word(halves: [u16; 4]) -> u64 {
    let [[a, b], [c, d], [e, f], [g, h]] = halves.map(u16::to_ne_bytes);
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The halves of a word, as they lie in a packet.
#[inline(always)]
pub(crate) fn halves(word: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes)
}

#[inline(always)]
fn words_v6(address: Address) -> [u16; 8] {
    let [[a, b, c, d], [e, f, g, h]] = address.words().map(halves);
    [a, b, c, d, e, f, g, h]
}

/// Another destination, which the header's checksum covers. That of UDP covers it too; it goes with
/// the UDP header.
#[inline(always)]
fn readdress_v4(ip: &mut Ipv4InPlace, to: Address) {
    let [_, low] = to.words();
    let [_, _, ab, cd] = halves(low);
    let [old_ab, old_cd] = ip.destination;
    ip.checksum = checksum::replace(ip.checksum, old_ab.to_ne_bytes(), ab.to_ne_bytes());
    ip.checksum = checksum::replace(ip.checksum, old_cd.to_ne_bytes(), cd.to_ne_bytes());
    ip.destination = [ab, cd];
}

#[inline(always)]
fn readdressed(done: bool) -> Result<(), Reason> {
    Err(if done { Reason::Readdressed } else { Reason::NotStripped })
}

/// ESP in UDP of an SA of ours, whose UDP header goes.
struct ToStrip {
    /// As [`elsewhere`] says.
    elsewhere: Option<Address>,
}

/// The destination that an SA's packets are to have, if that is another one. Asked while the key is on
/// the stack anyway, on which there is no room for another.
#[inline(always)]
fn elsewhere(key: &SaKey, flags: u32) -> Option<Address> {
    if flags & SaValue::ELSEWHERE == 0 { None } else { maps::elsewhere(key) }
}

/// The destination that bare ESP whose header is at `start` is to have, if that is another one; or
/// what is decided of it.
#[inline(always)]
fn bare(
    context: &XdpContext,
    start: usize,
    (source, destination): (Address, Address),
    subject: &mut Subject,
) -> Result<Option<Address>, Reason> {
    let Some(spi) = packet::at::<[u8; 4]>(context, start) else { return Ok(None) };
    let key = SaKey::new(destination, *spi);
    let source = Source::new(source, 0);
    let Some(sa) = maps::sa(&key) else { return bare_without_sa(&key, &source, subject) };
    let flags = sa.flags();
    if flags & SaValue::INBOUND != 0 {
        subject.set_spi(key.spi);
        cpu::choose(context, &key, sa, subject);
        endpoint::note(context, &key, sa, source);
        return Ok(elsewhere(&key, flags));
    }
    if flags & SaValue::AWAITED != 0 {
        subject.set_spi(key.spi);
        return Err(Reason::Awaited);
    }
    bare_without_sa(&key, &source, subject)
}

/// What becomes of bare ESP that is of no SA of ours.
#[inline(always)]
fn bare_without_sa(
    key: &SaKey,
    source: &Source,
    subject: &mut Subject,
) -> Result<Option<Address>, Reason> {
    let fate = unknown::judge(key, source, BARE_UNTIL);
    if fate == Fate::NotOurs {
        return Ok(None);
    }
    subject.set_spi(key.spi);
    let is_dropped = fate == Fate::Drop;
    Err(if is_dropped { Reason::BareUnknownSpiDropped } else { Reason::BareUnknownSpi })
}

#[inline(always)]
fn finish(done: bool) -> Result<(), Reason> {
    Err(if done { Reason::Stripped } else { Reason::NotStripped })
}

/// The SA of a datagram, if that is ESP to strip. Then all its lengths agree: the IP payload is the
/// datagram, and the frame holds all of it. What becomes of IKE to us is said by [`ike`].
#[inline(always)]
fn to_strip<Ip: Internet>(
    context: &XdpContext,
    datagram: Datagram,
    (source, destination): (Address, Address),
    subject: &mut Subject,
) -> Result<Option<ToStrip>, Reason> {
    let Datagram { start, payload, is_fragment } = datagram;
    let Some(udp) = packet::at::<Udp>(context, start) else { return Ok(None) };
    match u16::from_be_bytes(udp.destination) {
        port::IKE if maps::is_local(&destination) => {
            return Err(ike::judge::<Ip>(context, datagram, UDP));
        }
        port::NAT_TRAVERSAL => {}
        _ => return Ok(None),
    }
    let length = u16::from_be_bytes(udp.length);
    let content = start.wrapping_add(UDP);
    let spi = packet::at::<[u8; 4]>(context, content);
    if is_fragment && spi != Some(&NON_ESP_MARKER) {
        return Err(Reason::OuterFragment);
    }
    // RFC 3948 2.3. A short frame is padded by the link, so the header says how long it is. One to
    // somebody else is for a NAT that may lie behind us.
    if length == KEEPALIVE_LENGTH && packet::at(context, content) == Some(&[0xff_u8]) {
        return if maps::is_local(&destination) { Err(Reason::Keepalive) } else { Ok(None) };
    }
    let Some(spi) = spi else { return Err(Reason::TooShort) };
    if length < MARKER_LENGTH {
        return Err(Reason::TooShort);
    }
    if *spi == NON_ESP_MARKER {
        if !maps::is_local(&destination) {
            return Err(Reason::IkeOn4500);
        }
        let before = UDP.wrapping_add(size_of_val(&NON_ESP_MARKER));
        return Err(ike::judge::<Ip>(context, datagram, before));
    }
    if length < ESP_LENGTH {
        return Err(Reason::TooShort);
    }
    let key = SaKey::new(destination, *spi);
    subject.set_spi(key.spi);
    let source = Source::new(source, u16::from_be_bytes(udp.source));
    let Some(sa) = maps::sa(&key) else { return Err(without_sa(&key, &source)) };
    let flags = sa.flags();
    if flags & SaValue::AWAITED != 0 {
        return Err(Reason::Awaited);
    }
    if flags & SaValue::INBOUND == 0 {
        return Err(without_sa(&key, &source));
    }
    cpu::choose(context, &key, sa, subject);
    if flags & SaValue::STRIP == 0 {
        endpoint::note(context, &key, sa, source);
        return Err(Reason::KernelDecapsulates);
    }
    // Compared as numbers: the verifiers of 6.12 and older do not see that a length with swapped
    // octets is bounded, and refuse to add it to a pointer.
    let end = (start as u64).wrapping_add(u64::from(length));
    if payload != u32::from(length) || packet::length(context) < end {
        return Err(Reason::BadLength);
    }
    endpoint::note(context, &key, sa, source);
    Ok(Some(ToStrip { elsewhere: elsewhere(&key, flags) }))
}

/// What becomes of ESP in UDP that is of no SA of ours.
#[inline(always)]
fn without_sa(key: &SaKey, source: &Source) -> Reason {
    match unknown::judge(key, source, IN_UDP_UNTIL) {
        Fate::Drop => Reason::UnknownSpiDropped,
        Fate::NotOurs | Fate::Pass => Reason::UnknownSpi,
    }
}
