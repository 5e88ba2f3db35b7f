//! The protection of IKE messages: the body of the SK payload (RFC 7296 3.14, RFC 5282).
//!
//! ```text
//! header | other payloads | SK generic header | IV | ciphertext                     | ICV
//! <------------- authenticated -------------------> <payloads | padding | pad length>
//! ```
//!
//! With an AEAD everything before the IV is the associated data; with CBC the MAC covers
//! everything before itself.

use core::{fmt, iter};

use aes::cipher::{
    Array, BlockModeDecrypt as _, BlockModeEncrypt as _, InnerIvInit as _, KeyInit as _,
};
use aes::{Aes128, Aes256};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use super::prf::{equal, sign};
use crate::algorithms::{Encryption, Integrity};
use crate::random::{Random, RandomFailed};

#[cfg(test)]
mod tests;

/// The keys do not fit the algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys do not fit the algorithms")]
pub struct KeyMismatch;

/// Why a message was not encrypted; it is left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// 2^64 - 1 messages were encrypted with this key: one more would repeat an IV.
    #[error("the initialisation vectors of this key are used up")]
    Exhausted,
    /// No IV, for want of randomness.
    #[error(transparent)]
    RandomFailed(#[from] RandomFailed),
    /// The message is longer than the cipher allows (64 GB).
    #[error("the message is too long for the cipher")]
    TooLong,
}

/// Why a message was not decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not even room for IV, pad length and ICV.
    #[error("the SK payload is too short")]
    TooShort,
    /// Not from the peer, or changed on the way.
    #[error("the SK payload is not authentic")]
    NotAuthentic,
    /// Authentic, but not whole blocks, or more padding than there are octets: the peer is broken.
    #[error("the SK payload has wrong padding")]
    BadPadding,
}

/// Encrypts the messages of one direction of an IKE SA.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
    /// The IV of the next message, with an AEAD; `None` when there is none left.
    next_iv: Option<u64>,
}

/// Decrypts the messages of one direction of an IKE SA.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
}

impl Sealer {
    /// `encryption_key` is the cipher's key followed by the salt, if it has one.
    ///
    /// # Errors
    /// [`KeyMismatch`] for a key of the wrong length, and for an integrity algorithm with an AEAD
    /// or none without.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, KeyMismatch> {
        let keys = Keys::new(encryption, integrity, encryption_key, integrity_key)?;
        Ok(Self { keys, next_iv: Some(0) })
    }

    /// Octets of the SK payload's body for a plaintext of `plaintext_len` octets.
    #[must_use]
    pub fn body_len(&self, plaintext_len: usize) -> usize {
        let (iv, icv) = match &self.keys {
            Keys::Aead { .. } => (AEAD_IV, TAG),
            Keys::CbcHmac { icv_len, .. } => (BLOCK, *icv_len),
        };
        let padded = plaintext_len.saturating_add(usize::from(self.keys.padding(plaintext_len)));
        // The one octet is the pad length.
        padded.saturating_add(iv.saturating_add(1).saturating_add(icv))
    }

    /// Octets of the longest plaintext that fits a body of `body_len` octets.
    #[must_use]
    pub fn text_room(&self, body_len: usize) -> usize {
        match &self.keys {
            Keys::Aead { .. } => body_len.saturating_sub(AEAD_IV + 1 + TAG),
            Keys::CbcHmac { icv_len, .. } => {
                let blocks = body_len.saturating_sub(BLOCK.saturating_add(*icv_len));
                // Whole blocks, less the pad length.
                (blocks & !(BLOCK - 1)).saturating_sub(1)
            }
        }
    }

    /// Appends IV, ciphertext and ICV to `message`, which holds everything before them, with the
    /// final lengths in the headers.
    ///
    /// # Errors
    /// See [`SealError`]; `message` is then as it was.
    pub fn seal(
        &mut self,
        random: &mut dyn Random,
        message: &mut Vec<u8>,
        plaintext: &[u8],
    ) -> Result<(), SealError> {
        let body_offset = message.len();
        message.reserve(self.body_len(plaintext.len()));
        let sealed = self.append(random, message, plaintext);
        if sealed.is_err() {
            message.truncate(body_offset);
        }
        sealed
    }

    fn append(
        &mut self,
        random: &mut dyn Random,
        message: &mut Vec<u8>,
        plaintext: &[u8],
    ) -> Result<(), SealError> {
        let padding = self.keys.padding(plaintext.len());
        let body_offset = message.len();
        match &self.keys {
            Keys::Aead { key, salt } => {
                // RFC 5282 3.1: the IV need not be unpredictable, but must never repeat.
                let iv = self.next_iv.ok_or(SealError::Exhausted)?;
                self.next_iv = iv.checked_add(1);
                let iv = iv.to_be_bytes();
                message.extend_from_slice(&iv);
                let text_offset = message.len();
                append_text(message, plaintext, padding);
                let (before, text) = message.split_at_mut(text_offset);
                let aad = Aad::from(before.get(..body_offset).unwrap_or_default());
                let tag = key
                    .seal_in_place_separate_tag(nonce(*salt, iv), aad, text)
                    .map_err(|ring::error::Unspecified| SealError::TooLong)?;
                message.extend_from_slice(tag.as_ref());
            }
            Keys::CbcHmac { cipher, mac, icv_len } => {
                // RFC 3602 3: the IV must be unpredictable.
                let mut iv = [0; BLOCK];
                random.fill(&mut iv)?;
                message.extend_from_slice(&iv);
                let text_offset = message.len();
                append_text(message, plaintext, padding);
                cipher.encrypt(iv, message.split_at_mut(text_offset).1);
                let tag = sign(mac, &[message]);
                message.extend(tag.as_ref().iter().take(*icv_len));
            }
        }
        Ok(())
    }
}

impl Opener {
    /// As [`Sealer::new`].
    ///
    /// # Errors
    /// [`KeyMismatch`].
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, KeyMismatch> {
        Ok(Self { keys: Keys::new(encryption, integrity, encryption_key, integrity_key)? })
    }

    /// Verifies `message`, decrypts it in place, and gives the plaintext without its padding.
    /// `body_offset` is where the SK payload's body begins; it ends with the message.
    ///
    /// # Errors
    /// See [`OpenError`]. What `message` then holds is of no use.
    pub fn open<'a>(
        &self,
        message: &'a mut [u8],
        body_offset: usize,
    ) -> Result<&'a [u8], OpenError> {
        let (before, body) =
            message.split_at_mut_checked(body_offset).ok_or(OpenError::TooShort)?;
        let text = match &self.keys {
            Keys::Aead { key, salt } => {
                let (iv, text) =
                    body.split_first_chunk_mut::<AEAD_IV>().ok_or(OpenError::TooShort)?;
                if text.len() <= TAG {
                    return Err(OpenError::TooShort);
                }
                key.open_in_place(nonce(*salt, *iv), Aad::from(&*before), text)
                    .map_err(|ring::error::Unspecified| OpenError::NotAuthentic)?
            }
            Keys::CbcHmac { cipher, mac, icv_len } => {
                let end = body.len().checked_sub(*icv_len).ok_or(OpenError::TooShort)?;
                let (covered, icv) = body.split_at_mut(end);
                if covered.len() <= BLOCK {
                    return Err(OpenError::TooShort);
                }
                let tag = sign(mac, &[before, covered]);
                if !equal(tag.as_ref().get(..*icv_len).unwrap_or_default(), icv) {
                    return Err(OpenError::NotAuthentic);
                }
                let (iv, text) =
                    covered.split_first_chunk_mut::<BLOCK>().ok_or(OpenError::TooShort)?;
                if !cipher.decrypt(*iv, text) {
                    return Err(OpenError::BadPadding);
                }
                text
            }
        };
        let (pad_len, padded) = text.split_last().ok_or(OpenError::TooShort)?;
        // RFC 7296 3.14: any padding is to be accepted, whatever it holds.
        let end = padded.len().checked_sub(usize::from(*pad_len)).ok_or(OpenError::BadPadding)?;
        padded.get(..end).ok_or(OpenError::BadPadding)
    }
}

const AEAD_IV: usize = 8;
const TAG: usize = 16;
const BLOCK: usize = 16;

/// The keys of one direction, ready for use.
enum Keys {
    Aead { key: LessSafeKey, salt: [u8; 4] },
    CbcHmac { cipher: Cbc, mac: hmac::Key, icv_len: usize },
}

impl Keys {
    fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, KeyMismatch> {
        let (key, salt) =
            encryption_key.split_at_checked(encryption.key_len()).ok_or(KeyMismatch)?;
        let algorithm = match encryption {
            Encryption::Aes128Gcm16 => &aead::AES_128_GCM,
            Encryption::Aes256Gcm16 => &aead::AES_256_GCM,
            Encryption::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            Encryption::Aes128Cbc | Encryption::Aes256Cbc => {
                let integrity = integrity.ok_or(KeyMismatch)?;
                if !salt.is_empty() || integrity_key.len() != integrity.key_len() {
                    return Err(KeyMismatch);
                }
                let mac = hmac::Key::new(hash(integrity), integrity_key);
                return Ok(Self::CbcHmac {
                    cipher: Cbc::new(key)?,
                    mac,
                    icv_len: integrity.icv_len(),
                });
            }
        };
        let salt = salt.try_into().map_err(|_length| KeyMismatch)?;
        if integrity.is_some() || !integrity_key.is_empty() {
            return Err(KeyMismatch);
        }
        let key =
            UnboundKey::new(algorithm, key).map_err(|ring::error::Unspecified| KeyMismatch)?;
        Ok(Self::Aead { key: LessSafeKey::new(key), salt })
    }

    /// Octets of padding for a plaintext: none with an AEAD, as in RFC 7634 B, else what makes whole
    /// blocks, the pad length included.
    const fn padding(&self, plaintext_len: usize) -> u8 {
        match self {
            Self::Aead { .. } => 0,
            Self::CbcHmac { .. } => {
                // -(length + 1) modulo the block.
                let [low, ..] = plaintext_len.to_le_bytes();
                !low & 15
            }
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[…]")
    }
}

/// AES in CBC over whole blocks.
enum Cbc {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl Cbc {
    fn new(key: &[u8]) -> Result<Self, KeyMismatch> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Self::Aes128),
            _ => Aes256::new_from_slice(key).map(Self::Aes256),
        }
        .map_err(|_length| KeyMismatch)
    }

    /// Encrypts in place. What is no whole block is left alone: [`Keys::padding`] leaves none.
    fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(text);
        match self {
            Self::Aes128(aes) => {
                cbc::Encryptor::inner_iv_init(aes, &iv.into()).encrypt_blocks(blocks)
            }
            Self::Aes256(aes) => {
                cbc::Encryptor::inner_iv_init(aes, &iv.into()).encrypt_blocks(blocks)
            }
        }
    }

    /// Decrypts in place; `false` if these are no whole blocks.
    fn decrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) -> bool {
        let (blocks, rest) = Array::slice_as_chunks_mut(text);
        if !rest.is_empty() {
            return false;
        }
        match self {
            Self::Aes128(aes) => {
                cbc::Decryptor::inner_iv_init(aes, &iv.into()).decrypt_blocks(blocks)
            }
            Self::Aes256(aes) => {
                cbc::Decryptor::inner_iv_init(aes, &iv.into()).decrypt_blocks(blocks)
            }
        }
        true
    }
}

/// RFC 4106 4, RFC 7634 2: the salt, then the IV.
fn nonce(salt: [u8; 4], iv: [u8; AEAD_IV]) -> Nonce {
    let mut octets = [0; aead::NONCE_LEN];
    for (to, from) in octets.iter_mut().zip(salt.into_iter().chain(iv)) {
        *to = from;
    }
    Nonce::assume_unique_for_key(octets)
}

/// Appends what is to be encrypted.
fn append_text(message: &mut Vec<u8>, plaintext: &[u8], padding: u8) {
    message.extend_from_slice(plaintext);
    message.extend(iter::repeat_n(0, usize::from(padding)));
    message.push(padding);
}

const fn hash(integrity: Integrity) -> hmac::Algorithm {
    match integrity {
        Integrity::HmacSha256 => hmac::HMAC_SHA256,
        Integrity::HmacSha384 => hmac::HMAC_SHA384,
        Integrity::HmacSha512 => hmac::HMAC_SHA512,
        Integrity::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    }
}
