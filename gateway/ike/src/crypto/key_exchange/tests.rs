//! Published vectors, the agreement with other implementations, and refusals. Those of ML-KEM are
//! in `mlkem`.

use crypto_bigint::{U256, U2048};
use p256::elliptic_curve::sec1::ToSec1Point as _;

use super::*;
use crate::crypto::hex;

fn agree(group: Group, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
    SystemKeyExchange.generate(group)?.agree(peer)
}

fn respond(group: Group, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
    SystemKeyExchange.respond(group, peer).map(|agreed| agreed.secret)
}

#[test]
fn both_ends_get_the_same_secret_with_every_method_and_another_each_time() {
    for group in Group::ALL {
        let exchange = || {
            let initiator = SystemKeyExchange.generate(*group).unwrap();
            assert_eq!((initiator.group(), initiator.public().len()), (*group, group.public_len()));
            let Agreed { value, secret } =
                SystemKeyExchange.respond(*group, initiator.public()).unwrap();
            assert_eq!(value.len(), group.answer_len(), "{group}");
            assert_eq!(initiator.agree(&value).unwrap(), secret, "{group}");
            (value, secret)
        };
        let (one, other) = (exchange(), exchange());
        assert!(one.0 != other.0 && one.1 != other.1, "{group}");
    }
}

#[test]
fn a_value_of_the_wrong_length_is_refused_in_both_roles() {
    type Role = fn(Group, &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError>;
    for group in Group::ALL {
        let public = SystemKeyExchange.generate(*group).unwrap().public().to_vec();
        let answer = SystemKeyExchange.respond(*group, &public).unwrap().value;
        let roles: [(Role, &[u8]); 2] = [(respond, &public), (agree, &answer)];
        for (role, value) in roles {
            let longer = [value, &[0]].concat();
            let prefixed = [&[4], value].concat();
            let compressed = [&[2], &value[..value.len() / 2]].concat();
            for wrong in
                [&[], &value[1..], &value[..value.len() - 1], &longer, &prefixed, &compressed]
            {
                let error = role(*group, wrong).unwrap_err();
                assert_eq!(error, KeyExchangeError::InvalidPublicValue, "{group} {}", wrong.len());
            }
        }
    }
}

/// RFC 7748 6.1: the other end is the RFC's Alice, computed by x25519-dalek.
#[test]
fn x25519_agrees_with_the_key_of_rfc_7748() {
    let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob_public = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let secret = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let multiply = |scalar: &[u8], point: &[u8]| {
        x25519_dalek::x25519(scalar.try_into().unwrap(), point.try_into().unwrap()).to_vec()
    };
    assert_eq!(multiply(&alice, &x25519_dalek::X25519_BASEPOINT_BYTES), alice_public);
    assert_eq!(multiply(&alice, &bob_public), secret);

    let pair = SystemKeyExchange.generate(Group::X25519).unwrap();
    let expected = multiply(&alice, pair.public());
    assert_eq!(*pair.agree(&alice_public).unwrap(), expected);
}

/// RFC 8031 A: the KE payloads are those of IKEv2. Either end of it is x25519-dalek.
#[test]
fn x25519_agrees_with_the_example_of_rfc_8031() {
    let random_i = "751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94";
    let random_r = "0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688";
    let public_i = hex("48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766");
    let public_r = hex("0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25");
    let secret = hex("c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950");
    let own = |digits: &str| -> [u8; 32] { hex(digits).try_into().unwrap() };
    let multiply = |scalar: [u8; 32], point: &[u8]| {
        x25519_dalek::x25519(scalar, point.try_into().unwrap()).to_vec()
    };
    for (random, public, other) in
        [(random_i, &public_i, &public_r), (random_r, &public_r, &public_i)]
    {
        assert_eq!(multiply(own(random), &x25519_dalek::X25519_BASEPOINT_BYTES), *public);
        assert_eq!(multiply(own(random), other), secret);
        let pair = SystemKeyExchange.generate(Group::X25519).unwrap();
        let expected = multiply(own(random), pair.public());
        assert_eq!(*pair.agree(public).unwrap(), expected);
    }
}

/// RFC 7748 5: the highest bit is ignored, and a value between the prime and 2^255 is taken as what
/// it is modulo the prime. Other implementations send neither, but both ends must agree on them.
#[test]
fn an_x25519_value_that_is_not_canonical_is_taken_as_the_rfc_says() {
    // The base point: the secret is then the responder's own public value.
    let nine = [vec![9], vec![0; 31]].concat();
    // 9 plus the prime, and 9 with the highest bit.
    let above = hex("f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let with_bit = [vec![9], vec![0; 30], vec![0x80]].concat();
    for value in [nine, above, with_bit] {
        let agreed = SystemKeyExchange.respond(Group::X25519, &value).unwrap();
        assert_eq!(*agreed.secret, agreed.value, "{value:02x?}");
    }
}

/// The points of small order on Curve25519 and its twist, as Wycheproof has them: each would
/// make the secret zero (RFC 7748 6.1, RFC 8031 5).
#[test]
fn an_x25519_secret_of_zero_is_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        for role in [agree, respond] {
            let error = role(Group::X25519, &hex(point)).unwrap_err();
            assert_eq!(error, KeyExchangeError::InvalidPublicValue, "{point}");
        }
    }
}

/// The keys of RFC 5903 8, for the curves that two crates implement alike.
macro_rules! rfc_5903 {
    ($curve:ident, $group:expr, $i:literal, $gi:literal, $gr:literal, $gir:literal) => {{
        let initiator = $curve::SecretKey::from_slice(&hex($i)).unwrap();
        // On the wire stand x and y, without the octet that SEC 1 puts before them.
        let public = initiator.public_key().to_sec1_point(false).as_bytes()[1..].to_vec();
        assert_eq!(public, hex($gi));
        assert_eq!(public.len(), $group.public_len());
        let multiply = |peer: &[u8]| {
            let peer = [&[4], peer].concat();
            let peer = $curve::PublicKey::from_sec1_bytes(&peer).unwrap();
            let scalar = initiator.to_nonzero_scalar();
            $curve::ecdh::diffie_hellman(scalar, peer.as_affine()).raw_secret_bytes().to_vec()
        };
        assert_eq!(multiply(&hex($gr)), hex($gir));

        let pair = SystemKeyExchange.generate($group).unwrap();
        let expected = multiply(pair.public());
        assert_eq!(*pair.agree(&public).unwrap(), expected);
    }};
}

#[test]
fn ecp256_agrees_with_the_key_of_rfc_5903() {
    rfc_5903!(
        p256,
        Group::EcpP256,
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180
     5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
     56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"
    );
}

#[test]
fn ecp384_agrees_with_the_key_of_rfc_5903() {
    rfc_5903!(
        p384,
        Group::EcpP384,
        "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655
     e35b538041e649ee3faef896783ab194",
        "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6
     de3ac808acb4bdb4c88732aee95f41aa9482ed1fc0eeb9cafc4984625ccfc23f
     65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
        "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d
     0d1ac43a0336def96fda41d0774a3571dcfbec7aacf3196472169e838430367f
     66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4
     d603135569b9e9d09cf5d4a270f59746"
    );
}

/// RFC 5903 8.3.
#[test]
fn ecp521_computes_the_keys_of_rfc_5903() {
    let pair = |digits: &str| {
        ecp521::KeyPair::from_private(p521::SecretKey::from_slice(&hex(digits)).unwrap())
    };
    let initiator = pair(
        "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a0
         95aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d
         4a52",
    );
    let responder = pair(
        "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e
         9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb15168
         5eb9",
    );
    let initiator_public = hex("0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbe
         e1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4195d176c
         ed3e017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4
         a10ad8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3
         926f9582");
    let responder_public = hex("00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a21
         9b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9
         460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d985207
         7b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd1
         7f0fc56a");
    let secret = hex("01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04
         d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3
         ddea");
    assert_eq!(initiator.public(), initiator_public);
    assert_eq!(responder.public(), responder_public);
    assert_eq!(*Box::new(initiator).agree(&responder_public).unwrap(), secret);
    assert_eq!(*Box::new(responder).agree(&initiator_public).unwrap(), secret);
}

#[test]
fn a_point_off_the_curve_is_refused() {
    for group in [Group::EcpP256, Group::EcpP384, Group::EcpP521] {
        let other = SystemKeyExchange.generate(group).unwrap();
        let mut off = other.public().to_vec();
        *off.last_mut().unwrap() ^= 1;
        let zero = vec![0; group.public_len()];
        // Both coordinates above the field's prime.
        let above = vec![0xff; group.public_len()];
        for point in [off, zero, above] {
            for role in [agree, respond] {
                let error = role(group, &point).unwrap_err();
                assert_eq!(error, KeyExchangeError::InvalidPublicValue, "{group}");
            }
        }
    }
}

/// Two key pairs x, y = 2^x mod p of group MODP-2048 in NIST's ACVP server,
/// safePrimes-keyGen-1.0, test cases 4 and 5; their secret computed with Python's pow.
#[test]
fn modp2048_gives_the_values_of_nist() {
    let (x4, y4) = (
        hex("22f1dd3922b6a21227b52fb2856141988f3049a68cfd0330757912c7fcbe5923eaf122c3\
         9893fcf847e17d25d26e5baad58f7a4704b429476aa4f3b1eb1f786fd16564344414b438\
         2ca9575a34807c24d9ddcbe18e5a7eec8f8ec48ca964dfec000c274c4a8695dbbcb80412\
         733c9ce6e74a72cf97197ea378be8cca46766f6d207f946a188722b9e78bd5d941eec81b\
         6fcfe7b144af46022b250b6f25069d77f3262074c6cb969c30b66eb1482815f0a2bb0afb\
         65a5d59b14be8c49a09871c6ca8460993e98a8d36d8b54406ea85a2f10e232470b7ee0d8\
         13ded4c51741f2838da0e3c8207860d7c2de3dce67a213d17b0071505e3c0756913c15b8\
         daf0f786"),
        hex("9920c48dba908f49f265f38cf2e59b01e755e0f3d4c9dbe1df5cffb7ebfe7cfed6bc5004\
         fd53641e132e565b449a97c1358ec301b717e338bd765d87cd695b92fba15fcff924fe4b\
         239d6e8e5a34b303e8f2f3896d9a18ec49c4eda43c9cbec3b7ee12cdc86b064ab0fedeb0\
         ac624190f6e4b624b826aba7d367a9e59b08508b8c26021bc7c25fd96781eded02454d8f\
         f25b79c5d1f4ea7e8e1bf4890b6a8750ffa287c2202436fea19e04eabf92861ecaec3e32\
         764fd5d9a807f224019a8785a2ee40886c6b169f96fad429fc84c03b349257d1c18a5137\
         05d57d9a313935d0d415bed451aaebba4fbb80b385df58b5dfaa0a73e88784bd9889b8e6\
         3edb92f1"),
    );
    let (x5, y5) = (
        hex("72990ac2a18cdd427b1a8ec7eda547931b15f990ea64680cebf62a844f5dd2abcda2ed95\
         7e364d0d69229fedf9d6107350678c634e87f7843e3e2cf1b14e0fb4aff9dd6fb49b6f19\
         56c3019a6761cf295290d80bbee5c8804dff19a250477e8257fbf748e79cd266bdcce6d8\
         bca70b1902740d891379bc76841da108c285b0d075eaf90e24f539337b3d0a402fb416b1\
         421ea0e43c08b62138aee091fe0ff51c511dce9683511289750c88eb39967776e7addb9a\
         12720b8c49194031c220613fc8f4a2431c92bdab963f316ad60841898abceab1e608b6dc\
         6fa07b223e88283b672498f7e3ba251f7c3069be9df2fc592a1e6da6fbbd8d1dc7dd992b\
         764b3d4d"),
        hex("69c00aab9ae930d2ddabe4e2d870f09f438083868443ad13dd3b233a96276bcca7c150b9\
         ba244f0aa1d581b01b7e38f6cc8bc9c68eb5a6f7bd45b29ec0f5f24791646184d8f02faa\
         92299667d75eeebd5e23359cc521f343da67b10dbd6d27aa890145e5b8b56275d35a94b3\
         dc9827e745048e4b219549145ae2db00265838c601b0ca01f751d91295c1b3dc7657ab0e\
         14a99580880bb627f7f1f71a95a41dee91c242e9e00f8387ba5d562cd97c74692153e1da\
         c512fb40a3e06d6c953a019d17e4f0b439f2b10ce48e24ff820d5502151ceb27f28e6bd3\
         b0d9d113e190572fbd7e373e9b9f4e9ed112cbb1f3f2d1038ddfde1717707129c8f26a97\
         da00a77d"),
    );
    let secret = hex("19fc676eb6400db5011e26c9d762f064a83d6db317e21e4b7cc8ce5eba126fd663c204ba\
         83010d143ca7bdc16157f5b987afa3799fde14127f3a96792a412a710962ece98dfa4bd5\
         b9e42859c21d39390ebfd04658e563348c0b8929ae0dd813c70e0d02fe3f3ed2c816f6d6\
         66e9224e204dfca935c1c445966130e9d466b11f71fb3786463ccfb23eda86004a1088db\
         4758cb16b17d8bc749a5b55d6064d9fd802871d12063076476ee83d0e25ed7b88ad1ecd9\
         1b74cfb2dcb0d08778d0ad9d21ce0a2ee3641974c56e9fde321a926a58f9ca66893856e3\
         e83cc3aae270a37372af8c89341127990220543d80e4d0a2203055462e2f48af0f58fb0e\
         c9147817");
    let power = |base: &[u8], exponent: &[u8]| {
        let (base, exponent) = (U2048::from_be_slice(base), U2048::from_be_slice(exponent));
        modp::power(&base, &exponent).to_be_bytes().as_ref().to_vec()
    };
    let two = [vec![0; 255], vec![2]].concat();
    assert_eq!(power(&two, &x4), y4);
    assert_eq!(power(&two, &x5), y5);
    assert_eq!(power(&y5, &x4), secret);
    assert_eq!(power(&y4, &x5), secret);

    // The other end is NIST's.
    let pair = SystemKeyExchange.generate(Group::Modp2048).unwrap();
    let expected = power(pair.public(), &x4);
    assert_eq!(*pair.agree(&y4).unwrap(), expected);
}

/// RFC 7296 2.14: leading zeros stay. Computed with Python's pow.
#[test]
fn a_short_modp_secret_is_padded_to_the_length_of_the_prime() {
    let exponent: Vec<u8> = (1..=32).collect();
    let pair = modp::KeyPair::from_exponent(U256::from_be_slice(&exponent));
    let peer = modp::power(&U2048::from_u8(2), &U256::from_u32(69)).to_be_bytes();
    let secret = Box::new(pair).agree(peer.as_ref()).unwrap();
    assert_eq!(
        *secret,
        hex("004c31c8fa0ac8ec48c65f0181daafb1ef17b51e563f7605ba6d8a63f9de0e5bb8e37d36\
         2f64df3c605972902e387edaf84289e89eebbef846e6ab9f75b58d7c8405be02f9464838\
         f0e5ffef23ff48bee24faa54d8c00ea4016908787bd46f74f60af91b6eb1501aee2797f8\
         f7c1417e22fa490bcd37f511e18383f43a7e6bb7448619c70de3593ea2e9787725c3b9f8\
         7125ccaa7daf1c9cbebc544826ab2c8ca2f60dddbbea1a5b1db25e87f0fa3e1611314010\
         25b389a0b41ef6931052a591c8bc07bb404dca45eb5fb6ba3f63d94c090b3c6f583a4b98\
         bca1bea855bbd026d877507a55fc349f687b39e3eb879405120b6441cd3c2fca6682a291\
         68400967",)
    );
}

/// RFC 6989 2.1.
#[test]
fn a_modp_value_of_small_order_or_out_of_range_is_refused() {
    let zero = vec![0; 256];
    let one = [vec![0; 255], vec![1]].concat();
    let prime = modp::prime().to_be_bytes().as_ref().to_vec();
    let mut last = prime.clone();
    *last.last_mut().unwrap() -= 1;
    for wrong in [zero, one, last, prime, vec![0xff; 256]] {
        let error = agree(Group::Modp2048, &wrong).unwrap_err();
        assert_eq!(error, KeyExchangeError::InvalidPublicValue, "{wrong:02x?}");
    }
    agree(Group::Modp2048, &[vec![0; 255], vec![2]].concat()).unwrap();
}
