//! Proposals: ours beside the peer's, a field for each type of transform (RFC 7296 3.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_wire::{Proposal, ProtocolId, SecurityAssociation, Transform, TransformType};

use super::{Candidate, Cause, Field, FieldName, MOST_CANDIDATES, MOST_COMPARED, Refusal, bounded};
use crate::config::{PeerConfig, PeerName, RuleName};
use crate::error::Error;
use crate::proposal::{self, Rounds};

/// Proposals of the peer that each of ours is compared with.
const MOST_THEIRS: usize = 16;
/// Types of transforms that are compared in one pair of proposals.
const MOST_TYPES: usize = 24;

/// What we offer a peer, or would accept of it.
pub(crate) struct Offer<'a> {
    /// Which peer it is for.
    pub(crate) peer: Option<&'a PeerName>,
    /// Which rule.
    pub(crate) rule: Option<&'a RuleName>,
    /// As it would stand in the SA payload.
    pub(crate) sa: SecurityAssociation,
}

impl<'a> Offer<'a> {
    /// What we would accept of a peer for an IKE SA.
    pub(crate) fn ike(peer: &'a PeerConfig) -> Self {
        Self { peer: Some(&peer.name), rule: None, sa: proposal::offer_ike(&peer.proposals) }
    }

    fn candidate(&self, proposal: usize, fields: Vec<Field>) -> Candidate {
        Candidate {
            peer: self.peer.cloned(),
            rule: self.rule.cloned(),
            proposal: proposal.checked_add(1),
            their_proposal: None,
            fields,
        }
    }
}

/// No proposal of an initiator goes together with any of the peers that it may be. Of further
/// peers than are compared nothing but their number is looked at.
pub(crate) fn no_common_ike_proposal(
    peers: &mut dyn Iterator<Item = &Arc<PeerConfig>>,
    theirs: &SecurityAssociation,
    rounds: Rounds,
) -> Refusal {
    let mut offers = Vec::new();
    let mut left = MOST_COMPARED;
    while left > 0
        && let Some(peer) = peers.next()
    {
        left = left.saturating_sub(peer.proposals.len().max(1));
        offers.push(Offer::ike(peer));
    }
    let mut refusal = no_common_proposal(&offers, theirs, rounds);
    refusal.left_out = refusal.left_out.saturating_add(peers.count());
    refusal
}

/// No proposal of the peer goes together with any of ours. `rounds`: whether additional key
/// exchanges are possible at all.
pub(crate) fn no_common_proposal(
    offers: &[Offer<'_>],
    theirs: &SecurityAssociation,
    rounds: Rounds,
) -> Refusal {
    let ours = offers.iter().flat_map(|o| o.sa.proposals.iter().enumerate().map(move |p| (o, p)));
    let mut pairs: Vec<Pair<'_>> = ours
        .map(|(offer, (number, mine))| nearest_of_theirs(offer, number, mine, theirs, rounds))
        .collect();
    if pairs.is_empty() {
        let nothing = |theirs: &Proposal| Proposal {
            number: 0,
            protocol: theirs.protocol,
            spi: Vec::new(),
            transforms: Vec::new(),
        };
        let compared = |(n, theirs): (usize, &Proposal)| {
            let nothing = nothing(theirs);
            Candidate {
                their_proposal: n.checked_add(1),
                fields: in_words(&nothing, theirs, &compare(&nothing, theirs, rounds)),
                ..Candidate::default()
            }
        };
        let theirs = theirs.proposals.iter().take(MOST_THEIRS).enumerate().map(compared).collect();
        return Refusal { cause: Cause::NoPeer, ..Refusal::nearest(theirs, 0, |_| Cause::NoPeer) };
    }
    // Put in words is only what is shown.
    let more = pairs.len().saturating_sub(MOST_CANDIDATES);
    pairs.sort_by_key(Pair::unfit); // Stable, as for candidates.
    pairs.truncate(MOST_CANDIDATES);
    Refusal::nearest(pairs.iter().map(Pair::candidate).collect(), more, cause)
}

/// The error of an answer whose choice is not among what we offered: with a record, ours beside
/// theirs, if it is the transforms that differ.
pub(crate) fn bad_choice(
    error: Error,
    offer: Offer<'_>,
    chosen: &SecurityAssociation,
    rounds: Rounds,
) -> Error {
    if !matches!(error, Error::BadAnswer(_)) {
        return error;
    }
    let refusal = no_common_proposal(&[offer], chosen, rounds);
    let differs = refusal.nearest_candidate().is_some_and(|c| c.unfit().next().is_some());
    if differs { Error::NoProposalChosen(Box::new(refusal)) } else { error }
}

/// What we offer, to a peer that does not say what it wants.
pub(super) fn offered(offers: &[Offer<'_>]) -> Refusal {
    let mut candidates = Vec::new();
    for offer in offers {
        for (number, mine) in offer.sa.proposals.iter().enumerate().take(MOST_COMPARED) {
            let kinds: BTreeSet<_> = mine.transforms.iter().map(|t| t.kind).collect();
            let field = |kind: TransformType| {
                let (ours, theirs) = (described(mine, kind), Vec::new());
                Field { name: FieldName::Transform(kind), ours, theirs, fits: None }
            };
            let fields = kinds.into_iter().map(field).collect();
            candidates.push(offer.candidate(number, fields));
        }
    }
    Refusal::nearest(candidates, 0, |_| Cause::ProposalByPeer)
}

/// One of our proposals, beside the one of the peer's that comes nearest.
struct Pair<'a> {
    offer: &'a Offer<'a>,
    number: usize,
    mine: &'a Proposal,
    /// `None`: the payload has no proposal at all.
    theirs: Option<(usize, &'a Proposal, Vec<Verdict>)>,
}

/// Whether one thing fits.
type Verdict = (FieldName, bool);

fn count_unfit(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|(_, fits)| !fits).count()
}

impl Pair<'_> {
    fn unfit(&self) -> usize {
        self.theirs.as_ref().map_or(1, |(.., verdicts)| count_unfit(verdicts))
    }

    fn candidate(&self) -> Candidate {
        match &self.theirs {
            Some((n, theirs, verdicts)) => Candidate {
                their_proposal: n.checked_add(1),
                ..self.offer.candidate(self.number, in_words(self.mine, theirs, verdicts))
            },
            None => {
                let ours = [self.mine.protocol.to_string()];
                let fields = vec![Field::new(FieldName::Protocol, ours, [], Some(false))];
                self.offer.candidate(self.number, fields)
            }
        }
    }
}

fn nearest_of_theirs<'a>(
    offer: &'a Offer<'a>,
    number: usize,
    mine: &'a Proposal,
    theirs: &'a SecurityAssociation,
    rounds: Rounds,
) -> Pair<'a> {
    let compared = theirs.proposals.iter().take(MOST_THEIRS).enumerate();
    let compared = compared.map(|(n, theirs)| (n, theirs, compare(mine, theirs, rounds)));
    let theirs = compared.min_by_key(|(.., verdicts)| count_unfit(verdicts));
    Pair { offer, number, mine, theirs }
}

/// What fits and what does not, without a word: many pairs are compared and few are shown.
fn compare(mine: &Proposal, theirs: &Proposal, rounds: Rounds) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if mine.protocol != theirs.protocol {
        verdicts.push((FieldName::Protocol, false));
    }
    if mine.protocol == ProtocolId::ESP && proposal::esp_spi(theirs).is_none() {
        verdicts.push((FieldName::Spi, false));
    }
    let kinds: BTreeSet<_> =
        mine.transforms.iter().chain(&theirs.transforms).map(|t| t.kind).collect();
    let mut impossible = false;
    for kind in kinds.into_iter().take(MOST_TYPES) {
        let additional = proposal::is_additional(kind);
        let possible = |t: &&Transform| !additional || rounds == Rounds::Possible || t.id == 0;
        let fits = fits(kind, || of_type(mine, kind).filter(possible), || of_type(theirs, kind));
        verdicts.push((FieldName::Transform(kind), fits));
        impossible |= additional && !fits && rounds == Rounds::Impossible;
    }
    if impossible {
        verdicts.push((FieldName::Intermediate, false));
    }
    verdicts
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other field is compared here")]
fn in_words(mine: &Proposal, theirs: &Proposal, verdicts: &[Verdict]) -> Vec<Field> {
    let values = |name| match name {
        FieldName::Protocol => (vec![mine.protocol.to_string()], vec![theirs.protocol.to_string()]),
        FieldName::Spi => {
            let spi = theirs.spi.iter().take(16).map(|o| format!("{o:02x}")).collect::<String>();
            (vec!["4 octets, above 255".to_owned()], vec![spi])
        }
        FieldName::Transform(kind) => (described(mine, kind), described(theirs, kind)),
        _ => (vec!["needed".to_owned()], vec!["not announced".to_owned()]),
    };
    let field = |(name, fits): &Verdict| {
        let (ours, theirs) = values(*name);
        Field { name: *name, ours, theirs, fits: Some(*fits) }
    };
    verdicts.iter().map(field).collect()
}

/// The transforms of one type in words.
fn described(proposal: &Proposal, kind: TransformType) -> Vec<String> {
    bounded(of_type(proposal, kind), proposal::describe_transform)
}

fn of_type(proposal: &Proposal, kind: TransformType) -> impl Iterator<Item = &Transform> {
    proposal.transforms.iter().filter(move |t| t.kind == kind)
}

/// Whether two lists of one type have something in common. Of some types none is as good as "NONE"
/// (RFC 7296 3.3.2, RFC 5282 8, RFC 9370 2.2.1).
fn fits<'a, O, T>(kind: TransformType, ours: impl Fn() -> O, theirs: impl Fn() -> T) -> bool
where
    O: Iterator<Item = &'a Transform>,
    T: Iterator<Item = &'a Transform>,
{
    let known = |t: &&Transform| !t.unknown_attribute;
    let common = |mine: &Transform| {
        theirs().filter(known).any(|t| t.id == mine.id && t.key_length == mine.key_length)
    };
    let optional =
        matches!(kind, TransformType::INTEG | TransformType::KE) || proposal::is_additional(kind);
    let none = |t: &Transform| t.id == 0 && t.key_length.is_none();
    match (ours().next(), theirs().next()) {
        (Some(_), Some(_)) => ours().any(common),
        (None, Some(_)) => optional && theirs().filter(known).any(none),
        (Some(_), None) => optional && ours().any(none),
        (None, None) => optional,
    }
}

/// What the nearest came to.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other field is compared here")]
fn cause(nearest: &Candidate) -> Cause {
    let of = |field: &Field| match field.name {
        FieldName::Protocol => Cause::Protocol,
        FieldName::Spi => Cause::Spi,
        FieldName::Transform(TransformType::ENCR) => Cause::Encryption,
        FieldName::Transform(TransformType::PRF) => Cause::Prf,
        FieldName::Transform(TransformType::INTEG) => Cause::Integrity,
        FieldName::Transform(TransformType::KE) => Cause::KeyExchange,
        FieldName::Transform(TransformType::ESN) => Cause::Esn,
        FieldName::Transform(kind) if proposal::is_additional(kind) => Cause::AdditionalKeyExchange,
        _ => Cause::UnknownTransform,
    };
    nearest.unfit().next().map_or(Cause::Combination, of)
}
