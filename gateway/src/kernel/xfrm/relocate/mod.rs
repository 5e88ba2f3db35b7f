//! An SA between other addresses.
//!
//! The kernel can change the UDP ports of an SA in place, and nothing else: what has another
//! address is another SA. `XFRM_MSG_MIGRATE` makes one from a copy, but moves by request ID, all
//! SAs of a rule at once, and while both are there the copy sends by the numbers that the old one
//! goes on with. So the SA is read, and made anew from what was read; in between only what
//! receives is missing for a moment. What sends begins a gap further on ([`SEQUENCE_GAP`]).

use core::net::IpAddr;

use gateway_ike::io::Encapsulation;
use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{
    UserSaInfo, XFRM_STATE_ESN, XFRM_USER_SA_INFO_LEN, XFRMA_ALG_AEAD, XFRMA_ALG_AUTH_TRUNC,
    XFRMA_ALG_CRYPT, XFRMA_IF_ID, XFRMA_LTIME_VAL, XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_VAL,
    XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XfrmAttrs,
};
use zeroize::Zeroizing;

use super::{NetlinkError, SaDirection, SaId, encode};
use crate::kernel::netlink::attribute;

/// Sequence numbers that are passed over when an SA that sends is made anew. It goes on sending
/// under its old name after it has been read, and none of these numbers may come twice: with
/// AES-GCM or ChaCha20-Poly1305 that would give the key away. From reading to the end of the old
/// one it takes well below a millisecond, in which no machine sends as many packets.
pub(super) const SEQUENCE_GAP: u32 = 1 << 20;

/// What is taken over as it is: all that [`encode::sa`] can have asked for, but UDP and what keeps
/// its ports open.
const CARRIED: [u16; 9] = [
    XFRMA_ALG_AEAD,
    XFRMA_ALG_AUTH_TRUNC,
    XFRMA_ALG_CRYPT,
    XFRMA_IF_ID,
    XFRMA_REPLAY_ESN_VAL,
    XFRMA_REPLAY_VAL,
    XFRMA_SET_MARK,
    XFRMA_SET_MARK_MASK,
    encode::XFRMA_SA_DIR,
];

/// Where an SA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaEnds {
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination; of the same family.
    pub destination: IpAddr,
    /// The ports of ESP in UDP from source to destination; of what receives, those of the kernel's SA
    /// ([`encode::decapsulation`]).
    pub encapsulation: Option<Encapsulation>,
}

/// From where to where an SA goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaMove {
    /// Its SPI in host order, which stays.
    pub spi: u32,
    /// Its direction.
    pub direction: SaDirection,
    /// Where it is.
    pub from: SaEnds,
    /// Where it is to be.
    pub to: SaEnds,
}

/// What has become of the old SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is there yet, beside the new one, until policies lead to that.
    Beside,
    /// It is gone.
    Replaced,
}

impl SaMove {
    /// The name that it has.
    #[must_use]
    pub const fn old(&self) -> SaId {
        SaId { destination: self.from.destination, spi: self.spi }
    }

    /// The name that it will have.
    #[must_use]
    pub const fn target(&self) -> SaId {
        SaId { destination: self.to.destination, spi: self.spi }
    }

    /// The way back.
    #[must_use]
    pub const fn back(&self) -> Self {
        Self { from: self.to, to: self.from, ..*self }
    }

    /// Whether nothing but UDP ports change, which the kernel does in place. Who sends keepalives
    /// stays as it was then.
    pub(super) fn keeps_addresses(&self) -> bool {
        let (from, to) = (&self.from, &self.to);
        (from.source, from.destination) == (to.source, to.destination)
            && from.encapsulation.map(|e| e.keepalive) == to.encapsulation.map(|e| e.keepalive)
    }

    /// Sequence numbers to pass over.
    pub(super) const fn gap(&self) -> u32 {
        match self.direction {
            SaDirection::Inbound => 0,
            SaDirection::Outbound => SEQUENCE_GAP,
        }
    }
}

/// The SA that was read, at its new place: with its keys, which are wiped when it is dropped.
pub(super) struct Relocated {
    info: UserSaInfo,
    attributes: Zeroizing<Vec<u8>>,
}

impl Emitable for Relocated {
    fn buffer_len(&self) -> usize {
        XFRM_USER_SA_INFO_LEN.saturating_add(self.attributes.len())
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Some((info, attributes)) = buffer.split_at_mut_checked(XFRM_USER_SA_INFO_LEN) {
            self.info.emit(info);
            attributes.copy_from_slice(&self.attributes);
        }
    }
}

/// The SA of a `XFRM_MSG_NEWSA` that the kernel has sent, where it is to go.
pub(super) fn sa(state: &[u8], to: &SaMove, gap: u32) -> Result<Relocated, NetlinkError> {
    const TOO_SHORT: NetlinkError = NetlinkError::Malformed("too short");
    let mut info = UserSaInfo::parse(state).map_err(|_too_short| TOO_SHORT)?;
    let present = state.get(XFRM_USER_SA_INFO_LEN..).ok_or(TOO_SHORT)?;
    info.source(&to.to.source);
    info.destination(&to.to.destination);
    info.seq = 0; // The acquire that it answered is long over.
    let extended = info.flags & XFRM_STATE_ESN != 0;
    // Room for all, so that no copy of a key is left behind when it grows.
    let mut attributes = Zeroizing::new(Vec::with_capacity(present.len().saturating_add(128)));
    for kind in CARRIED {
        let Some(value) = attribute(present, kind) else { continue };
        match kind {
            XFRMA_REPLAY_ESN_VAL => {
                let mut value = value.to_vec();
                // struct xfrm_replay_state_esn: bmp_len, oseq, seq, oseq_hi, seq_hi, …
                pass_over(&mut value, 4, extended.then_some(12), gap)?;
                push(&mut attributes, kind, &value);
            }
            XFRMA_REPLAY_VAL => {
                let mut value = value.to_vec();
                pass_over(&mut value, 0, None, gap)?; // struct xfrm_replay_state: oseq, seq, bitmap
                push(&mut attributes, kind, &value);
            }
            _ => push(&mut attributes, kind, value),
        }
    }
    let used = &info.lifetime_cur;
    let used = [used.bytes, used.packets, used.add_time, used.use_time];
    push(&mut attributes, XFRMA_LTIME_VAL, used.map(u64::to_ne_bytes).as_flattened());
    if let Some(ports) = to.to.encapsulation {
        let template = XfrmAttrs::EncapsulationTemplate(encode::udp(ports));
        let start = attributes.len();
        attributes.resize(start.saturating_add(template.buffer_len()), 0);
        if let Some(room) = attributes.get_mut(start..) {
            template.emit(room);
        }
        if let Some(seconds) = ports.keepalive {
            let value = seconds.get().to_ne_bytes();
            push(&mut attributes, encode::XFRMA_NAT_KEEPALIVE_INTERVAL, &value);
        }
    }
    Ok(Relocated { info, attributes })
}

/// Whether the keys of an SA that the kernel has sent are there. In lockdown it sends zeros in their
/// place (`xfrm_redact`), and an SA made of those would encrypt for everybody.
pub(super) fn check_keys(state: &[u8]) -> Result<(), NetlinkError> {
    let present = state.get(XFRM_USER_SA_INFO_LEN..).unwrap_or_default();
    // After the name and one or two lengths: struct xfrm_algo_aead, xfrm_algo_auth, xfrm_algo.
    let keys = [(XFRMA_ALG_AEAD, 72), (XFRMA_ALG_AUTH_TRUNC, 72), (XFRMA_ALG_CRYPT, 68)];
    let mut found = keys.iter().filter_map(|(kind, at)| attribute(present, *kind)?.get(*at..));
    if found.all(|key| key.iter().any(|octet| *octet != 0)) {
        Ok(())
    } else {
        Err(NetlinkError::KeysHidden)
    }
}

/// Adds an attribute.
fn push(attributes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    attributes.extend(length.to_ne_bytes());
    attributes.extend(kind.to_ne_bytes());
    attributes.extend_from_slice(value);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
}

/// Adds to the number last sent, whose low half is at one offset and whose high half, if it has
/// one, at another. Whatever does not fit any more has no number left to send by.
fn pass_over(
    replay: &mut [u8],
    low: usize,
    high: Option<usize>,
    gap: u32,
) -> Result<(), NetlinkError> {
    let read = |replay: &[u8], at: usize| {
        let octets = replay.get(at..).and_then(|rest| rest.first_chunk::<4>());
        octets.copied().map(u32::from_ne_bytes).ok_or(NetlinkError::Malformed("too short"))
    };
    let write = |replay: &mut [u8], at: usize, value: u32| {
        if let Some(octets) = replay.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            *octets = value.to_ne_bytes();
        }
    };
    let (sum, carry) = read(replay, low)?.overflowing_add(gap);
    if carry {
        let at = high.ok_or(NetlinkError::Exhausted)?;
        let next = read(replay, at)?.checked_add(1).ok_or(NetlinkError::Exhausted)?;
        write(replay, at, next);
    }
    write(replay, low, sum);
    Ok(())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod tests;
