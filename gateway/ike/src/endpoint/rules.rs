//! How the rules fare: which could not be served and why, and when those are tried again that are
//! always up.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::Endpoint;
use crate::config::{PeerName, Protect, RuleName, Start};
use crate::error::Error;
use crate::ike_sa::{IkeSa, Job, Wish};
use crate::io::IkeSaId;
use crate::selector::Sides;
use crate::time::after;

/// After a failure a rule that is always up is tried again after this long, then twice as long …
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// … up to this long.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How a rule fares.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleState {
    /// Why its last Child SA could not be made.
    pub(crate) last_error: Option<String>,
    /// When it is tried again.
    retry_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// All rules that are served.
#[derive(Debug, Default)]
pub(super) struct Rules {
    states: BTreeMap<RuleName, RuleState>,
    /// Each `retry_at`.
    retries: BTreeSet<(Instant, RuleName)>,
}

impl Rules {
    pub(super) fn get(&self, rule: &RuleName) -> Option<&RuleState> {
        self.states.get(rule)
    }

    /// A rule is new, or all is well with it again.
    pub(super) fn begin(&mut self, rule: &RuleName) {
        self.remove(rule);
        self.states.insert(RuleName::clone(rule), RuleState::default());
    }

    pub(super) fn remove(&mut self, rule: &RuleName) {
        self.set_retry(rule, None);
        self.states.remove(rule);
    }

    /// A rule has got its Child SA.
    pub(super) fn served(&mut self, rule: &RuleName) {
        let Some(state) = self.states.get_mut(rule) else { return };
        if let Some(at) = std::mem::take(state).retry_at {
            self.retries.remove(&(at, RuleName::clone(rule)));
        }
    }

    /// A rule has lost its Child SA, or did not get one; `again_from`: from when on it is tried
    /// again, soon and then less and less often.
    fn lost(&mut self, rule: &RuleName, error: Option<String>, again_from: Option<Instant>) {
        let Some(state) = self.states.get_mut(rule) else { return };
        if error.is_some() {
            state.failures = state.failures.saturating_add(1);
            state.last_error = error;
        }
        let doubled = 1u32.checked_shl(state.failures.min(16)).unwrap_or(u32::MAX);
        let wait = FIRST_RETRY.saturating_mul(doubled).min(LAST_RETRY);
        if let Some(now) = again_from {
            self.set_retry(rule, Some(after(now, wait)));
        }
    }

    /// The one place where it is set when a rule is tried again.
    fn set_retry(&mut self, rule: &RuleName, at: Option<Instant>) {
        let Some(state) = self.states.get_mut(rule) else { return };
        if let Some(before) = std::mem::replace(&mut state.retry_at, at) {
            self.retries.remove(&(before, RuleName::clone(rule)));
        }
        self.retries.extend(at.map(|at| (at, RuleName::clone(rule))));
    }

    /// When the next one is tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Takes those that are to be tried again now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<RuleName> {
        let due = self.retries.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<RuleName> = due.map(|(_, rule)| RuleName::clone(rule)).collect();
        due.iter().for_each(|rule| self.set_retry(rule, None));
        due
    }

    /// Nothing is tried again.
    pub(super) fn give_up(&mut self) {
        while let Some((_, rule)) = self.retries.pop_first() {
            if let Some(state) = self.states.get_mut(&rule) {
                state.retry_at = None;
            }
        }
    }
}

impl Endpoint {
    /// Sees to it that a rule gets a Child SA; `false` if it cannot have one, or will anyway.
    pub(super) fn start_rule(&mut self, now: Instant, wish: Wish) -> bool {
        if self.shutting_down {
            return false;
        }
        let Some(rule) = self.shared.policies.rules.get(&wish.rule) else { return false };
        let Some(protect) = rule.protect() else { return false };
        if protect.start == Start::Respond {
            return false;
        }
        let peer = PeerName::clone(&protect.peer);
        let serves = |of| self.with_peer(&peer).any(|sa| sa.will_serve(&wish.rule, of));
        if serves(wish.first.as_ref()) {
            return false;
        }
        // The peer has narrowed what the rule has: this is one more, of which there may be many.
        let is_more = serves(None);
        // An IKE SA that stands, or else one that is being made by us.
        let best = self
            .with_peer(&peer)
            .filter(|sa| sa.takes_jobs())
            .max_by_key(|sa| sa.is_established())
            .map(|sa| sa.id);
        match best {
            Some(id) => {
                let mut has_room = true;
                self.with_sa(id, |sa, shared| {
                    has_room = !is_more || sa.has_room_for_more(now, shared, &wish.rule);
                    if has_room {
                        sa.add_job(now, shared, Job::CreateChild(wish));
                    }
                });
                has_room
            }
            None => self.initiate(now, &peer, VecDeque::from([Job::CreateChild(wish)]), None),
        }
    }

    /// Whether a Child SA of a rule sends this.
    pub(super) fn sends(&self, rule: &RuleName, packet: &Sides) -> bool {
        let protect = self.shared.policies.rules.get(rule).and_then(|rule| rule.protect());
        let sas = protect.into_iter().flat_map(|protect| self.with_peer(&protect.peer));
        sas.flat_map(IkeSa::children).any(|child| child.sends(rule, packet))
    }

    /// The IKE SAs with a peer, whatever has become of them, by their numbers.
    pub(super) fn with_peer(&self, peer: &PeerName) -> impl Iterator<Item = &IkeSa> {
        let all = [IkeSaId(0), IkeSaId(u64::MAX)].map(|id| (PeerName::clone(peer), id));
        let [first, last] = all;
        self.by_peer.range(first..=last).filter_map(|(_, id)| self.sas.get(id))
    }

    /// A rule has lost its Child SA, or did not get one. One that is always up is tried again.
    pub(super) fn rule_lost(&mut self, now: Instant, name: &RuleName, error: Option<String>) {
        let protect = self.shared.policies.rules.get(name).and_then(|rule| rule.protect());
        let always = protect.filter(|protect| protect.start == Start::Always);
        // A peer that takes single pairs only is asked when there is a packet.
        let by_packets =
            always.is_some_and(|p| self.shared.single_pairs.are_demanded_by_any(&p.peer, name));
        let error = error.or_else(|| by_packets.then(|| Error::SinglePairs.to_string()));
        // One beside it may serve the rule: what is wrong with the other is told where it happens.
        let serves =
            |protect: &Protect| self.with_peer(&protect.peer).any(|sa| sa.will_serve(name, None));
        let error = error.filter(|_error| !protect.is_some_and(serves));
        let again = always.is_some() && !by_packets && !self.shutting_down;
        self.rules.lost(name, error, again.then_some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::start;

    fn is_in_step(rules: &Rules) -> bool {
        let of_states = rules
            .states
            .iter()
            .filter_map(|(rule, state)| state.retry_at.map(|at| (at, RuleName::clone(rule))));
        of_states.collect::<BTreeSet<_>>() == rules.retries
    }

    proptest::proptest! {
        #[test]
        fn what_is_tried_again_is_known_by_rule_and_by_time(
            steps in proptest::collection::vec((0..7u8, 0..4u8, 0..100u64), 0..60)
        ) {
            let (mut rules, mut now) = (Rules::default(), start());
            for (step, rule, wait) in steps {
                let rule: RuleName = rule.to_string().into();
                match step {
                    0 => rules.begin(&rule),
                    1 => rules.remove(&rule),
                    2 => rules.served(&rule),
                    3 => rules.lost(&rule, None, None),
                    4 => rules.lost(&rule, Some("no".to_owned()), Some(now)),
                    5 => {
                        now = after(now, Duration::from_secs(wait));
                        let due = rules.take_due(now);
                        proptest::prop_assert!(due.iter().all(|rule| rules.get(rule).is_some()));
                        proptest::prop_assert!(rules.next_retry().is_none_or(|at| at > now));
                    }
                    _ => rules.give_up(),
                }
                proptest::prop_assert!(is_in_step(&rules));
            }
        }
    }

    #[test]
    fn a_rule_waits_twice_as_long_each_time_up_to_a_limit_until_it_is_served() {
        let (mut rules, now, rule) = (Rules::default(), start(), "r".into());
        rules.begin(&rule);
        let wait = |rules: &mut Rules| {
            rules.lost(&rule, Some("no".to_owned()), Some(now));
            rules.next_retry().unwrap().duration_since(now).as_secs()
        };
        assert_eq!([(); 7].map(|()| wait(&mut rules)), [2, 4, 8, 16, 32, 60, 60]);
        rules.served(&rule);
        assert_eq!(rules.next_retry(), None);
        assert_eq!(wait(&mut rules), 2);
    }
}
