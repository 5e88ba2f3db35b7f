//! Whom we trust, and whether a chain leads there.

use core::time::Duration;

use pki_types::pem::PemObject as _;
use pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use webpki::ring as algorithms;
use webpki::{
    Cert, CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert, spki_for_anchor,
};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::oid::db::DB;
use x509_cert::der::{Decode as _, Encode as _, SliceReader, Tag};

use super::ocsp::{Finding, Issuer, OcspResponse, Signed, consult};
use super::{Certificate, CertificateFault, Date, DistinguishedName, Verified};
use crate::crypto::prf::sha1;
use crate::crypto::signature::P521_CERTIFICATE_SIGNATURES;

/// What authorities may sign certificates and revocation lists with; SHA-1 is not among it.
pub(in crate::crypto) const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    P521_CERTIFICATE_SIGNATURES[0],
    P521_CERTIFICATE_SIGNATURES[1],
    P521_CERTIFICATE_SIGNATURES[2],
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The one of those that are not accepted whose name the crate does not know.
const ECDSA_WITH_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// Purposes in an extended key usage that are good for IKE: id-kp-ipsecIKE and anyExtendedKeyUsage
/// (RFC 4945 5.1.3.12), the older iKEIntermediate, and those of TLS, with which public
/// authorities issue.
const PURPOSES: [&[usize]; 5] = [
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[2, 5, 29, 37, 0],
    &[1, 3, 6, 1, 5, 5, 8, 2, 2],
    &[1, 3, 6, 1, 5, 5, 7, 3, 1],
    &[1, 3, 6, 1, 5, 5, 7, 3, 2],
];

/// Certificates whose keys we trust to certify others, or a self-signed one that is pinned.
#[derive(Debug, PartialEq, Eq)]
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    /// SHA-1 of each one's SubjectPublicKeyInfo.
    key_hashes: Vec<[u8; 20]>,
}

impl TrustAnchors {
    /// Takes the DER of certificates.
    ///
    /// # Errors
    /// One does not decode.
    pub fn new(certificates: &[Vec<u8>]) -> Result<Self, CertificateFault> {
        let malformed = |error: &dyn ToString| CertificateFault::Malformed(error.to_string());
        let mut all = Self { anchors: Vec::new(), subjects: Vec::new(), key_hashes: Vec::new() };
        for der in certificates {
            let der = CertificateDer::from(der.as_slice());
            let anchor = anchor_from_trusted_cert(&der).map_err(|error| malformed(&error))?;
            // webpki keeps the content of the name without its header.
            let name = AnyRef::new(Tag::Sequence, anchor.subject.as_ref())
                .and_then(|name| name.to_der())
                .map_err(|error| malformed(&error))?;
            let subject = DistinguishedName::from_der(&name).map_err(|error| malformed(&error))?;
            all.key_hashes.push(sha1(&[spki_for_anchor(&anchor).as_ref()]));
            all.subjects.push(subject);
            all.anchors.push(anchor.to_owned());
        }
        Ok(all)
    }

    /// What CERTREQ says: the SHA-1 hash of each one's SubjectPublicKeyInfo (RFC 7296 3.7).
    #[must_use]
    pub fn key_hashes(&self) -> &[[u8; 20]] {
        &self.key_hashes
    }

    fn describe(&self) -> String {
        self.subjects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// A list of certificates that their authority has revoked (RFC 5280 5).
#[derive(Debug)]
pub struct RevocationList {
    der: Vec<u8>,
    list: CertRevocationList<'static>,
    /// When there should be a new one, in time since 1970; read once, since lists are long.
    next_update: Option<Duration>,
}

impl RevocationList {
    /// Reads each list in a file, which is PEM or the DER of one.
    ///
    /// # Errors
    /// It is neither, or holds no list.
    pub fn from_file(content: &[u8]) -> Result<Vec<Self>, CertificateFault> {
        let malformed = |error: String| CertificateFault::Malformed(error);
        if content.first() == Some(&0x30) {
            return Self::from_der(content).map(|one| vec![one]);
        }
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(content)
            .collect::<Result<_, _>>()
            .map_err(|error| malformed(error.to_string()))?;
        if lists.is_empty() {
            return Err(malformed("there is no PEM block \"X509 CRL\"".to_owned()));
        }
        lists.iter().map(|der| Self::from_der(der)).collect()
    }

    fn from_der(der: &[u8]) -> Result<Self, CertificateFault> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| CertificateFault::Malformed(error.to_string()))?;
        let whole = CertificateList::<Rfc5280>::from_der(der).ok();
        let next_update = whole.and_then(|whole| whole.tbs_cert_list.next_update);
        let next_update = next_update.map(|time| time.to_unix_duration());
        Ok(Self { der: der.to_vec(), list: list.into(), next_update })
    }

    /// Whether it is of this issuer and names this serial number.
    fn names(&self, issuer: &Issuer<'_>, serial: &[u8]) -> bool {
        self.list.issuer() == issuer.name && matches!(self.list.find_serial(serial), Ok(Some(_)))
    }

    /// Whether it is this issuer's list of all that it has revoked, and current. Which of its
    /// certificates a partial list is about is not judged here: it covers nothing.
    fn covers(&self, issuer: &Issuer<'_>, now: Duration) -> bool {
        self.list.issuer() == issuer.name
            && self.list.issuing_distribution_point().is_none()
            && self.next_update.is_some_and(|until| now <= until)
            && Signed::from_der(&self.der).is_ok_and(|signed| signed.is_by(issuer.spki))
    }

    /// When there should be a new one, in time since 1970.
    pub(super) const fn next_update(&self) -> Option<Duration> {
        self.next_update
    }
}

impl PartialEq for RevocationList {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for RevocationList {}

/// What is demanded of revocation lists and OCSP responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// A current list must cover every certificate of the chain, or a current response say that it
    /// is good.
    Strict,
    /// What a list or response revokes is revoked, even if it is old; what none covers is good.
    IfAvailable,
    /// Neither is consulted.
    Off,
}

/// What a certificate needs in order to be believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Trust {
    /// Where a chain must lead.
    pub anchors: TrustAnchors,
    /// What is demanded of revocation lists.
    pub revocation: Revocation,
    /// The lists.
    pub lists: Vec<RevocationList>,
    /// OCSP responses, of which the policy demands the same.
    pub responses: Vec<OcspResponse>,
}

impl Trust {
    /// Whether the first of these certificates can be believed at this moment, the others being
    /// there to complete the chain. Gives it back.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn verify(&self, chain: &[&[u8]], now: Duration) -> Result<Certificate, CertificateFault> {
        self.believe(chain, now).map(|verified| verified.certificate)
    }

    /// The same, with what the verdict stands on.
    pub(super) fn believe(
        &self,
        chain: &[&[u8]],
        now: Duration,
    ) -> Result<Verified, CertificateFault> {
        let (leaf, others) = chain.split_first().ok_or(CertificateFault::Absent)?;
        let certificate = Certificate::from_der(leaf)?;
        if !certificate.may_sign() {
            return Err(CertificateFault::Usage {
                subject: certificate.subject().clone(),
                reason: "its key usage does not allow digital signatures".to_owned(),
            });
        }
        let der = CertificateDer::from(*leaf);
        let entity = EndEntityCert::try_from(&der)
            .map_err(|error| self.fault(error, &certificate, others))?;
        let others_der: Vec<_> = others.iter().map(|der| CertificateDer::from(*der)).collect();
        let lists: Vec<_> = self.lists.iter().map(|l| &l.list).collect();
        let path = entity
            .verify_for_usage(
                SIGNATURES,
                &self.anchors.anchors,
                &others_der,
                UnixTime::since_unix_epoch(now),
                Purposes,
                self.options(&lists),
                None,
            )
            .map_err(|error| self.fault(error, &certificate, others))?;
        if self.revocation != Revocation::Off && !self.responses.is_empty() {
            self.check_responses(&path, now, &certificate)?;
        }
        Ok(Verified::new(self, certificate, &path, now))
    }

    /// What OCSP responses say of each certificate of a chain, and, with the strict policy, whether
    /// a list covers what they do not.
    fn check_responses(
        &self,
        path: &VerifiedPath<'_>,
        now: Duration,
        certificate: &Certificate,
    ) -> Result<(), CertificateFault> {
        let anchor = path.anchor();
        let anchor_spki = spki_for_anchor(anchor);
        let above: Vec<&Cert<'_>> = path.intermediate_certificates().collect();
        let leaf: &Cert<'_> = path.end_entity();
        for cert in core::iter::once(leaf).chain(above.iter().copied()) {
            let issued = |authority: &&&Cert<'_>| authority.subject() == cert.issuer();
            let spki =
                above.iter().find(issued).map(|authority| authority.subject_public_key_info());
            let spki = spki.as_ref().unwrap_or(&anchor_spki);
            let issuer = Issuer { name: cert.issuer(), spki: spki.as_ref() };
            let revoked = |serial: &[u8]| self.lists.iter().any(|list| list.names(&issuer, serial));
            match consult(&self.responses, cert, &issuer, now, revoked) {
                Finding::Good => {}
                Finding::Revoked => {
                    return Err(CertificateFault::Revoked(certificate.subject().clone()));
                }
                Finding::Nothing(reason) => {
                    let covered = || self.lists.iter().any(|list| list.covers(&issuer, now));
                    if self.revocation == Revocation::Strict && !covered() {
                        let subject = Certificate::from_der(&cert.der()).map_or_else(
                            |_unreadable| "an authority".to_owned(),
                            |c| c.subject().to_string(),
                        );
                        return Err(CertificateFault::StatusUnknown { subject, reason });
                    }
                }
            }
        }
        Ok(())
    }

    fn options<'a>(
        &self,
        lists: &'a [&'a CertRevocationList<'a>],
    ) -> Option<RevocationOptions<'a>> {
        let (unknown, expiration) = match self.revocation {
            Revocation::Off => return None,
            Revocation::Strict if self.responses.is_empty() => {
                (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce)
            }
            // With responses it is judged afterwards what neither covers.
            Revocation::Strict | Revocation::IfAvailable => {
                (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore)
            }
        };
        // Without lists there is nothing to consult; policy does not allow "strict" then.
        let builder = RevocationOptionsBuilder::new(lists).ok()?;
        Some(builder.with_status_policy(unknown).with_expiration_policy(expiration).build())
    }

    /// What validation found, in our words.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever has no words of its own here is told in those of the library"
    )]
    fn fault(
        &self,
        error: webpki::Error,
        certificate: &Certificate,
        others: &[&[u8]],
    ) -> CertificateFault {
        use webpki::Error as E;
        let subject = certificate.subject().clone();
        match error {
            E::CertExpired { not_after, .. } => {
                let since = Date(not_after.as_secs());
                let whose = whose(certificate, others, |c| c.not_after() == since);
                CertificateFault::Expired { subject: whose, since }
            }
            E::CertNotValidYet { not_before, .. } => {
                let from = Date(not_before.as_secs());
                let whose = whose(certificate, others, |c| c.not_before() == from);
                CertificateFault::NotYetValid { subject: whose, from }
            }
            E::CertRevoked => CertificateFault::Revoked(subject),
            E::UnknownRevocationStatus => CertificateFault::RevocationUnknown(subject),
            E::CrlExpired { next_update, .. } => CertificateFault::RevocationListExpired {
                subject,
                since: Date(next_update.as_secs()),
            },
            E::UnknownIssuer => CertificateFault::NoChain {
                subject,
                issuer: certificate.issuer().clone(),
                anchors: self.anchors.describe(),
            },
            E::UnsupportedSignatureAlgorithmContext(context) => CertificateFault::Algorithm {
                subject,
                algorithm: algorithm(&context.signature_algorithm_id),
            },
            E::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
                CertificateFault::Algorithm {
                    subject,
                    algorithm: algorithm(&context.signature_algorithm_id),
                }
            }
            E::InvalidSignatureForPublicKey => CertificateFault::WrongSignature(subject),
            E::NameConstraintViolation => CertificateFault::NameConstraints(subject),
            E::CaUsedAsEndEntity => CertificateFault::Usage {
                subject,
                reason: "it is the certificate of an authority".to_owned(),
            },
            E::RequiredEkuNotFoundContext(context) => {
                let purposes = context
                    .present
                    .iter()
                    .map(|oid| oid.iter().map(ToString::to_string).collect::<Vec<_>>().join("."));
                let purposes = purposes.collect::<Vec<_>>().join(", ");
                let reason = format!(
                    "the purposes in its extended key usage, or an authority's, are {purposes}"
                );
                CertificateFault::Usage { subject, reason }
            }
            other => CertificateFault::Other { subject, reason: other.to_string() },
        }
    }
}

/// The name of a signature algorithm, or its object identifier.
fn algorithm(identifier: &[u8]) -> String {
    let oid = SliceReader::new(identifier).and_then(|mut r| ObjectIdentifier::decode(&mut r));
    match oid {
        Ok(ECDSA_WITH_SHA1) => "ecdsa-with-SHA1".to_owned(),
        Ok(oid) => DB.by_oid(&oid).map_or_else(|| oid.to_string(), str::to_owned),
        Err(_) => "an unknown algorithm".to_owned(),
    }
}

/// Whose certificate of a chain it is, by some mark.
fn whose(certificate: &Certificate, others: &[&[u8]], is: impl Fn(&Certificate) -> bool) -> String {
    if is(certificate) {
        return certificate.subject().to_string();
    }
    let mut others = others.iter().filter_map(|der| Certificate::from_der(der).ok());
    let found = others.find(|c| is(c)).map(|c| c.subject().to_string());
    found.unwrap_or_else(|| format!("an authority of {}", certificate.subject()))
}

/// Accepts a certificate without an extended key usage, and one with a purpose that is good for
/// IKE.
#[derive(Debug, Clone, Copy)]
struct Purposes;

impl ExtendedKeyUsageValidator for Purposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let oid = purpose?.to_decoded_oid();
            if PURPOSES.contains(&oid.as_slice()) {
                return Ok(());
            }
            present.push(oid);
        }
        if present.is_empty() {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
            required: webpki::KeyUsage::server_auth(),
            present,
        }))
    }
}
