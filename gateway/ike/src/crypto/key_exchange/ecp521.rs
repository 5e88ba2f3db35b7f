//! The 521-bit random ECP group (RFC 5903 3.3), which ring lacks.

use p521::elliptic_curve::sec1::ToSec1Point as _;
use p521::{PublicKey, SecretKey, ecdh};
use zeroize::Zeroizing;

use super::{KeyExchangeError, PendingKeyExchange, UNCOMPRESSED};
use crate::algorithms::Group;

/// Octets of a scalar or a coordinate.
const LEN: usize = 66;

/// A key pair of this group.
pub(super) struct KeyPair {
    private: SecretKey,
    public: Vec<u8>,
}

impl KeyPair {
    pub(super) fn generate() -> Result<Self, KeyExchangeError> {
        loop {
            let mut octets = super::random::<LEN>()?;
            // A scalar has 521 bits; whatever then is zero or not below the order is drawn again.
            let [first, ..] = &mut *octets;
            *first &= 1;
            if let Ok(private) = SecretKey::from_slice(octets.as_ref()) {
                return Ok(Self::from_private(private));
            }
        }
    }

    /// The key pair of a given private key.
    pub(super) fn from_private(private: SecretKey) -> Self {
        let point = private.public_key().to_sec1_point(false);
        // RFC 5903 7: the coordinates alone.
        let public = point.as_bytes().get(1..).unwrap_or_default().to_vec();
        Self { private, public }
    }
}

impl PendingKeyExchange for KeyPair {
    fn group(&self) -> Group {
        Group::EcpP521
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        let invalid = KeyExchangeError::InvalidPublicValue;
        if peer.len() != Group::EcpP521.public_len() {
            return Err(invalid);
        }
        // Refuses what is not on the curve; the point at infinity has another length.
        let peer = PublicKey::from_sec1_bytes(&[&[UNCOMPRESSED], peer].concat())
            .map_err(|_off_the_curve| invalid)?;
        let secret = ecdh::diffie_hellman(self.private.to_nonzero_scalar(), peer.as_affine());
        Ok(Zeroizing::new(secret.raw_secret_bytes().to_vec()))
    }
}
