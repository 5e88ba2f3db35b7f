//! The request IDs of the rules: what ties a rule to its traps, acquires and SAs in the kernel.

use std::collections::BTreeMap;

use crate::config::RuleName;
use crate::io::REQIDS;

/// One request ID of [`REQIDS`] for each rule that has one. It stays with the rule's name across
/// reloads, so that unchanged rules are not touched.
#[derive(Debug)]
pub(crate) struct Reqids {
    by_rule: BTreeMap<RuleName, u32>,
    by_reqid: BTreeMap<u32, RuleName>,
    /// Where to look for a free one: not at once again at one that has just become free.
    next: u32,
}

impl Default for Reqids {
    fn default() -> Self {
        Self { by_rule: BTreeMap::new(), by_reqid: BTreeMap::new(), next: *REQIDS.start() }
    }
}

impl Reqids {
    /// The request ID of a rule, if it has one.
    pub(crate) fn get(&self, rule: &RuleName) -> Option<u32> {
        self.by_rule.get(rule).copied()
    }

    /// The rule that has a request ID.
    pub(crate) fn rule(&self, reqid: u32) -> Option<&RuleName> {
        self.by_reqid.get(&reqid)
    }

    /// The request ID of a rule; a new rule gets the next free one. There are more of them than
    /// rules that any gateway could hold.
    pub(crate) fn give(&mut self, rule: &RuleName) -> u32 {
        if let Some(reqid) = self.get(rule) {
            return reqid;
        }
        let mut reqid = self.next;
        while self.by_reqid.contains_key(&reqid) {
            reqid = after(reqid);
        }
        self.next = after(reqid);
        self.by_rule.insert(RuleName::clone(rule), reqid);
        self.by_reqid.insert(reqid, RuleName::clone(rule));
        reqid
    }

    /// Takes a rule's request ID away; gives which it was.
    pub(crate) fn take(&mut self, rule: &RuleName) -> Option<u32> {
        let reqid = self.by_rule.remove(rule)?;
        self.by_reqid.remove(&reqid);
        Some(reqid)
    }
}

/// The next one, round and round.
fn after(reqid: u32) -> u32 {
    if reqid >= *REQIDS.end() { *REQIDS.start() } else { reqid.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> RuleName {
        number.to_string().into()
    }

    #[test]
    fn a_rule_keeps_its_reqid_and_is_found_by_it() {
        let mut reqids = Reqids::default();
        let (one, two) = (reqids.give(&name(1)), reqids.give(&name(2)));
        assert_ne!(one, two);
        assert_eq!(reqids.give(&name(1)), one);
        assert_eq!(reqids.rule(two), Some(&name(2)));
        assert_eq!((reqids.take(&name(2)), reqids.take(&name(2))), (Some(two), None));
        assert_eq!((reqids.rule(two), reqids.get(&name(2))), (None, None));
    }

    #[test]
    fn reqids_never_leave_their_range_and_are_used_again() {
        let mut reqids = Reqids::default();
        let kept = reqids.give(&name(0));
        reqids.next = *REQIDS.end();
        assert_eq!(reqids.give(&name(1)), *REQIDS.end());
        let again = reqids.give(&name(2));
        assert!(REQIDS.contains(&again) && again != kept);
    }
}
