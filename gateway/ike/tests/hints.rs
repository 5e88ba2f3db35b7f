//! ESP comes from elsewhere than before, and nobody has authenticated it: the peer is asked there.
//! What it answers moves the SAs, and nothing else does (RFC 7296 2.23, RFC 4555 3.8).
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "This is test code."
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gateway_ike::config::{PeerConfig, Start};
use gateway_ike::counters::Counter;
use gateway_ike::io::{Input, KernelEvent, Path};
use gateway_ike::testing::{Faults, Forge, Simulation, peer, policies, protect};
use gateway_wire::{ExchangeType, Notify, NotifyType, Payload, ProtocolId};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const OTHER_NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest datagram that may go where only ESP has come from.
const SMALL: usize = 512;

/// What B asks whether A lives after; A asks nothing by itself.
#[derive(Clone, Copy)]
struct Setting {
    nat: bool,
    mobike: bool,
    liveness_of_b: Duration,
}

const BEHIND_NAT: Setting = Setting { nat: true, mobike: false, liveness_of_b: Duration::ZERO };
const MOBIKE: Setting = Setting { mobike: true, ..BEHIND_NAT };

/// A and B with a Child SA that A has begun.
fn connected(setting: Setting) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    if setting.nat {
        simulation.network.translate(A, NAT);
    }
    simulation.readdress(0, &[A]);
    simulation.readdress(1, &[B]);
    let change = |liveness_interval, peer| PeerConfig {
        mobike: setting.mobike,
        liveness_interval,
        lifetime: Duration::ZERO,
        ..peer
    };
    let (a_net, b_net) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let to_a = change(setting.liveness_of_b, peer("a", "b.test", "a.test", None));
    let rule = protect("to-a", "a", b_net, a_net, Start::Respond);
    simulation.configure(1, policies(vec![to_a], vec![rule]));
    let to_b = change(Duration::ZERO, peer("b", "a.test", "b.test", Some(B)));
    let rule = protect("to-b", "b", a_net, b_net, Start::OnDemand);
    simulation.configure(0, policies(vec![to_b], vec![rule]));
    simulation.acquire(0, "to-b");
    simulation.run(SECOND);
    assert_eq!(simulation.exchange_traffic(), []);
    simulation
}

fn path_of(simulation: &Simulation, node: usize) -> Path {
    simulation.nodes[node].endpoint.status(simulation.now).ike_sas[0].path
}

fn count(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

/// A copy of A's ESP comes to B from a stranger.
fn spoof(simulation: &mut Simulation, port: u16) {
    let spi = simulation.nodes[1].kernel.children.values().next().unwrap().inbound.spi;
    let from = SocketAddr::new(STRANGER.into(), port);
    simulation.input(1, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
}

/// What a node has sent to the stranger: octets.
fn to_stranger(simulation: &Simulation, node: usize) -> Vec<usize> {
    let sent = simulation.nodes[node].sent.iter();
    sent.filter(|(path, _)| path.remote.ip() == STRANGER).map(|(_, o)| o.len()).collect()
}

/// The SAs are those of the beginning.
fn kept(simulation: &Simulation) {
    for node in 0..2 {
        for counter in [Counter::IkeSaEstablished, Counter::ChildSaInstalled] {
            assert_eq!(count(simulation, node, counter), 1, "{counter:?} of node {node}");
        }
        assert_eq!(simulation.nodes[node].kernel.children.len(), 1, "of node {node}");
    }
}

#[test]
fn a_true_rebinding_is_followed_by_the_answer_from_there() {
    for setting in [BEHIND_NAT, MOBIKE] {
        for outside in [None, Some(OTHER_NAT)] {
            let mut simulation = connected(setting);
            simulation.network.rebind(outside);
            assert_eq!(simulation.exchange_traffic().len(), 1, "B sends to the old mapping");
            let before = path_of(&simulation, 1);
            let seen = simulation.tell_source(0).unwrap();
            assert_eq!(path_of(&simulation, 1), before, "the hint alone moves nothing");
            simulation.run(Duration::from_millis(200));
            assert_eq!(path_of(&simulation, 1).remote, seen);
            assert_eq!(simulation.exchange_traffic(), []);
            kept(&simulation);
            assert_eq!(count(&simulation, 1, Counter::EspSourceChanged), 1);
            assert_eq!(count(&simulation, 1, Counter::EspSourceProbed), 1);
            assert_eq!(count(&simulation, 1, Counter::PathChanged), 1);
            simulation.run(HOUR);
            assert_eq!(count(&simulation, 1, Counter::EspSourceProbed), 1, "it is settled");
            assert_eq!(count(&simulation, 1, Counter::EspSourceUnanswered), 0);
            let events = &simulation.nodes[1].events;
            assert!(events.iter().any(|e| e.to_string().contains("asking the peer there")));
        }
    }
}

#[test]
fn a_copy_from_elsewhere_moves_nothing_and_gets_one_small_datagram() {
    for setting in [BEHIND_NAT, MOBIKE] {
        let mut simulation = connected(setting);
        let before = path_of(&simulation, 1);
        spoof(&mut simulation, 4500);
        simulation.run(HOUR);
        assert_eq!(path_of(&simulation, 1), before);
        let [length] = to_stranger(&simulation, 1)[..] else { panic!("not one datagram") };
        assert!(length <= SMALL, "{length} octets");
        assert_eq!(count(&simulation, 1, Counter::EspSourceUnanswered), 1);
        assert_eq!(count(&simulation, 1, Counter::PathChanged), 0);
        assert_eq!(simulation.exchange_traffic(), []);
        kept(&simulation);
    }
}

/// Lets time pass, with a copy of ESP from another port of the stranger at each tenth of a second.
/// Gives when a node has sent to the stranger.
fn under_attack(simulation: &mut Simulation, time: Duration) -> Vec<Instant> {
    let end = simulation.now + time;
    let (mut sent, mut port) = (Vec::new(), 1);
    while simulation.now < end {
        port += 1;
        let before = to_stranger(simulation, 1).len();
        spoof(simulation, port);
        let at = |simulation: &Simulation| simulation.now;
        let spoofed = at(simulation);
        let more = to_stranger(simulation, 1).len() - before;
        sent.extend(std::iter::repeat_n(spoofed, more));
        let limit = simulation.now + Duration::from_millis(100);
        loop {
            let before = to_stranger(simulation, 1).len();
            let went_on = simulation.step(limit);
            let more = to_stranger(simulation, 1).len() - before;
            sent.extend(std::iter::repeat_n(at(simulation), more));
            if !went_on {
                break;
            }
        }
    }
    sent
}

#[test]
fn however_many_copies_come_strangers_get_one_datagram_a_second() {
    for setting in [BEHIND_NAT, MOBIKE] {
        let mut simulation = connected(setting);
        let sent = under_attack(&mut simulation, Duration::from_secs(60));
        assert!(sent.len() > 10, "{} were sent", sent.len());
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{sent:?}");
        assert!(to_stranger(&simulation, 1).iter().all(|length| *length <= SMALL));
        assert_eq!(simulation.exchange_traffic(), []);
        // Beside all these a true one is found still, a second later at most.
        simulation.network.rebind(None);
        let seen = simulation.tell_source(0).unwrap();
        simulation.run(Duration::from_millis(1_200));
        assert_eq!(path_of(&simulation, 1).remote, seen);
        assert_eq!(simulation.exchange_traffic(), []);
        kept(&simulation);
    }
}

#[test]
fn a_peer_is_not_given_up_for_what_a_hint_has_asked() {
    let mut simulation = connected(BEHIND_NAT);
    simulation.network.cut_off(A);
    spoof(&mut simulation, 4500);
    simulation.run(HOUR);
    assert_eq!(count(&simulation, 1, Counter::PeerDead), 0);
    let asked = simulation.nodes[1].sent.len();
    assert!(asked < 30, "{asked} datagrams");
    simulation.run(HOUR);
    assert_eq!(simulation.nodes[1].sent.len(), asked, "it rests");
    simulation.network.connect(A);
    assert_eq!(simulation.exchange_traffic(), []);
    kept(&simulation);
    // What is to be said next goes its way, behind the question.
    let child = *simulation.nodes[1].kernel.children.keys().next().unwrap();
    simulation.input(1, Input::Kernel(KernelEvent::Vanished { child }));
    simulation.run(SECOND * 2);
    assert!(simulation.nodes.iter().all(|node| node.kernel.children.is_empty()));
    assert_eq!(count(&simulation, 1, Counter::PeerDead), 0);
}

#[test]
fn who_asks_whether_a_peer_lives_finds_out_that_it_does_not_hints_or_none() {
    let setting = Setting { liveness_of_b: SECOND * 30, ..BEHIND_NAT };
    let given_up_after = |hints: bool| {
        let mut simulation = connected(setting);
        simulation.network.cut_off(A);
        let begun = simulation.now;
        while count(&simulation, 1, Counter::PeerDead) == 0 {
            if hints {
                spoof(&mut simulation, 4500);
            }
            simulation.run(SECOND);
            assert!(simulation.now < begun + HOUR, "never given up");
        }
        simulation.now - begun
    };
    let (without, with) = (given_up_after(false), given_up_after(true));
    assert!(with >= without, "hints have cut its time short: {with:?}, not {without:?}");
    assert!(with <= without + SECOND * 60, "{with:?} instead of {without:?}");
}

#[test]
fn a_closing_ike_sa_says_goodbye_behind_a_question_that_rests() {
    let mut simulation = connected(BEHIND_NAT);
    simulation.network.cut_off(A);
    spoof(&mut simulation, 4500);
    simulation.run(HOUR);
    simulation.network.connect(A);
    simulation.input(1, Input::Shutdown);
    simulation.run(SECOND * 2);
    assert!(simulation.nodes[1].endpoint.is_closed());
    assert!(simulation.nodes[0].kernel.children.is_empty(), "A has heard");
}

#[test]
fn a_question_or_its_answer_may_be_lost() {
    for lost in [1, 0] {
        let mut simulation = connected(BEHIND_NAT);
        simulation.network.rebind(None);
        let seen = simulation.tell_source(0).unwrap();
        if lost == 0 {
            // The question: the copy to the old mapping is lost anyway.
            simulation.network.cut_off(A);
            simulation.run(Duration::from_millis(500));
            simulation.network.connect(A);
        } else {
            simulation.run(Duration::from_millis(17));
            simulation.deliver(lost, true);
        }
        simulation.run(Duration::from_millis(1_500));
        assert_eq!(path_of(&simulation, 1).remote, seen);
        assert_eq!(simulation.exchange_traffic(), []);
        kept(&simulation);
    }
}

#[test]
fn a_request_that_is_under_way_is_sent_there_too() {
    for setting in [BEHIND_NAT, MOBIKE] {
        let mut simulation = connected(setting);
        simulation.network.rebind(None);
        // B asks for a successor of the Child SA, where A is no more.
        let child = simulation.nodes[1].kernel.children.values().next().unwrap();
        let (spi, destination) = (child.inbound.spi, child.inbound.destination);
        let event = KernelEvent::Expire { spi, destination, hard: false };
        simulation.input(1, Input::Kernel(event));
        simulation.run(Duration::from_millis(100));
        let seen = simulation.tell_source(0).unwrap();
        simulation.run(Duration::from_millis(500));
        assert_eq!(path_of(&simulation, 1).remote, seen);
        assert_eq!(simulation.exchange_traffic(), []);
        assert_eq!(count(&simulation, 1, Counter::ChildSaRekeyed), 1);
        assert_eq!(count(&simulation, 1, Counter::PeerDead), 0);
    }
}

/// A says that it is where somebody else is, and has ESP come from where it can read what B asks.
#[test]
fn what_proves_an_address_goes_nowhere_else() {
    let mut simulation = connected(MOBIKE);
    let (before, victim) = (simulation.nodes[1].sent.len(), SocketAddr::new(OTHER_NAT, 4500));
    let a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let update = Notify {
        protocol: ProtocolId::NONE,
        spi: &[],
        kind: NotifyType::UPDATE_SA_ADDRESSES,
        data: &[],
    };
    let header = a.header(ExchangeType::INFORMATIONAL, false, 2);
    let octets = a.seal(&header, &[Payload::Notify(update)]).unwrap();
    let path = Path { local: SocketAddr::new(B, 4500), remote: victim };
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.input(1, Input::Datagram { path, octets: &octets });
    for port in 1..10 {
        spoof(&mut simulation, port);
        simulation.run(SECOND);
    }
    assert_eq!(to_stranger(&simulation, 1), [0; 0]);
    let sent = simulation.nodes[1].sent[before..].iter();
    let to_victim = sent.filter(|(path, _)| path.remote == victim).count();
    assert!(to_victim > 2, "the answer, and the question more than once: {to_victim}");
    assert_eq!(count(&simulation, 1, Counter::EspSourceChanged), 9);
    assert_eq!(count(&simulation, 1, Counter::PathChanged), 1, "that of IKE");
    let outbound = &simulation.nodes[1].kernel.children.values().next().unwrap().outbound;
    assert_eq!(outbound.destination, NAT);
}

#[test]
fn who_may_not_follow_asks_nobody() {
    let no_nat = Setting { nat: false, ..BEHIND_NAT };
    for (setting, node) in [(BEHIND_NAT, 0), (MOBIKE, 0), (no_nat, 0), (no_nat, 1)] {
        let mut simulation = connected(setting);
        let before = (path_of(&simulation, node), simulation.nodes[node].sent.len());
        let spi = simulation.nodes[node].kernel.children.values().next().unwrap().inbound.spi;
        for from in ["203.0.113.9:4500", "203.0.113.9:0", "[2001:db8::9]:4500"] {
            let from = from.parse().unwrap();
            simulation.input(node, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
        }
        simulation.run(HOUR);
        let after = (path_of(&simulation, node), simulation.nodes[node].sent.len());
        assert_eq!(after, before);
        assert_eq!(count(&simulation, node, Counter::EspSourceChanged), 3);
        assert_eq!(simulation.exchange_traffic(), []);
    }
}

#[test]
fn esp_from_where_the_peer_is_asks_nothing() {
    let mut simulation = connected(BEHIND_NAT);
    let sent = simulation.nodes[1].sent.len();
    assert_eq!(simulation.tell_source(0), Some(path_of(&simulation, 1).remote));
    // Bare, it has no port of its own.
    let spi = simulation.nodes[1].kernel.children.values().next().unwrap().inbound.spi;
    let from = SocketAddr::new(NAT, 0);
    simulation.input(1, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
    // Nor does that of another family.
    let from = "[2001:db8::9]:4500".parse().unwrap();
    simulation.input(1, Input::Kernel(KernelEvent::PeerMoved { spi, from }));
    simulation.run(SECOND * 10);
    assert_eq!(simulation.nodes[1].sent.len(), sent);
}
