//! A responder that takes Child SAs of a single pair of addresses only (RFC 7296 2.9, 3.10.1).

use gateway_ike::config::{Childless, Renewal};
use gateway_ike::io::KernelEvent;
use gateway_ike::reason::Cause;
use gateway_wire::TrafficSelector;

use super::selectors::selector;
use super::*;

/// What A asks for with this: TSi and TSr.
fn asked(simulation: &Simulation, request: &[u8]) -> [Vec<TrafficSelector>; 2] {
    let opened = forge(simulation, 0).open(request).unwrap();
    let mut found = [Vec::new(), Vec::new()];
    for payload in opened.payloads().unwrap() {
        match payload {
            Payload::TsInitiator(ts) => found[0] = ts.known().copied().collect(),
            Payload::TsResponder(ts) => found[1] = ts.known().copied().collect(),
            _ => {}
        }
    }
    found
}

/// From one address of A's network to one of B's, whatever the protocol.
fn pair_of(ours: u8, theirs: u8) -> [Vec<TrafficSelector>; 2] {
    [format!("10.1.0.{ours}/32"), format!("10.2.0.{theirs}/32")].map(|net| vec![selector(&net)])
}

/// B's answer to a request reaches A, or one that says SINGLE_PAIR_REQUIRED; gives what A sends then.
fn answered(simulation: &mut Simulation, request: &[u8], refused: bool) -> Vec<Vec<u8>> {
    let mut answer = only(deliver(simulation, 1, request));
    if refused {
        answer = resealed(simulation, 1, &answer, |payloads| {
            payloads.retain(|payload| {
                !matches!(
                    payload,
                    Payload::SecurityAssociation(_)
                        | Payload::TsInitiator(_)
                        | Payload::TsResponder(_)
                        | Payload::Nonce(_)
                        | Payload::KeyExchange(_)
                )
            });
            payloads.push(notification(NotifyType::SINGLE_PAIR_REQUIRED, &[]));
        });
    }
    deliver(simulation, 0, &answer)
}

/// A segment from A's network to B's; gives what A sends for it.
fn packet(simulation: &mut Simulation, ours: u8, theirs: u8) -> Vec<Vec<u8>> {
    let before = simulation.nodes[0].sent.len();
    let [from, to] = [[10, 1, 0, ours], [10, 2, 0, theirs]].map(IpAddr::from);
    assert!(simulation.send(0, "to-b", from, to), "it waits");
    simulation.nodes[0].sent[before..].iter().map(|(_, octets)| octets.clone()).collect()
}

/// The remote ends of A's Child SAs.
fn protected(simulation: &Simulation) -> Vec<String> {
    let children = simulation.nodes[0].kernel.children.values();
    let pairs = children.flat_map(|child| &child.selectors);
    let mut remote: Vec<_> = pairs.map(|(pair, _)| pair.remote.to_string()).collect();
    remote.sort();
    remote
}

fn last_error(simulation: &Simulation) -> Option<String> {
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    status.rules[0].last_error.clone()
}

/// A has asked in IKE_AUTH, was refused, and has what it has asked for then: from 10.1.0.0 to 10.2.0.0.
fn narrowed() -> Simulation {
    narrowed_with(policies_of_a())
}

fn narrowed_with(a: PolicySet) -> Simulation {
    let (mut simulation, auth) = half_open_with(a, policies_of_b());
    assert_eq!(asked(&simulation, &auth).map(|ts| ts.len()), [2, 2], "the packet and the rule");
    let again = only(answered(&mut simulation, &auth, true));
    assert_eq!(asked(&simulation, &again), pair_of(0, 0));
    assert_eq!(children(&simulation, 0), 0);
    assert_eq!(answered(&mut simulation, &again, false), Vec::<Vec<u8>>::new());
    assert_eq!(protected(&simulation), ["10.2.0.0/32"]);
    assert_eq!(last_error(&simulation), None);
    simulation
}

#[test]
fn after_single_pair_required_the_pair_of_the_packet_is_asked_for_and_no_more_again() {
    let mut simulation = narrowed();
    // The next packet's at once.
    let request = only(packet(&mut simulation, 7, 6));
    assert_eq!(asked(&simulation, &request), pair_of(7, 6));
    assert_eq!(answered(&mut simulation, &request, false), Vec::<Vec<u8>>::new());
    assert_eq!(protected(&simulation), ["10.2.0.0/32", "10.2.0.6/32"]);
    // And so is a successor.
    let kernel = &mut simulation.nodes[0].kernel;
    let mut standing = kernel.children.values();
    let used = standing.find(|c| c.selectors[0].0.remote.to_string() == "10.2.0.6/32").unwrap();
    kernel.received.insert(used.child, 1);
    let event = KernelEvent::Expire { spi: used.inbound.spi, destination: A, hard: false };
    let before = simulation.nodes[0].sent.len();
    simulation.input(0, Input::Kernel(event));
    let request = simulation.nodes[0].sent[before].1.clone();
    assert_eq!(asked(&simulation, &request), pair_of(7, 6));
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 0);
}

#[test]
fn single_pair_required_is_followed_in_create_child_sa_too() {
    let childless = |policies| with_peer(policies, |peer| peer.childless = Childless::Prefer);
    let (a, b) = (childless(policies_of_a()), childless(policies_of_b()));
    let (mut simulation, auth) = half_open_with(a, b);
    let request = only(answered(&mut simulation, &auth, false));
    assert_eq!(asked(&simulation, &request).map(|ts| ts.len()), [2, 2]);
    let again = only(answered(&mut simulation, &request, true));
    assert_eq!(asked(&simulation, &again), pair_of(0, 0));
    answered(&mut simulation, &again, false);
    assert_eq!(protected(&simulation), ["10.2.0.0/32"]);
}

/// Each packet is asked for once.
#[test]
fn a_peer_that_refuses_the_single_pair_too_is_not_asked_a_third_time() {
    let (mut simulation, auth) = half_open();
    let again = only(answered(&mut simulation, &auth, true));
    assert_eq!(answered(&mut simulation, &again, true), Vec::<Vec<u8>>::new());
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 1);
    assert_eq!(last_error(&simulation).unwrap(), "the peer answers SINGLE_PAIR_REQUIRED");
    let sent = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(10));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
    let request = only(packet(&mut simulation, 7, 6));
    assert_eq!(asked(&simulation, &request), pair_of(7, 6));
    assert_eq!(answered(&mut simulation, &request, true), Vec::<Vec<u8>>::new());
    assert_eq!(counter(&simulation, 0, Counter::ChildSaFailed), 2);
}

#[test]
fn a_rule_that_is_always_up_waits_for_packets_where_the_peer_takes_single_pairs_only() {
    let always = with_protect(policies_of_a(), |protect| protect.start = Start::Always);
    let (mut simulation, auth) = half_open_with(always, policies_of_b());
    assert_eq!(answered(&mut simulation, &auth, true), Vec::<Vec<u8>>::new());
    let error = last_error(&simulation).unwrap();
    assert!(error.contains("a single pair of addresses only: traffic brings them up"), "{error}");
    let refused = simulation.nodes[0].events.iter().find_map(|event| event.refusal.clone());
    let refused = refused.unwrap();
    assert_eq!(refused.cause, Cause::SinglePairByPeer);
    assert_eq!(refused.said, Some(NotifyType::SINGLE_PAIR_REQUIRED));
    assert_eq!(refused.candidates[0].rule.as_deref(), Some("to-b"));
    // It is not tried again without one.
    let sent = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(10));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
    let request = only(packet(&mut simulation, 7, 6));
    assert_eq!(asked(&simulation, &request), pair_of(7, 6));
    answered(&mut simulation, &request, false);
    assert_eq!(
        (protected(&simulation), last_error(&simulation)),
        (vec!["10.2.0.6/32".into()], None)
    );
    // Nor when it goes again.
    delete_one_by_b(&mut simulation);
    let sent = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(10));
    assert_eq!(simulation.nodes[0].sent.len(), sent);
    assert_eq!(last_error(&simulation), Some(error));
    // With the next IKE SA it may be otherwise: when this one goes, it is begun.
    delete_by_b(&mut simulation, NEXT_OF_B + 1);
    let sent = simulation.nodes[0].sent.len();
    simulation.run(Duration::from_secs(10));
    let next = simulation.nodes[0].sent.get(sent).expect("another IKE SA");
    assert_eq!(header(&next.1).exchange, ExchangeType::IKE_SA_INIT);
}

/// B deletes the first of A's Child SAs.
fn delete_one_by_b(simulation: &mut Simulation) {
    let spi = simulation.nodes[0].kernel.children.values().next().unwrap().outbound.spi;
    let delete = gateway_wire::Delete { protocol: ProtocolId::ESP, spis: vec![spi] };
    ask(simulation, 1, ExchangeType::INFORMATIONAL, NEXT_OF_B, &[Payload::Delete(delete)]);
}

/// B deletes the IKE SA.
fn delete_by_b(simulation: &mut Simulation, id: u32) {
    let delete = gateway_wire::Delete { protocol: ProtocolId::IKE, spis: Vec::new() };
    ask(simulation, 1, ExchangeType::INFORMATIONAL, id, &[Payload::Delete(delete)]);
}

/// What still serves the rule is not told of as an error.
#[test]
fn the_end_of_one_of_several_pairs_is_no_error_of_the_rule() {
    let always = with_protect(policies_of_a(), |protect| protect.start = Start::Always);
    let (mut simulation, auth) = half_open_with(always, policies_of_b());
    answered(&mut simulation, &auth, true);
    for theirs in [6, 7] {
        let request = only(packet(&mut simulation, 7, theirs));
        answered(&mut simulation, &request, false);
    }
    assert_eq!(children(&simulation, 0), 2);
    delete_one_by_b(&mut simulation);
    assert_eq!((children(&simulation, 0), last_error(&simulation)), (1, None));
}

/// The peer may have been configured anew.
#[test]
fn that_a_peer_takes_single_pairs_only_is_forgotten_with_the_rule_and_with_the_last_ike_sa() {
    let mut simulation = narrowed();
    let other =
        with_rule(policies_of_a(), |rule| rule.remote = vec!["10.2.0.0/25".parse().unwrap()]);
    simulation.configure(0, other);
    let request = simulation.nodes[0].sent.last().unwrap().1.clone();
    answered(&mut simulation, &request, false);
    let request = only(packet(&mut simulation, 7, 6));
    assert_eq!(asked(&simulation, &request).map(|ts| ts.len()), [2, 2]);

    let mut simulation = narrowed();
    delete_by_b(&mut simulation, NEXT_OF_B);
    assert_eq!(children(&simulation, 0), 0);
    let init = only(packet(&mut simulation, 7, 6));
    let auth = only(answered(&mut simulation, &init, false));
    assert_eq!(asked(&simulation, &auth).map(|ts| ts.len()), [2, 2]);
}

#[test]
fn another_ike_sa_asks_for_the_single_pairs_that_the_first_one_had() {
    let a = with_peer(policies_of_a(), |peer| {
        (peer.lifetime, peer.renewal) = (MINUTE, Renewal::Reauthenticate);
    });
    let mut simulation = narrowed_with(a);
    let before = simulation.nodes[0].sent.len();
    while simulation.nodes[0].sent.len() == before {
        simulation.run(Duration::from_secs(1));
    }
    let init = simulation.nodes[0].sent[before].1.clone();
    assert_eq!(header(&init).exchange, ExchangeType::IKE_SA_INIT);
    let auth = only(answered(&mut simulation, &init, false));
    assert_eq!(asked(&simulation, &auth), pair_of(0, 0));
}
