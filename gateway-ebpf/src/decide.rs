//! The search for a packet's rule, as a function that the kernel verifies by itself: once, for any
//! flow, and not again for every way in which a packet's headers can have been read before.

use gateway_common::{Action, Flow, Match, classify};

use crate::maps::Current;

/// The rule that decides about a flow.
#[inline(always)]
#[must_use]
pub fn decide(flow: &Flow) -> Option<Decision> {
    let found = find_rule(flow);
    Some(Decision { action: Action::new(found as u32)?, rule: (found >> 32) as u32 })
}

/// What a rule says.
#[derive(Clone, Copy)]
pub struct Decision {
    /// What becomes of the packet.
    pub action: Action,
    /// The rule's identifier.
    pub rule: u32,
}

/// The rule's identifier in the upper half, the action's number in the lower; 0 if there is none.
///
/// The kernel takes a function for global, and verifies it apart, if it has a symbol; such a
/// function returns one number, and may be called with no flow at all.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_rule(flow: *const Flow) -> u64 {
    // SAFETY: the kernel checks that all of it can be read; none is the null pointer.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    let Some(rules) = Current::get() else { return 0 };
    match classify(&rules, flow) {
        Some(Match { rule, action, .. }) => u64::from(rule) << 32 | u64::from(action),
        None => 0,
    }
}
