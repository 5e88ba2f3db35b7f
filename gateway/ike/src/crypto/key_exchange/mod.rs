//! Key exchange: a seam, since ring takes neither our randomness nor a given private key, and
//! without it no handshake could be replayed.
//!
//! The two roles differ: the initiator makes a key pair and waits, the responder answers at once.
//! For a key encapsulation mechanism such as ML-KEM they differ in what they compute too.

use core::fmt;

use ml_kem::{MlKem512, MlKem768, MlKem1024};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::algorithms::Group;

mod ecp521;
mod mlkem;
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
    /// The initiator's part: a fresh key pair for one exchange.
    ///
    /// # Errors
    /// [`KeyExchangeError::Unsupported`] and [`KeyExchangeError::RandomFailed`].
    fn generate(&self, group: Group) -> Result<Box<dyn PendingKeyExchange>, KeyExchangeError>;

    /// The responder's part: the answer to the initiator's KE payload data.
    ///
    /// # Errors
    /// Those of [`Self::generate`], and [`KeyExchangeError::InvalidPublicValue`].
    fn respond(&self, group: Group, initiator: &[u8]) -> Result<Agreed, KeyExchangeError>;
}

/// What a responder has of a key exchange. Debug prints no secret octet.
pub struct Agreed {
    /// What goes into the KE payload: [`Group::answer_len`] octets.
    pub value: Vec<u8>,
    /// The shared secret, as [`PendingKeyExchange::agree`] gives it to the initiator.
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agreed […]")
    }
}

/// An initiator's key pair that waits for the responder's value. It serves once.
pub trait PendingKeyExchange: Send {
    /// The method.
    fn group(&self) -> Group;

    /// Our public value as it stands in the KE payload: [`Group::public_len`] octets.
    fn public(&self) -> &[u8];

    /// The shared secret from the responder's KE payload data, as it enters SKEYSEED
    /// (RFC 7296 2.14).
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
            Group::EcpP521 => Ok(Box::new(ecp521::KeyPair::generate()?)),
            Group::Modp2048 => Ok(Box::new(modp::KeyPair::generate()?)),
            Group::MlKem512 => Ok(Box::new(mlkem::KeyPair::<MlKem512>::generate(group)?)),
            Group::MlKem768 => Ok(Box::new(mlkem::KeyPair::<MlKem768>::generate(group)?)),
            Group::MlKem1024 => Ok(Box::new(mlkem::KeyPair::<MlKem1024>::generate(group)?)),
        }
    }

    fn respond(&self, group: Group, initiator: &[u8]) -> Result<Agreed, KeyExchangeError> {
        match group {
            Group::X25519 | Group::EcpP256 | Group::EcpP384 | Group::EcpP521 | Group::Modp2048 => {
                // Diffie-Hellman is the same at both ends.
                let pair = self.generate(group)?;
                let value = pair.public().to_vec();
                Ok(Agreed { value, secret: pair.agree(initiator)? })
            }
            Group::MlKem512 => mlkem::encapsulate::<MlKem512>(initiator),
            Group::MlKem768 => mlkem::encapsulate::<MlKem768>(initiator),
            Group::MlKem1024 => mlkem::encapsulate::<MlKem1024>(initiator),
        }
    }
}

/// Octets from the operating system, wiped when they go.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyExchangeError> {
    let mut octets = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(octets.as_mut())
        .map_err(|ring::error::Unspecified| KeyExchangeError::RandomFailed)?;
    Ok(octets)
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
        let prefix: &[u8] = if self.group == Group::X25519 { &[] } else { &[UNCOMPRESSED] };
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
        Group::EcpP521 | Group::Modp2048 | Group::MlKem512 | Group::MlKem768 | Group::MlKem1024 => {
            Err(KeyExchangeError::Unsupported)
        }
    }
}
