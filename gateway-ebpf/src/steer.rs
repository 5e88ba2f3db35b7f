//! TC egress on the underlay: what a rule selects goes into the XFRM interface, which encrypts it,
//! or drops it while there is no SA.
//!
//! What passes although it is selected is our own IKE and our own ESP: otherwise a rule that covers
//! the peers' own addresses would send the tunnel into itself. ESP is known by its destination and
//! SPI, whatever a firewall does to marks on the way; IKE, and fragments that show no SPI, by the
//! mark of the daemon's sockets and of the outbound SAs (`xfrm_smark_get` in `xfrm_output_one`).

use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::TcContext;
use gateway_common::{Action, Reason, SaKey, SaValue, Subject};

use crate::decide::{Decision, decide};
use crate::header::{Udp, protocol};
use crate::read::{Packet, Visible};
use crate::{count, maps, mss, packet, trace, unknown};

/// Handles a packet on a link with (`ETHERNET`) or without a header.
#[inline(always)]
pub fn egress<const ETHERNET: bool>(
    context: &TcContext,
    subject: &mut Subject,
) -> Result<(), Reason> {
    let mut packet = Packet::EMPTY;
    let judged = judge::<ETHERNET>(context, &mut packet, subject)?;
    let protects = judged.is_some_and(|decision| decision.action != Action::Bypass);
    if !protects {
        unknown::note_others(context, &packet);
    }
    let Some(Decision { action, rule }) = judged else { return Ok(()) };
    count::rule(rule, u64::from(context.len()), |rule| &mut rule.outbound);
    match action {
        Action::Bypass => Err(Reason::BypassedOut),
        Action::Protect => protect(context, &packet),
        Action::Discard => Err(Reason::DiscardedOut),
    }
}

/// Reads a packet on its way out, and says what its rule wants; nothing if it has none. What no rule
/// has a say about has its own reason.
#[inline(always)]
pub(crate) fn judge<const ETHERNET: bool>(
    context: &TcContext,
    packet: &mut Packet,
    subject: &mut Subject,
) -> Result<Option<Decision>, Reason> {
    let is_ip = packet.read::<ETHERNET, true>(context);
    if !is_ip.map_err(|_unreadable| Reason::UnreadableOut)? {
        return Ok(None);
    }
    if packet.is_exempt(context) {
        return Ok(None);
    }
    let Some(Decision { action, rule }) = decide(&packet.flow) else {
        if trace::wants_passing()
            && let Some(spi) = own_esp(context, packet)
        {
            subject.set_spi(spi);
        }
        return Ok(None);
    };
    subject.set_rule(rule);
    if action != Action::Bypass && matches!(packet.flow.protocol, protocol::ESP | protocol::UDP) {
        if let Some(spi) = own_esp(context, packet) {
            subject.set_spi(spi);
            return Err(Reason::OwnEsp);
        }
        if is_marked(context) {
            let is_esp = packet.flow.protocol == protocol::ESP;
            return Err(if is_esp { Reason::OwnEsp } else { Reason::OwnIke });
        }
    }
    Ok(Some(Decision { action, rule }))
}

/// Makes a packet ready for the XFRM interface, which has no link header and no VLANs.
#[inline(always)]
fn protect(context: &TcContext, packet: &Packet) -> Result<(), Reason> {
    if maps::XFRM_INTERFACE.load() == 0 {
        return Err(Reason::NoXfrmInterface);
    }
    mss::clamp(context, packet)?;
    if !packet::untag(context, packet.tags) {
        return Err(Reason::NotRedirected);
    }
    Err(Reason::Protected)
}

/// Sends the packet that is being handled into the XFRM interface; returns the program's verdict.
#[inline(always)]
#[must_use]
pub fn redirect() -> i32 {
    // SAFETY: the helper takes any index; a wrong one drops the packet.
    unsafe { bpf_redirect(maps::XFRM_INTERFACE.load(), 0) as i32 }
}

/// Whether one of our sockets or outbound SAs sent it. A fragment has its packet's mark too.
#[inline(always)]
pub(crate) fn is_marked(context: &TcContext) -> bool {
    let mark = maps::OWN_MARK.load();
    mark != 0 && packet::mark(context) == mark
}

/// The SPI, its octets in network order, of ESP that an SA of ours made.
#[inline(always)]
pub(crate) fn own_esp(context: &TcContext, packet: &Packet) -> Option<u32> {
    let spi = match (packet.flow.protocol, packet.visible) {
        (_, Visible::LaterFragment) => return None,
        (protocol::ESP, _) => packet.payload,
        (protocol::UDP, Visible::Ports) => packet.payload.wrapping_add(size_of::<Udp>() as u32),
        _ => return None,
    };
    let key = SaKey::new(packet.flow.remote, packet::load::<[u8; 4]>(context, spi)?);
    maps::sa(&key).filter(|sa| sa.flags() & SaValue::OUTBOUND != 0).map(|_sa| key.spi)
}
