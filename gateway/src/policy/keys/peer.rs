//! Where a peer is, who it is and how it proves that.

use super::Kind::{Choice, Flag, Interval, List, Text, TextOrList};
use super::Otherwise::{Default, Required, Words};
use super::{CHILDLESS, EAP_IDENTITIES, Key, METHODS, PPK_USES, RENEWALS, REVOCATIONS, key};

/// The keys of `[peer.NAME]`.
pub(in crate::policy) const PEER: &[Key] = &[
    key(
        "address",
        TextOrList,
        Required,
        "The peer's address, or `\"any\"`: then only the peer can initiate. Or a list of up to 8, the \
         preferred one first: who does not answer at one is tried at the next, and may go on from \
         any of them.",
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
        Words(
            "the `address`; required if that is `\"any\"` or a list; with EAP of the peer any identity",
        ),
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
        "Algorithms for the IKE SA, best first. Of peers that may be at one address (`\"any\"`) the strongest suite that one of them has in common with the initiator is chosen, before it is known which one asks: give such peers the same.",
    ),
    key(
        "liveness",
        Interval,
        Default("\"30s\""),
        "After this long without a packet from the peer it is asked whether it lives; `\"0s\"`: never.",
    ),
    key(
        "lifetime",
        Interval,
        Default("\"4h\""),
        "The IKE SA is replaced after this long, less a random part of a tenth; it ends a tenth later, or a minute if that is more. `\"0s\"`: never.",
    ),
    key(
        "renewal",
        Choice(RENEWALS),
        Default("\"rekey\""),
        "How: `\"rekey\"` gives it new keys, `\"reauthenticate\"` makes another one, for which both prove anew who they are: that is for the end that began to do, and where it does not the IKE SA ends a tenth of its lifetime later.",
    ),
    key(
        "childless",
        Choice(CHILDLESS),
        Default("\"never\""),
        "Whether IKE_AUTH leaves the first Child SA out (RFC 6023), so that it has the key exchange that `esp-proposals` name as all others do: `\"prefer\"`, if the peer can; `\"require\"`, whoever begins, and a peer that cannot gets no IKE SA. With `\"never\"` only a peer that begins may leave it out. Rules whose `esp-proposals` have no key exchange are warned of.",
    ),
    key(
        "mobike",
        Flag,
        Default("true"),
        "Whether either end may go on from another address (MOBIKE, RFC 4555), if the peer can; IKE then goes by port 4500 even without NAT, and either end tells the other where else it is. A peer that begins and has an `address` here stays at that, or at one of those; with `local-address` we stay at that, and tell no others.",
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
