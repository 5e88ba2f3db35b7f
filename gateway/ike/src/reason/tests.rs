use gateway_wire::{Proposal, ProtocolId, SecurityAssociation, TrafficSelector, Transform};

use super::*;
use crate::algorithms::{AdditionalOffer, Encryption, Group, IkeProposal, Prf, Round};
use crate::config::Mode;
use crate::proposal::{Rounds, offer_esp, offer_ike};

fn ike(groups: &[Group]) -> IkeProposal {
    IkeProposal {
        encryption: vec![Encryption::Aes256Gcm16],
        integrity: Vec::new(),
        prf: vec![Prf::HmacSha256],
        groups: groups.to_vec(),
        additional: AdditionalOffer::new(),
    }
}

fn refused(ours: &[IkeProposal], theirs: &SecurityAssociation, rounds: Rounds) -> Refusal {
    let offer = Offer { peer: None, rule: None, sa: offer_ike(ours) };
    no_common_proposal(&[offer], theirs, rounds)
}

fn transform(kind: TransformType, id: u16) -> Transform {
    Transform { kind, id, key_length: None, unknown_attribute: false }
}

#[test]
fn an_additional_key_exchange_says_whether_it_was_possible_at_all() {
    let with = IkeProposal {
        additional: [(Round::Ke1, vec![Some(Group::MlKem768)])].into(),
        ..ike(&[Group::X25519])
    };
    let theirs = offer_ike(std::slice::from_ref(&with));
    let refusal = refused(std::slice::from_ref(&with), &theirs, Rounds::Impossible);
    assert_eq!(refusal.cause, Cause::AdditionalKeyExchange);
    let text = refusal.to_string();
    assert!(text.contains("additional_key_exchange_1: ours ADDKE1_ML_KEM_768"), "{text}");
    assert!(text.contains("ike_intermediate: ours needed, theirs not announced"), "{text}");

    let plain = offer_ike(&[ike(&[Group::X25519])]);
    let refusal = refused(&[with], &plain, Rounds::Possible);
    assert_eq!(refusal.cause, Cause::AdditionalKeyExchange);
    assert!(!refusal.to_string().contains("ike_intermediate"));
}

#[test]
fn what_rfc_7296_leaves_open_fits() {
    // "NONE" is as good as nothing (3.3.2), in either place.
    let ours = [ike(&[Group::X25519])];
    let mut theirs = offer_ike(&[ike(&[Group::EcpP256])]);
    theirs.proposals[0].transforms.push(transform(TransformType::INTEG, 0));
    let refusal = refused(&ours, &theirs, Rounds::Possible);
    let nearest = refusal.nearest_candidate().unwrap();
    let unfit: Vec<_> = nearest.unfit().map(|f| f.name.to_string()).collect();
    assert_eq!((refusal.cause, unfit), (Cause::KeyExchange, vec!["key_exchange".to_owned()]));
}

#[test]
fn a_transform_with_an_attribute_that_is_not_known_is_shown_and_does_not_fit() {
    let ours = [ike(&[Group::X25519])];
    let mut theirs = offer_ike(&ours);
    theirs.proposals[0].transforms[0].unknown_attribute = true;
    let refusal = refused(&ours, &theirs, Rounds::Possible);
    assert_eq!(refusal.cause, Cause::Encryption);
    let field = refusal.nearest_candidate().unwrap().unfit().next().unwrap();
    assert_eq!(field.ours, field.theirs);
}

#[test]
fn other_protocols_types_and_spis_have_their_cause() {
    let ours = [ike(&[Group::X25519])];
    let mut other = offer_ike(&ours);
    other.proposals[0].protocol = ProtocolId::AH;
    assert_eq!(refused(&ours, &other, Rounds::Possible).cause, Cause::Protocol);
    let mut unknown = offer_ike(&ours);
    unknown.proposals[0].transforms.push(transform(TransformType(99), 0));
    let refusal = refused(&ours, &unknown, Rounds::Possible);
    assert_eq!(refusal.cause, Cause::UnknownTransform);
    assert!(refusal.to_string().contains("transform_type_99"), "{refusal}");
    let empty = SecurityAssociation { proposals: Vec::new() };
    assert_eq!(refused(&ours, &empty, Rounds::Possible).cause, Cause::Protocol);

    let esp = crate::testing::proposals().1;
    let refused = |theirs: &SecurityAssociation| {
        let sa = offer_esp(&esp, 0x1000, false);
        let offer = Offer { peer: None, rule: None, sa };
        no_common_proposal(&[offer], theirs, Rounds::Impossible)
    };
    let reserved = refused(&offer_esp(&esp, 255, false));
    assert_eq!(reserved.cause, Cause::Spi);
    assert!(reserved.to_string().contains("theirs 000000ff"), "{reserved}");
    let mut no_esn = offer_esp(&esp, 0x1000, false);
    no_esn.proposals[0].transforms.retain(|t| t.kind != TransformType::ESN);
    assert_eq!(refused(&no_esn).cause, Cause::Esn);
    // What would have been accepted differs in nothing.
    assert_eq!(refused(&offer_esp(&esp, 0x1000, false)).cause, Cause::Combination);
}

#[test]
fn a_record_has_a_bound_whatever_a_peer_sends() {
    let many = |kind: u8| (0..300).map(move |id| transform(TransformType(kind), 0x8000 | id));
    let monster = Proposal {
        number: 1,
        protocol: ProtocolId::IKE,
        spi: vec![0xff; 255],
        transforms: (0..=255).flat_map(many).collect(),
    };
    let theirs = SecurityAssociation { proposals: vec![monster; 100] };
    let ours = vec![ike(&[Group::X25519]); 100];
    let mut refusal = refused(&ours, &theirs, Rounds::Possible);
    bounded_refusal(&refusal);
    assert!(refusal.left_out > 0);
    // Its octets have a bound too, but for the nearest; what goes is told.
    let size: usize = refusal.candidates.iter().map(Candidate::size).sum();
    let (all, left_out) = (refusal.candidates.len(), refusal.left_out);
    assert!(!refusal.shorten(size));
    assert!(refusal.shorten(size - 1));
    assert_eq!((refusal.candidates.len(), refusal.left_out), (all - 1, left_out + 1));
    assert!(refusal.shorten(0));
    assert_eq!((refusal.candidates.len(), refusal.left_out), (1, left_out + all - 1));

    let selector = |n: u16| TrafficSelector {
        protocol: 6,
        start_port: n,
        end_port: n,
        start: std::net::IpAddr::from(u128::from(n).to_be_bytes()),
        end: std::net::IpAddr::from((u128::MAX - u128::from(n)).to_be_bytes()),
    };
    let asked: Vec<_> = (0..255).map(selector).collect();
    let names: Vec<RuleName> = (0..1000).map(|n| format!("rule-{n}").as_str().into()).collect();
    let mut rules = names.iter().map(|rule| RuleSelectors {
        rule,
        local: Vec::new(),
        remote: asked.clone(),
        mode: Mode::Tunnel,
    });
    let refusal = no_common_selectors(&mut rules, (&asked, &asked), false);
    bounded_refusal(&refusal);
    assert_eq!(refusal.candidates.len() + refusal.left_out, 1000);
    let last = refusal.candidates[0].fields[1].theirs.last().unwrap();
    assert_eq!(last, "and 247 more");
}

fn bounded_refusal(refusal: &Refusal) {
    assert!((1..=MOST_CANDIDATES).contains(&refusal.candidates.len()));
    for field in refusal.candidates.iter().flat_map(|c| &c.fields) {
        for values in [&field.ours, &field.theirs] {
            assert!(values.len() <= MOST_VALUES + 1);
            assert!(values.iter().all(|v| v.chars().count() <= MOST_CHARACTERS + 1));
        }
    }
}

#[test]
fn values_are_cut_between_characters() {
    assert_eq!(cut("é".repeat(MOST_CHARACTERS)), "é".repeat(MOST_CHARACTERS));
    let long = cut("é".repeat(MOST_CHARACTERS + 1));
    assert_eq!(long.chars().count(), MOST_CHARACTERS + 1);
    assert!(long.ends_with('…'));
}

#[test]
fn what_is_not_shown_is_only_counted() {
    let mut put_in_words = 0;
    let values = bounded(0..1000, |value| {
        put_in_words += 1;
        format!("value {value}")
    });
    assert_eq!((values.len(), put_in_words), (MOST_VALUES + 1, MOST_VALUES));
    assert_eq!(values.last().unwrap(), "and 992 more");
}

#[test]
fn of_many_peers_some_are_compared_and_the_others_counted() {
    let peers: Vec<_> = (0..100)
        .map(|n| {
            let mut peer = crate::testing::peer(&format!("p{n}"), "a.test", "b.test", None);
            // The one before the last that is compared comes nearest.
            let group = if n == MOST_COMPARED - 2 { Group::EcpP256 } else { Group::X25519 };
            let prf = if n == MOST_COMPARED - 2 { Prf::HmacSha256 } else { Prf::HmacSha512 };
            peer.proposals = vec![IkeProposal { prf: vec![prf], ..ike(&[group]) }];
            std::sync::Arc::new(peer)
        })
        .collect();
    let theirs = offer_ike(&[ike(&[Group::EcpP384])]);
    let refusal = no_common_ike_proposal(&mut peers.iter(), &theirs, Rounds::Possible);
    assert_eq!(refusal.cause, Cause::KeyExchange);
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.peer.as_ref().unwrap().to_string(), "p62");
    assert_eq!((nearest.proposal, nearest.their_proposal), (Some(1), Some(1)));
    assert_eq!((refusal.candidates.len(), refusal.left_out), (MOST_CANDIDATES, 96));
}
