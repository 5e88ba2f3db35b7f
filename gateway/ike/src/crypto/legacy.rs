//! MD4, MD5 and single DES: broken long ago, and here only because EAP-MD5 (RFC 3748 5.4) and
//! EAP-MSCHAPv2 (RFC 2759) are defined with them. Nothing else may use them: what protects these
//! methods is the IKE SA around them, and the responder's own authentication.

use des::Des;
use des::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use md4::Md4;
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// MD5 of the joined parts.
pub(crate) fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// MD4, which makes the key of MS-CHAP from a password.
pub(crate) fn md4(octets: &[u8]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(Md4::digest(octets).into())
}

/// One block of DES under a key of 56 bits, to which the parity bits are added, as RFC 2759 8.6
/// has it. DES ignores them.
pub(crate) fn des(key: [u8; 7], block: [u8; 8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g] = key;
    let bits = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
    // Seven bits to an octet, each in the upper seven bits.
    let octet = |shift: u32| {
        let [.., low] = (bits >> shift).to_be_bytes();
        low << 1
    };
    let spread = Zeroizing::new([49, 42, 35, 28, 21, 14, 7, 0].map(octet));
    let mut out = block.into();
    Des::new((&*spread).into()).encrypt_block(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    #[test]
    fn hashes_are_those_of_rfc_1320_and_rfc_1321() {
        assert_eq!(md4(b"").to_vec(), hex("31d6cfe0d16ae931b73c59d7e0c089c0"));
        assert_eq!(md4(b"message digest").to_vec(), hex("d9130a8164549fe818874806e1c7014b"));
        assert_eq!(md5(&[b""]).to_vec(), hex("d41d8cd98f00b204e9800998ecf8427e"));
        assert_eq!(
            md5(&[b"message ", b"digest"]).to_vec(),
            hex("f96b697d7cb7938d525a2f31aaf161d0")
        );
    }

    #[test]
    fn a_des_key_of_56_bits_is_spread_over_eight_octets() {
        // RFC 2433 B, "DES" with the key material of its example: the first block of the
        // NT-Response of RFC 2759 9.2.
        let key = [0x44, 0xeb, 0xba, 0x8d, 0x53, 0x12, 0xb8];
        let challenge = [0xd0, 0x2e, 0x43, 0x86, 0xbc, 0xe9, 0x12, 0x26];
        assert_eq!(des(key, challenge).to_vec(), hex("82309ecd8d708b5e"));
    }
}
