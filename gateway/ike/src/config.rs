//! What the operator wants, validated and immutable: peers, rules and limits.
//!
//! The file form of this (TOML, with positions for error messages) is in the daemon's `policy`
//! module; a value of these types has already been checked there.

use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::algorithms::{EspProposal, IkeProposal, SignatureScheme};
use crate::crypto::signature::{PublicKey, SigningKey};
use crate::crypto::x509::{Credential, DistinguishedName, Trust};
pub use crate::eap::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, User, UserName, Users,
};

/// The name of a peer in the policy files.
pub type PeerName = Arc<str>;
/// The name of a rule in the policy files.
pub type RuleName = Arc<str>;

/// Everything that one load of the policy files yields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The peers, by name.
    pub peers: BTreeMap<PeerName, Arc<PeerConfig>>,
    /// The users who may authenticate by EAP, by name.
    pub users: Users,
    /// The rules, by name. Which of two overlapping rules applies: [`Rule::precedence`].
    pub rules: BTreeMap<RuleName, Arc<Rule>>,
}

/// Addresses that we assign to peers that ask (RFC 7296 2.19).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the policy files.
    pub name: Arc<str>,
    /// The prefixes that addresses are taken from; never empty.
    pub addresses: Vec<IpNet>,
    /// Name servers that the peer is told.
    pub dns: Vec<IpAddr>,
}

/// One peer: where it is, who it is and how it proves that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name in the policy files, logs and status.
    pub name: PeerName,
    /// Our address towards it; `None`: the one the routing table chooses.
    pub local_address: Option<IpAddr>,
    /// Its address; `None`: any, so that only it can initiate.
    pub remote_address: Option<IpAddr>,
    /// Who we say we are (IDi or IDr).
    pub local_id: Identity,
    /// Who it must prove to be.
    pub remote_id: Identity,
    /// How we prove who we are.
    pub local_auth: LocalAuth,
    /// How it must prove who it is.
    pub remote_auth: RemoteAuth,
    /// How either end may sign, best first; of use only where a method above is a signature.
    pub signature_schemes: Vec<SignatureScheme>,
    /// A further key against quantum computers.
    pub ppk: Option<Ppk>,
    /// Whether an IKE SA with it must be quantum-safe: then `proposals` has only such that are,
    /// or the PPK is required.
    pub quantum_safe: bool,
    /// IKE proposals, best first; never empty.
    pub proposals: Vec<IkeProposal>,
    /// After this long without an inbound packet on any of its SAs the peer is asked whether it
    /// lives (RFC 7296 2.4); zero: never.
    pub liveness_interval: Duration,
    /// The IKE SA is replaced after this long, less a random part of a tenth; it dies at
    /// [`hard_limit`]. Zero: never.
    pub lifetime: Duration,
    /// How it is replaced.
    pub renewal: Renewal,
    /// Whether MOBIKE (RFC 4555) is spoken if the peer does, so that either end may come to other
    /// addresses.
    pub mobike: bool,
    /// It must ask for addresses, and gets them from here; nothing but traffic of these passes.
    pub pool: Option<Arc<Pool>>,
    /// The families of which we ask it for an address, as initiator; without one there is no
    /// Child SA.
    pub request_address: Families,
}

/// Some of the two address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether it is neither.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }

    /// Whether an address's family is among them.
    #[must_use]
    pub const fn contain(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// How an IKE SA that has lived its time is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// By new keys, under the protection of the old (RFC 7296 1.3.2); either end may begin.
    Rekey,
    /// By another IKE SA for which both ends prove anew who they are (RFC 7296 2.8.3); the end
    /// that began the first begins it.
    Reauthenticate,
}

/// A post-quantum pre-shared key (RFC 8784): what is recorded today stays secret later, without
/// any new key exchange, as long as this key does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ppk {
    /// By which both ends call it; 1 to 255 octets.
    pub id: Vec<u8>,
    /// The key; 32 random octets at least, to be of use.
    pub key: Secret,
    /// Whether the IKE SA fails without it.
    pub required: bool,
}

impl PeerConfig {
    /// Whether either end signs.
    #[must_use]
    pub const fn uses_signatures(&self) -> bool {
        matches!(&self.local_auth, LocalAuth::Certificate(_) | LocalAuth::PublicKey(_))
            || matches!(&self.remote_auth, RemoteAuth::Certificate(_) | RemoteAuth::PublicKey(_))
    }

    /// Whether EAP is all the authentication there is, whoever initiates (RFC 5998).
    #[must_use]
    pub const fn is_eap_alone(&self) -> bool {
        matches!((&self.local_auth, &self.remote_auth), (LocalAuth::Eap(_), RemoteAuth::Eap(_)))
    }

    /// Whether we can initiate: a responder cannot be asked by EAP, unless EAP is all.
    #[must_use]
    pub const fn may_initiate(&self) -> bool {
        self.is_eap_alone() || !matches!(&self.remote_auth, RemoteAuth::Eap(_))
    }

    /// Whether the peer may have any identity in IKE, because EAP says who it is.
    #[must_use]
    pub fn is_anybody(&self) -> bool {
        matches!(&self.remote_auth, RemoteAuth::Eap(eap) if eap.any_ike_identity)
    }

    /// Whether what was agreed by this configuration may stay under another: they differ at most
    /// in our certificate and in what is believed of the peer's, such as a new revocation list.
    #[must_use]
    pub fn may_become(&self, other: &Self) -> bool {
        let mut same = other.clone();
        if let (LocalAuth::Certificate(_), LocalAuth::Certificate(_)) =
            (&self.local_auth, &other.local_auth)
        {
            same.local_auth = self.local_auth.clone();
        }
        if let (RemoteAuth::Certificate(_), RemoteAuth::Certificate(_)) =
            (&self.remote_auth, &other.remote_auth)
        {
            same.remote_auth = self.remote_auth.clone();
        }
        *self == same
    }
}

/// How we prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAuth {
    /// By a key that both ends share.
    Psk(Secret),
    /// By the private key of a certificate.
    Certificate(Arc<Credential>),
    /// By a private key whose public half the peer knows (RFC 7670).
    PublicKey(Arc<SigningKey>),
    /// By EAP, as initiator.
    Eap(Arc<EapPeerConfig>),
}

/// How a peer must prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteAuth {
    /// By a key that both ends share.
    Psk(Secret),
    /// By the private key of a certificate that holds its identity.
    Certificate(Arc<Trust>),
    /// By the private half of this key (RFC 7670).
    PublicKey(Arc<PublicKey>),
    /// By EAP, as initiator.
    Eap(Arc<EapAuthenticatorConfig>),
}

impl LocalAuth {
    /// The word in policy files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Psk(_) => "psk",
            Self::Certificate(_) => "certificate",
            Self::PublicKey(_) => "public-key",
            Self::Eap(_) => "eap",
        }
    }
}

impl RemoteAuth {
    /// The word in policy files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Psk(_) => "psk",
            Self::Certificate(_) => "certificate",
            Self::PublicKey(_) => "public-key",
            Self::Eap(_) => "eap",
        }
    }
}

/// An identity as in the ID payloads (RFC 7296 3.5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN: a domain name, compared without regard to case.
    Fqdn(String),
    /// ID_RFC822_ADDR: an e-mail address.
    Email(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// ID_DER_ASN1_DN: a distinguished name.
    Dn(DistinguishedName),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Fqdn(s) | Self::Email(s) => f.write_str(&s.escape_default().to_string()),
            Self::Dn(name) => f.write_str(&name.to_string().escape_default().to_string()),
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
            }
        }
    }
}

/// Key material that is wiped when dropped and never printed. Equality is for the comparison of
/// two loads of the same file, not for authentication: it is not in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the octets.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([…])")
    }
}

/// One rule: which traffic, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in the policy files, logs and status.
    pub name: RuleName,
    /// The operator's choice among overlapping rules: the lower number applies. Default
    /// [`Rule::DEFAULT_PRIORITY`].
    pub priority: u16,
    /// Prefixes on our side; never empty.
    pub local: Vec<IpNet>,
    /// Of what `local` selects only the addresses that the peer assigns to us go through a Child
    /// SA, and the rest goes nowhere.
    pub assigned: bool,
    /// Prefixes on the other side; never empty, and of the families that `local` has.
    pub remote: Vec<IpNet>,
    /// IP protocol number; `None`: any.
    pub protocol: Option<u8>,
    /// Ports on our side; [`ALL_PORTS`] unless the protocol has ports.
    pub local_ports: PortRange,
    /// Ports on the other side; [`ALL_PORTS`] unless the protocol has ports.
    pub remote_ports: PortRange,
    /// What becomes of the traffic.
    pub action: Action,
}

/// A range of ports; start <= end.
pub type PortRange = RangeInclusive<u16>;
/// Every port: no restriction.
pub const ALL_PORTS: PortRange = 0..=u16::MAX;

impl Rule {
    /// The priority of a rule that names none.
    pub const DEFAULT_PRIORITY: u16 = 1000;

    /// A Child SA with more pairs of prefixes than this is refused, since each becomes three kernel
    /// policies; so a `protect` rule has no more.
    pub const MAX_PAIRS: usize = 64;

    /// Every pair of a local and a remote prefix of the same family.
    pub fn prefix_pairs(&self) -> impl Iterator<Item = (IpNet, IpNet)> + '_ {
        self.local.iter().flat_map(move |l| {
            self.remote
                .iter()
                .filter(move |r| {
                    matches!((l, r), (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)))
                })
                .map(move |r| (*l, *r))
        })
    }

    /// The order among rules for one pair of prefixes: the lowest number applies.
    ///
    /// First the operator's priority, then the more specific rule: the longer prefixes (both
    /// lengths added), then a protocol before none, then ports before none. Two rules that
    /// overlap with the same precedence and different actions are refused when the files are
    /// loaded. Range: 27 bits.
    #[must_use]
    pub fn precedence(&self, local: &IpNet, remote: &IpNet) -> u32 {
        let host_bits = |net: &IpNet| net.max_prefix_len().saturating_sub(net.prefix_len());
        // 0 for two hosts, at most 256.
        let wide = u32::from(host_bits(local)).saturating_add(u32::from(host_bits(remote)));
        let any_protocol = u32::from(self.protocol.is_none());
        let any_port = u32::from(self.local_ports == ALL_PORTS && self.remote_ports == ALL_PORTS);
        (u32::from(self.priority) << 11) | (wide << 2) | (any_protocol << 1) | any_port
    }
}

/// What becomes of the traffic that a rule selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It leaves and arrives only through a Child SA with the peer.
    Protect(Protect),
    /// It passes in the clear.
    Bypass,
    /// It is dropped.
    Discard,
}

/// How traffic is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protect {
    /// The peer; a key of [`PolicySet::peers`].
    pub peer: PeerName,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// When the Child SA is made.
    pub start: Start,
    /// Whether the Child SA must come from a quantum-safe IKE SA.
    pub quantum_safe: bool,
    /// ESP proposals, best first; never empty.
    pub proposals: Vec<EspProposal>,
    /// When the Child SA is replaced.
    pub lifetime: ChildLifetime,
}

/// IPsec mode (RFC 4301 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The whole packet is encrypted and gets a new IP header.
    Tunnel,
    /// Only the payload is encrypted: between the two peers themselves.
    Transport,
}

/// When a Child SA is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// When traffic wants it.
    OnDemand,
    /// At start, and again whenever it is lost.
    Always,
    /// When the peer asks for it.
    Respond,
}

/// How long after the beginning of its life an SA ends, replaced or not, that is replaced after
/// `lifetime`: a tenth later, or a minute if that is more. With less a busy machine, or a request
/// that has to be sent again, would cost the SA.
#[must_use]
pub fn hard_limit(lifetime: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(60);
    lifetime.saturating_add(lifetime.checked_div(10).unwrap_or_default().max(LEAST))
}

/// Limits of a Child SA's life; zero: no limit. Each is shortened by a random part of a tenth, so
/// that the two ends hardly ever replace it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLifetime {
    /// Time until the SA is replaced; the kernel ends it at [`hard_limit`].
    pub time: Duration,
    /// Octets until the SA is replaced (the kernel's soft limit); it dies a tenth later.
    pub bytes: u64,
    /// Packets until the SA is replaced (the kernel's soft limit); it dies a tenth later.
    pub packets: u64,
}

/// Limits of the endpoint that do not belong to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// First retransmission after this long; each further one after `backoff` times as long.
    pub retransmit_initial: Duration,
    /// Factor between two retransmissions in percent (180: 1.8 times).
    pub retransmit_factor_percent: u32,
    /// Retransmissions before a peer is given up.
    pub retransmit_tries: u32,
    /// A half-open IKE SA that we answered is dropped after this long.
    pub half_open_timeout: Duration,
    /// Half-open IKE SAs above which an initiator must return a cookie (RFC 7296 2.6).
    pub cookie_threshold: usize,
    /// Half-open IKE SAs above which requests are dropped.
    pub half_open_limit: usize,
    /// Half-open IKE SAs of one address, or of one /64 of IPv6, above which each of its requests
    /// must return a cookie; and those that did, above which more are dropped.
    pub half_open_address_limit: usize,
    /// EAP must end after this long.
    pub eap_timeout: Duration,
    /// Messages of the other end above which EAP is given up.
    pub eap_round_limit: u32,
    /// Octets of one TLS message of EAP-TLS.
    pub eap_message_limit: usize,
    /// IKE SAs above which requests for new ones are dropped.
    pub ike_sa_limit: usize,
    /// IKE SAs with one peer, or with one of its users, above which the oldest is deleted; at least
    /// 2, since one that is made anew stands beside the old one for a while.
    pub peer_ike_sa_limit: usize,
    /// What waits to be done on one IKE SA (Child SAs to be made and deleted), above which no more
    /// is taken on.
    pub job_limit: usize,
    /// Errors a second that are answered to messages that nothing protects (RFC 7296 2.21.4).
    pub unprotected_answers_per_second: u32,
    /// Child SAs on one IKE SA above which the peer is refused more (NO_ADDITIONAL_SAS); it may
    /// replace those that it has.
    pub child_sa_limit: usize,
    /// How long a positive answer may wait for the kernel.
    pub install_timeout: Duration,
    /// The replay window that we ask the kernel for, in packets.
    pub replay_window: u32,
    /// Behind NAT, after this long without an IKE message of ours, a keepalive is sent
    /// (RFC 3948 4); zero: never.
    pub keepalive_interval: Duration,
    /// Whether the kernel can send keepalives for an SA ([`crate::io::Encapsulation::keepalive`]):
    /// then it does while an IKE SA has a Child SA, after as long without a packet of that.
    pub kernel_keepalives: bool,
    /// An IKE message that would make a longer IP packet is sent in fragments, if the peer can
    /// (RFC 7383), each in a packet of at most so many octets; at least [`SMALLEST_FRAGMENT`].
    /// Zero: nothing is fragmented, in neither direction.
    pub fragment_size: usize,
    /// Octets that we keep, for each IKE SA and direction, of a message whose fragments have not
    /// all come.
    pub reassembly_limit: usize,
    /// How long it may take, from the first fragment of a message that comes, until all have come.
    pub reassembly_timeout: Duration,
    /// Certificates that a peer may send, its own included.
    pub certificate_chain_limit: usize,
    /// Octets that each of them may have.
    pub certificate_size_limit: usize,
}

/// The smallest [`EndpointConfig::fragment_size`] but zero: it leaves room for some octets beside
/// the headers.
pub const SMALLEST_FRAGMENT: usize = 200;
impl EndpointConfig {
    /// The time from a request to the moment when its sender gives the peer up.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let (mut total, mut interval) = (Duration::ZERO, self.retransmit_initial);
        for _ in 0..=self.retransmit_tries {
            total = total.saturating_add(interval);
            let longer = interval.saturating_mul(self.retransmit_factor_percent);
            interval = longer.checked_div(100).unwrap_or(longer);
        }
        total
    }
}

impl Default for EndpointConfig {
    /// Retransmits after 1, 1.8, 3.2 … s, and gives up after about a minute and a half.
    fn default() -> Self {
        Self {
            retransmit_initial: Duration::from_secs(1),
            retransmit_factor_percent: 180,
            retransmit_tries: 6,
            half_open_timeout: Duration::from_secs(30),
            cookie_threshold: 64,
            half_open_limit: 4096,
            half_open_address_limit: 256,
            eap_timeout: Duration::from_secs(60),
            eap_round_limit: 50,
            eap_message_limit: 65_536,
            ike_sa_limit: 65_536,
            peer_ike_sa_limit: 64,
            job_limit: 16_384,
            unprotected_answers_per_second: 100,
            child_sa_limit: 256,
            install_timeout: Duration::from_secs(5),
            replay_window: 128,
            keepalive_interval: Duration::from_secs(20),
            kernel_keepalives: false,
            // RFC 7383 2.5.1: the smallest MTU of IPv6, which IPv4 has nearly everywhere too.
            fragment_size: 1280,
            reassembly_limit: 32_768,
            reassembly_timeout: Duration::from_secs(60),
            certificate_chain_limit: 8,
            certificate_size_limit: 16_384,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u16, protocol: Option<u8>, ports: PortRange) -> Rule {
        Rule {
            name: "rule".into(),
            priority,
            assigned: false,
            local: Vec::new(),
            remote: Vec::new(),
            protocol,
            local_ports: ALL_PORTS,
            remote_ports: ports,
            action: Action::Bypass,
        }
    }

    fn precedence(rule: &Rule, local: &str, remote: &str) -> u32 {
        rule.precedence(&local.parse().unwrap(), &remote.parse().unwrap())
    }

    #[test]
    fn priority_decides_before_prefixes_protocol_and_ports() {
        let any = rule(1000, None, ALL_PORTS);
        let one = rule(1000, Some(6), ALL_PORTS);
        let port = rule(1000, Some(6), 80..=80);
        let later = rule(1001, Some(6), 80..=80);
        let ordered = [
            precedence(&rule(999, None, ALL_PORTS), "::/0", "::/0"),
            precedence(&port, "10.0.0.1/32", "10.0.0.2/32"),
            precedence(&one, "10.0.0.1/32", "10.0.0.2/32"),
            precedence(&any, "10.0.0.1/32", "10.0.0.2/32"),
            precedence(&port, "10.0.0.1/32", "10.0.0.0/31"),
            precedence(&any, "10.0.0.0/24", "10.0.0.0/24"),
            precedence(&port, "10.0.0.0/24", "10.0.0.0/23"),
            precedence(&any, "0.0.0.0/0", "0.0.0.0/0"),
            precedence(&port, "::/0", "::/0"),
            precedence(&any, "::/0", "::/0"),
            precedence(&later, "10.0.0.1/32", "10.0.0.2/32"),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
    }

    #[test]
    fn only_the_sum_of_the_two_lengths_counts() {
        let any = rule(1000, None, ALL_PORTS);
        let one = precedence(&any, "10.0.0.0/8", "10.0.0.0/24");
        assert_eq!(one, precedence(&any, "10.0.0.0/24", "10.0.0.0/8"));
        assert_eq!(one, precedence(&any, "10.0.0.0/16", "10.0.0.0/16"));
    }

    #[test]
    fn ports_on_either_side_count() {
        let all = rule(1000, Some(6), ALL_PORTS);
        let local = Rule { local_ports: 1..=2, ..all.clone() };
        let (local, all) = [&local, &all].map(|r| precedence(r, "::/0", "::/0")).into();
        assert!(local < all);
    }

    #[test]
    fn the_widest_rule_of_the_last_priority_fits_27_bits() {
        let last = precedence(&rule(u16::MAX, None, ALL_PORTS), "::/0", "::/0");
        assert!(last < 1 << 27, "{last}");
        assert_eq!(precedence(&rule(0, Some(1), 1..=1), "::1/128", "::2/128"), 0);
    }

    #[test]
    fn pairs_of_prefixes_are_of_one_family() {
        let nets = |all: &[&str]| all.iter().map(|n| n.parse().unwrap()).collect();
        let mixed = Rule {
            local: nets(&["10.0.0.0/8", "::/0"]),
            remote: nets(&["10.1.0.0/16", "2001:db8::/32", "10.2.0.0/16"]),
            ..rule(1000, None, ALL_PORTS)
        };
        let pairs: Vec<_> = mixed.prefix_pairs().map(|(l, r)| format!("{l} {r}")).collect();
        let expected = ["10.0.0.0/8 10.1.0.0/16", "10.0.0.0/8 10.2.0.0/16", "::/0 2001:db8::/32"];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new(b"hidden".to_vec())), "Secret([…])");
    }
}
