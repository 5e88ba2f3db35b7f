//! Proposals: ours beside the peer's, a field for each type of transform (RFC 7296 3.3).

use std::collections::BTreeSet;

use gateway_wire::{Proposal, ProtocolId, SecurityAssociation, Transform, TransformType};

use super::{Candidate, Cause, Field, FieldName, MOST_COMPARED, Refusal};
use crate::config::{PeerName, RuleName};
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

impl Offer<'_> {
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

/// No proposal of the peer goes together with any of ours. `rounds`: whether additional key
/// exchanges are possible at all.
pub(crate) fn no_common_proposal(
    offers: &mut dyn Iterator<Item = Offer<'_>>,
    theirs: &SecurityAssociation,
    rounds: Rounds,
) -> Refusal {
    let mut candidates = Vec::new();
    for offer in &mut *offers {
        for (number, mine) in offer.sa.proposals.iter().enumerate() {
            candidates.push(nearest_of_theirs(&offer, number, mine, theirs, rounds));
        }
        if candidates.len() >= MOST_COMPARED {
            break;
        }
    }
    if candidates.is_empty() {
        let nothing = |theirs: &Proposal| Proposal {
            number: 0,
            protocol: theirs.protocol,
            spi: Vec::new(),
            transforms: Vec::new(),
        };
        let compared = |(n, theirs): (usize, &Proposal)| Candidate {
            their_proposal: n.checked_add(1),
            fields: compare(&nothing(theirs), theirs, rounds),
            ..Candidate::default()
        };
        let theirs = theirs.proposals.iter().take(MOST_THEIRS).enumerate().map(compared).collect();
        return Refusal { cause: Cause::NoPeer, ..Refusal::nearest(theirs, 0, |_| Cause::NoPeer) };
    }
    Refusal::nearest(candidates, offers.count(), cause)
}

/// What we offer, to a peer that does not say what it wants.
pub(super) fn offered(offers: &mut dyn Iterator<Item = Offer<'_>>) -> Refusal {
    let mut candidates = Vec::new();
    for offer in offers {
        for (number, mine) in offer.sa.proposals.iter().enumerate().take(MOST_COMPARED) {
            let kinds: BTreeSet<_> = mine.transforms.iter().map(|t| t.kind).collect();
            let field = |kind: TransformType| {
                let ours = of_type(mine, kind).map(proposal::describe_transform);
                Field::new(FieldName::Transform(kind), ours, [], None)
            };
            let fields = kinds.into_iter().map(field).collect();
            candidates.push(offer.candidate(number, fields));
        }
    }
    Refusal::nearest(candidates, 0, |_| Cause::ProposalByPeer)
}

fn nearest_of_theirs(
    offer: &Offer<'_>,
    number: usize,
    mine: &Proposal,
    theirs: &SecurityAssociation,
    rounds: Rounds,
) -> Candidate {
    let compared = theirs.proposals.iter().take(MOST_THEIRS).enumerate().map(|(n, theirs)| {
        let fields = compare(mine, theirs, rounds);
        Candidate { their_proposal: n.checked_add(1), ..offer.candidate(number, fields) }
    });
    compared.min_by_key(|c| c.unfit().count()).unwrap_or_else(|| {
        // The payload has no proposal at all.
        let fields =
            vec![Field::new(FieldName::Protocol, [mine.protocol.to_string()], [], Some(false))];
        offer.candidate(number, fields)
    })
}

fn compare(mine: &Proposal, theirs: &Proposal, rounds: Rounds) -> Vec<Field> {
    let mut fields = Vec::new();
    if mine.protocol != theirs.protocol {
        let (ours, theirs) = (mine.protocol.to_string(), theirs.protocol.to_string());
        fields.push(Field::new(FieldName::Protocol, [ours], [theirs], Some(false)));
    }
    if mine.protocol == ProtocolId::ESP && proposal::esp_spi(theirs).is_none() {
        let spi = theirs.spi.iter().take(16).map(|o| format!("{o:02x}")).collect::<String>();
        let ours = "4 octets, above 255".to_owned();
        fields.push(Field::new(FieldName::Spi, [ours], [spi], Some(false)));
    }
    let kinds: BTreeSet<_> =
        mine.transforms.iter().chain(&theirs.transforms).map(|t| t.kind).collect();
    let mut impossible = false;
    for kind in kinds.into_iter().take(MOST_TYPES) {
        let additional = proposal::is_additional(kind);
        let possible = |t: &&Transform| !additional || rounds == Rounds::Possible || t.id == 0;
        let fits = fits(kind, || of_type(mine, kind).filter(possible), || of_type(theirs, kind));
        let ours = of_type(mine, kind).map(proposal::describe_transform);
        let theirs = of_type(theirs, kind).map(proposal::describe_transform);
        fields.push(Field::new(FieldName::Transform(kind), ours, theirs, Some(fits)));
        impossible |= additional && !fits && rounds == Rounds::Impossible;
    }
    if impossible {
        let (ours, theirs) = (["needed".to_owned()], ["not announced".to_owned()]);
        fields.push(Field::new(FieldName::Intermediate, ours, theirs, Some(false)));
    }
    fields
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
