//! The least that a responder must compute for one handshake with X25519 (and ML-KEM, if it is to
//! be), a pre-shared key or certificates, and AES-256-GCM: the primitives alone, without any
//! protocol around them.
//!
//! They are those of the crates that are used here, so that a ratio to it tells what the protocol
//! costs, and not what faster primitives would save. That is most with ML-KEM-768: making a key,
//! encapsulating and decapsulating took 218 us with `ml-kem` and 39 us with aws-lc-rs on one core.
#![expect(clippy::unwrap_used, reason = "a failure must stop the bench")]

#[path = "../../tests/certificates/mod.rs"]
#[expect(
    dead_code,
    clippy::arithmetic_side_effects,
    reason = "It issues certificates of every kind, for the tests."
)]
mod certificates;
pub(crate) mod host;

use std::hint::black_box;
use std::sync::Arc;

use gateway_ike::algorithms::{
    Additional, Encryption, EspSuite, Group, IkeSuite, Prf, SignatureScheme,
};
use gateway_ike::crypto::key_exchange::{KeyExchange as _, SystemKeyExchange};
use gateway_ike::crypto::prf::{equal, prf, sha1};
use gateway_ike::crypto::protect::{Opener, Sealer};
use gateway_ike::crypto::x509::Credential;
use gateway_ike::keys::{ChildKeys, IkeKeys, shared_key_auth, signed_octets};
use gateway_ike::random::SystemSource;
use gateway_wire::IkeSpi;

use self::host::{Kind, certified};

const SUITE: IkeSuite = IkeSuite {
    encryption: Encryption::Aes256Gcm16,
    integrity: None,
    prf: Prf::HmacSha256,
    group: Group::X25519,
    additional: Additional::NONE,
};
const CHILD: EspSuite =
    EspSuite { encryption: Encryption::Aes256Gcm16, integrity: None, esn: true };

const SPI_I: IkeSpi = IkeSpi([1; 8]);
const SPI_R: IkeSpi = IkeSpi([2; 8]);
const NONCE: [u8; 32] = [3; 32];
const PSK: &[u8] = b"a pre-shared key of some 32 octets";
const ID: &[u8] = b"\x02\0\0\0responder.example";
/// Octets of an IKE_SA_INIT message, and of the payloads inside an IKE_AUTH message.
const INIT_LEN: usize = 250;
const AUTH_LEN: usize = 200;
/// Octets before the SK payload's body: the IKE header and the generic header.
const HEADERS: usize = 28 + 4;

const ECDSA: SignatureScheme = SignatureScheme::EcdsaSha256;

/// The messages that the floor works on.
pub(crate) struct Floor {
    peer_public: Vec<u8>,
    init: Vec<u8>,
    key: Vec<u8>,
    auth_request: Vec<u8>,
    plaintext: Vec<u8>,
    address: Vec<u8>,
    /// The initiator's value of an additional key exchange, and the request that it comes in.
    additional: Option<(Group, Vec<u8>, Vec<u8>)>,
    /// A key with a signature of it, if certificates are to be used.
    signatures: Option<(Arc<Credential>, Vec<u8>)>,
}

impl Floor {
    /// Makes what the initiator would have sent.
    pub(crate) fn new(kind: Kind) -> Self {
        let peer = SystemKeyExchange.generate(Group::X25519).unwrap();
        let key = vec![4; 36];
        let plaintext = vec![5; AUTH_LEN];
        let sealed = |plaintext: &[u8]| {
            let mut request = vec![6; HEADERS];
            Sealer::new(SUITE.encryption, None, &key, &[])
                .unwrap()
                .seal(&mut SystemSource::default(), &mut request, plaintext)
                .unwrap();
            request
        };
        let auth_request = sealed(&plaintext);
        let additional = kind.mlkem.then_some(Group::MlKem768).map(|group| {
            let public = SystemKeyExchange.generate(group).unwrap().public().to_vec();
            let request = sealed(&public);
            (group, public, request)
        });
        let signatures = kind.ecdsa.then(|| {
            let (credential, _) = certified("b.test");
            let signature = credential.key().sign(ECDSA, &plaintext).unwrap();
            (credential, signature)
        });
        Self {
            signatures,
            peer_public: peer.public().to_vec(),
            init: vec![7; INIT_LEN],
            key,
            auth_request,
            plaintext,
            address: vec![8; 6],
            additional,
        }
    }

    /// Computes it once: IKE_SA_INIT, IKE_INTERMEDIATE if there is one, then IKE_AUTH.
    pub(crate) fn run(&self) {
        let agreed = SystemKeyExchange.respond(Group::X25519, &self.peer_public).unwrap();
        black_box(&agreed.value);
        for _source_and_destination_both_ways in 0..4 {
            black_box(sha1(&[&SPI_I.0, &SPI_R.0, black_box(&self.address)]));
        }
        let mut keys = IkeKeys::derive(SUITE, &agreed.secret, &NONCE, &NONCE, SPI_I, SPI_R);
        // The peer's key does not follow from this run's secret, but costs the same to set up.
        let opener = Opener::new(SUITE.encryption, None, &self.key, keys.sk_ai()).unwrap();
        let mut sealer = Sealer::new(SUITE.encryption, None, keys.sk_er(), keys.sk_ar()).unwrap();
        if let Some(additional) = &self.additional {
            (keys, sealer) = round(&opener, sealer, &keys, additional);
        }

        let mut request = self.auth_request.clone();
        black_box(opener.open(black_box(&mut request), HEADERS).unwrap());
        let octets = signed_octets(SUITE.prf, keys.sk_pi(), &self.init, &NONCE, ID, &[]);
        match &self.signatures {
            None => {
                let theirs = shared_key_auth(SUITE.prf, PSK, &octets);
                black_box(equal(&theirs, black_box(&NONCE)));
            }
            // That of AUTH, and that of the certificate whose key made it.
            Some((credential, signature)) => {
                for _signed in 0..2 {
                    let key = credential.certificate().key();
                    key.verify(ECDSA, black_box(&self.plaintext), black_box(signature)).unwrap();
                }
            }
        }
        black_box(ChildKeys::derive(SUITE.prf, keys.sk_d(), None, &NONCE, &NONCE, &[], CHILD));
        let octets = signed_octets(SUITE.prf, keys.sk_pr(), &self.init, &NONCE, ID, &[]);
        match &self.signatures {
            None => drop(black_box(shared_key_auth(SUITE.prf, PSK, &octets))),
            Some((credential, _)) => {
                drop(black_box(credential.key().sign(ECDSA, &octets).unwrap()));
            }
        }
        let mut response = vec![9; HEADERS];
        sealer
            .seal(&mut SystemSource::default(), &mut response, black_box(&self.plaintext))
            .unwrap();
        black_box(response);
    }
}

/// One additional key exchange: opened, computed, covered by AUTH in both directions, answered,
/// and put into new keys.
fn round(
    opener: &Opener,
    mut sealer: Sealer,
    keys: &IkeKeys,
    (group, public, request): &(Group, Vec<u8>, Vec<u8>),
) -> (IkeKeys, Sealer) {
    black_box(opener.open(black_box(&mut request.clone()), HEADERS).unwrap());
    let agreed = SystemKeyExchange.respond(*group, black_box(public)).unwrap();
    for (key, message) in [(keys.sk_pi(), public), (keys.sk_pr(), &agreed.value)] {
        black_box(prf(SUITE.prf, key, &[message]));
    }
    let mut response = vec![9; HEADERS];
    sealer.seal(&mut SystemSource::default(), &mut response, black_box(&agreed.value)).unwrap();
    black_box(response);
    let secret = &agreed.secret;
    let keys = keys.derive_rekeyed(SUITE.prf, SUITE, secret, &NONCE, &NONCE, &[], SPI_I, SPI_R);
    black_box(Opener::new(SUITE.encryption, None, keys.sk_ei(), keys.sk_ai()).unwrap());
    let sealer = Sealer::new(SUITE.encryption, None, keys.sk_er(), keys.sk_ar()).unwrap();
    (keys, sealer)
}
