//! Keyed and plain hashes: the PRFs, `prf+`, and the hash of NAT detection.

use crypto_bigint::CtEq as _;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use crate::algorithms::Prf;

#[cfg(test)]
mod tests;

/// `prf(key, parts)`, the parts being joined (RFC 7296 2.13). Gives [`Prf::output_len`] octets.
#[must_use]
pub fn prf(algorithm: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(sign(&key_of(algorithm, key), parts).as_ref().to_vec())
}

/// `prf+(key, seed)`, the parts of the seed being joined (RFC 7296 2.13).
///
/// Gives `length` octets, but never more than 255 times [`Prf::output_len`], where the one-octet
/// counter ends; all keys of an SA together need less than a tenth of that.
#[must_use]
pub fn prf_plus(algorithm: Prf, key: &[u8], seed: &[&[u8]], length: usize) -> Zeroizing<Vec<u8>> {
    let key = key_of(algorithm, key);
    // Room for all of it: growing would leave copies of key material behind.
    let mut output = Zeroizing::new(Vec::with_capacity(length));
    let mut previous = Zeroizing::new(Vec::with_capacity(algorithm.output_len()));
    for counter in 1..=u8::MAX {
        let missing = length.saturating_sub(output.len());
        if missing == 0 {
            break;
        }
        let mut context = hmac::Context::with_key(&key);
        context.update(&previous);
        for part in seed {
            context.update(part);
        }
        context.update(&[counter]);
        let block = context.sign();
        previous.clear();
        previous.extend_from_slice(block.as_ref());
        output.extend(previous.iter().take(missing));
    }
    output
}

/// Whether two strings are equal, in a time that depends on their lengths only.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).to_bool()
}

/// SHA-1 of the joined parts. Not for security: the NAT detection notifications are defined with
/// it (RFC 7296 2.23).
#[must_use]
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// HMAC of the joined parts.
pub(super) fn sign(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn key_of(algorithm: Prf, key: &[u8]) -> hmac::Key {
    let hash = match algorithm {
        Prf::HmacSha256 => hmac::HMAC_SHA256,
        Prf::HmacSha384 => hmac::HMAC_SHA384,
        Prf::HmacSha512 => hmac::HMAC_SHA512,
        Prf::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    };
    hmac::Key::new(hash, key)
}
