//! Makes an IKE_SA_INIT request into the answer that demands a cookie (RFC 7296 2.6):
//! `HDR(A,0), N(COOKIE)`. It is never longer than the request. What both have stays where it is: the
//! initiator's SPI, a responder's SPI and a message ID of zero, and a marker.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use gateway_common::Address;

use super::{NOTIFY, protect_ike_v4, protect_ike_v6};
use crate::header::{IkeHeader, Ipv4InPlace, Ipv6InPlace, Udp, protocol};
use crate::{checksum, natt, packet};

/// The notification type of a cookie.
const COOKIE: u16 = 16_390;
/// The major and minor version.
const VERSION: u8 = 0x20;
/// Hops that an answer may take.
const HOPS: u8 = 64;

/// A notification with a cookie of ours (RFC 7296 3.10).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CookiePayload {
    /// The type of the next payload, and the critical bit.
    next: [u8; 2],
    length: [u8; 2],
    /// The protocol, which says nothing here, and the size of an SPI.
    protocol_and_size: [u8; 2],
    kind: [u8; 2],
    cookie: [u16; 6],
}

const _: () = assert!(size_of::<CookiePayload>() == 20);

impl CookiePayload {
    #[inline(always)]
    fn new((version, mac): (u32, u64)) -> Self {
        let [a, b, c, d] = version.to_be_bytes();
        let [e, f, g, h] = natt::halves(mac);
        Self {
            next: [0; 2],
            length: (size_of::<Self>() as u16).to_be_bytes(),
            protocol_and_size: [0; 2],
            kind: COOKIE.to_be_bytes(),
            cookie: [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), e, f, g, h],
        }
    }

    /// The version and the MAC, if it is a cookie that may be ours.
    #[inline(always)]
    pub(super) fn cookie(&self) -> Option<(u32, u64)> {
        let [_, size] = self.protocol_and_size;
        let is_cookie = self.kind == COOKIE.to_be_bytes()
            && self.length == (size_of::<Self>() as u16).to_be_bytes()
            && size == 0;
        if !is_cookie {
            return None;
        }
        let [i, j, mac @ ..] = self.cookie;
        let ([a, b], [c, d]) = (i.to_ne_bytes(), j.to_ne_bytes());
        Some((u32::from_be_bytes([a, b, c, d]), natt::word(mac)))
    }
}

/// The answer behind the SPIs.
#[derive(Clone, Copy)]
#[repr(C)]
struct Rest {
    next: u8,
    version: u8,
    exchange: u8,
    flags: u8,
    message_id: [u16; 2],
    length: [u16; 2],
    payload: CookiePayload,
}

/// Octets of both SPIs.
const SPIS: u32 = 16;
/// Octets of the answer.
const ANSWER: usize = SPIS as usize + size_of::<Rest>();

const _: () = assert!(ANSWER == size_of::<IkeHeader>() + size_of::<CookiePayload>());

/// Two MAC addresses, the destination's and the source's.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link {
    destination: [u16; 3],
    source: [u16; 3],
}

/// The end of an IP header, and the UDP header: what the UDP checksum covers of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Covered<A> {
    source: A,
    destination: A,
    udp: Udp,
}

/// An IP header, as it lies in a frame.
pub(crate) trait Internet: Copy {
    /// Whether it is IPv4.
    const IS_V4: bool;
    /// Its addresses, which are its end.
    type Addresses: Copy;

    /// What [`super::protect`] decides of a message behind such a header, as a number.
    fn protect(context: *mut xdp_md, start: u32, before: u32, payload: u32) -> u32;

    /// The source.
    fn source(&self) -> Address;

    /// The destination.
    fn destination(&self) -> Address;

    /// Whether the source can be that of a packet from one host: what is answered goes there.
    fn is_from_unicast(&self) -> bool;

    /// Makes it, where it lies in the frame, the header of an answer with so many octets behind it.
    fn turn(&mut self, payload: u16);
}

impl Internet for Ipv4InPlace {
    const IS_V4: bool = true;
    type Addresses = [u16; 2];

    #[inline(always)]
    fn protect(context: *mut xdp_md, start: u32, before: u32, payload: u32) -> u32 {
        protect_ike_v4(context, start, before, payload)
    }

    #[inline(always)]
    fn source(&self) -> Address {
        natt::address_v4(self.source)
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        natt::address_v4(self.destination)
    }

    #[inline(always)]
    fn is_from_unicast(&self) -> bool {
        let [first, _] = self.source[0].to_ne_bytes();
        !matches!(first, 0 | 127 | 224..)
    }

    #[inline(always)]
    fn turn(&mut self, payload: u16) {
        core::mem::swap(&mut self.source, &mut self.destination);
        self.service = 0;
        self.total_length = payload.wrapping_add(size_of::<Self>() as u16).to_be_bytes();
        self.identification = [0; 2];
        // It is not to be cut: then its identification need not be one (RFC 6864).
        self.fragment = [0x40, 0];
        self.ttl = HOPS;
        self.checksum = [0; 2];
        self.checksum = checksum::fold(checksum::of_frame(self, 0));
    }
}

impl Internet for Ipv6InPlace {
    const IS_V4: bool = false;
    type Addresses = [u16; 8];

    #[inline(always)]
    fn protect(context: *mut xdp_md, start: u32, before: u32, payload: u32) -> u32 {
        protect_ike_v6(context, start, before, payload)
    }

    #[inline(always)]
    fn source(&self) -> Address {
        natt::address_v6(self.source)
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        natt::address_v6(self.destination)
    }

    #[inline(always)]
    fn is_from_unicast(&self) -> bool {
        let [first, _] = self.source[0].to_ne_bytes();
        first != 0xff && self.source != [0; 8]
    }

    #[inline(always)]
    fn turn(&mut self, payload: u16) {
        for (source, destination) in self.source.iter_mut().zip(&mut self.destination) {
            core::mem::swap(source, destination);
        }
        self.version_class_flow = [0x60, 0, 0, 0];
        self.payload_length = payload.to_be_bytes();
        self.hop_limit = HOPS;
    }
}

/// Puts the answer with this cookie in the place of the request whose UDP header is at `start` and
/// whose message is at `at`. Whether it was done; if not, the frame is to be dropped.
#[inline(always)]
pub(super) fn send<Ip: Internet>(
    context: &XdpContext,
    start: u32,
    at: u32,
    cookie: (u32, u64),
) -> bool {
    let before_ip = start.wrapping_sub(size_of::<Ip>() as u32);
    let end = at.wrapping_add(ANSWER as u32);
    let length = end.wrapping_sub(start) as u16;
    let Some(link) = packet::within::<Link>(context, 0) else { return false };
    let Some(ip) = packet::within::<Ip>(context, before_ip) else { return false };
    let Some(udp) = packet::within::<Udp>(context, start) else { return false };
    let Some(rest) = packet::within::<Rest>(context, at.wrapping_add(SPIS)) else { return false };
    let [first, ..] = link.destination;
    // Nobody is answered with more than was sent, and nothing goes to a group.
    if u16::from_be_bytes(udp.length) < length
        || first.to_ne_bytes()[0] & 1 != 0
        || !ip.is_from_unicast()
    {
        return false;
    }
    core::mem::swap(&mut link.source, &mut link.destination);
    ip.turn(length);
    core::mem::swap(&mut udp.source, &mut udp.destination);
    (udp.length, udp.checksum) = (length.to_be_bytes(), [0; 2]);
    rest.next = NOTIFY;
    (rest.version, rest.flags) = (VERSION, IkeHeader::RESPONSE);
    rest.length = [0, (ANSWER as u16).to_be()];
    rest.payload = CookiePayload::new(cookie);
    let addresses = start.wrapping_sub(size_of::<[Ip::Addresses; 2]>() as u32);
    let Some(covered) = packet::within::<Covered<Ip::Addresses>>(context, addresses) else {
        return false;
    };
    let Some(message) = packet::within::<[u16; ANSWER / 2]>(context, at) else { return false };
    let sum = checksum::of_frame(message, checksum::of_frame(covered, 0))
        .wrapping_add(u32::from(length.to_be()))
        .wrapping_add(u32::from(u16::from(protocol::UDP).to_be()));
    // RFC 768: a checksum of zero says that there is none.
    covered.udp.checksum = match checksum::fold(sum) {
        [0, 0] => [0xff; 2],
        checksum => checksum,
    };
    packet::cut(context, u64::from(end))
}
