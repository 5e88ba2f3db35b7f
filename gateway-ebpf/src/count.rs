//! Counting, and the one place that turns a decision into a verdict.

use aya_ebpf::EbpfContext;
use gateway_common::{Count, Reason, RuleCount, Subject, Verdict};

use crate::maps::{COUNTERS, RULE_COUNTERS};
use crate::trace::{self, Place, Source};

/// Counts a decision about a packet that had so many octets, tells of it, and says what becomes of
/// the packet.
#[inline(always)]
pub fn verdict<C: EbpfContext + Source>(
    context: &C,
    place: Place,
    decided: Result<(), Reason>,
    octets: u64,
    subject: &Subject,
) -> Verdict {
    trace::decided(context, place, decided, subject);
    match decided {
        Ok(()) => Verdict::Pass,
        Err(reason) => {
            beside(reason, octets);
            aya_log_ebpf::trace!(context, "reason {}, {} octets", reason.index(), octets);
            reason.verdict()
        }
    }
}

/// Counts a packet whose verdict has another reason.
#[inline(always)]
pub fn beside(reason: Reason, octets: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.index()) {
        // SAFETY: the map gave the pointer, and it is this CPU's own counter.
        add(unsafe { &mut *counter }, octets);
    }
}

/// Counts what a rule did.
#[inline(always)]
pub fn rule(rule: u32, octets: u64, which: impl FnOnce(&mut RuleCount) -> &mut Count) {
    if let Some(counter) = RULE_COUNTERS.get_ptr_mut(rule) {
        // SAFETY: the map gave the pointer, and it is this CPU's own counter.
        add(which(unsafe { &mut *counter }), octets);
    }
}

#[inline(always)]
fn add(counter: &mut Count, octets: u64) {
    counter.packets = counter.packets.wrapping_add(1);
    counter.octets = counter.octets.wrapping_add(octets);
}
