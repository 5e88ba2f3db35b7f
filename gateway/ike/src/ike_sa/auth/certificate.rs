//! CERT and CERTREQ: what we send, and what a peer's amount to (RFC 7296 3.6, 3.7; RFC 7670).

use core::time::Duration;

use gateway_wire::{CertEncoding, Certificate, CertificateRequest, Payload};

use crate::config::{EndpointConfig, LocalAuth, PeerConfig, RemoteAuth};
use crate::counters::Counter;
use crate::crypto::signature::PublicKey;
use crate::crypto::x509::{Bounds, CertificateFault, Trust, Verified};
use crate::error::AuthenticationFault;
use crate::shared::Shared;

/// Authorities that one CERTREQ names: with the longest value of a key exchange, MODP-2048, they
/// make an IKE_SA_INIT response as long as a packet of 1280 octets can be.
pub(crate) const MOST_AUTHORITIES: usize = 36;

/// What CERTREQ asks for on behalf of some peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// SHA-1 hashes of the keys of authorities.
    authorities: Vec<[u8; 20]>,
    raw: bool,
}

impl Wanted {
    /// What this peer would have to show.
    pub(in crate::ike_sa) fn of(peer: &PeerConfig) -> Self {
        let mut wanted = Self::default();
        wanted.add(peer);
        wanted
    }

    /// What this peer would have to show too.
    pub(crate) fn add(&mut self, peer: &PeerConfig) {
        match &peer.remote_auth {
            RemoteAuth::Psk(_) | RemoteAuth::Eap(_) => {}
            RemoteAuth::Certificate(trust) => self.add_authorities(trust.anchors.key_hashes()),
            RemoteAuth::PublicKey(_) => self.raw = true,
        }
    }

    /// What these would have to show too.
    pub(crate) fn merge(&mut self, others: &Self) {
        self.add_authorities(&others.authorities);
        self.raw |= others.raw;
    }

    /// Whether an authority is named.
    pub(crate) fn names(&self, authority: &[u8; 20]) -> bool {
        self.authorities.contains(authority)
    }

    fn add_authorities(&mut self, more: &[[u8; 20]]) {
        for one in more {
            if self.authorities.len() < MOST_AUTHORITIES && !self.names(one) {
                self.authorities.push(*one);
            }
        }
    }

    pub(in crate::ike_sa) fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let authorities = self.authorities.as_flattened();
        let x509 = (!authorities.is_empty()).then_some((CertEncoding::X509_SIGNATURE, authorities));
        // RFC 7670 3: with this encoding it names no authority.
        let raw = self.raw.then_some((CertEncoding::RAW_PUBLIC_KEY, [].as_slice()));
        x509.into_iter().chain(raw).map(|(encoding, authorities)| {
            Payload::CertificateRequest(CertificateRequest { encoding, authorities })
        })
    }
}

/// The CERT payloads by which a peer finds our public key.
pub(super) fn ours(auth: &LocalAuth) -> Vec<Payload<'_>> {
    let cert = |encoding, data| Payload::Certificate(Certificate { encoding, data });
    match auth {
        LocalAuth::Psk(_) | LocalAuth::Eap(_) => Vec::new(),
        LocalAuth::Certificate(credential) => {
            credential.chain().map(|der| cert(CertEncoding::X509_SIGNATURE, der)).collect()
        }
        LocalAuth::PublicKey(key) => {
            vec![cert(CertEncoding::RAW_PUBLIC_KEY, key.public().spki())]
        }
    }
}

/// Counts the CERT payloads that we make nothing of: above all those that name an address from
/// which to fetch a certificate, which we never ask for (HTTP_CERT_LOOKUP_SUPPORTED, RFC 7296 3.6).
pub(super) fn count_ignored(shared: &mut Shared, certificates: &[Certificate<'_>]) {
    let known = [CertEncoding::X509_SIGNATURE, CertEncoding::RAW_PUBLIC_KEY];
    for _ in certificates.iter().filter(|c| !known.contains(&c.encoding)) {
        shared.count(Counter::CertificateIgnored);
    }
}

/// The peer's certificate, if a chain of those that it sent leads to an authority that we trust,
/// and if it holds the peer's identity.
pub(super) fn verified(
    limits: &EndpointConfig,
    now: Option<Duration>,
    peer: &PeerConfig,
    trust: &Trust,
    certificates: &[Certificate<'_>],
) -> Result<Verified, CertificateFault> {
    let x509 = certificates.iter().filter(|c| c.encoding == CertEncoding::X509_SIGNATURE);
    let chain: Vec<&[u8]> = x509.map(|c| c.data).collect();
    // The first one is that of the peer (RFC 7296 3.6); those of authorities may stand behind it.
    let by_url = [CertEncoding::HASH_AND_URL, CertEncoding::HASH_AND_URL_BUNDLE];
    let is_by_url = |c: &&Certificate<'_>| by_url.contains(&c.encoding);
    let mut shown =
        certificates.iter().filter(|c| c.encoding == CertEncoding::X509_SIGNATURE || is_by_url(c));
    if shown.next().as_ref().is_some_and(is_by_url) {
        return Err(CertificateFault::ByUrl);
    }
    trust.identify(&chain, bounds(limits), now, core::slice::from_ref(&peer.remote_id))
}

/// What is looked at of a chain.
pub(super) const fn bounds(limits: &EndpointConfig) -> Bounds {
    Bounds { count: limits.certificate_chain_limit, size: limits.certificate_size_limit }
}

/// Whether the raw public key that the peer shows, if it does, is the one that we know.
pub(super) fn same_key(
    known: &PublicKey,
    certificates: &[Certificate<'_>],
) -> Result<(), AuthenticationFault> {
    let mut raw = certificates.iter().filter(|c| c.encoding == CertEncoding::RAW_PUBLIC_KEY);
    if raw.any(|c| c.data != known.spki()) {
        return Err(AuthenticationFault::OtherPublicKey);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crypto::x509;
    use crate::testing::{FastKeyExchange, SeededRandom, peer};

    fn shared() -> Shared {
        let config = EndpointConfig::default();
        Shared::new(config, Box::new(SeededRandom::new(1)), Box::new(FastKeyExchange::new(1)))
    }

    fn public() -> PublicKey {
        PublicKey::from_pem(include_bytes!("../../../tests/keys/p256.pub.pem")).unwrap()
    }

    #[test]
    fn hash_and_url_is_counted_and_not_followed() {
        let of = |encoding| Certificate { encoding, data: b"http://192.0.2.1/".as_slice() };
        let sent = [
            of(CertEncoding::HASH_AND_URL),
            of(CertEncoding::HASH_AND_URL_BUNDLE),
            of(CertEncoding::CRL),
            of(CertEncoding::RAW_PUBLIC_KEY),
        ];
        let mut shared = shared();
        count_ignored(&mut shared, &sent);
        assert_eq!(shared.counters.value(Counter::CertificateIgnored), 3);
        let anchors = x509::TrustAnchors::new(&[]).unwrap();
        let trust = Trust {
            anchors,
            revocation: x509::Revocation::Off,
            lists: Vec::new(),
            responses: Vec::new(),
        };
        let now = Some(Duration::from_secs(1));
        let found = verified(&shared.config, now, &peer("p", "a", "b", None), &trust, &sent[..3]);
        assert_eq!(found, Err(CertificateFault::ByUrl));
    }

    #[test]
    fn certreq_names_each_authority_once_and_not_too_many() {
        let pem = include_bytes!("../../../tests/keys/p521-ca.pem");
        let der = x509::certificates_from_pem(pem).unwrap();
        let of = |name: &str, remote_auth| {
            Arc::new(PeerConfig { remote_auth, ..peer(name, "a", "b", None) })
        };
        let trust = || Trust {
            anchors: x509::TrustAnchors::new(&der).unwrap(),
            revocation: x509::Revocation::Off,
            lists: Vec::new(),
            responses: Vec::new(),
        };
        let trusting = || RemoteAuth::Certificate(Arc::new(trust()));
        let (one, two) = (of("one", trusting()), of("two", trusting()));
        let raw = of("raw", RemoteAuth::PublicKey(Arc::new(public())));
        let mut wanted = Wanted::of(&one);
        wanted.add(&two);
        wanted.merge(&Wanted::of(&raw));
        assert_eq!(wanted.authorities, trust().anchors.key_hashes());
        let encodings = wanted.payloads().map(|payload| {
            let Payload::CertificateRequest(request) = payload else { panic!("{payload:?}") };
            request.encoding
        });
        let both = [CertEncoding::X509_SIGNATURE, CertEncoding::RAW_PUBLIC_KEY];
        assert_eq!(encodings.collect::<Vec<_>>(), both);
        assert_eq!(
            Wanted::of(&of("psk", peer("p", "a", "b", None).remote_auth)).payloads().count(),
            0
        );
    }

    #[test]
    fn of_too_many_authorities_those_that_come_first_are_named() {
        let hashes = |numbers: core::ops::Range<u8>| numbers.map(|n| [n; 20]).collect::<Vec<_>>();
        let mut wanted = Wanted::default();
        wanted.add_authorities(&hashes(0..20));
        let others = Wanted { authorities: hashes(10..60), raw: false };
        wanted.merge(&others);
        assert_eq!(wanted.authorities, hashes(0..36));
        assert!(wanted.names(&[35; 20]) && !wanted.names(&[36; 20]));
    }

    #[test]
    fn a_raw_public_key_that_is_shown_must_be_the_known_one() {
        let known = public();
        let of = |data| Certificate { encoding: CertEncoding::RAW_PUBLIC_KEY, data };
        assert_eq!(same_key(&known, &[]), Ok(()));
        assert_eq!(same_key(&known, &[of(known.spki())]), Ok(()));
        let other = Err(AuthenticationFault::OtherPublicKey);
        assert_eq!(same_key(&known, &[of(&known.spki()[1..])]), other);
        assert_eq!(same_key(&known, &[of(known.spki()), of(b"")]), other);
    }
}
