//! ESP that a peer may send before we can receive it (RFC 7296 2.8): it is expected from each request
//! on that offers an SPI, until its SA is there, or will not be.

use std::collections::BTreeSet;

use gateway_ike::io::Path;
use gateway_ike::testing::Forge;
use gateway_wire::ProtocolId;

use super::*;

/// Nothing arrives unless a test hands it over.
const CUT: Faults = Faults { loss: 100, duplication: 0, reordering: 0, corruption: 0 };

/// The SPIs that a node offers in what it has sent last.
fn offered(simulation: &Simulation, node: usize) -> BTreeSet<u32> {
    let forge = Forge::of(&simulation.nodes[node].endpoint).unwrap();
    let (_, octets) = simulation.nodes[node].sent.last().unwrap();
    let message = forge.open(octets).unwrap();
    assert!(!message.header.flags.response);
    let payloads = message.payloads().unwrap();
    let proposals = payloads.iter().filter_map(|payload| {
        if let Payload::SecurityAssociation(sa) = payload { Some(&sa.proposals) } else { None }
    });
    let of_esp = proposals.flatten().filter(|proposal| proposal.protocol == ProtocolId::ESP);
    of_esp.map(|p| u32::from_be_bytes(p.spi.as_slice().try_into().unwrap())).collect()
}

/// Hands what a node has sent last to the other one.
fn pass_on(simulation: &mut Simulation, from: usize) {
    let (path, octets) = simulation.nodes[from].sent.last().unwrap().clone();
    let path = Path { local: path.remote, remote: path.local };
    simulation.input(usize::from(from == 0), Input::Datagram { path, octets: &octets });
}

fn expected(simulation: &Simulation) -> [BTreeSet<u32>; 2] {
    [0, 1].map(|node| simulation.nodes[node].expected.clone())
}

/// What one node has just asked for is expected there alone, and no longer when the answer has come.
fn is_expected_until_answered(simulation: &mut Simulation, by: usize, what: &str) {
    let offer = offered(simulation, by);
    assert_eq!(offer.len(), 1, "{what}");
    let at_other = BTreeSet::new();
    let now = expected(simulation);
    assert_eq!((&now[by], &now[usize::from(by == 0)]), (&offer, &at_other), "{what}");
    let before = simulation.nodes[by].kernel.children.len();
    pass_on(simulation, by);
    assert_eq!(simulation.nodes[by].expected, offer, "{what}");
    pass_on(simulation, usize::from(by == 0));
    assert_eq!(simulation.nodes[by].kernel.children.len(), before.saturating_add(1), "{what}");
    assert_eq!(expected(simulation), [BTreeSet::new(), BTreeSet::new()], "{what}");
    assert_eq!(simulation.violations(), Vec::<String>::new());
}

/// A's rules `to-b` and `more`, which B has too.
fn with_two_rules() -> [PolicySet; 2] {
    let (net_a, net_b) = ("10.1.9.0/24".parse().unwrap(), "10.2.9.0/24".parse().unwrap());
    let more = |mut policies: PolicySet, rule: gateway_ike::config::Rule| {
        policies.rules.insert("more".into(), rule.into());
        policies
    };
    [
        more(policies_of_a(), protect("more", "b", net_a, net_b, Start::OnDemand)),
        more(policies_of_b(), protect("more", "a", net_b, net_a, Start::Respond)),
    ]
}

/// A has sent IKE_AUTH, which waits for B.
fn asking(config: [PolicySet; 2]) -> Simulation {
    let [a, b] = config;
    let mut simulation = pair(a, b);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b");
    pass_on(&mut simulation, 0);
    assert_eq!(expected(&simulation), [BTreeSet::new(), BTreeSet::new()], "IKE_SA_INIT has none");
    pass_on(&mut simulation, 1);
    simulation
}

fn soft_limit(simulation: &mut Simulation, node: usize) {
    let child = simulation.nodes[node].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(node, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
}

#[test]
fn each_request_for_a_child_sa_has_its_esp_expected_until_it_is_there() {
    let mut simulation = asking(with_two_rules());
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    simulation.acquire(0, "more");
    is_expected_until_answered(&mut simulation, 0, "CREATE_CHILD_SA");
    for by in [0, 1] {
        let mut simulation = asking(with_two_rules());
        is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
        soft_limit(&mut simulation, by);
        is_expected_until_answered(&mut simulation, by, "a successor");
    }
}

#[test]
fn with_additional_key_exchanges_it_is_until_the_last_is_answered() {
    let rounds = |policies| {
        with_protect(policies, |protect| {
            protect.proposals[0].groups = vec![Group::X25519];
            protect.proposals[0].additional =
                [(gateway_ike::algorithms::Round::Ke1, vec![Some(Group::EcpP384)])].into();
        })
    };
    let mut simulation = asking(with_two_rules().map(rounds));
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    simulation.acquire(0, "more");
    let offer = offered(&simulation, 0);
    pass_on(&mut simulation, 0);
    pass_on(&mut simulation, 1);
    assert_eq!(expected(&simulation), [offer.clone(), BTreeSet::new()]);
    pass_on(&mut simulation, 0);
    assert_eq!(simulation.nodes[1].kernel.children.len(), 2);
    assert_eq!(expected(&simulation), [offer, BTreeSet::new()]);
    pass_on(&mut simulation, 1);
    assert_eq!(simulation.nodes[0].kernel.children.len(), 2);
    assert_eq!(expected(&simulation), [BTreeSet::new(), BTreeSet::new()]);
}

/// How often what a node has sent last is sent again in 20 s, and how often its ESP is expected
/// again: an answer that comes late has that kept too.
fn sent_again(simulation: &mut Simulation, node: usize) -> (usize, usize) {
    let before = (simulation.nodes[node].sent.len(), simulation.nodes[node].times_expected);
    simulation.run(Duration::from_secs(20));
    let sent = simulation.nodes[node].sent.len().saturating_sub(before.0);
    (sent, simulation.nodes[node].times_expected.saturating_sub(before.1))
}

#[test]
fn a_request_that_is_sent_again_has_its_esp_expected_again() {
    let mut simulation = asking(with_two_rules());
    assert_eq!(sent_again(&mut simulation, 0), (4, 4), "IKE_AUTH");
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    simulation.acquire(0, "more");
    assert_eq!(sent_again(&mut simulation, 0), (4, 4), "CREATE_CHILD_SA");
    is_expected_until_answered(&mut simulation, 0, "CREATE_CHILD_SA");
    let mut simulation = asking(with_two_rules());
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    soft_limit(&mut simulation, 1);
    assert_eq!(sent_again(&mut simulation, 1), (4, 4), "a successor");
    // Of what makes no Child SA nothing comes.
    let [a, b] = with_two_rules();
    let mut simulation = pair(a, b);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b");
    assert_eq!(sent_again(&mut simulation, 0), (4, 0), "IKE_SA_INIT");
}

#[test]
fn what_comes_to_nothing_is_expected_no_more() {
    // The peer refuses: it has no such rule.
    let [a, _] = with_two_rules();
    let mut simulation = asking([a, policies_of_b()]);
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    simulation.acquire(0, "more");
    assert_eq!(simulation.nodes[0].expected.len(), 1);
    pass_on(&mut simulation, 0);
    pass_on(&mut simulation, 1);
    assert!(simulation.nodes[0].expected.is_empty(), "TS_UNACCEPTABLE");
    // In IKE_AUTH too, where the peer is not whom we wanted.
    let stranger = with_peer(policies_of_b(), |p| p.local_id = Identity::Fqdn("c.test".to_owned()));
    let mut simulation = asking([policies_of_a(), stranger]);
    assert_eq!(simulation.nodes[0].expected.len(), 1);
    pass_on(&mut simulation, 0);
    pass_on(&mut simulation, 1);
    assert!(simulation.nodes[0].expected.is_empty(), "not authenticated");
    // Our kernel refuses.
    let mut simulation = asking(with_two_rules());
    simulation.nodes[0].kernel.refusals.push_back(Refusal::Error(KernelError::NoSuchSa));
    pass_on(&mut simulation, 0);
    pass_on(&mut simulation, 1);
    assert!(simulation.nodes[0].expected.is_empty(), "not installed");
    // The peer is silent, in either exchange.
    let mut simulation = asking(with_two_rules());
    assert_eq!(simulation.nodes[0].expected.len(), 1);
    simulation.run(5 * MINUTE);
    assert!(simulation.nodes[0].expected.is_empty(), "silent");
    let mut simulation = asking(with_two_rules());
    is_expected_until_answered(&mut simulation, 0, "IKE_AUTH");
    simulation.acquire(0, "more");
    assert_eq!(simulation.nodes[0].expected.len(), 1);
    simulation.run(5 * MINUTE);
    assert!(simulation.nodes[0].expected.is_empty(), "silent");
    // The rule goes.
    let mut simulation = asking(with_two_rules());
    simulation.configure(0, PolicySet::default());
    simulation.run(5 * MINUTE);
    assert!(simulation.nodes[0].expected.is_empty(), "no policy");
}
