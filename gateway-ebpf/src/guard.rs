//! TC ingress on the underlay: drops clear packets that a rule says must arrive encrypted.
//!
//! ESP and IKE for this host pass, for the kernel and the daemon to judge. So do later fragments of
//! UDP and ESP, which may carry them: nothing is reassembled without the first fragment, which was
//! judged. For a host behind this one they are clear packets like any other: the kernel would hand
//! them on as they came.

use aya_ebpf::programs::TcContext;
use gateway_common::{Action, Reason, Subject};

use crate::decide::{Decision, decide};
use crate::header::{port, protocol};
use crate::read::{Packet, Visible};
use crate::{count, maps};

/// Handles a packet on a link with (`ETHERNET`) or without a header.
#[inline(always)]
pub fn ingress<const ETHERNET: bool>(
    context: &TcContext,
    subject: &mut Subject,
) -> Result<(), Reason> {
    let mut packet = Packet::EMPTY;
    let is_ip = packet.read::<ETHERNET, false>(context);
    if !is_ip.map_err(|_unreadable| Reason::UnreadableIn)? {
        return Ok(());
    }
    if packet.is_exempt(context) {
        return Ok(());
    }
    let Some(Decision { action, rule }) = decide(&packet.flow) else { return Ok(()) };
    subject.set_rule(rule);
    let refused = match action {
        Action::Bypass => return Err(Reason::BypassedIn),
        Action::Protect if may_carry(&packet) && maps::is_local(&packet.flow.local) => {
            return Ok(());
        }
        Action::Protect => Reason::ClearInbound,
        Action::Discard => Reason::DiscardedIn,
    };
    count::rule(rule, u64::from(context.len()), |rule| &mut rule.refused);
    Err(refused)
}

/// Whether a packet may be ESP or IKE.
#[inline(always)]
fn may_carry(packet: &Packet) -> bool {
    match (packet.flow.protocol, packet.visible) {
        (protocol::ESP, _) | (protocol::UDP, Visible::LaterFragment) => true,
        (protocol::UDP, Visible::Ports) => {
            matches!(packet.local_port, port::IKE | port::NAT_TRAVERSAL)
        }
        _ => false,
    }
}
