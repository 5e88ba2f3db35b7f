//! What this gateway does on the whole.

use super::Kind::{List, Number, Text, Time};
use super::Otherwise::{Default, Words};
use super::{Key, key};

/// The keys of `[gateway]`.
pub(in crate::policy) const GATEWAY: &[Key] = &[
    key(
        "interfaces",
        List,
        Words("the interfaces with a default route"),
        "The underlay: network interfaces on which protected traffic leaves and arrives.",
    ),
    key("xfrm-interface", Text, Default("\"ipsec0\""), "Name of the XFRM interface."),
    key(
        "if-id",
        Number(1, 0xffff_ffff),
        Default("71"),
        "XFRM interface ID of that interface, and of the SAs and policies of tunnel mode.",
    ),
    key(
        "pin-dir",
        Text,
        Default("\"/sys/fs/bpf/gateway\""),
        "Directory on bpffs where programs, links and maps are pinned.",
    ),
    key(
        "control-socket",
        Text,
        Default("\"/run/gateway/control.sock\""),
        "Unix socket on which `gateway status` asks.",
    ),
    key(
        "state-dir",
        Text,
        Default("\"/var/lib/gateway\""),
        "Directory of what outlives a restart: the secret by which peers learn at once of a crash.",
    ),
    key(
        "resolv-conf",
        Text,
        Words("nowhere"),
        "Where the name servers that peers tell us are written, in the format of resolv.conf(5). See [Name servers from a peer](#name-servers-from-a-peer).",
    ),
    key(
        "retransmit-initial",
        Time("100ms", "1m"),
        Default("\"1s\""),
        "Time until the first retransmission; each further one waits 1.8 times as long.",
    ),
    key(
        "retransmit-tries",
        Number(1, 20),
        Default("6"),
        "Retransmissions before a peer is given up. A MOBIKE peer of any address is given up after five minutes at the earliest.",
    ),
    key(
        "cookie-threshold",
        Number(0, 1_000_000),
        Default("64"),
        "Half-open IKE SAs above which an initiator must return a cookie.",
    ),
    key(
        "init-size-limit",
        Number(2048, 65_535),
        Default("8192"),
        "Octets of an IKE_SA_INIT message above which it is dropped.",
    ),
    key(
        "half-open-limit",
        Number(1, 1_000_000),
        Default("4096"),
        "Half-open IKE SAs above which one of the address (IPv6: of the /48) that has most gives its place to an initiator that has returned a cookie.",
    ),
    key(
        "half-open-address-limit",
        Number(1, 1_000_000),
        Default("256"),
        "Half-open IKE SAs of one address (IPv6: of one /64) above which its initiators must return a cookie; of those that did, above which requests for more are dropped.",
    ),
    key(
        "half-open-timeout",
        Time("1s", "5m"),
        Default("\"30s\""),
        "A half-open IKE SA is dropped after this long, and so is what is left of one that is over.",
    ),
    key(
        "ike-sa-limit",
        Number(1, 1_000_000),
        Default("65536"),
        "IKE SAs above which requests for more are dropped.",
    ),
    key(
        "peer-ike-sa-limit",
        Number(2, 1_000_000),
        Default("64"),
        "IKE SAs with one identity (a peer; with EAP, a user) above which the oldest is deleted. Clients that share an identity share this too.",
    ),
    key(
        "unprotected-answer-rate",
        Number(0, 1_000_000),
        Default("100"),
        "Errors a second that are answered, and refusals explained, to messages that nothing protects; 0: none, and refusals do not make initiators return cookies.",
    ),
    key(
        "child-sa-limit",
        Number(1, 65_536),
        Default("256"),
        "SAs of rules on one IKE SA above which the peer is refused more; it may replace those it has.",
    ),
    key(
        "peer-child-sa-limit",
        Number(1, 1_000_000),
        Default("1024"),
        "SAs of rules on all IKE SAs of one identity above which it is refused more; it may replace those it has.",
    ),
    key(
        "job-limit",
        Number(16, 1_000_000),
        Default("16384"),
        "SAs of rules that wait on one IKE SA to be made or deleted, above which more are not made, and it is deleted if more are to be deleted.",
    ),
    key(
        "certificate-chain-limit",
        Number(1, 7),
        Default("7"),
        "Certificates that a peer may send, its own included. A chain with more than six of authorities is never followed.",
    ),
    key(
        "certificate-size-limit",
        Number(1024, 65_535),
        Default("16384"),
        "Octets that each of them may have.",
    ),
    key("eap-timeout", Time("1s", "10m"), Default("\"1m\""), "EAP must end after this long."),
    key(
        "eap-round-limit",
        Number(3, 1000),
        Default("50"),
        "Messages of a peer above which EAP is given up.",
    ),
    key(
        "eap-message-limit",
        Number(4096, 1_048_576),
        Default("65536"),
        "Octets of one message of EAP-TLS, which comes in pieces.",
    ),
    key("replay-window", Number(32, 4096), Default("128"), "Replay window of each SA, in packets."),
    key(
        "keepalive-interval",
        Text,
        Default("\"20s\""),
        "Behind NAT, a keepalive is sent after this long without an IKE message of ours, or by the kernel (6.11 and newer) without a packet of a Child SA; `\"0s\"`: never.",
    ),
    key(
        "fragment-size",
        Number(0, 65_535),
        Default("1280"),
        "IKE messages that would make longer IP packets than so many octets (200 or more) are sent in fragments, if the peer can; 0: no fragments in either direction.",
    ),
    key(
        "reassembly-limit",
        Number(4096, 1_048_576),
        Default("32768"),
        "Octets kept for each IKE SA and direction of a message of which fragments are missing; also of one without fragments, of an initiator that is not authenticated.",
    ),
    key(
        "reassembly-timeout",
        Time("1s", "10m"),
        Default("\"1m\""),
        "A message of which fragments are missing is dropped after this long.",
    ),
    key(
        "peer-log-rate",
        Number(1, 10_000),
        Default("50"),
        "Log lines a second that one peer, with EAP one user, can cause; ten times as many at once.",
    ),
    key(
        "stranger-log-rate",
        Number(1, 10_000),
        Default("5"),
        "Log lines a second that all who are not authenticated can cause together; ten times as many at once.",
    ),
    key(
        "refusals-kept",
        Number(0, 1000),
        Default("64"),
        "Refusals kept for `gateway status`: so many of peers, and so many of all who are not authenticated.",
    ),
];
