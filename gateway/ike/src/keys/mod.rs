//! Key material: from the key exchange to the keys of the IKE SA and of its Child SAs, and the
//! AUTH payload (RFC 7296 2.13 to 2.18).

use core::fmt;

use gateway_wire::IkeSpi;
use zeroize::Zeroizing;

use crate::algorithms::{EspSuite, IkeSuite, Prf};
use crate::crypto::prf::{prf, prf_plus};

#[cfg(test)]
mod tests;

/// A key that is wiped when it goes.
pub type Key = Zeroizing<Vec<u8>>;

/// The keys of an IKE SA: `a` authenticates, `e` encrypts, `p` enters AUTH; `i` belongs to the
/// initiator, `r` to the responder; `d` begets the keys of Child SAs. Debug prints no octet.
#[derive(Clone)]
pub struct IkeKeys {
    /// All seven, one after the other in the order of RFC 7296 2.14.
    octets: Key,
    lengths: Lengths,
    /// Whether a PPK went into them.
    ppk: bool,
    /// Whether anything that withstands quantum computers went into them.
    quantum_safe: bool,
}

/// Octets of the keys of an IKE SA.
#[derive(Clone, Copy)]
struct Lengths {
    /// Of SK_d and SK_p.
    prf: usize,
    /// Of SK_a; 0 with an AEAD.
    integrity: usize,
    /// Of SK_e, with the salt.
    encryption: usize,
}

impl Lengths {
    const fn of(suite: IkeSuite) -> Self {
        Self {
            prf: suite.prf.output_len(),
            integrity: match suite.integrity {
                Some(integrity) => integrity.key_len(),
                None => 0,
            },
            encryption: suite.encryption.key_len().saturating_add(suite.encryption.salt_len()),
        }
    }

    /// In the order of RFC 7296 2.14.
    const fn in_order(self) -> [usize; 7] {
        let Self { prf, integrity, encryption } = self;
        [prf, integrity, integrity, encryption, encryption, prf, prf]
    }
}

impl IkeKeys {
    /// The keys of an IKE SA made by IKE_SA_INIT (RFC 7296 2.14), from the shared secret, the
    /// nonces and the SPIs, each time the initiator's first.
    #[must_use]
    pub fn derive(
        suite: IkeSuite,
        shared: &[u8],
        ni: &[u8],
        nr: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let skeyseed = prf(suite.prf, &[ni, nr].concat(), &[shared]);
        Self::expand(suite, &skeyseed, ni, nr, spi_i, spi_r)
    }

    /// The keys of an IKE SA that takes the place of this one (RFC 7296 2.18). `old_prf` is the
    /// function of this SA; `shared`, the nonces and the SPIs come from the exchange that rekeys.
    ///
    /// An additional key exchange after IKE_SA_INIT gives the same IKE SA new keys by the same
    /// formula, with the nonces and the SPIs that it has (RFC 9370 2.2.2). `additional` are the
    /// secrets of IKE_FOLLOWUP_KE, one after the other (RFC 9370 2.2.4).
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "the formula has as many")]
    pub fn derive_rekeyed(
        &self,
        old_prf: Prf,
        suite: IkeSuite,
        shared: &[u8],
        ni: &[u8],
        nr: &[u8],
        additional: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let skeyseed = prf(old_prf, self.sk_d(), &[shared, ni, nr, additional]);
        let keys = Self::expand(suite, &skeyseed, ni, nr, spi_i, spi_r);
        // What comes by SHA-1 from the old keys is no stronger than its 160 bits.
        let safe = self.quantum_safe || keys.quantum_safe;
        let quantum_safe = safe && !old_prf.is_sha1() && !suite.has_sha1();
        Self { ppk: self.ppk, quantum_safe, ..keys }
    }

    /// These keys with a PPK mixed in: what begets further keys, and what enters AUTH; what
    /// protects the messages of this IKE SA stays (RFC 8784 3).
    #[must_use]
    pub fn with_ppk(&self, suite: IkeSuite, ppk: &[u8]) -> Self {
        let mix = |key: &[u8]| prf_plus(suite.prf, ppk, &[key], key.len());
        let (sk_d, sk_pi, sk_pr) = (mix(self.sk_d()), mix(self.sk_pi()), mix(self.sk_pr()));
        let kept = [self.sk_ai(), self.sk_ar(), self.sk_ei(), self.sk_er()];
        // Room for all of it: growing would leave copies of key material behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(self.octets.len()));
        for key in [sk_d.as_slice()].into_iter().chain(kept).chain([&**sk_pi, &**sk_pr]) {
            octets.extend_from_slice(key);
        }
        Self { octets, lengths: self.lengths, ppk: true, quantum_safe: !suite.has_sha1() }
    }

    /// Whether a PPK went into them, or into those that they come from.
    #[must_use]
    pub const fn has_ppk(&self) -> bool {
        self.ppk
    }

    /// Whether they withstand quantum computers, once all key exchanges of their suite are done:
    /// ML-KEM or a PPK went into them, or into those that they come from by way of SK_d, and no
    /// SHA-1 made keys of it.
    #[must_use]
    pub const fn is_quantum_safe(&self) -> bool {
        self.quantum_safe
    }

    fn expand(
        suite: IkeSuite,
        skeyseed: &[u8],
        ni: &[u8],
        nr: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let lengths = Lengths::of(suite);
        let total = lengths.in_order().iter().fold(0, |sum: usize, len| sum.saturating_add(*len));
        let octets = prf_plus(suite.prf, skeyseed, &[ni, nr, &spi_i.0, &spi_r.0], total);
        Self { octets, lengths, ppk: false, quantum_safe: suite.is_quantum_safe() }
    }

    /// The key at a place of RFC 7296 2.14. One that came out too short is refused by whoever
    /// uses it.
    fn key(&self, place: usize) -> &[u8] {
        let mut octets = self.octets.as_slice();
        for length in self.lengths.in_order().into_iter().take(place) {
            octets = octets.get(length..).unwrap_or_default();
        }
        let length = self.lengths.in_order().get(place).copied().unwrap_or_default();
        octets.get(..length).unwrap_or(octets)
    }

    /// Begets the keys of Child SAs and of the next IKE SA.
    #[must_use]
    pub fn sk_d(&self) -> &[u8] {
        self.key(0)
    }

    /// Authenticates the initiator's messages; empty with an AEAD.
    #[must_use]
    pub fn sk_ai(&self) -> &[u8] {
        self.key(1)
    }

    /// Authenticates the responder's messages; empty with an AEAD.
    #[must_use]
    pub fn sk_ar(&self) -> &[u8] {
        self.key(2)
    }

    /// Encrypts the initiator's messages: the cipher's key, then its salt.
    #[must_use]
    pub fn sk_ei(&self) -> &[u8] {
        self.key(3)
    }

    /// Encrypts the responder's messages: the cipher's key, then its salt.
    #[must_use]
    pub fn sk_er(&self) -> &[u8] {
        self.key(4)
    }

    /// Enters the initiator's AUTH.
    #[must_use]
    pub fn sk_pi(&self) -> &[u8] {
        self.key(5)
    }

    /// Enters the responder's AUTH.
    #[must_use]
    pub fn sk_pr(&self) -> &[u8] {
        self.key(6)
    }
}

impl fmt::Debug for IkeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IkeKeys […]")
    }
}

/// The keys of one direction of a Child SA: encryption (the cipher's key, then its salt) and
/// integrity (empty with an AEAD).
pub type DirectionKeys = (Key, Key);

/// The keys of a Child SA. Debug prints no octet.
#[derive(Clone)]
pub struct ChildKeys {
    initiator: DirectionKeys,
    responder: DirectionKeys,
}

impl ChildKeys {
    /// The keys of a Child SA (RFC 7296 2.17). `shared` is the secret of a key exchange of its
    /// own, if there was one; the nonces are those of the exchange that makes it; `additional` are
    /// the secrets of IKE_FOLLOWUP_KE, one after the other (RFC 9370 2.2.4).
    #[must_use]
    pub fn derive(
        prf: Prf,
        sk_d: &[u8],
        shared: Option<&[u8]>,
        ni: &[u8],
        nr: &[u8],
        additional: &[u8],
        suite: EspSuite,
    ) -> Self {
        let encryption_len = suite.encryption.key_len().saturating_add(suite.encryption.salt_len());
        let integrity_len = suite.integrity.map_or(0, |a| a.key_len());
        let seed = [shared.unwrap_or_default(), ni, nr, additional];
        let lengths = [encryption_len, integrity_len, encryption_len, integrity_len];
        let [ei, ai, er, ar] = keys(prf, sk_d, &seed, lengths);
        Self { initiator: (ei, ai), responder: (er, ar) }
    }

    /// Our outbound and our inbound keys. `initiator`: whether we began the exchange that made
    /// this Child SA.
    #[must_use]
    pub const fn by_direction(&self, initiator: bool) -> (&DirectionKeys, &DirectionKeys) {
        if initiator {
            (&self.initiator, &self.responder)
        } else {
            (&self.responder, &self.initiator)
        }
    }
}

impl fmt::Debug for ChildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildKeys […]")
    }
}

/// The octets that the AUTH of one side covers, whatever the method (RFC 7296 2.15): its first
/// message, the other side's nonce, and its identity under `sk_p`, which is `SK_pi` for the
/// initiator and `SK_pr` for the responder.
///
/// `message` is the whole IKE_SA_INIT message as it was sent, without a non-ESP marker; `id_body`
/// is the ID payload without its generic header; `int_auth` authenticates the IKE_INTERMEDIATE
/// messages, if there were any (RFC 9242 3.3.2).
#[must_use]
pub fn signed_octets(
    algorithm: Prf,
    sk_p: &[u8],
    message: &[u8],
    peer_nonce: &[u8],
    id_body: &[u8],
    int_auth: &[u8],
) -> Vec<u8> {
    [message, peer_nonce, &prf(algorithm, sk_p, &[id_body]), int_auth].concat()
}

/// The AUTH data with a key that both ends share, over [`signed_octets`] (RFC 7296 2.15).
#[must_use]
pub fn shared_key_auth(algorithm: Prf, key: &[u8], octets: &[u8]) -> Key {
    prf(algorithm, &prf(algorithm, key, &[b"Key Pad for IKEv2"]), &[octets])
}

/// `prf+(key, seed)` cut into keys of the given lengths.
fn keys<const N: usize>(
    algorithm: Prf,
    key: &[u8],
    seed: &[&[u8]],
    lengths: [usize; N],
) -> [Key; N] {
    let total = lengths.iter().fold(0, |sum: usize, length| sum.saturating_add(*length));
    let material = prf_plus(algorithm, key, seed, total);
    let mut octets = material.iter().copied();
    // A key that comes out too short is refused by whoever uses it.
    lengths.map(|length| Zeroizing::new(octets.by_ref().take(length).collect()))
}
