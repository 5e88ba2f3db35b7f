//! X.509 certificates (RFC 5280): what they say, and whether they can be believed.

mod certificate;
mod fault;
mod name;
mod ocsp;
mod trust;
mod verified;

#[cfg(test)]
mod ocsp_tests;
#[cfg(test)]
mod tests;

pub use self::certificate::{
    Certificate, Credential, CredentialError, Date, certificates_from_pem,
};
pub use self::fault::CertificateFault;
pub(crate) use self::name::NormalName;
pub use self::name::{DistinguishedName, NameError};
pub use self::ocsp::OcspResponse;
pub(super) use self::trust::SIGNATURES;
pub use self::trust::{Revocation, RevocationList, Trust, TrustAnchors};
pub(crate) use self::verified::{Bounds, Verified};
