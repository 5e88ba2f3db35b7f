//! Rules: which traffic, what becomes of it, and for how long.

use core::ops::RangeInclusive;
use core::time::Duration;

use ipnet::IpNet;

#[cfg(doc)]
use super::PolicySet;
use super::{PeerName, RuleName};
use crate::algorithms::EspProposal;

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

    /// A `protect` rule has no more pairs of prefixes than this, since each becomes three kernel
    /// policies.
    pub const MAX_PAIRS: usize = 64;

    /// What protects its traffic; `None` if it bypasses or discards.
    #[must_use]
    pub const fn protect(&self) -> Option<&Protect> {
        match &self.action {
            Action::Protect(protect) => Some(protect),
            Action::Bypass | Action::Discard => None,
        }
    }

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
    /// loaded. Range: 27 bits, of which the last [`BREADTH_BITS`] say how specific it is.
    #[must_use]
    pub fn precedence(&self, local: &IpNet, remote: &IpNet) -> u32 {
        let breadth =
            breadth(local, remote, self.protocol, [&self.local_ports, &self.remote_ports]);
        (u32::from(self.priority) << BREADTH_BITS) | breadth
    }
}

/// The bits of a precedence that say how much is selected.
pub const BREADTH_BITS: u32 = 11;

/// How much is selected: less for what goes before, the host bits of both prefixes (for two hosts 0,
/// at most 64 or, over IPv6, 256) times four, and two bits for no protocol and no ports.
pub(crate) fn breadth(
    local: &IpNet,
    remote: &IpNet,
    protocol: Option<u8>,
    ports: [&PortRange; 2],
) -> u32 {
    let host_bits = |net: &IpNet| net.max_prefix_len().saturating_sub(net.prefix_len());
    let wide = u32::from(host_bits(local)).saturating_add(u32::from(host_bits(remote)));
    let any_protocol = u32::from(protocol.is_none());
    let any_port = u32::from(ports.iter().all(|ports| **ports == ALL_PORTS));
    (wide << 2) | (any_protocol << 1) | any_port
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
}
