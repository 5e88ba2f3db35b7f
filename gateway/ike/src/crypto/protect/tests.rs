//! Published vectors, round trips, and messages that must not open.

use super::*;
use crate::crypto::hex;
use crate::random::SystemSource;

/// Every combination that an IKE SA may have.
fn suites() -> Vec<(Encryption, Option<Integrity>)> {
    let with = |e: &Encryption| match e.is_aead() {
        true => vec![(*e, None)],
        false => Integrity::ALL.iter().map(|i| (*e, Some(*i))).collect(),
    };
    Encryption::ALL.iter().flat_map(with).collect()
}

fn lengths((encryption, integrity): (Encryption, Option<Integrity>)) -> (usize, usize) {
    let encryption = encryption.key_len().strict_add(encryption.salt_len());
    (encryption, integrity.map_or(0, Integrity::key_len))
}

/// A pair with the same arbitrary keys.
fn pair(suite: (Encryption, Option<Integrity>)) -> (Sealer, Opener) {
    let (encryption, integrity) = lengths(suite);
    let (key, mac) = (vec![0x5a; encryption], vec![0xa5; integrity]);
    (
        Sealer::new(suite.0, suite.1, &key, &mac).unwrap(),
        Opener::new(suite.0, suite.1, &key, &mac).unwrap(),
    )
}

const HEADERS: &[u8; 32] = b"the IKE header | generic header.";

fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut message = HEADERS.to_vec();
    sealer.seal(&mut SystemSource::default(), &mut message, plaintext).unwrap();
    message
}

/// IVs that the test chooses.
struct Fixed(Vec<u8>);

impl Random for Fixed {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

struct Broken;

impl Random for Broken {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomFailed> {
        Err(RandomFailed)
    }
}

/// RFC 7634 appendix B: a whole message of IKEv2.
#[test]
fn chacha20poly1305_gives_the_message_of_rfc_7634() {
    let key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3");
    let headers = hex("c0c1c2c3c4c5c6c7 d0d1d2d3d4d5d6d7 2e202500 00000009 00000045 29000029");
    let plaintext = hex("0000000c 00004001 0000000a");
    let body = hex("1011121314151617 610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2");
    let mut sealer = Sealer::new(Encryption::ChaCha20Poly1305, None, &key, &[]).unwrap();
    sealer.next_iv = Some(0x1011_1213_1415_1617);
    assert_eq!(sealer.body_len(plaintext.len()), body.len());
    let mut message = headers.clone();
    sealer.seal(&mut Broken, &mut message, &plaintext).unwrap();
    assert_eq!(message, [headers.clone(), body].concat());

    let opener = Opener::new(Encryption::ChaCha20Poly1305, None, &key, &[]).unwrap();
    assert_eq!(opener.open(&mut message, headers.len()).unwrap(), plaintext);
}

/// From the tests of the Android Open Source Project (IkeEncryptedPayloadBodyTest), with the key
/// that is published there; the source of the file is told beside it.
#[test]
fn aes_gcm_opens_a_published_message() {
    let vector = |text: &str| hex(text.lines().skip(2).collect::<String>().as_str());
    let mut message =
        vector(include_str!("../../../../wire/tests/vectors/published_gcm_auth_request.hex"));
    let plaintext =
        include_str!("../../../../wire/tests/vectors/published_gcm_auth_request_inside.hex");
    let key = hex("7c04513660dec572d896105254ef92608054f8e6ee19e79ce52ab8697b2b5f2c 2aa90c29");
    let opener = Opener::new(Encryption::Aes256Gcm16, None, &key, &[]).unwrap();
    assert_eq!(opener.open(&mut message, 32).unwrap(), vector(plaintext));
}

/// Test cases 4 and 16 of the GCM specification by McGrew and Viega, which NIST adopted. The
/// plaintext's last octet, 57, counts as pad length, so two octets of 60 come out; the rest is
/// read where it was decrypted.
#[test]
fn aes_gcm_gives_the_values_of_its_specification() {
    let plaintext = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let salt_and_iv = hex("cafebabe facedbaddecaf888");
    let vectors = [
        (
            Encryption::Aes128Gcm16,
            hex("feffe9928665731c6d6a8f9467308308"),
            hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
                 21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
                 5bc94fbc3221a5db94fae95ae7121a47"),
        ),
        (
            Encryption::Aes256Gcm16,
            hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
            hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
                 76fc6ece0f4e1768cddf8853bb2d551b"),
        ),
    ];
    for (encryption, key, ciphertext) in vectors {
        let key = [&key, &salt_and_iv[..4]].concat();
        let opener = Opener::new(encryption, None, &key, &[]).unwrap();
        let mut message = [&aad, &salt_and_iv[4..], &ciphertext].concat();
        assert_eq!(opener.open(&mut message, aad.len()).unwrap(), &plaintext[..2]);
        assert_eq!(message[aad.len() + 8..][..60], plaintext);

        // And the other way: what is given is the plaintext without its pad length of zero.
        let mut sealer = Sealer::new(encryption, None, &key, &[]).unwrap();
        sealer.next_iv = Some(0xface_dbad_deca_f888);
        let mut message = aad.clone();
        sealer.seal(&mut Broken, &mut message, &plaintext[..59]).unwrap();
        assert_eq!(message[aad.len() + 8..][..59], ciphertext[..59]);
    }
}

/// RFC 3602 4, case 4, and NIST SP 800-38A F.2.5; the ICV is an HMAC over everything before it.
#[test]
fn aes_cbc_gives_the_values_of_rfc_3602_and_nist() {
    let vectors = [
        (
            Encryption::Aes128Cbc,
            hex("56e47a38c5598974bc46903dba290349"),
            hex("8ce82eefbea0da3c44699ed7db51b7d9"),
            hex("a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf
                 c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"),
            hex("c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e
                 35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55"),
        ),
        (
            Encryption::Aes256Cbc,
            hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            hex("000102030405060708090a0b0c0d0e0f"),
            hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
                 30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"),
            hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
                 39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"),
        ),
    ];
    for (encryption, key, iv, plaintext, ciphertext) in vectors {
        for integrity in Integrity::ALL.iter().copied() {
            let mac_key = vec![0x77; integrity.key_len()];
            let covered = [&HEADERS[..], &iv, &ciphertext].concat();
            let mac = hmac::sign(&hmac::Key::new(hash(integrity), &mac_key), &covered);
            let icv = &mac.as_ref()[..integrity.icv_len()];

            let opener = Opener::new(encryption, Some(integrity), &key, &mac_key).unwrap();
            let mut message = [&covered, icv].concat();
            let opened = opener.open(&mut message, HEADERS.len()).map(<[u8]>::to_vec);
            let pad = usize::from(plaintext[63]);
            let expected = plaintext[..63].get(..63usize.wrapping_sub(pad));
            assert_eq!(opened, expected.map(<[u8]>::to_vec).ok_or(OpenError::BadPadding));
            assert_eq!(message[HEADERS.len() + 16..][..64], plaintext);

            // And the other way, as far as the padding does not differ.
            let mut sealer = Sealer::new(encryption, Some(integrity), &key, &mac_key).unwrap();
            let mut message = HEADERS.to_vec();
            sealer.seal(&mut Fixed(iv.clone()), &mut message, &plaintext[..48]).unwrap();
            assert_eq!(message[HEADERS.len()..][..64], covered[HEADERS.len()..][..64]);
        }
    }
}

/// RFC 4868 2.7.2, AUTH256-1, AUTH384-1 and AUTH512-1, cut to half as 2.6 says.
#[test]
fn the_icv_is_the_first_half_of_the_hmac_of_rfc_4868() {
    let vectors = [
        (Integrity::HmacSha256, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (Integrity::HmacSha384, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        (Integrity::HmacSha512, "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
    ];
    for (integrity, icv) in vectors {
        let key = hmac::Key::new(hash(integrity), &vec![0x0b; integrity.key_len()]);
        let tag = sign(&key, &[b"Hi ", b"There"]);
        assert_eq!(tag.as_ref()[..integrity.icv_len()], hex(icv));
        assert_eq!(tag.as_ref().len(), 2 * integrity.icv_len());
    }
}

/// RFC 2202 3, the fifth, which has the digest cut to 96 bits beside the whole one; RFC 2404 2.
#[test]
fn the_icv_by_sha1_is_the_hmac_of_rfc_2202_cut_to_96_bits() {
    let integrity = Integrity::HmacSha1;
    let key = hmac::Key::new(hash(integrity), &vec![0x0c; integrity.key_len()]);
    let tag = sign(&key, &[b"Test With ", b"Truncation"]);
    assert_eq!(tag.as_ref()[..integrity.icv_len()], hex("4c1a03424b55e07fe7f27be1"));
    assert_eq!(tag.as_ref().len(), integrity.key_len());
}

#[test]
fn what_is_sealed_opens_whatever_its_length() {
    for suite in suites() {
        let (mut sealer, opener) = pair(suite);
        for length in (0..70).chain([1000, 60_000]) {
            let plaintext: Vec<u8> = (0..=255).cycle().take(length).collect();
            let mut message = sealed(&mut sealer, &plaintext);
            assert_eq!(
                message.len(),
                HEADERS.len() + sealer.body_len(length),
                "{suite:?} {length}"
            );
            assert_eq!(message[..32], HEADERS[..]);
            assert_eq!(opener.open(&mut message, 32), Ok(&plaintext[..]), "{suite:?} {length}");
        }
    }
}

#[test]
fn the_body_is_as_short_as_it_can_be() {
    let body = |e, i, length| pair((e, i)).0.body_len(length);
    // IV, payloads, pad length, ICV: no padding, as in RFC 7634 B.
    assert_eq!(body(Encryption::Aes256Gcm16, None, 100), 8 + 100 + 1 + 16);
    let sha256 = Some(Integrity::HmacSha256);
    assert_eq!(body(Encryption::Aes256Cbc, sha256, 0), 16 + 16 + 16);
    assert_eq!(body(Encryption::Aes256Cbc, sha256, 15), 16 + 16 + 16);
    assert_eq!(body(Encryption::Aes256Cbc, sha256, 16), 16 + 32 + 16);
    assert_eq!(body(Encryption::Aes128Cbc, Some(Integrity::HmacSha512), 31), 16 + 32 + 32);
}

#[test]
fn a_message_with_any_bit_changed_is_not_authentic() {
    for suite in suites() {
        let (mut sealer, opener) = pair(suite);
        let message = sealed(&mut sealer, b"payloads");
        for octet in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[octet] ^= 1 << bit;
                let opened = opener.open(&mut changed, HEADERS.len()).unwrap_err();
                assert_eq!(opened, OpenError::NotAuthentic, "{suite:?} {octet} {bit}");
            }
        }
    }
}

#[test]
fn a_message_cut_or_lengthened_does_not_open() {
    for suite in suites() {
        let (mut sealer, opener) = pair(suite);
        let message = sealed(&mut sealer, &[0; 64]);
        for length in 0..message.len() {
            let mut cut = message[..length].to_vec();
            let opened = opener.open(&mut cut, HEADERS.len()).unwrap_err();
            let shortest = HEADERS.len() + suite.0.iv_len() + 1;
            let icv = suite.1.map_or(16, Integrity::icv_len);
            let expected =
                if length < shortest + icv { OpenError::TooShort } else { OpenError::NotAuthentic };
            assert_eq!(opened, expected, "{suite:?} {length}");
        }
        let mut longer = [&message[..], &[0]].concat();
        assert_eq!(opener.open(&mut longer, HEADERS.len()), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn a_body_that_begins_elsewhere_does_not_open() {
    for suite in suites() {
        let (mut sealer, opener) = pair(suite);
        let message = sealed(&mut sealer, &[0; 64]);
        // With CBC the MAC covers all of it wherever the body begins: then the blocks are not
        // whole, except at whole blocks from the true place.
        let wrong = |o: &usize| if suite.0.is_aead() { *o != 32 } else { !o.is_multiple_of(16) };
        for offset in (0..message.len()).filter(wrong) {
            assert!(opener.open(&mut message.clone(), offset).is_err(), "{suite:?} {offset}");
        }
        for offset in [message.len(), message.len() + 1, usize::MAX] {
            assert_eq!(opener.open(&mut message.clone(), offset), Err(OpenError::TooShort));
        }
    }
}

#[test]
fn another_key_does_not_open_a_message() {
    for suite in suites() {
        let (mut sealer, _) = pair(suite);
        let (encryption, integrity) = lengths(suite);
        let (key, mac) = (vec![1; encryption], vec![2; integrity]);
        let opener = Opener::new(suite.0, suite.1, &key, &mac).unwrap();
        let mut message = sealed(&mut sealer, b"payloads");
        assert_eq!(opener.open(&mut message, HEADERS.len()), Err(OpenError::NotAuthentic));
    }
}

/// The octets as they stand before encryption, with a true ICV.
fn raw(suite: (Encryption, Option<Integrity>), text: &[u8]) -> Vec<u8> {
    let (sealer, _) = pair(suite);
    let mut message = HEADERS.to_vec();
    match &sealer.keys {
        Keys::Aead { key, salt } => {
            message.extend([9; 8]);
            let mut text = text.to_vec();
            let tag = key
                .seal_in_place_separate_tag(nonce(*salt, [9; 8]), Aad::from(HEADERS), &mut text)
                .unwrap();
            message.extend(text);
            message.extend(tag.as_ref());
        }
        Keys::CbcHmac { cipher, mac, icv_len } => {
            message.extend([9; 16]);
            let mut text = text.to_vec();
            cipher.encrypt([9; 16], &mut text);
            message.extend(text);
            let tag = sign(mac, &[&message]);
            message.extend(&tag.as_ref()[..*icv_len]);
        }
    }
    message
}

#[test]
fn any_padding_of_the_peer_is_accepted() {
    for suite in suites() {
        let (_, opener) = pair(suite);
        // Fifteen octets of anything, and a pad length of 15, 10, 0.
        for pad in [15, 10, 0] {
            let text = [&b"fifteen octets!"[..], &[pad]].concat();
            let mut message = raw(suite, &text);
            let expected = &text[..15 - usize::from(pad)];
            assert_eq!(opener.open(&mut message, HEADERS.len()), Ok(expected), "{suite:?} {pad}");
        }
        // The longest there is.
        let text = [&[1][..], &[7; 254], &[0xff]].concat();
        let mut message = raw(suite, &text);
        assert_eq!(opener.open(&mut message, HEADERS.len()), Ok(&[][..]));
    }
}

#[test]
fn more_padding_than_octets_is_refused() {
    for suite in suites() {
        let (_, opener) = pair(suite);
        for pad in [16, 17, 255] {
            let mut message = raw(suite, &[&[0; 15][..], &[pad]].concat());
            assert_eq!(opener.open(&mut message, HEADERS.len()), Err(OpenError::BadPadding));
        }
    }
}

#[test]
fn authentic_cbc_text_that_is_no_whole_blocks_is_refused() {
    for suite in suites().into_iter().filter(|(e, _)| !e.is_aead()) {
        let (_, opener) = pair(suite);
        for length in [1, 15, 17, 31] {
            let mut message = raw(suite, &vec![0; length]);
            assert_eq!(opener.open(&mut message, HEADERS.len()), Err(OpenError::BadPadding));
        }
    }
}

#[test]
fn every_message_has_another_iv() {
    for suite in suites() {
        let (mut sealer, _) = pair(suite);
        let iv = |message: &[u8]| message[HEADERS.len()..][..suite.0.iv_len()].to_vec();
        let ivs: Vec<_> = (0..100).map(|_| iv(&sealed(&mut sealer, b"same"))).collect();
        let unique: std::collections::BTreeSet<_> = ivs.iter().collect();
        assert_eq!(unique.len(), ivs.len(), "{suite:?}");
        if suite.0.is_aead() {
            assert_eq!(ivs[99], 99u64.to_be_bytes());
        }
    }
}

#[test]
fn an_aead_key_is_used_up_before_its_ivs_repeat() {
    let (mut sealer, _) = pair((Encryption::Aes256Gcm16, None));
    sealer.next_iv = Some(u64::MAX);
    assert!(sealed(&mut sealer, b"last").ends_with(&sealed_with(u64::MAX, b"last")[40..]));
    for _again in 0..2 {
        let mut message = HEADERS.to_vec();
        let error = sealer.seal(&mut Broken, &mut message, b"one more").unwrap_err();
        assert_eq!(error, SealError::Exhausted);
        assert_eq!(message, HEADERS);
    }
}

fn sealed_with(iv: u64, plaintext: &[u8]) -> Vec<u8> {
    let (mut sealer, _) = pair((Encryption::Aes256Gcm16, None));
    sealer.next_iv = Some(iv);
    sealed(&mut sealer, plaintext)
}

#[test]
fn without_randomness_cbc_leaves_the_message_as_it_was() {
    let (mut sealer, _) = pair((Encryption::Aes128Cbc, Some(Integrity::HmacSha256)));
    let mut message = HEADERS.to_vec();
    let error = sealer.seal(&mut Broken, &mut message, b"payloads").unwrap_err();
    assert_eq!(error, SealError::RandomFailed(RandomFailed));
    assert_eq!(message, HEADERS);
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    for suite in suites() {
        let (encryption, integrity) = lengths(suite);
        let fits = |suite: (Encryption, Option<Integrity>), key: usize, mac: usize| {
            let (key, mac) = (vec![0; key], vec![0; mac]);
            let sealer = Sealer::new(suite.0, suite.1, &key, &mac).is_ok();
            assert_eq!(sealer, Opener::new(suite.0, suite.1, &key, &mac).is_ok());
            sealer
        };
        assert!(fits(suite, encryption, integrity));
        assert!(!fits(suite, encryption + 1, integrity));
        assert!(!fits(suite, encryption - 1, integrity));
        assert!(!fits(suite, 0, integrity));
        assert!(!fits(suite, encryption, integrity + 1));
        // AEAD with an integrity algorithm, or CBC without (RFC 5282 8).
        let other = suite.1.map_or(Some(Integrity::HmacSha256), |_| None);
        assert!(!fits((suite.0, other), encryption, other.map_or(0, Integrity::key_len)));
        assert!(!fits((suite.0, other), encryption, integrity));
    }
}

#[test]
fn debug_prints_no_key() {
    for suite in suites() {
        let (sealer, opener) = pair(suite);
        let printed = format!("{sealer:?} {opener:?}");
        assert!(!printed.contains("90") && !printed.contains("5a"), "{printed}");
    }
}
