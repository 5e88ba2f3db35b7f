//! What is kept of one exchange, and beside an IKE SA: each limit below, at and above it.

use gateway_ike::algorithms::{Group, Round};
use gateway_ike::config::{Action, Identity, PeerConfig};
use gateway_ike::testing::Forge;
use gateway_wire::{Delete, ExchangeType};

use super::*;

const NEXT_OF_A: u32 = 2;

fn with_limit(set: impl FnOnce(&mut EndpointConfig)) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    set(&mut config);
    config
}

fn with_peer(mut policies: PolicySet, change: impl Fn(&mut PeerConfig)) -> PolicySet {
    policies.peers.values_mut().for_each(|peer| change(Arc::make_mut(peer)));
    policies
}

/// A and B with one Child SA, with these policies.
fn connected(config: &EndpointConfig, a: PolicySet, b: PolicySet) -> Simulation {
    let mut simulation = Simulation::with_config(&[A, B], config, Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b-1");
    simulation.run(SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
    simulation
}

/// A node gets a message with the keys of the other one.
fn forged(
    simulation: &mut Simulation,
    to: usize,
    message: (ExchangeType, u32),
    say: &[Payload<'_>],
) {
    let forge = Forge::of(&simulation.nodes[1 - to].endpoint).unwrap();
    let octets = forge.seal(&forge.header(message.0, false, message.1), say).unwrap();
    let path = simulation.nodes[to].endpoint.status(simulation.now).ike_sas[0].path;
    simulation.input(to, Input::Datagram { path, octets: &octets });
}

#[test]
fn so_many_refused_initiators_are_answered_again() {
    for (strangers, forgotten) in [(1, 0), (2, 0), (3, 1), (5, 3)] {
        let config = with_limit(|limits| limits.refused_initiator_limit = 2);
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
        simulation.configure(1, policies_of_b(1));
        for n in 0..strangers {
            let name = Identity::Fqdn(format!("stranger-{n}.test"));
            let stranger = with_peer(policies_of_a(1), |peer| peer.local_id = name.clone());
            simulation.configure(0, stranger);
            simulation.acquire(0, "to-b-1");
            simulation.run(Duration::from_millis(90));
        }
        assert_eq!(counter(&simulation, 1, Counter::AuthenticationFailed), strangers);
        assert_eq!(counter(&simulation, 1, Counter::RefusedForgotten), forgotten);
        let kept = u64::try_from(states(&simulation, 1).len()).unwrap();
        assert_eq!(kept, strangers - forgotten);
    }
}

#[test]
fn a_child_sa_has_so_many_pairs_of_prefixes() {
    for (limit, granted) in [(64, false), (65, true), (66, true)] {
        let config = with_limit(|limits| limits.selector_pair_limit = limit);
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
        let nets = |site: u8, count: u8| -> Vec<ipnet::IpNet> {
            (0..count).map(|n| format!("10.{site}.{}.0/24", 2 * n).parse().unwrap()).collect()
        };
        // 65 pairs, of which B's rule covers all.
        let (mut a, mut b) = (policies_of_a(1), policies_of_b(1));
        let rule = |policies: &mut PolicySet, local, remote| {
            let rule = Arc::make_mut(policies.rules.values_mut().next().unwrap());
            (rule.local, rule.remote) = (local, remote);
        };
        rule(&mut a, nets(1, 5), nets(2, 13));
        rule(&mut b, vec!["10.2.0.0/16".parse().unwrap()], vec!["10.1.0.0/16".parse().unwrap()]);
        simulation.configure(1, b);
        simulation.configure(0, a);
        simulation.acquire(0, "to-b-1");
        simulation.run(SECOND);
        let refused = simulation.nodes[1].endpoint.counters().refusals(Cause::SelectorCombination);
        assert_eq!(refused, u64::from(!granted), "{limit}");
        let pairs = simulation.nodes[0].kernel.children.values().map(|c| c.selectors.len());
        assert_eq!(pairs.collect::<Vec<_>>(), if granted { vec![65] } else { vec![] }, "{limit}");
    }
}

#[test]
fn so_much_with_additional_key_exchanges_waits_to_be_gone_on_with() {
    let config = with_limit(|limits| limits.followup_ke_limit = 2);
    let with_rounds = |mut policies: PolicySet| {
        for rule in policies.rules.values_mut() {
            if let Action::Protect(protect) = &mut Arc::make_mut(rule).action {
                protect.proposals[0].groups = vec![Group::X25519];
                protect.proposals[0].additional = [(Round::Ke1, vec![Some(Group::EcpP384)])].into();
            }
        }
        policies
    };
    let (a, b) = (with_rounds(policies_of_a(2)), with_rounds(policies_of_b(2)));
    let mut simulation = connected(&config, a, b);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b-2");
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let request = forge.open(&simulation.nodes[0].sent.last().unwrap().1).unwrap();
    let payloads = request.payloads().unwrap();
    for (nth, forgotten) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
        forged(&mut simulation, 1, (ExchangeType::CREATE_CHILD_SA, NEXT_OF_A + nth), &payloads);
        let answer = forge.open(&simulation.nodes[1].sent.last().unwrap().1).unwrap();
        let begun = answer.payloads().unwrap().iter().any(
            |p| matches!(p, Payload::Notify(n) if n.kind == NotifyType::ADDITIONAL_KEY_EXCHANGE),
        );
        assert!(begun, "{nth}");
        assert_eq!(counter(&simulation, 1, Counter::FollowUpForgotten), forgotten, "{nth}");
    }
}

#[test]
fn so_many_other_addresses_of_a_peer_are_kept() {
    let config = with_limit(|limits| limits.peer_address_limit = 2);
    for (told, left_out) in [(1, 0), (2, 0), (3, 1)] {
        let mobile = |policies| with_peer(policies, |peer| peer.mobike = true);
        let mut simulation = connected(&config, mobile(policies_of_a(1)), mobile(policies_of_b(1)));
        let addresses: Vec<[u8; 4]> = (1..=told).map(|last| [198, 51, 100, last]).collect();
        let (protocol, kind) = (ProtocolId::NONE, NotifyType::ADDITIONAL_IP4_ADDRESS);
        let notify = |data| Payload::Notify(Notify { protocol, spi: &[], kind, data });
        let say: Vec<_> = addresses.iter().map(|octets| notify(octets.as_slice())).collect();
        forged(&mut simulation, 1, (ExchangeType::INFORMATIONAL, NEXT_OF_A), &say);
        let kept = simulation.nodes[1].endpoint.status(simulation.now).ike_sas[0].mobike.clone();
        assert_eq!(kept.unwrap().len(), usize::from(told.min(2)));
        assert_eq!(counter(&simulation, 1, Counter::AddressesLeftOut), left_out);
    }
    // As many are told: all of ours but the one in use.
    let mobile = |policies| with_peer(policies, |peer| peer.mobike = true);
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    let ours: Vec<IpAddr> = (1..=4).map(|last| [192, 0, 2, 100 + last].into()).collect();
    simulation.readdress(0, &[&[A], &ours[..]].concat());
    simulation.configure(1, mobile(policies_of_b(1)));
    simulation.configure(0, mobile(policies_of_a(1)));
    simulation.acquire(0, "to-b-1");
    simulation.run(SECOND);
    let kept = simulation.nodes[1].endpoint.status(simulation.now).ike_sas[0].mobike.clone();
    assert_eq!(kept.unwrap(), ours[..2]);
}

#[test]
fn so_many_deleted_spis_are_remembered_until_the_answer_comes() {
    for (beside, forgotten) in [(0_u32, 0_u64), (1, 0), (2, 1)] {
        let config = with_limit(|limits| limits.deleted_spi_limit = 2);
        let mut simulation = connected(&config, policies_of_a(2), policies_of_b(2));
        simulation.network.set_faults(CUT);
        simulation.acquire(0, "to-b-2");
        pass_on(&mut simulation, 0);
        let (_, answer) = simulation.nodes[1].sent.last().unwrap().clone();
        let path = simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0].path;
        // B has it, and deletes it and others before A hears that it was made.
        let made = simulation.nodes[1].kernel.children.values().next_back().unwrap().inbound.spi;
        let spis = core::iter::once(made).chain(1000..1000 + beside).collect();
        let delete = [Payload::Delete(Delete { protocol: ProtocolId::ESP, spis })];
        forged(&mut simulation, 0, (ExchangeType::INFORMATIONAL, 0), &delete);
        assert_eq!(counter(&simulation, 0, Counter::DeletedSpiForgotten), forgotten);
        simulation.input(0, Input::Datagram { path, octets: &answer });
        let by_dead = simulation.nodes[0].kernel.children.values();
        let by_dead = by_dead.filter(|child| child.outbound.spi == made).count();
        assert_eq!(u64::try_from(by_dead).unwrap(), forgotten, "{beside}");
    }
}

/// The octets of the text of what B has refused, as the limit counts them, with how many candidates it
/// shows and how many it leaves out.
fn refused(config: &EndpointConfig) -> (usize, usize, usize, u64) {
    let mut simulation = Simulation::with_config(&[A, B], config, Faults::default(), 1);
    let mut b = policies_of_b(3);
    for rule in b.rules.values_mut() {
        Arc::make_mut(rule).remote = vec!["10.99.0.0/24".parse().unwrap()];
    }
    simulation.configure(1, b);
    simulation.configure(0, policies_of_a(1));
    simulation.acquire(0, "to-b-1");
    simulation.run(SECOND);
    let refusals = simulation.nodes[1].events.iter().filter_map(|e| e.refusal.as_deref());
    let [refusal] = refusals.collect::<Vec<_>>()[..] else { panic!("one refusal") };
    let fields = refusal.candidates.iter().flat_map(|candidate| &candidate.fields);
    let of_field =
        |values: [&Vec<String>; 2]| values.into_iter().flatten().map(String::len).sum::<usize>();
    let size = fields.map(|f| 32 + of_field([&f.ours, &f.theirs])).sum::<usize>();
    let shortened = counter(&simulation, 1, Counter::RefusalShortened);
    (size, refusal.candidates.len(), refusal.left_out, shortened)
}

#[test]
fn a_refusal_has_so_many_octets_and_tells_what_it_leaves_out() {
    let of = |limit| refused(&with_limit(|limits| limits.refusal_size_limit = limit));
    let (size, shown, left_out, shortened) = of(16_384);
    assert_eq!((shown, left_out, shortened), (3, 0, 0));
    assert_eq!(of(size + 1), (size, 3, 0, 0));
    assert_eq!(of(size), (size, 3, 0, 0));
    let (shorter, shown, left_out, shortened) = of(size - 1);
    assert!(shorter < size);
    assert_eq!((shown, left_out, shortened), (2, 1, 1));
    let (_, shown, left_out, shortened) = of(0);
    assert_eq!((shown, left_out, shortened), (1, 2, 1), "the nearest stays");
}
