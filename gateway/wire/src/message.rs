//! Whole messages and chains of payloads (RFC 7296 3.1, 3.2).

use alloc::vec::Vec;

use crate::reader::Reader;
use crate::writer::Writer;
use crate::{
    ChainError, DecodeErrorKind, EncodeError, Encrypted, EncryptedFragment, Header, MessageError,
    Payload, PayloadType, Unknown,
};

/// The critical bit of the generic payload header.
const CRITICAL: u8 = 0x80;

/// Octets of the generic payload header.
const GENERIC_LEN: usize = 4;

/// One IKE message as it came: payloads in the clear, or an Encrypted payload (perhaps after
/// others), whose inside is read by [`decode_chain`] once it is decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The IKE header.
    pub header: Header,
    /// The payloads in the order in which they came.
    pub payloads: Vec<Payload<'a>>,
}

impl<'a> Message<'a> {
    /// Reads a datagram (without non-ESP marker).
    ///
    /// # Errors
    /// [`MessageError::Header`] as [`Header::decode`] has it, [`MessageError::Chain`] as
    /// [`decode_chain`].
    pub fn decode(datagram: &'a [u8]) -> Result<Self, MessageError> {
        let (header, first, octets) = Header::decode(datagram)?;
        let payloads = walk(first, octets, Place::Datagram { len: datagram.len() })?;
        Ok(Self { header, payloads })
    }
}

/// Reads the chain of payloads that was inside an Encrypted payload, of which `first` is the type
/// of the first. An unknown payload is kept as [`Payload::Unknown`] unless it is critical.
///
/// # Errors
/// [`ChainError::Decode`] when a payload is malformed, when the chain does not end where the
/// octets end, or when it holds a further Encrypted payload;
/// [`ChainError::UnsupportedCritical`] when a payload of unknown type is marked critical.
pub fn decode_chain(first: PayloadType, octets: &[u8]) -> Result<Vec<Payload<'_>>, ChainError> {
    walk(first, octets, Place::Decrypted)
}

/// Octets that the payloads of most messages fit in, but for certificates.
const CHAIN_ROOM: usize = 512;
/// Payloads that most messages do not have more of.
const PAYLOADS_ROOM: usize = 12;

/// Where a chain stands.
#[derive(Clone, Copy)]
enum Place {
    /// At the end of a datagram of `len` octets: an Encrypted payload may end it.
    Datagram { len: usize },
    /// Inside an Encrypted payload.
    Decrypted,
}

fn walk(first: PayloadType, octets: &[u8], place: Place) -> Result<Vec<Payload<'_>>, ChainError> {
    let mut payloads = Vec::with_capacity(PAYLOADS_ROOM);
    let mut refused = None;
    let mut reader = Reader::new("payload chain", octets);
    let mut next = first;
    while next != PayloadType::NONE {
        let kind = next;
        let ([following, flags], mut body) = reader.framed(kind.name().unwrap_or("payload"))?;
        next = PayloadType(following);
        let payload = match Payload::decode(kind, &mut body)? {
            Some(payload) => payload,
            None if matches!(kind, PayloadType::SK | PayloadType::SKF) => {
                // The next payload is the first one inside; SK and SKF end the chain.
                let inside = core::mem::replace(&mut next, PayloadType::NONE);
                encrypted(kind, inside, &mut body, place)?
            }
            None => {
                let critical = flags & CRITICAL != 0;
                if critical {
                    refused = refused.or(Some(kind));
                }
                Payload::Unknown(Unknown { kind, critical, data: body.rest() })
            }
        };
        body.finish()?;
        payloads.push(payload);
    }
    reader.finish()?;
    let protected = payloads.last().is_some_and(|last: &Payload<'_>| last.inside().is_some());
    match refused {
        // What an Encrypted payload protects may be answered once it is known to be authentic.
        Some(kind) if !protected => Err(ChainError::UnsupportedCritical(kind)),
        _ => Ok(payloads),
    }
}

fn encrypted<'a>(
    kind: PayloadType,
    first: PayloadType,
    body: &mut Reader<'a>,
    place: Place,
) -> Result<Payload<'a>, ChainError> {
    let Place::Datagram { len } = place else {
        return Err(body.error(DecodeErrorKind::BadValue).into());
    };
    // The body is what the datagram ends with, since nothing may follow.
    let offset = |octets: &[u8]| len.saturating_sub(octets.len());
    if kind == PayloadType::SK {
        let body = body.rest();
        return Ok(Payload::Encrypted(Encrypted { first, body, body_offset: offset(body) }));
    }
    let (number, total) = (body.u16()?, body.u16()?);
    body.require(EncryptedFragment::is_valid(number, total))?;
    let body = body.rest();
    let fragment = EncryptedFragment { first, number, total, body, body_offset: offset(body) };
    Ok(Payload::EncryptedFragment(fragment))
}

/// Writes a message whose payloads are in the clear. An Encrypted payload that is already sealed
/// may stand at the end.
///
/// # Errors
/// When a payload does not fit its length field or holds what no decoder accepts.
pub fn encode_message(header: &Header, payloads: &[Payload<'_>]) -> Result<Vec<u8>, EncodeError> {
    let mut chain = Writer::with_capacity(CHAIN_ROOM);
    let first = write_chain(&mut chain, payloads)?;
    let chain = chain.finish();
    let mut message = Writer::with_capacity(Header::LEN.saturating_add(chain.len()));
    message.octets(&header.encode(first, message_len(chain.len())?));
    message.octets(&chain);
    Ok(message.finish())
}

/// Writes the payloads that go inside an Encrypted payload; gives the type of the first, which
/// [`encode_sk_prefix`] wants, and their octets.
///
/// # Errors
/// As [`encode_message`], and when one of them is an Encrypted payload itself.
pub fn encode_chain(payloads: &[Payload<'_>]) -> Result<(PayloadType, Vec<u8>), EncodeError> {
    if payloads.iter().any(|p| p.inside().is_some()) {
        return Err(EncodeError::bad_value("Encrypted payload"));
    }
    let mut chain = Writer::with_capacity(CHAIN_ROOM);
    let first = write_chain(&mut chain, payloads)?;
    Ok((first, chain.finish()))
}

/// Writes a message with an Encrypted payload up to where its body begins. All lengths are final:
/// the caller appends exactly `body_len` octets of IV, ciphertext and ICV.
///
/// # Errors
/// When the payload would not fit its length field.
pub fn encode_sk_prefix(
    header: &Header,
    first_inner: PayloadType,
    body_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    prefix(header, PayloadType::SK, first_inner, &[], body_len)
}

/// Writes a message with fragment `number` of `total` up to where the fragment's body begins, as
/// [`encode_sk_prefix`] does. `first_inner` is the type of the first payload inside the whole,
/// and belongs in fragment 1; the others have [`PayloadType::NONE`] (RFC 7383 2.5).
///
/// # Errors
/// When the payload would not fit its length field, or `number` is not within 1 to `total`.
pub fn encode_skf_prefix(
    header: &Header,
    first_inner: PayloadType,
    number: u16,
    total: u16,
    body_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    if !EncryptedFragment::is_valid(number, total) {
        return Err(EncodeError::bad_value("SKF"));
    }
    let [n0, n1] = number.to_be_bytes();
    let [t0, t1] = total.to_be_bytes();
    prefix(header, PayloadType::SKF, first_inner, &[n0, n1, t0, t1], body_len)
}

fn prefix(
    header: &Header,
    kind: PayloadType,
    first_inner: PayloadType,
    fields: &[u8],
    body_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    let too_long = EncodeError::too_long("Encrypted payload");
    let payload_len = body_len
        .checked_add(fields.len())
        .and_then(|len| len.checked_add(GENERIC_LEN))
        .ok_or(too_long)?;
    // With room for the body, which the caller appends.
    let len = message_len(payload_len)?;
    let mut message = Writer::with_capacity(Header::LEN.saturating_add(payload_len));
    message.octets(&header.encode(kind, len));
    message.octets(&[first_inner.0, 0]);
    message.count_u16("Encrypted payload", payload_len)?;
    message.octets(fields);
    Ok(message.finish())
}

/// The length field of a message whose payloads have `len` octets.
fn message_len(len: usize) -> Result<u32, EncodeError> {
    len.checked_add(Header::LEN)
        .and_then(|total| u32::try_from(total).ok())
        .ok_or(EncodeError::too_long("message"))
}

fn write_chain(writer: &mut Writer, payloads: &[Payload<'_>]) -> Result<PayloadType, EncodeError> {
    let mut following = payloads.iter().skip(1);
    for payload in payloads {
        let kind = payload.payload_type();
        let what = kind.name().unwrap_or("payload");
        let next = match (payload.inside(), following.next()) {
            (None, None) => PayloadType::NONE,
            (None, Some(payload)) => payload.payload_type(),
            (Some(first), None) => first,
            (Some(_), Some(_)) => return Err(EncodeError::bad_value(what)),
        };
        if kind == PayloadType::NONE {
            return Err(EncodeError::bad_value(what));
        }
        let critical = matches!(payload, Payload::Unknown(Unknown { critical: true, .. }));
        let flags = if critical { CRITICAL } else { 0 };
        writer.framed(what, [next.0, flags], |body| payload.encode(body))?;
    }
    Ok(payloads.first().map_or(PayloadType::NONE, Payload::payload_type))
}
