//! Post-quantum pre-shared keys in IKE_AUTH (RFC 8784).

use gateway_wire::{Authentication, NotifyType};

use super::Transcript;
use crate::channel::Channel;
use crate::config::{PeerConfig, Ppk};
use crate::error::{AuthenticationFault, Error};
use crate::keys::IkeKeys;
use crate::payloads::Payloads;

/// The octet before the name of a PPK that says that it is a fixed key (RFC 8784 5.1).
const FIXED: u8 = 2;

/// Initiator: what to do if the responder does not use the PPK.
pub(in crate::ike_sa) struct Offered {
    /// The keys without it.
    without: IkeKeys,
    required: bool,
}

/// Initiator: mixes the peer's PPK into the keys, if both ends use any.
pub(super) fn offer<'a>(
    channel: &mut Channel,
    transcript: &Transcript,
    peer: &'a PeerConfig,
) -> Option<(&'a Ppk, Offered)> {
    let ppk = peer.ppk.as_ref().filter(|_| transcript.use_ppk)?;
    let without = channel.mix_ppk(ppk.key.expose());
    Some((ppk, Offered { without, required: ppk.required }))
}

/// Initiator: whether it will offer a PPK that it can do without.
pub(super) fn is_optional(transcript: &Transcript, peer: &PeerConfig) -> bool {
    transcript.use_ppk && peer.ppk.as_ref().is_some_and(|ppk| !ppk.required)
}

/// The notifications of the initiator, which go with its AUTH (after EAP: in its last request, RFC
/// 8784 3): the name of the PPK and, where it can do without, the AUTH data without it.
pub(super) fn notifications(ppk: &Ppk, plain_auth: Option<&[u8]>) -> Vec<(NotifyType, Vec<u8>)> {
    let name = (NotifyType::PPK_IDENTITY, [&[FIXED], &*ppk.id].concat());
    let plain = plain_auth.map(|data| (NotifyType::NO_PPK_AUTH, data.to_vec()));
    [name].into_iter().chain(plain).collect()
}

/// Initiator: whether the responder uses the PPK that we offered; if not, the keys are what they
/// were.
pub(super) fn settle(
    channel: &mut Channel,
    offered: Option<Offered>,
    payloads: &Payloads<'_>,
) -> Result<(), Error> {
    let Some(Offered { without, required }) = offered else { return Ok(()) };
    let refused = payloads.auth.is_none() && payloads.error().is_some();
    if refused || payloads.notify(NotifyType::PPK_IDENTITY).is_some() {
        return Ok(());
    }
    if required {
        return Err(Error::Authentication(AuthenticationFault::PpkUnknown));
    }
    channel.keys = without;
    Ok(())
}

/// Responder: mixes in the PPK if the initiator uses the one that we have with it; gives the AUTH
/// that is to be checked.
pub(super) fn accept<'a>(
    channel: &mut Channel,
    transcript: &Transcript,
    peer: &PeerConfig,
    payloads: &Payloads<'a>,
    auth: &Authentication<'a>,
) -> Result<Authentication<'a>, Error> {
    let named = payloads.notify(NotifyType::PPK_IDENTITY).filter(|_| transcript.use_ppk);
    let is_named = |ppk: &&Ppk| named.is_some_and(|n| n.data == [&[FIXED], &*ppk.id].concat());
    if let Some(ppk) = peer.ppk.as_ref().filter(is_named) {
        drop(channel.mix_ppk(ppk.key.expose()));
        return Ok(*auth);
    }
    let unknown = Error::Authentication(AuthenticationFault::PpkUnknown);
    if peer.ppk.as_ref().is_some_and(|ppk| ppk.required) {
        let unsupported = Error::Authentication(AuthenticationFault::PpkUnsupported);
        return Err(if transcript.use_ppk { unknown } else { unsupported });
    }
    match (named, payloads.notify(NotifyType::NO_PPK_AUTH)) {
        (None, _) => Ok(*auth),
        (Some(_), Some(plain)) => Ok(Authentication { method: auth.method, data: plain.data }),
        // It insists on a PPK that we do not have.
        (Some(_), None) => Err(unknown),
    }
}
