//! The algorithms this implementation knows, and the sets of them that a proposal names.
//!
//! The names are the keywords of policy files (and of strongSwan's, so that proposals can be
//! copied from one to the other). What runs an algorithm is in [`crate::crypto`].

mod suite;

use core::fmt;
use core::str::FromStr;

use gateway_wire::{EncrId, HashAlgorithm, IntegId, KeMethod, PrfId, TransformType};

pub use self::suite::{
    Additional, AdditionalOffer, ChildKeyExchange, EspProposal, EspSuite, IkeProposal, IkeSuite,
};

/// A keyword that names no algorithm of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`; known are {known}")]
pub struct UnknownAlgorithm {
    /// What was expected, such as "encryption algorithm".
    pub kind: &'static str,
    /// The word that was found.
    pub name: String,
    /// The words that would have been right, comma-separated.
    pub known: String,
}

macro_rules! algorithms {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident => $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every algorithm of this kind, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The keyword used in policy files, logs and `gateway status`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownAlgorithm;

            fn from_str(word: &str) -> Result<Self, UnknownAlgorithm> {
                Self::ALL.iter().copied().find(|a| a.name() == word).ok_or_else(|| UnknownAlgorithm {
                    kind: $kind,
                    name: word.to_owned(),
                    known: Self::ALL.iter().map(|a| a.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

algorithms! {
    /// Encryption of IKE messages and of ESP (transform type 1).
    Encryption, "encryption algorithm" {
        /// AES-128 in GCM with a 16-octet ICV (RFC 4106, RFC 5282).
        Aes128Gcm16 => "aes128gcm16",
        /// AES-256 in GCM with a 16-octet ICV (RFC 4106, RFC 5282).
        Aes256Gcm16 => "aes256gcm16",
        /// ChaCha20-Poly1305 (RFC 7634).
        ChaCha20Poly1305 => "chacha20poly1305",
        /// AES-128 in CBC (RFC 3602); needs an integrity algorithm.
        Aes128Cbc => "aes128",
        /// AES-256 in CBC (RFC 3602); needs an integrity algorithm.
        Aes256Cbc => "aes256",
    }
}

algorithms! {
    /// Integrity of IKE messages and of ESP (transform type 3, RFC 4868, RFC 2404).
    Integrity, "integrity algorithm" {
        /// HMAC-SHA2-256, truncated to 16 octets.
        HmacSha256 => "sha256",
        /// HMAC-SHA2-384, truncated to 24 octets.
        HmacSha384 => "sha384",
        /// HMAC-SHA2-512, truncated to 32 octets.
        HmacSha512 => "sha512",
        /// HMAC-SHA1, truncated to 12 octets: for peers that have no other (RFC 8247 2.3, RFC 8221
        /// 6), and never unless somebody names it.
        HmacSha1 => "sha1",
    }
}

algorithms! {
    /// Pseudo-random function (transform type 2, RFC 4868, RFC 2104).
    Prf, "pseudo-random function" {
        /// HMAC-SHA2-256.
        HmacSha256 => "prfsha256",
        /// HMAC-SHA2-384.
        HmacSha384 => "prfsha384",
        /// HMAC-SHA2-512.
        HmacSha512 => "prfsha512",
        /// HMAC-SHA1: for peers that have no other (RFC 8247 2.2), and never unless somebody names
        /// it.
        HmacSha1 => "prfsha1",
    }
}

algorithms! {
    /// Key exchange method (transform type 4).
    Group, "key exchange method" {
        /// Curve25519 (RFC 8031).
        X25519 => "x25519",
        /// The 256-bit random ECP group (RFC 5903).
        EcpP256 => "ecp256",
        /// The 384-bit random ECP group (RFC 5903).
        EcpP384 => "ecp384",
        /// The 521-bit random ECP group (RFC 5903).
        EcpP521 => "ecp521",
        /// The 2048-bit MODP group (RFC 3526).
        Modp2048 => "modp2048",
        /// ML-KEM-512 (FIPS 203).
        MlKem512 => "mlkem512",
        /// ML-KEM-768 (FIPS 203).
        MlKem768 => "mlkem768",
        /// ML-KEM-1024 (FIPS 203).
        MlKem1024 => "mlkem1024",
    }
}

algorithms! {
    /// The place of an additional key exchange (RFC 9370 2.2.1): they are done in this order.
    Round, "additional key exchange" {
        /// Transform type 6.
        Ke1 => "ke1",
        /// Transform type 7.
        Ke2 => "ke2",
        /// Transform type 8.
        Ke3 => "ke3",
        /// Transform type 9.
        Ke4 => "ke4",
        /// Transform type 10.
        Ke5 => "ke5",
        /// Transform type 11.
        Ke6 => "ke6",
        /// Transform type 12.
        Ke7 => "ke7",
    }
}

algorithms! {
    /// How AUTH is signed (RFC 7427, RFC 8420), those that we prefer first. For ECDSA the curve
    /// follows from the key.
    SignatureScheme, "signature scheme" {
        /// RSASSA-PSS with SHA2-256, MGF1 with the same hash, and a salt of its length.
        RsaPssSha256 => "rsa-pss-sha256",
        /// RSASSA-PSS with SHA2-384.
        RsaPssSha384 => "rsa-pss-sha384",
        /// RSASSA-PSS with SHA2-512.
        RsaPssSha512 => "rsa-pss-sha512",
        /// RSASSA-PKCS1-v1_5 with SHA2-256.
        RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
        /// RSASSA-PKCS1-v1_5 with SHA2-384.
        RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
        /// RSASSA-PKCS1-v1_5 with SHA2-512.
        RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
        /// ECDSA with SHA2-256, on P-256 or P-384.
        EcdsaSha256 => "ecdsa-sha256",
        /// ECDSA with SHA2-384, on P-256 or P-384.
        EcdsaSha384 => "ecdsa-sha384",
        /// ECDSA with SHA2-512, on P-521.
        EcdsaSha512 => "ecdsa-sha512",
        /// Ed25519.
        Ed25519 => "ed25519",
    }
}

impl SignatureScheme {
    /// The hash that a peer must be able to compute, as SIGNATURE_HASH_ALGORITHMS names it.
    #[must_use]
    pub const fn hash(self) -> HashAlgorithm {
        match self {
            Self::RsaPssSha256 | Self::RsaPkcs1Sha256 | Self::EcdsaSha256 => {
                HashAlgorithm::SHA2_256
            }
            Self::RsaPssSha384 | Self::RsaPkcs1Sha384 | Self::EcdsaSha384 => {
                HashAlgorithm::SHA2_384
            }
            Self::RsaPssSha512 | Self::RsaPkcs1Sha512 | Self::EcdsaSha512 => {
                HashAlgorithm::SHA2_512
            }
            Self::Ed25519 => HashAlgorithm::IDENTITY,
        }
    }
}

impl Encryption {
    /// The transform ID on the wire.
    #[must_use]
    pub const fn id(self) -> EncrId {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 => EncrId::AES_GCM_16,
            Self::ChaCha20Poly1305 => EncrId::CHACHA20_POLY1305,
            Self::Aes128Cbc | Self::Aes256Cbc => EncrId::AES_CBC,
        }
    }

    /// The key length attribute on the wire in bits, or `None` where the algorithm has one
    /// length only and must not carry the attribute (RFC 7296 3.3.5).
    #[must_use]
    pub const fn key_length_attribute(self) -> Option<u16> {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc => Some(128),
            Self::Aes256Gcm16 | Self::Aes256Cbc => Some(256),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// The algorithm of a transform, or `None` for one we do not have.
    #[must_use]
    pub fn from_wire(id: EncrId, key_length: Option<u16>) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.id() == id && e.key_length_attribute() == key_length)
    }

    /// Whether the algorithm authenticates by itself, so that none is negotiated beside it.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => true,
            Self::Aes128Cbc | Self::Aes256Cbc => false,
        }
    }

    /// Octets of the cipher's key, without the salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc => 16,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 | Self::Aes256Cbc => 32,
        }
    }

    /// Octets of salt that follow the key in the key material (RFC 4106 8.1, RFC 7634 2).
    #[must_use]
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    /// Octets of the initialisation vector on the wire.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// Octets to which plaintext is padded in ESP and IKE.
    #[must_use]
    pub const fn block_len(self) -> usize {
        if self.is_aead() { 4 } else { 16 }
    }

    /// Octets of ICV that the algorithm adds by itself; 0 where an integrity algorithm does.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        if self.is_aead() { 16 } else { 0 }
    }
}

impl Integrity {
    /// The transform ID on the wire.
    #[must_use]
    pub const fn id(self) -> IntegId {
        match self {
            Self::HmacSha256 => IntegId::HMAC_SHA2_256_128,
            Self::HmacSha384 => IntegId::HMAC_SHA2_384_192,
            Self::HmacSha512 => IntegId::HMAC_SHA2_512_256,
            Self::HmacSha1 => IntegId::HMAC_SHA1_96,
        }
    }

    /// The algorithm of a transform, or `None` for one we do not have.
    #[must_use]
    pub fn from_wire(id: IntegId) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.id() == id)
    }

    /// Octets of the key (RFC 4868 2.1.1, RFC 2404 3: the length of the hash).
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
            Self::HmacSha1 => 20,
        }
    }

    /// Octets of the truncated ICV: half of the hash, but for SHA-1 (RFC 2404 2).
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::HmacSha256 => 16,
            Self::HmacSha384 => 24,
            Self::HmacSha512 => 32,
            Self::HmacSha1 => 12,
        }
    }

    /// Whether it is for old peers only.
    #[must_use]
    pub const fn is_sha1(self) -> bool {
        match self {
            Self::HmacSha1 => true,
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => false,
        }
    }
}

impl Prf {
    /// The transform ID on the wire.
    #[must_use]
    pub const fn id(self) -> PrfId {
        match self {
            Self::HmacSha256 => PrfId::HMAC_SHA2_256,
            Self::HmacSha384 => PrfId::HMAC_SHA2_384,
            Self::HmacSha512 => PrfId::HMAC_SHA2_512,
            Self::HmacSha1 => PrfId::HMAC_SHA1,
        }
    }

    /// The algorithm of a transform, or `None` for one we do not have.
    #[must_use]
    pub fn from_wire(id: PrfId) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.id() == id)
    }

    /// Octets of output, which is also the preferred key length (RFC 7296 2.13).
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
            Self::HmacSha1 => 20,
        }
    }

    /// Whether it is for old peers only. Its keys have 160 bits, which is too few against quantum
    /// computers (RFC 8784 6), whatever went into them.
    #[must_use]
    pub const fn is_sha1(self) -> bool {
        match self {
            Self::HmacSha1 => true,
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => false,
        }
    }
}

impl Group {
    /// The transform ID on the wire.
    #[must_use]
    pub const fn id(self) -> KeMethod {
        match self {
            Self::X25519 => KeMethod::CURVE25519,
            Self::EcpP256 => KeMethod::ECP_256,
            Self::EcpP384 => KeMethod::ECP_384,
            Self::EcpP521 => KeMethod::ECP_521,
            Self::Modp2048 => KeMethod::MODP_2048,
            Self::MlKem512 => KeMethod::ML_KEM_512,
            Self::MlKem768 => KeMethod::ML_KEM_768,
            Self::MlKem1024 => KeMethod::ML_KEM_1024,
        }
    }

    /// The method of a transform, or `None` for one we do not have.
    #[must_use]
    pub fn from_wire(id: KeMethod) -> Option<Self> {
        Self::ALL.iter().copied().find(|g| g.id() == id)
    }

    /// Octets of the initiator's value in the KE payload.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::EcpP256 => 64,
            Self::EcpP384 => 96,
            Self::EcpP521 => 132,
            Self::Modp2048 => 256,
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Octets of the responder's value: the same, but for a key encapsulation mechanism.
    #[must_use]
    pub const fn answer_len(self) -> usize {
        match self {
            Self::X25519 | Self::EcpP256 | Self::EcpP384 | Self::EcpP521 | Self::Modp2048 => {
                self.public_len()
            }
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    /// Whether no quantum computer is known to break it.
    #[must_use]
    pub const fn is_quantum_safe(self) -> bool {
        match self {
            Self::MlKem512 | Self::MlKem768 | Self::MlKem1024 => true,
            Self::X25519 | Self::EcpP256 | Self::EcpP384 | Self::EcpP521 | Self::Modp2048 => false,
        }
    }
}

impl Round {
    /// The transform type on the wire.
    #[must_use]
    pub const fn transform_type(self) -> TransformType {
        match self {
            Self::Ke1 => TransformType::ADDKE1,
            Self::Ke2 => TransformType::ADDKE2,
            Self::Ke3 => TransformType::ADDKE3,
            Self::Ke4 => TransformType::ADDKE4,
            Self::Ke5 => TransformType::ADDKE5,
            Self::Ke6 => TransformType::ADDKE6,
            Self::Ke7 => TransformType::ADDKE7,
        }
    }
}
