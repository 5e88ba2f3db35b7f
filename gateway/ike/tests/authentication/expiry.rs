//! Certificates and revocation lists that end while an IKE SA stands, which gets new keys all the while.

use gateway_ike::reason::Refusal;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const SHORT: (i64, i64) = (-10, 1);
const LONG: (i64, i64) = (-10, 20);

/// A and B by certificates that are good for these days.
fn policies_for(authority: &Authority, a: (i64, i64), b: (i64, i64)) -> [PolicySet; 2] {
    let of = |name, days| {
        certified(authority, &Subject { days, ..Subject::new(name, KeyKind::Ed25519) })
    };
    let often = |p: &mut PeerConfig, _| p.lifetime = DAY / 8;
    configure(often, ends(of("a.test", a), of("b.test", b)))
}

/// What a node says of a peer that it does not believe any more, and when, by the wall clock.
fn ended(simulation: &mut Simulation, node: usize, limit: Duration) -> (u64, Refusal) {
    let start = simulation.now;
    let end = start + limit;
    let is = |kind: &EventKind| matches!(kind, EventKind::NoLongerBelieved(_));
    while simulation.step(end) {
        if let Some(event) = simulation.nodes[node].events.iter().find(|e| is(&e.kind)) {
            let refusal = event.refusal.as_deref().unwrap().clone();
            return ((simulation.now - start).as_secs(), refusal);
        }
    }
    panic!("node {node} believes on")
}

fn standing(simulation: &Simulation) -> [usize; 2] {
    [0, 1].map(|node| {
        let status = simulation.nodes[node].endpoint.status(simulation.now);
        status.ike_sas.iter().filter(|sa| sa.state == "established").count()
    })
}

/// Goes on with a packet each way after each event, of which none may be lost.
fn without_loss(simulation: &mut Simulation, time: Duration) {
    let end = simulation.now + time;
    while simulation.step(end) {
        assert_eq!(simulation.exchange_traffic(), [], "{:?} before the end", end - simulation.now);
        assert!(simulation.nodes.iter().all(|n| !n.kernel.outbound.is_empty()));
    }
}

#[test]
fn an_ike_sa_ends_with_the_certificate_of_either_end_however_often_it_is_rekeyed() {
    let authority = Authority::new("Root");
    for finder in [0, 1] {
        let (a, b) = if finder == 0 { (LONG, SHORT) } else { (SHORT, LONG) };
        let mut simulation = run(policies_for(&authority, a, b));
        assert!(simulation.has_one_child_each().unwrap());
        let (after, refusal) = ended(&mut simulation, finder, 2 * DAY);
        let (day, minute) = (DAY.as_secs(), MINUTE.as_secs());
        assert!((day - minute..day - minute + 2).contains(&after), "{after}");
        assert_eq!(refusal.cause, Cause::Validity);
        assert!(counter(&simulation, finder, Counter::IkeSaRekeyed) > 3);
        assert_eq!(counter(&simulation, finder, Counter::AuthenticationFailed), 1);
        // The initiator has tried, fewer times than would be a burden.
        let begun = counter(&simulation, 0, Counter::IkeSaEstablished);
        assert!((2..12).contains(&begun), "{begun}");
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
        assert_eq!(standing(&simulation), [0, 0]);
    }
}

#[test]
fn who_has_a_renewed_certificate_stays_connected_without_loss() {
    let authority = Authority::new("Root");
    for renewed in [0, 1] {
        let (a, b) = if renewed == 0 { (SHORT, LONG) } else { (LONG, SHORT) };
        let mut simulation = run(policies_for(&authority, a, b));
        let mut policies = policies_for(&authority, LONG, LONG);
        // Half a day before its end the file is another.
        simulation.run(DAY / 2);
        simulation.configure(renewed, core::mem::take(&mut policies[renewed]));
        // Nothing is hurried: one that has not been shown yet is shown in time.
        simulation.run(DAY / 4);
        assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 1);
        without_loss(&mut simulation, DAY / 2);
        assert!(simulation.has_one_child_each().unwrap());
        assert_eq!(standing(&simulation), [1, 1]);
        for node in [0, 1] {
            assert_eq!(counter(&simulation, node, Counter::IkeSaEstablished), 2);
            assert_eq!(counter(&simulation, node, Counter::AuthenticationFailed), 0);
        }
    }
}

#[test]
fn an_authority_in_between_that_ends_first_ends_it() {
    let root = Authority::new("Root");
    let middle = root.intermediate_until("Middle", 1);
    let a = certified(&middle, &Subject::new("a.test", KeyKind::P256));
    let a = (a.0, RemoteAuth::Certificate(Arc::new(trust(&root))));
    let mut simulation = run(configure(|_, _| {}, ends(a, psk())));
    assert!(simulation.has_one_child_each().unwrap());
    let (after, refusal) = ended(&mut simulation, 1, 2 * DAY);
    assert!(after < DAY.as_secs() && refusal.cause == Cause::Validity, "{after} {refusal:?}");
}

#[test]
fn a_revocation_list_that_is_not_replaced_ends_it_under_the_strict_policy_alone() {
    let authority = Authority::new("Root");
    let policies_with = |revocation, days| {
        let (local, _) = certified(&authority, &Subject::new("a.test", KeyKind::P256));
        let mut trust = trust(&authority);
        trust.revocation = revocation;
        trust.lists = certificates::lists(&[authority.revoke(&[], days)]);
        let a = (local, RemoteAuth::Certificate(Arc::new(trust)));
        configure(|_, _| {}, ends(a, psk()))
    };
    let mut simulation = run(policies_with(Revocation::Strict, 1));
    let (after, refusal) = ended(&mut simulation, 1, 2 * DAY);
    assert!(after < DAY.as_secs() && refusal.cause == Cause::Revocation, "{after} {refusal:?}");
    let mut simulation = run(policies_with(Revocation::IfAvailable, 1));
    simulation.run(2 * DAY);
    assert!(simulation.has_one_child_each().unwrap());
    // One that is replaced in time lets it stand until the next one is due.
    let mut simulation = run(policies_with(Revocation::Strict, 1));
    let [_, b] = policies_with(Revocation::Strict, 2);
    simulation.configure(1, b);
    let (after, _) = ended(&mut simulation, 1, 3 * DAY);
    assert!(after > DAY.as_secs(), "{after}");
    assert_eq!(counter(&simulation, 1, Counter::IkeSaEstablished), 1);
}

/// It is set while nothing else happens: what was due by it is due at once, and not when the IKE SA next
/// has something to do.
#[test]
fn a_certificate_that_is_over_when_the_clock_is_set_ends_its_ike_sa_at_once() {
    let soon = Subject { days: (-10, 1), ..Subject::new("a.test", KeyKind::P256) };
    let a = certified(&Authority::new("Root"), &soon);
    let mut simulation = run(configure(|_, _| {}, ends(a, psk())));
    assert!(simulation.has_one_child_each().unwrap());
    let due = |simulation: &Simulation| simulation.nodes[1].endpoint.next_timeout().unwrap();
    let (now, before) = (simulation.now, due(&simulation));
    // It is read before each input, and says that time has passed.
    simulation.input(1, Input::WallClock(NOW + MINUTE));
    assert_eq!(due(&simulation), before);
    simulation.input(1, Input::WallClock(NOW + Duration::from_secs(2 * 86_400)));
    assert!(due(&simulation) <= now, "the certificate is over");
    simulation.run(Duration::from_secs(1));
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).ike_sas.len(), 0);
}
