//! Reads what rules select by out of a packet at TC.

use aya_ebpf::programs::TcContext;
use gateway_common::{Address, Family, Flow, Ports, mapped};

use crate::header::{Ethernet, Ipv4, Ipv6, Ipv6Fragment, Vlan, ethertype, port, protocol};
use crate::packet;

/// The extension headers that are walked. More than the few that RFC 8200 4.1 recommends do not
/// occur; a packet with more is refused, since its protocol cannot be known.
const MAX_EXTENSIONS: u32 = 8;

/// A packet's addresses, protocol and ports.
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) family: Family,
    /// After the extension headers.
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) visible: Visible,
    /// Where the protocol's header begins.
    pub(crate) payload: u32,
    /// The VLAN tags within the frame.
    pub(crate) tags: u32,
    hop_limit: u8,
}

/// What can be seen of the ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visible {
    /// They are there.
    Ports,
    /// The protocol has none.
    NoPorts,
    /// The protocol's header is cut off.
    Nothing,
    /// A fragment other than the first.
    LaterFragment,
}

/// An IP packet whose headers do not make sense.
pub(crate) struct Unreadable;

impl Packet {
    /// Reads a packet on a link with (`ETHERNET`) or without a header. `None` if it is not IP.
    ///
    /// More than two tags are as good as another protocol: no IP stack here would take it.
    #[inline(always)]
    pub(crate) fn read<const ETHERNET: bool>(
        context: &TcContext,
    ) -> Result<Option<Self>, Unreadable> {
        let (mut kind, mut start, mut tags) = (packet::ethertype(context), 0_u32, 0_u32);
        if ETHERNET {
            let Some(ethernet) = packet::load::<Ethernet>(context, 0) else { return Ok(None) };
            (kind, start) = (ethernet.kind, size_of::<Ethernet>() as u32);
            for _ in 0..2 {
                if !ethertype::is_vlan(kind) {
                    break;
                }
                let Some(vlan) = packet::load::<Vlan>(context, start) else { return Ok(None) };
                (kind, start) = (vlan.kind, start.wrapping_add(size_of::<Vlan>() as u32));
                tags = tags.wrapping_add(1);
            }
        }
        match kind {
            ethertype::IPV4 => Self::ipv4(context, start, tags).map(Some),
            ethertype::IPV6 => Self::ipv6(context, start, tags).map(Some),
            _ => Ok(None),
        }
    }

    #[inline(always)]
    fn ipv4(context: &TcContext, start: u32, tags: u32) -> Result<Self, Unreadable> {
        let ip = packet::load::<Ipv4>(context, start).ok_or(Unreadable)?;
        if ip.version_and_length >> 4 != 4 || ip.header_length() < size_of::<Ipv4>() as u32 {
            return Err(Unreadable);
        }
        Ok(Self {
            source: mapped(ip.source),
            destination: mapped(ip.destination),
            family: Family::V4,
            protocol: ip.protocol,
            source_port: 0,
            destination_port: 0,
            visible: if ip.is_later_fragment() { Visible::LaterFragment } else { Visible::Nothing },
            payload: start.wrapping_add(ip.header_length()),
            tags,
            hop_limit: ip.ttl,
        }
        .with_ports(context))
    }

    #[inline(always)]
    fn ipv6(context: &TcContext, start: u32, tags: u32) -> Result<Self, Unreadable> {
        let ip = packet::load::<Ipv6>(context, start).ok_or(Unreadable)?;
        if ip.version_class_flow[0] >> 4 != 6 {
            return Err(Unreadable);
        }
        let mut next = ip.next_header;
        let mut payload = start.wrapping_add(size_of::<Ipv6>() as u32);
        let mut visible = Visible::Nothing;
        for _ in 0..MAX_EXTENSIONS {
            if next == protocol::FRAGMENT {
                let header = packet::load::<Ipv6Fragment>(context, payload).ok_or(Unreadable)?;
                next = header.next_header;
                payload = payload.wrapping_add(size_of::<Ipv6Fragment>() as u32);
                if u16::from_be_bytes(header.offset) & 0xfff8 != 0 {
                    visible = Visible::LaterFragment;
                    break;
                }
            } else if protocol::is_options(next) {
                let [kind, length] = packet::load::<[u8; 2]>(context, payload).ok_or(Unreadable)?;
                next = kind;
                payload = payload.wrapping_add(u32::from(length).wrapping_add(1).wrapping_mul(8));
            } else {
                break;
            }
        }
        // Headers beyond the limit, or those that follow in the first fragment alone.
        if next == protocol::FRAGMENT || protocol::is_options(next) {
            return Err(Unreadable);
        }
        Ok(Self {
            source: ip.source,
            destination: ip.destination,
            family: Family::V6,
            protocol: next,
            source_port: 0,
            destination_port: 0,
            visible,
            payload,
            tags,
            hop_limit: ip.hop_limit,
        }
        .with_ports(context))
    }

    #[inline(always)]
    fn with_ports(mut self, context: &TcContext) -> Self {
        if self.visible == Visible::LaterFragment {
            return self;
        }
        if !protocol::has_ports(self.protocol) {
            self.visible = Visible::NoPorts;
        } else if let Some([a, b, c, d]) = packet::load::<[u8; 4]>(context, self.payload) {
            self.source_port = u16::from_be_bytes([a, b]);
            self.destination_port = u16::from_be_bytes([c, d]);
            self.visible = Visible::Ports;
        }
        self
    }

    /// The flow with the source as our side.
    #[inline(always)]
    pub(crate) fn outbound(&self) -> Flow {
        Flow {
            local: self.source,
            remote: self.destination,
            ports: self.ports(self.source_port, self.destination_port),
            family: self.family,
            protocol: self.protocol,
            zero: [0; 4],
        }
    }

    /// The flow with the destination as our side.
    #[inline(always)]
    pub(crate) fn inbound(&self) -> Flow {
        Flow {
            local: self.destination,
            remote: self.source,
            ports: self.ports(self.destination_port, self.source_port),
            family: self.family,
            protocol: self.protocol,
            zero: [0; 4],
        }
    }

    #[inline(always)]
    fn ports(&self, local: u16, remote: u16) -> Ports {
        match self.visible {
            Visible::Ports => Ports::known(local, remote),
            Visible::LaterFragment if !protocol::has_ports(self.protocol) => Ports::NONE,
            Visible::NoPorts => Ports::NONE,
            Visible::Nothing | Visible::LaterFragment => Ports::HIDDEN,
        }
    }

    /// Whether no rule applies to it, since without it there is no network to protect: neighbour
    /// discovery (RFC 4861, which never crosses a router) and DHCP. ARP is not IP at all.
    #[inline(always)]
    pub(crate) fn is_exempt(&self, context: &TcContext) -> bool {
        match self.visible {
            Visible::Ports => {
                self.protocol == protocol::UDP
                    && port::is_dhcp(self.source_port, self.destination_port)
            }
            Visible::NoPorts => {
                self.protocol == protocol::ICMPV6
                    && self.hop_limit == u8::MAX
                    && matches!(packet::load::<[u8; 1]>(context, self.payload), Some([133..=137]))
            }
            Visible::Nothing | Visible::LaterFragment => false,
        }
    }
}
