//! Peers: where they are, who they are, and how either end proves who it is.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use ipnet::IpNet;
use zeroize::Zeroizing;

#[cfg(doc)]
use super::hard_limit;
use super::{EapAuthenticatorConfig, EapPeerConfig, PeerName};
use crate::algorithms::{IkeProposal, SignatureScheme};
use crate::crypto::signature::{PublicKey, SigningKey};
use crate::crypto::x509::{Credential, DistinguishedName, Trust};

/// Addresses that we assign to peers that ask (RFC 7296 2.19).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the policy files.
    pub name: Arc<str>,
    /// The prefixes that addresses are taken from; never empty.
    pub addresses: Vec<IpNet>,
    /// Name servers that the peer is told.
    pub dns: Vec<IpAddr>,
}

impl Pool {
    /// Whether an address is of one of the prefixes.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.contains(&address))
    }
}

/// One peer: where it is, who it is and how it proves that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name in the policy files, logs and status.
    pub name: PeerName,
    /// Our address towards it; `None`: the one the routing table chooses.
    pub local_address: Option<IpAddr>,
    /// Its address; `None`: any, so that only it can initiate.
    pub remote_address: Option<IpAddr>,
    /// Where else it may be, the likeliest address first: an IKE SA is begun with each in turn (RFC
    /// 4555 3.1). Empty without [`Self::remote_address`].
    pub other_addresses: Vec<IpAddr>,
    /// Who we say we are (IDi or IDr).
    pub local_id: Identity,
    /// Who it must prove to be.
    pub remote_id: Identity,
    /// How we prove who we are.
    pub local_auth: LocalAuth,
    /// How it must prove who it is.
    pub remote_auth: RemoteAuth,
    /// How either end may sign, best first; of use only where a method above is a signature.
    pub signature_schemes: Vec<SignatureScheme>,
    /// A further key against quantum computers.
    pub ppk: Option<Ppk>,
    /// IKE proposals, best first; never empty. Where an IKE SA must be quantum-safe, only such that
    /// are, unless a PPK is required.
    pub proposals: Vec<IkeProposal>,
    /// After this long without an inbound packet on any of its SAs the peer is asked whether it
    /// lives (RFC 7296 2.4); zero: never.
    pub liveness_interval: Duration,
    /// The IKE SA is replaced after this long, less a random part of a tenth; it dies at
    /// [`hard_limit`]. Zero: never.
    pub lifetime: Duration,
    /// How it is replaced.
    pub renewal: Renewal,
    /// Whether we begin without a first Child SA.
    pub childless: Childless,
    /// Whether MOBIKE (RFC 4555) is spoken if the peer does, so that either end may come to other
    /// addresses.
    pub mobike: bool,
    /// It must ask for addresses, and gets them from here; nothing but traffic of these passes.
    pub pool: Option<Arc<Pool>>,
    /// The families of which we ask it for an address, as initiator; without one there is no
    /// Child SA.
    pub request_address: Families,
}

/// Some of the two address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether it is neither.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }

    /// Whether an address's family is among them.
    #[must_use]
    pub const fn contain(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// How an IKE SA that has lived its time is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// By new keys, under the protection of the old (RFC 7296 1.3.2); either end may begin.
    Rekey,
    /// By another IKE SA for which both ends prove anew who they are (RFC 7296 2.8.3); the end
    /// that began the first begins it.
    Reauthenticate,
}

/// Whether IKE_AUTH makes the first Child SA, where we begin, or leaves it out (RFC 6023). Without it,
/// CREATE_CHILD_SA makes every Child SA, and each may have a key exchange of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Childless {
    /// It makes it. A peer that begins may leave it out.
    #[default]
    Never,
    /// It leaves it out if the peer can do that.
    Prefer,
    /// It leaves it out, whoever begins: a peer that cannot gets no IKE SA from us, and one that asks
    /// for a Child SA in IKE_AUTH gets none there.
    Require,
}

/// A post-quantum pre-shared key (RFC 8784): what is recorded today stays secret later, without
/// any new key exchange, as long as this key does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ppk {
    /// By which both ends call it; 1 to 255 octets.
    pub id: Vec<u8>,
    /// The key; 32 random octets at least, to be of use.
    pub key: Secret,
    /// Whether the IKE SA fails without it.
    pub required: bool,
}

impl PeerConfig {
    /// Whether either end signs.
    #[must_use]
    pub const fn uses_signatures(&self) -> bool {
        matches!(&self.local_auth, LocalAuth::Certificate(_) | LocalAuth::PublicKey(_))
            || matches!(&self.remote_auth, RemoteAuth::Certificate(_) | RemoteAuth::PublicKey(_))
    }

    /// Where it may be, the likeliest address first; nothing if that is anywhere.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.remote_address.into_iter().chain(self.other_addresses.iter().copied())
    }

    /// Whether it may be at this address.
    #[must_use]
    pub fn may_be_at(&self, address: IpAddr) -> bool {
        self.remote_address.is_none() || self.addresses().any(|known| known == address)
    }

    /// Whether EAP is all the authentication there is, whoever initiates (RFC 5998).
    #[must_use]
    pub const fn is_eap_alone(&self) -> bool {
        matches!((&self.local_auth, &self.remote_auth), (LocalAuth::Eap(_), RemoteAuth::Eap(_)))
    }

    /// Whether we can initiate: a responder cannot be asked by EAP, unless EAP is all.
    #[must_use]
    pub const fn may_initiate(&self) -> bool {
        self.is_eap_alone() || !matches!(&self.remote_auth, RemoteAuth::Eap(_))
    }

    /// Whether the peer may have any identity in IKE, because EAP says who it is.
    #[must_use]
    pub fn is_anybody(&self) -> bool {
        matches!(&self.remote_auth, RemoteAuth::Eap(eap) if eap.any_ike_identity)
    }

    /// Whether what was agreed by this configuration may stay under another: they differ at most
    /// in our certificate and in what is believed of the peer's, such as a new revocation list.
    #[must_use]
    pub fn may_become(&self, other: &Self) -> bool {
        let mut same = other.clone();
        let local = match (&self.local_auth, &other.local_auth) {
            (LocalAuth::Certificate(_), LocalAuth::Certificate(_)) => true,
            (LocalAuth::Eap(ours), LocalAuth::Eap(other)) => ours.may_become(other),
            _ => false,
        };
        let remote = match (&self.remote_auth, &other.remote_auth) {
            (RemoteAuth::Certificate(_), RemoteAuth::Certificate(_)) => true,
            (RemoteAuth::Eap(ours), RemoteAuth::Eap(other)) => ours.may_become(other),
            _ => false,
        };
        if local {
            same.local_auth = self.local_auth.clone();
        }
        if remote {
            same.remote_auth = self.remote_auth.clone();
        }
        *self == same
    }
}

/// How we prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAuth {
    /// By a key that both ends share.
    Psk(Secret),
    /// By the private key of a certificate.
    Certificate(Arc<Credential>),
    /// By a private key whose public half the peer knows (RFC 7670).
    PublicKey(Arc<SigningKey>),
    /// By EAP, as initiator.
    Eap(Arc<EapPeerConfig>),
}

/// How a peer must prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteAuth {
    /// By a key that both ends share.
    Psk(Secret),
    /// By the private key of a certificate that holds its identity.
    Certificate(Arc<Trust>),
    /// By the private half of this key (RFC 7670).
    PublicKey(Arc<PublicKey>),
    /// By EAP, as initiator.
    Eap(Arc<EapAuthenticatorConfig>),
}

impl LocalAuth {
    /// The word in policy files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Psk(_) => "psk",
            Self::Certificate(_) => "certificate",
            Self::PublicKey(_) => "public-key",
            Self::Eap(_) => "eap",
        }
    }
}

impl RemoteAuth {
    /// The word in policy files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Psk(_) => "psk",
            Self::Certificate(_) => "certificate",
            Self::PublicKey(_) => "public-key",
            Self::Eap(_) => "eap",
        }
    }
}

/// An identity as in the ID payloads (RFC 7296 3.5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN: a domain name, compared without regard to case.
    Fqdn(String),
    /// ID_RFC822_ADDR: an e-mail address.
    Email(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// ID_DER_ASN1_DN: a distinguished name.
    Dn(DistinguishedName),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Fqdn(s) | Self::Email(s) => write!(f, "{}", s.escape_default()),
            Self::Dn(name) => write!(f, "{}", name.to_string().escape_default()),
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
            }
        }
    }
}

/// Key material that is wiped when dropped and never printed. Equality is for the comparison of
/// two loads of the same file, not for authentication: it is not in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the octets.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([…])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new(b"hidden".to_vec())), "Secret([…])");
    }
}
