//! How the two ends of a seed prove who they are.

use std::sync::{Arc, OnceLock};

use gateway_ike::algorithms::SignatureScheme;
use gateway_ike::config::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, Identity, LocalAuth, PeerConfig,
    RemoteAuth, Secret, User, Users,
};
use gateway_ike::crypto::signature::{KeyKind, SigningKey};
use gateway_ike::crypto::x509::{Credential, Revocation, Trust};
use gateway_ike::testing::{Choices, NodeId};

use crate::certificates::{Authority, CERTIFIABLE, Subject, key, lists, trust};

/// How the two ends prove who they are. All but TLS and ECDSA draws its randomness from the seed; of
/// those the contents differ from run to run, and with ECDSA the lengths do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Psk,
    /// A by a key that both share, B by a certificate.
    Mixed,
    /// By certificates of such keys, which a revocation list must cover. RSA keys make signatures
    /// that are the same each time.
    Certificates(KeyKind),
    /// By such keys that the other end knows (RFC 7670).
    PublicKeys(KeyKind),
    /// A by EAP, B by a key that both share.
    Eap(EapMethod),
    /// Both by EAP-TLS and nothing else (RFC 5998).
    EapAlone,
}

impl Proof {
    /// What takes long is seldom.
    pub(crate) fn draw(random: &mut impl Choices) -> Self {
        match random.below(100) {
            0..50 => Self::Psk,
            50..60 => Self::Certificates(KeyKind::Ed25519),
            60..63 => Self::Certificates(KeyKind::P256),
            63..65 => Self::Certificates(KeyKind::P384),
            65..69 => Self::PublicKeys(KeyKind::Ed25519),
            69..70 => Self::PublicKeys(KeyKind::P521),
            70..75 => Self::Mixed,
            75..78 => Self::Certificates(KeyKind::Rsa(2048)),
            78..90 => Self::Eap(EapMethod::MsChapV2),
            90..95 => Self::Eap(EapMethod::Md5),
            95..98 => Self::Eap(EapMethod::Tls),
            _ => Self::EapAlone,
        }
    }

    /// Whether B may be the one that begins: it cannot ask by EAP who answers, unless EAP is all.
    pub(crate) const fn b_may_begin(self) -> bool {
        !matches!(self, Self::Eap(_))
    }

    /// Whether all octets follow from the seed.
    pub(crate) const fn is_replayed_to_the_octet(self) -> bool {
        !matches!(self, Self::Eap(EapMethod::Tls) | Self::EapAlone) && self.has_lengths_of_seed()
    }

    /// Whether the length of each datagram does.
    pub(crate) const fn has_lengths_of_seed(self) -> bool {
        !matches!(self, Self::Certificates(KeyKind::P256 | KeyKind::P384))
    }

    /// The users that an end knows; those with certificates need not be known.
    pub(crate) fn users(self, node: NodeId) -> Users {
        let by_password = matches!(self, Self::Eap(EapMethod::MsChapV2 | EapMethod::Md5));
        let user = User { name: "a.test".into(), password: password() };
        let users = (by_password && node == 1).then(|| ("a.test".into(), Arc::new(user)));
        users.into_iter().collect()
    }

    /// Has a peer of this end authenticate so; with other certificates than before if they are
    /// `renewed`.
    pub(crate) fn apply(self, peer: &mut PeerConfig, node: NodeId, renewed: bool) {
        let ours = |of: &Certified| Arc::clone(&of.credentials[usize::from(renewed)][node]);
        let theirs = |of: &Certified| Arc::clone(&of.trust);
        let certified = |kind| (LocalAuth::Certificate(ours(of(kind))), theirs(of(kind)));
        match self {
            Self::Psk => {}
            Self::Mixed if node == 0 => {
                peer.remote_auth = RemoteAuth::Certificate(theirs(of(KeyKind::Ed25519)));
            }
            Self::Mixed => peer.local_auth = certified(KeyKind::Ed25519).0,
            Self::Certificates(kind) => {
                if matches!(kind, KeyKind::Rsa(_)) {
                    peer.signature_schemes = vec![SignatureScheme::RsaPkcs1Sha256];
                }
                let (ours, trust) = certified(kind);
                (peer.local_auth, peer.remote_auth) = (ours, RemoteAuth::Certificate(trust));
            }
            Self::PublicKeys(kind) => {
                let key = SigningKey::from_pem(key(kind)).unwrap();
                peer.remote_auth = RemoteAuth::PublicKey(Arc::new(key.public().clone()));
                peer.local_auth = LocalAuth::PublicKey(Arc::new(key));
            }
            Self::Eap(_) | Self::EapAlone => {
                let tls = || {
                    let of = of(KeyKind::Ed25519);
                    EapTls { credential: ours(of), trust: theirs(of) }
                };
                let (method, alone) = if let Self::Eap(method) = self {
                    (method, false)
                } else {
                    (EapMethod::Tls, true)
                };
                let tls = (method == EapMethod::Tls).then(tls);
                if node == 0 || alone {
                    peer.local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
                        identity: ["a.test", "b.test"][node].to_owned(),
                        methods: vec![method],
                        password: tls.is_none().then(password),
                        tls: tls.clone(),
                        authenticator: Identity::Fqdn(["b.test", "a.test"][node].to_owned()),
                    }));
                }
                if node == 1 || alone {
                    peer.remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
                        methods: vec![method],
                        tls,
                        ask_identity: method == EapMethod::MsChapV2,
                        any_ike_identity: false,
                    }));
                }
            }
        }
    }
}

fn password() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

/// Certificates of A and B, the first and the renewed ones, and trust in who issued them.
struct Certified {
    credentials: [[Arc<Credential>; 2]; 2],
    trust: Arc<Trust>,
}

/// Those of a kind of key, issued once.
fn of(kind: KeyKind) -> &'static Certified {
    static ISSUED: [OnceLock<Certified>; CERTIFIABLE.len()] =
        [const { OnceLock::new() }; CERTIFIABLE.len()];
    let nth = CERTIFIABLE.iter().position(|certifiable| *certifiable == kind).unwrap();
    ISSUED[nth].get_or_init(|| {
        // A key by which the certificates are the same each time.
        let root = Authority::with_key("Root", KeyKind::Ed25519);
        let credential = |serial, name| {
            let subject = Subject { serial, ..Subject::new(name, kind) };
            let key = SigningKey::from_pem(key(subject.key)).unwrap();
            Arc::new(Credential::new(root.issue(&subject), key).unwrap())
        };
        let both = |serial| ["a.test", "b.test"].map(|name| credential(serial, name));
        let revocation = Revocation::Strict;
        let trust = Trust { revocation, lists: lists(&[root.revoke(&[9], 10)]), ..trust(&root) };
        Certified { credentials: [both(7), both(8)], trust: Arc::new(trust) }
    })
}
