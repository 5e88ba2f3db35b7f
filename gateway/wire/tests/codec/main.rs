//! The codec as its users see it: octets in, types out, and back.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod damage;
mod header;
mod payloads;
mod proposals;
mod published;
mod round_trip;
mod strategies;
mod vectors;

use gateway_wire::{
    ChainError, DecodeError, EncodeErrorKind, ExchangeType, Flags, Header, IkeSpi, Message,
    MessageId, Payload, PayloadType, decode_chain, encode_chain, encode_message,
};

/// A header for messages whose header does not matter.
const HEADER: Header = Header {
    initiator_spi: IkeSpi([1, 2, 3, 4, 5, 6, 7, 8]),
    responder_spi: IkeSpi([9, 10, 11, 12, 13, 14, 15, 16]),
    exchange: ExchangeType::INFORMATIONAL,
    flags: Flags { response: true, version: false, initiator: true },
    message_id: MessageId(0x0102_0304),
};

/// A payload with its generic header; nothing follows it.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap();
    [&[0, 0], length.to_be_bytes().as_slice(), body].concat()
}

/// Reads one payload from its body.
fn read(kind: PayloadType, body: &[u8]) -> Result<Payload<'static>, ChainError> {
    let octets = framed(body).leak();
    let mut payloads = decode_chain(kind, octets)?;
    assert_eq!(payloads.len(), 1);
    Ok(payloads.remove(0))
}

/// Why one payload is refused.
fn refusal(kind: PayloadType, body: &[u8]) -> DecodeError {
    match read(kind, body) {
        Err(ChainError::Decode(error)) => error,
        other => panic!("{kind} {body:02x?} is not refused: {other:?}"),
    }
}

/// Why one payload has no encoding.
fn unencodable(payload: Payload<'_>) -> EncodeErrorKind {
    encode_chain(&[payload]).unwrap_err().kind
}

/// The body of one payload.
fn body(payload: &Payload<'_>) -> Vec<u8> {
    let (kind, octets) = encode_chain(core::slice::from_ref(payload)).unwrap();
    assert_eq!(kind, payload.payload_type());
    octets[4..].to_vec()
}

/// A datagram whose length field has been made to fit.
fn with_true_length(datagram: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    let length = u32::try_from(datagram.len()).unwrap();
    datagram[24..28].copy_from_slice(&length.to_be_bytes());
    datagram
}

/// Whatever `octets` are: reading them does not panic, and what can be read and written is read
/// back as the same.
fn check_any_datagram(octets: &[u8]) {
    let Ok(message) = Message::decode(octets) else { return };
    let Ok(written) = encode_message(&message.header, &message.payloads) else { return };
    assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
}

/// The same for the inside of an Encrypted payload.
fn check_any_chain(first: PayloadType, octets: &[u8]) {
    let Ok(payloads) = decode_chain(first, octets) else { return };
    let Ok((first, written)) = encode_chain(&payloads) else { return };
    assert_eq!(decode_chain(first, &written).as_ref(), Ok(&payloads));
}
