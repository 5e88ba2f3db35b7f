//! Certificate and Certificate Request (RFC 7296 3.6, 3.7). Their contents are carried, not read.

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{CertEncoding, DecodeError};

/// A certificate, a list of revoked ones, or where to fetch one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// How `data` is to be read.
    pub encoding: CertEncoding,
    /// The certificate data.
    pub data: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { encoding: CertEncoding(body.u8()?), data: body.rest() })
    }

    pub(crate) fn encode(&self, body: &mut Writer) {
        body.u8(self.encoding.0);
        body.octets(self.data);
    }
}

/// Which certification authorities one side trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateRequest<'a> {
    /// The kind of certificate that is wanted.
    pub encoding: CertEncoding,
    /// For X.509: one SHA-1 hash after the other, each of the SubjectPublicKeyInfo of an authority.
    pub authorities: &'a [u8],
}

impl<'a> CertificateRequest<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { encoding: CertEncoding(body.u8()?), authorities: body.rest() })
    }

    pub(crate) fn encode(&self, body: &mut Writer) {
        body.u8(self.encoding.0);
        body.octets(self.authorities);
    }
}
