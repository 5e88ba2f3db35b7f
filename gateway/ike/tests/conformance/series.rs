//! A series of IKE_FOLLOWUP_KE (RFC 9370 2.2.4): how one is configured, begun and looked at.

use gateway_ike::Endpoint;
use gateway_ike::algorithms::{AdditionalOffer, Group, Round};
use gateway_ike::config::EndpointConfig;
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::io::KernelEvent;
use gateway_ike::testing::SeededRandom;

use super::*;

pub(super) const LIFETIME: Duration = Duration::from_secs(1000);

/// X25519, and then these.
pub(super) fn rounds(groups: &[Group]) -> AdditionalOffer {
    Round::ALL.iter().copied().zip(groups.iter().map(|group| vec![Some(*group)])).collect()
}

pub(super) fn with_ike(policies: PolicySet, groups: &[Group]) -> PolicySet {
    with_peer(policies, |peer| peer.proposals[0].additional = rounds(groups))
}

pub(super) fn with_esp(policies: PolicySet, groups: &[Group]) -> PolicySet {
    with_protect(policies, |protect| {
        protect.proposals[0].groups = vec![Group::X25519];
        protect.proposals[0].additional = rounds(groups);
    })
}

/// The messages that a node has sent since then, each once, whatever it went in.
pub(super) fn exchanges(simulation: &Simulation, node: usize, since: usize) -> Vec<ExchangeType> {
    let sent = simulation.nodes[node].sent[since..].iter().map(|(_, octets)| header(octets));
    let mut sent: Vec<_> =
        sent.map(|h| (h.exchange, h.initiator_spi, h.flags, h.message_id)).collect();
    sent.dedup();
    sent.into_iter().filter(|(_, _, flags, _)| !flags.response).map(|(kind, ..)| kind).collect()
}

pub(super) fn soft_limit(simulation: &mut Simulation, node: usize) {
    let child = simulation.nodes[node].kernel.children.values().next().unwrap();
    let (spi, destination) = (child.inbound.spi, child.inbound.destination);
    simulation.input(node, Input::Kernel(KernelEvent::Expire { spi, destination, hard: false }));
}

pub(super) fn key_exchanges(simulation: &Simulation, node: usize) -> Vec<String> {
    let status = simulation.nodes[node].endpoint.status(simulation.now);
    let children = status.ike_sas.iter().flat_map(|sa| &sa.children);
    children.filter_map(|c| c.key_exchange).map(|k| k.to_string()).collect()
}

pub(super) fn spi_of(simulation: &Simulation) -> String {
    let sas = simulation.nodes[0].endpoint.status(simulation.now).ike_sas;
    let standing = sas.iter().find(|sa| sa.state == "established").unwrap();
    format!("{} {}", standing.initiator_spi, standing.responder_spi)
}

/// What a series makes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    ChildSa,
    IkeSa,
}

pub(super) const BOTH: [Of; 2] = [Of::ChildSa, Of::IkeSa];

impl Of {
    /// The policies of A and of B for series with these.
    pub(super) fn policies(self, groups: &[Group]) -> [PolicySet; 2] {
        let [a, b] = [policies_of_a(), policies_of_b()];
        match self {
            Self::ChildSa => [a, b].map(|set| with_esp(set, groups)),
            Self::IkeSa => {
                let [a, b] = [a, b].map(|set| with_ike(set, groups));
                [with_peer(a, |peer| peer.lifetime = LIFETIME), b]
            }
        }
    }

    pub(super) fn connect(self, groups: &[Group]) -> Simulation {
        let [a, b] = self.policies(groups);
        connect(a, b)
    }

    /// The same with the real key exchanges, which see what is no value of theirs.
    pub(super) fn connect_really(self, groups: &[Group]) -> Simulation {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
        for (seed, node) in (0..).zip(&mut simulation.nodes) {
            let random = Box::new(SeededRandom::new(seed));
            let config = EndpointConfig::default();
            node.endpoint = Endpoint::new(config, random, Box::new(SystemKeyExchange));
        }
        let [a, b] = self.policies(groups);
        simulation.configure(1, b);
        simulation.configure(0, a);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        simulation.network.set_faults(CUT);
        simulation
    }

    /// A begins; gives its CREATE_CHILD_SA.
    pub(super) fn begin(self, simulation: &mut Simulation) -> Vec<u8> {
        let since = simulation.nodes[0].sent.len();
        match self {
            Self::ChildSa => soft_limit(simulation, 0),
            Self::IkeSa => {
                while simulation.nodes[0].sent.len() == since {
                    let due = simulation.nodes[0].endpoint.next_timeout().unwrap();
                    simulation.now = simulation.now.max(due);
                    simulation.input(0, Input::Timeout);
                }
            }
        }
        let request = simulation.nodes[0].sent[since].1.clone();
        assert_eq!(header(&request).exchange, ExchangeType::CREATE_CHILD_SA);
        request
    }

    /// A begins, and B answers; gives A's IKE_FOLLOWUP_KE.
    pub(super) fn follow(self, simulation: &mut Simulation) -> Vec<u8> {
        let request = self.begin(simulation);
        let answer = only(deliver(simulation, 1, &request));
        let follow_up = only(deliver(simulation, 0, &answer));
        assert_eq!(header(&follow_up).exchange, ExchangeType::IKE_FOLLOWUP_KE);
        follow_up
    }

    pub(super) const fn renewed(self) -> Counter {
        match self {
            Self::ChildSa => Counter::ChildSaRekeyed,
            Self::IkeSa => Counter::IkeSaRekeyed,
        }
    }

    /// The network is good again: A tries again, and not at once.
    pub(super) fn is_made_later(self, simulation: &mut Simulation) {
        simulation.network.set_faults(Faults::default());
        simulation.run(MINUTE);
        for node in 0..2 {
            assert_eq!(counter(simulation, node, self.renewed()), 1, "{self:?}");
            assert_eq!(counter(simulation, node, Counter::IkeSaEstablished), 1, "{self:?}");
            assert_eq!(children(simulation, node), 1, "{self:?}");
            assert_eq!(states(simulation, node), ["established"], "{self:?}");
        }
        assert_eq!(simulation.mismatches(), Vec::<String>::new());
    }
}

/// A and B, about to make a successor of their Child SA with a round: A's IKE_FOLLOWUP_KE.
pub(super) fn followed() -> (Simulation, Vec<u8>) {
    followed_of(Of::ChildSa)
}

pub(super) fn followed_of(of: Of) -> (Simulation, Vec<u8>) {
    let mut simulation = of.connect(&[Group::EcpP384]);
    let follow_up = of.follow(&mut simulation);
    (simulation, follow_up)
}
