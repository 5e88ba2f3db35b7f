//! The headers, as they are on the wire: every octet in network order.
//!
//! Longer fields are arrays of words, since BPF handles octets one by one. At XDP a frame is read
//! where it lies, and no more is known than that the kernel puts it at an even address; at TC its
//! parts are copied out. So the IP headers are generic over how they hold an address.

/// Ethernet II.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ethernet {
    /// Destination and source.
    pub addresses: [u16; 6],
    /// The EtherType.
    pub kind: [u8; 2],
}

/// What an 802.1Q or 802.1ad tag adds after an EtherType.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Vlan {
    /// Priority and identifier.
    pub control: [u8; 2],
    /// The EtherType of what follows.
    pub kind: [u8; 2],
}

/// An IPv4 header where it lies.
pub type Ipv4InPlace = Ipv4<[u16; 2]>;
/// A copied IPv4 header.
pub type Ipv4Copied = Ipv4<u32>;
/// An IPv6 header where it lies.
pub type Ipv6InPlace = Ipv6<[u16; 8]>;
/// A copied IPv6 header.
pub type Ipv6Copied = Ipv6<[u64; 2]>;

/// IPv4 (RFC 791), without options.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4<A> {
    /// The version, and the header's length in words of 4 octets.
    pub version_and_length: u8,
    /// DSCP and ECN.
    pub service: u8,
    /// Header and payload.
    pub total_length: [u8; 2],
    /// The identification.
    pub identification: [u8; 2],
    /// Flags, and the fragment's offset in units of 8 octets.
    pub fragment: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// The protocol.
    pub protocol: u8,
    /// The header's checksum.
    pub checksum: [u8; 2],
    /// The source.
    pub source: A,
    /// The destination.
    pub destination: A,
}

/// IPv6 (RFC 8200).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6<A> {
    /// Version, traffic class and flow label.
    pub version_class_flow: [u8; 4],
    /// What follows this header.
    pub payload_length: [u8; 2],
    /// The kind of the next header.
    pub next_header: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The source.
    pub source: A,
    /// The destination.
    pub destination: A,
}

/// The IPv6 fragment header (RFC 8200 4.5).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6Fragment {
    /// The kind of the next header.
    pub next_header: u8,
    /// Reserved.
    pub reserved: u8,
    /// The offset in units of 8 octets, and flags.
    pub offset: [u8; 2],
    /// The identification.
    pub identification: [u8; 4],
}

/// UDP (RFC 768).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Udp {
    /// The source port.
    pub source: [u8; 2],
    /// The destination port.
    pub destination: [u8; 2],
    /// Header and payload.
    pub length: [u8; 2],
    /// The checksum.
    pub checksum: [u8; 2],
}

/// IKE (RFC 7296 3.1).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct IkeHeader {
    /// The initiator's SPI.
    pub initiator_spi: [u16; 4],
    /// The responder's SPI.
    pub responder_spi: [u16; 4],
    /// The type of the first payload.
    pub next: u8,
    /// The major version, and the minor one.
    pub version: u8,
    /// The exchange type.
    pub exchange: u8,
    /// The flags.
    pub flags: u8,
    /// The message ID.
    pub message_id: [u16; 2],
    /// The length of the message.
    pub length: [u16; 2],
}

impl IkeHeader {
    /// The flag of a response.
    pub const RESPONSE: u8 = 0x20;
    const INITIATOR: u8 = 0x08;

    /// Whether it is a response.
    #[inline(always)]
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & Self::RESPONSE != 0
    }

    /// Whether the original initiator has sent it.
    #[inline(always)]
    #[must_use]
    pub const fn is_initiator(&self) -> bool {
        self.flags & Self::INITIATOR != 0
    }

    /// The length of the message.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> u32 {
        let [high, low] = self.length;
        (u16::from_be(high) as u32) << 16 | u16::from_be(low) as u32
    }
}

/// TCP (RFC 9293 3.1), without options.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tcp {
    /// Source and destination port, sequence and acknowledgement number.
    pub before: [u32; 3],
    /// The header's length in words of 4 octets, in the upper half.
    pub offset: u8,
    /// The flags.
    pub flags: u8,
    /// The window.
    pub window: [u8; 2],
    /// The checksum.
    pub checksum: [u8; 2],
    /// Where urgent data ends.
    pub urgent: [u8; 2],
}

/// The end of TCP's options.
pub const TCP_OPTION_END: u8 = 0;
/// TCP's option of one octet that says nothing.
pub const TCP_OPTION_NONE: u8 = 1;
/// TCP's option for the maximum segment size, of 4 octets (RFC 9293 3.7.1).
pub const TCP_OPTION_MSS: u8 = 2;

impl Tcp {
    /// Whether it begins a connection, or answers such a segment.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & 0x02 != 0
    }

    /// The octets of the header with its options.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> u32 {
        // At most 60.
        ((self.offset >> 4) as u32).wrapping_mul(4)
    }
}

const _: () = assert!(size_of::<Tcp>() == 20);
const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Vlan>() == 4);
const _: () = assert!(size_of::<Ipv4InPlace>() == 20 && size_of::<Ipv4Copied>() == 20);
const _: () = assert!(size_of::<Ipv6InPlace>() == 40 && size_of::<Ipv6Copied>() == 40);
const _: () = assert!(size_of::<IkeHeader>() == 28);
const _: () = assert!(size_of::<Udp>() == 8 && size_of::<Ipv6Fragment>() == 8);

impl<A> Ipv4<A> {
    /// The octets of the header with its options.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> u32 {
        // At most 60.
        ((self.version_and_length & 0x0f) as u32).wrapping_mul(4)
    }

    /// Whether it is a fragment other than the first.
    #[inline(always)]
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & 0x1fff != 0
    }

    /// Whether more fragments follow.
    #[inline(always)]
    #[must_use]
    pub const fn has_more_fragments(&self) -> bool {
        u16::from_be_bytes(self.fragment) & 0x2000 != 0
    }
}

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// An 802.1Q tag.
    pub const VLAN: [u8; 2] = [0x81, 0x00];
    /// An 802.1ad tag.
    pub const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

    /// Whether a tag follows.
    #[inline(always)]
    #[must_use]
    pub const fn is_vlan(kind: [u8; 2]) -> bool {
        matches!(kind, VLAN | SERVICE_VLAN)
    }
}

/// IP protocols and IPv6 extension headers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ESP.
    pub const ESP: u8 = 50;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;

    /// Whether the first four octets are a source and a destination port.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
    }

    /// Whether it is an extension header that is followed by another header and says its length in
    /// its second octet (RFC 8200 4).
    #[inline(always)]
    #[must_use]
    pub const fn is_options(protocol: u8) -> bool {
        matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)
    }
}

/// UDP ports.
pub mod port {
    use gateway_common::Family;

    /// IKE.
    pub const IKE: u16 = 500;
    /// IKE and ESP behind NAT (RFC 3948).
    pub const NAT_TRAVERSAL: u16 = 4500;

    /// Whether a datagram between these ports is DHCP (RFC 2131) or DHCPv6 (RFC 8415).
    #[inline(always)]
    #[must_use]
    pub const fn is_dhcp(family: Family, one: u16, other: u16) -> bool {
        match family {
            Family::V4 => matches!((one, other), (67 | 68, 67 | 68)),
            Family::V6 => matches!((one, other), (546 | 547, 546 | 547)),
        }
    }
}
