use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, ChildSpec, KernelError};

use super::*;
use crate::kernel::testing::{GCM, child, selector};
use crate::testing::lines_of;

/// What an [`Executor`] was told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Applied(String),
    Undone(String),
}

/// Writes down what it is told, and fails where it is told to.
struct Recorder {
    calls: Vec<Call>,
    fail_apply: Option<usize>,
    fail_undo: Option<String>,
    applied: usize,
    complaints: Complaints,
}

impl Default for Recorder {
    fn default() -> Self {
        let complaints = Complaints::new(1);
        Self { calls: Vec::new(), fail_apply: None, fail_undo: None, applied: 0, complaints }
    }
}

fn name(spec: &ChildSpec, direction: SaDirection) -> SaId {
    let sa = match direction {
        SaDirection::Inbound => &spec.inbound,
        SaDirection::Outbound => &spec.outbound,
    };
    SaId { destination: sa.destination, spi: sa.spi }
}

fn describe(undo: &Undo) -> String {
    match undo {
        Undo::Nothing => "nothing".to_owned(),
        Undo::Entry(id) => format!("entry {:x}", id.spi),
        Undo::Sa(id) => format!("sa {:x}", id.spi),
        Undo::Move(back) => format!("move {:x}", back.spi),
        Undo::Policy(key, ..) => format!("{:?}", key.direction).to_lowercase(),
        Undo::Address(address, ..) => format!("address {address}"),
        Undo::Route(prefix, ..) => format!("route {prefix}"),
    }
}

impl Executor for Recorder {
    fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    async fn apply(&mut self, step: &Step<'_>) -> Result<Undo, KernelError> {
        let undo = match step {
            Step::Entry(id, _) => Undo::Entry(*id),
            Step::Reach { at, .. } => Undo::Entry(*at),
            Step::Move(sa) => Undo::Move(sa.back()),
            Step::Sa(spec, direction) => Undo::Sa(name(spec, *direction)),
            Step::Policy(key, owner, _) => Undo::Policy(*key, *owner, None),
            Step::Address(address, owner) => Undo::Address(*address, *owner, None),
            Step::Route(owner, value) => Undo::Route(value.route.prefix, *owner, None),
        };
        if self.fail_apply == Some(self.applied) {
            return Err(KernelError::Refused(format!("no {}", describe(&undo))));
        }
        self.applied += 1;
        self.calls.push(Call::Applied(describe(&undo)));
        Ok(undo)
    }

    async fn undo(&mut self, undo: Undo) -> Result<(), KernelError> {
        let what = describe(&undo);
        self.calls.push(Call::Undone(what.clone()));
        if self.fail_undo.as_ref() == Some(&what) {
            return Err(KernelError::Refused(format!("{what} stays")));
        }
        Ok(())
    }
}

/// The order in which a Child SA with one selector and one route is installed.
const ORDER: [&str; 8] =
    ["entry 1001", "sa 1001", "in", "forward", "entry 2002", "sa 2002", "out", "route 10.2.0.0/16"];

/// The steps of a whole Child SA.
fn child_steps(spec: &ChildSpec, routes: Vec<RouteValue>) -> Result<Vec<Step<'_>>, KernelError> {
    Ok([inbound_steps(spec)?, outbound_steps(spec, routes)?].concat())
}

fn route() -> RouteValue {
    let route = Route {
        prefix: "10.2.0.0/16".parse().unwrap(),
        interface: 2,
        gateway: None,
        source: None,
        mtu: 1443,
    };
    RouteValue { route, negotiated: true }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The outbound policies among the steps, with their priorities.
fn outbound(steps: &[Step<'_>]) -> impl Iterator<Item = (PolicyKey, u32)> {
    steps.iter().filter_map(|step| {
        if let Step::Policy(key, _, value) = step
            && key.direction == PolicyDirection::Out
        {
            Some((*key, value.priority))
        } else {
            None
        }
    })
}

fn applied(what: &str) -> Call {
    Call::Applied(what.to_owned())
}

fn undone(what: &str) -> Call {
    Call::Undone(what.to_owned())
}

#[test]
fn a_child_is_installed_in_the_safe_order() {
    let spec = child(GCM);
    let mut recorder = Recorder::default();
    let steps = child_steps(&spec, vec![route()]).unwrap();
    let done = run(carry_out(&mut recorder, &steps)).unwrap();
    assert_eq!(recorder.calls, ORDER.map(applied));
    assert_eq!(done.iter().map(describe).collect::<Vec<_>>(), ORDER);
}

#[test]
fn an_assigned_address_is_there_before_what_sends_and_goes_after_it() {
    let own = "10.9.0.1";
    let spec = ChildSpec { addresses: vec![own.parse().unwrap()], ..child(GCM) };
    let mut recorder = Recorder::default();
    let steps = child_steps(&spec, vec![route()]).unwrap();
    let done = run(carry_out(&mut recorder, &steps)).unwrap();
    let mut order: Vec<_> = ORDER.to_vec();
    order.insert(4, "address 10.9.0.1");
    assert_eq!(done.iter().map(describe).collect::<Vec<_>>(), order);
    recorder.calls.clear();
    run(take_back(&mut recorder, done)).unwrap();
    order.reverse();
    assert_eq!(recorder.calls, order.into_iter().map(undone).collect::<Vec<_>>());
}

#[test]
fn a_child_is_removed_in_the_reverse_order() {
    let spec = child(GCM);
    let mut recorder = Recorder::default();
    let steps = child_steps(&spec, vec![route()]).unwrap();
    let done = run(carry_out(&mut recorder, &steps)).unwrap();
    recorder.calls.clear();
    run(take_back(&mut recorder, done)).unwrap();
    let mut reverse = ORDER.map(undone);
    reverse.reverse();
    assert_eq!(recorder.calls, reverse);
}

/// Each step in turn fails alone (the cases of libreswan's impair tests): what was done before it
/// is undone, last first, exactly once, and nothing else is touched.
#[test]
fn when_any_one_step_fails_exactly_the_steps_before_it_are_undone() {
    let spec = child(GCM);
    let steps = child_steps(&spec, vec![route()]).unwrap();
    for failing in 0..ORDER.len() {
        let mut recorder = Recorder { fail_apply: Some(failing), ..Recorder::default() };
        let error = run(carry_out(&mut recorder, &steps)).unwrap_err();
        assert_eq!(error, KernelError::Refused(format!("no {}", ORDER[failing])));
        let before = ORDER[..failing].iter().map(|what| applied(what));
        let back = ORDER[..failing].iter().rev().map(|what| undone(what));
        assert_eq!(recorder.calls, before.chain(back).collect::<Vec<_>>(), "step {failing}");
    }
}

#[test]
fn an_undo_that_fails_does_not_stop_the_others_nor_hide_the_cause() {
    let spec = child(GCM);
    let steps = child_steps(&spec, vec![route()]).unwrap();
    let mut recorder = Recorder {
        fail_apply: Some(2),
        fail_undo: Some("sa 1001".to_owned()),
        ..Recorder::default()
    };
    let error = run(carry_out(&mut recorder, &steps)).unwrap_err();
    assert_eq!(error, KernelError::Refused("no in".to_owned()));
    let undone_calls = recorder.calls.iter().filter(|call| matches!(call, Call::Undone(_))).count();
    assert_eq!(undone_calls, 2);
}

#[test]
fn the_first_failure_of_a_removal_is_reported() {
    let mut recorder = Recorder { fail_undo: Some("sa 1001".to_owned()), ..Recorder::default() };
    let id = SaId { destination: "192.0.2.1".parse().unwrap(), spi: 0x1001 };
    let error = run(take_back(&mut recorder, vec![Undo::Entry(id), Undo::Sa(id)])).unwrap_err();
    assert_eq!(error, KernelError::Refused("sa 1001 stays".to_owned()));
    assert_eq!(recorder.calls, [undone("sa 1001"), undone("entry 1001")]);
}

#[test]
fn removals_that_fail_again_and_again_write_few_lines() {
    let mut recorder = Recorder { fail_undo: Some("sa 1001".to_owned()), ..Recorder::default() };
    let id = SaId { destination: "192.0.2.1".parse().unwrap(), spi: 0x1001 };
    let ((), lines) = lines_of(|| {
        for _ in 0..1000 {
            run(take_back(&mut recorder, vec![Undo::Sa(id)])).unwrap_err();
        }
    });
    let suppressed = usize::try_from(recorder.complaints.suppressed()).unwrap();
    assert_eq!(lines + suppressed, 1000);
    assert!((10..100).contains(&lines), "{lines}");
}

#[test]
fn transport_mode_has_no_policy_for_forwarded_packets() {
    let mut spec = child(GCM);
    spec.mode = Mode::Transport;
    let steps = child_steps(&spec, Vec::new()).unwrap();
    let directions: Vec<_> = steps
        .iter()
        .filter_map(
            |step| if let Step::Policy(key, ..) = step { Some(key.direction) } else { None },
        )
        .collect();
    assert_eq!(directions, [PolicyDirection::In, PolicyDirection::Out]);
}

#[test]
fn the_policies_of_a_child_go_before_those_of_its_trap() {
    let spec = child(GCM);
    let priority = |steps: &[Step<'_>]| outbound(steps).next().unwrap();
    let of_child = priority(&child_steps(&spec, Vec::new()).unwrap());
    let ends = (Some(spec.outbound.source), spec.outbound.destination);
    let steps = trap_steps(7, Mode::Tunnel, ends, &spec.selectors, Vec::new()).unwrap();
    let of_trap = priority(&steps);
    assert_eq!(of_child.0, of_trap.0);
    assert!(of_child.1 < of_trap.1, "{of_child:?} {of_trap:?}");
}

/// First by rule, as the classifier has it; then the Child SAs, of which what selects less goes before
/// what selects more; then the trap.
#[test]
fn priorities_are_in_the_order_of_precedence_and_then_of_what_is_selected() {
    let nets = [
        (["10.1.0.0/16", "10.2.0.0/16"], ["10.1.0.1/32", "10.2.0.0/16", "10.2.0.0/17"]),
        (["fd00:1::/64", "fd00:2::/64"], ["fd00:1::1/128", "fd00:2::/64", "fd00:2::/68"]),
        (["::/0", "::/0"], ["fd00:1::1/128", "::/0", "fd00::/8"]),
    ];
    for ([local, remote], [host, net, half]) in nets {
        let any = selector(local, remote);
        let tcp = Selector { protocol: Some(6), ..any.clone() };
        let web = Selector { remote_ports: 443..=443, ..tcp.clone() };
        let mut ordered =
            vec![any.clone(), selector(local, half), selector(host, net), selector(host, half)];
        if local.contains('.') {
            ordered.splice(1..1, [tcp, web]);
        }
        ordered.reverse();
        are_in_order(&any, &ordered);
    }
    // Of a rule between hosts nothing but the protocol and the ports is left to be told apart.
    for [local, remote] in [["10.1.0.1/32", "10.2.0.1/32"], ["fd00:1::1/128", "fd00:2::1/128"]] {
        let any = selector(local, remote);
        let tcp = Selector { protocol: Some(6), ..any.clone() };
        let web = Selector { remote_ports: 443..=443, ..tcp.clone() };
        are_in_order(&any, &[web, tcp, any.clone()]);
    }
}

/// The priorities of what Child SAs of a rule that selects `any` protect, whatever precedence it has.
fn are_in_order(any: &Selector, ordered: &[Selector]) {
    let child = Owner::Child(ChildId(1));
    for chosen in [0, 1000, u32::from(u16::MAX)] {
        let precedence = (chosen << BREADTH_BITS) + any.breadth();
        let mut at: Vec<u32> = ordered.iter().map(|one| priority(one, precedence, child)).collect();
        at.push(priority(any, precedence, Owner::Trap(1)));
        at.push(priority(&ordered[0], precedence + 1, child));
        assert!(at.is_sorted_by(|a, b| a < b), "{precedence}: {at:?}");
    }
}

/// What comes in may come by any SA of the rule; what goes out takes its own.
#[test]
fn only_what_goes_out_by_a_child_demands_the_reqid_of_what_sends() {
    let spec = child(GCM);
    let steps = child_steps(&spec, Vec::new()).unwrap();
    let demanded = steps.iter().filter_map(|step| {
        if let Step::Policy(key, _, value) = step {
            Some((key.direction, value.reqid))
        } else {
            None
        }
    });
    let (rule, own) = (spec.inbound.reqid, spec.outbound.reqid);
    assert_ne!(rule, own);
    let expected = [
        (PolicyDirection::In, rule),
        (PolicyDirection::Forward, rule),
        (PolicyDirection::Out, own),
    ];
    assert_eq!(demanded.collect::<Vec<_>>(), expected);
}

#[test]
fn selectors_that_share_a_block_of_ports_make_one_claim_with_the_best_precedence() {
    let mut spec = child(GCM);
    let mut one = selector("10.1.0.0/16", "10.2.0.0/16");
    one.remote_ports = 80..=83;
    let mut two = one.clone();
    two.remote_ports = 80..=84;
    spec.selectors = vec![(one, 9), (two, 5)];
    let steps = child_steps(&spec, Vec::new()).unwrap();
    let out: Vec<_> =
        outbound(&steps).map(|(key, priority)| (key.destination_ports.value, priority)).collect();
    let better = priority(&spec.selectors[1].0, 5, Owner::Child(spec.child));
    assert_eq!(out, [(80, better), (84, better)]);
}

#[test]
fn a_selector_with_too_many_port_blocks_is_refused_before_anything_is_done() {
    let mut spec = child(GCM);
    spec.selectors[0].0.local_ports = 1..=65534;
    spec.selectors[0].0.remote_ports = 1..=2;
    let error = child_steps(&spec, Vec::new()).unwrap_err();
    assert!(
        matches!(&error, KernelError::Unsupported(why) if why.contains("60 XFRM policies")),
        "{error}"
    );
}

#[test]
fn a_negotiated_route_goes_before_an_assumed_one_and_a_small_mtu_before_a_large_one() {
    let value = |mtu, negotiated| RouteValue { route: Route { mtu, ..route().route }, negotiated };
    assert!(value(1443, true).rank() < value(1379, false).rank());
    assert!(value(1435, true).rank() < value(1443, true).rank());
}
