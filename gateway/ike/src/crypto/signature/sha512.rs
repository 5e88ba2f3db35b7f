//! ECDSA on P-256 and P-384 with SHA2-512, which `ring` does not have. Who signs chooses among the
//! hashes that we say we have, whatever its curve is (RFC 7427 4).

use ::p521::ecdsa::signature::hazmat::PrehashVerifier;
use ring::digest;

use super::BadSignature;

/// On P-256; the signature in the form of RFC 7427.
pub(super) fn verify_p256(key: &[u8], octets: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let key = ::p256::ecdsa::VerifyingKey::from_sec1_bytes(key);
    let signature = ::p256::ecdsa::DerSignature::from_bytes(signature);
    check(key.ok(), octets, signature.ok())
}

/// On P-384; the signature in the form of RFC 7427.
pub(super) fn verify_p384(key: &[u8], octets: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let key = ::p384::ecdsa::VerifyingKey::from_sec1_bytes(key);
    let signature = ::p384::ecdsa::DerSignature::from_bytes(signature);
    check(key.ok(), octets, signature.ok())
}

fn check<S>(
    key: Option<impl PrehashVerifier<S>>,
    octets: &[u8],
    signature: Option<S>,
) -> Result<(), BadSignature> {
    let (key, signature) = key.zip(signature).ok_or(BadSignature::Wrong)?;
    let digest = digest::digest(&digest::SHA512, octets);
    key.verify_prehash(digest.as_ref(), &signature).map_err(|_wrong| BadSignature::Wrong)
}
