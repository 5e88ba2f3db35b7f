//! ESP to an address of ours with an SPI that no SA of ours has: it ends where it comes in, before
//! the kernel or the daemon has any work with it, and is counted. The daemon is told of one a second.
//!
//! Whose it may be all the same:
//! - A peer's that has agreed to a Child SA of which we are still to hear (RFC 7296 2.8): the daemon
//!   enters the SPI before it asks, and that passes.
//! - Somebody else's on this host who has SAs. The daemon sees those, as long as it is there: so it
//!   says again and again until when to drop, apart for ESP that comes bare and for that in UDP,
//!   which comes to a port of ours and can be nobody else's.
//! - A host's behind us whose address is translated to ours, or a program's here that does ESP by
//!   itself. Either sends IKE or ESP, too: TC egress notes to whom, and what comes from there passes.

use aya_ebpf::programs::TcContext;
use gateway_common::{EspSeen, Rate, SaKey, Source, unknown};

use crate::header::{port, protocol};
use crate::number::{Number, now};
use crate::read::{Packet, Visible};
use crate::{maps, steer};

/// How often the daemon is told.
const TOLD: Rate = Rate::per_second(1, 4);

/// What becomes of ESP without an SA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is to somebody else.
    NotOurs,
    /// It goes on.
    Pass,
    /// It ends.
    Drop,
}

/// What becomes of ESP that would be of this SA, which we do not have; `until` is the place that
/// says how long such is dropped.
#[inline(always)]
pub(crate) fn judge(key: &SaKey, source: &Source, until: u32) -> Fate {
    match judge_unknown_esp(key, source, until) {
        PASS => Fate::Pass,
        DROP => Fate::Drop,
        _ => Fate::NotOurs,
    }
}

const NOT_OURS: u32 = 0;
const PASS: u32 = 1;
const DROP: u32 = 2;

/// [`judge`]. A function with a symbol is verified by itself, once, and not again for every way in
/// which the headers before can have been read.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn judge_unknown_esp(key: *const SaKey, source: *const Source, until: u32) -> u32 {
    // SAFETY: the kernel checks that all of it can be read; none is the null pointer.
    let Some(key) = (unsafe { key.as_ref() }) else { return NOT_OURS };
    // SAFETY: as above.
    let Some(source) = (unsafe { source.as_ref() }) else { return NOT_OURS };
    // On the stack: before 6.3 no map is asked by what a function was given a pointer to.
    let (destination, peer) = (key.destination, source.address);
    if !maps::is_local(&destination) {
        return NOT_OURS;
    }
    let now = now();
    let Some(until) = number(until) else { return PASS };
    if until.read() <= now || maps::is_others_peer(&peer) {
        return PASS;
    }
    if let Some(told) = number(unknown::TOLD)
        && told.take(TOLD, now)
    {
        // If nobody reads them: the counter says how many there were.
        let event = EspSeen::new(EspSeen::UNKNOWN, *key, *source);
        let _full = maps::SOURCE_CHANGES.output(event, 0);
    }
    DROP
}

/// TC egress: what leaves may be IKE or ESP of somebody else, which will be answered.
#[inline(always)]
pub(crate) fn note_others(context: &TcContext, packet: &Packet) {
    let may_be = match (packet.flow.protocol, packet.visible) {
        (_, Visible::LaterFragment) => false,
        (protocol::ESP, _) => true,
        (protocol::UDP, Visible::Ports) => {
            matches!(packet.local_port, port::IKE | port::NAT_TRAVERSAL)
        }
        _ => false,
    };
    // What is forwarded as it came is answered by somebody else's address.
    if !may_be || steer::is_marked(context) || !maps::is_local(&packet.flow.local) {
        return;
    }
    if !maps::is_others_peer(&packet.flow.remote) && steer::own_esp(context, packet).is_none() {
        let _full = maps::OTHERS_PEERS.insert(packet.flow.remote, 1, 0);
    }
}

#[inline(always)]
fn number(place: u32) -> Option<Number> {
    maps::UNKNOWN_ESP.get_ptr_mut(place).map(Number::new)
}
