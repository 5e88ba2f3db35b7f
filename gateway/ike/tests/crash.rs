//! Quick crash detection (RFC 6290): an end that loses everything, and one that learns of it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::config::{PeerConfig, PolicySet, Start};
use gateway_ike::counters::Counter;
use gateway_ike::event::EventKind;
use gateway_ike::io::Path;
use gateway_ike::testing::{Faults, Forge, Simulation, peer, policies, protect};
use gateway_wire::{
    ExchangeType, Flags, Header, Message, MessageId, Notify, NotifyType, Payload, ProtocolId,
    encode_message,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn policies_of_a() -> PolicySet {
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let peer = PeerConfig {
        liveness_interval: Duration::from_secs(10),
        ..peer("b", "a.test", "b.test", Some(B))
    };
    policies(vec![peer], vec![protect("to-b", "b", a_net, b_net, Start::Always)])
}

fn policies_of_b() -> PolicySet {
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let peer = peer("a", "b.test", "a.test", Some(A));
    policies(vec![peer], vec![protect("to-a", "a", b_net, a_net, Start::Respond)])
}

/// A, which asks B every 10 s whether it lives, with a Child SA.
fn connected() -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b());
    simulation.configure(0, policies_of_a());
    simulation.run(Duration::from_secs(1));
    assert!(simulation.has_one_child_each().unwrap());
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn token_in(datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::decode(datagram).unwrap();
    message.payloads.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.kind == NotifyType::QUICK_CRASH_DETECTION).then(|| notify.data.to_vec())
    })
}

const fn token(data: &[u8]) -> Payload<'_> {
    Payload::Notify(Notify {
        protocol: ProtocolId::IKE,
        spi: &[],
        kind: NotifyType::QUICK_CRASH_DETECTION,
        data,
    })
}

/// A response in the clear that B could have sent on the IKE SA.
fn from_b(simulation: &Simulation, payloads: &[Payload<'_>]) -> (Path, Vec<u8>) {
    let sa = &simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0];
    let header = Header {
        initiator_spi: sa.initiator_spi,
        responder_spi: sa.responder_spi,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { response: true, version: false, initiator: false },
        message_id: MessageId(2),
    };
    (sa.path, encode_message(&header, payloads).unwrap())
}

#[test]
fn a_peer_that_has_crashed_says_so_at_the_next_question() {
    let mut simulation = connected();
    simulation.crash(1, 99);
    simulation.configure(1, policies_of_b());
    // The question comes 10 s after the last message, and the rule is tried again a second later.
    simulation.run(Duration::from_secs(12));
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(counter(&simulation, 1, Counter::CrashTokenShown), 1);
    assert_eq!(counter(&simulation, 0, Counter::PeerCrashed), 1);
    assert_eq!(counter(&simulation, 0, Counter::PeerDead), 0);
    let said = simulation.nodes[0].events.iter().any(|e| e.kind == EventKind::PeerCrashed);
    assert!(said);
}

#[test]
fn an_initiator_that_has_crashed_says_so_too() {
    let mut simulation = connected();
    let live = |mut p: PolicySet| {
        for peer in p.peers.values_mut() {
            std::sync::Arc::make_mut(peer).liveness_interval = Duration::from_secs(10);
        }
        p
    };
    simulation.configure(1, live(policies_of_b()));
    simulation.run(Duration::from_secs(11));
    assert!(simulation.has_one_child_each().unwrap());
    // A stays silent after its crash: it has no policies.
    simulation.crash(0, 99);
    simulation.run(Duration::from_secs(12));
    assert_eq!(counter(&simulation, 1, Counter::PeerCrashed), 1);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn a_token_that_is_not_the_peers_proves_nothing() {
    let mut simulation = connected();
    let before = simulation.nodes[0].endpoint.status(simulation.now);
    let unproven = Notify {
        protocol: ProtocolId::NONE,
        spi: &[],
        kind: NotifyType::INVALID_IKE_SPI,
        data: &[],
    };
    for payloads in [
        vec![Payload::Notify(unproven)],
        vec![Payload::Notify(unproven), token(&[7; 32])],
        vec![token(&[]), token(&[0; 128])],
    ] {
        let (path, octets) = from_b(&simulation, &payloads);
        simulation.input(0, Input::Datagram { path, octets: &octets });
    }
    assert_eq!(simulation.nodes[0].endpoint.status(simulation.now), before);
    assert_eq!(counter(&simulation, 0, Counter::CrashTokenForged), 2);
    assert_eq!(counter(&simulation, 0, Counter::PeerCrashed), 0);
}

#[test]
fn the_token_of_an_ike_sa_that_stands_is_not_to_be_had() {
    let mut simulation = connected();
    let sa = simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0].clone();
    let stranger = "203.0.113.9:500".parse().unwrap();
    let others = [sa.initiator_spi, sa.responder_spi, gateway_wire::IkeSpi([9; 8])];
    for node in [0, 1] {
        let local = std::net::SocketAddr::new(simulation.nodes[node].address, 500);
        let before = simulation.nodes[node].sent.len();
        for (initiator_spi, responder_spi) in
            others.iter().flat_map(|i| others.map(|r| (*i, r))).filter(|(i, r)| i != r)
        {
            for initiator in [false, true] {
                let header = Header {
                    initiator_spi,
                    responder_spi,
                    exchange: ExchangeType::INFORMATIONAL,
                    flags: Flags { response: false, version: false, initiator },
                    message_id: MessageId(7),
                };
                let sk = gateway_wire::Encrypted {
                    first: gateway_wire::PayloadType::NONE,
                    body: &[0; 40],
                    body_offset: 0,
                };
                let octets = encode_message(&header, &[Payload::Encrypted(sk)]).unwrap();
                let path = Path { local, remote: stranger };
                simulation.input(node, Input::Datagram { path, octets: &octets });
            }
        }
        let answers = simulation.nodes[node].sent[before..].to_vec();
        assert!(!answers.is_empty(), "they are told that there is no such IKE SA");
        // Whatever else was given out, it is of no use to whoever has asked.
        for (_, answer) in answers {
            let (header, ..) = Header::decode(&answer).unwrap();
            let pair = (header.initiator_spi, header.responder_spi);
            let token_given = token_in(&answer);
            assert!(pair != (sa.initiator_spi, sa.responder_spi) || token_given.is_none());
            let Some(given) = token_given else { continue };
            let (path, octets) = from_b(&simulation, &[token(&given)]);
            simulation.input(0, Input::Datagram { path, octets: &octets });
        }
    }
    assert_eq!(counter(&simulation, 0, Counter::PeerCrashed), 0);
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn a_token_may_be_replaced_by_another() {
    let mut simulation = connected();
    let forge = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let (path, response) = from_b(&simulation, &[]);
    let (header, ..) = Header::decode(&response).unwrap();
    let request = Header {
        flags: Flags { response: false, ..header.flags },
        message_id: MessageId(0),
        ..header
    };
    let sealed = forge.seal(&request, &[token(&[5; 16])]).unwrap();
    simulation.input(0, Input::Datagram { path, octets: &sealed });
    let (path, octets) = from_b(&simulation, &[token(&[5; 16])]);
    simulation.input(0, Input::Datagram { path, octets: &octets });
    assert_eq!(counter(&simulation, 0, Counter::PeerCrashed), 1);
    assert!(simulation.nodes[0].kernel.children.is_empty());
}

#[test]
fn new_keys_have_a_new_token_and_the_old_one_is_worth_nothing() {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let renewed = |mut p: PolicySet| {
        for peer in p.peers.values_mut() {
            let peer = std::sync::Arc::make_mut(peer);
            (peer.lifetime, peer.liveness_interval) = (Duration::from_secs(300), Duration::ZERO);
        }
        p
    };
    simulation.configure(1, policies_of_b());
    simulation.configure(0, renewed(policies_of_a()));
    simulation.run(Duration::from_secs(1));
    let old = simulation.nodes[0].endpoint.status(simulation.now).ike_sas[0].clone();
    // It is rekeyed in the last tenth, and what is left of the old one goes within a minute.
    simulation.run(Duration::from_secs(400));
    assert!(counter(&simulation, 0, Counter::IkeSaRekeyed) > 0);
    assert!(simulation.has_one_child_each().unwrap());

    // The old IKE SA is gone, so that everybody can have its token; with the new SPIs it is none.
    let header = Header {
        initiator_spi: old.initiator_spi,
        responder_spi: old.responder_spi,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { response: false, version: false, initiator: true },
        message_id: MessageId(7),
    };
    let body = [0; 40];
    let sk = gateway_wire::Encrypted {
        first: gateway_wire::PayloadType::NONE,
        body: &body,
        body_offset: 0,
    };
    let octets = encode_message(&header, &[Payload::Encrypted(sk)]).unwrap();
    let path = Path { local: std::net::SocketAddr::new(B, 500), remote: old.path.local };
    simulation.input(1, Input::Datagram { path, octets: &octets });
    let given = token_in(&simulation.nodes[1].sent.last().unwrap().1).unwrap();
    let (path, octets) = from_b(&simulation, &[token(&given)]);
    simulation.input(0, Input::Datagram { path, octets: &octets });
    assert_eq!(counter(&simulation, 0, Counter::PeerCrashed), 0);
    assert_eq!(counter(&simulation, 0, Counter::CrashTokenForged), 1, "there is a new one");

    // With the keys of now B proves that it has lost them.
    simulation.crash(1, 99);
    simulation.configure(1, policies_of_b());
    simulation.configure(0, policies_of_a());
    simulation.run(Duration::from_secs(13));
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(counter(&simulation, 0, Counter::PeerDead), 0);
}

/// Whatever B asks is lost, its token too; A's goes to B with each set of keys all the same.
#[test]
fn our_token_goes_out_with_new_keys_though_the_peers_has_not_come() {
    const INFORMATIONAL: u8 = 37;
    const RESPONSE: u8 = 0x20;
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    let with = |mut p: PolicySet, lifetime: u64| {
        for peer in p.peers.values_mut() {
            let peer = std::sync::Arc::make_mut(peer);
            (peer.lifetime, peer.liveness_interval) =
                (Duration::from_secs(lifetime), Duration::ZERO);
        }
        p
    };
    simulation.configure(1, with(policies_of_b(), 3600));
    simulation.configure(0, with(policies_of_a(), 60));
    simulation.run(Duration::from_secs(1));
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let mut read = [0, 1].map(|node: usize| simulation.nodes[node].sent.len());
    while counter(&simulation, 1, Counter::IkeSaRekeyed) < 2
        || simulation.nodes[0].sent.len() > read[0]
    {
        if [0, 1].iter().all(|node| simulation.nodes[*node].sent.len() == read[*node]) {
            assert!(simulation.step(simulation.now + Duration::from_secs(60)));
        }
        for from in [0, 1] {
            let sent = simulation.nodes[from].sent.split_off(read[from]);
            simulation.nodes[from].sent.extend(sent.iter().cloned());
            read[from] += sent.len();
            for (path, octets) in sent {
                let asks = octets[18] == INFORMATIONAL && octets[19] & RESPONSE == 0;
                if from == 0 || !asks {
                    let path = Path { local: path.remote, remote: path.local };
                    simulation.input(1 - from, Input::Datagram { path, octets: &octets });
                }
            }
        }
    }

    // B asks still, and now A, which has lost everything, hears it.
    simulation.network.set_faults(Faults::default());
    simulation.crash(0, 99);
    simulation.run(Duration::from_secs(60));
    assert_eq!(counter(&simulation, 1, Counter::PeerCrashed), 1);
    assert_eq!(counter(&simulation, 1, Counter::PeerDead), 0);
}
