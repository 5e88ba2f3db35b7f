//! AUTH with a key that both ends share (RFC 7296 2.15).

use gateway_wire::{AuthMethod, Authentication};

use crate::algorithms::Prf;
use crate::config::PeerConfig;
use crate::crypto::prf::equal;
use crate::error::{AuthenticationFault, Error};
use crate::keys::shared_key_auth;

/// Whether the peer has the same key.
pub(super) fn verify(
    prf: Prf,
    peer: &PeerConfig,
    auth: &Authentication<'_>,
    octets: &[u8],
) -> Result<(), Error> {
    if auth.method != AuthMethod::SHARED_KEY {
        return Err(Error::Authentication(AuthenticationFault::Method(auth.method.to_string())));
    }
    if !equal(auth.data, &shared_key_auth(prf, peer.psk.expose(), octets)) {
        return Err(Error::Authentication(AuthenticationFault::WrongAuth(peer.name.to_string())));
    }
    Ok(())
}
