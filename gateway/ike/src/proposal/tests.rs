//! Which of the offered proposals is chosen, and which answers are refused.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::algorithms::{Additional, AdditionalOffer, Round};
use crate::reason::{Offer, no_common_proposal};

fn ike(
    encryption: &[Encryption],
    integrity: &[Integrity],
    prf: &[Prf],
    groups: &[Group],
) -> IkeProposal {
    IkeProposal {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        prf: prf.to_vec(),
        groups: groups.to_vec(),
        additional: AdditionalOffer::new(),
    }
}

fn esp(encryption: &[Encryption], integrity: &[Integrity]) -> EspProposal {
    EspProposal {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        groups: Vec::new(),
        additional: AdditionalOffer::new(),
        pfs_optional: false,
    }
}

/// The offer, the choice and its check in IKE_AUTH.
fn offer_esp(ours: &[EspProposal], spi: u32) -> SecurityAssociation {
    super::offer_esp(ours, spi, false)
}

fn select_esp(
    ours: &[EspProposal],
    offered: &SecurityAssociation,
    spi: u32,
) -> Option<(SecurityAssociation, EspSuite, u32)> {
    let (answer, choice) = super::select_esp(ours, offered, spi, ChildExchange::Auth)?;
    Some((answer, choice.suite, choice.peer_spi))
}

fn accept_esp(
    ours: &[EspProposal],
    answer: &SecurityAssociation,
) -> Result<(EspSuite, u32), Error> {
    let choice = super::accept_esp(ours, answer, ChildExchange::Auth)?;
    Ok((choice.suite, choice.peer_spi))
}

fn gcm(groups: &[Group]) -> IkeProposal {
    ike(&[Encryption::Aes256Gcm16], &[], &[Prf::HmacSha256], groups)
}

fn cbc() -> EspProposal {
    esp(&[Encryption::Aes128Cbc], &[Integrity::HmacSha256])
}

/// What is chosen from an ESP offer, if anything.
fn chosen(ours: &[EspProposal], offered: &SecurityAssociation) -> Option<EspSuite> {
    select_esp(ours, offered, 0x1000).map(|(_, suite, _)| suite)
}

/// Our ESP offer after a change to its first proposal.
fn offer_changed(ours: &EspProposal, change: impl FnOnce(&mut Proposal)) -> SecurityAssociation {
    let mut offered = offer_esp(std::slice::from_ref(ours), 0x2000);
    change(&mut offered.proposals[0]);
    offered
}

/// A good answer to `gcm(&[X25519])` after a change to it.
fn ike_answer(change: impl FnOnce(&mut SecurityAssociation)) -> Result<IkeSuite, Error> {
    let ours = [gcm(&[Group::X25519])];
    let offered = offer_ike(&ours);
    let (mut answer, _) =
        select_ike(&ours, &offered, KeMethod::CURVE25519, Rounds::Possible).unwrap();
    change(&mut answer);
    accept_ike(&ours, &answer, Rounds::Possible)
}

#[test]
fn our_order_decides_between_proposals_and_between_algorithms() {
    let strong = esp(&[Encryption::Aes256Gcm16, Encryption::Aes128Gcm16], &[]);
    let ours = [strong, cbc()];
    let theirs = [cbc(), esp(&[Encryption::Aes128Gcm16, Encryption::Aes256Gcm16], &[])];
    let (answer, suite, spi) = select_esp(&ours, &offer_esp(&theirs, 0x2000), 0x1000).unwrap();
    assert_eq!(suite, EspSuite { encryption: Encryption::Aes256Gcm16, integrity: None, esn: true });
    assert_eq!(spi, 0x2000);
    // The answer bears the number that the peer gave its proposal, and our SPI.
    assert_eq!(answer.proposals[0].number, 2);
    assert_eq!(answer.proposals[0].spi, [0, 0, 0x10, 0]);
}

#[test]
fn an_aead_cipher_goes_with_no_integrity_or_with_none_only() {
    let ours = esp(&[Encryption::Aes256Gcm16], &[]);
    let with = |ids: &[IntegId]| {
        let extra = ids.iter().map(|id| transform(TransformType::INTEG, id.0)).collect::<Vec<_>>();
        chosen(std::slice::from_ref(&ours), &offer_changed(&ours, |p| p.transforms.extend(extra)))
    };
    assert!(with(&[]).is_some());
    assert!(with(&[IntegId::NONE]).is_some());
    assert_eq!(with(&[IntegId::NONE, IntegId::HMAC_SHA2_256_128]).unwrap().integrity, None);
    assert_eq!(with(&[IntegId::HMAC_SHA2_256_128]), None);
}

#[test]
fn a_cipher_without_integrity_is_refused() {
    let without = |id: Option<IntegId>| {
        let offered = offer_changed(&cbc(), |p| {
            p.transforms.retain(|t| t.kind != TransformType::INTEG);
            p.transforms.extend(id.map(|id| transform(TransformType::INTEG, id.0)));
        });
        chosen(&[cbc()], &offered)
    };
    assert_eq!(without(None), None);
    assert_eq!(without(Some(IntegId::NONE)), None);
    assert!(without(Some(IntegId::HMAC_SHA2_256_128)).is_some());
}

#[test]
fn another_key_length_is_another_algorithm() {
    for length in [None, Some(192), Some(256), Some(0)] {
        let offered = offer_changed(&cbc(), |p| p.transforms[0].key_length = length);
        assert_eq!(chosen(&[cbc()], &offered), None, "{length:?}");
    }
    let ours = esp(&[Encryption::ChaCha20Poly1305], &[]);
    let offered = offer_changed(&ours, |p| p.transforms[0].key_length = Some(256));
    assert_eq!(chosen(&[ours], &offered), None);
}

#[test]
fn a_transform_with_an_unknown_attribute_is_passed_over() {
    let ours = esp(&[Encryption::Aes256Gcm16, Encryption::Aes128Gcm16], &[]);
    let offered = offer_changed(&ours, |p| p.transforms[0].unknown_attribute = true);
    assert_eq!(chosen(&[ours], &offered).unwrap().encryption, Encryption::Aes128Gcm16);
}

#[test]
fn a_type_of_which_no_transform_is_understood_is_not_an_absent_type() {
    let aead = esp(&[Encryption::Aes256Gcm16], &[]);
    for kind in [TransformType::INTEG, TransformType::KE, TransformType::ESN] {
        let offered = offer_changed(&aead, |p| {
            p.transforms.retain(|t| t.kind != kind);
            p.transforms.push(Transform { unknown_attribute: true, ..transform(kind, 0) });
        });
        assert_eq!(chosen(std::slice::from_ref(&aead), &offered), None, "{kind}");
    }
}

#[test]
fn a_proposal_with_an_unknown_transform_type_is_passed_over_whole() {
    let mut offered = offer_esp(&[cbc(), cbc()], 0x2000);
    offered.proposals[0].transforms.push(transform(TransformType(99), 1));
    let (answer, ..) = select_esp(&[cbc()], &offered, 0x1000).unwrap();
    assert_eq!(answer.proposals[0].number, 2);
    offered.proposals[1].transforms.push(transform(TransformType(13), 0));
    assert_eq!(chosen(&[cbc()], &offered), None);
}

/// RFC 7296 2.7: the responder's order decides.
#[test]
fn of_sha1_and_sha2_our_first_is_chosen_if_the_peer_has_it() {
    let both = [Integrity::HmacSha256, Integrity::HmacSha1];
    let ike_of = |integrity: &[Integrity], prf: &[Prf]| {
        ike(&[Encryption::Aes128Cbc], integrity, prf, &[Group::Modp2048])
    };
    let prfs = [Prf::HmacSha256, Prf::HmacSha1];
    let old = ike_of(&[Integrity::HmacSha1], &[Prf::HmacSha1]);
    let theirs = ike_of(&[both[1], both[0]], &[prfs[1], prfs[0]]);
    let suite = |mine: &IkeProposal, theirs: &IkeProposal| {
        let offered = offer_ike(std::slice::from_ref(theirs));
        let mine = std::slice::from_ref(mine);
        let (_, suite) = select_ike(mine, &offered, KeMethod::MODP_2048, Rounds::Possible)?;
        Some((suite.integrity.unwrap(), suite.prf))
    };
    let (sha2, sha1) = ((both[0], prfs[0]), (both[1], prfs[1]));
    assert_eq!(suite(&ike_of(&both, &prfs), &theirs), Some(sha2));
    assert_eq!(suite(&theirs, &ike_of(&both, &prfs)), Some(sha1));
    assert_eq!(suite(&ike_of(&both, &prfs), &old), Some(sha1));
    assert_eq!(suite(&ike_of(&both[..1], &prfs[..1]), &old), None);

    let esp_of = |integrity: &[Integrity]| esp(&[Encryption::Aes128Cbc], integrity);
    let chosen = |mine: &[Integrity], theirs: &[Integrity]| {
        let offered = offer_esp(&[esp_of(theirs)], 0x2000);
        let (_, choice, ..) = select_esp(&[esp_of(mine)], &offered, 0x1000)?;
        choice.integrity
    };
    let reversed = [both[1], both[0]];
    assert_eq!(chosen(&both, &reversed), Some(Integrity::HmacSha256));
    assert_eq!(chosen(&reversed, &both), Some(Integrity::HmacSha1));
    assert_eq!(chosen(&both, &both[1..]), Some(Integrity::HmacSha1));
    assert_eq!(chosen(&both[..1], &both[1..]), None);
}

#[test]
fn a_proposal_for_another_protocol_is_passed_over() {
    let ah = offer_changed(&cbc(), |p| p.protocol = ProtocolId::AH);
    assert_eq!(chosen(&[cbc()], &ah), None);
    let ours = [gcm(&[Group::X25519])];
    let mut offered = offer_ike(&ours);
    offered.proposals[0].protocol = ProtocolId::ESP;
    assert_eq!(select_ike(&ours, &offered, KeMethod::CURVE25519, Rounds::Possible), None);
}

#[test]
fn the_key_exchange_that_the_peer_has_sent_is_preferred() {
    let ours = [gcm(&[Group::X25519, Group::EcpP256, Group::EcpP384])];
    let offered = offer_ike(&[gcm(&[Group::EcpP384, Group::EcpP256])]);
    let group = |sent| select_ike(&ours, &offered, sent, Rounds::Possible).unwrap().1.group;
    assert_eq!(group(KeMethod::ECP_384), Group::EcpP384);
    assert_eq!(group(KeMethod::ECP_256), Group::EcpP256);
    // One that was sent but not offered, or that we do not have: our own order.
    assert_eq!(group(KeMethod::CURVE25519), Group::EcpP256);
    assert_eq!(group(KeMethod(4711)), Group::EcpP256);
}

#[test]
fn an_esp_offer_with_a_key_exchange_is_taken_only_if_it_can_do_without() {
    let with = |methods: &[KeMethod]| {
        let extra = methods.iter().map(|m| transform(TransformType::KE, m.0)).collect::<Vec<_>>();
        let (answer, ..) =
            select_esp(&[cbc()], &offer_changed(&cbc(), |p| p.transforms.extend(extra)), 0x1000)?;
        let is_ke = |t: &&Transform| t.kind == TransformType::KE;
        Some(answer.proposals[0].transforms.iter().filter(is_ke).map(|t| t.id).collect::<Vec<_>>())
    };
    assert_eq!(with(&[KeMethod::CURVE25519]), None);
    // RFC 7296 2.7: then the answer has the type, too.
    let none = Some(vec![KeMethod::NONE.0]);
    assert_eq!(with(&[KeMethod::CURVE25519, KeMethod::NONE]), none);
    assert_eq!(with(&[KeMethod::NONE]), none);
    assert_eq!(with(&[]), Some(Vec::new()));
}

#[test]
fn a_child_sa_has_a_key_exchange_of_its_own_where_both_ends_want_one() {
    use Group::{EcpP256, EcpP384, X25519};
    let with = |groups: &[Group], pfs_optional| {
        [EspProposal { groups: groups.to_vec(), pfs_optional, ..cbc() }]
    };
    // What comes of an offer for which a value for the first method was sent.
    let agree = |ours: &[EspProposal], theirs: &[EspProposal]| {
        let sent = theirs[0].groups.first().map(|g| g.id());
        let offered = super::offer_esp(theirs, 0x2000, true);
        let exchange = ChildExchange::CreateChild(sent);
        let (answer, choice) = super::select_esp(ours, &offered, 0x1000, exchange)?;
        let accepted = super::accept_esp(theirs, &answer, exchange);
        // Another method than the sent one is demanded by INVALID_KE_PAYLOAD, not answered.
        let same = choice.key_exchange.is_none_or(|k| Some(k.group.id()) == sent);
        assert_eq!(accepted.is_ok(), same, "{answer:?}");
        Some(choice.key_exchange.map(|k| k.group))
    };
    let (none, optional, required) =
        (with(&[], false), with(&[X25519], true), with(&[X25519], false));
    assert_eq!(agree(&none, &none), Some(None));
    assert_eq!(agree(&none, &optional), Some(None));
    assert_eq!(agree(&none, &required), None);
    assert_eq!(agree(&optional, &none), Some(None));
    assert_eq!(agree(&required, &none), None);
    for ours in [&optional, &required] {
        for theirs in [&optional, &required] {
            assert_eq!(agree(ours, theirs), Some(Some(X25519)));
        }
    }
    let two = with(&[X25519, EcpP256], false);
    assert_eq!(agree(&two, &with(&[EcpP256, X25519], false)), Some(Some(EcpP256)), "was sent");
    assert_eq!(agree(&two, &with(&[EcpP384, X25519], false)), Some(Some(X25519)), "is demanded");
    assert_eq!(agree(&optional, &with(&[EcpP384], true)), Some(None));
    assert_eq!(agree(&optional, &with(&[EcpP384], false)), None);
    // IKE_AUTH must not name any.
    let first = super::offer_esp(&required, 0x2000, false);
    assert!(first.proposals[0].transforms.iter().all(|t| t.kind != TransformType::KE));
}

#[test]
fn a_child_sa_has_additional_key_exchanges_where_both_ends_want_them() {
    use Group::{EcpP384, MlKem768, X25519};
    let with = |groups: &[Group], rounds: &[Option<Group>], pfs_optional| {
        let additional = (!rounds.is_empty()).then(|| (Round::Ke2, rounds.to_vec()));
        let additional = additional.into_iter().collect();
        [EspProposal { groups: groups.to_vec(), additional, pfs_optional, ..cbc() }]
    };
    let agree = |ours: &[EspProposal], theirs: &[EspProposal]| {
        let exchange = ChildExchange::CreateChild(theirs[0].groups.first().map(|g| g.id()));
        let offered = super::offer_esp(theirs, 0x2000, true);
        let (answer, choice) = super::select_esp(ours, &offered, 0x1000, exchange)?;
        let accepted = super::accept_esp(theirs, &answer, exchange).unwrap();
        assert_eq!(accepted.key_exchange, choice.key_exchange);
        Some(choice.key_exchange.map_or_else(|| "none".to_owned(), |k| k.to_string()))
    };
    let hybrid = with(&[X25519], &[Some(MlKem768)], false);
    let perhaps = with(&[X25519], &[Some(MlKem768), None], false);
    let classic = with(&[X25519], &[], false);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(agree(&hybrid, &hybrid), some("x25519-ke2_mlkem768"));
    assert_eq!(agree(&perhaps, &hybrid), some("x25519-ke2_mlkem768"));
    assert_eq!(agree(&perhaps, &classic), some("x25519"));
    assert_eq!(agree(&classic, &perhaps), some("x25519"));
    assert_eq!(agree(&hybrid, &classic), None);
    assert_eq!(agree(&classic, &hybrid), None);
    assert_eq!(agree(&hybrid, &with(&[X25519], &[Some(EcpP384)], false)), None);
    // Nothing is additional to nothing.
    let optional = with(&[X25519], &[Some(MlKem768), None], true);
    assert_eq!(agree(&optional, &with(&[], &[Some(MlKem768), None], false)), some("none"));
    assert_eq!(agree(&optional, &with(&[], &[Some(MlKem768)], false)), None);
    assert_eq!(agree(&with(&[X25519], &[Some(MlKem768)], true), &with(&[], &[], false)), None);
    // IKE_AUTH must not name any, and chooses none.
    let first = super::offer_esp(&hybrid, 0x2000, false);
    let named = |p: &Proposal| p.transforms.iter().any(|t| t.kind == Round::Ke2.transform_type());
    assert!(!named(&first.proposals[0]));
    let offered = super::offer_esp(&optional, 0x2000, true);
    let (_, choice) = super::select_esp(&hybrid, &offered, 0x1000, ChildExchange::Auth).unwrap();
    assert_eq!(choice.key_exchange, None);
    let offered = super::offer_esp(&hybrid, 0x2000, true);
    assert!(super::select_esp(&hybrid, &offered, 0x1000, ChildExchange::Auth).is_none());
}

#[test]
fn extended_sequence_numbers_are_chosen_where_they_are_offered() {
    let with = |numbers: &[EsnId]| {
        let offered = offer_changed(&cbc(), |p| {
            p.transforms.retain(|t| t.kind != TransformType::ESN);
            p.transforms.extend(numbers.iter().map(|n| transform(TransformType::ESN, n.0)));
        });
        chosen(&[cbc()], &offered).map(|suite| suite.esn)
    };
    assert_eq!(with(&[EsnId::NO, EsnId::YES]), Some(true));
    assert_eq!(with(&[EsnId::YES]), Some(true));
    assert_eq!(with(&[EsnId::NO]), Some(false));
    assert_eq!(with(&[]), None, "RFC 7296 3.3.3: mandatory");
    assert_eq!(with(&[EsnId(9)]), None);
}

#[test]
fn reserved_and_misshapen_esp_spis_are_refused() {
    for spi in [&[][..], &[0, 0, 0, 255], &[0; 4], &[1, 2, 3], &[0; 8]] {
        assert_eq!(chosen(&[cbc()], &offer_changed(&cbc(), |p| p.spi = spi.to_vec())), None);
    }
    let lowest = offer_changed(&cbc(), |p| p.spi = vec![0, 0, 1, 0]);
    assert!(chosen(&[cbc()], &lowest).is_some());
}

#[test]
fn an_answer_must_be_exactly_one_proposal() {
    assert!(ike_answer(|_| {}).is_ok());
    let none = ike_answer(|a| a.proposals.clear());
    assert_eq!(none, Err(Error::BadAnswer("not exactly one proposal")));
    let two = ike_answer(|a| a.proposals.push(a.proposals[0].clone()));
    assert_eq!(two, Err(Error::BadAnswer("not exactly one proposal")));
}

#[test]
fn an_answer_must_have_the_number_of_a_proposal_of_ours() {
    for number in [0, 2, 255] {
        let answer = ike_answer(|a| a.proposals[0].number = number);
        assert_eq!(answer, Err(Error::BadAnswer("a proposal number that we did not offer")));
    }
}

#[test]
fn an_answer_is_held_against_the_proposal_whose_number_it_bears() {
    let ours = [esp(&[Encryption::Aes256Gcm16], &[]), cbc()];
    let (mut answer, ..) = select_esp(&ours[1..], &offer_esp(&ours, 0x2000), 0x1000).unwrap();
    assert!(accept_esp(&ours, &answer).is_ok());
    answer.proposals[0].number = 1;
    assert!(accept_esp(&ours, &answer).is_err());
}

#[test]
fn an_answer_with_two_transforms_of_a_type_is_refused() {
    for at in 0..3 {
        let answer = ike_answer(|a| {
            let again = a.proposals[0].transforms[at];
            a.proposals[0].transforms.push(again);
        });
        assert_eq!(answer, Err(Error::BadAnswer("several transforms of one type")));
    }
}

#[test]
fn an_answer_that_lacks_or_changes_a_transform_is_refused() {
    let expected = Err(Error::BadAnswer("the chosen transforms are not among ours"));
    for at in 0..3 {
        assert_eq!(ike_answer(|a| _ = a.proposals[0].transforms.remove(at)), expected);
        assert_eq!(ike_answer(|a| a.proposals[0].transforms[at].id = 4711), expected);
        assert_eq!(ike_answer(|a| a.proposals[0].transforms[at].key_length = Some(7)), expected);
        assert_eq!(
            ike_answer(|a| a.proposals[0].transforms[at].unknown_attribute = true),
            expected
        );
    }
}

#[test]
fn proposals_are_described_in_words() {
    let words = describe(&offer_ike(&[gcm(&[Group::X25519])]).proposals[0]);
    assert!(words.contains("_256/") && words.contains("PRF_"), "{words}");
}

fn some_of<T: Copy + core::fmt::Debug + 'static>(
    all: &'static [T],
) -> impl Strategy<Value = Vec<T>> {
    subsequence(all, 1..=all.len()).prop_shuffle()
}

/// Ciphers that may stand in one proposal, with the integrity algorithms that they need.
fn ciphers() -> impl Strategy<Value = (Vec<Encryption>, Vec<Integrity>)> {
    let (aead, other): (Vec<_>, Vec<_>) = Encryption::ALL.iter().partition(|e| e.is_aead());
    let (aead_count, other_count) = (aead.len(), other.len());
    prop_oneof![
        subsequence(aead, 1..=aead_count).prop_shuffle().prop_map(|e| (e, Vec::new())),
        (subsequence(other, 1..=other_count).prop_shuffle(), some_of(Integrity::ALL)),
    ]
}

fn ike_proposals() -> impl Strategy<Value = Vec<IkeProposal>> {
    let one = (ciphers(), some_of(Prf::ALL), some_of(Group::ALL)).prop_map(
        |((encryption, integrity), prf, groups)| ike(&encryption, &integrity, &prf, &groups),
    );
    proptest::collection::vec(one, 1..4)
}

fn esp_proposals() -> impl Strategy<Value = Vec<EspProposal>> {
    proptest::collection::vec(ciphers().prop_map(|(e, i)| esp(&e, &i)), 1..4)
}

fn ike_has(p: &IkeProposal, suite: &IkeSuite) -> bool {
    p.encryption.contains(&suite.encryption)
        && suite.integrity.map_or(p.integrity.is_empty(), |i| p.integrity.contains(&i))
        && p.prf.contains(&suite.prf)
        && p.groups.contains(&suite.group)
}

fn esp_has(p: &EspProposal, suite: &EspSuite) -> bool {
    p.encryption.contains(&suite.encryption)
        && suite.integrity.map_or(p.integrity.is_empty(), |i| p.integrity.contains(&i))
}

fn all_ike_suites() -> Vec<IkeSuite> {
    let mut all = Vec::new();
    for &encryption in Encryption::ALL {
        let with = Integrity::ALL.iter().map(|i| Some(*i));
        let integrity = if encryption.is_aead() { vec![None] } else { with.collect() };
        for integrity in integrity {
            for &prf in Prf::ALL {
                let additional = Additional::NONE;
                let suite = |&group| IkeSuite { encryption, integrity, prf, group, additional };
                all.extend(Group::ALL.iter().map(suite));
            }
        }
    }
    all
}

#[test]
fn every_combination_of_algorithms_is_offered_chosen_and_accepted() {
    let all = all_ike_suites();
    assert_eq!(all.len(), (3 + 2 * 4) * 4 * Group::ALL.len());
    for suite in all {
        let ours =
            [ike(&[suite.encryption], suite.integrity.as_slice(), &[suite.prf], &[suite.group])];
        let (offered, sent) = (offer_ike(&ours), suite.group.id());
        let (answer, chosen) = select_ike(&ours, &offered, sent, Rounds::Possible).unwrap();
        assert_eq!(chosen, suite);
        assert_eq!(accept_ike(&ours, &answer, Rounds::Possible), Ok(suite));
        let ours = [esp(&[suite.encryption], suite.integrity.as_slice())];
        let (answer, chosen, _) = select_esp(&ours, &offer_esp(&ours, 0x2000), 0x1000).unwrap();
        assert_eq!((chosen.encryption, chosen.integrity), (suite.encryption, suite.integrity));
        assert_eq!(accept_esp(&ours, &answer), Ok((chosen, 0x1000)));
    }
}

proptest! {
    #[test]
    fn both_ends_agree_on_an_ike_suite_that_both_have(
        ours in ike_proposals(),
        theirs in ike_proposals(),
        sent in select(Group::ALL),
    ) {
        let selected = select_ike(&ours, &offer_ike(&theirs), sent.id(), Rounds::Possible);
        let both = |s: &IkeSuite| {
            ours.iter().any(|p| ike_has(p, s)) && theirs.iter().any(|p| ike_has(p, s))
        };
        prop_assert_eq!(selected.is_some(), all_ike_suites().iter().any(both));
        // The record of a refusal finds something that does not fit exactly when there is a refusal.
        let offer = Offer { peer: None, rule: None, sa: offer_ike(&ours) };
        let theirs_offered = offer_ike(&theirs);
        let refusal =
            no_common_proposal(&[offer], &theirs_offered, Rounds::Possible);
        prop_assert_eq!(refusal.candidates[0].unfit().next().is_none(), selected.is_some());
        if let Some((answer, suite)) = selected {
            prop_assert!(both(&suite));
            prop_assert_eq!(accept_ike(&theirs, &answer, Rounds::Possible), Ok(suite));
        }
    }

    #[test]
    fn both_ends_agree_on_an_esp_suite_that_both_have(
        ours in esp_proposals(),
        theirs in esp_proposals(),
    ) {
        let selected = select_esp(&ours, &offer_esp(&theirs, 0x2000), 0x1000);
        let both = |s: &EspSuite| {
            ours.iter().any(|p| esp_has(p, s)) && theirs.iter().any(|p| esp_has(p, s))
        };
        let possible = all_ike_suites()
            .into_iter()
            .map(|s| EspSuite { encryption: s.encryption, integrity: s.integrity, esn: true });
        prop_assert_eq!(selected.is_some(), possible.into_iter().any(|s| both(&s)));
        if let Some((answer, suite, spi)) = selected {
            prop_assert!(both(&suite) && suite.esn);
            prop_assert_eq!(spi, 0x2000);
            prop_assert_eq!(accept_esp(&theirs, &answer), Ok((suite, 0x1000)));
        }
    }
}
