//! A snapshot of the endpoint for `gateway status`: plain data.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use gateway_wire::IkeSpi;

use crate::algorithms::{ChildKeyExchange, EspSuite, IkeSuite};
use crate::assignment::Assignment;
use crate::config::{Action, Identity, Mode, PeerName, RuleName, UserName};
use crate::endpoint::Endpoint;
use crate::ike_sa::{ChildSa, ChildState, IkeSa};
pub use crate::ike_sa::{PeerCertificate, PeerProof};
use crate::io::{ChildId, Encapsulation, IkeSaId, Path, Selector};
use crate::leases::{Holder, Leases};

/// The endpoint at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Every IKE SA, oldest first.
    pub ike_sas: Vec<IkeSaStatus>,
    /// Every rule, by name.
    pub rules: Vec<RuleStatus>,
    /// IKE SAs that we answered and that have not been authenticated.
    pub half_open: usize,
}

/// One IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeSaStatus {
    /// Our number for it.
    pub id: IkeSaId,
    /// The peer, once known.
    pub peer: Option<PeerName>,
    /// In one word.
    pub state: &'static str,
    /// Whether we initiated it.
    pub initiator: bool,
    /// The initiator's SPI.
    pub initiator_spi: IkeSpi,
    /// The responder's SPI; zero until known.
    pub responder_spi: IkeSpi,
    /// Addresses and ports.
    pub path: Path,
    /// What was negotiated, once it was.
    pub suite: Option<IkeSuite>,
    /// Whether its Child SAs stay secret when there are quantum computers, once that is known.
    pub quantum_safe: Option<bool>,
    /// Who we say we are.
    pub local_id: Option<Identity>,
    /// Who the peer is.
    pub remote_id: Option<Identity>,
    /// How we prove who we are, as in the policy files.
    pub local_auth: Option<&'static str>,
    /// How the peer proved who it is, once it has.
    pub remote_auth: Option<PeerProof>,
    /// The user that the peer proved by EAP to be.
    pub user: Option<UserName>,
    /// Since it was begun.
    pub age: Duration,
    /// We are behind NAT.
    pub nat_local: bool,
    /// The peer is behind NAT.
    pub nat_remote: bool,
    /// Both ends send long messages in fragments (RFC 7383).
    pub fragmentation: bool,
    /// Where else the peer is, by its own account, if both ends speak MOBIKE (RFC 4555).
    pub mobike: Option<Vec<IpAddr>>,
    /// The addresses that we have assigned to the peer.
    pub assigned: Vec<IpAddr>,
    /// The addresses that the peer has assigned to us.
    pub own_addresses: Vec<IpAddr>,
    /// The name servers that it has told us.
    pub dns: Vec<IpAddr>,
    /// Its Child SAs.
    pub children: Vec<ChildStatus>,
}

/// One Child SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Our number for it.
    pub id: ChildId,
    /// The rule that it serves.
    pub rule: RuleName,
    /// In one word.
    pub state: &'static str,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Ours.
    pub inbound_spi: u32,
    /// The peer's.
    pub outbound_spi: u32,
    /// What was negotiated.
    pub suite: EspSuite,
    /// The method of its own key exchange (perfect forward secrecy), if it had one.
    pub key_exchange: Option<ChildKeyExchange>,
    /// Whether what it protects stays secret when there are quantum computers: by that, or by the IKE
    /// SA that its keys come from.
    pub quantum_safe: bool,
    /// What it protects.
    pub selectors: Vec<Selector>,
    /// The UDP ports, if ESP travels in UDP.
    pub encapsulation: Option<Encapsulation>,
    /// Since it was agreed.
    pub age: Duration,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStatus {
    /// Its name.
    pub name: RuleName,
    /// The peer, for a protecting rule.
    pub peer: Option<PeerName>,
    /// Its request ID, for a protecting rule: that of its traps and of what receives.
    pub reqid: Option<u32>,
    /// `protect`, `bypass` or `discard`.
    pub action: &'static str,
    /// Installed Child SAs.
    pub children: usize,
    /// Why the last attempt to get one failed.
    pub last_error: Option<String>,
}

impl Endpoint {
    /// A snapshot; `now` is needed for ages.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let mut children = BTreeMap::<&RuleName, usize>::new();
        let installed = |child: &&ChildSa| child.state == ChildState::Installed;
        for child in self.sas().flat_map(IkeSa::children).filter(installed) {
            let count = children.entry(&child.rule.name).or_default();
            *count = count.saturating_add(1);
        }
        let rules = self.shared().policies.rules.values().map(|rule| RuleStatus {
            name: RuleName::clone(&rule.name),
            peer: match &rule.action {
                Action::Protect(protect) => Some(PeerName::clone(&protect.peer)),
                Action::Bypass | Action::Discard => None,
            },
            reqid: self.shared().reqids.get(&rule.name),
            action: match rule.action {
                Action::Protect(_) => "protect",
                Action::Bypass => "bypass",
                Action::Discard => "discard",
            },
            children: children.get(&rule.name).copied().unwrap_or_default(),
            last_error: self.rule_state(&rule.name).and_then(|r| r.last_error.clone()),
        });
        Status {
            rules: rules.collect(),
            ike_sas: self.sas().map(|sa| of_sa(now, sa, &self.shared().leases)).collect(),
            half_open: self.half_open_count(),
        }
    }
}

fn of_sa(now: Instant, sa: &IkeSa, leases: &Leases) -> IkeSaStatus {
    let (suite, nat) = sa.negotiated();
    let assignment =
        if sa.is_established() { sa.assignment.clone() } else { Assignment::default() };
    IkeSaStatus {
        id: sa.id,
        peer: sa.peer.as_ref().map(|p| PeerName::clone(&p.name)),
        state: sa.state.name(),
        initiator: sa.is_initiator(),
        initiator_spi: sa.initiator_spi,
        responder_spi: sa.responder_spi,
        path: sa.path,
        suite,
        quantum_safe: sa.is_quantum_safe(),
        local_id: sa.peer.as_ref().map(|p| p.local_id.clone()),
        remote_id: sa.peer.as_ref().filter(|p| !p.is_anybody()).map(|p| p.remote_id.clone()),
        local_auth: sa.peer.as_ref().map(|p| p.local_auth.name()),
        remote_auth: sa.proof.clone(),
        user: sa.user.clone(),
        age: now.saturating_duration_since(sa.begun),
        nat_local: nat.local,
        nat_remote: nat.remote,
        fragmentation: sa.fragments(),
        mobike: sa.mobike().map(|mobike| mobike.peer_addresses.clone()),
        assigned: sa
            .peer
            .as_ref()
            .map(|p| Holder { peer: PeerName::clone(&p.name), user: sa.user.clone() })
            .map(|holder| leases.of(&holder).addresses().collect())
            .unwrap_or_default(),
        own_addresses: assignment.lease.addresses().collect(),
        dns: assignment.dns,
        children: sa.children().map(|c| of_child(now, c)).collect(),
    }
}

fn of_child(now: Instant, child: &ChildSa) -> ChildStatus {
    ChildStatus {
        id: child.id,
        rule: RuleName::clone(&child.rule.name),
        state: match child.state {
            ChildState::Installing => "installing",
            ChildState::Receiving => "receiving",
            ChildState::Installed => "installed",
            ChildState::Retiring => "retiring",
        },
        mode: child.mode,
        inbound_spi: child.inbound_spi,
        outbound_spi: child.outbound_spi,
        suite: child.suite,
        key_exchange: child.key_exchange,
        quantum_safe: child.quantum_safe,
        selectors: child.pairs.iter().map(|(s, _)| s.clone()).collect(),
        encapsulation: child.encapsulation,
        age: now.saturating_duration_since(child.since),
    }
}
