//! Signatures that are almost right, of the kinds that Wycheproof tries.

use super::tests::{ecdsa_value, keys};
use super::{BadSignature, PublicKey};
use crate::algorithms::SignatureScheme;
use crate::crypto::hex;

/// Made with the key `rsa-2048.pem` by Python's pow over "octets" with SHA-256: each line has a
/// name and a signature. Those of RSASSA-PSS have the octets 0 to 31 as salt.
const RSA: &str = include_str!("../../../tests/keys/octets.rsa");

/// The orders of the groups.
const ORDERS: [&str; 3] = [
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
];

/// A number as DER wants it.
fn canonical(number: &[u8]) -> Vec<u8> {
    let significant: Vec<u8> = number.iter().copied().skip_while(|octet| *octet == 0).collect();
    match significant.first() {
        Some(0..=127) => significant,
        Some(_) | None => [&[0], significant.as_slice()].concat(),
    }
}

/// The sum of two numbers of one length, longer by one octet.
fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut carry = 0_u16;
    let mut sum = vec![0; one.len()];
    for ((octet, a), b) in sum.iter_mut().zip(one).zip(other).rev() {
        let all = carry.wrapping_add(u16::from(*a)).wrapping_add(u16::from(*b));
        *octet = all.to_le_bytes()[0];
        carry = all >> 8;
    }
    [&[carry.to_le_bytes()[0]], sum.as_slice()].concat()
}

/// DER has one form for each pair of numbers (X.690 10.1, 8.3.2), and the numbers are between 1
/// and the order (FIPS 186-5 6.4.2).
#[test]
fn an_ecdsa_signature_in_another_form_than_der_is_refused() {
    let schemes =
        [SignatureScheme::EcdsaSha256, SignatureScheme::EcdsaSha384, SignatureScheme::EcdsaSha512];
    for ((key, scheme), order) in keys()[1..4].iter().zip(schemes).zip(ORDERS) {
        let order = hex(order);
        // Until both numbers have their highest bit set: without the zero before them they are
        // negative. Those of P-521 begin with seven zero bits, and are the same each time.
        let full = order[0] == 0xff;
        let (r, s) = loop {
            let (_, fixed) = key.sign_old(b"octets").unwrap();
            let (r, s) = fixed.split_at(order.len());
            if !full || r[0] & s[0] & 0x80 != 0 {
                break (r.to_vec(), s.to_vec());
            }
        };
        let verify = |value: &[u8]| key.public().verify(scheme, b"octets", value);
        let (dr, ds) = (canonical(&r), canonical(&s));
        let right = ecdsa_value(&dr, &ds);
        assert_eq!(verify(&right), Ok(()), "{scheme}");

        let zeros = |n: &[u8]| [&[0], n].concat();
        let header = right.len() - dr.len() - ds.len() - 4;
        let content = &right[header..];
        let sequence = |content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            let header = if length > 127 { vec![0x30, 0x81, length] } else { vec![0x30, length] };
            [&header, content].concat()
        };
        assert_eq!(sequence(content), right);
        let number = |n: &[u8]| [&[2, u8::try_from(n.len()).unwrap()], n].concat();
        let length = u8::try_from(content.len()).unwrap();
        let mut wrong = vec![
            ("r has a zero too many", ecdsa_value(&zeros(&dr), &ds)),
            ("s has a zero too many", ecdsa_value(&dr, &zeros(&ds))),
            ("an octet after the sequence", [right.as_slice(), &[0]].concat()),
            ("NULL after the sequence", [right.as_slice(), &[5, 0]].concat()),
            ("NULL in the sequence", sequence(&[content, &[5, 0]].concat())),
            ("a third number", sequence(&[content, &[2, 1, 1]].concat())),
            ("an octet is missing", right[..right.len() - 1].to_vec()),
            ("no s", sequence(&number(&dr))),
            ("nothing", Vec::new()),
            ("an empty sequence", vec![0x30, 0]),
            ("a set", [&[0x31], &right[1..]].concat()),
            ("another tag for r", sequence(&[&[3], &content[1..]].concat())),
            ("a length too long", [&[0x30, 0x82, 0, length], content].concat()),
            ("no length", [&[0x30, 0x80], content, &[0, 0]].concat()),
            ("r is empty", ecdsa_value(&[], &ds)),
            ("s is empty", ecdsa_value(&dr, &[])),
            ("r is 0", ecdsa_value(&[0], &ds)),
            ("s is 0", ecdsa_value(&dr, &[0])),
            ("both are 0", ecdsa_value(&[0], &[0])),
            ("r is 1, s is 0", ecdsa_value(&[1], &[0])),
            ("r is the order", ecdsa_value(&canonical(&order), &ds)),
            ("s is the order", ecdsa_value(&dr, &canonical(&order))),
            ("r is larger by the order", ecdsa_value(&canonical(&sum(&r, &order)), &ds)),
            ("s is larger by the order", ecdsa_value(&dr, &canonical(&sum(&s, &order)))),
            ("the numbers are exchanged", ecdsa_value(&ds, &dr)),
            ("the form of RFC 4754", [r.as_slice(), &s].concat()),
        ];
        if full {
            wrong.push(("r is negative", ecdsa_value(&r, &ds)));
            wrong.push(("s is negative", ecdsa_value(&dr, &s)));
        }
        for (what, value) in wrong {
            assert_eq!(verify(&value), Err(BadSignature::Wrong), "{scheme}: {what}");
        }
    }
}

#[test]
fn an_ecdsa_signature_of_the_older_methods_has_one_length() {
    for key in &keys()[1..4] {
        let (method, fixed) = key.sign_old(b"octets").unwrap();
        let (r, s) = fixed.split_at(fixed.len() / 2);
        let verify = |value: &[u8]| key.public().verify_old(method, b"octets", value);
        assert!(verify(&fixed).is_ok());
        for wrong in [
            [&[0], r, &[0], s].concat(),
            [&[0], r, s].concat(),
            [r, s, &[0]].concat(),
            [r, &s[1..]].concat(),
            [&r[1..], s].concat(),
            ecdsa_value(&canonical(r), &canonical(s)),
        ] {
            assert_eq!(verify(&wrong), Err(BadSignature::Wrong), "{method:?} {}", wrong.len());
        }
    }
}

/// RFC 8017 8.2.2: what comes out is compared with what should; it is not parsed. The PSS of
/// RFC 7427 has salt of the length of its hash (A.4.3).
#[test]
fn an_rsa_signature_with_another_padding_is_refused() {
    let key: &PublicKey = keys()[0].public();
    let (mut right, mut wrong) = (0, 0);
    for line in RSA.lines() {
        let (name, signature) = line.split_once(' ').unwrap();
        let signature = hex(signature);
        let scheme = if name.starts_with("pss") {
            SignatureScheme::RsaPssSha256
        } else {
            SignatureScheme::RsaPkcs1Sha256
        };
        let verify = |signature: &[u8]| key.verify(scheme, b"octets", signature);
        if name.ends_with("right") {
            right += 1;
            assert_eq!(verify(&signature), Ok(()), "{name}");
            for other in [
                [&[0], signature.as_slice()].concat(),
                [signature.as_slice(), &[0]].concat(),
                signature[..signature.len() - 1].to_vec(),
                signature[1..].to_vec(),
                Vec::new(),
            ] {
                assert_eq!(verify(&other), Err(BadSignature::Wrong), "{name} {}", other.len());
            }
        } else {
            wrong += 1;
            assert_eq!(verify(&signature), Err(BadSignature::Wrong), "{name}");
        }
    }
    assert_eq!((right, wrong), (2, 12));
    // 0 and 1 are their own powers.
    for trivial in [0, 1] {
        let signature = [vec![0; 255], vec![trivial]].concat();
        let found = key.verify(SignatureScheme::RsaPkcs1Sha256, b"octets", &signature);
        assert_eq!(found, Err(BadSignature::Wrong));
    }
    let beyond = vec![0xff; 256];
    let found = key.verify(SignatureScheme::RsaPkcs1Sha256, b"octets", &beyond);
    assert_eq!(found, Err(BadSignature::Wrong));
}
