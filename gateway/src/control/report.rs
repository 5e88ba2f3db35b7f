//! What `gateway status --json` prints. The names of the fields are an interface: they may be
//! added to, and not changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// A snapshot of the running gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the program.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether the gateway is deleting its SAs in order to end.
    pub shutting_down: bool,
    /// The policy files and their last reload.
    pub policies: PoliciesReport,
    /// The kernel underneath.
    pub kernel: KernelReport,
    /// IKE SAs whose peer is not authenticated yet.
    pub half_open: usize,
    /// IKE SAs with their Child SAs.
    pub ike_sas: Vec<IkeSaReport>,
    /// Why octets and packets of all Child SAs are absent; absent while they are known.
    #[serde(default)]
    pub use_problem: Option<String>,
    /// Rules in force.
    pub rules: Vec<RuleReport>,
    /// What was refused of late, by us or by a peer, the latest first.
    #[serde(default)]
    pub refusals: Vec<RefusalReport>,
    /// Counters of the daemon by name.
    pub counters: BTreeMap<String, u64>,
    /// Counters of the eBPF programs by reason.
    pub bpf_counters: BTreeMap<String, u64>,
    /// The kernel's XFRM error counters (`/proc/net/xfrm_stat`); in JSON those that are not zero.
    #[serde(serialize_with = "not_zero")]
    pub xfrm_errors: BTreeMap<String, u64>,
}

fn not_zero<S: Serializer>(
    counters: &BTreeMap<String, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counters.iter().filter(|(_, value)| **value > 0))
}

/// The policies in force and how they came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoliciesReport {
    /// The directory they are read from.
    pub directory: String,
    /// How often policies were applied: 1 after the start, one more after each good reload.
    pub generation: u64,
    /// When the ones in force were applied, in seconds since 1970.
    pub applied_at: u64,
    /// Reloads that failed.
    pub reload_failed: u64,
    /// The last reload, if there was one.
    pub last_reload: Option<ReloadReport>,
}

/// How a reload ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whether the new policies are in force.
    pub ok: bool,
    /// How many errors there were.
    pub errors: usize,
    /// The first error, with file, line and column.
    pub first_error: Option<String>,
    /// Changed settings that wait for a restart.
    pub needs_restart: Vec<String>,
}

/// What the kernel can do, and the interfaces that the gateway looks after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// Its release, such as `6.12.9-amd64`.
    pub release: String,
    /// The underlays and the XFRM interface.
    pub interfaces: Vec<InterfaceReport>,
    /// What was probed at start.
    pub capabilities: Vec<CapabilityReport>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// `underlay` or `xfrm`.
    pub role: String,
    /// Its index; absent while there is no such interface.
    pub index: Option<u32>,
    /// How the eBPF programs are attached to an underlay; absent while they are not.
    pub programs: Option<String>,
    /// What is wrong with it; absent while nothing is.
    pub problem: Option<String>,
}

/// One thing that the kernel can or cannot do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityReport {
    /// Its name.
    pub name: String,
    /// What was found.
    pub value: String,
}

/// An IKE SA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeSaReport {
    /// The number in log lines.
    pub id: u64,
    /// The peer's name, once known.
    pub peer: Option<String>,
    /// The state of the protocol.
    pub state: String,
    /// Whether we began it.
    pub initiator: bool,
    /// The initiator's SPI, 16 hexadecimal digits.
    pub initiator_spi: String,
    /// The responder's SPI, 16 hexadecimal digits.
    pub responder_spi: String,
    /// Our address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    /// Who we say we are.
    pub local_id: Option<String>,
    /// Who the peer is.
    pub remote_id: Option<String>,
    /// How we prove who we are: `psk`, `certificate`, `public-key` or `eap`.
    #[serde(default)]
    pub local_auth: Option<String>,
    /// How the peer proved who it is: `psk`, the signature scheme, or `eap-` and the method.
    #[serde(default)]
    pub remote_auth: Option<String>,
    /// The certificate that the peer showed.
    #[serde(default)]
    pub certificate: Option<CertificateReport>,
    /// The user that the peer proved by EAP to be.
    #[serde(default)]
    pub user: Option<String>,
    /// The algorithms, once chosen.
    pub suite: Option<String>,
    /// Whether what it protects stays secret when there are quantum computers; absent until it
    /// stands.
    pub quantum_safe: Option<bool>,
    /// Whether we are behind NAT.
    pub nat_local: bool,
    /// Whether the peer is behind NAT.
    pub nat_remote: bool,
    /// Whether both ends send long messages in fragments.
    #[serde(default)]
    pub fragmentation: bool,
    /// Where else the peer is, by its own account; `None`: one of the ends has no MOBIKE.
    pub mobike: Option<Vec<String>>,
    /// The addresses that the peer has been given.
    #[serde(default)]
    pub assigned: Vec<String>,
    /// The addresses that the peer has assigned to us.
    #[serde(default)]
    pub own_addresses: Vec<String>,
    /// The name servers that it has told us.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Its Child SAs.
    pub children: Vec<ChildReport>,
}

/// A peer's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Whose it is.
    pub subject: String,
    /// Until when it is valid, as in RFC 3339.
    pub not_after: String,
}

/// A Child SA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// Our number.
    pub id: u64,
    /// The rule that it serves.
    pub rule: String,
    /// The state of the protocol.
    pub state: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// The SPI of what comes in, 8 hexadecimal digits.
    pub inbound_spi: String,
    /// The SPI of what goes out, 8 hexadecimal digits.
    pub outbound_spi: String,
    /// The algorithms.
    pub suite: String,
    /// The method of its own key exchange (perfect forward secrecy); absent: its keys follow from
    /// those of the IKE SA.
    #[serde(default)]
    pub key_exchange: Option<String>,
    /// Whether what it protects stays secret when there are quantum computers: by that, or by the IKE
    /// SA that its keys follow from.
    #[serde(default)]
    pub quantum_safe: bool,
    /// What is protected.
    pub selectors: Vec<String>,
    /// Our UDP port and the peer's where ESP travels in UDP.
    pub encapsulation: Option<(u16, u16)>,
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Octets received; absent where the kernel did not say.
    pub bytes_in: Option<u64>,
    /// Octets sent.
    pub bytes_out: Option<u64>,
    /// Packets received.
    pub packets_in: Option<u64>,
    /// Packets sent.
    pub packets_out: Option<u64>,
    /// Seconds since the last packet came in.
    pub idle_seconds: Option<u64>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// `protect`, `bypass` or `discard`.
    pub action: String,
    /// The kernel's request ID of what catches its traffic where no Child SA does, and of what it
    /// receives. What each Child SA sends has another.
    pub reqid: Option<u32>,
    /// Child SAs that serve it.
    pub children: usize,
    /// Clear packets on their way out that the rule selected: taken to the XFRM interface, passed
    /// or dropped, as its action says.
    pub packets_out: u64,
    /// Packets on their way in that were dropped because of the rule.
    pub packets_refused: u64,
    /// What last went wrong.
    pub last_error: Option<String>,
}

/// A refusal: what was compared, ours beside theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalReport {
    /// `proposal`, `selectors`, `identity`, `authentication` or `limit`.
    pub kind: String,
    /// What was missing or wrong; the counter `refused_CAUSE` counts it.
    pub cause: String,
    /// The line of the log.
    pub text: String,
    /// What the peer said, if it was the peer that refused.
    pub said_by_peer: Option<String>,
    /// The peer; absent while nobody is authenticated.
    pub peer: Option<String>,
    /// The other end's address and port, the last time.
    pub remote: Option<String>,
    /// The number of the IKE SA in log lines, the last time.
    pub ike_sa: Option<u64>,
    /// The first time, in seconds since 1970.
    pub first_at: u64,
    /// The last time, in seconds since 1970.
    pub last_at: u64,
    /// How often there was the very same.
    pub times: u64,
    /// What it was compared with, the nearest first.
    pub candidates: Vec<CandidateReport>,
    /// Further ones, which are not shown.
    pub left_out: usize,
}

/// Something of ours that what the other end wants was compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The peer in the policy files.
    pub peer: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// Which of our proposals, from 1.
    pub proposal: Option<usize>,
    /// Which of the other end's proposals, from 1.
    pub their_proposal: Option<usize>,
    /// Field by field.
    pub fields: Vec<FieldReport>,
}

/// One thing that both ends have to agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldReport {
    /// What it is, such as `encryption` or `local_addresses`.
    pub name: String,
    /// What we have.
    pub ours: Vec<String>,
    /// What the other end has.
    pub theirs: Vec<String>,
    /// Whether they go together; absent where that is not known.
    pub fits: Option<bool>,
}
