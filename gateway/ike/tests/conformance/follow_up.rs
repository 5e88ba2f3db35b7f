//! IKE_FOLLOWUP_KE (RFC 9370 2.2.4), whole, and what may come in between.

use gateway_ike::algorithms::Group;
use gateway_ike::testing::proposals;
use gateway_wire::{
    KeMethod, KeyExchange, Nonce, Proposal, SecurityAssociation, Transform, TransformType,
};

use super::series::{
    LIFETIME, exchanges, followed, key_exchanges, rounds, soft_limit, spi_of, with_esp, with_ike,
};
use super::*;

#[test]
fn an_ike_sa_with_ml_kem_is_rekeyed_with_ml_kem_by_either_end() {
    let groups = [Group::MlKem768, Group::EcpP384];
    for by in 0..2 {
        let lifetime = |node| if node == by { LIFETIME } else { Duration::ZERO };
        let a = with_peer(with_ike(policies_of_a(), &groups), |p| p.lifetime = lifetime(0));
        let b = with_peer(with_ike(policies_of_b(), &groups), |p| p.lifetime = lifetime(1));
        let mut simulation = pair(a, b);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        let (before, children) = (spi_of(&simulation), simulation.nodes[0].kernel.children.clone());
        let since = simulation.nodes[by].sent.len();
        simulation.run(LIFETIME);
        assert_eq!(
            exchanges(&simulation, by, since)[..4],
            [
                ExchangeType::CREATE_CHILD_SA,
                ExchangeType::IKE_FOLLOWUP_KE,
                ExchangeType::IKE_FOLLOWUP_KE,
                ExchangeType::INFORMATIONAL
            ]
        );
        assert_ne!(spi_of(&simulation), before);
        assert_eq!(simulation.nodes[0].kernel.children, children, "they have moved as they were");
        for node in 0..2 {
            assert_eq!(counter(&simulation, node, Counter::IkeSaRekeyed), 1);
            assert_eq!(counter(&simulation, node, Counter::IkeSaEstablished), 1);
            assert_eq!(states(&simulation, node), ["established"], "the old keys are gone");
            let sa = &simulation.nodes[node].endpoint.status(simulation.now).ike_sas[0];
            let suite = sa.suite.unwrap().to_string();
            assert!(suite.ends_with("-x25519-ke1_mlkem768-ke2_ecp384"), "{suite}");
            assert_eq!(sa.quantum_safe, Some(true));
        }
        // The new keys are the same at both ends.
        soft_limit(&mut simulation, by);
        simulation.run(MINUTE);
        assert_eq!(counter(&simulation, by, Counter::ChildSaRekeyed), 1);
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}

#[test]
fn child_sas_have_additional_key_exchanges_of_their_own_by_either_end() {
    let groups = [Group::MlKem512, Group::MlKem1024];
    let more = |name, peer, local: &str, remote: &str, start| {
        protect(name, peer, local.parse().unwrap(), remote.parse().unwrap(), start)
    };
    let a = more("more", "b", "10.3.0.0/24", "10.4.0.0/24", Start::OnDemand);
    let b = more("more", "a", "10.4.0.0/24", "10.3.0.0/24", Start::Respond);
    let (a, b) = (with_more(policies_of_a(), a), with_more(policies_of_b(), b));
    let mut simulation = pair(with_esp(a, &groups), with_esp(b, &groups));
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(key_exchanges(&simulation, 0), Vec::<String>::new(), "the first has none");
    let since = simulation.nodes[1].sent.len();
    soft_limit(&mut simulation, 1);
    simulation.run(MINUTE);
    assert_eq!(exchanges(&simulation, 1, since)[1..3], [ExchangeType::IKE_FOLLOWUP_KE; 2]);
    simulation.acquire(0, "more");
    simulation.run(MINUTE);
    for node in 0..2 {
        let expected = "x25519-ke1_mlkem512-ke2_mlkem1024".to_owned();
        assert_eq!(key_exchanges(&simulation, node), [expected.clone(), expected]);
        assert_eq!(children(&simulation, node), 2);
        assert_eq!(states(&simulation, node), ["established"]);
    }
    // The simulated kernel decrypts with the keys that the other one encrypts with.
    assert_eq!(simulation.exchange_traffic(), Vec::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn an_end_without_additional_key_exchanges_gets_a_successor_without() {
    let a = with_peer(policies_of_a(), |p| {
        p.lifetime = LIFETIME;
        let mut hybrid = p.proposals[0].clone();
        hybrid.additional = rounds(&[Group::MlKem768]);
        p.proposals.insert(0, hybrid);
    });
    let mut simulation = pair(a, policies_of_b());
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE + LIFETIME);
    assert_eq!(counter(&simulation, 0, Counter::IkeSaRekeyed), 1);
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
}

#[test]
fn what_a_peer_begins_and_does_not_go_on_with_is_bounded() {
    let groups = [Group::EcpP384];
    let mut simulation =
        connect(with_esp(policies_of_a(), &groups), with_esp(policies_of_b(), &groups));
    let since = simulation.nodes[0].sent.len();
    soft_limit(&mut simulation, 0);
    let request = simulation.nodes[0].sent[since].1.clone();
    let opened = forge(&simulation, 0).open(&request).unwrap();
    let payloads = opened.payloads().unwrap();
    // Not as a successor, so that none of them takes the place of another.
    let payloads: Vec<_> =
        payloads.into_iter().filter(|p| !matches!(p, Payload::Notify(_))).collect();
    let first = opened.header.message_id.0;
    let mut links = Vec::new();
    for n in 0..20 {
        let answer = ask(&mut simulation, 0, ExchangeType::CREATE_CHILD_SA, first + n, &payloads);
        let answer = answer.payloads().unwrap();
        let Some(Payload::Notify(notify)) = answer.last() else { panic!("{answer:?}") };
        assert_eq!(notify.kind, NotifyType::ADDITIONAL_KEY_EXCHANGE);
        links.push(notify.data.to_vec());
    }
    let ke = Payload::KeyExchange(KeyExchange { method: KeMethod::ECP_384, data: &[4; 96] });
    let mut known = 0;
    for (n, link) in (20..).zip(&links) {
        let link = notification(NotifyType::ADDITIONAL_KEY_EXCHANGE, link);
        let payloads = [ke.clone(), link];
        let answer = ask(&mut simulation, 0, ExchangeType::IKE_FOLLOWUP_KE, first + n, &payloads);
        let unknown = notification(NotifyType::STATE_NOT_FOUND, &[]);
        known += usize::from(!answer.payloads().unwrap().contains(&unknown));
    }
    assert_eq!(known, 4, "the last four");
    assert_eq!(children(&simulation, 1), 1 + known);
    // And nothing is left of them when the IKE SA goes.
    simulation.input(1, Input::Shutdown);
    simulation.run(5 * MINUTE);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn what_ends_meanwhile_is_not_replaced() {
    // The rule goes.
    let (mut simulation, follow_up) = followed();
    let other = with_rule(policies_of_b(), |rule| rule.name = "other".into());
    let other = policies(
        other.peers.values().map(|p| PeerConfig::clone(p)).collect(),
        other.rules.values().map(|r| Rule::clone(r)).collect(),
    );
    simulation.configure(1, other);
    let forge = forge(&simulation, 1);
    let answer = deliver(&mut simulation, 1, &follow_up);
    let opened = forge.open(answer.last().unwrap()).unwrap();
    assert_eq!(
        opened.payloads().unwrap(),
        [notification(NotifyType::STATE_NOT_FOUND, &[])],
        "the rule is gone"
    );
    // The IKE SA goes.
    let (mut simulation, follow_up) = followed();
    simulation.input(1, Input::Shutdown);
    let answer = only(deliver(&mut simulation, 1, &follow_up));
    assert!(children(&simulation, 1) == 0 && header(&answer).flags.response);
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    assert!(simulation.nodes[1].endpoint.is_empty());
}

/// RFC 9370 2.2.4: a request that comes when the series is under way gets TEMPORARY_FAILURE.
#[test]
fn a_rekeying_that_comes_in_between_is_put_off() {
    let (mut simulation, follow_up) = followed();
    // B's request for a successor of the same Child SA, sent before it had seen A's.
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    let spi = child.inbound.spi.to_be_bytes();
    let rekey = Payload::Notify(Notify {
        protocol: ProtocolId::ESP,
        spi: &spi,
        kind: NotifyType::REKEY_SA,
        data: &[],
    });
    let nonce = [7; 32];
    let request = [rekey, Payload::Nonce(Nonce(&nonce))];
    let later = [notification(NotifyType::TEMPORARY_FAILURE, &[])];
    let answer = ask(&mut simulation, 1, ExchangeType::CREATE_CHILD_SA, NEXT_OF_B, &request);
    assert_eq!(answer.payloads().unwrap(), later);
    let answer = only(deliver(&mut simulation, 1, &follow_up));
    deliver(&mut simulation, 0, &answer);
    assert_eq!(counter(&simulation, 0, Counter::ChildSaRekeyed), 1);
}

/// A's proposals for new keys without ML-KEM, in its next request.
fn classic_rekey(simulation: &mut Simulation) -> Vec<NotifyType> {
    let proposal = proposals().0.remove(0);
    let suite = [
        (TransformType::ENCR, proposal.encryption[0].id().0, Some(256)),
        (TransformType::PRF, proposal.prf[0].id().0, None),
        (TransformType::KE, Group::X25519.id().0, None),
    ];
    let transform =
        |(kind, id, key_length)| Transform { kind, id, key_length, unknown_attribute: false };
    let transforms = suite.map(transform).to_vec();
    let sa = SecurityAssociation {
        proposals: vec![Proposal {
            number: 1,
            protocol: ProtocolId::IKE,
            spi: vec![5; 8],
            transforms,
        }],
    };
    let (nonce, value) = ([7; 32], [9; 32]);
    let payloads = [
        Payload::SecurityAssociation(sa),
        Payload::Nonce(Nonce(&nonce)),
        Payload::KeyExchange(KeyExchange { method: KeMethod::CURVE25519, data: &value }),
    ];
    let id =
        simulation.nodes[0].sent.iter().map(|(_, m)| header(m).message_id.0).max().unwrap() + 1;
    let answer = ask(simulation, 0, ExchangeType::CREATE_CHILD_SA, id, &payloads);
    notified(&answer.payloads().unwrap())
}

#[test]
fn a_rule_that_demands_it_takes_no_successor_without_ml_kem() {
    for demanded in [true, false] {
        let both = |policies| {
            let policies = with_peer(policies, |peer| {
                let mut hybrid = peer.proposals[0].clone();
                hybrid.additional = rounds(&[Group::MlKem512]);
                peer.proposals.insert(0, hybrid);
            });
            with_protect(policies, |protect| protect.quantum_safe = demanded)
        };
        let mut simulation = connect(both(policies_of_a()), both(policies_of_b()));
        assert_eq!(children(&simulation, 1), 1);
        let refused = classic_rekey(&mut simulation);
        let expected = if demanded { vec![NotifyType::NO_PROPOSAL_CHOSEN] } else { vec![] };
        assert_eq!(refused, expected);
        assert_eq!(counter(&simulation, 1, Counter::IkeSaRekeyed), u64::from(!demanded));
        assert_eq!(children(&simulation, 1), 1, "it goes on");
    }
}
