//! From where ESP of an inbound SA comes. It is remembered in the SA's entry, and the daemon is told
//! when it changes: a NAT in front of the peer may have given it another address or port.
//!
//! Nobody has authenticated the packet, so that the daemon only asks the peer. For the same reason
//! it is told of one SA once a second: somebody who sends from many addresses keeps neither it nor
//! the ring busy. What it is not told is not remembered either, so that a peer which goes on to
//! send from elsewhere is told of as soon as the second is over, whoever was before it.
//!
//! The usual packet costs three comparisons with what the entry has beside the flags.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::XdpContext;
use gateway_common::{EspSeen, Reason, SaKey, Source};

use crate::maps::Sa;
use crate::{count, maps, packet};

/// How long after an event there is no other of the same SA, in nanoseconds.
const QUIET: u64 = 1_000_000_000;

/// A packet of an inbound SA has come from here.
#[inline(always)]
pub fn note(context: &XdpContext, key: &SaKey, sa: Sa, source: Source) {
    if !sa.was_seen_at(source) {
        changed(sa, key, &source, packet::length(context));
    }
}

/// Not inlined: the usual packet does not come here.
#[inline(never)]
fn changed(sa: Sa, key: &SaKey, source: &Source, octets: u64) {
    let event = EspSeen::new(EspSeen::MOVED, *key, *source);
    count::beside(told(sa, &event), octets);
}

/// Tells the daemon, if it is not too early. Two CPUs may do so at once.
#[inline(always)]
fn told(sa: Sa, change: &EspSeen) -> Reason {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let before = sa.told();
    if before != 0 && now.wrapping_sub(before) < QUIET {
        return Reason::SourceChangeHeldBack;
    }
    if maps::SOURCE_CHANGES.output(*change, 0).is_err() {
        return Reason::SourceChangeLost;
    }
    sa.remember(change.source, now);
    Reason::SourceChanged
}
