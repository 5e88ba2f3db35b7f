//! The keys of the policy files: one table for the reader, the JSON schema and the manual.

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// What kind of value it takes.
    pub(super) kind: Kind,
    /// What holds without it.
    pub(super) otherwise: Otherwise,
    /// What it means.
    pub(super) meaning: &'static str,
}

/// What kind of value a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A duration from the first to the second.
    Time(&'static str, &'static str),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A whole number, or a string with a unit or a name.
    NumberOrText,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings.
    List,
}

#[cfg(test)]
impl Kind {
    /// The least and the most that the key takes, as they would stand in the file.
    pub(super) fn range(self) -> Option<(String, String)> {
        match self {
            Number(least, most) => Some((least.to_string(), most.to_string())),
            Time(least, most) => Some((format!("{least:?}"), format!("{most:?}"))),
            Text | NumberOrText | Flag | Choice(_) | List => None,
        }
    }
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise {
    /// Nothing: that is an error.
    Required,
    /// This value, as it would stand in the file.
    Default(&'static str),
    /// What these words say.
    Words(&'static str),
}

use Kind::{Choice, Flag, List, Number, NumberOrText, Text, Time};
use Otherwise::{Default, Required, Words};

/// The words of `action`.
pub(super) const ACTIONS: &[&str] = &["protect", "bypass", "discard"];
/// The words of `mode`.
pub(super) const MODES: &[&str] = &["tunnel", "transport"];
/// The words of `ppk`.
pub(super) const PPK_USES: &[&str] = &["required", "optional"];
/// The words of `start`.
pub(super) const STARTS: &[&str] = &["on-demand", "always", "respond"];
/// The words of `request-address`.
pub(super) const FAMILIES: &[&str] = &["ipv4", "ipv6"];
/// The words of `renewal`.
pub(super) const RENEWALS: &[&str] = &["rekey", "reauthenticate"];

/// The words of `childless`.
pub(super) const CHILDLESS: &[&str] = &["never", "prefer", "require"];

/// The words of `auth` and `remote-auth`.
pub(super) const METHODS: &[&str] = &["psk", "certificate", "public-key", "eap"];
/// The words of `revocation`.
pub(super) const REVOCATIONS: &[&str] = &["strict", "if-available", "off"];
/// The words of `eap-remote-identity`.
const EAP_IDENTITIES: &[&str] = &["ike", "ask"];
/// The words of `eap-methods`, in the order of [`gateway_ike::config::EapMethod::ALL`].
pub(super) const EAP_METHODS: &[&str] = &["tls", "mschapv2", "md5"];

/// The proposals of a peer that names none: quantum-safe first, then AEAD for peers that cannot do
/// additional key exchanges (which refuse a proposal with such transforms as a whole: RFC 7296
/// 3.3.6), then CBC for those that lack AEAD.
pub(super) const IKE_PROPOSALS: &[&str] = &[
    "aes256gcm16-chacha20poly1305-aes128gcm16-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384-ke1_mlkem768-ke1_mlkem1024-ke1_mlkem512",
    "aes256gcm16-chacha20poly1305-aes128gcm16-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384-ecp521-modp2048",
    "aes256-aes128-sha256-sha384-sha512-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384-ecp521-modp2048",
];
/// The proposals of a rule that names none.
pub(super) const ESP_PROPOSALS: &[&str] = &[
    "aes256gcm16-aes128gcm16-chacha20poly1305-x25519-ecp256-ecp384-modp2048-none",
    "aes256-aes128-sha256-sha384-sha512-x25519-ecp256-ecp384-modp2048-none",
];

const fn key(name: &'static str, kind: Kind, otherwise: Otherwise, meaning: &'static str) -> Key {
    Key { name, kind, otherwise, meaning }
}

/// The tables of a file.
pub(super) const FILE: &[Key] = &[
    key("gateway", Text, Words("the defaults"), "Settings of this gateway; in one file only."),
    key("peer", Text, Words("no peers"), "The other gateways, by name."),
    key("pool", Text, Words("no pools"), "Addresses for peers that ask, by name."),
    key("user", Text, Words("no users"), "Who may authenticate by EAP, by name."),
    key("rule", Text, Words("no rules"), "Which traffic, and what becomes of it, by name."),
];

/// The keys of `[gateway]`.
pub(super) const GATEWAY: &[Key] = &[
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
        "half-open-limit",
        Number(1, 1_000_000),
        Default("4096"),
        "Half-open IKE SAs above which requests for more are dropped.",
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
        "Errors a second that are answered to messages that nothing protects.",
    ),
    key(
        "child-sa-limit",
        Number(1, 65_536),
        Default("256"),
        "SAs of rules on one IKE SA above which the peer is refused more; it may replace those it has.",
    ),
    key(
        "job-limit",
        Number(16, 1_000_000),
        Default("16384"),
        "SAs of rules that wait on one IKE SA to be made or deleted, above which more are not made, and it is deleted if more are to be deleted.",
    ),
    key(
        "certificate-chain-limit",
        Number(1, 32),
        Default("8"),
        "Certificates that a peer may send, its own included.",
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
        "Octets kept for each IKE SA and direction of a message of which fragments are missing.",
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
        "Log lines a second that one peer can cause; ten times as many at once.",
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

/// The keys of `[peer.NAME]`.
pub(super) const PEER: &[Key] = &[
    key(
        "address",
        Text,
        Required,
        "The peer's address, or `\"any\"`: then only the peer can initiate.",
    ),
    key(
        "local-address",
        Text,
        Words("the one that the routing table chooses"),
        "Our address towards the peer.",
    ),
    key(
        "local-id",
        Text,
        Words(
            "with `auth = \"eap\"` the `eap-identity`, else the `local-address`; required without either",
        ),
        "Who we say we are: an address, a domain name, `user@host`, `keyid:HEX` or a distinguished name such as `C=DE, O=Example, CN=gw-a`.",
    ),
    key(
        "remote-id",
        Text,
        Words("the `address`; required if that is `\"any\"`; with EAP of the peer any identity"),
        "Who the peer must prove to be, in the same forms.",
    ),
    key(
        "auth",
        Choice(METHODS),
        Default("\"psk\""),
        "How we prove who we are: `\"psk\"`, `\"certificate\"`, `\"public-key\"` for a key without certificate, or, where we initiate, `\"eap\"`. See [Authentication](#authentication).",
    ),
    key("remote-auth", Choice(METHODS), Words("as `auth`"), "How the peer must prove who it is."),
    key(
        "psk-file",
        Text,
        Words("required for `psk`"),
        "File with the key that both ends share; a relative path starts from the directory of the policy file, here and below.",
    ),
    key(
        "certificate",
        Text,
        Words("required for `auth = \"certificate\"` and EAP method `\"tls\"`"),
        "PEM file with our certificate, then those that lead to its authority.",
    ),
    key(
        "private-key",
        Text,
        Words("required with `certificate` and for `auth = \"public-key\"`"),
        "PEM file with our key in PKCS#8, which nobody else may read.",
    ),
    key(
        "ca",
        List,
        Words("required for `remote-auth = \"certificate\"` and EAP method `\"tls\"`"),
        "PEM files with the authorities whose certificates the peer may show, or with its own self-signed certificate.",
    ),
    key("crl", List, Words("no lists"), "Files with revocation lists, PEM or DER."),
    key(
        "ocsp",
        List,
        Words("no responses"),
        "Files with OCSP responses, each the DER of one, as `openssl ocsp -respout` writes it.",
    ),
    key(
        "revocation",
        Choice(REVOCATIONS),
        Words("`\"if-available\"`"),
        "`\"strict\"`: a current list must cover each certificate of the chain, or a current response say that it is good; `\"if-available\"`: what a list or response revokes is refused; `\"off\"`.",
    ),
    key(
        "remote-public-key",
        Text,
        Words("required for `remote-auth = \"public-key\"`"),
        "PEM file with the peer's public key.",
    ),
    key(
        "signature-schemes",
        List,
        Words("all, see [Authentication](#authentication)"),
        "How either end may sign, best first.",
    ),
    key(
        "eap-methods",
        List,
        Words("required for `eap`"),
        "EAP methods, best first: `\"tls\"`, `\"mschapv2\"`, `\"md5\"`.",
    ),
    key("eap-identity", Text, Words("the `local-id`"), "Our name for EAP."),
    key(
        "eap-password-file",
        Text,
        Words("required for `auth = \"eap\"` with a password"),
        "File with our password.",
    ),
    key(
        "eap-remote-identity",
        Choice(EAP_IDENTITIES),
        Words("`\"ike\"`"),
        "Where the peer's name for EAP comes from: `\"ike\"`, its IKE identity, or `\"ask\"`, from the peer by EAP.",
    ),
    key(
        "ppk-file",
        Text,
        Words("no PPK"),
        "File with a post-quantum pre-shared key (RFC 8784), in the form of `psk-file`.",
    ),
    key("ppk-id", Text, Words("required with `ppk-file`"), "By which both ends call that key."),
    key(
        "ppk",
        Choice(PPK_USES),
        Words("`\"required\"`"),
        "`\"required\"`: no IKE SA without that key; `\"optional\"`: without it, if the peer does not have it.",
    ),
    key(
        "quantum-safe",
        Flag,
        Default("false"),
        "Whether every IKE SA must be [quantum-safe](#quantum-safety).",
    ),
    key(
        "ike-proposals",
        List,
        Words("see [Proposals](#proposals)"),
        "Algorithms for the IKE SA, best first.",
    ),
    key(
        "liveness",
        Text,
        Default("\"30s\""),
        "After this long without a packet from the peer it is asked whether it lives; `\"0s\"`: never.",
    ),
    key(
        "lifetime",
        Text,
        Default("\"4h\""),
        "The IKE SA is replaced after this long, less a random part of a tenth; it ends a tenth later, or a minute if that is more. `\"0s\"`: never.",
    ),
    key(
        "renewal",
        Choice(RENEWALS),
        Default("\"rekey\""),
        "How: `\"rekey\"` gives it new keys, `\"reauthenticate\"` makes another one, for which both prove anew who they are.",
    ),
    key(
        "childless",
        Choice(CHILDLESS),
        Default("\"never\""),
        "Whether IKE_AUTH leaves the first Child SA out (RFC 6023), so that it has the key exchange that `esp-proposals` name as all others do: `\"prefer\"`, if the peer can; `\"require\"`, whoever begins, and a peer that cannot gets no IKE SA. With `\"never\"` only a peer that begins may leave it out.",
    ),
    key(
        "mobike",
        Flag,
        Default("true"),
        "Whether either end may go on from another address (MOBIKE, RFC 4555), if the peer can; IKE then goes by port 4500 even without NAT, and either end tells the other where else it is. A peer that begins and has an `address` here stays at that; with `local-address` we stay at that, and tell no others.",
    ),
    key(
        "pool",
        Text,
        Words("none"),
        "The peer must ask for addresses, and gets its own from this pool, a name of `[pool.NAME]`; only with `address = \"any\"`.",
    ),
    key(
        "request-address",
        List,
        Words("no request"),
        "Of which families we ask the peer for an address of our own: `\"ipv4\"`, `\"ipv6\"`. See [Addresses from a peer](#addresses-from-a-peer).",
    ),
];

/// The keys of `[pool.NAME]`.
pub(super) const POOL: &[Key] = &[
    key("addresses", List, Required, "Prefixes that addresses are taken from."),
    key("dns", List, Words("none"), "Addresses of name servers that the peer is told."),
];

/// The keys of `[user.NAME]`.
pub(super) const USER: &[Key] = &[key(
    "password-file",
    Text,
    Required,
    "File with the user's password; a relative path starts from the directory of the policy file.",
)];

/// The keys of `[rule.NAME]`.
pub(super) const RULE: &[Key] = &[
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
        Text,
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
        "The SA is replaced after so many packets; 0: no limit.",
    ),
];

/// The largest integer of TOML, which has 64 bits with a sign.
pub(super) const MAX_INTEGER: u64 = 0x7fff_ffff_ffff_ffff;
