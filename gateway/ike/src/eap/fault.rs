//! Why a conversation failed, in words for our own log. The other end hears only EAP-Failure.

use crate::crypto::x509::CertificateFault;

/// Why EAP did not authenticate the peer. No text holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The user database does not have the name.
    #[error("no [user] has this name")]
    UnknownUser,
    /// The user is known, the password is another one.
    #[error("wrong password")]
    WrongPassword,
    /// The peer named itself otherwise inside the method than before.
    #[error("the peer calls itself {inner} inside the method and {outer} outside")]
    OtherName {
        /// Inside.
        inner: String,
        /// Outside.
        outer: String,
    },
    /// The peer refused each of our methods.
    #[error("no common method: ours {ours}; the peer names {theirs} (see `eap-methods`)")]
    NoCommonMethod {
        /// What we may ask for.
        ours: String,
        /// What the peer's Nak names.
        theirs: String,
    },
    /// The authenticator proposed only what we do not have, and gave up.
    #[error("the authenticator wants {theirs}, which `eap-methods` does not have ({ours})")]
    MethodNotAcceptable {
        /// What it proposed last.
        theirs: String,
        /// What we would have accepted.
        ours: String,
    },
    /// More messages than are allowed.
    #[error("no end after {0} messages")]
    TooManyRounds(u32),
    /// A message in pieces is longer than is allowed.
    #[error("a message of more than {0} octets")]
    TooLong(usize),
    /// The other end's certificate is not to be believed.
    #[error("certificate: {0}")]
    Certificate(Box<CertificateFault>),
    /// TLS fails, for another reason.
    #[error("TLS: {0}")]
    Tls(String),
    /// The other end breaks TLS off.
    #[error("the other end breaks TLS off: alert {0}")]
    TlsAlert(String),
    /// A message breaks the rules of EAP or of the method.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A message that has no place at this point.
    #[error("unexpected message: {0}")]
    Unexpected(&'static str),
    /// The authenticator does not know our password: it is not the one we mean.
    #[error("the authenticator does not prove that it knows the password")]
    UnprovenAuthenticator,
    /// The other end says no.
    #[error("the other end refuses: {0}")]
    Refused(String),
    /// The peer answered nothing to its name.
    #[error("the peer gives no usable identity")]
    NoIdentity,
    /// Our own password cannot be used with the method.
    #[error("the password is no UTF-8 text of at most 256 characters, which the method demands")]
    UnusablePassword,
    /// Something that we need is not configured.
    #[error("not configured: {0}")]
    NotConfigured(&'static str),
    /// The system gave no randomness.
    #[error("no randomness")]
    NoRandomness,
}

impl Fault {
    /// Whether it is our limit of messages, or of their length, that ended it.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(self, Self::TooManyRounds(_) | Self::TooLong(_))
    }
}

impl From<crate::random::RandomFailed> for Fault {
    fn from(crate::random::RandomFailed: crate::random::RandomFailed) -> Self {
        Self::NoRandomness
    }
}
