//! The request IDs: what ties a rule to its traps, acquires and inbound SAs in the kernel, and the
//! policies of a Child SA to what it sends by.
//!
//! The kernel takes for a packet the newest SA of the request ID that the policy names
//! (`xfrm_state_find`). The SA has a selector of its own only where one can say all that was agreed.
//! So it is the request ID that keeps from an SA what its selectors exclude, which the peer would drop
//! (RFC 7296 2.9): those that share one protect the same, and a trap has one by which nothing sends,
//! so that what meets it raises an acquire. A successor that protects the same takes over without a
//! change to the policies; one that does not gets another, which its policies name from then on.
//!
//! What receives has that of the rule: a policy of what comes in is one for all Child SAs of the rule
//! that want it, and demands this request ID (`xfrm_state_ok`).

use std::collections::BTreeMap;

use crate::config::RuleName;
use crate::io::{REQIDS, Selector};
use crate::selector::{self, Key, Sides};

/// See the module. That of a rule stays with its name across reloads, so that unchanged rules are not
/// touched.
#[derive(Debug)]
pub(crate) struct Reqids {
    rules: BTreeMap<RuleName, OfRule>,
    sending: BTreeMap<Protected, Sharing>,
    /// All that are in use; with the rule, if one has it.
    used: BTreeMap<u32, Option<RuleName>>,
    /// Where to look for a free one: not at once again at one that has just become free.
    next: u32,
}

#[derive(Debug)]
struct OfRule {
    reqid: u32,
    /// The number of the last acquire and the packet that it was for, if nothing has come of it yet.
    asked: Option<(u32, Sides)>,
    /// Whether a Child SA has begun to send, since when no packet that it sends has strayed.
    begun: bool,
}

/// An acquire that the kernel may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The request ID of the trap.
    pub(crate) reqid: u32,
    /// The acquire's number.
    pub(crate) seq: u32,
}

#[derive(Debug)]
struct Sharing {
    reqid: u32,
    children: usize,
}

/// What a Child SA protects, in order, and for which rule.
pub(crate) type Protected = (RuleName, Vec<Key>);

impl Default for Reqids {
    fn default() -> Self {
        let (rules, sending, used) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { rules, sending, used, next: *REQIDS.start() }
    }
}

impl Reqids {
    /// The request ID of a rule, if it has one.
    pub(crate) fn get(&self, rule: &RuleName) -> Option<u32> {
        self.rules.get(rule).map(|of| of.reqid)
    }

    /// The request ID of a rule; a new rule gets a free one.
    pub(crate) fn give(&mut self, rule: &RuleName) -> u32 {
        if let Some(reqid) = self.get(rule) {
            return reqid;
        }
        let reqid = self.free(Some(RuleName::clone(rule)));
        self.rules.insert(RuleName::clone(rule), OfRule { reqid, asked: None, begun: false });
        reqid
    }

    /// Takes a rule's request ID away; gives which it was.
    pub(crate) fn take(&mut self, rule: &RuleName) -> Option<u32> {
        let of = self.rules.remove(rule)?;
        self.used.remove(&of.reqid);
        Some(of.reqid)
    }

    /// A packet has met a trap; gives the rule.
    pub(crate) fn asks(&mut self, reqid: u32, seq: u32, packet: Sides) -> Option<RuleName> {
        let rule = self.used.get(&reqid)?.as_ref()?;
        if let Some(of) = self.rules.get_mut(rule) {
            of.asked = Some((seq, packet));
        }
        Some(RuleName::clone(rule))
    }

    /// A Child SA of a rule begins to send. Gives what it answers, if it sends the packet that has
    /// asked last: one that asks for something else is still to be answered, or is not wanted.
    pub(crate) fn begins(&mut self, rule: &RuleName, pairs: &[(Selector, u32)]) -> Option<Asked> {
        let of = self.rules.get_mut(rule)?;
        of.begun = true;
        let (seq, _) = of.asked.take_if(|(_, packet)| selector::protect(pairs, packet))?;
        Some(Asked { reqid: of.reqid, seq })
    }

    /// The packet that has asked last is one that a Child SA sends: it met the trap just before the
    /// policies of that stood. Gives what is answered thereby, once for each Child SA that begins:
    /// a kernel that will not have it would else ask with each packet.
    pub(crate) fn strays(&mut self, rule: &RuleName) -> Option<Asked> {
        let of = self.rules.get_mut(rule)?;
        let (seq, _) = of.asked.take_if(|_| of.begun)?;
        of.begun = false;
        Some(Asked { reqid: of.reqid, seq })
    }

    /// The request ID by which a new Child SA sends: that of the others that protect the same. Must
    /// be released.
    pub(crate) fn share(&mut self, rule: &RuleName, pairs: &[(Selector, u32)]) -> u32 {
        let key = Self::key(rule, pairs);
        if let Some(sharing) = self.sending.get_mut(&key) {
            sharing.children = sharing.children.saturating_add(1);
            return sharing.reqid;
        }
        let reqid = self.free(None);
        self.sending.insert(key, Sharing { reqid, children: 1 });
        reqid
    }

    /// A Child SA is gone.
    pub(crate) fn release(&mut self, rule: &RuleName, pairs: &[(Selector, u32)]) {
        let key = Self::key(rule, pairs);
        let Some(sharing) = self.sending.get_mut(&key) else { return };
        sharing.children = sharing.children.saturating_sub(1);
        if sharing.children == 0 {
            self.used.remove(&sharing.reqid);
            self.sending.remove(&key);
        }
    }

    /// Whether there is no Child SA.
    pub(crate) fn nothing_sends(&self) -> bool {
        self.sending.is_empty()
    }

    /// What Child SAs protect that share a request ID.
    pub(crate) fn key(rule: &RuleName, pairs: &[(Selector, u32)]) -> Protected {
        let mut keys: Vec<Key> = pairs.iter().map(|(pair, _)| selector::key(pair)).collect();
        keys.sort_unstable();
        keys.dedup();
        (RuleName::clone(rule), keys)
    }

    /// How many share each.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Protected, usize)> {
        self.sending.iter().map(|(key, sharing)| (key, sharing.children))
    }

    /// Takes a free one. There are more of them than rules and Child SAs that any gateway could hold.
    fn free(&mut self, rule: Option<RuleName>) -> u32 {
        let mut reqid = self.next;
        while self.used.contains_key(&reqid) {
            reqid = after(reqid);
        }
        self.next = after(reqid);
        self.used.insert(reqid, rule);
        reqid
    }
}

/// The next one, round and round.
fn after(reqid: u32) -> u32 {
    if reqid >= *REQIDS.end() { *REQIDS.start() } else { reqid.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::ALL_PORTS;

    fn name(number: u32) -> RuleName {
        number.to_string().into()
    }

    fn pairs(remotes: &[&str]) -> Vec<(Selector, u32)> {
        let pair = |remote: &&str| {
            let (local, remote) = ("10.0.0.0/8".parse().unwrap(), remote.parse().unwrap());
            let (local_ports, remote_ports) = (ALL_PORTS, ALL_PORTS);
            (Selector { local, remote, protocol: None, local_ports, remote_ports }, 1)
        };
        remotes.iter().map(pair).collect()
    }

    /// To port 443 of this address.
    fn packet(remote: &str) -> Sides {
        let side = |address: &str, port| selector::of_packet(6, address.parse().unwrap(), port);
        (side("10.0.0.1", 40_000), side(remote, 443))
    }

    #[test]
    fn a_rule_keeps_its_reqid_and_is_found_by_it() {
        let mut reqids = Reqids::default();
        let (one, two) = (reqids.give(&name(1)), reqids.give(&name(2)));
        assert_ne!(one, two);
        assert_eq!(reqids.give(&name(1)), one);
        assert_eq!(reqids.asks(two, 7, packet("10.1.0.1")), Some(name(2)));
        assert_eq!((reqids.take(&name(2)), reqids.take(&name(2))), (Some(two), None));
        let asks = reqids.asks(two, 7, packet("10.1.0.1"));
        assert_eq!((asks, reqids.get(&name(2))), (None, None));
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

    #[test]
    fn only_those_that_protect_the_same_share_one_and_none_has_that_of_a_trap() {
        let mut reqids = Reqids::default();
        let (rule, both) = (name(1), ["10.1.0.0/16", "10.2.0.0/16"]);
        let trap = reqids.give(&rule);
        let first = reqids.share(&rule, &pairs(&both));
        assert_eq!(reqids.share(&rule, &pairs(&["10.2.0.0/16", "10.1.0.0/16"])), first);
        let others = [
            reqids.share(&rule, &pairs(&both[..1])),
            reqids.share(&rule, &pairs(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"])),
            reqids.share(&name(2), &pairs(&both)),
        ];
        let all: BTreeSet<u32> = others.into_iter().chain([trap, first]).collect();
        assert_eq!(all.len(), 5);
        let asks = reqids.asks(first, 7, packet("10.1.0.1"));
        assert_eq!(asks, None, "nobody may ask for what is there");
        // It stays as long as one of them does.
        reqids.release(&rule, &pairs(&both));
        assert_eq!(reqids.share(&rule, &pairs(&both)), first);
        reqids.release(&rule, &pairs(&both));
        reqids.release(&rule, &pairs(&both));
        assert_ne!(reqids.share(&rule, &pairs(&both)), first);
    }

    #[test]
    fn an_acquire_is_answered_once() {
        let mut reqids = Reqids::default();
        let trap = reqids.give(&name(1));
        let asked = |seq| Some(Asked { reqid: trap, seq });
        let (packet, pairs) = (packet("10.1.0.1"), pairs(&["10.1.0.0/16"]));
        reqids.asks(trap, 7, packet);
        assert_eq!(reqids.strays(&name(1)), None, "nothing sends");
        reqids.asks(trap, 8, packet);
        assert_eq!(reqids.begins(&name(1), &pairs), asked(8));
        assert_eq!(reqids.begins(&name(1), &pairs), None);
        for seq in 9..12 {
            reqids.asks(trap, seq, packet);
            assert_eq!(reqids.strays(&name(1)), asked(seq).filter(|_| seq == 9));
        }
        assert_eq!(reqids.begins(&name(1), &pairs), asked(11));
    }

    #[test]
    fn an_acquire_is_answered_by_what_sends_its_packet() {
        let mut reqids = Reqids::default();
        let trap = reqids.give(&name(1));
        reqids.asks(trap, 7, packet("10.2.0.1"));
        let web = |port| {
            let mut web = pairs(&["10.2.0.0/16"]);
            (web[0].0.protocol, web[0].0.remote_ports) = (Some(6), port..=port);
            web
        };
        for other in [pairs(&["10.1.0.0/16"]), pairs(&["10.2.0.2/32"]), web(80)] {
            assert_eq!(reqids.begins(&name(1), &other), None);
        }
        assert_eq!(reqids.begins(&name(1), &web(443)), Some(Asked { reqid: trap, seq: 7 }));
    }
}
