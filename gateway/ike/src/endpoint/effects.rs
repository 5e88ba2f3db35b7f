//! What one IKE SA causes elsewhere: done when it is back in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use gateway_wire::IkeSpi;

use super::Endpoint;
use crate::counters::Counter;
use crate::effect::Effect;
use crate::ike_sa::{ChildSa, IkeSa, Job, State, Wish};
use crate::io::{ChildId, IkeSaId};

impl Endpoint {
    /// Does what IKE SAs caused elsewhere, and what that causes in turn.
    pub(super) fn apply_effects(&mut self, now: Instant) {
        while !self.shared.effects.is_empty() {
            for effect in std::mem::take(&mut self.shared.effects) {
                self.apply_effect(now, effect);
            }
        }
    }

    fn apply_effect(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::InitialContact { holder, except, before } => {
                let stood = |id: &IkeSaId| {
                    *id != except && self.sas.get(id).is_some_and(|sa| sa.stood_before(before))
                };
                let stale: Vec<IkeSaId> = self.shared.contacts.of(&holder).filter(stood).collect();
                for id in stale {
                    self.with_sa(id, |sa, shared| sa.close(shared, "the peer has started anew"));
                }
            }
            Effect::RuleLost { rule, error } => self.rule_lost(now, &rule, error),
            Effect::RuleChanged { wish } => {
                self.start_rule(now, wish);
            }
            Effect::RuleServed { rule } => {
                self.rules.served(&rule);
            }
            Effect::Reauthenticate { ike_sa, peer, wishes } => {
                let jobs = wishes.into_iter().map(Job::CreateChild).collect();
                if !self.initiate(now, &peer, jobs, Some(ike_sa)) {
                    self.shared.effects.push(Effect::NotSuperseded { ike_sa });
                }
            }
            Effect::Rekeyed { ike_sa, spi, remnants } => self.rekeyed(ike_sa, spi, remnants),
            Effect::SayUnderOldKeys { ike_sa, saying } => {
                for id in self.remnants_of(ike_sa) {
                    self.with_sa(id, |sa, shared| sa.say(now, shared, saying.clone()));
                }
            }
            Effect::Heard { ike_sa, heard } => {
                self.with_sa(ike_sa, |sa, shared| sa.heard_before(now, shared, heard));
            }
            Effect::Superseded { ike_sa, heir } => {
                let left = self.not_served_by(heir, ike_sa);
                self.with_sa(ike_sa, |sa, shared| sa.superseded(now, shared, &left));
            }
            Effect::NotSuperseded { ike_sa } => {
                self.with_sa(ike_sa, |sa, shared| sa.not_superseded(now, shared));
            }
            Effect::Inherit { heir: (ike_sa, child), then: (owner, command) } => {
                self.with_sa(ike_sa, |sa, shared| sa.switch_to(shared, child));
                self.shared.command(owner, command);
            }
            Effect::JudgeLike { old, successor: (ike_sa, child) } => {
                let owner = self.shared.children.owner(old).and_then(|id| self.sas.get(&id));
                if let Some(judgement) = owner.and_then(|sa| sa.judgement_of(old)) {
                    self.with_sa(ike_sa, |sa, shared| sa.judge_like(shared, child, judgement));
                }
            }
            Effect::Refused { ike_sa } => {
                self.refused.insert(ike_sa);
                if self.refused.len() > self.shared.config.refused_initiator_limit
                    && let Some(oldest) = self.refused.first().copied()
                {
                    self.shared.count(Counter::RefusedForgotten);
                    self.with_sa(oldest, |sa, _| sa.state = State::Closed);
                }
            }
            Effect::TooManyContacts { holder, newest } => {
                self.make_room_for(now, &holder, newest);
            }
            Effect::NoLongerHalfOpen { key } => {
                self.half_open.remove(&key);
                self.watch_half_open(now);
            }
        }
    }

    /// The Child SAs of an IKE SA for which its heir has none. One that a rule has alone is of the rule,
    /// since what it protects may be another address now; of several each has its own pairs.
    fn not_served_by(&self, heir: IkeSaId, ike_sa: IkeSaId) -> BTreeSet<ChildId> {
        let heir = self.sas.get(&heir);
        let old = self.sas.get(&ike_sa).into_iter().flat_map(IkeSa::children);
        let mut live = BTreeMap::<_, Vec<&ChildSa>>::new();
        for child in old.filter(|child| child.is_live()) {
            live.entry(&child.rule.name).or_default().push(child);
        }
        let is_served = |child: &ChildSa, alone: bool| {
            let first = Wish::like(child).first.filter(|_| !alone);
            heir.is_some_and(|heir| heir.will_serve(&child.rule.name, first.as_ref()))
        };
        let left = live.into_values().flat_map(|of_rule| {
            let alone = of_rule.len() == 1;
            of_rule.into_iter().filter(move |child| !is_served(child, alone))
        });
        left.map(|child| child.id).collect()
    }

    /// What is left of the old keys of an IKE SA, the oldest first.
    fn remnants_of(&self, id: IkeSaId) -> Vec<IkeSaId> {
        self.remnants
            .range((id, IkeSaId(0))..=(id, IkeSaId(u64::MAX)))
            .map(|(_, old)| *old)
            .collect()
    }

    /// An IKE SA goes on by other SPIs; what is left of the old ones is closed under its own name.
    fn rekeyed(&mut self, id: IkeSaId, spi: IkeSpi, remnants: Vec<(IkeSpi, IkeSa)>) {
        if self.by_spi.insert(spi, id) != Some(id) {
            // Who has the keys that were in use until now has all those before them too.
            for old in self.remnants_of(id) {
                self.sas.get_mut(&old).into_iter().for_each(IkeSa::peer_has_newer_keys);
            }
        }
        for (spi, mut remnant) in remnants {
            remnant.id = self.sa_id();
            remnant.remnant_of = Some(id);
            self.by_spi.insert(spi, remnant.id);
            self.put_new(remnant);
        }
        // What a peer can make us keep is bounded: of many the oldest go without a word.
        let present = self.remnants_of(id);
        let excess = present.len().saturating_sub(self.shared.config.old_keys_limit);
        for id in present.into_iter().take(excess) {
            self.shared.count(Counter::OldKeysForgotten);
            self.with_sa(id, |sa, _| sa.state = State::Closed);
        }
    }
}
