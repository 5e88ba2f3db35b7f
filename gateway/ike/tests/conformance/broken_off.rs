//! IKE_FOLLOWUP_KE (RFC 9370 2.2.4) broken off, and by a peer that does it wrong: for a Child SA, and
//! for new keys of an IKE SA.

use gateway_ike::algorithms::Group;
use gateway_ike::event::{Event, EventKind};
use gateway_ike::io::KernelError;
use gateway_ike::testing::Refusal;
use gateway_wire::{KeMethod, KeyExchange};

use super::series::{BOTH, Of, exchanges, followed, followed_of, key_exchanges, spi_of};
use super::*;

/// Time passes for the responder only, until it forgets.
fn forget(simulation: &mut Simulation) {
    simulation.now += Duration::from_secs(21);
    simulation.input(1, Input::Timeout);
}

#[test]
fn a_responder_forgets_what_is_not_gone_on_with_and_says_so() {
    for of in BOTH {
        let (mut simulation, follow_up) = followed_of(of);
        let before = (spi_of(&simulation), simulation.nodes[0].kernel.children.clone());
        forget(&mut simulation);
        assert_eq!(counter(&simulation, 1, Counter::FollowUpTimeout), 1);
        let answer = only(deliver(&mut simulation, 1, &follow_up));
        let opened = forge(&simulation, 1).open(&answer).unwrap();
        let payloads = opened.payloads().unwrap();
        assert_eq!(payloads, [notification(NotifyType::STATE_NOT_FOUND, &[])]);
        deliver(&mut simulation, 0, &answer);
        let after = (spi_of(&simulation), simulation.nodes[0].kernel.children.clone());
        assert_eq!(after, before, "the old one goes on: {of:?}");
        assert_eq!(states(&simulation, 0), ["established"]);
        of.is_made_later(&mut simulation);
    }
}

#[test]
fn a_responder_that_forgets_again_and_again_loses_the_ike_sa() {
    for of in BOTH {
        let (mut simulation, mut follow_up) = followed_of(of);
        for attempt in 1.. {
            forget(&mut simulation);
            let answer = only(deliver(&mut simulation, 1, &follow_up));
            let sent = deliver(&mut simulation, 0, &answer);
            if states(&simulation, 0) == ["closing"] {
                assert_eq!(attempt, 5, "{of:?}");
                assert_eq!(header(&only(sent)).exchange, ExchangeType::INFORMATIONAL, "a Delete");
                break;
            }
            // It may have made the Child SA all the same: that is deleted, and asked for again later.
            for delete in sent {
                assert_eq!(header(&delete).exchange, ExchangeType::INFORMATIONAL, "{of:?}");
                let answer = only(deliver(&mut simulation, 1, &delete));
                assert!(deliver(&mut simulation, 0, &answer).is_empty(), "not at once: {of:?}");
            }
            follow_up = of.follow(&mut simulation);
        }
    }
}

#[test]
fn the_answer_to_the_last_key_exchange_is_given_again() {
    for of in BOTH {
        let (mut simulation, follow_up) = followed_of(of);
        // Behind its answer either end may ask something on the new IKE SA.
        let lost = deliver(&mut simulation, 1, &follow_up).remove(0);
        let again = deliver(&mut simulation, 1, &follow_up).remove(0);
        assert_eq!(lost, again, "{of:?}");
        let old = header(&follow_up).initiator_spi;
        let mut sent = deliver(&mut simulation, 0, &again).into_iter().map(|m| header(&m));
        let is_delete =
            |h: Header| h.exchange == ExchangeType::INFORMATIONAL && h.initiator_spi == old;
        assert!(sent.any(is_delete), "{of:?}");
        assert_eq!(counter(&simulation, 0, of.renewed()), 1);
    }
}

#[test]
fn a_link_to_nothing_is_told_so_and_costs_nothing() {
    let (mut simulation, follow_up) = followed();
    let value = [4; 96];
    let ke = Payload::KeyExchange(KeyExchange { method: KeMethod::ECP_384, data: &value });
    let id = header(&follow_up).message_id.0;
    let links: [&[u8]; 4] = [b"", b"12345678", b"1234567", &[0; 300]];
    let with_link =
        |link| vec![ke.clone(), notification(NotifyType::ADDITIONAL_KEY_EXCHANGE, link)];
    let requests = links.map(with_link).into_iter().chain([vec![ke.clone()]]);
    for (n, payloads) in (0..).zip(requests) {
        let answer = ask(&mut simulation, 0, ExchangeType::IKE_FOLLOWUP_KE, id + n, &payloads);
        let payloads = answer.payloads().unwrap();
        assert_eq!(payloads, [notification(NotifyType::STATE_NOT_FOUND, &[])]);
    }
    assert_eq!(counter(&simulation, 1, Counter::StateNotFound), 5);
    assert_eq!((states(&simulation, 1), children(&simulation, 1)), (vec!["established"], 1));
}

/// What may be wrong with a KE payload.
type Change = fn(&mut Vec<Payload<'_>>);

fn no_value(payloads: &mut Vec<Payload<'_>>) {
    payloads.retain(|p| !matches!(p, Payload::KeyExchange(_)));
}

fn change_value(payloads: &mut [Payload<'_>], change: impl Fn(&mut KeyExchange<'_>)) {
    for payload in payloads {
        if let Payload::KeyExchange(ke) = payload {
            change(ke);
        }
    }
}

fn other_method(payloads: &mut Vec<Payload<'_>>) {
    change_value(payloads, |ke| ke.method = KeMethod::ECP_256);
}

fn short(payloads: &mut Vec<Payload<'_>>) {
    change_value(payloads, |ke| ke.data = ke.data.split_last().unwrap().1);
}

/// Of P-384, a point that is not on the curve; of ML-KEM, a key with numbers that are too large.
fn outside(payloads: &mut Vec<Payload<'_>>) {
    const ONES: [u8; 2000] = [0xff; 2000];
    change_value(payloads, |ke| ke.data = &ONES[..ke.data.len()]);
}

#[test]
fn a_value_of_another_method_or_none_or_a_bad_one_ends_the_ike_sa() {
    let p384 = [other_method, no_value, short, outside].map(|change| (Group::EcpP384, change));
    let ml_kem = [short, outside].map(|change: Change| (Group::MlKem512, change));
    for of in BOTH {
        for (group, change) in p384.iter().chain(&ml_kem) {
            let mut simulation = of.connect_really(&[*group]);
            let follow_up = of.follow(&mut simulation);
            let wrong = resealed(&simulation, 0, &follow_up, *change);
            let forge = forge(&simulation, 1);
            let answer = only(deliver(&mut simulation, 1, &wrong));
            assert_eq!(
                forge.open(&answer).unwrap().payloads().unwrap(),
                [notification(NotifyType::INVALID_SYNTAX, &[])],
                "as in CREATE_CHILD_SA: {of:?} {group}"
            );
            assert_eq!(children(&simulation, 1), 0, "{of:?} {group}");
            assert_eq!(states(&simulation, 1), ["closing"], "{of:?} {group}");
            assert_eq!(counter(&simulation, 1, of.renewed()), 0, "{of:?} {group}");
        }
    }
}

/// What a responder may do wrong before the last exchange: A is left with what it had, and tries
/// again.
#[test]
fn an_answer_that_is_none_leaves_the_old_sa() {
    let no_link: Change = |p| p.retain(|p| !matches!(p, Payload::Notify(_)));
    let p384 =
        [no_link, no_value, other_method, short, outside].map(|change| (Group::EcpP384, change));
    let ml_kem: [(Group, Change); 1] = [(Group::MlKem512, short)];
    for of in BOTH {
        for (group, change) in p384.into_iter().chain(ml_kem) {
            let mut simulation = of.connect_really(&[group, Group::EcpP521]);
            let follow_up = of.follow(&mut simulation);
            let before = spi_of(&simulation);
            let answer = only(deliver(&mut simulation, 1, &follow_up));
            let wrong = resealed(&simulation, 1, &answer, change);
            let since = simulation.nodes[0].sent.len();
            deliver(&mut simulation, 0, &wrong);
            let sent = exchanges(&simulation, 0, since);
            assert!(!sent.contains(&ExchangeType::IKE_FOLLOWUP_KE), "{sent:?}");
            assert_eq!((children(&simulation, 0), spi_of(&simulation)), (1, before));
            assert_eq!(states(&simulation, 0), ["established"]);
            let failed = |e: &Event| match of {
                Of::ChildSa => matches!(e.kind, EventKind::ChildFailed { .. }),
                Of::IkeSa => matches!(e.kind, EventKind::RekeyFailed(_)),
            };
            assert!(simulation.nodes[0].events.iter().any(failed), "{of:?}");
            of.is_made_later(&mut simulation);
        }
    }
}

/// After the last one B believes that there is a new IKE SA: A cannot go on with the old one.
#[test]
fn a_bad_answer_to_the_last_exchange_ends_the_ike_sa_that_was_to_get_new_keys() {
    for change in [no_value, other_method, short, outside] {
        let mut simulation = Of::IkeSa.connect_really(&[Group::EcpP384]);
        let follow_up = Of::IkeSa.follow(&mut simulation);
        let by_b = forge(&simulation, 1);
        let answer = deliver(&mut simulation, 1, &follow_up).remove(0);
        let opened = by_b.open(&answer).unwrap();
        let mut payloads = opened.payloads().unwrap();
        change(&mut payloads);
        let wrong = by_b.seal(&opened.header, &payloads).unwrap();
        let delete = only(deliver(&mut simulation, 0, &wrong));
        assert_eq!(header(&delete).exchange, ExchangeType::INFORMATIONAL);
        assert_eq!((states(&simulation, 0), children(&simulation, 0)), (vec!["closing"], 0));
        assert_eq!(counter(&simulation, 0, Counter::IkeSaRekeyed), 0);
    }
}

/// The last exchange brings the new Child SA into the kernel, of B first: whoever's refuses, both
/// ends are left with the old one.
#[test]
fn a_kernel_that_refuses_after_the_last_exchange_leaves_the_old_child_sa() {
    for node in 0..2 {
        let (mut simulation, follow_up) = followed();
        let before = key_exchanges(&simulation, 0);
        let old = simulation.nodes[0].kernel.children.clone();
        let refusal = Refusal::Error(KernelError::Unsupported("gcm(aes)".to_owned()));
        simulation.nodes[node].kernel.refusals.push_back(refusal);
        let answer = only(deliver(&mut simulation, 1, &follow_up));
        let opened = forge(&simulation, 1).open(&answer).unwrap();
        let payloads = opened.payloads().unwrap();
        let ke = payloads.iter().any(|p| matches!(p, Payload::KeyExchange(_)));
        assert_eq!(ke, node == 0, "{payloads:?}");
        deliver(&mut simulation, 0, &answer);
        assert_eq!(simulation.nodes[0].kernel.children, old);
        assert_eq!(key_exchanges(&simulation, 0), before);
        assert_eq!(counter(&simulation, node, Counter::ChildSaFailed), 1, "{node}");
        simulation.network.set_faults(Faults::default());
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap(), "{node}");
        for node in 0..2 {
            assert_eq!(states(&simulation, node), ["established"]);
        }
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}
