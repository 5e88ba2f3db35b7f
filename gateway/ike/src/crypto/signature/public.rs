//! Public keys as SubjectPublicKeyInfo, and what they verify.

use core::fmt;

use gateway_wire::AuthMethod;
use pkcs1::RsaPublicKeyRef;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use x509_cert::der::pem;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::{KeyError, KeyKind, p521, sha512};
use crate::algorithms::SignatureScheme;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// The label of a public key in PEM.
const LABEL: &str = "PUBLIC KEY";

/// The signature does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The scheme is for keys of another kind.
    #[error("the key is of another kind")]
    OtherKey,
    /// Another key made it, or over other octets.
    #[error("the signature is wrong")]
    Wrong,
    /// It is right, but with SHA-1.
    #[error("the signature is made with SHA-1")]
    Sha1,
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    /// DER of the SubjectPublicKeyInfo.
    spki: Vec<u8>,
    /// The key in the algorithm's own form, the content of the BIT STRING.
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads the DER of a SubjectPublicKeyInfo (RFC 5280 4.1.2.7).
    ///
    /// # Errors
    /// It does not decode, or is of a kind that we do not have.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(spki)
            .map_err(|_der| KeyError::Malformed("it is no SubjectPublicKeyInfo"))?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(KeyError::Malformed("it does not end at an octet"))?;
        let kind = kind(info.algorithm, key)?;
        Ok(Self { kind, spki: spki.to_vec(), key: key.to_vec() })
    }

    /// Reads a PEM file with a block `PUBLIC KEY`.
    ///
    /// # Errors
    /// There is none, or see [`Self::from_spki`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        match pem::decode_vec(text) {
            Ok((LABEL, der)) => Self::from_spki(&der),
            Ok(_) | Err(_) => Err(KeyError::NoPem(LABEL)),
        }
    }

    /// The public key of an algorithm, curve and key.
    pub(super) fn from_parts(kind: KeyKind, key: &[u8]) -> Result<Self, KeyError> {
        let curve = |oid| (EC, Some(oid));
        let (oid, curve) = match kind {
            KeyKind::Rsa(_) => (RSA, None),
            KeyKind::P256 => curve(P256),
            KeyKind::P384 => curve(P384),
            KeyKind::P521 => curve(P521),
            KeyKind::Ed25519 => (ED25519, None),
        };
        let parameters = match kind {
            KeyKind::Rsa(_) => Some(AnyRef::NULL),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519 => {
                curve.as_ref().map(AnyRef::from)
            }
        };
        let malformed = |_der| KeyError::Malformed("it cannot be encoded");
        let info = SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(key).map_err(malformed)?,
        };
        Self::from_spki(&info.to_der().map_err(malformed)?)
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// DER of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether this key made the signature, by this scheme, over these octets.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        use SignatureScheme as S;
        let algorithm: &dyn VerificationAlgorithm = match (scheme, self.kind) {
            (S::RsaPssSha256, KeyKind::Rsa(_)) => &signature::RSA_PSS_2048_8192_SHA256,
            (S::RsaPssSha384, KeyKind::Rsa(_)) => &signature::RSA_PSS_2048_8192_SHA384,
            (S::RsaPssSha512, KeyKind::Rsa(_)) => &signature::RSA_PSS_2048_8192_SHA512,
            (S::RsaPkcs1Sha256, KeyKind::Rsa(_)) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (S::RsaPkcs1Sha384, KeyKind::Rsa(_)) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (S::RsaPkcs1Sha512, KeyKind::Rsa(_)) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (S::EcdsaSha256, KeyKind::P256) => &signature::ECDSA_P256_SHA256_ASN1,
            (S::EcdsaSha384, KeyKind::P256) => &signature::ECDSA_P256_SHA384_ASN1,
            (S::EcdsaSha256, KeyKind::P384) => &signature::ECDSA_P384_SHA256_ASN1,
            (S::EcdsaSha384, KeyKind::P384) => &signature::ECDSA_P384_SHA384_ASN1,
            (S::EcdsaSha512, KeyKind::P256) => {
                return sha512::verify_p256(&self.key, octets, signature);
            }
            (S::EcdsaSha512, KeyKind::P384) => {
                return sha512::verify_p384(&self.key, octets, signature);
            }
            (S::EcdsaSha512, KeyKind::P521) => {
                return p521::verify_asn1(&self.key, octets, signature);
            }
            (S::Ed25519, KeyKind::Ed25519) => &signature::ED25519,
            (
                _,
                KeyKind::Rsa(_) | KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519,
            ) => return Err(BadSignature::OtherKey),
        };
        self.check(algorithm, octets, signature)
    }

    /// As [`Self::verify`], with a method older than RFC 7427: gives the scheme that it amounts
    /// to. ECDSA signatures are then two numbers of fixed length (RFC 4754), and those of RSA
    /// do not say beforehand which hash they are made with (RFC 7296 3.8).
    ///
    /// # Errors
    /// This key did not make the signature, or with SHA-1.
    pub fn verify_old(
        &self,
        method: AuthMethod,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<SignatureScheme, BadSignature> {
        match (method, self.kind) {
            (AuthMethod::ECDSA_SHA256_P256, KeyKind::P256) => self
                .check(&signature::ECDSA_P256_SHA256_FIXED, octets, signature)
                .map(|()| SignatureScheme::EcdsaSha256),
            (AuthMethod::ECDSA_SHA384_P384, KeyKind::P384) => self
                .check(&signature::ECDSA_P384_SHA384_FIXED, octets, signature)
                .map(|()| SignatureScheme::EcdsaSha384),
            (AuthMethod::ECDSA_SHA512_P521, KeyKind::P521) => {
                p521::verify_fixed(&self.key, octets, signature)
                    .map(|()| SignatureScheme::EcdsaSha512)
            }
            (AuthMethod::RSA, KeyKind::Rsa(_)) => {
                let schemes = [
                    SignatureScheme::RsaPkcs1Sha256,
                    SignatureScheme::RsaPkcs1Sha384,
                    SignatureScheme::RsaPkcs1Sha512,
                ];
                let right = |s: &SignatureScheme| self.verify(*s, octets, signature).is_ok();
                if let Some(scheme) = schemes.into_iter().find(right) {
                    return Ok(scheme);
                }
                // So most peers sign that know no newer method. RFC 8247 3.1 keeps this one and names
                // no hash; 3.2 forbids SHA-1 in the newer. Whoever looks for the fault is told.
                let sha1 = &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
                self.check(sha1, octets, signature)?;
                Err(BadSignature::Sha1)
            }
            _ => Err(BadSignature::OtherKey),
        }
    }

    fn check(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(algorithm, &self.key)
            .verify(octets, signature)
            .map_err(|ring::error::Unspecified| BadSignature::Wrong)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kind)
    }
}

fn kind(algorithm: AlgorithmIdentifierRef<'_>, key: &[u8]) -> Result<KeyKind, KeyError> {
    match algorithm.oid {
        RSA => {
            let rsa = RsaPublicKeyRef::from_der(key)
                .map_err(|_der| KeyError::Malformed("it is no RSA public key"))?;
            let modulus = rsa.modulus.as_bytes();
            let unused = modulus.first().map_or(0, |first| first.leading_zeros());
            let bits = modulus.len().saturating_mul(8);
            let bits = bits.saturating_sub(usize::try_from(unused).unwrap_or(0));
            if !(2048..=8192).contains(&bits) {
                return Err(KeyError::Unsupported(format!("RSA with {bits} bits")));
            }
            Ok(KeyKind::Rsa(bits))
        }
        EC => {
            let curve = algorithm.parameters_oid();
            let (kind, length) = match curve {
                Ok(P256) => (KeyKind::P256, 65),
                Ok(P384) => (KeyKind::P384, 97),
                Ok(P521) => (KeyKind::P521, 133),
                Ok(curve) => return Err(KeyError::Unsupported(format!("ECDSA on curve {curve}"))),
                Err(_) => return Err(KeyError::Malformed("its curve has no name")),
            };
            // Only the uncompressed form, as RFC 5480 2.2 demands of everybody.
            if key.len() != length || key.first() != Some(&4) {
                return Err(KeyError::Malformed("its point is not in the uncompressed form"));
            }
            Ok(kind)
        }
        ED25519 if key.len() == 32 && algorithm.parameters.is_none() => Ok(KeyKind::Ed25519),
        ED25519 => Err(KeyError::Malformed("it is no Ed25519 public key")),
        oid => Err(KeyError::Unsupported(format!("algorithm {oid}"))),
    }
}
