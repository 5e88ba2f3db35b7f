//! What the BPF programs and the daemon share: the layout of the maps, the counters' names, and
//! the function that finds the rule of a packet.
//!
//! Rules of layout, held up by the assertions beside each type:
//! - `repr(C)`, no implicit padding: the kernel hashes every octet of a key.
//! - What is on the wire stays as on the wire: addresses and SPIs have their octets in network
//!   order. Numbers that the two sides only count or compare (ports, precedences) are in the
//!   machine's order.
//! - An IPv4 address is kept mapped into IPv6, so that one map serves both families.

#![no_std]
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "constant functions cannot convert otherwise"
)]

mod address;
mod classify;
mod cookie;
mod count;
mod ike;
mod mtu;
mod reason;
mod rule;
mod sa;
mod source;
mod trace;
pub mod unknown;

#[cfg(feature = "user")]
use aya as _;

pub use address::{Address, Family};
pub use classify::{Flow, Match, Ports, Rules, classify};
pub use cookie::{Cookie, CookieSecret, Initiator};
pub use count::{Count, RuleCount};
pub use ike::{IkeProtection, Rate, Requester, load};
pub use mtu::largest_segment;
pub use reason::{Reason, Verdict};
pub use rule::{Action, Alternative, Entry, KeyKind, RuleKey, Tuple, Tuples};
pub use sa::{SaKey, SaValue};
pub use source::{EspSeen, Source};
pub use trace::{
    Hook, PACKET_LIMIT, Subject, TraceCount, TraceEvent, TraceKey, TraceSettings, WINDOW,
};

/// The names of the maps, which are also their names under the pin directory.
pub mod map {
    /// The kernel's SAs that the programs know: [`SaKey`](crate::SaKey) to
    /// [`SaValue`](crate::SaValue).
    pub const SAS: &str = "SAS";
    /// The CPUs that take packets of SAs: by the CPU's number, the kernel's `bpf_cpumap_val`.
    pub const CPUS: &str = "CPUS";
    /// For SAs that the kernel has under another destination, [`SaKey`](crate::SaKey) to that
    /// [`Address`](crate::Address), of the same family.
    pub const ELSEWHERE: &str = "ELSEWHERE";
    /// A ring of [`EspSeen`](crate::EspSeen)s.
    pub const SOURCE_CHANGES: &str = "SOURCE_CHANGES";
    /// The outer slot that holds the generation of rules in force.
    pub const GENERATION: &str = "GENERATION";
    /// One [`Count`](crate::Count) for each [`Reason`](crate::Reason) and CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// One [`RuleCount`](crate::RuleCount) for each rule and CPU.
    pub const RULE_COUNTERS: &str = "RULE_COUNTERS";
    /// How large a packet may be before encryption: `u32`, octets, by the longest prefix of its
    /// destination, an [`Address`](crate::Address).
    pub const MTUS: &str = "MTUS";
    /// What is to be traced: one [`TraceSettings`](crate::TraceSettings).
    pub const TRACE_SETTINGS: &str = "TRACE_SETTINGS";
    /// Which rules and SAs, if not all: [`TraceKey`](crate::TraceKey)s.
    pub const TRACE_WANTED: &str = "TRACE_WANTED";
    /// One [`TraceCount`](crate::TraceCount) for each CPU.
    pub const TRACE_COUNTS: &str = "TRACE_COUNTS";
    /// The ring of [`TraceEvent`](crate::TraceEvent)s.
    pub const TRACE_EVENTS: &str = "TRACE_EVENTS";
    /// Our own unicast [`Address`](crate::Address)es; the value is 1.
    pub const LOCAL: &str = "LOCAL";
    /// How IKE is protected: one [`IkeProtection`](crate::IkeProtection) under 0.
    pub const IKE: &str = "IKE";
    /// How much IKE comes: a number of 64 bits for each place of [`load`](crate::load).
    pub const IKE_LOAD: &str = "IKE_LOAD";
    /// The state of [`IkeProtection::prefix`](crate::IkeProtection::prefix) for each
    /// [`Requester`](crate::Requester) that was seen lately.
    pub const REQUESTERS: &str = "REQUESTERS";
    /// Whether ESP without an SA is dropped, and told of: a number of 64 bits for each place of
    /// [`unknown`](crate::unknown).
    pub const UNKNOWN_ESP: &str = "UNKNOWN_ESP";
    /// The [`Address`](crate::Address)es to which IKE or ESP has gone that is not the gateway's; the value
    /// is 1.
    pub const OTHERS_PEERS: &str = "OTHERS_PEERS";
    /// The indices of interfaces on which what XDP sends back is lost; the value is 1.
    pub const NO_ANSWER: &str = "NO_ANSWER";
}

/// How many entries the maps have room for at least that grow by what peers do; the loader gives them
/// more where the limits permit more.
pub mod room {
    /// Of [`SAS`](crate::map::SAS), and of [`ELSEWHERE`](crate::map::ELSEWHERE): a Child SA takes
    /// two, and four while it is rekeyed.
    pub const SAS: usize = 262_144;
    /// Of [`MTUS`](crate::map::MTUS): a Child SA takes one for each remote prefix.
    pub const MTUS: usize = 131_072;
}

/// The names of the programs' settings, which the loader fills in.
pub mod global {
    /// `u32`: the index of the XFRM interface; 0 while there is none.
    pub const XFRM_INTERFACE: &str = "XFRM_INTERFACE";
    /// `u32`: the mark of the daemon's own IKE sockets; 0 for none.
    pub const OWN_MARK: &str = "OWN_MARK";
    /// `u32`: the MTU of the XFRM interface; 0 while there is none.
    pub const XFRM_MTU: &str = "XFRM_MTU";
}

/// The names of the programs.
pub mod program {
    /// XDP: takes the UDP header off ESP.
    pub const NATT_INGRESS: &str = "natt_ingress";
    /// TC egress of a link with Ethernet headers.
    pub const STEER_EGRESS: &str = "steer_egress";
    /// TC egress of a link without headers (PPP, TUN).
    pub const STEER_EGRESS_L3: &str = "steer_egress_l3";
    /// TC ingress of a link with Ethernet headers.
    pub const GUARD_INGRESS: &str = "guard_ingress";
    /// TC ingress of a link without headers.
    pub const GUARD_INGRESS_L3: &str = "guard_ingress_l3";
    /// In POSTROUTING: whether a connection's source must stay.
    pub const KEEP_SOURCE: &str = "keep_source";
    /// In POSTROUTING: drops what a rule selects and NAT has given another source.
    pub const DROP_TRANSLATED: &str = "drop_translated";
    /// In PREROUTING: drops what a rule says must arrive encrypted, by the destination that NAT gave
    /// it.
    pub const DROP_DESTINED: &str = "drop_destined";
    /// XDP: passes every packet. The floor that the bench measures against.
    pub const PASS: &str = "pass";
    /// XDP: decapsulates and puts the headers back, so that the bench can repeat it.
    pub const NATT_AND_RESTORE: &str = "natt_and_restore";
    /// XDP: answers with a cookie and puts the request back, so that the bench can repeat it.
    pub const COOKIE_AND_RESTORE: &str = "cookie_and_restore";
    /// XDP: only cuts as the answer does, and puts the request back.
    pub const CUT_AND_RESTORE: &str = "cut_and_restore";
    /// XDP: only puts the headers back.
    pub const RESTORE: &str = "restore";
    /// TC: passes every packet.
    pub const PASS_TC: &str = "pass_tc";
    /// TC: gives a packet another destination, so that the bench can ask for many.
    pub const PICK: &str = "pick";
    /// TC: finds the rule of such a packet.
    pub const CLASSIFY_PICKED: &str = "classify_picked";
}
