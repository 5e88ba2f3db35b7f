//! The hashes of MS-CHAPv2 (RFC 2759 8) and the keys made of them (RFC 3079 3).

use core::fmt::Write as _;

use zeroize::Zeroizing;

use crate::config::Secret;
use crate::crypto::legacy::{des, md4};
use crate::crypto::prf::sha1;
use crate::eap::{Fault, Msk};

/// Octets of a challenge.
pub(super) const CHALLENGE: usize = 16;
/// Octets of an NT-Response.
pub(super) const NT_RESPONSE: usize = 24;
/// The most characters of a password (RFC 2759 4).
const MAX_PASSWORD: usize = 256;

/// What both ends know after the response: from it follow all proofs and keys.
pub(super) struct Calculation<'a> {
    pub(super) authenticator_challenge: &'a [u8; CHALLENGE],
    pub(super) peer_challenge: &'a [u8; CHALLENGE],
    /// Without a Windows domain.
    pub(super) user: &'a [u8],
    pub(super) hash: &'a PasswordHash,
}

/// MD4 of the password in UTF-16: as good as the password itself.
pub(super) struct PasswordHash(Zeroizing<[u8; 16]>);

impl PasswordHash {
    /// RFC 2759 8.3, NtPasswordHash.
    pub(super) fn new(password: &Secret) -> Result<Self, Fault> {
        let text =
            core::str::from_utf8(password.expose()).map_err(|_not_utf8| Fault::UnusablePassword)?;
        if text.chars().count() > MAX_PASSWORD {
            return Err(Fault::UnusablePassword);
        }
        // Room for all of it: growing would leave copies behind.
        let mut utf16 = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(2)));
        utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        Ok(Self(md4(&utf16)))
    }

    fn hash(&self) -> Zeroizing<[u8; 16]> {
        md4(&*self.0)
    }
}

impl Calculation<'_> {
    /// RFC 2759 8.2, ChallengeHash.
    fn challenge_hash(&self) -> [u8; 8] {
        let hash = sha1(&[self.peer_challenge, self.authenticator_challenge, self.user]);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// RFC 2759 8.1 and 8.5, GenerateNTResponse: the hash of the password, with five zero octets
    /// behind it, makes three keys of DES.
    pub(super) fn nt_response(&self) -> [u8; NT_RESPONSE] {
        let challenge = self.challenge_hash();
        let mut octets = self.hash.0.iter().copied().chain([0; 5]);
        let mut response = [0; NT_RESPONSE];
        for block in response.chunks_exact_mut(8) {
            let key = Zeroizing::new([0_u8; 7].map(|_| octets.next().unwrap_or_default()));
            block.copy_from_slice(&des(*key, challenge));
        }
        response
    }

    /// RFC 2759 8.7, GenerateAuthenticatorResponse: `S=` and forty hexadecimal digits.
    pub(super) fn authenticator_response(&self, nt_response: &[u8; NT_RESPONSE]) -> String {
        let digest =
            sha1(&[&*self.hash.hash(), nt_response, b"Magic server to client signing constant"]);
        let digest =
            sha1(&[&digest, &self.challenge_hash(), b"Pad to make it do more than one iteration"]);
        let mut text = "S=".to_owned();
        for octet in digest {
            let _never_fails = write!(text, "{octet:02X}");
        }
        text
    }

    /// The MSK: the authenticator's receive key and its send key (RFC 3079 3.4), and zeros to 64
    /// octets. No RFC says so; [MS-CHAP] and every implementation do.
    pub(super) fn msk(&self, nt_response: &[u8; NT_RESPONSE]) -> Msk {
        let master = self.master_key(nt_response);
        let receive = start_key(
            &master,
            b"On the client side, this is the send key; on the server side, it is the receive key.",
        );
        let send = start_key(
            &master,
            b"On the client side, this is the receive key; on the server side, it is the send key.",
        );
        let mut msk = Zeroizing::new(Vec::with_capacity(64));
        msk.extend_from_slice(&*receive);
        msk.extend_from_slice(&*send);
        msk.resize(64, 0);
        msk
    }

    /// RFC 3079 3.4, GetMasterKey.
    fn master_key(&self, nt_response: &[u8; NT_RESPONSE]) -> Zeroizing<[u8; 16]> {
        let hash = self.hash.hash();
        first_sixteen(&Zeroizing::new(sha1(&[&*hash, nt_response, b"This is the MPPE Master Key"])))
    }
}

/// RFC 3079 3.4, GetAsymmetricStartKey.
fn start_key(master: &[u8; 16], magic: &[u8]) -> Zeroizing<[u8; 16]> {
    first_sixteen(&Zeroizing::new(sha1(&[master, &[0; 40], magic, &[0xf2; 40]])))
}

fn first_sixteen(digest: &[u8; 20]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(digest.first_chunk().copied().unwrap_or_default())
}

/// The name without a Windows domain (RFC 2759 4): `DOMAIN\user` is `user`.
pub(super) fn without_domain(name: &[u8]) -> &[u8] {
    name.iter()
        .rposition(|octet| *octet == b'\\')
        .and_then(|at| name.get(at.saturating_add(1)..))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    fn password(text: &str) -> PasswordHash {
        PasswordHash::new(&Secret::new(text.as_bytes().to_vec())).unwrap()
    }

    /// RFC 2759 9.2.
    fn with_example<T>(check: impl FnOnce(&Calculation<'_>) -> T) -> T {
        let authenticator_challenge = hex("5b5d7c7d7b3f2f3e3c2c602132262628").try_into().unwrap();
        let peer_challenge = hex("21402324255e262a28295f2b3a337c7e").try_into().unwrap();
        check(&Calculation {
            authenticator_challenge: &authenticator_challenge,
            peer_challenge: &peer_challenge,
            user: b"User",
            hash: &password("clientPass"),
        })
    }

    #[test]
    fn the_example_of_rfc_2759() {
        with_example(|example| {
            assert_eq!(example.challenge_hash().to_vec(), hex("d02e4386bce91226"));
            assert_eq!(example.hash.0.to_vec(), hex("44ebba8d5312b8d611474411f56989ae"));
            assert_eq!(example.hash.hash().to_vec(), hex("41c00c584bd2d91c4017a2a12fa59f3f"));
            let nt_response = example.nt_response();
            assert_eq!(
                nt_response.to_vec(),
                hex("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df")
            );
            assert_eq!(
                example.authenticator_response(&nt_response),
                "S=407A5589115FD0D6209F510FE9C04566932CDA56"
            );
        });
    }

    #[test]
    fn the_example_of_rfc_3079_and_the_key_of_others() {
        with_example(|example| {
            let nt_response = example.nt_response();
            let master = example.master_key(&nt_response);
            assert_eq!(master.to_vec(), hex("fdece3717a8c838cb388e527ae3cdd31"));
            let msk = example.msk(&nt_response);
            // RFC 3079 3.5.3 has the authenticator's send key; the receive key is the one that
            // other implementations make of the same example.
            assert_eq!(msk[16..32].to_vec(), hex("8b7cdc149b993a1ba118cb153f56dccb"));
            assert_eq!(msk[..16].to_vec(), hex("d5f0e9521e3ea9589645e86051c82226"));
            assert_eq!(msk[32..].to_vec(), [0; 32]);
        });
    }

    #[test]
    fn a_password_must_be_text() {
        assert!(PasswordHash::new(&Secret::new(vec![0xff])).is_err());
        assert!(PasswordHash::new(&Secret::new("ä".repeat(256).into_bytes())).is_ok());
        assert!(PasswordHash::new(&Secret::new("ä".repeat(257).into_bytes())).is_err());
    }

    #[test]
    fn a_domain_is_no_part_of_the_name() {
        assert_eq!(without_domain(b"ACME\\User"), b"User");
        assert_eq!(without_domain(b"User"), b"User");
        assert_eq!(without_domain(b"ACME\\"), b"");
    }
}
