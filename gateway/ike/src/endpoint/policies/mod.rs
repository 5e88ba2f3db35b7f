//! New policies: what changed, and the order in which it is done: the new stands before the old
//! goes, and what did not change is not touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use crate::config::{PeerConfig, PeerName, PolicySet, Rule, RuleName, Start, UserName};
use crate::event::EventKind;
use crate::ike_sa::{IkeSa, Job, Wish};
use crate::io::{ChildId, IkeSaId, KernelCommand, TrapSpec};
use crate::policies::Policies;
use crate::selector;
use crate::shared::Owner;

/// The difference between two sets of policies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyDelta {
    pub(crate) added: Vec<RuleName>,
    pub(crate) removed: Vec<RuleName>,
    /// Rules whose content, or whose peer's, has changed.
    pub(crate) changed: Vec<RuleName>,
    pub(crate) unchanged: usize,
    /// Peers that are gone or have changed: their IKE SAs end.
    pub(crate) stale_peers: BTreeSet<PeerName>,
    /// Peers of which only certificates have changed, theirs or ours: their IKE SAs stay if the
    /// peer would still be believed.
    pub(crate) renewed_peers: BTreeSet<PeerName>,
    /// Users that are gone or have another password: what they authenticated ends.
    pub(crate) stale_users: BTreeSet<UserName>,
}

impl PolicyDelta {
    /// Pure: what must be done to get from `old` to `new`.
    pub(crate) fn between(old: &PolicySet, new: &PolicySet) -> Self {
        let mut delta = Self::default();
        for (name, peer) in &old.peers {
            match new.peers.get(name) {
                Some(now) if now == peer => {}
                Some(now) if peer.may_become(now) => {
                    delta.renewed_peers.insert(PeerName::clone(name));
                }
                Some(_) | None => {
                    delta.stale_peers.insert(PeerName::clone(name));
                }
            }
        }
        for (name, user) in &old.users {
            if new.users.get(name) != Some(user) {
                delta.stale_users.insert(UserName::clone(name));
            }
        }
        for (name, rule) in &new.rules {
            let same_peer = |r: &Rule| peer_of(r).is_none_or(|p| !delta.stale_peers.contains(p));
            match old.rules.get(name) {
                None => delta.added.push(RuleName::clone(name)),
                Some(before) if before == rule && same_peer(rule) => {
                    delta.unchanged = delta.unchanged.saturating_add(1);
                }
                Some(_) => delta.changed.push(RuleName::clone(name)),
            }
        }
        delta.removed = old.rules.keys().filter(|n| !new.rules.contains_key(*n)).cloned().collect();
        delta
    }
}

fn peer_of(rule: &Rule) -> Option<&PeerName> {
    rule.protect().map(|p| &p.peer)
}

impl Endpoint {
    pub(super) fn apply_policies(&mut self, now: Instant, new: Arc<PolicySet>) {
        let indexed = Arc::new(Policies::new(Arc::clone(&new)));
        let old = std::mem::replace(&mut self.shared.policies, indexed);
        let delta = PolicyDelta::between(&old, &new);
        self.shared.retain_leases();
        let stays = |rule: &RuleName| old.rules.get(rule) == new.rules.get(rule);
        self.shared.single_pairs.retain(stays);
        // Traps of new rules first, then the classification, so that no packet is sent to the
        // XFRM interface before something there waits for it.
        for name in delta.added.iter().chain(&delta.changed) {
            self.rules.begin(name);
            if let Some(rule) = new.rules.get(name) {
                self.install_trap(rule, &new);
            }
        }
        let words = "loading the rules into the classifier".to_owned();
        self.shared.command(Owner::Endpoint(words), KernelCommand::Classify(Arc::clone(&new)));
        self.end_stale(now, &delta, &new);
        for name in &delta.removed {
            self.rules.remove(name);
            if let Some(reqid) = self.shared.reqids.take(name) {
                self.remove_trap(name, reqid);
            }
        }
        self.shared.report(
            None,
            EventKind::PoliciesApplied {
                added: delta.added.len(),
                removed: delta.removed.len(),
                changed: delta.changed.len(),
                unchanged: delta.unchanged,
            },
        );
        self.apply_effects(now);
        for name in delta.added.iter().chain(&delta.changed) {
            let always = new
                .rules
                .get(name)
                .and_then(|r| r.protect())
                .is_some_and(|p| p.start == Start::Always);
            if always {
                self.start_rule(now, Wish::new(RuleName::clone(name)));
            }
        }
    }

    /// IKE SAs with peers that have changed end, and so do the Child SAs of rules that are gone
    /// or select, or protect, something else than before; at last the IKE SAs that no rule needs.
    fn end_stale(&mut self, now: Instant, delta: &PolicyDelta, new: &PolicySet) {
        let stale_peer =
            |sa: &&IkeSa| sa.peer.as_ref().is_some_and(|p| delta.stale_peers.contains(&p.name));
        let stale: Vec<IkeSaId> = self.sas.values().filter(stale_peer).map(|sa| sa.id).collect();
        for id in stale {
            self.with_sa(id, |sa, shared| {
                sa.delete_ike(now, shared, "the peer's configuration has changed")
            });
        }
        self.judge_again(now, delta, new);
        let by_user =
            |sa: &&IkeSa| sa.user.as_ref().is_some_and(|user| delta.stale_users.contains(user));
        let stale: Vec<IkeSaId> = self.sas.values().filter(by_user).map(|sa| sa.id).collect();
        for id in stale {
            self.with_sa(id, |sa, shared| {
                sa.delete_ike(now, shared, "the user's configuration has changed")
            });
        }
        let mut stale: Vec<(IkeSaId, ChildId)> = Vec::new();
        for sa in self.sas.values() {
            let is_quantum_safe = sa.is_quantum_safe() == Some(true);
            let outdated = sa.children().filter(|c| !new.still_wants(&c.rule, is_quantum_safe));
            stale.extend(outdated.map(|c| (sa.id, c.id)));
        }
        for (id, child) in stale {
            self.with_sa(id, |sa, shared| {
                sa.delete_child(now, shared, child, "the rule has changed")
            });
        }
        let needed: BTreeSet<&PeerName> = new.rules.values().filter_map(|r| peer_of(r)).collect();
        let is_unneeded = |sa: &&IkeSa| {
            let is_needed = |peer: &Arc<PeerConfig>| needed.contains(&peer.name);
            sa.is_established() && !sa.peer.as_ref().is_some_and(is_needed)
        };
        let unneeded: Vec<IkeSaId> =
            self.sas.values().filter(is_unneeded).map(|sa| sa.id).collect();
        for id in unneeded {
            // After what is under way, such as the Delete of a Child SA of a rule that is gone.
            self.with_sa(id, |sa, shared| {
                sa.add_job(now, shared, Job::DeleteIke { reason: "no rule needs it" })
            });
        }
    }

    /// IKE SAs with peers that show certificates, after what is believed has changed: those stay
    /// whose peer would be believed again.
    fn judge_again(&mut self, now: Instant, delta: &PolicyDelta, new: &PolicySet) {
        for peer in delta.renewed_peers.iter().filter_map(|name| new.peers.get(name)) {
            let all: Vec<IkeSaId> = self.with_peer(&peer.name).map(|sa| sa.id).collect();
            for id in all {
                self.with_sa(id, |sa, shared| sa.peer_renewed(now, shared, peer));
            }
        }
    }

    fn install_trap(&mut self, rule: &Rule, policies: &PolicySet) {
        let Some(protect) = rule.protect() else {
            // It may have been a protecting rule before.
            if let Some(reqid) = self.shared.reqids.take(&rule.name) {
                self.remove_trap(&rule.name, reqid);
            }
            return;
        };
        let known = self.shared.reqids.get(&rule.name).is_some();
        let reqid = self.shared.reqids.give(&rule.name);
        let peer = policies.peers.get(&protect.peer);
        let Some((peer, remote)) = peer.and_then(|p| p.remote_address.map(|remote| (p, remote)))
        else {
            // Whose peer may be anywhere has no template: what is steered into the XFRM interface
            // for it finds no policy there and is dropped until the peer has come. Before, the
            // peer may have had an address.
            if known {
                self.remove_trap(&rule.name, reqid);
            }
            return;
        };
        let spec = TrapSpec {
            rule: RuleName::clone(&rule.name),
            reqid,
            local: peer.local_address,
            remote,
            mode: protect.mode,
            selectors: selector::rule_pairs(rule),
        };
        let words = format!("installing the policies of rule {}", rule.name);
        self.shared.command(Owner::Endpoint(words), KernelCommand::InstallTrap(spec));
    }

    fn remove_trap(&mut self, name: &RuleName, reqid: u32) {
        let words = format!("removing the policies of rule {name}");
        self.shared.command(Owner::Endpoint(words), KernelCommand::RemoveTrap { reqid });
    }
}

#[cfg(test)]
mod tests;
