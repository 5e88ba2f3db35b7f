//! What the operator says about EAP.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_wire::EapType;

use crate::config::{Identity, Secret};
use crate::crypto::x509::{Credential, Trust};

/// The name of a user in the policy files.
pub type UserName = Arc<str>;

/// The users who may prove by EAP who they are, by name.
pub type Users = BTreeMap<UserName, Arc<User>>;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The EAP identity, octet for octet; a Windows domain before it is not looked at.
    pub name: UserName,
    /// What the user knows.
    pub password: Secret,
}

/// An EAP method that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EapMethod {
    /// EAP-TLS: certificates at both ends.
    Tls,
    /// EAP-MSCHAPv2: a password; both ends prove that they know it.
    MsChapV2,
    /// EAP-MD5: a password; only the peer proves that it knows it.
    Md5,
}

impl EapMethod {
    /// All of them, best first.
    pub const ALL: &[Self] = &[Self::Tls, Self::MsChapV2, Self::Md5];

    /// Whether it may stand alone (RFC 5998 4): it authenticates both ends, leaves a key, and
    /// gives away nothing from which a password could be found.
    #[must_use]
    pub const fn may_stand_alone(self) -> bool {
        match self {
            Self::Tls => true,
            Self::MsChapV2 | Self::Md5 => false,
        }
    }

    /// Its number (RFC 3748 5).
    #[must_use]
    pub const fn kind(self) -> EapType {
        match self {
            Self::Tls => EapType::TLS,
            Self::MsChapV2 => EapType::MSCHAP_V2,
            Self::Md5 => EapType::MD5_CHALLENGE,
        }
    }
}

impl fmt::Display for EapMethod {
    /// As in the policy files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::MsChapV2 => "mschapv2",
            Self::Md5 => "md5",
        })
    }
}

/// What EAP-TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EapTls {
    /// Our certificate and key.
    pub credential: Arc<Credential>,
    /// What the other end's certificate needs in order to be believed.
    pub trust: Arc<Trust>,
}

/// How we prove to an authenticator who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EapPeerConfig {
    /// Who we are; the name in the authenticator's user database.
    pub identity: String,
    /// What we accept, best first; never empty.
    pub methods: Vec<EapMethod>,
    /// What we know.
    pub password: Option<Secret>,
    /// What we show, and whom we believe.
    pub tls: Option<EapTls>,
    /// Whom the certificate of the authenticator has to name: the peer's identity in IKE.
    pub authenticator: Identity,
}

impl EapPeerConfig {
    /// Whether another one differs at most in certificates, and in what is believed of them.
    pub(crate) fn may_become(&self, other: &Self) -> bool {
        let same = Self { tls: other.tls.clone(), ..self.clone() };
        self.tls.is_some() == other.tls.is_some() && same == *other
    }
}

/// How we find out who a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EapAuthenticatorConfig {
    /// What we ask for, in this order; never empty.
    pub methods: Vec<EapMethod>,
    /// What we show, and whom we believe.
    pub tls: Option<EapTls>,
    /// Whether the peer is asked for its name; if not, its IKE identity is the name
    /// (RFC 7296 3.16).
    pub ask_identity: bool,
    /// Whether the peer may have any IKE identity: then one configuration serves many users.
    pub any_ike_identity: bool,
}

impl EapAuthenticatorConfig {
    /// Whether another one differs at most in certificates, and in what is believed of them.
    pub(crate) fn may_become(&self, other: &Self) -> bool {
        let same = Self { tls: other.tls.clone(), ..self.clone() };
        self.tls.is_some() == other.tls.is_some() && same == *other
    }
}
