//! Why a certificate is not believed.

use super::{Date, DistinguishedName};
use crate::crypto::signature::KeyError;

/// Why a certificate, or the chain to a trust anchor, is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The peer sent none.
    #[error("the peer sent no X.509 certificate")]
    Absent,
    /// The peer sent the address of one (RFC 7296 3.6), which we never ask for.
    #[error(
        "the peer sent no X.509 certificate, but an address from which to fetch one (hash and URL), which is not done"
    )]
    ByUrl,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Malformed(String),
    /// Its key is of no use to us.
    #[error("of {subject}: {error}")]
    Key {
        /// Whose.
        subject: DistinguishedName,
        /// What is wrong with it.
        error: KeyError,
    },
    /// More certificates than are allowed.
    #[error("the peer sent {found} certificates, `certificate-chain-limit` is {limit}")]
    TooMany {
        /// How many there were.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A certificate is larger than allowed.
    #[error("a certificate of the peer has {found} octets, `certificate-size-limit` is {limit}")]
    TooLarge {
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The driver has not said what time it is.
    #[error("the time of day is not known, so its validity cannot be judged")]
    NoTime,
    /// It has expired.
    #[error("{subject} expired on {since}")]
    Expired {
        /// Whose.
        subject: String,
        /// When.
        since: Date,
    },
    /// It is not valid yet.
    #[error("{subject} is not valid before {from}: is the clock right?")]
    NotYetValid {
        /// Whose.
        subject: String,
        /// From when on it is.
        from: Date,
    },
    /// Nobody whom we trust has issued it.
    #[error(
        "no chain leads from {subject}, issued by {issuer}, to one of the authorities in `ca`: {anchors}"
    )]
    NoChain {
        /// Whose.
        subject: DistinguishedName,
        /// Who issued it.
        issuer: DistinguishedName,
        /// Whom we trust.
        anchors: String,
    },
    /// A revocation list names it, or one of the chain.
    #[error("{0}, or an authority above it, has been revoked")]
    Revoked(DistinguishedName),
    /// No revocation list covers it, or one of the chain, though the policy demands one.
    #[error(
        "no current revocation list in `crl` covers {0} and the authorities above it, and `revocation` is \"strict\""
    )]
    RevocationUnknown(DistinguishedName),
    /// Neither a revocation list nor an OCSP response covers one of the chain, though the policy
    /// demands that.
    #[error(
        "no current revocation list in `crl` and no good response in `ocsp` covers {subject} ({reason}), and `revocation` is \"strict\""
    )]
    StatusUnknown {
        /// Whose.
        subject: String,
        /// What is wrong with the responses.
        reason: String,
    },
    /// A revocation list is older than it says it may become.
    #[error(
        "the revocation list for {subject} should have been replaced by {since}, and `revocation` is \"strict\""
    )]
    RevocationListExpired {
        /// Whose certificate it was asked about.
        subject: DistinguishedName,
        /// By when there should be a new one.
        since: Date,
    },
    /// It is for other purposes.
    #[error("{subject} may not be used for IKE: {reason}")]
    Usage {
        /// Whose.
        subject: DistinguishedName,
        /// What it may be used for.
        reason: String,
    },
    /// The name constraints of an authority exclude it.
    #[error("the name constraints of an authority exclude {0}")]
    NameConstraints(DistinguishedName),
    /// It does not hold the identity.
    #[error("{subject} does not hold the identity {identity}; it holds {found}")]
    Identity {
        /// Whose.
        subject: DistinguishedName,
        /// The identity of the peer.
        identity: String,
        /// The identities in it.
        found: String,
    },
    /// It, or one of the chain, is signed in a way that is not accepted, such as with SHA-1.
    #[error(
        "{subject}, or an authority above it, is certified with {algorithm}, which is not accepted for such a key"
    )]
    Algorithm {
        /// Whose.
        subject: DistinguishedName,
        /// The signature algorithm.
        algorithm: String,
    },
    /// The signature of an authority on it, or on one of the chain, is wrong.
    #[error("the signature on the certificate of {0}, or of an authority above it, is wrong")]
    WrongSignature(DistinguishedName),
    /// Anything else that validation found.
    #[error("{subject}: {reason}")]
    Other {
        /// Whose.
        subject: DistinguishedName,
        /// What validation says.
        reason: String,
    },
}
