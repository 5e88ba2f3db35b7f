//! IKEv2 messages: octets to types and back (RFC 7296 section 3, with the fragments of RFC 7383
//! and the signatures of RFC 7427).
//!
//! [`Message::decode`] reads a datagram and [`decode_chain`] what was inside an Encrypted payload;
//! both borrow from their input and keep the order of the payloads. [`encode_message`],
//! [`encode_chain`] and [`encode_sk_prefix`] go the other way. [`natt`] tells IKE from ESP on
//! port 4500.
//!
//! What holds for every decoder:
//! - no input makes it panic, and no length is believed: see `Reader`;
//! - all octets are accounted for: what is left over is an error;
//! - reserved fields are ignored when read and zero when written;
//! - what an encoder accepts, the decoder reads back as the same value. What it could not write
//!   that way is an [`EncodeError`].
//!
//! Whether a payload may stand in a message, and what it means there, is not decided here.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

// Used by the property tests in `tests`, which share this package's development dependencies.
#[cfg(test)]
use proptest as _;

mod code;
mod error;
mod header;
mod message;
pub mod natt;
mod payload;
mod reader;
mod writer;

pub use code::*;
pub use error::{
    ChainError, DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, HeaderError,
    MessageError, OtherVersion,
};
pub use header::{Flags, Header, IkeSpi, MessageId};
pub use message::{
    Message, decode_chain, encode_chain, encode_message, encode_sk_prefix, encode_skf_prefix,
};
pub use payload::*;
