//! Signatures by the methods before RFC 7427 (RFC 7296 3.8, RFC 4754), for peers that know no other.

use gateway_ike::algorithms::SignatureScheme;
use gateway_ike::config::{LocalAuth, RemoteAuth};
use gateway_ike::crypto::signature::SigningKey;
use gateway_ike::error::{AuthenticationFault, Error};
use gateway_ike::event::EventKind;
use gateway_wire::AuthMethod;

use super::auth::{auth_of, nonce_of, with_auth};
use super::*;

/// A kind of key, with the method that it had before RFC 7427.
struct Older {
    pem: &'static [u8],
    method: AuthMethod,
    scheme: SignatureScheme,
    /// Octets of a signature: that of RSA is as long as the modulus, those of ECDSA are two numbers
    /// of the length of the order (RFC 4754 7).
    length: usize,
}

const OLDER: [Older; 4] = [
    Older {
        pem: include_bytes!("../keys/rsa-2048.pem"),
        method: AuthMethod(1),
        scheme: SignatureScheme::RsaPkcs1Sha256,
        length: 256,
    },
    Older {
        pem: include_bytes!("../keys/p256.pem"),
        method: AuthMethod(9),
        scheme: SignatureScheme::EcdsaSha256,
        length: 64,
    },
    Older {
        pem: include_bytes!("../keys/p384.pem"),
        method: AuthMethod(10),
        scheme: SignatureScheme::EcdsaSha384,
        length: 96,
    },
    Older {
        pem: include_bytes!("../keys/p521.pem"),
        method: AuthMethod(11),
        scheme: SignatureScheme::EcdsaSha512,
        length: 132,
    },
];

impl Older {
    fn key(&self) -> SigningKey {
        SigningKey::from_pem(self.pem).unwrap()
    }

    /// Both ends show this key, as a raw public one.
    fn policies(&self) -> [PolicySet; 2] {
        let signing = |policies| {
            with_peer(policies, |p| {
                p.remote_auth = RemoteAuth::PublicKey(Arc::new(self.key().public().clone()));
                p.local_auth = LocalAuth::PublicKey(Arc::new(self.key()));
            })
        };
        [signing(policies_of_a()), signing(policies_of_b())]
    }
}

fn lists_hashes(datagram: &[u8]) -> bool {
    let message = Message::decode(datagram).unwrap();
    message.payloads.iter().any(is_hash_list)
}

fn is_hash_list(payload: &Payload<'_>) -> bool {
    matches!(payload, Payload::Notify(n) if n.kind == NotifyType::SIGNATURE_HASH_ALGORITHMS)
}

/// A's first message as an implementation before RFC 7427 sends it, and B's answer to that; `a`
/// sends IKE_AUTH.
fn begun_as_of_old(a: PolicySet, b: PolicySet) -> (Simulation, [Vec<u8>; 4]) {
    let (mut simulation, init) = begun(a, b);
    let heard = rewritten(&init, |payloads| payloads.retain(|p| !is_hash_list(p)));
    let answer = only(deliver(&mut simulation, 1, &heard));
    let auth = only(deliver(&mut simulation, 0, &answer));
    (simulation, [init, heard, answer, auth])
}

fn scheme_at(simulation: &Simulation, node: usize) -> Option<SignatureScheme> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    status.ike_sas[0].remote_auth.as_ref()?.scheme
}

/// Makes AUTH of what it has to cover, or of the octets of what B has not heard.
type Make<'a> = &'a dyn Fn(&[u8], &[u8]) -> (AuthMethod, Vec<u8>);

fn fault_at(simulation: &Simulation, node: usize) -> Option<AuthenticationFault> {
    simulation.nodes[node].events.iter().find_map(|e| match &e.kind {
        EventKind::Failed(Error::Authentication(fault)) => Some(fault.clone()),
        _ => None,
    })
}

#[test]
fn the_older_methods_of_signing_serve_a_peer_that_knows_no_other_in_both_roles() {
    for older in OLDER {
        let [a, b] = older.policies();
        let (mut simulation, [init, heard, answer, auth]) = begun_as_of_old(a, b);
        assert!(lists_hashes(&init) && !lists_hashes(&answer), "who has not asked is not told");
        let key = older.key();
        let covers = |sender: usize, simulation: &Simulation, datagram: &[u8], first, nonce| {
            let forge = forge(simulation, sender);
            let (method, data, id) = auth_of(&forge, datagram);
            assert_eq!((method, data.len()), (older.method, older.length));
            let octets = forge.signed_octets(first, nonce, &id);
            assert_eq!(key.public().verify_old(method, &octets, &data), Ok(older.scheme));
        };
        // A has not been told of hashes, and signs as of old what it has sent.
        let (ni, nr) = (nonce_of(&init), nonce_of(&answer));
        covers(0, &simulation, &auth, &init, &nr);
        // So does the implementation that B has heard.
        let sign = |octets: &[u8]| key.sign_old(octets).unwrap();
        let auth = with_auth(&simulation, 0, &auth, (&heard, &nr), sign);
        let reply = only(deliver(&mut simulation, 1, &auth));
        assert_eq!(scheme_at(&simulation, 1), Some(older.scheme));
        covers(1, &simulation, &reply, &answer, &ni);
        deliver(&mut simulation, 0, &reply);
        assert_eq!(scheme_at(&simulation, 0), Some(older.scheme));
        assert!(simulation.has_one_child_each().unwrap(), "{}", older.scheme);
    }
}

#[test]
fn a_signature_of_an_older_method_that_is_not_right_is_refused() {
    for older in OLDER {
        let key = older.key();
        let refused = |make: Make<'_>| {
            let [a, b] = older.policies();
            let (mut simulation, [init, heard, answer, auth]) = begun_as_of_old(a, b);
            let nr = nonce_of(&answer);
            // What would be signed if B did not go by what it has heard itself.
            let forge = forge(&simulation, 0);
            let (_, _, id) = auth_of(&forge, &auth);
            let unheard = forge.signed_octets(&init, &nr, &id);
            let make = |octets: &[u8]| make(octets, &unheard);
            let auth = with_auth(&simulation, 0, &auth, (&heard, &nr), make);
            let reply = forge.open(&only(deliver(&mut simulation, 1, &auth))).unwrap();
            let expected = [notification(NotifyType::AUTHENTICATION_FAILED, &[])];
            assert_eq!(reply.payloads().unwrap(), expected, "{}", older.scheme);
            assert_eq!(children(&simulation, 1), 0);
            fault_at(&simulation, 1).unwrap()
        };
        let wrong = |fault: &AuthenticationFault| {
            assert!(matches!(fault, AuthenticationFault::WrongSignature(_)), "{fault}");
        };
        wrong(&refused(&|octets, _| {
            let (method, mut data) = key.sign_old(octets).unwrap();
            *data.last_mut().unwrap() ^= 1;
            (method, data)
        }));
        wrong(&refused(&|_, unheard| key.sign_old(unheard).unwrap()));
        // The method of another kind of key.
        let other = if older.method == AuthMethod(9) { AuthMethod(10) } else { AuthMethod(9) };
        let fault = refused(&|octets, _| (other, key.sign_old(octets).unwrap().1));
        assert!(matches!(fault, AuthenticationFault::SchemeOfOtherKey { .. }), "{fault}");
        // RFC 7427 3: the new method is for those that have both said that they know it.
        let fault = refused(&|octets, _| (AuthMethod(14), digital(&key, older.scheme, octets)));
        assert!(matches!(fault, AuthenticationFault::Method { .. }), "{fault}");
    }
}

/// The data of AUTH by RFC 7427.
fn digital(key: &SigningKey, scheme: SignatureScheme, octets: &[u8]) -> Vec<u8> {
    let signature = key.sign(scheme, octets).unwrap();
    let algorithm_identifier = gateway_ike::crypto::signature::identifier::of_scheme(scheme);
    let data =
        gateway_wire::SignatureAuthentication { algorithm_identifier, signature: &signature };
    data.encode().unwrap()
}

/// RFC 7427 3: where both have said that they know it, nothing else is used.
#[test]
fn who_has_said_that_it_knows_rfc_7427_is_not_believed_by_an_older_method() {
    for older in OLDER {
        let key = older.key();
        let begun = || {
            let [a, b] = older.policies();
            let (mut simulation, init) = begun(a, b);
            let answer = only(deliver(&mut simulation, 1, &init));
            assert!(lists_hashes(&init) && lists_hashes(&answer));
            let auth = only(deliver(&mut simulation, 0, &answer));
            (simulation, init, answer, auth)
        };
        // It is the method that is wrong, and not the octets: by the new one they are right.
        for (method, taken) in [(older.method, false), (AuthMethod(14), true)] {
            let make = |octets: &[u8]| match taken {
                true => (method, digital(&key, older.scheme, octets)),
                false => key.sign_old(octets).unwrap(),
            };
            let old = (!taken).then_some(AuthenticationFault::OldMethod(method));
            // To the responder.
            let (mut simulation, _, answer, auth) = begun();
            let init = simulation.nodes[0].sent[0].1.clone();
            let auth = with_auth(&simulation, 0, &auth, (&init, &nonce_of(&answer)), make);
            deliver(&mut simulation, 1, &auth);
            assert_eq!(fault_at(&simulation, 1), old);
            assert_eq!(children(&simulation, 1), usize::from(taken));
            // To the initiator.
            let (mut simulation, init, answer, auth) = begun();
            let reply = only(deliver(&mut simulation, 1, &auth));
            let reply = with_auth(&simulation, 1, &reply, (&answer, &nonce_of(&init)), make);
            deliver(&mut simulation, 0, &reply);
            assert_eq!(fault_at(&simulation, 0), old);
            assert_eq!(children(&simulation, 0), usize::from(taken));
        }
    }
}
