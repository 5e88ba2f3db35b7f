//! The table, as nftables wants to be told of it (linux/netfilter/nf_tables.h).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::{NatInterfaces, NatPrograms};
use crate::kernel::netlink::{Message, attribute};

/// The name of the table, in each family.
pub(super) const TABLE: &str = "ipsec-gateway";

/// The chain that decides about NAT.
const SOURCE: &str = "source";
/// The chain that drops what NAT would change.
const TRANSLATED: &str = "translated";
/// The chain that drops what must not come in the clear where NAT has led it.
const DESTINED: &str = "destined";

/// Where the one is among the chains that decide about source NAT: before all others. It must be
/// more than that of connection tracking, -200 (`nft_chain_validate_dependency` of type nat).
const FIRST: i32 = -199;
/// Where the other is: right before source NAT is done (`NF_IP_PRI_NAT_SRC`, 100).
const BEFORE_NAT: i32 = 99;
/// Where the third is: right after destination NAT is done (`NF_IP_PRI_NAT_DST`, -100).
const AFTER_NAT: i32 = -99;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
const BEGIN: u16 = 16;
/// `NFNL_MSG_BATCH_END`.
const END: u16 = 17;
/// `NFT_MSG_NEWTABLE`.
const NEW_TABLE: u16 = 0;
/// `NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = 1;
/// `NFT_MSG_DELTABLE`.
const DELETE_TABLE: u16 = 2;
/// `NFT_MSG_NEWCHAIN`.
const NEW_CHAIN: u16 = 3;
/// `NFT_MSG_NEWRULE`.
const NEW_RULE: u16 = 6;
/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;

/// `NF_INET_PRE_ROUTING`.
const PRE_ROUTING: u32 = 0;
/// `NF_INET_POST_ROUTING`.
const POST_ROUTING: u32 = 4;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `IPS_SRC_NAT`: the connection has another source than it began with.
const HAS_OTHER_SOURCE: u32 = 1 << 4;
/// `IPS_DST_NAT`: the connection has another destination than it began with.
const HAS_OTHER_DESTINATION: u32 = 1 << 5;

/// `NFT_REG_1`; `NFT_REG_VERDICT` is 0.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// An address family, and with it a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Where the source is in the network header, and how long it is, in octets.
    const fn source(self) -> (u32, u32) {
        match self {
            Self::V4 => (12, 4),
            Self::V6 => (8, 16),
        }
    }
}

/// Makes the table, in the place of one that exists.
pub(super) fn batch(
    family: Family,
    exists: bool,
    flags: u32,
    programs: &NatPrograms<'_>,
    NatInterfaces { underlays, xfrm }: &NatInterfaces,
) -> Vec<u8> {
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let mut all = Vec::new();
    if exists {
        all.extend(nftables(family, DELETE_TABLE, 0, &[text(1, TABLE)]));
    }
    all.extend(nftables(family, NEW_TABLE, new, &[text(1, TABLE), number(2, flags)]));
    for (name, kind, hook, priority) in [
        (SOURCE, "nat", POST_ROUTING, FIRST),
        (TRANSLATED, "filter", POST_ROUTING, BEFORE_NAT),
        (DESTINED, "filter", PRE_ROUTING, AFTER_NAT),
    ] {
        let hook = nested(4, &[number(1, hook), octets(2, &priority.to_be_bytes())]);
        let chain = [text(1, TABLE), text(3, name), hook, text(7, kind)];
        all.extend(nftables(family, NEW_CHAIN, new, &chain));
    }
    let rule = |chain, expressions: &[Vec<u8>]| {
        let rule = [text(1, TABLE), text(2, chain), nested(4, expressions)];
        nftables(family, NEW_RULE, NLM_F_CREATE | APPEND, &rule)
    };
    for interface in underlays.iter().chain([xfrm]) {
        let leaves_by_it = is_named(OIFNAME, interface);
        let keep = [leaves_by_it.clone(), asks(programs.keep_source), keeps_source(family)];
        all.extend(rule(SOURCE, &keep));
        // What answers has its source changed if the destination was; it is judged at TC egress.
        let changes = [is_of_first_direction(), is_translated(HAS_OTHER_SOURCE)].concat();
        let drop = [leaves_by_it, changes, asks(programs.drop_translated), drops()];
        all.extend(rule(TRANSLATED, &drop));
    }
    for interface in underlays {
        // Of what answers it is the destination that has changed with the source. What else has its
        // own still is judged as at TC ingress.
        let changed = is_translated(HAS_OTHER_SOURCE | HAS_OTHER_DESTINATION);
        // In transport mode what has been decrypted comes by the underlay once more
        // (`xfrm4_transport_finish`).
        let comes_clear_by_it = [is_named(IIFNAME, interface), was_not_encrypted()].concat();
        let drop = [comes_clear_by_it, changed, asks(programs.drop_destined), drops()];
        all.extend(rule(DESTINED, &drop));
    }
    enclosed(&all)
}

/// Removes the table.
pub(super) fn removal(family: Family) -> Vec<u8> {
    enclosed(&nftables(family, DELETE_TABLE, 0, &[text(1, TABLE)]))
}

/// Asks for the table.
pub(super) fn question(family: Family) -> Vec<u8> {
    nftables(family, GET_TABLE, 0, &[text(1, TABLE)])
}

/// Whether a message tells that the table was removed.
pub(super) fn removes(message: &Message<'_>) -> bool {
    // After `struct nfgenmsg`.
    let name = message.body.get(4..).and_then(|attributes| attribute(attributes, 1));
    message.kind == kind(DELETE_TABLE)
        && name.is_some_and(|name| name.strip_suffix(&[0]) == Some(TABLE.as_bytes()))
}

/// `NFT_META_IIFNAME`: by what it comes.
const IIFNAME: u32 = 6;
/// `NFT_META_OIFNAME`: by what it leaves.
const OIFNAME: u32 = 7;

/// `meta iifname` or `oifname` is this.
fn is_named(key: u32, interface: &str) -> Vec<u8> {
    let mut name = [0; libc::IFNAMSIZ];
    for (place, octet) in name.iter_mut().zip(interface.bytes()) {
        *place = octet;
    }
    [expression("meta", &[number(1, REGISTER), number(2, key)]), compare(EQUAL, &name)].concat()
}

/// `meta secpath missing`: no SA has been at it.
fn was_not_encrypted() -> Vec<u8> {
    const SECPATH: u32 = 25;
    [expression("meta", &[number(1, REGISTER), number(2, SECPATH)]), compare(EQUAL, &[0])].concat()
}

/// `ct direction original`.
fn is_of_first_direction() -> Vec<u8> {
    const DIRECTION: u32 = 1;
    [connection(DIRECTION), compare(EQUAL, &[0])].concat()
}

/// `ct status` has one of these.
fn is_translated(how: u32) -> Vec<u8> {
    const STATUS: u32 = 2;
    // The mask is compared with what the kernel has in its own order.
    let value = |octets_of: u32| octets(1, &octets_of.to_ne_bytes());
    let mask = expression(
        "bitwise",
        &[
            number(1, REGISTER),
            number(2, REGISTER),
            number(3, 4),
            nested(4, &[value(how)]),
            nested(5, &[value(0)]),
        ],
    );
    let is_set = compare(NOT_EQUAL, &0_u32.to_ne_bytes());
    [connection(STATUS), mask, is_set].concat()
}

/// Loads what the packet's connection has of this.
fn connection(key: u32) -> Vec<u8> {
    expression("ct", &[number(1, REGISTER), number(2, key)])
}

/// The match `bpf` (`struct xt_bpf_info_v1`): whether a program's result is not 0.
fn asks(program: BorrowedFd<'_>) -> Vec<u8> {
    const BY_DESCRIPTOR: u16 = 2;
    /// Of the structure, whose rest is for other ways to name a program.
    const LENGTH: usize = 528;
    let mut info = Vec::with_capacity(LENGTH);
    info.extend(BY_DESCRIPTOR.to_ne_bytes());
    info.extend([0; 2]);
    info.extend(program.as_raw_fd().to_ne_bytes());
    info.resize(LENGTH, 0);
    expression("match", &[text(1, "bpf"), number(2, 1), octets(3, &info)])
}

/// `snat to` the packet's own source.
fn keeps_source(family: Family) -> Vec<u8> {
    const NETWORK_HEADER: u32 = 1;
    const SOURCE_NAT: u32 = 0;
    let (offset, length) = family.source();
    let load =
        [number(1, REGISTER), number(2, NETWORK_HEADER), number(3, offset), number(4, length)];
    let nat = [number(1, SOURCE_NAT), number(2, family.number().into()), number(3, REGISTER)];
    [expression("payload", &load), expression("nat", &nat)].concat()
}

fn drops() -> Vec<u8> {
    let verdict = nested(2, &[number(1, DROP)]);
    expression("immediate", &[number(1, VERDICT), nested(2, &[verdict])])
}

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Goes on only if the register has, or has not, this value.
fn compare(how: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, how), nested(3, &[octets(1, value)])])
}

/// An element of a rule.
fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}

const fn kind(message: u16) -> u16 {
    NFTABLES << 8 | message
}

/// One message, after which an acknowledgement or an error comes.
fn nftables(family: Family, message: u16, flags: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
    encode(kind(message), flags, family.number(), 0, &attributes.concat())
}

/// Messages that are executed together or not at all.
fn enclosed(messages: &[u8]) -> Vec<u8> {
    let end = |kind| encode(kind, NLM_F_REQUEST, 0, NFTABLES, &[]);
    [&end(BEGIN), messages, &end(END)].concat()
}

/// `struct nlmsghdr`, `struct nfgenmsg`, attributes. Nobody looks at the sequence number.
fn encode(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 20;
    // All of it is a few thousand octets.
    let length = u32::try_from(attributes.len()).unwrap_or(u32::MAX).saturating_add(HEADERS);
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(attributes);
    message
}

/// An attribute, padded.
fn octets(kind: u16, value: &[u8]) -> Vec<u8> {
    // None is longer than a rule.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).saturating_add(4);
    let mut attribute = Vec::new();
    attribute.extend(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    octets(kind, &[value.as_bytes(), &[0]].concat())
}

/// Numbers go in network order.
fn number(kind: u16, value: u32) -> Vec<u8> {
    octets(kind, &value.to_be_bytes())
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    const NLA_F_NESTED: u16 = 1 << 15;
    octets(kind | NLA_F_NESTED, &attributes.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::messages;

    #[test]
    fn only_the_removal_of_our_table_is_one() {
        let told = |kind, table: &str| {
            let octets = encode(kind, 0, 2, 0, &text(1, table));
            messages(&octets).any(|message| removes(&message))
        };
        assert!(told(kind(DELETE_TABLE), TABLE));
        assert!(!told(kind(DELETE_TABLE), "ipsec-gateway2") && !told(kind(DELETE_TABLE), "nat"));
        assert!(!told(kind(NEW_TABLE), TABLE));
    }

    #[test]
    fn a_message_cut_anywhere_removes_nothing() {
        let whole = encode(kind(DELETE_TABLE), 0, 2, 0, &text(1, TABLE));
        for end in 0..whole.len() {
            assert!(!messages(&whole[..end]).any(|message| removes(&message)), "cut at {end}");
        }
    }
}
