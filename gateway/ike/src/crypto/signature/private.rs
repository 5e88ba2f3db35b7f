//! Private keys, and what they sign.

use core::fmt;

use ::p521::ecdsa::signature::Signer as _;
use ::p521::pkcs8::DecodePrivateKey as _;
use gateway_wire::AuthMethod;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _};
use x509_cert::der::pem;
use zeroize::Zeroizing;

use super::{KeyError, KeyKind, PublicKey};
use crate::algorithms::SignatureScheme;

/// The label of a PKCS#8 key in PEM.
const LABEL: &str = "PRIVATE KEY";

/// The key cannot sign so, or the system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key does not sign")]
pub struct SigningFailed;

/// A private key. Two are equal when their public keys are; Debug prints no secret.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaPairs>),
    P521(Box<::p521::ecdsa::SigningKey>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// ring binds the form of the signature to the key.
struct EcdsaPairs {
    /// As in RFC 7427.
    asn1: EcdsaKeyPair,
    /// As in RFC 4754.
    fixed: EcdsaKeyPair,
}

impl SigningKey {
    /// Reads a PEM file with a PKCS#8 key (RFC 5958).
    ///
    /// # Errors
    /// There is none, or see [`Self::from_pkcs8`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        match pem::decode_vec(text) {
            Ok((LABEL, der)) => Self::from_pkcs8(&Zeroizing::new(der)),
            Ok(("ENCRYPTED PRIVATE KEY", _)) => Err(KeyError::Encrypted),
            Ok((label, der)) => {
                drop(Zeroizing::new(der));
                if label.ends_with(LABEL) {
                    return Err(KeyError::NotPkcs8(format!("\"{label}\"")));
                }
                Err(KeyError::NoPem(LABEL))
            }
            Err(_) => Err(KeyError::NoPem(LABEL)),
        }
    }

    /// Reads the DER of a PKCS#8 key.
    ///
    /// # Errors
    /// It does not decode, its halves do not match, or it is of a kind that we do not have.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            let bits = pair.public().modulus_len().saturating_mul(8);
            let public = PublicKey::from_parts(KeyKind::Rsa(bits), pair.public_key().as_ref())?;
            return Ok(Self { pair: Pair::Rsa(Box::new(pair)), public });
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = PublicKey::from_parts(KeyKind::Ed25519, pair.public_key().as_ref())?;
            return Ok(Self { pair: Pair::Ed25519(Box::new(pair)), public });
        }
        let curves = [
            (
                KeyKind::P256,
                &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            (
                KeyKind::P384,
                &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        ];
        for (kind, asn1, fixed) in curves {
            if let (Ok(asn1), Ok(fixed)) = (ecdsa(asn1, der), ecdsa(fixed, der)) {
                let public = PublicKey::from_parts(kind, asn1.public_key().as_ref())?;
                return Ok(Self {
                    pair: Pair::Ecdsa(Box::new(EcdsaPairs { asn1, fixed })),
                    public,
                });
            }
        }
        if let Ok(key) = ::p521::ecdsa::SigningKey::from_pkcs8_der(der) {
            let point = key.verifying_key().to_sec1_point(false);
            let public = PublicKey::from_parts(KeyKind::P521, point.as_bytes())?;
            return Ok(Self { pair: Pair::P521(Box::new(key)), public });
        }
        Err(KeyError::Unsupported("an unknown or damaged PKCS#8 key".to_owned()))
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The schemes by which it can sign.
    #[must_use]
    pub const fn schemes(&self) -> &'static [SignatureScheme] {
        match self.public.kind() {
            KeyKind::Rsa(_) => &[
                SignatureScheme::RsaPssSha256,
                SignatureScheme::RsaPssSha384,
                SignatureScheme::RsaPssSha512,
                SignatureScheme::RsaPkcs1Sha256,
                SignatureScheme::RsaPkcs1Sha384,
                SignatureScheme::RsaPkcs1Sha512,
            ],
            KeyKind::P256 => &[SignatureScheme::EcdsaSha256],
            KeyKind::P384 => &[SignatureScheme::EcdsaSha384],
            KeyKind::P521 => &[SignatureScheme::EcdsaSha512],
            KeyKind::Ed25519 => &[SignatureScheme::Ed25519],
        }
    }

    /// Signs for a peer that knows RFC 7427.
    ///
    /// # Errors
    /// The scheme is not one of [`Self::schemes`], or there is no randomness.
    pub fn sign(&self, scheme: SignatureScheme, octets: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        if !self.schemes().contains(&scheme) {
            return Err(SigningFailed);
        }
        match &self.pair {
            Pair::Rsa(pair) => sign_rsa(pair, scheme, octets),
            Pair::Ecdsa(pairs) => sign_ecdsa(&pairs.asn1, octets),
            Pair::P521(key) => {
                let signature: ::p521::ecdsa::DerSignature =
                    key.try_sign(octets).map_err(|_fault| SigningFailed)?;
                Ok(signature.as_bytes().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(octets).as_ref().to_vec()),
        }
    }

    /// The scheme of [`SigningKey::sign_old`]; Ed25519 has none.
    #[must_use]
    pub const fn old_scheme(&self) -> Option<SignatureScheme> {
        match self.public.kind() {
            KeyKind::Rsa(_) => Some(SignatureScheme::RsaPkcs1Sha256),
            KeyKind::P256 => Some(SignatureScheme::EcdsaSha256),
            KeyKind::P384 => Some(SignatureScheme::EcdsaSha384),
            KeyKind::P521 => Some(SignatureScheme::EcdsaSha512),
            KeyKind::Ed25519 => None,
        }
    }

    /// Signs for a peer that does not: gives the method and the signature. RSA signs with
    /// SHA2-256, which the signature itself names (RFC 7296 3.8); a peer that takes SHA-1 only, its
    /// default there, needs a key for ECDSA. Ed25519 has no such method.
    ///
    /// # Errors
    /// There is no method for such keys, or no randomness.
    pub fn sign_old(&self, octets: &[u8]) -> Result<(AuthMethod, Vec<u8>), SigningFailed> {
        let (method, signature) = match &self.pair {
            Pair::Rsa(pair) => {
                (AuthMethod::RSA, sign_rsa(pair, SignatureScheme::RsaPkcs1Sha256, octets)?)
            }
            Pair::Ecdsa(pairs) => {
                let method = if self.public.kind() == KeyKind::P256 {
                    AuthMethod::ECDSA_SHA256_P256
                } else {
                    AuthMethod::ECDSA_SHA384_P384
                };
                (method, sign_ecdsa(&pairs.fixed, octets)?)
            }
            Pair::P521(key) => {
                let signature: ::p521::ecdsa::Signature =
                    key.try_sign(octets).map_err(|_fault| SigningFailed)?;
                (AuthMethod::ECDSA_SHA512_P521, signature.to_bytes().to_vec())
            }
            Pair::Ed25519(_) => return Err(SigningFailed),
        };
        Ok((method, signature))
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, […])", self.public.kind())
    }
}

fn ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    der: &[u8],
) -> Result<EcdsaKeyPair, ring::error::KeyRejected> {
    EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new())
}

fn sign_ecdsa(pair: &EcdsaKeyPair, octets: &[u8]) -> Result<Vec<u8>, SigningFailed> {
    pair.sign(&SystemRandom::new(), octets)
        .map(|signature| signature.as_ref().to_vec())
        .map_err(|ring::error::Unspecified| SigningFailed)
}

fn sign_rsa(
    pair: &RsaKeyPair,
    scheme: SignatureScheme,
    octets: &[u8],
) -> Result<Vec<u8>, SigningFailed> {
    let padding: &'static dyn signature::RsaEncoding = match scheme {
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
        SignatureScheme::EcdsaSha256
        | SignatureScheme::EcdsaSha384
        | SignatureScheme::EcdsaSha512
        | SignatureScheme::Ed25519 => return Err(SigningFailed),
    };
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), octets, &mut signature)
        .map_err(|ring::error::Unspecified| SigningFailed)?;
    Ok(signature)
}
