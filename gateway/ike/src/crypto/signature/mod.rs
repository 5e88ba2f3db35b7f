//! Signatures: keys, and how they sign and verify. Everything is ring's, except what ring lacks and is
//! RustCrypto's: P-521, and SHA2-512 on the other curves.

pub mod identifier;
mod p521;
mod private;
mod public;
mod sha512;

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;

use core::fmt;

pub(super) use self::p521::CERTIFICATE_SIGNATURES as P521_CERTIFICATE_SIGNATURES;
pub use self::private::{SigningFailed, SigningKey};
pub use self::public::{BadSignature, PublicKey};

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with the length of the modulus in bits.
    Rsa(usize),
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// Why octets are no key that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is encrypted.
    #[error("the key is encrypted: `openssl pkcs8 -topk8 -nocrypt` decrypts it")]
    Encrypted,
    /// A private key in another container.
    #[error("the key is not PKCS#8 but {0}: `openssl pkcs8 -topk8 -nocrypt` converts it")]
    NotPkcs8(String),
    /// There is no PEM block of the wanted kind.
    #[error("there is no PEM block \"{0}\"")]
    NoPem(&'static str),
    /// It does not decode.
    #[error("the key is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm or curve that we do not have.
    #[error(
        "the key is of a kind that is not supported: {0}; supported are RSA from 2048 bits, ECDSA on P-256, P-384 and P-521, and Ed25519"
    )]
    Unsupported(String),
}
