//! The 2048-bit MODP group (RFC 3526 3), in constant time.

use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{U256, U2048, Uint, const_monty_params};
use zeroize::{Zeroize as _, Zeroizing};

use super::{KeyExchangeError, PendingKeyExchange};
use crate::algorithms::Group;

const_monty_params!(
    Prime,
    U2048,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
     020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
     4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
     98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
     9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
     3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    "The prime of RFC 3526 3."
);

type Residue = ConstMontyForm<Prime, { U2048::LIMBS }>;

/// A key pair of this group.
pub(super) struct KeyPair {
    /// RFC 3526 8 estimates the group's strength at 110 to 160 bits, which asks for exponents of
    /// 220 to 320 bits.
    exponent: Zeroizing<U256>,
    public: Vec<u8>,
}

impl KeyPair {
    pub(super) fn generate() -> Result<Self, KeyExchangeError> {
        let octets = super::random::<32>()?;
        Ok(Self::from_exponent(U256::from_be_slice(octets.as_ref())))
    }

    /// The key pair of a given exponent; the generator is 2.
    pub(super) fn from_exponent(exponent: U256) -> Self {
        let public = power(&U2048::from_u8(2), &exponent).to_be_bytes().as_ref().to_vec();
        Self { exponent: Zeroizing::new(exponent), public }
    }
}

impl PendingKeyExchange for KeyPair {
    fn group(&self) -> Group {
        Group::Modp2048
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        // `from_be_slice` panics on any other length.
        if peer.len() != Group::Modp2048.public_len() {
            return Err(KeyExchangeError::InvalidPublicValue);
        }
        let peer = U2048::from_be_slice(peer);
        // RFC 6989 2.1: 1 < y < p - 1. The prime being safe, what is left has a large order.
        let last = prime().wrapping_sub(&U2048::ONE);
        if peer <= U2048::ONE || peer >= last {
            return Err(KeyExchangeError::InvalidPublicValue);
        }
        let mut secret = power(&peer, &self.exponent);
        // RFC 7296 2.14: padded with zeros to the length of the modulus.
        let octets = Zeroizing::new(secret.to_be_bytes().as_ref().to_vec());
        secret.zeroize();
        Ok(octets)
    }
}

/// The modulus.
pub(super) fn prime() -> U2048 {
    Residue::MODULUS.get()
}

/// `base` to the power of `exponent`, in a time that does not depend on either.
pub(super) fn power<const LIMBS: usize>(base: &U2048, exponent: &Uint<LIMBS>) -> U2048 {
    Residue::new(base).pow(exponent).retrieve()
}
