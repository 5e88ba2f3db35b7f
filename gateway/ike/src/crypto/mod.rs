//! What runs the algorithms: the only place that names an implementation.
//!
//! Everything is ring's, except what ring lacks: AES-CBC, the MODP group, P-521 and ML-KEM are
//! RustCrypto's, in Rust alone. (Others are faster at ML-KEM: aws-lc-rs, which would be a second
//! cryptographic library in C beside ring, and libcrux, which promises no stable interface yet.)
//! Certificates are read by its x509-cert and validated by rustls-webpki.

pub mod key_exchange;
pub(crate) mod legacy;
pub mod prf;
pub mod protect;
pub mod signature;
pub(crate) mod tls;
pub mod x509;

/// Hexadecimal, with spaces and line breaks, to octets.
#[cfg(test)]
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0);
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
