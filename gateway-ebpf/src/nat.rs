//! In netfilter, where this host's own NAT changes a packet: before it changes the source, and after
//! it has changed the destination.
//!
//! At TC egress a packet has the source that masquerading gave it: no rule selects that, and what a
//! rule protects would leave in the clear. So rules of nftables, which the loader sets, ask programs (by the
//! match `bpf`, `xt_bpf`) what the packet is to the rules while it still has its own source: one when
//! a connection is about to get its NAT, another with each packet of one whose source NAT has changed.
//!
//! And at TC ingress a packet has the destination that it will not keep if a port is published: no
//! rule says of that that it must arrive encrypted. A third program is asked in PREROUTING, when the
//! packet has the destination that it is for.

use aya_ebpf::programs::TcContext;
use gateway_common::{Action, Reason, Subject};

use crate::decide::Decision;
use crate::read::Packet;
use crate::{count, guard, steer};

/// Whether a packet's connection must keep its source, because a rule selects it by that.
#[inline(always)]
#[must_use]
pub fn keeps_source(context: &TcContext) -> bool {
    selected(context, &mut Subject::default()).is_some()
}

/// Handles a packet to which NAT is about to give another source, since it did so when the
/// connection began: there was no such rule then, or nobody who asked.
#[inline(always)]
pub fn translated(context: &TcContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(rule) = selected(context, subject) else { return Ok(()) };
    count::rule(rule, u64::from(context.len()), |rule| &mut rule.outbound);
    Err(Reason::Translated)
}

/// Handles a packet from the underlay to which NAT has given another destination: as the guard does,
/// which saw the one before.
#[inline(always)]
pub fn destined(context: &TcContext, subject: &mut Subject) -> Result<(), Reason> {
    match guard::ingress::<false>(context, subject) {
        // Not told twice.
        Err(Reason::BypassedIn) => Ok(()),
        decided => decided,
    }
}

/// The rule that protects or discards a packet.
#[inline(always)]
fn selected(context: &TcContext, subject: &mut Subject) -> Option<u32> {
    let mut packet = Packet::EMPTY;
    match steer::judge::<false>(context, &mut packet, subject) {
        Ok(Some(Decision { action: Action::Protect | Action::Discard, rule })) => Some(rule),
        // What cannot be read is dropped at TC egress.
        Ok(Some(Decision { action: Action::Bypass, .. }) | None) | Err(_) => None,
    }
}
