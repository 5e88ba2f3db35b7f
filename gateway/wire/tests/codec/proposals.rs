//! The layout of the SA payload, and each way in which it can be wrong.

use gateway_wire::{
    ChainError, DecodeErrorKind, EncodeErrorKind, Payload, PayloadType, Proposal, ProtocolId,
    SecurityAssociation, Transform, TransformType,
};

use crate::{body, read, refusal, unencodable};

use DecodeErrorKind::{BadLength, BadValue, TrailingData, Truncated};

/// One ESP proposal: AES-CBC-256 with an attribute, and ESN.
const SA: [u8; 32] = [
    0, 0, 0, 32, 1, 3, 4, 2, 0xc0, 0, 0, 1, // proposal
    3, 0, 0, 12, 1, 0, 0, 12, 0x80, 14, 1, 0, // ENCR
    0, 0, 0, 8, 5, 0, 0, 0, // ESN
];

fn sa(edit: impl FnOnce(&mut Vec<u8>)) -> Result<SecurityAssociation, DecodeErrorKind> {
    let mut octets = SA.to_vec();
    edit(&mut octets);
    match read(PayloadType::SA, &octets) {
        Ok(Payload::SecurityAssociation(sa)) => Ok(sa),
        Err(ChainError::Decode(error)) => Err(error.kind),
        other => panic!("{other:?}"),
    }
}

fn refused_sa(edit: impl FnOnce(&mut Vec<u8>)) -> DecodeErrorKind {
    sa(edit).unwrap_err()
}

#[test]
fn a_proposal_is_laid_out_as_rfc_7296_3_3_says() {
    let transform =
        |kind, id, key_length| Transform { kind, id, key_length, unknown_attribute: false };
    let expected = SecurityAssociation {
        proposals: vec![Proposal {
            number: 1,
            protocol: ProtocolId::ESP,
            spi: vec![0xc0, 0, 0, 1],
            transforms: vec![
                transform(TransformType::ENCR, 12, Some(256)),
                transform(TransformType::ESN, 0, None),
            ],
        }],
    };
    assert_eq!(sa(|_| {}), Ok(expected.clone()));
    assert_eq!(body(&Payload::SecurityAssociation(expected)), SA);
}

#[test]
fn proposals_follow_each_other() {
    let two = sa(|o| {
        let second = o.clone();
        o[0] = 2;
        o.extend(second);
    });
    let proposals = two.unwrap().proposals;
    assert_eq!(proposals.len(), 2);
    assert_eq!(proposals[0], proposals[1]);
    assert_eq!(body(&Payload::SecurityAssociation(SecurityAssociation { proposals }))[0], 2);
}

#[test]
fn an_sa_without_proposals_is_refused() {
    assert_eq!(refusal(PayloadType::SA, &[]).kind, Truncated);
    let empty = SecurityAssociation { proposals: vec![] };
    assert_eq!(unencodable(Payload::SecurityAssociation(empty)), EncodeErrorKind::BadValue);
}

#[test]
fn a_proposal_that_announces_another_must_be_followed_by_it() {
    assert_eq!(refused_sa(|o| o[0] = 2), Truncated);
    assert_eq!(refused_sa(|o| o[0] = 1), BadValue);
    assert_eq!(refused_sa(|o| o.extend([0; 8])), TrailingData);
}

#[test]
fn the_length_of_a_proposal_must_be_that_of_its_transforms() {
    assert_eq!(refused_sa(|o| o[3] = 31), Truncated);
    assert_eq!(refused_sa(|o| o[3] = 33), Truncated);
    assert_eq!(refused_sa(|o| o[3] = 3), BadLength);
    assert_eq!(
        refused_sa(|o| {
            o[3] = 33;
            o.push(0);
        }),
        TrailingData
    );
}

#[test]
fn the_number_of_transforms_must_be_true() {
    assert_eq!(refused_sa(|o| o[7] = 0), BadLength);
    assert_eq!(refused_sa(|o| o[7] = 1), BadValue); // the first says that more follow
    assert_eq!(refused_sa(|o| o[7] = 3), BadValue); // the second says that none does
    assert_eq!(refused_sa(|o| o[12] = 0), BadValue);
    assert_eq!(refused_sa(|o| o[24] = 3), BadValue);
    let only_first = sa(|o| {
        o.truncate(24);
        (o[3], o[7], o[12]) = (24, 1, 0);
    });
    assert_eq!(only_first.unwrap().proposals[0].transforms.len(), 1);
}

#[test]
fn a_proposal_has_the_spi_of_its_protocol() {
    let spi = |protocol: u8, size: usize| {
        sa(|o| {
            o.splice(8..12, std::iter::repeat_n(7, size));
            (o[5], o[6]) = (protocol, u8::try_from(size).unwrap());
            o[3] = u8::try_from(o.len()).unwrap();
        })
    };
    for (protocol, size) in [(1, 0), (1, 8), (2, 4), (3, 4), (4, 0), (4, 3)] {
        let proposals = spi(protocol, size).unwrap().proposals;
        assert_eq!(proposals[0].spi, vec![7; size]);
    }
    for (protocol, size) in [(1, 4), (2, 0), (2, 8), (3, 0), (3, 2), (3, 8)] {
        assert_eq!(spi(protocol, size), Err(BadLength));
        let proposal = Proposal {
            number: 1,
            protocol: ProtocolId(protocol),
            spi: vec![7; size],
            transforms: sa(|_| {}).unwrap().proposals.remove(0).transforms,
        };
        let sa = SecurityAssociation { proposals: vec![proposal] };
        assert_eq!(unencodable(Payload::SecurityAssociation(sa)), EncodeErrorKind::BadValue);
    }
    assert_eq!(refused_sa(|o| o[6] = 255), Truncated);
}

#[test]
fn a_proposal_without_transforms_is_refused() {
    let proposal =
        Proposal { number: 1, protocol: ProtocolId::IKE, spi: vec![], transforms: vec![] };
    let sa = SecurityAssociation { proposals: vec![proposal] };
    assert_eq!(unencodable(Payload::SecurityAssociation(sa)), EncodeErrorKind::BadValue);
    assert_eq!(refusal(PayloadType::SA, &[0, 0, 0, 8, 1, 1, 0, 0]).kind, BadLength);
}

/// The ENCR transform of [`SA`] with other attributes.
fn attributes(octets: &[u8]) -> Result<Transform, DecodeErrorKind> {
    let sa = sa(|o| {
        o.splice(20..24, octets.iter().copied());
        o[3] = u8::try_from(o.len()).unwrap();
        o[15] = u8::try_from(8 + octets.len()).unwrap();
    });
    sa.map(|sa| sa.proposals[0].transforms[0])
}

#[test]
fn an_attribute_that_is_not_known_marks_its_transform() {
    let marked = |octets: &[u8], key_length: Option<u16>| {
        let transform = attributes(octets).unwrap();
        assert!(transform.unknown_attribute);
        assert_eq!(transform.key_length, key_length);
    };
    assert!(!attributes(&[]).unwrap().unknown_attribute);
    marked(&[0x80, 15, 0, 1], None); // short form
    marked(&[0, 15, 0, 2, 9, 9], None); // long form
    marked(&[0, 15, 0, 0], None);
    marked(&[0, 14, 0, 2, 1, 0], None); // a key length has the short form
    marked(&[0x80, 14, 0, 128, 0, 15, 0, 1, 9], Some(128));
}

#[test]
fn a_transform_with_an_unknown_attribute_has_no_encoding() {
    let mut sa = sa(|_| {}).unwrap();
    sa.proposals[0].transforms[1].unknown_attribute = true;
    assert_eq!(unencodable(Payload::SecurityAssociation(sa)), EncodeErrorKind::BadValue);
}

#[test]
fn attributes_must_end_with_their_transform() {
    assert_eq!(attributes(&[0x80, 14, 1]), Err(Truncated));
    assert_eq!(attributes(&[0, 15, 0, 3, 9, 9]), Err(Truncated));
    assert_eq!(attributes(&[0x80, 14, 1, 0, 0]), Err(Truncated));
}

#[test]
fn a_key_length_stands_once() {
    assert_eq!(attributes(&[0x80, 14, 0, 128, 0x80, 14, 1, 0]), Err(BadValue));
}
