//! What the kernel says, from netlink messages.
//!
//! The fixed structures are parsed by the crate, which checks their length; whole messages are
//! not given to it, because it slices them unchecked. A message that is too short is ignored.

use core::net::IpAddr;

use gateway_ike::config::Mode;
use gateway_ike::io::KernelEvent;
use ipnet::IpNet;
use netlink_packet_xfrm::{
    AF_INET, AF_INET6, Address, IPPROTO_DCCP, IPPROTO_ESP, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP,
    Selector, UserAcquire, UserExpire, UserPolicyInfo, UserSaInfo, UserTemplate,
    XFRM_MODE_TRANSPORT, XFRM_MSG_ACQUIRE, XFRM_MSG_EXPIRE, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA,
    XFRM_MSG_UPDSA, XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_USER_ACQUIRE_LEN,
    XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_INFO_LEN, XFRMA_IF_ID, XFRMA_LASTUSED, XFRMA_TMPL,
};

use super::{Ours, PolicyDirection, PolicyKey, PortBlock, SaId, encode};
use crate::kernel::netlink::{Message, NetlinkError, attribute, attribute_u32};

/// Octets of `struct xfrm_user_expire`.
const EXPIRE_LEN: usize = XFRM_USER_SA_INFO_LEN + 8;
/// UDP-Lite (RFC 3828) has ports too.
const IPPROTO_UDPLITE: u8 = 136;

/// What went through an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Octets, as the kernel counts them.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// When the last one did, in seconds since 1970; `None`: never, or the kernel does not tell.
    pub last_used: Option<u64>,
    /// Whether the kernel keeps a direction for the SA (`XFRMA_SA_DIR`).
    pub has_direction: bool,
    /// Seconds without a packet after which the kernel sends a keepalive; `None`: it sends none.
    pub keepalive: Option<u32>,
}

/// An SA; the inner `None`: it is not ours, or none of ESP. The outer `None`: not an SA.
pub(super) fn sa(message: &Message<'_>, ours: Ours) -> Option<Option<(SaId, Usage)>> {
    if message.kind != XFRM_MSG_NEWSA {
        return None;
    }
    let info = UserSaInfo::parse(message.body).ok()?;
    let attributes = message.body.get(XFRM_USER_SA_INFO_LEN..)?;
    // Somebody's AH may have the SPI and the destination of an SA of ours.
    if info.id.proto != IPPROTO_ESP || !ours.has(if_id(attributes), info.mode, info.reqid) {
        return Some(None);
    }
    let usage = Usage {
        bytes: info.lifetime_cur.bytes,
        packets: info.lifetime_cur.packets,
        last_used: attribute(attributes, XFRMA_LASTUSED)
            .and_then(|value| value.first_chunk().copied())
            .map(u64::from_ne_bytes),
        has_direction: attribute(attributes, encode::XFRMA_SA_DIR).is_some(),
        keepalive: attribute_u32(attributes, encode::XFRMA_NAT_KEEPALIVE_INTERVAL),
    };
    Some(Some((sa_id(&info)?, usage)))
}

/// What a dump tells of the use of one SA; `None`: it is not ours.
///
/// # Errors
/// It cannot be read. To leave it out would say that the SA is not there.
pub(super) fn usage(
    message: &Message<'_>,
    ours: Ours,
) -> Result<Option<(SaId, Usage)>, NetlinkError> {
    sa(message, ours).ok_or(NetlinkError::Malformed("no SA, or too short"))
}

/// What a dump shows of one SA of ours.
pub(super) enum Seen {
    /// Traffic that met a trap waits for it: the event that told so, once more.
    Larval(KernelEvent),
    /// It is there; with the event that tells of a soft limit, if it is beyond one.
    Sa(SaId, Option<KernelEvent>),
}

/// An SA of ours as a dump shows it; `now` in seconds since 1970.
pub(super) fn seen(message: &Message<'_>, ours: Ours, now: u64) -> Option<Seen> {
    let (id, _) = sa(message, ours)??;
    let info = UserSaInfo::parse(message.body).ok()?;
    if id.spi == 0 {
        return acquired(&info.selector, info.reqid, info.seq).map(Seen::Larval);
    }
    let (limits, used) = (&info.lifetime_cfg, &info.lifetime_cur);
    let age = now.saturating_sub(used.add_time);
    let is_over = used.bytes >= limits.soft_byte_limit
        || used.packets >= limits.soft_packet_limit
        || limits.soft_add_expires_seconds != 0 && age >= limits.soft_add_expires_seconds;
    let SaId { destination, spi } = id;
    Some(Seen::Sa(id, is_over.then_some(KernelEvent::Expire { spi, destination, hard: false })))
}

/// A larval state of ours.
pub(super) fn larval(message: &Message<'_>, ours: Ours) -> Option<UserSaInfo> {
    sa(message, ours)?.filter(|(id, _)| id.spi == 0)?;
    UserSaInfo::parse(message.body).ok()
}

/// A policy of ours with its priority.
pub(super) fn policy(message: &Message<'_>, ours: Ours) -> Option<(PolicyKey, u32)> {
    if message.kind != XFRM_MSG_NEWPOLICY {
        return None;
    }
    let info = UserPolicyInfo::parse(message.body).ok()?;
    let attributes = message.body.get(XFRM_USER_POLICY_INFO_LEN..)?;
    // A policy without a template blocks, or lets pass: none of ours.
    let template = UserTemplate::parse(attribute(attributes, XFRMA_TMPL)?).ok()?;
    if !ours.has(if_id(attributes), template.mode, template.reqid) {
        return None;
    }
    let selector = &info.selector;
    let prefix = |address: &Address, length| IpNet::new(ip(selector.family, address)?, length).ok();
    let key = PolicyKey {
        mode: if template.mode == XFRM_MODE_TRANSPORT { Mode::Transport } else { Mode::Tunnel },
        direction: match info.direction {
            XFRM_POLICY_IN => PolicyDirection::In,
            XFRM_POLICY_OUT => PolicyDirection::Out,
            XFRM_POLICY_FWD => PolicyDirection::Forward,
            // The policy of a socket.
            _ => return None,
        },
        source: prefix(&selector.saddr, selector.prefixlen_s)?,
        destination: prefix(&selector.daddr, selector.prefixlen_d)?,
        protocol: (selector.proto != 0).then_some(selector.proto),
        source_ports: PortBlock { value: selector.sport, mask: selector.sport_mask },
        destination_ports: PortBlock { value: selector.dport, mask: selector.dport_mask },
    };
    Some((key, info.priority))
}

/// Whether it is of an ESP SA that somebody else has, and that may have to do with what comes by an
/// underlay. In which direction it goes the kernel need not know.
pub(in crate::kernel) fn is_of_others(message: &Message<'_>, ours: Ours) -> bool {
    if !matches!(message.kind, XFRM_MSG_NEWSA | XFRM_MSG_UPDSA) {
        return false;
    }
    let (Ok(info), Some(attributes)) =
        (UserSaInfo::parse(message.body), message.body.get(XFRM_USER_SA_INFO_LEN..))
    else {
        return false;
    };
    let is_here = sa_id(&info).is_some_and(|id| id.spi != 0 && !id.destination.is_loopback());
    info.id.proto == IPPROTO_ESP && is_here && !ours.has(if_id(attributes), info.mode, info.reqid)
}

/// An acquire or expire that concerns us.
pub(in crate::kernel) fn event(message: &Message<'_>, ours: Ours) -> Option<KernelEvent> {
    match message.kind {
        XFRM_MSG_ACQUIRE => acquire(message.body, ours),
        XFRM_MSG_EXPIRE => expire(message.body, ours),
        _ => None,
    }
}

fn acquire(body: &[u8], ours: Ours) -> Option<KernelEvent> {
    let acquire = UserAcquire::parse(body).ok()?;
    let attributes = body.get(XFRM_USER_ACQUIRE_LEN..)?;
    let template = UserTemplate::parse(attribute(attributes, XFRMA_TMPL)?).ok()?;
    if !ours.has(if_id(attributes), template.mode, template.reqid) {
        return None;
    }
    acquired(&acquire.selector, template.reqid, acquire.seq)
}

/// The acquire for a packet: its selector is all that is kept of it.
fn acquired(packet: &Selector, reqid: u32, seq: u32) -> Option<KernelEvent> {
    let has_ports = matches!(
        packet.proto,
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP | IPPROTO_DCCP | IPPROTO_UDPLITE
    );
    // For ICMP the kernel puts type and code in the place of ports.
    let port = |port| if has_ports { port } else { 0 };
    Some(KernelEvent::Acquire {
        reqid,
        seq,
        source: ip(packet.family, &packet.saddr)?,
        destination: ip(packet.family, &packet.daddr)?,
        protocol: packet.proto,
        source_port: port(packet.sport),
        destination_port: port(packet.dport),
    })
}

fn expire(body: &[u8], ours: Ours) -> Option<KernelEvent> {
    let expire = UserExpire::parse(body).ok()?;
    let attributes = body.get(EXPIRE_LEN..)?;
    if !ours.has(if_id(attributes), expire.state.mode, expire.state.reqid) {
        return None;
    }
    let SaId { destination, spi } = sa_id(&expire.state)?;
    // Larval states expire too, when nobody answers their acquire.
    (spi != 0).then_some(KernelEvent::Expire { spi, destination, hard: expire.hard != 0 })
}

/// The `if_id`; the kernel leaves it out where it is 0, which is none.
fn if_id(attributes: &[u8]) -> u32 {
    attribute_u32(attributes, XFRMA_IF_ID).unwrap_or(0)
}

fn sa_id(info: &UserSaInfo) -> Option<SaId> {
    Some(SaId { destination: ip(info.family, &info.id.daddr)?, spi: info.id.spi })
}

pub(super) fn ip(family: u16, address: &Address) -> Option<IpAddr> {
    match family {
        AF_INET => address.addr.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        AF_INET6 => Some(IpAddr::from(address.addr)),
        _ => None,
    }
}
