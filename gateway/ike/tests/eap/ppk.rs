//! A PPK beside EAP: named with the AUTHs at the end (RFC 8784 3).

use gateway_ike::config::Ppk;
use gateway_ike::testing::Forge;
use gateway_wire::{NotifyType, Payload};

use super::*;

fn ppk(id: &str, key: u8, required: bool) -> Option<Ppk> {
    Some(Ppk { id: id.as_bytes().to_vec(), key: Secret::new(vec![key; 32]), required })
}

fn good(required: bool) -> Option<Ppk> {
    ppk("key of 2026", 1, required)
}

fn with(mut set: PolicySet, ppk: Option<&Ppk>) -> PolicySet {
    for peer in set.peers.values_mut() {
        Arc::make_mut(peer).ppk = ppk.cloned();
    }
    set
}

/// A and B with these PPKs, and a password by this method.
fn connect_with(method: EapMethod, a: Option<Ppk>, b: Option<Ppk>) -> Simulation {
    let plan = Plan { of_a: vec![method], of_b: vec![method], ..Plan::default() };
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, with(policies_of_b(&plan), b.as_ref()));
    simulation.configure(0, with(policies_of_a(&plan), a.as_ref()));
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(5));
    simulation
}

/// What a node says of PPKs in the messages that it seals, with whether AUTH stands beside it.
fn said(simulation: &Simulation, node: usize) -> Vec<(NotifyType, Vec<u8>, bool)> {
    let forge = Forge::of(&simulation.nodes[node].endpoint).unwrap();
    let mut said = Vec::new();
    for (_, datagram) in &simulation.nodes[node].sent {
        let Some(opened) = forge.open(datagram) else { continue };
        let payloads = opened.payloads().unwrap();
        let proves = payloads.iter().any(|p| matches!(p, Payload::Authentication(_)));
        for payload in &payloads {
            if let Payload::Notify(notify) = payload
                && [NotifyType::PPK_IDENTITY, NotifyType::NO_PPK_AUTH].contains(&notify.kind)
            {
                said.push((notify.kind, notify.data.to_vec(), proves));
            }
        }
    }
    said
}

#[test]
fn both_ends_use_it_or_neither_does() {
    let other = || ppk("key of 2025", 1, false);
    // With a method that makes a key, and with one that does not: then AUTH is made with SK_p.
    for method in [EapMethod::MsChapV2, EapMethod::Md5] {
        for (a, b, used) in [
            (good(true), good(true), true),
            (good(true), good(false), true),
            (good(false), good(true), true),
            (good(false), good(false), true),
            (None, good(false), false),
            (good(false), None, false),
            (good(false), other(), false),
        ] {
            let case = format!("{method}: {a:?}, {b:?}");
            let offered = a.clone().filter(|_| b.is_some());
            let simulation = connect_with(method, a, b);
            assert!(simulation.has_one_child_each().unwrap(), "{case}");
            for node in &simulation.nodes {
                let status = node.endpoint.status(simulation.now);
                assert_eq!(status.ike_sas[0].quantum_safe, Some(used), "{case}");
            }
            // In the last request, beside AUTH, and in the answer to that.
            let mut told = said(&simulation, 0).into_iter();
            if let Some(ppk) = offered {
                let name = [&[2], &*ppk.id].concat();
                assert_eq!(told.next(), Some((NotifyType::PPK_IDENTITY, name, true)), "{case}");
                let plain = told.next().map(|(kind, data, proves)| (kind, data.is_empty(), proves));
                let expected = (!ppk.required).then_some((NotifyType::NO_PPK_AUTH, false, true));
                assert_eq!(plain, expected, "{case}");
            }
            assert_eq!(told.next(), None, "{case}");
            let answer = used.then(|| (NotifyType::PPK_IDENTITY, Vec::new(), true));
            assert_eq!(said(&simulation, 1).into_iter().next(), answer, "{case}");
            assert!(said(&simulation, 1).len() <= 1, "{case}");
        }
    }
}

#[test]
fn the_keys_of_the_child_sa_depend_on_it() {
    let keys = |key| {
        let ppk = || ppk("k", key, true);
        let simulation = connect_with(EapMethod::MsChapV2, ppk(), ppk());
        let child = simulation.nodes[0].kernel.children.values().next().unwrap();
        child.inbound.encryption_key.to_vec()
    };
    // All else is the same, from one seed.
    assert_eq!(keys(1), keys(1));
    assert_ne!(keys(1), keys(2));
}

#[test]
fn one_that_is_required_and_not_there_ends_the_attempt_with_that_reason() {
    use AuthenticationFault::{PpkUnknown, PpkUnsupported};
    let other = |required| ppk("key of 2025", 1, required);
    for method in [EapMethod::MsChapV2, EapMethod::Md5] {
        for (a, b, at, fault) in [
            (good(true), None, 0, PpkUnsupported),
            (None, good(true), 1, PpkUnsupported),
            (good(true), other(false), 1, PpkUnknown),
            (good(false), other(true), 1, PpkUnknown),
            (good(true), other(true), 1, PpkUnknown),
        ] {
            let case = format!("{method}: {a:?}, {b:?}");
            let simulation = connect_with(method, a, b);
            assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "{case}");
            assert!(faults(&simulation, at).contains(&fault), "{case}");
            let record = simulation.nodes[at].events.iter().find_map(|e| e.refusal.as_ref());
            assert_eq!(record.map(|r| r.cause), Some(Cause::Ppk), "{case}");
            assert!(simulation.nodes[at].endpoint.counters().refusals(Cause::Ppk) >= 1, "{case}");
        }
    }
}

/// RFC 8784 3: an answer to the last request without the PPK, with an AUTH that is right, is not
/// taken by an A that requires it. It comes from B to an A that can do without, from the same seed.
#[test]
fn an_answer_without_the_ppk_that_is_required_ends_the_attempt_though_auth_is_right() {
    let other = || ppk("key of 2025", 1, false);
    for method in [EapMethod::MsChapV2, EapMethod::Md5] {
        let without = connect_with(method, good(false), other());
        assert!(without.has_one_child_each().unwrap(), "{method}");
        let plan = Plan { of_a: vec![method], of_b: vec![method], ..Plan::default() };
        let mut simulation = Simulation::new(&[A, B], Faults { loss: 100, ..Faults::default() }, 1);
        simulation.configure(1, with(policies_of_b(&plan), other().as_ref()));
        simulation.configure(0, with(policies_of_a(&plan), good(true).as_ref()));
        simulation.acquire(0, "to-b");
        for (path, octets) in &without.nodes[1].sent {
            assert_eq!(faults(&simulation, 0), [], "{method}");
            let path = Path { local: path.remote, remote: path.local };
            simulation.input(0, Input::Datagram { path, octets });
        }
        assert_eq!(counter(&simulation, 0, Counter::EapSucceeded), 1, "{method}");
        assert_eq!(faults(&simulation, 0), [AuthenticationFault::PpkUnknown], "{method}");
        assert!(simulation.nodes[0].kernel.children.is_empty(), "{method}");
        let (_, last) = simulation.nodes[0].sent.last().unwrap();
        let told = Forge::of(&simulation.nodes[0].endpoint).unwrap().open(last).unwrap();
        let payloads = told.payloads().unwrap();
        let failed = NotifyType::AUTHENTICATION_FAILED;
        let refused = |p: &Payload<'_>| matches!(p, Payload::Notify(n) if n.kind == failed);
        assert!(payloads.len() == 1 && refused(&payloads[0]), "{payloads:?}");
    }
}

/// Both go by the same name for two keys: AUTH does not verify, though the password does.
#[test]
fn one_of_the_same_name_and_another_value_is_none() {
    for method in [EapMethod::MsChapV2, EapMethod::Md5] {
        let simulation = connect_with(method, good(false), ppk("key of 2026", 2, false));
        assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()), "{method}");
        let wrong = AuthenticationFault::WrongEapAuth("alice".to_owned());
        assert!(faults(&simulation, 1).contains(&wrong), "{:?}", faults(&simulation, 1));
    }
}
