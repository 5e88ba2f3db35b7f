//! Reads what rules select by out of a packet at TC.

use aya_ebpf::programs::TcContext;
use gateway_common::{Address, Family, Flow, Ports};

use crate::header::{
    Ethernet, Ipv4Copied, Ipv6Copied, Ipv6Fragment, Vlan, ethertype, port, protocol,
};
use crate::packet;

/// The extension headers that are walked. More than the few that RFC 8200 4.1 recommends do not
/// occur; a packet with more is refused, since its protocol cannot be known.
const MAX_EXTENSIONS: u32 = 8;

/// What a packet is to the rules, and where its parts are.
pub(crate) struct Packet {
    pub(crate) flow: Flow,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) visible: Visible,
    hop_limit: u8,
    /// Where the protocol's header begins.
    pub(crate) payload: u32,
    /// The VLAN tags within the frame.
    pub(crate) tags: u32,
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
    /// Nothing yet. It is filled in place, since copies of it would not fit on the stack.
    pub(crate) const EMPTY: Self = Self {
        flow: Flow {
            local: Address::ZERO,
            remote: Address::ZERO,
            ports: Ports::HIDDEN,
            family: Family::V4,
            protocol: 0,
            zero: 0,
        },
        local_port: 0,
        remote_port: 0,
        visible: Visible::Nothing,
        hop_limit: 0,
        payload: 0,
        tags: 0,
    };

    /// Reads a packet on a link with (`ETHERNET`) or without a header, on its way out
    /// (`OUTBOUND`: its source is on our side) or in. Whether it is IP.
    ///
    /// More than two tags are as good as another protocol: no IP stack here would take it.
    #[inline(always)]
    pub(crate) fn read<const ETHERNET: bool, const OUTBOUND: bool>(
        &mut self,
        context: &TcContext,
    ) -> Result<bool, Unreadable> {
        let mut kind = packet::ethertype(context);
        if ETHERNET {
            let Some(ethernet) = packet::load::<Ethernet>(context, 0) else { return Ok(false) };
            kind = ethernet.kind;
            self.payload = size_of::<Ethernet>() as u32;
            for _ in 0..2 {
                if !ethertype::is_vlan(kind) {
                    break;
                }
                let vlan = packet::load::<Vlan>(context, self.payload);
                let Some(vlan) = vlan else { return Ok(false) };
                kind = vlan.kind;
                self.payload = self.payload.wrapping_add(size_of::<Vlan>() as u32);
                self.tags = self.tags.wrapping_add(1);
            }
        }
        match kind {
            ethertype::IPV4 => self.read_ipv4::<OUTBOUND>(context)?,
            ethertype::IPV6 => self.read_ipv6::<OUTBOUND>(context)?,
            _ => return Ok(false),
        }
        self.read_ports::<OUTBOUND>(context);
        Ok(true)
    }

    #[inline(always)]
    fn read_ipv4<const OUTBOUND: bool>(&mut self, context: &TcContext) -> Result<(), Unreadable> {
        let ip = packet::load::<Ipv4Copied>(context, self.payload).ok_or(Unreadable)?;
        if ip.version_and_length >> 4 != 4 || ip.header_length() < size_of::<Ipv4Copied>() as u32 {
            return Err(Unreadable);
        }
        let [source, destination] =
            [ip.source, ip.destination].map(|address| Address::v4(address.to_ne_bytes()));
        self.addresses::<OUTBOUND>(Family::V4, source, destination);
        self.flow.protocol = ip.protocol;
        self.hop_limit = ip.ttl;
        self.payload = self.payload.wrapping_add(ip.header_length());
        if ip.is_later_fragment() {
            self.visible = Visible::LaterFragment;
        }
        Ok(())
    }

    #[inline(always)]
    fn read_ipv6<const OUTBOUND: bool>(&mut self, context: &TcContext) -> Result<(), Unreadable> {
        let ip = packet::load::<Ipv6Copied>(context, self.payload).ok_or(Unreadable)?;
        if ip.version_class_flow[0] >> 4 != 6 {
            return Err(Unreadable);
        }
        let [source, destination] = [ip.source, ip.destination].map(Address::from_words);
        self.addresses::<OUTBOUND>(Family::V6, source, destination);
        self.hop_limit = ip.hop_limit;
        self.payload = self.payload.wrapping_add(size_of::<Ipv6Copied>() as u32);
        let mut next = ip.next_header;
        for _ in 0..MAX_EXTENSIONS {
            if !protocol::is_options(next) && next != protocol::FRAGMENT {
                break;
            }
            // A fragment header has the offset where the others have options.
            let header = packet::load::<Ipv6Fragment>(context, self.payload).ok_or(Unreadable)?;
            let mut length = 8;
            if next != protocol::FRAGMENT {
                length = u32::from(header.reserved).wrapping_add(1).wrapping_mul(8);
            } else if u16::from_be_bytes(header.offset) & 0xfff8 != 0 {
                self.visible = Visible::LaterFragment;
            }
            next = header.next_header;
            self.payload = self.payload.wrapping_add(length);
            if self.visible == Visible::LaterFragment {
                break;
            }
        }
        // Headers beyond the limit, or such as only the first fragment shows.
        if protocol::is_options(next) || next == protocol::FRAGMENT {
            return Err(Unreadable);
        }
        self.flow.protocol = next;
        Ok(())
    }

    #[inline(always)]
    fn addresses<const OUTBOUND: bool>(
        &mut self,
        family: Family,
        source: Address,
        destination: Address,
    ) {
        let (local, remote) = if OUTBOUND { (source, destination) } else { (destination, source) };
        (self.flow.family, self.flow.local, self.flow.remote) = (family, local, remote);
    }

    #[inline(always)]
    fn read_ports<const OUTBOUND: bool>(&mut self, context: &TcContext) {
        if !protocol::has_ports(self.flow.protocol) {
            self.flow.ports = Ports::NONE;
            if self.visible != Visible::LaterFragment {
                self.visible = Visible::NoPorts;
            }
            return;
        }
        if self.visible == Visible::LaterFragment {
            return;
        }
        let Some([a, b, c, d]) = packet::load::<[u8; 4]>(context, self.payload) else { return };
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (self.local_port, self.remote_port) =
            if OUTBOUND { (source, destination) } else { (destination, source) };
        self.flow.ports = Ports::known(self.local_port, self.remote_port);
        self.visible = Visible::Ports;
    }

    /// Whether no rule applies to it, since without it there is no network to protect: neighbour
    /// discovery (RFC 4861, which never crosses a router) and DHCP. ARP is not IP at all.
    #[inline(always)]
    pub(crate) fn is_exempt(&self, context: &TcContext) -> bool {
        match self.visible {
            Visible::Ports => {
                self.flow.protocol == protocol::UDP
                    && port::is_dhcp(self.flow.family, self.local_port, self.remote_port)
            }
            Visible::NoPorts => {
                self.flow.protocol == protocol::ICMPV6
                    && self.hop_limit == u8::MAX
                    && matches!(packet::load::<[u8; 1]>(context, self.payload), Some([133..=137]))
            }
            Visible::Nothing | Visible::LaterFragment => false,
        }
    }
}
