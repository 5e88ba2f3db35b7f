//! Which traffic, and what becomes of it.

use super::Kind::{Choice, Flag, Interval, List, Number, NumberOrText, Text};
use super::Otherwise::{Default, Required, Words};
use super::{ACTIONS, Key, MAX_INTEGER, MODES, STARTS, key};

/// The keys of `[rule.NAME]`.
pub(in crate::policy) const RULE: &[Key] = &[
    key(
        "action",
        Choice(ACTIONS),
        Required,
        "`\"protect\"`: only through IPsec; `\"bypass\"`: in the clear; `\"discard\"`: not at all.",
    ),
    key(
        "local",
        List,
        Required,
        "Prefixes on our side; or `[\"assigned\"]`, what the peer assigns to us (`request-address`).",
    ),
    key("remote", List, Required, "Prefixes on the other side, of the same families."),
    key(
        "protocol",
        NumberOrText,
        Words("any"),
        "IP protocol: a number from 1 to 254 or a name such as `\"tcp\"`.",
    ),
    key(
        "local-ports",
        NumberOrText,
        Words("every port"),
        "Port or range (`\"8000-8999\"`) on our side; needs protocol tcp, udp or sctp.",
    ),
    key("remote-ports", NumberOrText, Words("every port"), "Port or range on the other side."),
    key(
        "priority",
        Number(0, 0xffff),
        Default("1000"),
        "Among overlapping rules the lowest number applies.",
    ),
    key(
        "peer",
        Text,
        Words("required for `protect`"),
        "The peer, a name of `[peer.NAME]`; for `protect` only, as are all keys below.",
    ),
    key(
        "mode",
        Choice(MODES),
        Default("\"tunnel\""),
        "`\"tunnel\"`, or `\"transport\"` between the two gateways themselves.",
    ),
    key(
        "start",
        Choice(STARTS),
        Words(
            "`\"on-demand\"`; `\"always\"` if `local` is assigned; `\"respond\"` if the peer's address is `\"any\"` or it authenticates by EAP",
        ),
        "When the SA is made: `\"on-demand\"` (traffic wants it), `\"always\"` (at once, and again when lost), `\"respond\"` (the peer asks).",
    ),
    key(
        "quantum-safe",
        Flag,
        Default("false"),
        "Whether the SA must come from a [quantum-safe](#quantum-safety) IKE SA.",
    ),
    key(
        "esp-proposals",
        List,
        Words("see [Proposals](#proposals)"),
        "Algorithms for ESP, best first.",
    ),
    key(
        "lifetime",
        Interval,
        Default("\"1h\""),
        "The SA is replaced after this long, less a random part of a tenth, as are the two limits below; it ends a tenth later, or a minute if that is more. `\"0s\"`: never.",
    ),
    key(
        "lifetime-bytes",
        NumberOrText,
        Default("0"),
        "The SA is replaced after so many octets, such as `\"500GB\"`; 0: no limit.",
    ),
    key(
        "lifetime-packets",
        Number(0, MAX_INTEGER),
        Default("0"),
        "The SA is replaced after so many packets; 0: no limit. Without extended sequence numbers, which a peer may not have, after 3,221,225,472 at most.",
    ),
];
