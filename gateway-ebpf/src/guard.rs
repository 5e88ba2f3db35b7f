//! TC ingress on the underlay: drops clear packets that a rule says must arrive encrypted.
//!
//! ESP and IKE pass, for the kernel and the daemon to judge. So do later fragments of UDP and ESP,
//! which may carry them: nothing is reassembled without the first fragment, which was judged.

use aya_ebpf::programs::TcContext;
use gateway_common::{Action, Flow, Reason, classify};

use crate::count;
use crate::header::{port, protocol};
use crate::maps::Current;
use crate::read::{Packet, Visible};

/// Handles a packet on a link with (`ETHERNET`) or without a header.
#[inline(always)]
pub fn ingress<const ETHERNET: bool>(context: &TcContext) -> Result<(), Reason> {
    let read = Packet::read::<ETHERNET>(context);
    let Some(packet) = read.map_err(|_unreadable| Reason::UnreadableIn)? else { return Ok(()) };
    if packet.is_exempt(context) {
        return Ok(());
    }
    let Some(rules) = Current::get() else { return Ok(()) };
    let flow = Flow {
        local: packet.destination,
        remote: packet.source,
        family: packet.family,
        protocol: packet.protocol,
        ports: packet.ports(packet.destination_port, packet.source_port),
    };
    let Some(found) = classify(&rules, &flow) else { return Ok(()) };
    let refused = match Action::new(found.action) {
        Some(Action::Bypass) => return Err(Reason::BypassedIn),
        Some(Action::Protect) if may_carry(&packet) => return Ok(()),
        Some(Action::Protect) => Reason::ClearInbound,
        Some(Action::Discard) | None => Reason::DiscardedIn,
    };
    count::rule(&found, u64::from(context.len()), |rule| &mut rule.refused);
    Err(refused)
}

/// Whether a packet may be ESP or IKE.
#[inline(always)]
fn may_carry(packet: &Packet) -> bool {
    match (packet.protocol, packet.visible) {
        (protocol::ESP, _) | (protocol::UDP, Visible::LaterFragment) => true,
        (protocol::UDP, Visible::Ports) => {
            matches!(packet.destination_port, port::IKE | port::NAT_TRAVERSAL)
        }
        _ => false,
    }
}
