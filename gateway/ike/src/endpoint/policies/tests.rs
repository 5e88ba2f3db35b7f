//! Differences between policies, and what the kernel holds after them.
#![expect(clippy::arithmetic_side_effects, reason = "This is test code.")]

use proptest::prelude::*;

use super::*;
use crate::config::{Action, LocalAuth, Secret};
use crate::testing::{Faults, Simulation, peer, policies, protect};

/// A peer: its key, and whether its address is known.
type PeerPlan = Option<(u8, bool)>;
/// A rule: its peer, or none for one that bypasses, and a priority.
type RulePlan = Option<(Option<usize>, u16)>;

fn set(peers: &[PeerPlan], rules: &[RulePlan]) -> PolicySet {
    let make_peer = |(n, plan): (usize, &PeerPlan)| -> Option<PeerConfig> {
        let (key, known) = (*plan)?;
        let remote = known.then(|| format!("192.0.2.{}", n + 10).parse().unwrap());
        let peer = peer(&format!("p{n}"), "us", &format!("p{n}"), remote);
        Some(PeerConfig { local_auth: LocalAuth::Psk(Secret::new(vec![key])), ..peer })
    };
    let make_rule = |(n, plan): (usize, &RulePlan)| -> Option<Rule> {
        let (its_peer, priority) = (*plan)?;
        let (local, remote) = (format!("10.{n}.0.0/16"), format!("10.{}.0.0/16", n + 100));
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let name = format!("r{n}");
        let to = format!("p{}", its_peer.unwrap_or(0));
        let mut rule = protect(&name, &to, local, remote, Start::Respond);
        rule.priority = priority;
        // The files are checked before: no rule has a peer that is not there.
        if its_peer.is_none_or(|p| peers[p].is_none()) {
            rule.action = Action::Bypass;
        }
        Some(rule)
    };
    policies(
        peers.iter().enumerate().filter_map(make_peer).collect(),
        rules.iter().enumerate().filter_map(make_rule).collect(),
    )
}

fn sets() -> impl Strategy<Value = PolicySet> {
    let peer_plan = prop::option::weighted(0.8, (0..2_u8, prop::bool::weighted(0.7)));
    let rule_plan = prop::option::weighted(
        0.7,
        (prop::option::weighted(0.8, 0..3_usize), prop::sample::select(vec![1000, 2000])),
    );
    (prop::collection::vec(peer_plan, 3), prop::collection::vec(rule_plan, 5))
        .prop_map(|(peers, rules)| set(&peers, &rules))
}

const PEER: PeerPlan = Some((0, true));
const RULE: RulePlan = Some((Some(0), 1000));

fn names(names: &[&str]) -> Vec<RuleName> {
    names.iter().map(|n| RuleName::from(*n)).collect()
}

#[test]
fn new_and_lost_rules_are_named() {
    let (old, new) = (set(&[PEER], &[RULE, RULE, None]), set(&[PEER], &[RULE, None, RULE]));
    let delta = PolicyDelta::between(&old, &new);
    let expected = PolicyDelta {
        added: names(&["r2"]),
        removed: names(&["r1"]),
        unchanged: 1,
        ..PolicyDelta::default()
    };
    assert_eq!(delta, expected);
}

#[test]
fn a_rule_with_other_content_has_changed() {
    let (old, new) = (set(&[PEER], &[RULE]), set(&[PEER], &[Some((Some(0), 2000))]));
    let delta = PolicyDelta::between(&old, &new);
    let expected = PolicyDelta { changed: names(&["r0"]), ..PolicyDelta::default() };
    assert_eq!(delta, expected);
}

#[test]
fn a_rule_whose_peer_has_changed_has_changed() {
    let bypass = Some((None, 1000));
    let old = set(&[PEER, PEER], &[RULE, Some((Some(1), 1000)), bypass]);
    let new = set(&[Some((1, true)), PEER], &[RULE, Some((Some(1), 1000)), bypass]);
    let expected = PolicyDelta {
        changed: names(&["r0"]),
        unchanged: 2,
        stale_peers: BTreeSet::from(["p0".into()]),
        ..PolicyDelta::default()
    };
    assert_eq!(PolicyDelta::between(&old, &new), expected);
}

#[test]
fn a_peer_that_is_gone_is_stale_and_a_new_one_is_not() {
    let (old, new) = (set(&[PEER, None], &[]), set(&[None, PEER], &[]));
    let expected =
        PolicyDelta { stale_peers: BTreeSet::from(["p0".into()]), ..PolicyDelta::default() };
    assert_eq!(PolicyDelta::between(&old, &new), expected);
}

#[test]
fn a_rule_whose_peer_may_now_be_anywhere_loses_its_trap() {
    let mut host = host();
    host.configure(0, set(&[PEER], &[RULE]));
    assert_eq!(traps(&host).len(), 1);
    host.configure(0, set(&[Some((0, false))], &[RULE]));
    assert_eq!(traps(&host), []);
}

fn host() -> Simulation {
    Simulation::new(&["192.0.2.1".parse().unwrap()], Faults::default(), 1)
}

/// The traps in the kernel by rule, without the request IDs, which depend on what was before.
fn traps(host: &Simulation) -> Vec<TrapSpec> {
    let traps = host.nodes[0].kernel.traps.values();
    let mut traps: Vec<_> = traps.map(|t| TrapSpec { reqid: 0, ..t.clone() }).collect();
    traps.sort_by(|a, b| a.rule.cmp(&b.rule));
    traps
}

proptest! {
    #[test]
    fn no_difference_is_found_where_there_is_none(policies in sets()) {
        let unchanged = policies.rules.len();
        let expected = PolicyDelta { unchanged, ..PolicyDelta::default() };
        prop_assert_eq!(PolicyDelta::between(&policies, &policies.clone()), expected);
    }

    #[test]
    fn every_rule_is_in_one_class_and_that_is_the_right_one(old in sets(), new in sets()) {
        let delta = PolicyDelta::between(&old, &new);
        let mut unchanged = 0;
        for name in old.rules.keys().chain(new.rules.keys()).collect::<BTreeSet<_>>() {
            let (before, after) = (old.rules.get(name), new.rules.get(name));
            let with_peer = |set: &PolicySet, rule: Option<&Arc<Rule>>| {
                let peer = rule.and_then(|r| peer_of(r)).and_then(|p| set.peers.get(p)).cloned();
                (rule.cloned(), peer)
            };
            let same = with_peer(&old, before) == with_peer(&new, after);
            unchanged += usize::from(same);
            let among = |names: &[RuleName]| names.iter().filter(|n| *n == name).count();
            prop_assert_eq!(among(&delta.added), usize::from(before.is_none()));
            prop_assert_eq!(among(&delta.removed), usize::from(after.is_none()));
            let both = before.is_some() && after.is_some();
            prop_assert_eq!(among(&delta.changed), usize::from(both && !same));
        }
        prop_assert_eq!(delta.unchanged, unchanged);
        let stale = old.peers.iter().filter(|(n, p)| new.peers.get(*n) != Some(p));
        let stale: BTreeSet<_> = stale.map(|(n, _)| PeerName::clone(n)).collect();
        prop_assert_eq!(delta.stale_peers, stale);
    }

    #[test]
    fn the_kernel_holds_what_it_would_without_a_past(old in sets(), new in sets()) {
        let (mut with_past, mut fresh) = (host(), host());
        with_past.configure(0, old);
        with_past.configure(0, new.clone());
        fresh.configure(0, new);
        prop_assert_eq!(traps(&with_past), traps(&fresh));
    }

    #[test]
    fn the_same_policies_again_touch_nothing_but_the_classifier(policies in sets()) {
        let mut host = host();
        host.configure(0, policies.clone());
        let before = host.nodes[0].kernel.history.len();
        host.configure(0, policies);
        prop_assert_eq!(&host.nodes[0].kernel.history[before..], ["classify"]);
    }
}
