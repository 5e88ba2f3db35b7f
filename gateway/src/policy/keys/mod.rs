//! The keys of the policy files: one table for the reader, the JSON schema and the manual.

mod gateway;
mod peer;
mod rule;

pub(super) use self::gateway::GATEWAY;
pub(super) use self::peer::PEER;
pub(super) use self::rule::RULE;

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
    /// A duration of a second or more, or zero for never.
    Interval,
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
    /// A string, or a list of strings.
    TextOrList,
}

#[cfg(test)]
impl Kind {
    /// The least and the most that the key takes, as they would stand in the file.
    pub(super) fn range(self) -> Option<(String, String)> {
        match self {
            Self::Number(least, most) => Some((least.to_string(), most.to_string())),
            Self::Time(least, most) => Some((format!("{least:?}"), format!("{most:?}"))),
            Self::Text
            | Self::Interval
            | Self::NumberOrText
            | Self::Flag
            | Self::Choice(_)
            | Self::List
            | Self::TextOrList => None,
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

use Kind::{List, Text};
use Otherwise::{Required, Words};

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

/// The largest integer of TOML, which has 64 bits with a sign.
pub(super) const MAX_INTEGER: u64 = 0x7fff_ffff_ffff_ffff;
