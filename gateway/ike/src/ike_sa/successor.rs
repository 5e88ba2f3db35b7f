//! What takes the place of an IKE SA's keys: what is offered for it, what the exchanges make, and the
//! responder's words about it.

use gateway_wire::{KeyExchange, Nonce, Payload, SecurityAssociation};

use super::Established;
use super::create_child::NONCE_LEN;
use super::follow_up::{self, Goal, Link, Series};
use crate::algorithms::{Group, IkeProposal};
use crate::channel::Channel;
use crate::config::PeerConfig;
use crate::shared::Shared;

/// A channel that can take the place of the one in use.
pub(super) struct Successor {
    pub(super) channel: Channel,
    /// RFC 7296 2.8.1: decides between two of them.
    pub(super) lowest_nonce: Vec<u8>,
    /// It took more than one exchange.
    pub(super) of_series: bool,
}

impl Successor {
    /// The last of several key exchanges is done.
    pub(super) fn of_series(channel: Channel, lowest_nonce: &[u8]) -> Self {
        Self { channel, lowest_nonce: lowest_nonce.to_vec(), of_series: true }
    }
}

/// What the answer to our request makes.
pub(super) enum Made {
    Successor(Box<Successor>),
    /// More key exchanges are to come.
    Series {
        series: Series,
        goal: Goal,
        link: Vec<u8>,
    },
}

impl Made {
    pub(super) fn lowest_nonce(&self) -> &[u8] {
        match self {
            Self::Successor(ours) => &ours.lowest_nonce,
            Self::Series { series, .. } => series.lowest_nonce(),
        }
    }
}

/// The responder's good answer.
pub(super) struct Words {
    /// What was negotiated, and our nonce; the last IKE_FOLLOWUP_KE does not say it again.
    pub(super) terms: Option<(SecurityAssociation, [u8; NONCE_LEN])>,
    pub(super) ke: (Group, Vec<u8>),
    /// More key exchanges are to come.
    pub(super) link: Option<Link>,
}

impl Words {
    /// The answer to the last IKE_FOLLOWUP_KE.
    pub(super) const fn value(ke: (Group, Vec<u8>)) -> Self {
        Self { terms: None, ke, link: None }
    }

    pub(super) fn payloads(&self) -> Vec<Payload<'_>> {
        let (group, data) = &self.ke;
        let ke = Payload::KeyExchange(KeyExchange { method: group.id(), data });
        let terms = self.terms.as_ref().map(|(sa, nonce)| {
            [Payload::SecurityAssociation(sa.clone()), Payload::Nonce(Nonce(nonce))]
        });
        let link = self.link.as_ref().map(follow_up::link_payload);
        terms.into_iter().flatten().chain([ke]).chain(link).collect()
    }
}

/// Our proposals for a successor. Where a rule demands an IKE SA that withstands quantum computers,
/// the successor must do so by itself, unless there is a PPK in all keys.
pub(super) fn proposals_for(
    shared: &Shared,
    peer: &PeerConfig,
    now: &Established,
) -> Vec<IkeProposal> {
    let mut rules = shared.policies.rules_of(&peer.name);
    let demanded = rules.any(|(_, protect)| protect.quantum_safe);
    let by_ppk = now.channel.keys.has_ppk() && now.channel.is_quantum_safe();
    let is_safe = |p: &IkeProposal| p.is_quantum_safe() || (by_ppk && !p.has_sha1());
    let fits = |proposal: &&IkeProposal| !demanded || is_safe(proposal);
    peer.proposals.iter().filter(fits).cloned().collect()
}

/// A method that proposals have, `wanted` if it is one of them.
pub(super) fn first_of(proposals: &[IkeProposal], wanted: Option<Group>) -> Option<Group> {
    let ours = || proposals.iter().flat_map(|p| p.groups.iter().copied());
    ours().find(|g| Some(*g) == wanted).or_else(|| ours().next())
}
