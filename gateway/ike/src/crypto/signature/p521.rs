//! ECDSA on P-521, for AUTH and in certificates.

use ::p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use ::p521::ecdsa::{DerSignature, Signature, VerifyingKey};
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use ring::digest;

use super::BadSignature;

/// Octets of a number modulo the order.
const FIELD_LEN: usize = 66;

/// The signature in the form of RFC 7427 and of certificates.
pub(super) fn verify_asn1(key: &[u8], octets: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature = from_asn1(signature)?;
    check(key, &digest::SHA512, octets, &signature)
}

/// The signature in the form of RFC 4754 7.
pub(super) fn verify_fixed(
    key: &[u8],
    octets: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let signature = Signature::from_slice(signature).map_err(|_form| BadSignature::Wrong)?;
    check(key, &digest::SHA512, octets, &signature)
}

fn from_asn1(signature: &[u8]) -> Result<Signature, BadSignature> {
    let wrong = |_form| BadSignature::Wrong;
    DerSignature::from_bytes(signature).and_then(Signature::try_from).map_err(wrong)
}

fn check(
    key: &[u8],
    hash: &'static digest::Algorithm,
    octets: &[u8],
    signature: &Signature,
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_sec1_bytes(key).map_err(|_point| BadSignature::Wrong)?;
    // The hash is a number, which zeros in front do not change; the crate takes none that is
    // shorter than half the order, as SHA2-256 is.
    let digest = digest::digest(hash, octets);
    let mut padded = vec![0; FIELD_LEN.saturating_sub(digest.as_ref().len())];
    padded.extend_from_slice(digest.as_ref());
    key.verify_prehash(&padded, signature).map_err(|_wrong| BadSignature::Wrong)
}

/// A signature of a certificate or revocation list by an authority with a P-521 key.
#[derive(Debug)]
struct CertificateSignature {
    hash: &'static digest::Algorithm,
    identifier: AlgorithmIdentifier,
}

/// Those that occur. SHA2-256 is what `openssl` takes for any key when nobody says otherwise.
pub(in crate::crypto) const CERTIFICATE_SIGNATURES: [&dyn SignatureVerificationAlgorithm; 3] = [
    &CertificateSignature { hash: &digest::SHA256, identifier: alg_id::ECDSA_SHA256 },
    &CertificateSignature { hash: &digest::SHA384, identifier: alg_id::ECDSA_SHA384 },
    &CertificateSignature { hash: &digest::SHA512, identifier: alg_id::ECDSA_SHA512 },
];

impl SignatureVerificationAlgorithm for CertificateSignature {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        from_asn1(signature)
            .and_then(|signature| check(public_key, self.hash, message, &signature))
            .map_err(|_wrong| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.identifier
    }
}
