//! ML-KEM (FIPS 203) as a key exchange: the initiator's value is an encapsulation key, the
//! responder's a ciphertext (draft-ietf-ipsecme-ikev2-mlkem 2.2).

use ml_kem::kem::{Decapsulate as _, Kem, KeyExport as _};
use ml_kem::{B32, EncapsulationKey, MlKem512, MlKem768, MlKem1024, Seed, SharedKey};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Agreed, KeyExchangeError, PendingKeyExchange};
use crate::algorithms::Group;

#[cfg(test)]
mod tests;

/// The three operations for one parameter set, on octets. `None`: these octets are no key, or no
/// ciphertext.
pub(super) trait ParameterSet: Kem {
    /// The key pair of a seed: `d`, then `z` (FIPS 203 7.1).
    fn key_pair(seed: Seed) -> (Self::DecapsulationKey, Vec<u8>);

    /// A ciphertext and its secret from the random octets `m` (FIPS 203 7.2). The crate makes the
    /// checks of that section: the length, and that every coefficient is below the modulus.
    fn encapsulate(key: &[u8], m: &B32) -> Option<(Vec<u8>, SharedKey)>;

    /// The secret in a ciphertext of the right length; from one that was tampered with, a secret
    /// that nobody else has (FIPS 203 7.3).
    fn decapsulate(private: &Self::DecapsulationKey, ciphertext: &[u8]) -> Option<SharedKey>;
}

macro_rules! parameter_set {
    ($set:ty) => {
        impl ParameterSet for $set {
            fn key_pair(seed: Seed) -> (Self::DecapsulationKey, Vec<u8>) {
                let private = Self::DecapsulationKey::from_seed(seed);
                let public = private.encapsulation_key().to_bytes().to_vec();
                (private, public)
            }

            fn encapsulate(key: &[u8], m: &B32) -> Option<(Vec<u8>, SharedKey)> {
                let key = EncapsulationKey::<Self>::new(&key.try_into().ok()?).ok()?;
                let (ciphertext, secret) = key.encapsulate_deterministic(m);
                Some((ciphertext.to_vec(), secret))
            }

            fn decapsulate(
                private: &Self::DecapsulationKey,
                ciphertext: &[u8],
            ) -> Option<SharedKey> {
                private.decapsulate_slice(ciphertext).ok()
            }
        }
    };
}

parameter_set!(MlKem512);
parameter_set!(MlKem768);
parameter_set!(MlKem1024);

/// A decapsulation key that waits for the ciphertext. It wipes itself when it goes.
pub(super) struct KeyPair<K: ParameterSet> {
    group: Group,
    private: K::DecapsulationKey,
    public: Vec<u8>,
}

impl<K: ParameterSet> KeyPair<K> {
    /// A fresh key pair; `group` is the name of `K`.
    pub(super) fn generate(group: Group) -> Result<Self, KeyExchangeError> {
        let octets = super::random::<64>()?;
        let mut seed = Seed::from(*octets);
        let (private, public) = K::key_pair(seed);
        seed.zeroize();
        Ok(Self { group, private, public })
    }
}

impl<K: ParameterSet<DecapsulationKey: Send>> PendingKeyExchange for KeyPair<K> {
    fn group(&self) -> Group {
        self.group
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyExchangeError> {
        let secret = K::decapsulate(&self.private, peer);
        secret.map(keep).ok_or(KeyExchangeError::InvalidPublicValue)
    }
}

/// The responder's part.
pub(super) fn encapsulate<K: ParameterSet>(initiator: &[u8]) -> Result<Agreed, KeyExchangeError> {
    let octets = super::random::<32>()?;
    let mut m = B32::from(*octets);
    let encapsulated = K::encapsulate(initiator, &m);
    m.zeroize();
    let (value, secret) = encapsulated.ok_or(KeyExchangeError::InvalidPublicValue)?;
    Ok(Agreed { value, secret: keep(secret) })
}

fn keep(mut secret: SharedKey) -> Zeroizing<Vec<u8>> {
    let kept = Zeroizing::new(secret.to_vec());
    secret.zeroize();
    kept
}
