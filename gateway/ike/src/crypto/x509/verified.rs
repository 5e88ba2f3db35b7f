//! A certificate that is believed, and until when that can be relied on.

use core::time::Duration;

use webpki::{Cert, VerifiedPath};

use super::{Certificate, CertificateFault, Date, Revocation, Trust};
use crate::config::Identity;

/// A certificate that is believed, with the dates of the chain by which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) certificate: Certificate,
    /// Until when every certificate of the chain is valid.
    pub(crate) ends: Date,
    /// Until when the verdict stands: then the chain ends or, where the policy demands that
    /// revocation lists and OCSP responses are current, one of those.
    pub(crate) stands: Date,
}

/// How many certificates are looked at, and how large each may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Certificates.
    pub(crate) count: usize,
    /// Octets.
    pub(crate) size: usize,
}

impl Verified {
    pub(super) fn new(
        trust: &Trust,
        certificate: Certificate,
        path: &VerifiedPath<'_>,
        now: Duration,
    ) -> Self {
        let ends_of = |cert: &Cert<'_>| Certificate::from_der(&cert.der()).map(|c| c.not_after());
        // webpki has read each of them: one with a key that only we do not know has no say here.
        let above = path.intermediate_certificates().filter_map(|cert| ends_of(cert).ok());
        let ends = above.fold(certificate.not_after(), Ord::min);
        let lists = trust.lists.iter().filter_map(|list| list.next_update());
        let responses = trust.responses.iter().flat_map(|response| response.next_updates());
        let current = lists.chain(responses).filter(|until| *until > now);
        let first = current.min().filter(|_| trust.revocation == Revocation::Strict);
        let stands = first.map_or(ends, |until| ends.min(Date(until.as_secs())));
        Self { certificate, ends, stands }
    }
}

impl Trust {
    /// Whether the first of these certificates can be believed at this moment, and holds one of
    /// these identities.
    pub(crate) fn identify(
        &self,
        chain: &[&[u8]],
        bounds: Bounds,
        now: Option<Duration>,
        named: &[Identity],
    ) -> Result<Verified, CertificateFault> {
        let (found, limit) = (chain.len(), bounds.count);
        if found > limit {
            return Err(CertificateFault::TooMany { found, limit });
        }
        let (found, limit) = (chain.iter().map(|der| der.len()).max().unwrap_or(0), bounds.size);
        if found > limit {
            return Err(CertificateFault::TooLarge { found, limit });
        }
        let verified = self.believe(chain, now.ok_or(CertificateFault::NoTime)?)?;
        let certificate = &verified.certificate;
        if named.iter().any(|name| certificate.holds(name)) {
            return Ok(verified);
        }
        let words = |names: Vec<String>, or| {
            if names.is_empty() { "none".to_owned() } else { names.join(or) }
        };
        Err(CertificateFault::Identity {
            subject: certificate.subject().clone(),
            identity: words(named.iter().map(ToString::to_string).collect(), " or "),
            found: words(certificate.identities().map(|i| i.to_string()).collect(), "; "),
        })
    }
}
