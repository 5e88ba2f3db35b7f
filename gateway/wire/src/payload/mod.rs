//! Payloads (RFC 7296 3.2 to 3.16), one module each.

mod auth;
mod cert;
mod cp;
mod delete;
mod eap;
mod encrypted;
mod id;
mod ke;
mod nonce;
mod notify;
mod sa;
mod ts;

pub use auth::{Authentication, SignatureAuthentication};
pub use cert::{Certificate, CertificateRequest};
pub use cp::{Configuration, ConfigurationAttribute};
pub use delete::Delete;
pub use eap::Eap;
pub use encrypted::{Encrypted, EncryptedFragment};
pub use id::Identification;
pub use ke::KeyExchange;
pub use nonce::Nonce;
pub use notify::Notify;
pub use sa::{Proposal, SecurityAssociation, Transform};
pub use ts::{TrafficSelector, TrafficSelectors, TsEntry, UnknownTrafficSelector};

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{DecodeError, EncodeError, PayloadType};

/// A payload of an IKE message. Whatever can be large is borrowed from the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// SA (RFC 7296 3.3).
    SecurityAssociation(SecurityAssociation),
    /// KE (RFC 7296 3.4).
    KeyExchange(KeyExchange<'a>),
    /// IDi (RFC 7296 3.5).
    IdInitiator(Identification<'a>),
    /// IDr (RFC 7296 3.5).
    IdResponder(Identification<'a>),
    /// CERT (RFC 7296 3.6).
    Certificate(Certificate<'a>),
    /// CERTREQ (RFC 7296 3.7).
    CertificateRequest(CertificateRequest<'a>),
    /// AUTH (RFC 7296 3.8).
    Authentication(Authentication<'a>),
    /// Ni, Nr (RFC 7296 3.9).
    Nonce(Nonce<'a>),
    /// N (RFC 7296 3.10).
    Notify(Notify<'a>),
    /// D (RFC 7296 3.11).
    Delete(Delete),
    /// V (RFC 7296 3.12): any octets, by which implementations recognise each other.
    VendorId(&'a [u8]),
    /// TSi (RFC 7296 3.13).
    TsInitiator(TrafficSelectors),
    /// TSr (RFC 7296 3.13).
    TsResponder(TrafficSelectors),
    /// SK (RFC 7296 3.14).
    Encrypted(Encrypted<'a>),
    /// SKF (RFC 7383 2.5).
    EncryptedFragment(EncryptedFragment<'a>),
    /// CP (RFC 7296 3.15).
    Configuration(Configuration<'a>),
    /// EAP (RFC 7296 3.16).
    Eap(Eap<'a>),
    /// Of a type that is not known here and not critical: to be skipped (RFC 7296 2.5).
    Unknown(Unknown<'a>),
}

/// A payload of a type that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// Its type.
    pub kind: PayloadType,
    /// Whether the receiver must refuse the message if it does not know the type. Such a chain is
    /// a [`crate::ChainError::UnsupportedCritical`]; only before an Encrypted payload it is left to
    /// the receiver, who first has to know whether the message is authentic.
    pub critical: bool,
    /// Its body.
    pub data: &'a [u8],
}

impl<'a> Payload<'a> {
    /// The number of its type.
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        match self {
            Self::SecurityAssociation(_) => PayloadType::SA,
            Self::KeyExchange(_) => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::ID_I,
            Self::IdResponder(_) => PayloadType::ID_R,
            Self::Certificate(_) => PayloadType::CERT,
            Self::CertificateRequest(_) => PayloadType::CERTREQ,
            Self::Authentication(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TsInitiator(_) => PayloadType::TS_I,
            Self::TsResponder(_) => PayloadType::TS_R,
            Self::Encrypted(_) => PayloadType::SK,
            Self::EncryptedFragment(_) => PayloadType::SKF,
            Self::Configuration(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown(unknown) => unknown.kind,
        }
    }

    /// For SK and SKF, which end the chain: the type of the first payload inside.
    pub(crate) const fn inside(&self) -> Option<PayloadType> {
        match self {
            Self::Encrypted(encrypted) => Some(encrypted.first),
            Self::EncryptedFragment(fragment) => Some(fragment.first),
            Self::SecurityAssociation(_)
            | Self::KeyExchange(_)
            | Self::IdInitiator(_)
            | Self::IdResponder(_)
            | Self::Certificate(_)
            | Self::CertificateRequest(_)
            | Self::Authentication(_)
            | Self::Nonce(_)
            | Self::Notify(_)
            | Self::Delete(_)
            | Self::VendorId(_)
            | Self::TsInitiator(_)
            | Self::TsResponder(_)
            | Self::Configuration(_)
            | Self::Eap(_)
            | Self::Unknown(_) => None,
        }
    }

    /// Reads the body of a payload that can be read by itself: `None` for an unknown type, and
    /// for SK and SKF, which need to know where they stand.
    pub(crate) fn decode(
        kind: PayloadType,
        body: &mut Reader<'a>,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            PayloadType::SA => Self::SecurityAssociation(SecurityAssociation::decode(body)?),
            PayloadType::KE => Self::KeyExchange(KeyExchange::decode(body)?),
            PayloadType::ID_I => Self::IdInitiator(Identification::decode(body)?),
            PayloadType::ID_R => Self::IdResponder(Identification::decode(body)?),
            PayloadType::CERT => Self::Certificate(Certificate::decode(body)?),
            PayloadType::CERTREQ => Self::CertificateRequest(CertificateRequest::decode(body)?),
            PayloadType::AUTH => Self::Authentication(Authentication::decode(body)?),
            PayloadType::NONCE => Self::Nonce(Nonce::decode(body)?),
            PayloadType::NOTIFY => Self::Notify(Notify::decode(body)?),
            PayloadType::DELETE => Self::Delete(Delete::decode(body)?),
            PayloadType::VENDOR_ID => Self::VendorId(body.rest()),
            PayloadType::TS_I => Self::TsInitiator(TrafficSelectors::decode(body)?),
            PayloadType::TS_R => Self::TsResponder(TrafficSelectors::decode(body)?),
            PayloadType::CP => Self::Configuration(Configuration::decode(body)?),
            PayloadType::EAP => Self::Eap(Eap::decode(body)?),
            _ => return Ok(None),
        }))
    }

    /// Writes the body.
    pub(crate) fn encode(&self, body: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::SecurityAssociation(sa) => sa.encode(body)?,
            Self::KeyExchange(ke) => ke.encode(body),
            Self::IdInitiator(id) | Self::IdResponder(id) => id.encode(body)?,
            Self::Certificate(cert) => cert.encode(body),
            Self::CertificateRequest(request) => request.encode(body),
            Self::Authentication(auth) => auth.encode(body),
            Self::Nonce(nonce) => nonce.encode(body)?,
            Self::Notify(notify) => notify.encode(body)?,
            Self::Delete(delete) => delete.encode(body)?,
            Self::VendorId(octets) => body.octets(octets),
            Self::TsInitiator(selectors) | Self::TsResponder(selectors) => {
                selectors.encode(body)?
            }
            Self::Encrypted(encrypted) => body.octets(encrypted.body),
            Self::EncryptedFragment(fragment) => fragment.encode(body)?,
            Self::Configuration(configuration) => configuration.encode(body)?,
            Self::Eap(eap) => eap.encode(body)?,
            Self::Unknown(unknown) => body.octets(unknown.data),
        }
        Ok(())
    }
}
