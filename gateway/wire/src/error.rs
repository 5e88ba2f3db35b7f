//! What can be wrong with octets, and with values that are to become octets. No error here
//! allocates: an attacker drives these paths.

use core::error::Error;
use core::fmt;

use crate::{Header, PayloadType};

/// Octets that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// The payload or structure that was being read, such as "NONCE" or "transform".
    pub what: &'static str,
    /// What was wrong with it.
    pub kind: DecodeErrorKind,
}

/// What was wrong with octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// They end before the structure does.
    Truncated,
    /// A length or count that its structure cannot have.
    BadLength,
    /// Octets are left over.
    TrailingData,
    /// A value that its field cannot have.
    BadValue,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DecodeErrorKind::Truncated => "truncated",
            DecodeErrorKind::BadLength => "bad length",
            DecodeErrorKind::TrailingData => "trailing data",
            DecodeErrorKind::BadValue => "bad value",
        };
        write!(f, "{}: {kind}", self.what)
    }
}

impl Error for DecodeError {}

/// Why a datagram's IKE header could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// It is no IKE header, or its length is not the datagram's.
    Decode(DecodeError),
    /// Another major version, which may be answered (RFC 7296 2.5).
    Version(OtherVersion),
}

/// The header of a message whose major version is not 2, as far as all versions share its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherVersion {
    /// The major version: 1 is IKEv1.
    pub major: u8,
    /// The minor version.
    pub minor: u8,
    /// The fields at the places where version 2 has them. In IKEv1 the SPIs are the cookies, and
    /// the exchange types and flags have other meanings (RFC 2408 3.1).
    pub header: Header,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Version(other) => write!(f, "IKE version {}.{}", other.major, other.minor),
        }
    }
}

impl Error for HeaderError {}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// Why a chain of payloads could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// A payload is malformed.
    Decode(DecodeError),
    /// A payload of this type is marked critical and is not known here: the answer is
    /// UNSUPPORTED_CRITICAL_PAYLOAD with the type as its data (RFC 7296 2.5).
    UnsupportedCritical(PayloadType),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::UnsupportedCritical(kind) => {
                write!(f, "critical payload of unknown type {}", kind.0)
            }
        }
    }
}

impl Error for ChainError {}

impl From<DecodeError> for ChainError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// Why a datagram could not be read as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// Its header.
    Header(HeaderError),
    /// Its payloads.
    Chain(ChainError),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Chain(error) => error.fmt(f),
        }
    }
}

impl Error for MessageError {}

impl From<HeaderError> for MessageError {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<ChainError> for MessageError {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

/// A value that has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeError {
    /// The payload or structure that was being written.
    pub what: &'static str,
    /// Why it could not be.
    pub kind: EncodeErrorKind,
}

/// Why a value has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeErrorKind {
    /// It does not fit its length or count field.
    TooLong,
    /// Every decoder would refuse it.
    BadValue,
}

impl EncodeError {
    pub(crate) const fn too_long(what: &'static str) -> Self {
        Self { what, kind: EncodeErrorKind::TooLong }
    }

    pub(crate) const fn bad_value(what: &'static str) -> Self {
        Self { what, kind: EncodeErrorKind::BadValue }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            EncodeErrorKind::TooLong => "too long for its length field",
            EncodeErrorKind::BadValue => "not a valid value",
        };
        write!(f, "{}: {kind}", self.what)
    }
}

impl Error for EncodeError {}
