//! Published vectors of ML-KEM, and refusals.

use sha3::{Digest as _, Sha3_256};
use shake::{ExtendableOutput as _, Shake128, Update as _, XofReader as _};

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

/// A hundred key pairs, encapsulations, decapsulations and refused ciphertexts, all drawn from
/// SHAKE-128 of nothing and hashed into another: the vectors that C2SP accumulates, with the
/// value that Go's standard library publishes for ML-KEM-768 of the final standard
/// (crypto/mlkem, TestAccumulated).
#[test]
fn a_hundred_exchanges_are_those_of_the_accumulated_vectors() {
    let mut drawn = Shake128::default().finalize_xof();
    let mut hashed = Shake128::default();
    for _ in 0..100 {
        let (mut seed, mut m) = (Seed::default(), B32::default());
        drawn.read(&mut seed);
        let (private, public) = MlKem768::key_pair(seed);
        hashed.update(&public);
        drawn.read(&mut m);
        let (ciphertext, secret) = MlKem768::encapsulate(&public, &m).unwrap();
        hashed.update(&ciphertext);
        hashed.update(&secret);
        assert_eq!(MlKem768::decapsulate(&private, &ciphertext).unwrap(), secret);
        let mut other = vec![0; Group::MlKem768.answer_len()];
        drawn.read(&mut other);
        hashed.update(&MlKem768::decapsulate(&private, &other).unwrap());
    }
    let mut hash = [0; 32];
    hashed.finalize_xof().read(&mut hash);
    assert_eq!(
        hash.to_vec(),
        hex("1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415")
    );
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
