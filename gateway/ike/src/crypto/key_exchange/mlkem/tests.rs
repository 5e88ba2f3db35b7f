//! Published vectors of ML-KEM, and refusals.
#![expect(deprecated, reason = "Published vectors have keys in the expanded form.")]

use ml_kem::ExpandedKeyEncoding;
use sha3::{Digest as _, Sha3_256};
use shake::{ExtendableOutput as _, Shake128, Shake256, Update as _, XofReader as _};

use super::*;
use crate::crypto::hex;
use crate::crypto::key_exchange::{KeyExchange as _, SystemKeyExchange};

/// The keys of RFC 9935 C, whose seed is the octets 0 to 63; of the encapsulation keys printed
/// there only the hash is kept here.
#[test]
fn keys_are_those_of_rfc_9935() {
    let octets: Vec<u8> = (0..64).collect();
    let seed = Seed::try_from(octets.as_slice()).unwrap();
    assert_eq!(
        Sha3_256::digest(MlKem512::key_pair(seed).1).to_vec(),
        hex("82f101ff648063b376e2bb6c5b7455f655a50c2feadade150efa0e0e6f365aea")
    );
    assert_eq!(
        Sha3_256::digest(MlKem1024::key_pair(seed).1).to_vec(),
        hex("61349e5c131a7e116a0463861d7d18663c5627c38c7147ddaadfd48acd7a4535")
    );
}

/// Calls with the fields of each published vector of this kind and parameter set.
fn of_kind(kind: &str, group: &str, mut check: impl FnMut(&dyn Fn(&str) -> Vec<u8>)) {
    let start = format!("{kind} {group} ");
    let lines = include_str!("published.txt").lines();
    let found: Vec<_> = lines.filter_map(|line| line.strip_prefix(&start)).collect();
    assert!(!found.is_empty(), "no {kind} of {group}");
    for line in found {
        check(&|name| {
            let mut fields = line.split(' ').filter_map(|word| word.split_once('='));
            hex(fields.find(|(n, _)| *n == name).unwrap().1)
        });
    }
}

/// What NIST's ACVP server publishes for FIPS 203, a few of each kind.
fn agrees_with_nist<K>(group: &str)
where
    K: ParameterSet<DecapsulationKey: ExpandedKeyEncoding>,
{
    of_kind("keyGen", group, |field| {
        let seed = [field("d"), field("z")].concat();
        let (private, public) = K::key_pair(Seed::try_from(seed.as_slice()).unwrap());
        assert_eq!(Sha3_256::digest(&public).to_vec(), field("ek-sha3"));
        assert_eq!(Sha3_256::digest(private.to_expanded_bytes()).to_vec(), field("dk-sha3"));
    });
    of_kind("encapsulation", group, |field| {
        let m = B32::try_from(field("m").as_slice()).unwrap();
        let (ciphertext, secret) = K::encapsulate(&field("ek"), &m).unwrap();
        assert_eq!(Sha3_256::digest(&ciphertext).to_vec(), field("c-sha3"));
        assert_eq!(secret.to_vec(), field("k"));
    });
    of_kind("decapsulationKey", group, |key| {
        let private =
            K::DecapsulationKey::from_expanded_bytes(&key("dk").as_slice().try_into().unwrap())
                .unwrap();
        // A ciphertext of theirs that was modified has the secret of its implicit rejection (7.3).
        for kind in ["decapsulation", "implicitRejection"] {
            of_kind(kind, group, |field| {
                let secret = K::decapsulate(&private, &field("c")).unwrap();
                assert_eq!(secret.to_vec(), field("k"), "{kind}");
            });
        }
    });
}

#[test]
fn keys_ciphertexts_and_secrets_are_those_of_nist_with_implicit_rejection() {
    agrees_with_nist::<MlKem512>("ML-KEM-512");
    agrees_with_nist::<MlKem768>("ML-KEM-768");
    agrees_with_nist::<MlKem1024>("ML-KEM-1024");
}

/// Wycheproof: a coefficient that is not below 3329 in the key of an initiator (FIPS 203 7.2), and a
/// ciphertext that differs only behind an octet of zero, at which a careless comparison ends.
#[test]
fn keys_out_of_range_are_refused_and_hidden_changes_seen_as_wycheproof_says() {
    fn check<K: ParameterSet>(group: &str) {
        of_kind("modulus", group, |field| {
            assert!(K::encapsulate(&field("ek"), &B32::default()).is_none(), "{group}");
        });
        of_kind("strcmp", group, |field| {
            let (private, _) = K::key_pair(Seed::try_from(field("seed").as_slice()).unwrap());
            let secret = K::decapsulate(&private, &field("c")).unwrap();
            assert_eq!(secret.to_vec(), field("k"), "{group}");
        });
    }
    check::<MlKem512>("ML-KEM-512");
    check::<MlKem768>("ML-KEM-768");
    check::<MlKem1024>("ML-KEM-1024");
}

/// FIPS 203 algorithm 18: the secret of a ciphertext that was tampered with is SHAKE-256 of the
/// second half of the seed and of the ciphertext.
#[test]
fn a_ciphertext_is_refused_by_the_secret_of_fips_203() {
    fn check<K: ParameterSet>(group: Group) {
        let octets: Vec<u8> = (100..164).collect();
        let (private, public) = K::key_pair(Seed::try_from(octets.as_slice()).unwrap());
        let (mut ciphertext, secret) = K::encapsulate(&public, &B32::default()).unwrap();
        assert_eq!(K::decapsulate(&private, &ciphertext).unwrap(), secret, "{group}");
        for at in [0, ciphertext.len() - 1] {
            ciphertext[at] ^= 1;
            let mut expected = [0; 32];
            let mut hash = Shake256::default();
            hash.update(&octets[32..]);
            hash.update(&ciphertext);
            hash.finalize_xof().read(&mut expected);
            let found = K::decapsulate(&private, &ciphertext).unwrap();
            assert_eq!(found.to_vec(), expected, "{group} {at}");
        }
    }
    check::<MlKem512>(Group::MlKem512);
    check::<MlKem768>(Group::MlKem768);
    check::<MlKem1024>(Group::MlKem1024);
}

/// Key pairs, encapsulations, decapsulations and refused ciphertexts, all drawn from SHAKE-128 of
/// nothing and hashed into another, with the keys in the expanded form.
fn accumulated<K>(group: Group, count: usize) -> Vec<u8>
where
    K: ParameterSet<DecapsulationKey: ExpandedKeyEncoding>,
{
    let mut drawn = Shake128::default().finalize_xof();
    let mut hashed = Shake128::default();
    for _ in 0..count {
        let (mut seed, mut m) = (Seed::default(), B32::default());
        drawn.read(&mut seed);
        let (private, public) = K::key_pair(seed);
        hashed.update(&public);
        hashed.update(&private.to_expanded_bytes());
        drawn.read(&mut m);
        let (ciphertext, secret) = K::encapsulate(&public, &m).unwrap();
        hashed.update(&ciphertext);
        hashed.update(&secret);
        assert_eq!(K::decapsulate(&private, &ciphertext).unwrap(), secret);
        let mut other = vec![0; group.answer_len()];
        drawn.read(&mut other);
        hashed.update(&K::decapsulate(&private, &other).unwrap());
    }
    let mut hash = [0; 32];
    hashed.finalize_xof().read(&mut hash);
    hash.to_vec()
}

/// The accumulated tests of C2SP (CCTV, ML-KEM) for the final standard: the ten thousand that it
/// publishes where the compiler optimises, else the first hundred, of which crystals-kyber-js
/// publishes the same. The last secret of each is one of implicit rejection (FIPS 203 7.3).
#[test]
fn many_exchanges_of_each_kind_are_those_of_the_accumulated_vectors() {
    let (count, expected) = if cfg!(debug_assertions) {
        let expected = [
            "449120c6e320ef3e9fbfa2316e5f2d2e1e6dd37d8ff5d086d5d2db7d42aff0a1",
            "8d65b902f28edc683cebee2872962fd165a4d197c9e24ec74caa4470270df0b7",
            "c3ffe9ebecfa479c142656cbfbc6417efa05b77e994fe538eef4daed166363df",
        ];
        (100, expected)
    } else {
        let expected = [
            "705dcffc87f4e67e35a09dcaa31772e86f3341bd3ccf1e78a5fef99ae6a35a13",
            "f959d18d3d1180121433bf0e05f11e7908cf9d03edc150b2b07cb90bef5bc1c1",
            "e3bf82b013307b2e9d47dde791ff6dfc82e694e6382404abdb948b908b75bad5",
        ];
        (10_000, expected)
    };
    let found = [
        accumulated::<MlKem512>(Group::MlKem512, count),
        accumulated::<MlKem768>(Group::MlKem768, count),
        accumulated::<MlKem1024>(Group::MlKem1024, count),
    ];
    assert_eq!(found, expected.map(hex));
}

/// FIPS 203 7.2: a coefficient that is not below 3329 must be refused by the responder.
#[test]
fn an_encapsulation_key_with_a_coefficient_out_of_range_is_refused() {
    for group in [Group::MlKem512, Group::MlKem768, Group::MlKem1024] {
        let good = SystemKeyExchange.generate(group).unwrap().public().to_vec();
        assert!(SystemKeyExchange.respond(group, &good).is_ok());
        // Coefficients have 12 bits each; the first one becomes 3329, then 4095.
        for [low, high] in [[0x01, 0x0d], [0xff, 0x0f]] {
            let mut bad = good.clone();
            bad[0] = low;
            bad[1] = bad[1] & 0xf0 | high;
            let error = SystemKeyExchange.respond(group, &bad).unwrap_err();
            assert_eq!(error, KeyExchangeError::InvalidPublicValue, "{group}");
        }
    }
}

/// FIPS 203 7.3, implicit rejection: the two ends end up with different secrets, and the one who
/// tampered has neither.
#[test]
fn a_ciphertext_that_was_tampered_with_gives_another_secret() {
    for group in [Group::MlKem512, Group::MlKem768, Group::MlKem1024] {
        let initiator = SystemKeyExchange.generate(group).unwrap();
        let Agreed { mut value, secret } =
            SystemKeyExchange.respond(group, initiator.public()).unwrap();
        value[17] ^= 1;
        assert_ne!(initiator.agree(&value).unwrap(), secret, "{group}");
    }
}
