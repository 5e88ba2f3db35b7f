//! Policies that change while an answer is under way: what the peer agrees to may be wanted no more.

use super::*;

/// How a request is brought under way.
type Begin = fn(Start) -> Simulation;
/// Rules by their names, each with a network of B's.
type Rules = &'static [(&'static str, &'static str)];

/// As B has it, and twice as much.
const TRAFFIC: &str = "10.2.0.0/24";
const MORE: &str = "10.2.0.0/23";

/// What A wants of B, by a rule for each network of B's, and when.
fn wanting(start: Start, rules: &[(&str, &str)]) -> PolicySet {
    let rule = |(name, remote): &(&str, &str)| {
        protect(name, "b", "10.1.0.0/24".parse().unwrap(), remote.parse().unwrap(), start)
    };
    policies(vec![peer("b", "a.test", "b.test", Some(B))], rules.iter().map(rule).collect())
}

/// B takes all of that.
fn generous() -> PolicySet {
    with_rule(policies_of_b(), |rule| rule.local = vec!["10.2.0.0/16".parse().unwrap()])
}

/// A has asked B for what `to-b` wants in IKE_AUTH, and the answer is under way.
fn authenticating(start: Start) -> Simulation {
    let mut simulation = pair(wanting(start, &[("to-b", TRAFFIC)]), generous());
    if start == Start::OnDemand {
        simulation.acquire(0, "to-b");
    }
    for to in [1, 0, 1] {
        simulation.deliver(to, false);
    }
    answered(&simulation, 1);
    simulation
}

/// The same in CREATE_CHILD_SA, on an IKE SA that has a Child SA for `other`.
fn creating(start: Start) -> Simulation {
    let (other, rule) = (("other", "10.2.9.0/24"), ("to-b", TRAFFIC));
    let mut simulation = pair(wanting(start, &[other]), generous());
    simulation.acquire(0, "other");
    simulation.run(MINUTE);
    simulation.configure(0, wanting(start, &[other, rule]));
    if start == Start::OnDemand {
        simulation.acquire(0, "to-b");
    }
    simulation.deliver(1, false);
    answered(&simulation, 2);
    simulation
}

/// The same for the successor of a Child SA.
fn rekeying(start: Start) -> Simulation {
    let mut simulation = connect(wanting(start, &[("to-b", TRAFFIC)]), generous());
    let spi = simulation.nodes[0].kernel.children.values().next().unwrap().inbound.spi;
    let expired = KernelEvent::Expire { spi, destination: A, hard: false };
    simulation.input(0, Input::Kernel(expired));
    simulation.deliver(1, false);
    answered(&simulation, 2);
    simulation
}

/// B has so many Child SAs, and what it says of the last is under way.
fn answered(simulation: &Simulation, children: usize) {
    assert_eq!(simulation.nodes[1].kernel.children.len(), children);
    assert!(simulation.nodes[0].kernel.children.len() < children);
    assert_eq!(simulation.under_way(0), 1);
}

/// The networks of B's that A has Child SAs with, after a while in which both ends agree.
fn protected(simulation: &mut Simulation) -> Vec<String> {
    simulation.run(MINUTE);
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    let [ours, theirs] = [0, 1].map(|node| &simulation.nodes[node].kernel.children);
    assert_eq!(ours.len(), theirs.len(), "nothing is left at B");
    let remote = |child: &gateway_ike::io::ChildSpec| child.selectors[0].0.remote.to_string();
    ours.values().map(remote).collect()
}

fn ike_sas(simulation: &Simulation) -> [usize; 2] {
    [0, 1].map(|node| simulation.nodes[node].endpoint.status(simulation.now).ike_sas.len())
}

/// How often A's kernel has got something for `to-b`.
fn installed(simulation: &Simulation) -> usize {
    let history = simulation.nodes[0].kernel.history.iter();
    history.filter(|what| *what == "install child to-b").count()
}

#[test]
fn what_no_rule_wants_any_more_when_ike_auth_is_answered_is_deleted_with_the_ike_sa() {
    for start in [Start::OnDemand, Start::Always] {
        let mut simulation = authenticating(start);
        simulation.configure(0, wanting(start, &[]));
        assert_eq!(protected(&mut simulation), Vec::<String>::new());
        assert_eq!(ike_sas(&simulation), [0, 0]);
        assert_eq!(installed(&simulation), 0, "not for a moment");
        let is_told = |e: &EventKind| *e == EventKind::Closed("no rule needs it");
        assert!(has_event(&simulation, 0, is_told));
    }
}

#[test]
fn an_ike_sa_that_stands_too_late_for_its_rule_stays_for_another() {
    let mut simulation = authenticating(Start::OnDemand);
    simulation.configure(0, wanting(Start::OnDemand, &[("other", "10.2.9.0/24")]));
    assert_eq!(protected(&mut simulation), Vec::<String>::new());
    assert_eq!(ike_sas(&simulation), [1, 1]);
    simulation.acquire(0, "other");
    assert_eq!(protected(&mut simulation), ["10.2.9.0/24"]);
    assert_eq!(ike_sas(&simulation), [1, 1]);
}

#[test]
fn a_child_sa_whose_rule_is_gone_when_it_is_agreed_to_is_deleted() {
    let all: [(Begin, Rules); 3] = [
        (creating, &[("other", "10.2.9.0/24")]),
        (rekeying, &[]),
        (rekeying, &[("another", "10.2.9.0/24")]),
    ];
    for (begin, rest) in all {
        let mut simulation = begin(Start::OnDemand);
        let before = installed(&simulation);
        simulation.configure(0, wanting(Start::OnDemand, rest));
        let kept: Vec<_> = rest.iter().filter(|(name, _)| *name == "other").collect();
        assert_eq!(protected(&mut simulation).len(), kept.len());
        assert_eq!(installed(&simulation), before, "not for a moment");
        assert_eq!(ike_sas(&simulation), [usize::from(!rest.is_empty()); 2]);
    }
}

#[test]
fn a_rule_that_changes_before_the_answer_gets_what_it_wants_now() {
    let all: [(Begin, Rules, bool); 3] = [
        (authenticating, &[], true),
        (creating, &[("other", "10.2.9.0/24")], true),
        // As after any reload, what was replaced on demand waits for traffic.
        (rekeying, &[], false),
    ];
    for (begin, others, on_demand) in all {
        for start in [Start::OnDemand, Start::Always] {
            let mut simulation = begin(start);
            simulation.configure(0, wanting(start, &[others, &[("to-b", MORE)]].concat()));
            let mut expected: Vec<_> = others.iter().map(|(_, network)| *network).collect();
            if on_demand || start == Start::Always {
                expected.push(MORE);
            }
            assert_eq!(protected(&mut simulation), expected);
            assert_eq!(ike_sas(&simulation), [1, 1]);
        }
    }
}

#[test]
fn a_rule_that_lives_longer_before_the_answer_keeps_what_was_agreed_to() {
    let all: [Begin; 3] = [authenticating, creating, rekeying];
    for begin in all {
        let mut simulation = begin(Start::OnDemand);
        let before = counter(&simulation, 0, Counter::ChildSaFailed);
        let rules = [("to-b", TRAFFIC), ("other", "10.2.9.0/24")];
        let longer = with_protect(wanting(Start::OnDemand, &rules), |protect| {
            protect.lifetime.time = MINUTE * 600;
        });
        simulation.configure(0, longer);
        assert!(protected(&mut simulation).contains(&TRAFFIC.to_owned()));
        assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), before);
    }
}
