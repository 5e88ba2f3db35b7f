//! Published vectors for the derivation of keys.

use super::*;
use crate::algorithms::{Additional, Encryption, Group, Integrity, Round};
use crate::crypto::hex;

fn spi(digits: &str) -> IkeSpi {
    IkeSpi(hex(digits).try_into().unwrap())
}

const fn ike(encryption: Encryption, integrity: Option<Integrity>, prf: Prf) -> IkeSuite {
    let additional = Additional::NONE;
    IkeSuite { encryption, integrity, prf, group: Group::X25519, additional }
}

impl IkeKeys {
    /// All of it in the order of RFC 7296 2.14.
    fn concat(&self) -> Vec<u8> {
        let parts = [
            self.sk_d(),
            self.sk_ai(),
            self.sk_ar(),
            self.sk_ei(),
            self.sk_er(),
            self.sk_pi(),
            self.sk_pr(),
        ];
        parts.concat()
    }

    fn lengths(&self) -> [usize; 7] {
        [
            self.sk_d().len(),
            self.sk_ai().len(),
            self.sk_ar().len(),
            self.sk_ei().len(),
            self.sk_er().len(),
            self.sk_pi().len(),
            self.sk_pr().len(),
        ]
    }
}

/// NIST CAVS 14.1, IKEv2 key derivation: 132 octets of key material with SHA2-256.
#[test]
fn the_keys_of_an_ike_sa_are_those_of_nist_with_sha256() {
    let expected = hex("0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca53\
         1188d16041b3bb936d2dbb3b4993a6e768a809160de45d0283f273a6cdf6854379e31be7\
         2b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1c19bdcd4db14b29d98db1a\
         74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad");
    let keys = IkeKeys::derive(
        ike(Encryption::Aes128Gcm16, None, Prf::HmacSha256),
        &hex("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29"),
        &hex("3f302be1abcb28e1"),
        &hex("8c332ee006064c9b"),
        spi("40dac39e1e1a8640"),
        spi("8619a1cf9a6e4c07"),
    );
    assert_eq!(keys.lengths(), [32, 0, 0, 20, 20, 32, 32]);
    assert_eq!(keys.concat()[..132], expected);
}

/// NIST CAVS 14.1, IKEv2 key derivation: 132 octets of key material with SHA2-384.
#[test]
fn the_keys_of_an_ike_sa_are_those_of_nist_with_sha384() {
    let expected = hex("4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6de\
         eda4f952191dd9bc1f7a9502471a648d74dc06d38112de48a42501f6b1a3ad55c2099cd9\
         a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca0c2fcca81ec1a412006dfaed\
         38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4");
    let keys = IkeKeys::derive(
        ike(Encryption::ChaCha20Poly1305, None, Prf::HmacSha384),
        &hex("d3288cd87565101e88fe3bad918f31939d8dd26ff1071f8b2d7f447524e58d7c"),
        &hex("fd1b572a8e735591"),
        &hex("6013b0ef88dacd3d"),
        spi("2116ad07ce61f749"),
        spi("24880e55f11a65b7"),
    );
    assert_eq!(keys.lengths(), [48, 0, 0, 36, 36, 48, 48]);
    assert_eq!(keys.concat()[..132], expected);
}

/// No published vector: computed with Python's hmac.
#[test]
fn every_key_of_an_ike_sa_stands_in_its_place() {
    let bytes = |range: core::ops::Range<u8>| range.collect::<Vec<u8>>();
    let keys = IkeKeys::derive(
        ike(Encryption::Aes256Cbc, Some(Integrity::HmacSha512), Prf::HmacSha512),
        &bytes(32..64),
        &bytes(0..16),
        &bytes(16..32),
        spi("a0a1a2a3a4a5a6a7"),
        spi("b0b1b2b3b4b5b6b7"),
    );
    assert_eq!(
        keys.sk_d(),
        hex("317e3484f81f35c84bad42bcb456de703d8c1c8ecbe290965e3747bf751e81148bdfc04b\
             9e0674a65aaf7b9c148abb70448c0326be49ebee367ade64ca5d87cd",),
    );
    assert_eq!(
        keys.sk_ai(),
        hex("795aae24e133b59b6a7f29405a31e4e48e17ebb40d3406d207ed7ebaf0ce59feb60d6f2c\
             5daed5cd8c3615c1ccbc37a372d18697a34dde36d087e9f9d4db3bb1",),
    );
    assert_eq!(
        keys.sk_ar(),
        hex("aaf821c41f3a2151567d1af1532a1e53f1e1dbaa86db39440a164488f1bbb5271c30a83a\
             1795285baf264efd5b64859039dc1063ad1558f015187f9fc8ad5abc",),
    );
    assert_eq!(
        keys.sk_ei(),
        hex("3f24c05d8805bbc48ffa41d49afc3ea33a276b323ad8fb598cc709d29e1df9ca"),
    );
    assert_eq!(
        keys.sk_er(),
        hex("b095ead22f4177b5cc3b3dd39794a54489eaeacfa1742e045792987d4eb01e17"),
    );
    assert_eq!(
        keys.sk_pi(),
        hex("43d2bcbb5d379eda0cc7463d5b9666864ed898ed242e3acc22dd8de355ec13978dec8251\
             80966f48586dfc2dfb171f09acd224956f1742fd099dbb41ed8da8a1",),
    );
    assert_eq!(
        keys.sk_pr(),
        hex("edf6de5650c0e1a914c1b996a6a09b123c9d59aab1473e2408f3084872339290bde42e9a\
             68272214fb7a1fcb3374c32d95ff8fe6708e0e7244db0e0e714cb23a",),
    );
}

/// NIST CAVS 14.1, IKEv2 key derivation, SKEYSEED (rekey), which prf+ then takes for its key.
#[test]
fn a_rekeyed_ike_sa_begins_with_the_skeyseed_of_nist() {
    let old = IkeKeys::derive(
        ike(Encryption::Aes128Gcm16, None, Prf::HmacSha256),
        &hex("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29"),
        &hex("3f302be1abcb28e1"),
        &hex("8c332ee006064c9b"),
        spi("40dac39e1e1a8640"),
        spi("8619a1cf9a6e4c07"),
    );
    let (ni, nr) = (hex("3f302be1abcb28e1"), hex("8c332ee006064c9b"));
    let shared = hex("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c");
    let skeyseed = hex("2d63f6debc92048b4fef3889c4c99ca67d6496e0fac14a2bca9a2d6566ff2398");
    // The new SA may have another PRF, which takes over after SKEYSEED.
    for prf in Prf::ALL.iter().copied() {
        let suite = ike(Encryption::Aes256Gcm16, None, prf);
        let (spi_i, spi_r) = (spi("0102030405060708"), spi("1112131415161718"));
        let new = old.derive_rekeyed(Prf::HmacSha256, suite, &shared, &ni, &nr, &[], spi_i, spi_r);
        let length = new.concat().len();
        let seed: [&[u8]; 4] = [&ni, &nr, &spi_i.0, &spi_r.0];
        assert_eq!(new.concat(), *prf_plus(prf, &skeyseed, &seed, length), "{prf}");
        assert_eq!(length, 3 * prf.output_len() + 2 * 36);
    }
}

/// The secrets of IKE_FOLLOWUP_KE come behind the nonces (RFC 9370 2.2.4). The SK_d of NIST's example,
/// the rest computed with Python's hmac.
#[test]
fn the_secrets_of_additional_key_exchanges_come_behind_the_nonces() {
    let (ni, nr) = (hex("3f302be1abcb28e1"), hex("8c332ee006064c9b"));
    let shared = hex("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c");
    let additional = [vec![1; 32], vec![2; 48]].concat();
    let suite = ike(Encryption::Aes128Gcm16, None, Prf::HmacSha256);
    let old = IkeKeys::derive(
        suite,
        &hex("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29"),
        &ni,
        &nr,
        spi("40dac39e1e1a8640"),
        spi("8619a1cf9a6e4c07"),
    );
    let esp = EspSuite { encryption: Encryption::Aes256Gcm16, integrity: None, esn: true };
    let sk_d = old.sk_d();
    let keys = ChildKeys::derive(Prf::HmacSha256, sk_d, Some(&shared), &ni, &nr, &additional, esp);
    let (outbound, inbound) = keys.by_direction(true);
    assert_eq!(
        *outbound.0,
        hex("1630f1830e503e014e1e106b5f57052e1ce9b1e6419098e848dd08e11d55c0344f115f38")
    );
    assert_eq!(
        *inbound.0,
        hex("4c815fdb76408175c670ed610572c45088fcc1a25f06f47410f6877aab499cee0457e4d0")
    );
    let (spi_i, spi_r) = (spi("0102030405060708"), spi("1112131415161718"));
    let new =
        old.derive_rekeyed(Prf::HmacSha256, suite, &shared, &ni, &nr, &additional, spi_i, spi_r);
    let skeyseed = hex("fe4d7fc9f3868128708f3888539187242b14a00d5ad5d4107a9b18e9cf276349");
    let seed: [&[u8]; 4] = [&ni, &nr, &spi_i.0, &spi_r.0];
    assert_eq!(new.concat(), *prf_plus(Prf::HmacSha256, &skeyseed, &seed, new.concat().len()));
}

/// The SK_d of NIST's example above; the rest computed with Python's hmac.
#[test]
fn the_keys_of_a_child_sa_are_the_initiators_first_and_encryption_first() {
    let sk_d = hex("0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ec");
    let (ni, nr) = (hex("3f302be1abcb28e1"), hex("8c332ee006064c9b"));

    let suite = EspSuite { encryption: Encryption::Aes256Gcm16, integrity: None, esn: true };
    let keys = ChildKeys::derive(Prf::HmacSha256, &sk_d, None, &ni, &nr, &[], suite);
    let (outbound, inbound) = keys.by_direction(true);
    assert_eq!(
        *outbound.0,
        hex("7d808e2b44635300e7025f1b640c431b13a9b3b891cd45a15261f4f3c4a7e39b3a3c8017"),
    );
    assert_eq!(
        *inbound.0,
        hex("ccc2b74610faf52ba3faf6d9e83c859b448217b24dadc82c9887460b7bd724236b988591"),
    );
    assert!(outbound.1.is_empty() && inbound.1.is_empty());

    let suite = EspSuite {
        encryption: Encryption::Aes128Cbc,
        integrity: Some(Integrity::HmacSha256),
        esn: false,
    };
    let shared = hex("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c");
    let keys = ChildKeys::derive(Prf::HmacSha256, &sk_d, Some(&shared), &ni, &nr, &[], suite);
    // As the responder sees them.
    let (outbound, inbound) = keys.by_direction(false);
    assert_eq!(*inbound.0, hex("67edd256e64542436173e3ca39ef1fde"));
    assert_eq!(*inbound.1, hex("c3c8240b860df26f84caf5258578ff35df40ddc31ea210e0523988b7531c9dc3"));
    assert_eq!(*outbound.0, hex("207e0e98e256214999c7712f73ff044a"));
    assert_eq!(
        *outbound.1,
        hex("9cf6e3a5e421862b9ba140862f460ea5236527cf8346db9ac23feb6636e21fc7")
    );
}

/// RFC 7296 2.15; no published vector: computed with Python's hmac.
#[test]
fn auth_covers_message_nonce_and_identity() {
    let auth = |prf, psk: &[u8], sk_p: &[u8], message: &[u8], nonce: &[u8], id: &[u8]| {
        shared_key_auth(prf, psk, &signed_octets(prf, sk_p, message, nonce, id, &[]))
    };
    let vectors = [
        (Prf::HmacSha256, hex("2e203f2d5f3f6184841be32d1e28af451a7ecc6a4daf43e80d8104891358628c")),
        (
            Prf::HmacSha384,
            hex("124e7f4ed71713017a67e2370e09172f0c88b95e98d75397a79a0d45b3a866478415a927\
                 8e1214f6a04af2598a990126"),
        ),
        (
            Prf::HmacSha512,
            hex("f2c77a496b9eb46fdd6c51d512827159f3afe21848dd3aca7c4b040d400f1f6b7f19b029\
                 75f3cbe6e31dcbc39ec61430c7c8871664b936757c40229b1357c4fc"),
        ),
    ];
    for (prf, expected) in vectors {
        let id: &[u8] = b"\x02\0\0\0id";
        assert_eq!(*auth(prf, b"secret", b"sk_p", b"message", b"nonce", id), expected);
        assert_ne!(*auth(prf, b"Secret", b"sk_p", b"message", b"nonce", id), expected);
        assert_ne!(*auth(prf, b"secret", b"sk_q", b"message", b"nonce", id), expected);
        assert_ne!(*auth(prf, b"secret", b"sk_p", b"massage", b"nonce", id), expected);
        assert_ne!(*auth(prf, b"secret", b"sk_p", b"message", b"nance", id), expected);
        assert_ne!(*auth(prf, b"secret", b"sk_p", b"message", b"nonce", b"\x02\0\0\0di"), expected);
    }
}

#[test]
fn debug_prints_no_key() {
    let suite = ike(Encryption::Aes256Gcm16, None, Prf::HmacSha256);
    let keys = IkeKeys::derive(suite, b"", b"", b"", IkeSpi([0; 8]), IkeSpi([0; 8]));
    assert_eq!(format!("{keys:?}"), "IkeKeys […]");
    let suite = EspSuite { encryption: Encryption::Aes256Gcm16, integrity: None, esn: true };
    let child = ChildKeys::derive(Prf::HmacSha256, b"", None, b"", b"", &[], suite);
    assert_eq!(format!("{child:?}"), "ChildKeys […]");
}

/// RFC 8784 3: SK_d, SK_pi and SK_pr become prf+(PPK, themselves); the rest stays.
#[test]
fn a_ppk_goes_into_what_begets_keys_and_into_auth() {
    for prf in Prf::ALL {
        let suite = ike(Encryption::Aes256Gcm16, None, *prf);
        let before =
            IkeKeys::derive(suite, &[1; 32], &[2; 32], &[3; 32], IkeSpi([4; 8]), IkeSpi([5; 8]));
        let after = before.with_ppk(suite, b"a second secret");
        // One block of prf+ is as long as the key.
        let mixed = |key: &[u8]| super::prf(*prf, b"a second secret", &[key, &[1]]).to_vec();
        assert_eq!(after.sk_d(), mixed(before.sk_d()));
        assert_eq!(after.sk_pi(), mixed(before.sk_pi()));
        assert_eq!(after.sk_pr(), mixed(before.sk_pr()));
        assert_eq!((after.sk_ei(), after.sk_er()), (before.sk_ei(), before.sk_er()));
        assert!(after.has_ppk() && !before.has_ppk());
        let spis = (IkeSpi([6; 8]), IkeSpi([7; 8]));
        let rekeyed =
            after.derive_rekeyed(*prf, suite, &[8; 32], &[9; 32], &[10; 32], &[], spis.0, spis.1);
        assert!(rekeyed.has_ppk(), "its secret is in SK_d, from which all that follows comes");
        let safe = *prf != Prf::HmacSha1;
        assert_eq!([after.is_quantum_safe(), rekeyed.is_quantum_safe()], [safe; 2], "{prf}");
    }
}

/// RFC 8784 6: its keys have fewer than 256 bits. By itself, in the place of integrity, or as what
/// made the keys that others come from.
#[test]
fn no_keys_by_sha1_are_quantum_safe() {
    let with_ml_kem = |suite: IkeSuite| IkeSuite {
        additional: Additional::NONE.with(Round::Ke1, Group::MlKem768),
        ..suite
    };
    let derive = |suite| IkeKeys::derive(suite, b"", b"", b"", IkeSpi([1; 8]), IkeSpi([2; 8]));
    let rekeyed = |old: &IkeKeys, old_prf, suite| {
        old.derive_rekeyed(old_prf, suite, b"", b"", b"", b"", IkeSpi([3; 8]), IkeSpi([4; 8]))
    };
    let (sha256, sha1) = (Prf::HmacSha256, Prf::HmacSha1);
    let good = ike(Encryption::Aes256Gcm16, None, sha256);
    let weak_prf = ike(Encryption::Aes256Gcm16, None, sha1);
    let weak_integrity = ike(Encryption::Aes256Cbc, Some(Integrity::HmacSha1), sha256);
    let safe = derive(with_ml_kem(good));
    assert!(safe.is_quantum_safe() && rekeyed(&safe, sha256, good).is_quantum_safe());
    for weak in [weak_prf, weak_integrity] {
        assert!(!derive(with_ml_kem(weak)).is_quantum_safe());
        assert!(!rekeyed(&safe, sha256, weak).is_quantum_safe());
        assert!(!derive(good).with_ppk(weak, b"ppk").is_quantum_safe());
    }
    // The way back takes a key exchange that is safe by itself, and another PRF before it.
    let weak = derive(with_ml_kem(weak_prf)).with_ppk(weak_prf, b"ppk");
    let first = rekeyed(&weak, sha1, with_ml_kem(good));
    assert!(!first.is_quantum_safe(), "SKEYSEED has 160 bits");
    assert!(!rekeyed(&first, sha256, good).is_quantum_safe());
    assert!(rekeyed(&first, sha256, with_ml_kem(good)).is_quantum_safe());
}

/// RFC 9370 2.2.2: SKEYSEED(1) = prf(SK_d(0), SK(1) | Ni | Nr), with the nonces and SPIs that the
/// IKE SA has.
#[test]
fn an_additional_key_exchange_gives_new_keys_from_sk_d() {
    let suite = ike(Encryption::Aes256Gcm16, None, Prf::HmacSha256);
    let (ni, nr, spis) = ([2; 32], [3; 32], (IkeSpi([4; 8]), IkeSpi([5; 8])));
    let first = IkeKeys::derive(suite, &[1; 32], &ni, &nr, spis.0, spis.1);
    let secret = [6; 32];
    let second =
        first.derive_rekeyed(Prf::HmacSha256, suite, &secret, &ni, &nr, &[], spis.0, spis.1);
    let seed = prf(Prf::HmacSha256, first.sk_d(), &[&secret, &ni, &nr]);
    // SK_d is the first block of prf+.
    let parts: [&[u8]; 5] = [&ni, &nr, &spis.0.0, &spis.1.0, &[1]];
    assert_eq!(second.sk_d(), &**prf(Prf::HmacSha256, &seed, &parts));
}
