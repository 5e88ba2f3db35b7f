//! What is read here, written again: for those who look at the decoders by themselves.

use gateway_wire::EapCode;

use super::Fault;
use super::packet::Body;
use super::tls::Piece;

/// Reads the data of an EAP message of this kind, and writes what was read.
///
/// # Errors
/// The data is malformed.
pub fn rewritten(code: EapCode, data: &[u8]) -> Result<Vec<u8>, Fault> {
    Ok(Body::decode(code, data)?.encode())
}

/// Reads the data of an EAP-TLS message, and writes what was read.
///
/// # Errors
/// The data is malformed.
pub fn rewritten_tls_piece(data: &[u8]) -> Result<Vec<u8>, Fault> {
    Ok(Piece::decode(data)?.encode())
}
