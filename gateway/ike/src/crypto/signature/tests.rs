//! Published vectors, and what must not verify.

use std::sync::LazyLock;

use gateway_wire::AuthMethod;
use proptest::prelude::*;

use super::*;
use crate::algorithms::SignatureScheme;
use crate::crypto::hex;

const RSA: &[u8] = include_bytes!("../../../tests/keys/rsa-2048.pem");
const P256: &[u8] = include_bytes!("../../../tests/keys/p256.pem");
const P384: &[u8] = include_bytes!("../../../tests/keys/p384.pem");
const P521: &[u8] = include_bytes!("../../../tests/keys/p521.pem");
const ED25519: &[u8] = include_bytes!("../../../tests/keys/ed25519.pem");

/// One of each kind, read once: that takes time.
pub(super) fn keys() -> &'static [SigningKey; 5] {
    static KEYS: LazyLock<[SigningKey; 5]> = LazyLock::new(|| {
        [RSA, P256, P384, P521, ED25519].map(|pem| SigningKey::from_pem(pem).unwrap())
    });
    &KEYS
}

fn public(kind: KeyKind, key: &str) -> PublicKey {
    PublicKey::from_parts(kind, &hex(key)).unwrap()
}

/// The order of P-256, of P-521.
const ORDER_P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// A DER ECDSA-Sig-Value of two numbers, whatever they are.
pub(super) fn ecdsa_value(r: &[u8], s: &[u8]) -> Vec<u8> {
    let number = |n: &[u8]| [&[2, u8::try_from(n.len()).unwrap()], n].concat();
    let both = [number(r), number(s)].concat();
    let mut value = vec![0x30];
    if both.len() > 127 {
        value.push(0x81);
    }
    value.push(u8::try_from(both.len()).unwrap());
    [value, both].concat()
}

/// RFC 8032 7.1, tests 1 to 3.
#[test]
fn ed25519_gives_the_signatures_of_the_rfc() {
    for (key, message, signature) in [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let (key, message) = (public(KeyKind::Ed25519, key), hex(message));
        let mut signature = hex(signature);
        let verify = |octets: &[u8], signature: &[u8]| {
            key.verify(SignatureScheme::Ed25519, octets, signature)
        };
        assert_eq!(verify(&message, &signature), Ok(()));
        assert_eq!(verify(b"other", &signature), Err(BadSignature::Wrong));
        assert_eq!(verify(&message, &signature[..63]), Err(BadSignature::Wrong));
        // S plus the order of the group is the same number, and not canonical (RFC 8032 5.1.7).
        let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (octet, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*octet) + u16::from(add) + carry;
            *octet = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(verify(&message, &signature), Err(BadSignature::Wrong));
    }
}

/// RFC 6979 A.2.5, A.2.6 and A.2.7, message "sample".
#[test]
fn ecdsa_verifies_the_signatures_of_rfc_6979() {
    let p256 = public(
        KeyKind::P256,
        "04 60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
            7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    );
    let p384 = public(
        KeyKind::P384,
        "04 ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13
            8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720",
    );
    let p521 = public(
        KeyKind::P521,
        "04 01894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4
            00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5",
    );
    let vectors = [
        (
            &p256,
            SignatureScheme::EcdsaSha256,
            Some(AuthMethod::ECDSA_SHA256_P256),
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            &p256,
            SignatureScheme::EcdsaSha384,
            None,
            "0eafea039b20e9b42309fb1d89e213057cbf973dc0cfc8f129edddc800ef7719",
            "4861f0491e6998b9455193e34e7b0d284ddd7149a74b95b9261f13abde940954",
        ),
        (
            &p256,
            SignatureScheme::EcdsaSha512,
            None,
            "8496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f00",
            "2362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe",
        ),
        (
            &p384,
            SignatureScheme::EcdsaSha512,
            None,
            "ed0959d5880ab2d869ae7f6c2915c6d60f96507f9cb3e047c0046861da4a799cfe30f35cc900056d7c99cd7882433709",
            "512c8cceee3890a84058ce1e22dbc2198f42323ce8aca9135329f03c068e5112dc7cc3ef3446defceb01a45c2667fdd5",
        ),
        (
            &p384,
            SignatureScheme::EcdsaSha384,
            Some(AuthMethod::ECDSA_SHA384_P384),
            "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
            "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
        ),
        (
            &p521,
            SignatureScheme::EcdsaSha512,
            Some(AuthMethod::ECDSA_SHA512_P521),
            "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa",
            "00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
        ),
    ];
    for (key, scheme, old, r, s) in vectors {
        let (r, s) = (hex(r), hex(s));
        let canonical = |n: &[u8]| {
            let n: Vec<u8> = n.iter().copied().skip_while(|o| *o == 0).collect();
            if n[0] > 127 { [&[0], n.as_slice()].concat() } else { n }
        };
        let value = ecdsa_value(&canonical(&r), &canonical(&s));
        assert_eq!(key.verify(scheme, b"sample", &value), Ok(()), "{scheme}");
        assert_eq!(key.verify(scheme, b"simple", &value), Err(BadSignature::Wrong));
        // Numbers with an octet too many, an octet behind, and cut off.
        for bad in [
            ecdsa_value(&[&[0, 0], r.as_slice()].concat(), &canonical(&s)),
            [value.as_slice(), &[0]].concat(),
            value[..value.len() - 1].to_vec(),
            Vec::new(),
            ecdsa_value(&[0], &[0]),
            ecdsa_value(&[1], &[0]),
            ecdsa_value(&canonical(&s), &canonical(&r)),
            [r.as_slice(), &s].concat(),
        ] {
            assert_eq!(key.verify(scheme, b"sample", &bad), Err(BadSignature::Wrong), "{bad:02x?}");
        }
        if let Some(method) = old {
            let fixed = [r.as_slice(), &s].concat();
            assert_eq!(key.verify_old(method, b"sample", &fixed), Ok(scheme));
            for bad in [&fixed[1..], &fixed[..fixed.len() - 1], &value, &[]] {
                assert_eq!(key.verify_old(method, b"sample", bad), Err(BadSignature::Wrong));
            }
            let zero = vec![0; fixed.len()];
            assert_eq!(key.verify_old(method, b"sample", &zero), Err(BadSignature::Wrong));
        }
    }
}

#[test]
fn numbers_beyond_the_order_are_refused() {
    let key = &keys()[1];
    let octets = b"octets";
    let (method, signature) = key.sign_old(octets).unwrap();
    assert_eq!(
        key.public().verify_old(method, octets, &signature),
        Ok(SignatureScheme::EcdsaSha256)
    );
    for bad in [
        [&signature[..32], &hex(ORDER_P256)].concat(),
        [&hex(ORDER_P256), &signature[32..]].concat(),
    ] {
        assert_eq!(key.public().verify_old(method, octets, &bad), Err(BadSignature::Wrong));
    }
}

#[test]
fn every_key_verifies_its_own_signature_and_nothing_else() {
    let keys = keys();
    for key in keys {
        for scheme in key.schemes() {
            let signature = key.sign(*scheme, b"octets").unwrap();
            assert_eq!(key.public().verify(*scheme, b"octets", &signature), Ok(()), "{scheme}");
            for other in SignatureScheme::ALL.iter().filter(|s| *s != scheme) {
                assert!(key.public().verify(*other, b"octets", &signature).is_err(), "{other}");
            }
            for other in keys.iter().filter(|k| k.public() != key.public()) {
                let found = other.public().verify(*scheme, b"octets", &signature);
                assert!(found.is_err(), "{found:?}");
            }
            let mut changed = signature;
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(key.public().verify(*scheme, b"octets", &changed), Err(BadSignature::Wrong));
        }
        let cannot = SignatureScheme::ALL.iter().filter(|s| !key.schemes().contains(s));
        assert!(cannot.into_iter().all(|s| key.sign(*s, b"octets").is_err()));
    }
}

#[test]
fn the_older_methods_are_those_of_their_keys() {
    let [rsa, p256, p384, p521, ed25519] = keys();
    for (key, method, scheme) in [
        (rsa, AuthMethod::RSA, SignatureScheme::RsaPkcs1Sha256),
        (p256, AuthMethod::ECDSA_SHA256_P256, SignatureScheme::EcdsaSha256),
        (p384, AuthMethod::ECDSA_SHA384_P384, SignatureScheme::EcdsaSha384),
        (p521, AuthMethod::ECDSA_SHA512_P521, SignatureScheme::EcdsaSha512),
    ] {
        let (found, signature) = key.sign_old(b"octets").unwrap();
        assert_eq!(found, method);
        assert_eq!(key.public().verify_old(method, b"octets", &signature), Ok(scheme));
        let wrong = key.public().verify_old(method, b"others", &signature);
        assert_eq!(wrong, Err(BadSignature::Wrong));
        let other = ed25519.public().verify_old(method, b"octets", &signature);
        assert_eq!(other, Err(BadSignature::OtherKey));
        assert!(key.public().verify_old(AuthMethod::DSS, b"octets", &signature).is_err());
    }
    assert_eq!(ed25519.sign_old(b"octets"), Err(SigningFailed));
}

/// The signature of "octets" with SHA-1 by `openssl dgst -sha1 -sign`.
#[test]
fn sha1_is_named_and_refused() {
    let rsa = &keys()[0];
    let signature = include_bytes!("../../../tests/keys/octets.sha1");
    let found = rsa.public().verify_old(AuthMethod::RSA, b"octets", signature);
    assert_eq!(found, Err(BadSignature::Sha1));
    let found = rsa.public().verify_old(AuthMethod::RSA, b"others", signature);
    assert_eq!(found, Err(BadSignature::Wrong));
}

#[test]
fn the_public_half_is_what_openssl_gives_and_reads_back() {
    for key in keys() {
        let again = PublicKey::from_spki(key.public().spki()).unwrap();
        assert_eq!(&again, key.public());
        assert!(!format!("{key:?}").contains("spki"));
    }
    // `openssl pkey -pubout` of the P-256 key.
    let pem = include_bytes!("../../../tests/keys/p256.pub.pem");
    assert_eq!(&PublicKey::from_pem(pem).unwrap(), keys()[1].public());
}

#[test]
fn what_is_no_key_of_ours_is_named() {
    let private = |text: &str| SigningKey::from_pem(text.as_bytes()).unwrap_err();
    assert_eq!(private("hello"), KeyError::NoPem("PRIVATE KEY"));
    let block = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    assert_eq!(private(&block("ENCRYPTED PRIVATE KEY", "AAAA")), KeyError::Encrypted);
    assert!(matches!(private(&block("RSA PRIVATE KEY", "AAAA")), KeyError::NotPkcs8(_)));
    assert!(matches!(private(&block("EC PRIVATE KEY", "AAAA")), KeyError::NotPkcs8(_)));
    assert!(matches!(private(&block("PRIVATE KEY", "AAAA")), KeyError::Unsupported(_)));
    assert_eq!(private(&block("CERTIFICATE", "AAAA")), KeyError::NoPem("PRIVATE KEY"));
    assert_eq!(PublicKey::from_pem(P256), Err(KeyError::NoPem("PUBLIC KEY")));

    let public = |octets: &str| PublicKey::from_spki(&hex(octets)).unwrap_err();
    assert!(matches!(public(""), KeyError::Malformed(_)));
    // The curve secp256k1, and Ed448
    assert!(matches!(public("300a 300506032b6571 030100"), KeyError::Unsupported(_)));
    assert!(matches!(
        public("301630100607 2a8648ce3d0201 06052b8104000a 030200 04"),
        KeyError::Unsupported(_)
    ));
    // A compressed point of P-256
    let compressed = [hex("3039301306072a8648ce3d020106082a8648ce3d030107032200 02"), vec![1; 32]];
    assert!(matches!(PublicKey::from_spki(&compressed.concat()), Err(KeyError::Malformed(_))));
    // RSA with 1024 bits
    let short = [
        hex("30819f300d06092a864886f70d010101050003818d0030818902818100"),
        vec![0xff; 128],
        hex("0203010001"),
    ];
    let found = PublicKey::from_spki(&short.concat());
    assert_eq!(found, Err(KeyError::Unsupported("RSA with 1024 bits".to_owned())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_octets_pass_for_a_signature_or_do_harm(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        n in 0..5_usize,
        scheme in 0..SignatureScheme::ALL.len(),
    ) {
        let key = &keys()[n];
        prop_assert!(key.public().verify(SignatureScheme::ALL[scheme], b"octets", &octets).is_err());
        for method in [AuthMethod::RSA, AuthMethod::ECDSA_SHA256_P256, AuthMethod::ECDSA_SHA512_P521] {
            prop_assert!(key.public().verify_old(method, b"octets", &octets).is_err());
        }
        prop_assert!(PublicKey::from_spki(&octets).is_err());
        prop_assert!(SigningKey::from_pkcs8(&octets).is_err());
    }
}
