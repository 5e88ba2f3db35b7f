//! Additional key exchanges in proposals (RFC 9370 2.2.1).

use gateway_wire::{KeMethod, NotifyType, Proposal, Transform, TransformType};

use super::{lacks, offers, transform};
use crate::algorithms::{Additional, AdditionalOffer, Group, Round};
use crate::payloads::Payloads;

/// Whether the peer has said that it can do additional key exchanges: in the initial exchanges by
/// INTERMEDIATE_EXCHANGE_SUPPORTED (RFC 9242 3.1). In CREATE_CHILD_SA they need no such word: who
/// proposes or chooses one can do it (RFC 9370 2.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// It has.
    Possible,
    /// It has not: whatever it proposes, none may be chosen.
    Impossible,
}

impl Rounds {
    /// What a message of IKE_SA_INIT says.
    pub(crate) fn of(payloads: &Payloads<'_>) -> Self {
        match payloads.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            Some(_) => Self::Possible,
            None => Self::Impossible,
        }
    }
}

/// Whether this is one of the transform types 6 to 12.
pub(crate) fn is_additional(kind: TransformType) -> bool {
    Round::ALL.iter().any(|round| round.transform_type() == kind)
}

/// What we offer as it stands in a proposal.
pub(super) fn transforms(offer: &AdditionalOffer) -> impl Iterator<Item = Transform> + '_ {
    offer.iter().flat_map(|(round, methods)| {
        methods.iter().map(|method| transform(round.transform_type(), id(*method).0))
    })
}

/// What was chosen as it stands in the answer: one transform of each type that was offered.
pub(super) fn chosen(chosen: Additional, theirs: &Proposal) -> impl Iterator<Item = Transform> {
    let offered = |round: &&Round| !lacks(theirs, round.transform_type());
    let transform = move |round: &Round| transform(round.transform_type(), id(chosen.at(*round)).0);
    Round::ALL.iter().filter(offered).map(transform)
}

/// The method for each place that both ends accept, none of them twice, and none that the exchange
/// before has: one that is done again adds nothing, and must not be chosen (RFC 9370 2.2.1). Without
/// a `group` there that these could be additional to, there are none. `None`: the proposals do not
/// go together.
pub(super) fn choose(
    mine: &AdditionalOffer,
    theirs: &Proposal,
    group: Option<Group>,
    rounds: Rounds,
) -> Option<Additional> {
    let mut chosen = Additional::NONE;
    for round in Round::ALL {
        let kind = round.transform_type();
        // Who says nothing of a place wants nothing there.
        let ours = mine.get(round).map_or(&[None][..], Vec::as_slice);
        let fits = |method: &Option<Group>| match method {
            Some(group_here) => {
                rounds == Rounds::Possible
                    && group.is_some_and(|group| *group_here != group)
                    && chosen.iter().all(|(_, earlier)| earlier != *group_here)
                    && offers(theirs, kind, group_here.id().0, None)
            }
            None => lacks(theirs, kind) || offers(theirs, kind, KeMethod::NONE.0, None),
        };
        if let Some(method) = *ours.iter().find(|method| fits(method))? {
            chosen = chosen.with(*round, method);
        }
    }
    Some(chosen)
}

/// Whether what was chosen is among what we offer.
pub(super) fn accepts(offer: &AdditionalOffer, chosen: Additional) -> bool {
    Round::ALL.iter().all(|round| {
        offer.get(round).map_or(&[None][..], Vec::as_slice).contains(&chosen.at(*round))
    })
}

/// The transform ID of a method, or of none.
fn id(method: Option<Group>) -> KeMethod {
    method.map_or(KeMethod::NONE, Group::id)
}

#[cfg(test)]
mod tests {
    use gateway_wire::SecurityAssociation;

    use super::*;
    use crate::algorithms::{Encryption, IkeProposal, IkeSuite, Prf};
    use crate::error::Error;
    use crate::proposal::{accept_ike, accepts as accepts_suite, offer_ike, select_ike};

    const ML_KEM: [Option<Group>; 2] = [Some(Group::MlKem768), Some(Group::MlKem512)];

    /// AES-256-GCM with these methods, and these in additional rounds.
    fn proposal(groups: &[Group], additional: &[(Round, &[Option<Group>])]) -> IkeProposal {
        IkeProposal {
            encryption: vec![Encryption::Aes256Gcm16],
            integrity: Vec::new(),
            prf: vec![Prf::HmacSha256],
            groups: groups.to_vec(),
            additional: additional.iter().map(|(round, m)| (*round, m.to_vec())).collect(),
        }
    }

    fn select(
        ours: &[IkeProposal],
        theirs: &[IkeProposal],
        rounds: Rounds,
    ) -> Option<(SecurityAssociation, IkeSuite)> {
        select_ike(ours, &offer_ike(theirs), Group::X25519.id(), rounds)
    }

    /// The additional methods that two proposals lead to; what the responder chooses, the
    /// initiator must accept.
    fn agreed(ours: &IkeProposal, theirs: &IkeProposal) -> Option<Vec<(Round, Group)>> {
        let theirs = std::slice::from_ref(theirs);
        let (answer, suite) = select(std::slice::from_ref(ours), theirs, Rounds::Possible)?;
        assert_eq!(accept_ike(theirs, &answer, Rounds::Possible), Ok(suite));
        assert!(accepts_suite(theirs, suite));
        Some(suite.additional.iter().collect())
    }

    #[test]
    fn a_round_is_agreed_on_where_both_ends_have_it() {
        let with = proposal(&[Group::X25519], &[(Round::Ke1, &ML_KEM)]);
        let without = proposal(&[Group::X25519], &[]);
        let optional = proposal(&[Group::X25519], &[(Round::Ke1, &[Some(Group::MlKem512), None])]);
        let first = |group| Some(vec![(Round::Ke1, group)]);
        assert_eq!(agreed(&with, &with), first(Group::MlKem768));
        assert_eq!(agreed(&optional, &with), first(Group::MlKem512));
        assert_eq!(agreed(&with, &optional), first(Group::MlKem512));
        assert_eq!(agreed(&with, &without), None);
        assert_eq!(agreed(&without, &with), None);
        assert_eq!(agreed(&without, &optional), Some(Vec::new()));
        assert_eq!(agreed(&optional, &without), Some(Vec::new()));
        assert_eq!(agreed(&without, &without), Some(Vec::new()));
    }

    #[test]
    fn places_are_matched_one_by_one_and_done_in_order() {
        let both = |a: Round, b: Round| {
            let ecp: &[Option<Group>] = &[Some(Group::EcpP384)];
            proposal(&[Group::X25519], &[(a, ecp), (b, &ML_KEM)])
        };
        let expected = vec![(Round::Ke2, Group::EcpP384), (Round::Ke7, Group::MlKem768)];
        assert_eq!(
            agreed(&both(Round::Ke2, Round::Ke7), &both(Round::Ke2, Round::Ke7)),
            Some(expected)
        );
        assert_eq!(agreed(&both(Round::Ke1, Round::Ke7), &both(Round::Ke2, Round::Ke7)), None);
    }

    #[test]
    fn no_method_is_used_twice() {
        let twice = proposal(
            &[Group::X25519, Group::MlKem768],
            &[(Round::Ke1, &[Some(Group::X25519), Some(Group::MlKem768)]), (Round::Ke2, &ML_KEM)],
        );
        let (_, suite) =
            select(std::slice::from_ref(&twice), std::slice::from_ref(&twice), Rounds::Possible)
                .unwrap();
        let groups: Vec<_> = suite.groups().collect();
        assert_eq!(groups, [Group::X25519, Group::MlKem768, Group::MlKem512]);
        // Where the one that was sent leaves nothing for a round, another is asked for.
        let crossed =
            proposal(&[Group::X25519, Group::EcpP256], &[(Round::Ke1, &[Some(Group::X25519)])]);
        let (_, suite) = select(
            std::slice::from_ref(&crossed),
            std::slice::from_ref(&crossed),
            Rounds::Possible,
        )
        .unwrap();
        assert_eq!(suite.groups().collect::<Vec<_>>(), [Group::EcpP256, Group::X25519]);
    }

    #[test]
    fn whoever_cannot_do_rounds_gets_the_next_proposal() {
        let both =
            [proposal(&[Group::X25519], &[(Round::Ke1, &ML_KEM)]), proposal(&[Group::X25519], &[])];
        let (answer, suite) = select(&both, &both, Rounds::Possible).unwrap();
        assert_eq!(answer.proposals[0].number, 1);
        assert!(suite.is_quantum_safe());
        let (answer, suite) = select(&both, &both, Rounds::Impossible).unwrap();
        assert_eq!(answer.proposals[0].number, 2);
        assert!(!suite.is_quantum_safe());
        assert_eq!(select(&both[..1], &both, Rounds::Impossible), None);
    }

    #[test]
    fn an_answer_with_rounds_that_were_not_offered_is_refused() {
        let ours = [proposal(&[Group::X25519], &[(Round::Ke1, &ML_KEM)])];
        let (answer, _) = select(&ours, &ours, Rounds::Possible).unwrap();
        let refused = |answer: &SecurityAssociation, rounds| {
            let error = accept_ike(&ours, answer, rounds).unwrap_err();
            assert!(matches!(error, Error::BadAnswer(_)), "{error}");
        };
        refused(&answer, Rounds::Impossible);
        let changed = |change: &dyn Fn(&mut Vec<Transform>)| {
            let mut changed = answer.clone();
            change(&mut changed.proposals[0].transforms);
            changed
        };
        let ke1 = TransformType::ADDKE1;
        for changed in [
            changed(&|t| t.retain(|t| t.kind != ke1)),
            changed(&|t| t.push(transform(ke1, Group::MlKem512.id().0))),
            changed(&|t| t.iter_mut().filter(|t| t.kind == ke1).for_each(|t| t.id = 0)),
            changed(&|t| t.iter_mut().filter(|t| t.kind == ke1).for_each(|t| t.id = 31)),
            changed(&|t| t.push(transform(TransformType::ADDKE2, Group::MlKem512.id().0))),
        ] {
            refused(&changed, Rounds::Possible);
        }
    }

    #[test]
    fn the_answer_names_none_where_the_peer_offers_a_round_that_is_not_chosen() {
        let ours = [proposal(&[Group::X25519], &[])];
        let theirs = [proposal(&[Group::X25519], &[(Round::Ke3, &[Some(Group::MlKem768), None])])];
        let (answer, suite) = select(&ours, &theirs, Rounds::Possible).unwrap();
        assert!(suite.additional.is_empty());
        assert_eq!(
            answer.proposals[0].transforms.last(),
            Some(&transform(TransformType::ADDKE3, 0))
        );
        assert_eq!(accept_ike(&theirs, &answer, Rounds::Possible), Ok(suite));
    }
}
