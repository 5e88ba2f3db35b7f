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

/// NIST's ACVP server, ML-KEM-encapDecap-FIPS203, test case 26; of the ciphertext, which has 1088
/// octets, only the hash is kept here.
#[test]
fn an_encapsulation_is_that_of_nist() {
    let key = hex(
        "bef6a4f25671d65643b8fb83ee702fd62029d0b4bac82c0d3f699058337c2d759de3b257160a723480aa5eb6bbe1c62c\
         d293b24d86a09d094dabbb3ef4db9c93305e2d8c1ac2b79345ca206106a5964bb380bc5f1d2b59e7e21521e57d5fc226\
         c610377380ca92cc162adb3f15600f748102b6fb78915aa5e678be349c3a9b2713c0d60c1d05c4c6dbaa5bb8356ac165\
         f444c1675c97cbf50855e0c710d25cde88c528d50bfe896fd39846a0b9c599544d98c69580c18c0211b4684614339b49\
         0e367f3a8bbc5536615197ca36f9ac8dc8091ecaa3846900c538c44b617d476306005671a4e3239ef01f4d913a827544\
         83848e1ac66a3d42c25fbc732a2a594008ac00b561f7010319b87317311e73e971ba051e5aa0ba4d1b27c729a3c8ccab\
         faab52726b34a5bc5da337b6d58911395a72da6117ca9523efa5b985aca94863c4a66676ca3a94b94437ae19a76afcb8\
         c7c980f4e2c2220799925c23e200a7683556f058c0f5a552d45aac17272cbd398a89f234747149f8c79a0a808697ba2e\
         74a58987620b227c7e0012796ea76bbc459b2a637ca2d65e43f92b535c0b33578500281a5fdc3d3654821252cee20339\
         d49088ca1422a822764e3acbe8180e26168de2563052482a4e562237a341ae7caa80533126727e96d555230a5782a7ad\
         dec4cb5e9cc874336a4076aeab83997a7b507af25bb1720ce6aaa27fbc1f2adc40f5c97e4f9058eb57a0216c2d0a8339\
         1a3714c8abc1e1230378770f105c58ff2b54ed2921d0d977bb203beb8b8200ec76f6c548b6c440e5b9b82a0c1bf168bd\
         61e4a8e3a2831ba78db3a98ec7fc8161291c1fd5a1de1144dddb344af4bd74b7c846a40326c217131b5e5260af137795\
         fa03907586a4ba8880c7bbb4f98a32a1518b9aa1132129b5410500cedb26eff968ac52cae6e8766afa3c375a63743bad\
         b0358ce8a5c02f437f262936b28bb320e366f2102abaa2a85c74658e3a19610b97f76a2d564a579ba368c74a1cc1c518\
         f87a78a4bc519e4cc516303014d905d7181309d9318f717d3d08ad53b89664c45b83da31bdda09c24293f0344fdc317b\
         88e099076098191567a1a7bb8fb5331e83a9ba70cf01a57302370e45f103dc012d3597a2d13cbf3af130b91976202791\
         5705d0559957681a1d30949981317dd0c467b698a0da396b31948c4b8b251a0cb9d225aef22badef967ca7f97a1d3c82\
         c8e99247e9a9579909e57a669234c5f4263ce3e8ad04f1acc77075a7a2007166bc6ad1cf795329e6b5c6ff9ba16baac9\
         4e126b52d0489fd393dc9764baa58004f157fb159e67eb36a0b46a22cb660a402e2131800302007d394d5f37b7d92a8e\
         f1e88509a55bef55009640c29cda00a9e26a74c42b2a2601a0041a326c6ae916043c7b95c4b55e14a364199b246c0b85\
         c2490f297050a87a19f7a283483522c3696ec15396f9041901b03f068ca4640444c59b782461aeb61c864a0bd0270a50\
         90b2b477e743b5f4b11ab22cddda9a0448a48fd0739091b54ee953c583458499a0af700c64e14a5562905e7401ed5030\
         00cc2668725505a820b4c400ecdc7922db33672abc19028b4d8039398b37174c671a820510ca1b38e636c6b3894c72ac\
         f699cc4644746ea25f3dc909f7d1e64550a398bf5e986a536efc3a3803681aa4",
    );
    let m = hex("6703e626702e99f0990b4d191dde3374a629e75ab3a45044e681ff553f22ff80");
    let m = B32::try_from(m.as_slice()).unwrap();
    let (ciphertext, secret) = MlKem768::encapsulate(&key, &m).unwrap();
    assert_eq!(
        secret.to_vec(),
        hex("1c3e20c191cb5cc748c4a1162827413ecc0bd4380a2c486e87a7a0246a59c0e8")
    );
    assert_eq!(
        Sha3_256::digest(&ciphertext).to_vec(),
        hex("97f2ee542a60708f788d623f37fc7d0f5f2ab7f79ba84fcb7d54baf896b945c2")
    );
}

/// NIST's ACVP server, ML-KEM-encapDecap-FIPS203, test case 1: an encapsulation, with its key as the
/// decapsulation key has it, and the decapsulation.
#[test]
fn an_encapsulation_and_its_decapsulation_are_those_of_nist() {
    let given = |name: &str| {
        let mut lines = include_str!("acvp_512.txt").lines();
        hex(lines.find_map(|line| line.strip_prefix(name)).unwrap())
    };
    let expanded = given("dk ");
    let private = <MlKem512 as Kem>::DecapsulationKey::from_expanded_bytes(
        &expanded.as_slice().try_into().unwrap(),
    )
    .unwrap();
    let m = B32::try_from(given("m ").as_slice()).unwrap();
    // Behind the key of K-PKE, 384 octets for each of two polynomials.
    let (ciphertext, secret) = MlKem512::encapsulate(&expanded[768..1568], &m).unwrap();
    assert_eq!((ciphertext, secret.to_vec()), (given("c "), given("k ")));
    assert_eq!(MlKem512::decapsulate(&private, &given("c ")).unwrap().to_vec(), given("k "));
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
