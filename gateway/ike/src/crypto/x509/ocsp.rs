//! What an authority says of single certificates by OCSP (RFC 6960), from files.
//!
//! Chains and revocation lists are validated by webpki, which has no OCSP. x509-ocsp, which says of
//! itself that it is not ready to use, and rasn-ocsp have its formats alone, and leave to the caller
//! whose signature counts and for how long. So the rules of RFC 6960 3.2 and 4.2.2.2 are here; what
//! parses is `der`, and what verifies signatures are the algorithms that webpki is given too.

use core::time::Duration;

use pki_types::SignatureVerificationAlgorithm;
use webpki::Cert;
use x509_cert::der::asn1::{
    AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef,
};
use x509_cert::der::{
    Decode as _, Encode as _, Error as DerError, ErrorKind, Reader as _, SliceReader, Tag,
    TagNumber,
};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierRef;

use super::trust::SIGNATURES;
use super::{CertificateFault, Date};
use crate::crypto::prf::sha1;

/// id-pkix-ocsp-basic (RFC 6960 4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// id-kp-OCSPSigning (RFC 6960 4.2.2.2).
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
/// id-sha1, by which nearly every responder names certificates: nothing hangs on its strength,
/// since the names are signed with.
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// id-sha256.
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// The extensions of a responder's certificate that mean nothing more than what is looked at: basic
/// constraints, since it issues nothing; key usage; extended key usage; and id-pkix-ocsp-nocheck.
const OF_RESPONDERS: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5"),
];
/// How far a responder's clock may be before ours.
const SKEW: Duration = Duration::from_secs(300);
/// Certificates of delegated responders that are looked at in one response.
const MOST_DELEGATES: usize = 4;

/// A response of an OCSP responder: what its authority says of some certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponse {
    signed: Signed,
    /// What the responder sends along, to show by whom it is delegated.
    certificates: Vec<Vec<u8>>,
    answers: Vec<Answer>,
}

/// What it says of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    hash: Hash,
    issuer_name: Vec<u8>,
    issuer_key: Vec<u8>,
    serial: Vec<u8>,
    status: Status,
    this_update: Duration,
    next_update: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Octets with a signature, as certificates, lists and responses have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    octets: Vec<u8>,
    /// The content of the AlgorithmIdentifier.
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

/// Who issued a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issuer<'a> {
    /// The content of its name.
    pub(super) name: &'a [u8],
    /// Its SubjectPublicKeyInfo.
    pub(super) spki: &'a [u8],
}

/// What the responses say of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is good, by a current response.
    Good,
    /// It has been revoked.
    Revoked,
    /// They say nothing of use, for this reason.
    Nothing(String),
}

impl OcspResponse {
    /// Reads the DER of a response, as `openssl ocsp -respout` writes it.
    ///
    /// # Errors
    /// It is none, or one that says that the responder could not answer.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateFault> {
        let malformed = |error: DerError| CertificateFault::Malformed(error.to_string());
        // OCSPResponse (RFC 6960 4.2.1).
        let (status, bytes) = in_sequence(der, |reader| {
            let status = reader.decode::<AnyRef<'_>>()?;
            Ok((status, explicit(reader, 0)?))
        })
        .map_err(malformed)?;
        if (status.header().tag(), status.value()) != (Tag::Enumerated, &[0][..]) {
            let text = "it says that the responder could not answer";
            return Err(CertificateFault::Malformed(text.to_owned()));
        }
        let missing = || CertificateFault::Malformed("it holds no response".to_owned());
        let bytes = bytes.ok_or_else(missing)?;
        let (kind, basic) = in_sequence(bytes, |reader| {
            Ok((ObjectIdentifier::decode(reader)?, <&OctetStringRef>::decode(reader)?.as_bytes()))
        })
        .map_err(malformed)?;
        if kind != BASIC {
            return Err(CertificateFault::Malformed(format!("it is of type {kind}, not basic")));
        }
        Self::from_basic(basic).map_err(malformed)
    }

    /// When there should be new answers, in time since 1970.
    pub(super) fn next_updates(&self) -> impl Iterator<Item = Duration> {
        self.answers.iter().filter_map(|answer| answer.next_update)
    }

    /// BasicOCSPResponse.
    fn from_basic(der: &[u8]) -> Result<Self, DerError> {
        let (signed, certificates) = in_sequence(der, |reader| {
            let signed = Signed::read(reader)?;
            let list = explicit(reader, 0)?;
            Ok((signed, list.map(each).transpose()?.unwrap_or_default()))
        })?;
        let answers = in_sequence(&signed.octets, |reader| {
            let _version = explicit(reader, 0)?;
            let _responder = reader.tlv_bytes()?;
            let _produced_at = GeneralizedTime::decode(reader)?;
            let answers = each(reader.tlv_bytes()?)?;
            refuse_critical(explicit(reader, 1)?)?;
            Ok(answers)
        })?;
        let answers = answers.into_iter().map(Answer::from_der).collect::<Result<Vec<_>, _>>()?;
        let certificates = certificates.into_iter().map(<[u8]>::to_vec).collect();
        // What a responder names by another hash matches nothing of ours.
        Ok(Self { signed, certificates, answers: answers.into_iter().flatten().collect() })
    }

    /// Whether the authority itself, or a responder that it has delegated, has signed it
    /// (RFC 6960 4.2.2.2). `revoked`: whether a list names a certificate of the authority.
    fn check_signer(
        &self,
        issuer: &Issuer<'_>,
        now: Duration,
        revoked: impl Fn(&[u8]) -> bool,
    ) -> Result<(), String> {
        if self.signed.is_by(issuer.spki) {
            return Ok(());
        }
        let mut why = "it is not signed by the authority".to_owned();
        for der in self.certificates.iter().take(MOST_DELEGATES) {
            match delegate(der, issuer, now, &revoked) {
                Ok(spki) if self.signed.is_by(&spki) => return Ok(()),
                Ok(_) => {}
                Err(fault) => why = fault,
            }
        }
        Err(why)
    }
}

/// What the responses say of a certificate of this issuer. The youngest answer counts; one that is
/// too old still tells what has been revoked.
pub(super) fn consult(
    responses: &[OcspResponse],
    certificate: &Cert<'_>,
    issuer: &Issuer<'_>,
    now: Duration,
    revoked: impl Fn(&[u8]) -> bool,
) -> Finding {
    let mut why = "no response is about it".to_owned();
    let mut best: Option<&Answer> = None;
    for response in responses {
        let about = response.answers.iter().filter(|a| a.is_about(certificate.serial(), issuer));
        let Some(answer) = about.max_by_key(|a| a.age()) else { continue };
        match response.check_signer(issuer, now, &revoked) {
            Err(fault) => why = fault,
            Ok(()) if answer.this_update > now.saturating_add(SKEW) => {
                let from = Date(answer.this_update.as_secs());
                why = format!("the response is of {from}, which is yet to come");
            }
            Ok(()) if best.is_none_or(|b| b.age() < answer.age()) => {
                best = Some(answer);
            }
            Ok(()) => {}
        }
    }
    let Some(answer) = best else { return Finding::Nothing(why) };
    match (answer.status, answer.next_update) {
        (Status::Revoked, _) => Finding::Revoked,
        (Status::Unknown, _) => Finding::Nothing("the responder does not know it".to_owned()),
        (Status::Good, Some(until)) if now <= until => Finding::Good,
        (Status::Good, Some(until)) => {
            let until = Date(until.as_secs());
            Finding::Nothing(format!("the response should have been replaced by {until}"))
        }
        (Status::Good, None) => {
            Finding::Nothing("the response does not say until when it is good".to_owned())
        }
    }
}

impl Answer {
    /// SingleResponse; `None`: it names its certificate by a hash that we do not have.
    fn from_der(der: &[u8]) -> Result<Option<Self>, DerError> {
        in_sequence(der, |reader| {
            let (hash, issuer_name, issuer_key, serial) = reader.sequence(|id| {
                let hash = AlgorithmIdentifierRef::decode(id)?.oid;
                let name = <&OctetStringRef>::decode(id)?.as_bytes().to_vec();
                let key = <&OctetStringRef>::decode(id)?.as_bytes().to_vec();
                let serial = id.decode::<AnyRef<'_>>()?;
                serial.header().tag().assert_eq(Tag::Integer)?;
                Ok::<_, DerError>((hash, name, key, serial.value().to_vec()))
            })?;
            let status = reader.decode::<AnyRef<'_>>()?.header().tag();
            let status = match status.number().0 {
                _ if !status.is_context_specific() => {
                    return Err(ErrorKind::TagUnexpected { expected: None, actual: status }.into());
                }
                0 => Status::Good,
                1 => Status::Revoked,
                _ => Status::Unknown,
            };
            let this_update = GeneralizedTime::decode(reader)?.to_unix_duration();
            let next_update = explicit(reader, 0)?
                .map(GeneralizedTime::from_der)
                .transpose()?
                .map(|time| time.to_unix_duration());
            refuse_critical(explicit(reader, 1)?)?;
            let hash = match hash {
                SHA1 => Hash::Sha1,
                SHA256 => Hash::Sha256,
                _ => return Ok(None),
            };
            let answer =
                Self { hash, issuer_name, issuer_key, serial, status, this_update, next_update };
            Ok(Some(answer))
        })
    }

    /// The order in which answers count, the last one most: of two of one moment the bad one, and
    /// then the one that is good for longer.
    fn age(&self) -> (Duration, bool, Option<Duration>) {
        (self.this_update, self.status == Status::Revoked, self.next_update)
    }

    fn is_about(&self, serial: &[u8], issuer: &Issuer<'_>) -> bool {
        let Ok(name) = AnyRef::new(Tag::Sequence, issuer.name).and_then(|name| name.to_der())
        else {
            return false;
        };
        let Some((_, key)) = key_of(issuer.spki) else { return false };
        self.serial == serial
            && self.hash.is(&name, &self.issuer_name)
            && self.hash.is(key, &self.issuer_key)
    }
}

impl Hash {
    fn is(self, octets: &[u8], hash: &[u8]) -> bool {
        match self {
            Self::Sha1 => sha1(&[octets]) == hash,
            Self::Sha256 => ring::digest::digest(&ring::digest::SHA256, octets).as_ref() == hash,
        }
    }
}

impl Signed {
    /// Reads what is signed from the DER of a whole certificate or list.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, DerError> {
        in_sequence(der, Self::read)
    }

    fn read(reader: &mut SliceReader<'_>) -> Result<Self, DerError> {
        let octets = reader.tlv_bytes()?.to_vec();
        let algorithm = reader.decode::<AnyRef<'_>>()?;
        algorithm.header().tag().assert_eq(Tag::Sequence)?;
        let signature = BitStringRef::decode(reader)?;
        let signature = signature.as_bytes().ok_or(ErrorKind::Value { tag: Tag::BitString })?;
        let algorithm = algorithm.value().to_vec();
        Ok(Self { octets, algorithm, signature: signature.to_vec() })
    }

    /// Whether the signature is by this key, in a way that is accepted.
    pub(super) fn is_by(&self, spki: &[u8]) -> bool {
        let Some((algorithm, key)) = key_of(spki) else { return false };
        let fits = |a: &&&dyn SignatureVerificationAlgorithm| {
            *a.signature_alg_id() == *self.algorithm && *a.public_key_alg_id() == *algorithm
        };
        let verifies = |a: &&dyn SignatureVerificationAlgorithm| {
            a.verify_signature(key, &self.octets, &self.signature).is_ok()
        };
        SIGNATURES.iter().filter(fits).any(verifies)
    }
}

/// The key of a responder that the authority has delegated, or why it has not.
fn delegate(
    der: &[u8],
    issuer: &Issuer<'_>,
    now: Duration,
    revoked: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, String> {
    let unreadable = |error: DerError| format!("the responder's certificate: {error}");
    let certificate = x509_cert::Certificate::from_der(der).map_err(unreadable)?;
    let tbs = certificate.tbs_certificate();
    let is_issued = Signed::from_der(der).map_err(unreadable)?.is_by(issuer.spki);
    let name = tbs.issuer().to_der().map_err(unreadable)?;
    let name = AnyRef::from_der(&name).map_err(unreadable)?;
    if !is_issued || name.value() != issuer.name {
        return Err("the responder's certificate is not of the authority".to_owned());
    }
    let usage = tbs.get_extension::<ExtendedKeyUsage>().map_err(unreadable)?;
    if !usage.is_some_and(|(_, usage)| usage.0.contains(&OCSP_SIGNING)) {
        return Err("the responder's certificate is not for OCSP".to_owned());
    }
    let signs = tbs.get_extension::<KeyUsage>().map_err(unreadable)?;
    if signs.is_some_and(|(_, usage)| !usage.digital_signature()) {
        return Err("the responder's certificate is not for signatures".to_owned());
    }
    let mut extensions = tbs.extensions().into_iter().flatten();
    if let Some(strange) = extensions.find(|e| e.critical && !OF_RESPONDERS.contains(&e.extn_id)) {
        let id = strange.extn_id;
        return Err(format!("the responder's certificate has the critical extension {id}"));
    }
    let validity = tbs.validity();
    let from = validity.not_before.to_unix_duration();
    if !(from..=validity.not_after.to_unix_duration()).contains(&now) {
        return Err("the responder's certificate is not valid now".to_owned());
    }
    if revoked(tbs.serial_number().as_bytes()) {
        return Err("the responder's certificate has been revoked".to_owned());
    }
    tbs.subject_public_key_info().to_der().map_err(unreadable)
}

/// The content of the AlgorithmIdentifier of a SubjectPublicKeyInfo, and the key.
fn key_of(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    in_sequence(spki, |reader| {
        let algorithm = reader.decode::<AnyRef<'_>>()?;
        let key = BitStringRef::decode(reader)?;
        Ok((algorithm.value(), key.raw_bytes()))
    })
    .ok()
}

/// Reads the content of a SEQUENCE to its end.
fn in_sequence<'a, T>(
    der: &'a [u8],
    read: impl FnOnce(&mut SliceReader<'a>) -> Result<T, DerError>,
) -> Result<T, DerError> {
    let outer = AnyRef::from_der(der)?;
    outer.header().tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(outer.value())?;
    let found = read(&mut reader)?;
    reader.finish()?;
    Ok(found)
}

/// The elements of a SEQUENCE OF.
fn each(der: &[u8]) -> Result<Vec<&[u8]>, DerError> {
    in_sequence(der, |reader| {
        let mut elements = Vec::new();
        while !reader.is_finished() {
            elements.push(reader.tlv_bytes()?);
        }
        Ok(elements)
    })
}

/// What stands in an explicit tag, if that comes next.
fn explicit<'a>(reader: &mut SliceReader<'a>, number: u32) -> Result<Option<&'a [u8]>, DerError> {
    if reader.is_finished() {
        return Ok(None);
    }
    let expected = Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    if Tag::peek(reader)? != expected {
        return Ok(None);
    }
    Ok(Some(reader.decode::<AnyRef<'_>>()?.value()))
}

/// No extension is known here, so that none may be critical (RFC 6960 4.4).
fn refuse_critical(extensions: Option<&[u8]>) -> Result<(), DerError> {
    let Some(extensions) = extensions else { return Ok(()) };
    for extension in each(extensions)? {
        if Extension::from_der(extension)?.critical {
            return Err(ErrorKind::Failed.into());
        }
    }
    Ok(())
}
