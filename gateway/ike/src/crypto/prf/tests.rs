//! Published vectors for the hashes.

use super::*;
use crate::crypto::hex;

/// RFC 4231 4.2, 4.3, 4.4 and 4.7; RFC 4868 2.7.1 has the same for the PRFs.
#[test]
fn the_prfs_give_the_values_of_rfc_4231() {
    let large: &[u8] = b"Test Using Larger Than Block-Size Key - Hash Key First";
    type Vector<'a> = (Prf, &'a [u8], &'a [u8], Vec<u8>);
    let vectors: [Vector<'_>; 12] = [
        (
            Prf::HmacSha256,
            &[0x0b; 20],
            b"Hi There",
            hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        ),
        (
            Prf::HmacSha256,
            b"Jefe",
            b"what do ya want for nothing?",
            hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ),
        (
            Prf::HmacSha256,
            &[0xaa; 20],
            &[0xdd; 50],
            hex("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        ),
        (
            Prf::HmacSha256,
            &[0xaa; 131],
            large,
            hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
        ),
        (
            Prf::HmacSha384,
            &[0x0b; 20],
            b"Hi There",
            hex("afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9\
                 076ede7f4af152e8b2fa9cb6"),
        ),
        (
            Prf::HmacSha384,
            b"Jefe",
            b"what do ya want for nothing?",
            hex("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca\
                 5e69e2c78b3239ecfab21649"),
        ),
        (
            Prf::HmacSha384,
            &[0xaa; 20],
            &[0xdd; 50],
            hex("88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39d\
                 c13814b94e3ab6e101a34f27"),
        ),
        (
            Prf::HmacSha384,
            &[0xaa; 131],
            large,
            hex("4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab\
                 4030fe8296248df163f44952"),
        ),
        (
            Prf::HmacSha512,
            &[0x0b; 20],
            b"Hi There",
            hex("87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7\
                 d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"),
        ),
        (
            Prf::HmacSha512,
            b"Jefe",
            b"what do ya want for nothing?",
            hex("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75\
                 c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"),
        ),
        (
            Prf::HmacSha512,
            &[0xaa; 20],
            &[0xdd; 50],
            hex("fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e8482\
                 79a722c806b485a47e67c807b946a337bee8942674278859e13292fb"),
        ),
        (
            Prf::HmacSha512,
            &[0xaa; 131],
            large,
            hex("80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037\
                 e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"),
        ),
    ];
    for (algorithm, key, data, expected) in vectors {
        assert_eq!(*prf(algorithm, key, &[data]), expected, "{algorithm}");
        let (left, right) = data.split_at(3);
        assert_eq!(*prf(algorithm, key, &[left, &[], right]), expected, "{algorithm} in parts");
        assert_eq!(expected.len(), algorithm.output_len());
    }
}

/// RFC 2202 3, all seven.
#[test]
fn the_prf_by_sha1_gives_the_values_of_rfc_2202() {
    let counted: Vec<u8> = (1..=25).collect();
    let vectors: [(&[u8], &[u8], &str); 7] = [
        (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
        (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
        (&counted, &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
        (&[0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
        (
            &[0xaa; 80],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "aa4ae5e15272d00e95705637ce8a3b55ed402112",
        ),
        (
            &[0xaa; 80],
            b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
            "e8e99d0f45237d786d6bbaa7965c7808bbff1a91",
        ),
    ];
    for (key, data, expected) in vectors {
        assert_eq!(*prf(Prf::HmacSha1, key, &[data]), hex(expected));
    }
}

/// RFC 7296 2.13: T1 = prf(K, S | 1), T2 = prf(K, T1 | S | 2), and so on.
#[test]
fn prf_plus_is_made_of_the_prf_that_it_goes_by() {
    for algorithm in Prf::ALL {
        let (mut expected, mut previous) = (Vec::new(), Vec::new());
        for counter in 1..=4 {
            previous = prf(*algorithm, b"key", &[&previous, b"seed", &[counter]]).to_vec();
            expected.extend_from_slice(&previous);
        }
        let all = prf_plus(*algorithm, b"key", &[b"se", b"ed"], expected.len());
        assert_eq!(*all, expected, "{algorithm}");
    }
}

/// NIST CAVS 14.1, IKEv2 key derivation, SHA2-256: SKEYSEED, then prf+ over Ni, Nr and both SPIs.
#[test]
fn prf_plus_with_sha256_gives_the_value_of_nist() {
    let key = hex("5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe");
    let seed = hex("3f302be1abcb28e1 8c332ee006064c9b 40dac39e1e1a8640 8619a1cf9a6e4c07");
    let expected = hex("0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca53\
         1188d16041b3bb936d2dbb3b4993a6e768a809160de45d0283f273a6cdf6854379e31be7\
         2b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1c19bdcd4db14b29d98db1a\
         74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad");
    let parts: [&[u8]; 2] = [&seed[..11], &seed[11..]];
    assert_eq!(*prf_plus(Prf::HmacSha256, &key, &parts, 132), expected);
    // A shorter result is the beginning of a longer one.
    for length in [0, 1, 15, 32, 33] {
        assert_eq!(*prf_plus(Prf::HmacSha256, &key, &[&seed], length), expected[..length]);
    }
}

/// NIST CAVS 14.1, IKEv2 key derivation, SHA2-384.
#[test]
fn prf_plus_with_sha384_gives_the_value_of_nist() {
    let key = hex("69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f\
         51f7dfcf3330061888f6a94f");
    let seed = hex("fd1b572a8e735591 6013b0ef88dacd3d 2116ad07ce61f749 24880e55f11a65b7");
    let expected = hex("4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6de\
         eda4f952191dd9bc1f7a9502471a648d74dc06d38112de48a42501f6b1a3ad55c2099cd9\
         a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca0c2fcca81ec1a412006dfaed\
         38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4");
    assert_eq!(*prf_plus(Prf::HmacSha384, &key, &[&seed], 132), expected);
}

/// No published vector: computed with Python's hmac.
#[test]
fn prf_plus_with_sha512_gives_what_another_implementation_gives() {
    let key = hex("929cab2abf94c68bab4d0f4de3ee8e3c112c0a2bbc7fc66dffc2b82212fe2984a39fb699\
         258440725ab6de60856be50a1cf399a069fc4ab8a5b9107b633fc93d");
    let seed: Vec<u8> = (0..32).chain(0xa0..0xa8).chain(0xb0..0xb8).collect();
    let expected = hex("317e3484f81f35c84bad42bcb456de703d8c1c8ecbe290965e3747bf751e81148bdfc04b\
         9e0674a65aaf7b9c148abb70448c0326be49ebee367ade64ca5d87cd795aae24e133b59b\
         6a7f29405a31e4e48e17ebb40d3406d207ed7ebaf0ce59feb60d6f2c5daed5cd8c3615c1\
         ccbc37a372d18697a34dde36d087e9f9d4db3bb1aaf821c4");
    assert_eq!(*prf_plus(Prf::HmacSha512, &key, &[&seed], 132), expected);
}

#[test]
fn prf_plus_ends_where_its_counter_ends() {
    for algorithm in Prf::ALL {
        let most = algorithm.output_len() * 255;
        assert_eq!(prf_plus(*algorithm, b"key", &[b"seed"], most).len(), most);
        assert_eq!(prf_plus(*algorithm, b"key", &[b"seed"], most + 1).len(), most);
    }
}

/// FIPS 180-4's examples.
#[test]
fn sha1_gives_the_values_of_fips_180() {
    assert_eq!(sha1(&[b"abc"])[..], hex("a9993e364706816aba3e25717850c26c9cd0d89d"));
    assert_eq!(sha1(&[])[..], hex("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
    let parts: [&[u8]; 2] = [b"abcdbcdecdefdefgefghfghighijhijk", b"ijkljklmklmnlmnomnopnopq"];
    assert_eq!(sha1(&parts)[..], hex("84983e441c3bd26ebaae4aa1f95129e5e54670f1"));
}

#[test]
fn strings_are_equal_only_octet_for_octet() {
    assert!(equal(b"", b""));
    assert!(equal(b"same", b"same"));
    assert!(!equal(b"same", b"sane"));
    assert!(!equal(b"same", b"sam"));
    assert!(!equal(b"", b"a"));
}
