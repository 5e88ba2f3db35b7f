//! One certificate: what it says, which nobody has verified.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use pki_types::CertificateDer;
use pki_types::pem::PemObject as _;
use x509_cert::der::{DateTime, Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};

use super::{CertificateFault, DistinguishedName};
use crate::config::Identity;
use crate::crypto::signature::{PublicKey, SigningKey};

/// A moment by the wall clock, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    /// As in RFC 3339: `2027-03-01T12:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(date) => date.fmt(f),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

/// A certificate, read and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: DistinguishedName,
    issuer: DistinguishedName,
    not_before: Date,
    not_after: Date,
    /// What subjectAltName holds, of the kinds that an ID payload can name.
    alternative_names: Vec<Identity>,
    /// Whether the key usage, if there is any, allows signatures.
    may_sign: bool,
    key: PublicKey,
}

impl Certificate {
    /// Reads the DER of a certificate.
    ///
    /// # Errors
    /// It does not decode, or its key is of a kind that we do not have.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateFault> {
        let malformed =
            |error: x509_cert::der::Error| CertificateFault::Malformed(error.to_string());
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = certificate.tbs_certificate();
        let name = |name: &x509_cert::name::Name| {
            let der = name.to_der().map_err(malformed)?;
            DistinguishedName::from_der(&der)
                .map_err(|error| CertificateFault::Malformed(error.to_string()))
        };
        let subject = name(tbs.subject())?;
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let key = PublicKey::from_spki(&spki)
            .map_err(|error| CertificateFault::Key { subject: subject.clone(), error })?;
        let names = tbs.get_extension::<SubjectAltName>().map_err(malformed)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?;
        let date = |time: x509_cert::time::Time| Date(time.to_unix_duration().as_secs());
        Ok(Self {
            der: der.to_vec(),
            issuer: name(tbs.issuer())?,
            not_before: date(tbs.validity().not_before),
            not_after: date(tbs.validity().not_after),
            alternative_names: names.iter().filter_map(identity).collect(),
            // RFC 4945 5.1.3.2
            may_sign: usage.is_none_or(|(_, u)| u.digital_signature() || u.non_repudiation()),
            key,
            subject,
        })
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is.
    #[must_use]
    pub const fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// Who issued it.
    #[must_use]
    pub const fn issuer(&self) -> &DistinguishedName {
        &self.issuer
    }

    /// From when on it is valid.
    #[must_use]
    pub const fn not_before(&self) -> Date {
        self.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub const fn not_after(&self) -> Date {
        self.not_after
    }

    /// The key that it certifies.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether its key may sign AUTH.
    pub(super) const fn may_sign(&self) -> bool {
        self.may_sign
    }

    /// Whether it holds an identity: a distinguished name as its subject, every other one in
    /// subjectAltName, whole and of the same kind (RFC 4945 3.1). Wildcards stand for themselves,
    /// and a common name for nothing.
    #[must_use]
    pub fn holds(&self, identity: &Identity) -> bool {
        if let Identity::Dn(name) = identity {
            return name.is(self.subject.der())
                || self
                    .alternative_names
                    .iter()
                    .any(|held| matches!(held, Identity::Dn(held) if name.is(held.der())));
        }
        let (kind, data) = identity.to_wire();
        let id = gateway_wire::Identification::new(kind, &data);
        self.alternative_names.iter().any(|held| held.is(&id))
    }

    /// The identities that it holds.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        let subject = (!self.subject.is_empty()).then(|| Identity::Dn(self.subject.clone()));
        subject.into_iter().chain(self.alternative_names.iter().cloned())
    }
}

fn identity(name: &GeneralName) -> Option<Identity> {
    match name {
        GeneralName::DnsName(name) => Some(Identity::Fqdn(name.as_str().to_owned())),
        GeneralName::Rfc822Name(address) => Some(Identity::Email(address.as_str().to_owned())),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(octets).ok().map(IpAddr::from);
            v4().or_else(v6).map(Identity::Address)
        }
        GeneralName::DirectoryName(name) => {
            DistinguishedName::from_der(&name.to_der().ok()?).ok().map(Identity::Dn)
        }
        GeneralName::OtherName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::UniformResourceIdentifier(_)
        | GeneralName::RegisteredId(_) => None,
    }
}

/// The DER of each certificate in a PEM file.
///
/// # Errors
/// The PEM is broken, or there is no certificate in it.
pub fn certificates_from_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, CertificateFault> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text).map(|one| one.map(|der| der.to_vec())).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            Err(CertificateFault::Malformed("there is no PEM block \"CERTIFICATE\"".to_owned()))
        }
        Err(error) => Err(CertificateFault::Malformed(error.to_string())),
    }
}

/// What we show a peer: our certificate with those that lead to its authority, and its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Credential {
    certificate: Certificate,
    intermediates: Vec<Vec<u8>>,
    key: SigningKey,
}

/// A certificate and a key that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The certificate cannot be used.
    #[error("{0}")]
    Certificate(#[from] CertificateFault),
    /// It is for another key.
    #[error(
        "the certificate of {0} is for another key; the first certificate in the file must be the one for the private key"
    )]
    OtherKey(DistinguishedName),
    /// Its key may not sign.
    #[error("the key usage of {0} does not allow digital signatures")]
    Usage(DistinguishedName),
}

impl Credential {
    /// Takes the DER of certificates, ours first, and our key.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn new(chain: Vec<Vec<u8>>, key: SigningKey) -> Result<Self, CredentialError> {
        let mut chain = chain.into_iter();
        let certificate = Certificate::from_der(&chain.next().unwrap_or_default())?;
        if certificate.key() != key.public() {
            return Err(CredentialError::OtherKey(certificate.subject));
        }
        if !certificate.may_sign {
            return Err(CredentialError::Usage(certificate.subject));
        }
        Ok(Self { certificate, intermediates: chain.collect(), key })
    }

    /// Our certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Our key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// When the first of our certificate and the others ends.
    #[must_use]
    pub fn ends(&self) -> Date {
        let others = self.intermediates.iter().filter_map(|der| Certificate::from_der(der).ok());
        others.map(|other| other.not_after()).fold(self.certificate.not_after(), Ord::min)
    }

    /// The DER of our certificate and of the others, in order.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(self.certificate.der()).chain(self.intermediates.iter().map(Vec::as_slice))
    }
}
