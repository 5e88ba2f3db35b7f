//! The keys of SAs as the kernel has them, for who is to read captured ESP.

use core::net::IpAddr;

use netlink_packet_xfrm::{
    UserSaInfo, XFRM_USER_SA_INFO_LEN, XFRMA_ALG_AEAD, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_CRYPT,
};
use zeroize::Zeroizing;

use super::{Ours, SaId, decode};
use crate::kernel::netlink::{Message, attribute};

/// Octets of an algorithm's name in the kernel's structures.
const NAME: usize = 64;

/// An SA with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaKeys {
    /// The outer source.
    pub source: IpAddr,
    /// The outer destination and the SPI.
    pub id: SaId,
    /// What encrypts.
    pub encryption: AlgorithmKey,
    /// What authenticates, where that is another algorithm.
    pub integrity: Option<AlgorithmKey>,
}

/// An algorithm with its key. Debug prints no octet of it.
#[derive(Clone, PartialEq, Eq)]
pub struct AlgorithmKey {
    /// Its name in the kernel's crypto API.
    pub name: String,
    /// The key, with the salt behind it where the algorithm has one.
    pub key: Zeroizing<Vec<u8>>,
    /// Bits of the integrity check value; 0 for an algorithm without.
    pub icv_bits: u32,
}

impl core::fmt::Debug for AlgorithmKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AlgorithmKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An SA of ours as a dump shows it; none where the kernel hides keys (lockdown).
pub(super) fn sa(message: &Message<'_>, ours: Ours) -> Option<SaKeys> {
    let (id, _) = decode::sa(message, ours)??;
    let info = UserSaInfo::parse(message.body).ok()?;
    let attributes = message.body.get(XFRM_USER_SA_INFO_LEN..)?;
    // struct xfrm_algo has the length of the key only; the others that of the ICV too.
    let (encryption, integrity) = match attribute(attributes, XFRMA_ALG_AEAD) {
        Some(aead) => (algorithm(aead, true)?, None),
        None => (
            algorithm(attribute(attributes, XFRMA_ALG_CRYPT)?, false)?,
            Some(algorithm(attribute(attributes, XFRMA_ALG_AUTH_TRUNC)?, true)?),
        ),
    };
    let source = decode::ip(info.family, &info.saddr)?;
    let is_hidden = encryption.key.iter().all(|octet| *octet == 0);
    (!is_hidden).then_some(SaKeys { source, id, encryption, integrity })
}

fn algorithm(octets: &[u8], has_icv: bool) -> Option<AlgorithmKey> {
    let (name, rest) = octets.split_at_checked(NAME)?;
    let name = name.split(|octet| *octet == 0).next()?;
    let (bits, rest) = rest.split_first_chunk()?;
    let (icv_bits, rest) = if has_icv {
        let (bits, rest) = rest.split_first_chunk()?;
        (u32::from_ne_bytes(*bits), rest)
    } else {
        (0, rest)
    };
    let length = usize::try_from(u32::from_ne_bytes(*bits).div_ceil(8)).ok()?;
    Some(AlgorithmKey {
        name: String::from_utf8_lossy(name).into_owned(),
        key: Zeroizing::new(rest.get(..length)?.to_vec()),
        icv_bits,
    })
}
