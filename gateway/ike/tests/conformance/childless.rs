//! IKE_AUTH without the first Child SA (RFC 6023): `tests/rfc6023.md` has the table.

use std::sync::Arc;

use gateway_ike::algorithms::{Group, Round};
use gateway_ike::config::{Childless, Families, Mode, Pool, Renewal};
use gateway_ike::event::EventKind;
use gateway_ike::reason::Cause;
use gateway_wire::{
    AuthMethod, PayloadType, Proposal, SecurityAssociation, Transform, TransformType,
};

use super::*;

const CHOICES: [Childless; 3] = [Childless::Never, Childless::Prefer, Childless::Require];
const LIFETIME: Duration = Duration::from_secs(30);

/// A, which begins in this way, with two rules whose Child SAs have key exchanges of their own.
fn ours(childless: Childless, start: Start) -> PolicySet {
    let (local, remote) = ("10.1.1.0/24".parse().unwrap(), "10.2.1.0/24".parse().unwrap());
    let set = with_more(policies_of_a(), protect("too", "b", local, remote, start));
    let set = with_protect(with_peer(set, |p| p.childless = childless), |p| p.start = start);
    with_groups(set)
}

fn theirs() -> PolicySet {
    let (local, remote) = ("10.2.1.0/24".parse().unwrap(), "10.1.1.0/24".parse().unwrap());
    let more = protect("too", "a", local, remote, Start::Respond);
    with_groups(with_more(policies_of_b(), more))
}

fn with_groups(set: PolicySet) -> PolicySet {
    with_protect(set, |p| p.proposals[0].groups = vec![Group::X25519])
}

/// The kinds of payload in what A has sent that the keys at hand open, by exchange; notifications
/// by their type.
fn sent_by_a(simulation: &Simulation) -> Vec<(ExchangeType, Vec<PayloadType>, Vec<NotifyType>)> {
    let forge = forge(simulation, 1);
    let opened = simulation.nodes[0].sent.iter().filter_map(|(_, octets)| forge.open(octets));
    opened
        .map(|message| {
            let payloads = message.payloads().unwrap();
            let kinds = payloads.iter().map(Payload::payload_type).collect();
            let said = payloads.iter().filter_map(|p| match p {
                Payload::Notify(notify) => Some(notify.kind),
                _ => None,
            });
            (message.header.exchange, kinds, said.collect())
        })
        .collect()
}

/// What an IKE_AUTH without a Child SA does not have.
const OF_CHILD: [PayloadType; 3] = [PayloadType::SA, PayloadType::TS_I, PayloadType::TS_R];

fn asks_for_child(simulation: &Simulation) -> bool {
    let sent = sent_by_a(simulation);
    let auth = sent.iter().filter(|(exchange, ..)| *exchange == ExchangeType::IKE_AUTH);
    let found: Vec<bool> = auth
        .map(|(_, kinds, said)| {
            let has = OF_CHILD.map(|kind| kinds.contains(&kind));
            assert!(has.iter().all(|h| *h == has[0]), "all or nothing: {kinds:?}");
            assert!(has[0] || !said.contains(&NotifyType::USE_TRANSPORT_MODE));
            has[0]
        })
        .collect();
    assert!(!found.is_empty(), "no IKE_AUTH that can be opened");
    found.contains(&true)
}

/// The key exchange of each Child SA of A.
fn key_exchanges(simulation: &Simulation) -> Vec<Option<Group>> {
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    let children = status.ike_sas.iter().flat_map(|sa| &sa.children);
    children.map(|child| child.key_exchange.map(|k| k.group)).collect()
}

fn good(simulation: &mut Simulation) {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    assert_eq!(simulation.exchange_traffic(), []);
}

/// The answer of B to IKE_SA_INIT without its word that the first Child SA may be left out.
fn unsupported(a: PolicySet) -> (Simulation, Vec<Vec<u8>>) {
    let (mut simulation, request) = begun(a, theirs());
    let answer = only(deliver(&mut simulation, 1, &request));
    let childless = notification(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
    let answer = rewritten(&answer, |payloads| payloads.retain(|p| *p != childless));
    let sent = deliver(&mut simulation, 0, &answer);
    (simulation, sent)
}

fn last_error(simulation: &Simulation, node: usize) -> String {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    status.rules.into_iter().find_map(|rule| rule.last_error).unwrap_or_default()
}

#[test]
fn every_child_sa_is_made_by_create_child_sa_where_ike_auth_leaves_the_first_out() {
    for childless in CHOICES {
        for start in [Start::Always, Start::OnDemand] {
            let mut simulation = pair(ours(childless, start), theirs());
            simulation.acquire(0, "to-b");
            simulation.run(MINUTE);
            assert_eq!(asks_for_child(&simulation), childless == Childless::Never);
            let wanted = if start == Start::Always { 2 } else { 1 };
            assert_eq!(children(&simulation, 0), wanted, "{childless:?} {start:?}");
            let made = key_exchanges(&simulation).into_iter().filter(Option::is_some).count();
            let first = usize::from(childless == Childless::Never);
            assert_eq!(made, wanted - first, "a key exchange of its own: {childless:?}");
            good(&mut simulation);
            // At once: a minute has not passed in vain.
            assert!(simulation.nodes[0].sent.len() <= 2 + wanted);
            simulation.wind_up().unwrap();
        }
    }
}

#[test]
fn a_responder_that_does_not_say_so_is_asked_for_the_first_child_sa_in_ike_auth() {
    let (mut simulation, sent) = unsupported(ours(Childless::Prefer, Start::Always));
    assert!(asks_for_child(&simulation));
    // Whoever has taken the word out on the way is found out by B's AUTH, which covers it.
    let answer = only(deliver(&mut simulation, 1, &only(sent)));
    let told = only(deliver(&mut simulation, 0, &answer));
    assert_eq!(counter(&simulation, 0, Counter::AuthenticationFailed), 1);
    deliver(&mut simulation, 1, &told);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (0, 0));
}

#[test]
fn a_peer_that_cannot_leave_it_out_is_refused_where_the_policy_demands_that() {
    let (simulation, sent) = unsupported(ours(Childless::Require, Start::OnDemand));
    assert_eq!(sent, Vec::<Vec<u8>>::new(), "nothing is said about it");
    assert_eq!(states(&simulation, 0), Vec::<&str>::new());
    let why =
        "the policy demands `childless` initiation (RFC 6023), and the peer does not support it";
    assert_eq!(last_error(&simulation, 0), why);
    assert_eq!(simulation.nodes[0].endpoint.counters().refusals(Cause::Childless), 1);
    let refusals = simulation.nodes[0].events.iter().filter_map(|e| e.refusal.as_deref());
    let [refusal] = refusals.collect::<Vec<_>>()[..] else { panic!("one refusal") };
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.peer.as_deref(), Some("b"));
    let field = nearest.unfit().next().unwrap();
    assert_eq!(field.name.to_string(), "childless");
    assert_eq!(
        (field.ours.as_slice(), field.theirs.as_slice()),
        (["require".to_owned()].as_slice(), ["does not support it".to_owned()].as_slice())
    );
}

#[test]
fn a_responder_that_demands_it_too_makes_no_child_sa_in_ike_auth() {
    let b = with_peer(theirs(), |p| p.childless = Childless::Require);
    let mut simulation = pair(ours(Childless::Never, Start::Always), b);
    simulation.run(Duration::from_millis(500));
    assert_eq!((states(&simulation, 0), children(&simulation, 0)), (vec!["established"], 1));
    assert!(asks_for_child(&simulation));
    assert_eq!(simulation.nodes[1].endpoint.counters().refusals(Cause::Childless), 1);
    assert!(last_error(&simulation, 0).contains("NO_PROPOSAL_CHOSEN"));
    // It is asked for again, by CREATE_CHILD_SA.
    simulation.run(MINUTE);
    assert_eq!(key_exchanges(&simulation), [Some(Group::X25519); 2]);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 1);
    good(&mut simulation);
}

/// A has asked for an IKE SA alone and gets B's answer with this beside.
fn answered_with(more: &[Payload<'static>]) -> Simulation {
    let a = ours(Childless::Require, Start::OnDemand);
    let (mut simulation, request) = half_open_with(a, theirs());
    let answer = only(deliver(&mut simulation, 1, &request));
    let answer =
        resealed(&simulation, 1, &answer, |payloads| payloads.extend(more.iter().cloned()));
    deliver(&mut simulation, 0, &answer);
    simulation
}

#[test]
fn an_error_beside_the_answer_costs_nothing_but_a_line_in_the_log() {
    let error = notification(NotifyType::FAILED_CP_REQUIRED, &[]);
    let mut simulation = answered_with(&[error]);
    assert_eq!(states(&simulation, 0), ["established"]);
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 1);
    let failed = |kind: &EventKind| {
        matches!(kind, EventKind::ChildFailed { rule: None, error }
            if error.to_string().contains("FAILED_CP_REQUIRED"))
    };
    assert!(simulation.nodes[0].events.iter().any(|e| failed(&e.kind)));
    // What is wanted is asked for all the same.
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 0), 1);
    good(&mut simulation);
}

#[test]
fn a_child_sa_that_nobody_asked_for_ends_the_ike_sa() {
    let transform = Transform {
        kind: TransformType::ENCR,
        id: 20,
        key_length: Some(256),
        unknown_attribute: false,
    };
    let proposal = Proposal {
        number: 1,
        protocol: ProtocolId::ESP,
        spi: vec![1, 2, 3, 4],
        transforms: vec![transform],
    };
    let sa = SecurityAssociation { proposals: vec![proposal] };
    let simulation = answered_with(&[Payload::SecurityAssociation(sa)]);
    assert_eq!(states(&simulation, 0), ["closing"]);
    assert_eq!(children(&simulation, 0), 0);
    let last = simulation.nodes[0].sent.last().unwrap();
    let opened = forge(&simulation, 1).open(&last.1).unwrap();
    let said = opened.payloads().unwrap();
    assert!(matches!(said.as_slice(), [Payload::Delete(d)] if d.protocol == ProtocolId::IKE));
    assert!(last_error(&simulation, 0).contains("a Child SA that nobody asked for"));
}

#[test]
fn a_false_proof_is_as_fatal_as_with_a_child_sa() {
    let a = ours(Childless::Require, Start::OnDemand);
    let (mut simulation, request) = half_open_with(a, theirs());
    let answer = only(deliver(&mut simulation, 1, &request));
    let answer = resealed(&simulation, 1, &answer, |payloads| {
        for payload in payloads {
            if let Payload::Authentication(auth) = payload {
                (auth.method, auth.data) = (AuthMethod::SHARED_KEY, &[7; 32]);
            }
        }
    });
    let told = only(deliver(&mut simulation, 0, &answer));
    let opened = forge(&simulation, 1).open(&told).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::AUTHENTICATION_FAILED]);
    assert!(!last_error(&simulation, 0).is_empty());
    assert_eq!(children(&simulation, 0), 0);
}

#[test]
fn the_ike_sa_stands_when_no_child_sa_comes_of_it() {
    let b = with_rule(theirs(), |rule| rule.local = vec!["10.99.0.0/24".parse().unwrap()]);
    let b = with_peer(b, |p| p.liveness_interval = Duration::from_secs(10));
    let mut simulation = pair(ours(Childless::Require, Start::OnDemand), b);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(states(&simulation, 0), ["established"]);
    assert_eq!(states(&simulation, 1), ["established"]);
    assert!(last_error(&simulation, 0).contains("TS_UNACCEPTABLE"));
    // And serves as soon as the peer agrees.
    simulation.configure(1, theirs());
    simulation.run(Duration::from_secs(1));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(children(&simulation, 0), 1);
    good(&mut simulation);
}

#[test]
fn nothing_is_begun_for_rules_that_are_gone_meanwhile() {
    let a = ours(Childless::Require, Start::OnDemand);
    let (mut simulation, request) = begun(a.clone(), theirs());
    let without = PolicySet { rules: Default::default(), ..a };
    simulation.configure(0, without);
    let answer = only(deliver(&mut simulation, 1, &request));
    assert_eq!(deliver(&mut simulation, 0, &answer), Vec::<Vec<u8>>::new());
    assert_eq!(states(&simulation, 0), Vec::<&str>::new());
}

#[test]
fn transport_mode_is_asked_for_where_the_child_sa_is() {
    let hosts = |set: PolicySet, ends: [IpAddr; 2]| {
        let set = with_protect(set, |p| p.mode = Mode::Transport);
        with_rule(set, move |rule| {
            (rule.local, rule.remote) = (vec![ends[0].into()], vec![ends[1].into()]);
        })
    };
    let a = with_peer(policies_of_a(), |p| p.childless = Childless::Require);
    let mut simulation = pair(hosts(a, [A, B]), hosts(policies_of_b(), [B, A]));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(!asks_for_child(&simulation));
    let sent = sent_by_a(&simulation);
    let (exchange, _, said) = sent.last().unwrap();
    assert_eq!(*exchange, ExchangeType::CREATE_CHILD_SA);
    assert!(said.contains(&NotifyType::USE_TRANSPORT_MODE));
    let modes = simulation.nodes.iter().flat_map(|n| n.kernel.children.values()).map(|c| c.mode);
    assert_eq!(modes.collect::<Vec<_>>(), [Mode::Transport; 2]);
    good(&mut simulation);
}

/// A, which asks for an address, and B, which has such to give if there are any.
fn assigning(addresses: &[&str]) -> (PolicySet, PolicySet) {
    let a = with_peer(policies_of_a(), |p| {
        p.childless = Childless::Require;
        p.request_address = Families { v4: true, v6: false };
    });
    let a = with_rule(a, |rule| {
        (rule.local, rule.assigned) = (vec!["0.0.0.0/0".parse().unwrap()], true);
    });
    let pool = (!addresses.is_empty()).then(|| {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        Arc::new(Pool { name: "pool".into(), addresses, dns: Vec::new() })
    });
    let b = with_peer(policies_of_b(), |p| {
        (p.remote_address, p.pool) = (None, pool.clone());
    });
    (a, with_rule(b, |rule| rule.remote = vec!["10.9.0.0/24".parse().unwrap()]))
}

#[test]
fn addresses_are_asked_for_in_ike_auth_and_stay_for_every_child_sa() {
    let (a, b) = assigning(&["10.9.0.0/24"]);
    let a = with_peer(a, |p| (p.lifetime, p.renewal) = (LIFETIME, Renewal::Reauthenticate));
    let mut simulation = pair(with_protect(a, |p| p.start = Start::Always), b);
    simulation.run(Duration::from_secs(5));
    assert!(!asks_for_child(&simulation));
    let (exchange, kinds, _) = &sent_by_a(&simulation)[0];
    assert_eq!(*exchange, ExchangeType::IKE_AUTH);
    assert!(kinds.contains(&PayloadType::CP));
    let own = |simulation: &Simulation| {
        let children = simulation.nodes[0].kernel.children.values();
        children.map(|c| c.selectors[0].0.local.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(own(&simulation), ["10.9.0.1/32"]);
    // The next IKE SA asks for it again.
    simulation.run(LIFETIME + MINUTE / 3);
    assert!(counter(&simulation, 0, Counter::IkeSaEstablished) > 1);
    assert_eq!(own(&simulation), ["10.9.0.1/32"]);
    good(&mut simulation);
    simulation.wind_up().unwrap();
}

#[test]
fn a_peer_that_assigns_no_address_gets_no_child_sa_and_the_ike_sa_ends() {
    // The family is missing, which is an error; then there is no pool and so no answer.
    for (pool, error) in [(&["fd00:9::/64"][..], "INTERNAL_ADDRESS_FAILURE"), (&[], "")] {
        let (a, b) = assigning(pool);
        let mut simulation = pair(a, b);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert_eq!(states(&simulation, 0), Vec::<&str>::new());
        assert_eq!(counter(&simulation, 0, Counter::NoAddressReceived), 1);
        assert_eq!(last_error(&simulation, 0), "the peer assigns us no address");
        let told = simulation.nodes[0].events.iter().any(|e| {
            matches!(&e.kind, EventKind::ChildFailed { error: e, .. } if e.to_string().contains(error))
        });
        assert!(told, "{error}");
    }
}

#[test]
fn a_peer_with_a_pool_that_asks_for_no_address_is_told_so_without_a_child_sa_too() {
    let (a, b) = assigning(&["10.9.0.0/24"]);
    let a = with_peer(a, |p| p.request_address = Families::default());
    let (mut simulation, request) = half_open_with(with_rule(a, |r| r.assigned = false), b);
    let answer = only(deliver(&mut simulation, 1, &request));
    let opened = forge(&simulation, 0).open(&answer).unwrap();
    assert_eq!(notified(&opened.payloads().unwrap()), [NotifyType::FAILED_CP_REQUIRED]);
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn an_ike_sa_that_is_made_anew_takes_over_when_it_has_all_child_sas() {
    for childless in CHOICES {
        let a = with_peer(ours(childless, Start::Always), |p| {
            (p.lifetime, p.renewal) = (LIFETIME, Renewal::Reauthenticate);
        });
        let mut simulation = pair(a, theirs());
        simulation.run(Duration::from_secs(1));
        assert_eq!(children(&simulation, 0), 2);
        let end = simulation.now + LIFETIME + Duration::from_secs(10);
        while simulation.step(end) {
            assert_eq!(simulation.exchange_traffic(), [], "{childless:?}");
            for node in &simulation.nodes {
                let sending = |rule: &str| {
                    let by =
                        |c: &&gateway_ike::io::ChildId| *node.kernel.children[*c].rule == *rule;
                    node.kernel.outbound.iter().any(|c| by(&c))
                };
                let served = sending("too") && (sending("to-a") || sending("to-b"));
                assert!(served, "{childless:?}: a rule has nothing to send by");
            }
        }
        assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 2);
        assert_eq!(states(&simulation, 0), ["established"]);
        assert_eq!(children(&simulation, 0), 2);
        good(&mut simulation);
    }
}

#[test]
fn what_a_peer_has_lost_is_made_again_in_the_same_way() {
    let a = with_peer(ours(Childless::Prefer, Start::Always), |p| {
        p.liveness_interval = Duration::from_secs(10);
    });
    let mut simulation = pair(a.clone(), theirs());
    simulation.run(Duration::from_secs(1));
    // B comes back and says that it has lost it (RFC 6290); then it stays away until it is taken for
    // dead; then A itself starts anew.
    for away in [false, true] {
        simulation.crash(1, 7);
        if away {
            simulation.nodes[1].asleep = true;
            simulation.run(MINUTE * 5);
            simulation.nodes[1].asleep = false;
        }
        simulation.configure(1, theirs());
        simulation.run(MINUTE * 3);
        assert_eq!(children(&simulation, 0), 2, "{away}");
        assert!(!asks_for_child(&simulation));
        good(&mut simulation);
    }
    simulation.crash(0, 8);
    simulation.configure(0, a);
    simulation.run(Duration::from_secs(30));
    assert_eq!(key_exchanges(&simulation), [Some(Group::X25519); 2]);
    good(&mut simulation);
    simulation.wind_up().unwrap();
}

#[test]
fn a_quantum_safe_rule_asks_nothing_else_of_it() {
    for safe in [true, false] {
        let additional = |set: PolicySet| {
            with_peer(set, |p| {
                if safe {
                    p.proposals[0].additional.insert(Round::Ke1, vec![Some(Group::MlKem768)]);
                }
            })
        };
        let a = with_protect(ours(Childless::Require, Start::OnDemand), |p| p.quantum_safe = true);
        let mut simulation = pair(additional(a), additional(theirs()));
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert_eq!(states(&simulation, 0), ["established"]);
        for node in [0, 1] {
            assert_eq!(children(&simulation, node), usize::from(safe));
        }
        assert_eq!(last_error(&simulation, 0).contains("quantum-safe"), !safe);
        good(&mut simulation);
    }
}

#[test]
fn another_word_in_the_policy_ends_what_was_begun_by_the_first() {
    let mut simulation = pair(ours(Childless::Never, Start::Always), theirs());
    simulation.run(Duration::from_secs(1));
    let first_has_none = key_exchanges(&simulation);
    assert_eq!(first_has_none.iter().filter(|k| k.is_none()).count(), 1);
    simulation.configure(0, ours(Childless::Require, Start::Always));
    simulation.run(Duration::from_secs(5));
    assert_eq!(key_exchanges(&simulation), [Some(Group::X25519); 2]);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 2);
    // The same policies again change nothing.
    simulation.configure(0, ours(Childless::Require, Start::Always));
    simulation.run(Duration::from_secs(5));
    assert_eq!(counter(&simulation, 0, Counter::IkeSaEstablished), 2);
    good(&mut simulation);
}
