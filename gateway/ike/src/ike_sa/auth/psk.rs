//! AUTH with a key that both ends share (RFC 7296 2.15).

use gateway_wire::{AuthMethod, Authentication};

use crate::algorithms::Prf;
use crate::config::Secret;
use crate::crypto::prf::equal;
use crate::error::AuthenticationFault;
use crate::keys::shared_key_auth;

/// Whether the peer, whose name is for the operator, has the same key.
pub(super) fn verify(
    prf: Prf,
    key: &Secret,
    peer: &str,
    auth: &Authentication<'_>,
    octets: &[u8],
) -> Result<(), AuthenticationFault> {
    if auth.method != AuthMethod::SHARED_KEY {
        return Err(AuthenticationFault::Method { found: auth.method, expected: "psk" });
    }
    if !equal(auth.data, &shared_key_auth(prf, key.expose(), octets)) {
        return Err(AuthenticationFault::WrongAuth(peer.to_owned()));
    }
    Ok(())
}
