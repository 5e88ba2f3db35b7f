//! Key exchange: a seam, since ring takes neither our randomness nor a given private key, and
//! without it no handshake could be replayed.

use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::algorithms::Group;

mod modp;
#[cfg(test)]
mod tests;

/// Why no shared secret came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyExchangeError {
    /// This source of key exchanges does not have the method.
    #[error("the key exchange method is not supported")]
    Unsupported,
    /// The peer's value has the wrong length, is not on the curve, or leads to a secret that
    /// everyone knows (RFC 6989 2, RFC 7748 6.1).
    #[error("the peer's public value is invalid")]
    InvalidPublicValue,
    /// The operating system gave no randomness.
    #[error("the system gave no random octets")]
    RandomFailed,
}

/// A source of ephemeral key pairs.
pub trait KeyExchange: Send + Sync {
    /// A fresh key pair for one exchange.
    ///
    /// # Errors
    /// [`KeyExchangeError::Unsupported`] and [`KeyExchangeError::RandomFailed`].
    fn generate(&self, group: Group) -> Result<Box<dyn PendingKeyExchange>, KeyExchangeError>;
}

/// A key pair that waits for the peer's value. It serves once.
pub trait PendingKeyExchange: Send {
    /// The method.
    fn group(&self) -> Group;

    /// Our public value as it stands in the KE payload: [`Group::public_len`] octets.
    fn public(&self) -> &[u8];

    /// The shared secret from the peer's KE payload data, as it enters SKEYSEED (RFC 7296 2.14).
    ///
    /// # Errors
    /// [`KeyExchangeError::InvalidPublicValue`].
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError>;
}

/// Key pairs from the operating system's randomness, for every method of [`Group::ALL`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemKeyExchange;

impl KeyExchange for SystemKeyExchange {
    fn generate(&self, group: Group) -> Result<Box<dyn PendingKeyExchange>, KeyExchangeError> {
        match group {
            Group::X25519 | Group::EcpP256 | Group::EcpP384 => {
                Ok(Box::new(Curve::generate(group)?))
            }
            Group::Modp2048 => Ok(Box::new(modp::KeyPair::generate()?)),
        }
    }
}

/// A key pair on one of ring's curves.
struct Curve {
    group: Group,
    private: EphemeralPrivateKey,
    public: agreement::PublicKey,
}

/// What SEC 1 puts before an uncompressed point, and RFC 5903 7 leaves out on the wire.
const UNCOMPRESSED: u8 = 4;

impl Curve {
    fn generate(group: Group) -> Result<Self, KeyExchangeError> {
        let algorithm = algorithm(group)?;
        let random_failed = |ring::error::Unspecified| KeyExchangeError::RandomFailed;
        let private = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new())
            .map_err(random_failed)?;
        let public = private.compute_public_key().map_err(random_failed)?;
        Ok(Self { group, private, public })
    }
}

impl PendingKeyExchange for Curve {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        let octets = self.public.as_ref();
        match (self.group, octets) {
            (Group::EcpP256 | Group::EcpP384, [UNCOMPRESSED, point @ ..]) => point,
            _ => octets,
        }
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        if peer.len() != self.group.public_len() {
            return Err(KeyExchangeError::InvalidPublicValue);
        }
        let prefix: &[u8] = match self.group {
            Group::EcpP256 | Group::EcpP384 => &[UNCOMPRESSED],
            Group::X25519 | Group::Modp2048 => &[],
        };
        // ring checks that the point is on the curve, and that X25519 does not give zero.
        let peer = UnparsedPublicKey::new(algorithm(self.group)?, [prefix, peer].concat());
        // RFC 5903 7, RFC 8031 2.1: the secret is the x coordinate alone, which is what ring gives.
        agreement::agree_ephemeral(self.private, &peer, |secret| Zeroizing::new(secret.to_vec()))
            .map_err(|ring::error::Unspecified| KeyExchangeError::InvalidPublicValue)
    }
}

const fn algorithm(group: Group) -> Result<&'static agreement::Algorithm, KeyExchangeError> {
    match group {
        Group::X25519 => Ok(&agreement::X25519),
        Group::EcpP256 => Ok(&agreement::ECDH_P256),
        Group::EcpP384 => Ok(&agreement::ECDH_P384),
        Group::Modp2048 => Err(KeyExchangeError::Unsupported),
    }
}
