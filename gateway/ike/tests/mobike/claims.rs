//! What one end claims of addresses, and the other does or does not believe: under old keys, where
//! no NAT may be, of places where it must show that it is.

use super::{
    A, B, Duration, Forge, IpAddr, NAT, OTHER_A, OTHER_B, PeerConfig, SECOND, Simulation, always,
    connected, count, esp, of_both, sa, says, still_the_same, unchanged,
};
use gateway_ike::config::Renewal;
use gateway_ike::counters::Counter;
use gateway_ike::io::{Input, Path};
use gateway_ike::testing::Faults;
use gateway_wire::{ExchangeType, Message, NotifyType, Payload, PayloadType, encode_message};
use std::net::SocketAddr;

const HOUR: Duration = Duration::from_secs(3600);

/// B has new keys and A has, and B is about to delete the old ones; gives those of A.
fn old_keys() -> (Simulation, Forge) {
    let change = |node, peer| {
        let lifetime = if node == 1 { HOUR } else { Duration::ZERO };
        let liveness_interval = Duration::ZERO;
        PeerConfig { lifetime, liveness_interval, renewal: Renewal::Rekey, ..peer }
    };
    let mut simulation = connected(false, change, &[]);
    let old = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    simulation.now += HOUR;
    simulation.input(1, Input::Timeout);
    simulation.deliver(0, false);
    simulation.deliver(1, false);
    assert_eq!(count(&simulation, 1, Counter::IkeSaRekeyed), 1);
    (simulation, old)
}

/// A says under its old keys, in the request with this number, that it is somewhere.
fn says_under(old: &Forge, simulation: &mut Simulation, from: IpAddr, id: u32) {
    let header = old.header(ExchangeType::INFORMATIONAL, false, id);
    let request = old.seal(&header, &says(&[(NotifyType::UPDATE_SA_ADDRESSES, &[])])).unwrap();
    let path = Path { local: SocketAddr::new(B, 4500), remote: SocketAddr::new(from, 4500) };
    simulation.input(1, Input::Datagram { path, octets: &request });
}

#[test]
fn what_is_said_under_old_keys_counts_unless_it_is_older_than_what_is_said_under_the_new() {
    let (mut simulation, old) = old_keys();
    says_under(&old, &mut simulation, OTHER_A, 2);
    assert_eq!(sa(&simulation, 1).path.remote.ip(), OTHER_A);
    assert_eq!(esp(&simulation, 1), (B, A), "A has shown nothing yet");

    let (mut simulation, old) = old_keys();
    simulation.readdress(0, &[NAT]);
    while sa(&simulation, 1).path.remote.ip() != NAT {
        simulation.deliver(1, false);
    }
    says_under(&old, &mut simulation, OTHER_A, 2);
    assert_eq!(sa(&simulation, 1).path.remote.ip(), NAT, "that is newer");
    simulation.run(30 * SECOND);
    assert_eq!(esp(&simulation, 1), (B, NAT));
}

/// Who stands in between keeps from B that old keys are to be deleted, and one message under them,
/// until both ends have newer keys by far.
#[test]
fn what_is_said_under_keys_before_those_before_moves_nobody() {
    let lifetime = 20 * SECOND;
    let change = |node, peer| {
        let lifetime = if node == 0 { lifetime } else { Duration::ZERO };
        PeerConfig { lifetime, renewal: Renewal::Rekey, ..peer }
    };
    let mut simulation = connected(false, change, &[]);
    let old = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let old_spi = old.header(ExchangeType::INFORMATIONAL, false, 0).initiator_spi;
    let mut seen = [0, 1].map(|node| simulation.nodes[node].sent.len());
    for (rekeys, from) in [(1, OTHER_A), (2, NAT)] {
        simulation.now += lifetime;
        simulation.input(0, Input::Timeout);
        for node in [0, 1].into_iter().cycle().take(10) {
            let sent = simulation.nodes[node].sent[seen[node]..].to_vec();
            seen[node] += sent.len();
            for (path, octets) in sent {
                let header = Message::decode(&octets).unwrap().header;
                let kept_back = header.initiator_spi == old_spi
                    && header.exchange == ExchangeType::INFORMATIONAL;
                if !kept_back {
                    let path = Path { local: path.remote, remote: path.local };
                    simulation.input(1 - node, Input::Datagram { path, octets: &octets });
                }
            }
        }
        assert_eq!(count(&simulation, 1, Counter::IkeSaRekeyed), rekeys);
        // The first request under those keys was the one for the new ones.
        says_under(&old, &mut simulation, from, 2 + u32::try_from(rekeys).unwrap());
        assert_eq!(sa(&simulation, 1).path.remote.ip(), OTHER_A, "after {rekeys}");
    }
}

/// A has answered B's request for new keys and moves, and moves again before B has answered the words
/// under the old keys: B is to hear of both.
#[test]
fn what_changes_while_it_is_said_under_old_keys_is_said_again() {
    let change = |node, peer| {
        let lifetime = if node == 1 { HOUR } else { Duration::ZERO };
        let liveness_interval = Duration::ZERO;
        PeerConfig { lifetime, liveness_interval, renewal: Renewal::Rekey, ..peer }
    };
    let mut simulation = connected(false, change, &[]);
    let [at_a, at_b] = [0, 1].map(|node| Forge::of(&simulation.nodes[node].endpoint).unwrap());
    simulation.now += HOUR;
    simulation.input(1, Input::Timeout);
    simulation.deliver(0, false);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let before = simulation.nodes[0].sent.len();
    simulation.readdress(0, &[OTHER_A]);
    simulation.readdress(0, &[NAT]);
    let path = Path { local: SocketAddr::new(NAT, 4500), remote: SocketAddr::new(B, 4500) };
    let header = at_b.header(ExchangeType::INFORMATIONAL, true, 2);
    let answer = at_b.seal(&header, &[]).unwrap();
    simulation.input(0, Input::Datagram { path, octets: &answer });
    let sent = simulation.nodes[0].sent[before..].iter();
    let under_old: Vec<_> = sent
        .filter_map(|(path, octets)| {
            let opened = at_a.open(octets).filter(|o| !o.header.flags.response)?;
            let says = opened.payloads().ok()?.iter().any(
                |p| matches!(p, Payload::Notify(n) if n.kind == NotifyType::UPDATE_SA_ADDRESSES),
            );
            Some((opened.header.message_id.0, path.local.ip(), says))
        })
        .collect();
    assert_eq!(under_old, [(2, OTHER_A, true), (3, NAT, true)]);
}

/// B has heard an update by another path than the one that it was sent by first, and its answer has
/// come back by that one: where the ends send is settled by the next (RFC 4555 3.5).
#[test]
fn an_update_that_went_by_several_paths_is_said_anew() {
    let mut simulation = connected(false, unchanged, &[OTHER_B]);
    simulation.network.cut_off(B);
    simulation.readdress(0, &[OTHER_A]);
    while sa(&simulation, 1).path.remote.ip() != OTHER_A {
        assert!(
            simulation.step(simulation.now + 30 * SECOND),
            "B hears of it by its other address"
        );
    }
    assert_eq!(sa(&simulation, 1).path.local.ip(), OTHER_B);
    // Its answer is lost, and what comes next comes by the first path.
    simulation.deliver(0, true);
    simulation.network.cut_off(OTHER_B);
    simulation.network.connect(B);
    simulation.run(30 * SECOND);
    simulation.network.connect(OTHER_B);
    still_the_same(&mut simulation);
    assert_eq!(esp(&simulation, 0), (OTHER_A, B));
    assert_eq!(esp(&simulation, 1), (B, OTHER_A));
}

/// B cannot reach A for minutes, and repeats its request for new keys, which A has answered.
#[test]
fn old_keys_are_kept_as_long_as_a_peer_may_repeat_what_was_answered_under_them() {
    let change = |node, peer| {
        let lifetime = if node == 1 { HOUR } else { Duration::ZERO };
        PeerConfig { lifetime, renewal: Renewal::Rekey, ..peer }
    };
    let mut simulation = connected(false, change, &[]);
    simulation.now += HOUR;
    simulation.input(1, Input::Timeout);
    let (path, request) = simulation.nodes[1].sent.last().cloned().unwrap();
    let path = Path { local: path.remote, remote: path.local };
    simulation.deliver(0, false);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    for (seconds, expected) in [(295, 1), (10, 1)] {
        simulation.run(SECOND * seconds);
        simulation.input(0, Input::Datagram { path, octets: &request });
        assert_eq!(count(&simulation, 0, Counter::Retransmission), expected);
    }
}

#[test]
fn the_initiator_sends_esp_to_another_address_when_the_peer_has_shown_that_it_is_there() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(1, &[OTHER_B]);
    simulation.deliver(0, false);
    assert_eq!(sa(&simulation, 0).path.remote.ip(), OTHER_B, "IKE goes there at once");
    assert_eq!(esp(&simulation, 0), (A, B), "and ESP does not");
    // libreswan would not give COOKIE2 back else (RFC 4555 3.8 allows them in any request).
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let (_, check) = simulation.nodes[0].sent.last().unwrap();
    let check = at_b.open(check).unwrap();
    let check = check.payloads().unwrap();
    for kind in [
        NotifyType::COOKIE2,
        NotifyType::NAT_DETECTION_SOURCE_IP,
        NotifyType::NAT_DETECTION_DESTINATION_IP,
    ] {
        let has = |p: &Payload<'_>| matches!(p, Payload::Notify(n) if n.kind == kind);
        assert!(check.iter().any(has), "{kind:?}");
    }
    simulation.run(SECOND);
    assert_eq!(esp(&simulation, 0), (A, OTHER_B));

    // Somebody who has B's words sent from his address, and cannot read ours.
    for answer in [&[][..], &[(NotifyType::COOKIE2, &[0; 16][..])]] {
        let mut simulation = connected(false, unchanged, &[]);
        let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
        let header = at_b.header(ExchangeType::INFORMATIONAL, false, 0);
        let told = says(&[(NotifyType::NO_ADDITIONAL_ADDRESSES, &[])]);
        let told = at_b.seal(&header, &told).unwrap();
        let path = Path { local: SocketAddr::new(A, 4500), remote: SocketAddr::new(NAT, 4500) };
        simulation.input(0, Input::Datagram { path, octets: &told });
        let header = at_b.header(ExchangeType::INFORMATIONAL, true, 2);
        let answer = at_b.seal(&header, &says(answer)).unwrap();
        simulation.input(0, Input::Datagram { path, octets: &answer });
        assert_eq!(count(&simulation, 0, Counter::PathCheckFailed), 1);
        assert!(simulation.nodes[0].endpoint.is_empty());
        let moves = simulation.nodes[0].kernel.history.iter().any(|h| h.starts_with("move child"));
        assert!(!moves, "no ESP has gone there");
    }
}

#[test]
fn a_responder_waits_five_minutes_for_a_peer_that_it_cannot_reach_and_an_initiator_less() {
    for (node, least, most) in [(0, 60, 120), (1, 300, 360)] {
        let mut simulation = connected(false, unchanged, &[]);
        let other = simulation.nodes[1 - node].address;
        simulation.network.cut_off(other);
        // A word that the peer has to answer.
        simulation.readdress(node, &[[A, B][node], [OTHER_A, OTHER_B][node]]);
        let begun = simulation.now;
        while count(&simulation, node, Counter::PeerDead) == 0 {
            assert!(simulation.step(begun + HOUR), "it gives up in time");
        }
        let waited = (simulation.now - begun).as_secs();
        assert!((least..most).contains(&waited), "node {node}: {waited} s");
    }
}

/// The unprotected message without what says that its sender does NAT traversal.
fn without_nat_detection(datagram: &[u8]) -> Vec<u8> {
    let mut message = Message::decode(datagram).unwrap();
    message.payloads.retain(|payload| {
        let kinds = [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP];
        !matches!(payload, Payload::Notify(n) if kinds.contains(&n.kind))
    });
    encode_message(&message.header, &message.payloads).unwrap()
}

/// A has sent IKE_AUTH to B; gives by which path, and the message. What comes first for A from B is
/// changed.
fn auth_of_a(change: fn(&[u8]) -> Vec<u8>) -> (Simulation, Path, Vec<u8>) {
    let lossy = Faults { loss: 100, ..Faults::default() };
    let mut simulation = Simulation::new(&[A, B], lossy, 1);
    for (node, policies) in of_both(unchanged).into_iter().enumerate().rev() {
        simulation.configure(node, if node == 0 { always(policies) } else { policies });
    }
    let (path, request) = simulation.nodes[0].sent[0].clone();
    let there = Path { local: path.remote, remote: path.local };
    simulation.input(1, Input::Datagram { path: there, octets: &request });
    let answer = change(&simulation.nodes[1].sent[0].1);
    simulation.input(0, Input::Datagram { path, octets: &answer });
    let (path, auth) = simulation.nodes[0].sent.last().unwrap().clone();
    (simulation, path, auth)
}

#[test]
fn to_a_peer_without_nat_traversal_ike_stays_on_500_and_no_nat_may_be_in_between() {
    let (simulation, path, auth) = auth_of_a(without_nat_detection);
    assert_eq!((path.local.port(), path.remote.port()), (500, 500));
    let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let opened = at_a.open(&auth).unwrap();
    let payloads = opened.payloads().unwrap();
    let said = |kind| {
        let mut notifies = payloads.iter().filter_map(|payload| {
            if let Payload::Notify(notify) = payload { Some(notify) } else { None }
        });
        notifies.find(|notify| notify.kind == kind).map(|n| n.data.to_vec())
    };
    assert_eq!(said(NotifyType::MOBIKE_SUPPORTED), Some(Vec::new()));
    let ends = [192, 0, 2, 1, 192, 0, 2, 2, 1, 0xf4, 1, 0xf4];
    assert_eq!(said(NotifyType::NO_NATS_ALLOWED), Some(ends.to_vec()));

    let (simulation, path, auth) = auth_of_a(<[u8]>::to_vec);
    assert_eq!((path.local.port(), path.remote.port()), (4500, 4500));
    let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let opened = at_a.open(&auth).unwrap();
    let forbids = |payload: &Payload<'_>| matches!(payload, Payload::Notify(n) if n.kind == NotifyType::NO_NATS_ALLOWED);
    assert!(!opened.payloads().unwrap().iter().any(forbids), "NAT traversal copes");
}

#[test]
fn an_initiator_that_allows_no_nat_is_refused_through_one() {
    for (last, refused) in [(1, false), (9, true)] {
        let (mut simulation, path, auth) = auth_of_a(<[u8]>::to_vec);
        let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
        let opened = at_a.open(&auth).unwrap();
        let mut payloads = opened.payloads().unwrap();
        let ends = [192, 0, 2, last, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
        payloads.extend(says(&[(NotifyType::NO_NATS_ALLOWED, &ends)]));
        let auth = at_a.seal(&opened.header, &payloads).unwrap();
        let there = Path { local: path.remote, remote: path.local };
        simulation.input(1, Input::Datagram { path: there, octets: &auth });
        assert_eq!(count(&simulation, 1, Counter::NatUnexpected), u64::from(refused));
        assert_eq!(count(&simulation, 1, Counter::IkeSaEstablished), u64::from(!refused));
        let answer = simulation.nodes[1].sent.last().unwrap().1.clone();
        let answer = at_a.open(&answer).unwrap();
        let kinds: Vec<_> = answer
            .payloads()
            .unwrap()
            .iter()
            .filter_map(|p| if let Payload::Notify(n) = p { Some(n.kind) } else { None })
            .collect();
        assert_eq!(kinds.contains(&NotifyType::UNEXPECTED_NAT_DETECTED), refused);
    }
}

#[test]
fn what_stands_in_mobike_supported_is_ignored() {
    let (mut simulation, path, auth) = auth_of_a(<[u8]>::to_vec);
    let at_a = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let opened = at_a.open(&auth).unwrap();
    let mut payloads = opened.payloads().unwrap();
    for payload in &mut payloads {
        if let Payload::Notify(notify) = payload
            && notify.kind == NotifyType::MOBIKE_SUPPORTED
        {
            notify.data = b"of a later version";
        }
    }
    let auth = at_a.seal(&opened.header, &payloads).unwrap();
    let there = Path { local: path.remote, remote: path.local };
    simulation.input(1, Input::Datagram { path: there, octets: &auth });
    assert_eq!(sa(&simulation, 1).mobike, Some(Vec::new()));
}

#[test]
fn an_initiator_that_has_met_a_nat_begins_anew() {
    let (mut simulation, path, _) = auth_of_a(<[u8]>::to_vec);
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let header = at_b.header(ExchangeType::IKE_AUTH, true, 1);
    let met = says(&[(NotifyType::UNEXPECTED_NAT_DETECTED, &[])]);
    let answer = at_b.seal(&header, &met).unwrap();
    let before = simulation.nodes[0].sent.len();
    simulation.input(0, Input::Datagram { path, octets: &answer });
    simulation.run(60 * SECOND);
    let begun = simulation.nodes[0].sent[before..].iter().filter(|(_, octets)| {
        Message::decode(octets).is_ok_and(|m| m.header.exchange == ExchangeType::IKE_SA_INIT)
    });
    assert!(begun.count() > 0, "another IKE SA is begun");
    assert_eq!(count(&simulation, 0, Counter::IkeSaEstablished), 0);
}

#[test]
fn what_is_said_from_several_addresses_is_said_anew() {
    let mut simulation = connected(false, unchanged, &[]);
    let requests = |simulation: &Simulation| {
        let sent = simulation.nodes[1].sent.iter();
        let headers = sent.filter_map(|(path, octets)| {
            let header = Message::decode(octets).ok()?.header;
            (!header.flags.response).then_some((header.message_id.0, path.local.ip()))
        });
        headers.collect::<Vec<_>>()
    };
    // Nobody hears the first.
    simulation.readdress(1, &[B, OTHER_B]);
    simulation.deliver(0, true);
    simulation.readdress(1, &[OTHER_B]);
    simulation.run(30 * SECOND);
    let requests = requests(&simulation);
    assert_eq!(requests[..2], [(0, B), (0, OTHER_B)], "{requests:?}");
    assert!(requests.contains(&(1, OTHER_B)), "{requests:?}");
    assert_eq!(sa(&simulation, 0).path.remote.ip(), OTHER_B);
    let left = sa(&simulation, 0).mobike;
    assert_eq!(left, Some(Vec::new()), "that is what the second one says");
}

#[test]
fn each_cookie2_is_another_one_of_sixteen_octets() {
    let mut simulation = connected(false, unchanged, &[]);
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let mut cookies = std::collections::BTreeSet::new();
    for address in [OTHER_A, NAT, OTHER_A] {
        simulation.readdress(0, &[address]);
        simulation.run(SECOND);
    }
    for (_, octets) in &simulation.nodes[1].sent {
        let Some(opened) = at_b.open(octets).filter(|o| !o.header.flags.response) else { continue };
        for payload in opened.payloads().unwrap() {
            if let Payload::Notify(notify) = payload
                && notify.kind == NotifyType::COOKIE2
            {
                assert_eq!(notify.data.len(), 16);
                assert!(cookies.insert(notify.data.to_vec()), "it has come twice");
            }
        }
    }
    assert_eq!(cookies.len(), 3);
}

#[test]
fn an_update_that_met_a_nat_is_said_again_some_times_and_then_the_ike_sa_ends() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.readdress(0, &[OTHER_A]);
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let path = Path { local: SocketAddr::new(OTHER_A, 4500), remote: SocketAddr::new(B, 4500) };
    let mut asked = 0;
    while sa_stands(&simulation) {
        let header = at_b.header(ExchangeType::INFORMATIONAL, true, 2 + asked);
        let met = says(&[(NotifyType::UNEXPECTED_NAT_DETECTED, &[])]);
        let answer = at_b.seal(&header, &met).unwrap();
        simulation.input(0, Input::Datagram { path, octets: &answer });
        asked += 1;
        assert!(asked < 20, "it is no use");
    }
    assert_eq!(asked, 7, "as often as any request is repeated");
    assert_eq!(count(&simulation, 0, Counter::AddressRefused), 1);
}

/// RFC 7296 3.10.1: an error is one, whether we know it or not; and what cannot be read is none of the
/// answers that there are.
#[test]
fn an_update_that_is_answered_by_any_error_or_by_nonsense_moves_nothing() {
    let unknown = NotifyType(1234);
    assert!(unknown.is_error());
    let error = says(&[(unknown, &[])]);
    let at_b = |simulation: &Simulation| Forge::of(&simulation.nodes[1].endpoint).unwrap();
    for (nonsense, counter) in [(false, Counter::AddressRefused), (true, Counter::InvalidMessage)] {
        let mut simulation = connected(false, unchanged, &[]);
        let forge = at_b(&simulation);
        simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
        simulation.readdress(0, &[OTHER_A]);
        let moves = |simulation: &Simulation| {
            let history = simulation.nodes[0].kernel.history.iter();
            history.filter(|h| h.starts_with("move child")).count()
        };
        let before = moves(&simulation);
        let header = forge.header(ExchangeType::INFORMATIONAL, true, 2);
        let answer = if nonsense {
            // A Notify payload that is longer than the message.
            forge.seal_octets(&header, PayloadType::NOTIFY, &[0, 0, 0, 99, 0, 0, 64, 4])
        } else {
            forge.seal(&header, &error)
        };
        let path = Path { local: SocketAddr::new(OTHER_A, 4500), remote: SocketAddr::new(B, 4500) };
        simulation.input(0, Input::Datagram { path, octets: &answer.unwrap() });
        assert_eq!(count(&simulation, 0, counter), 1);
        assert!(!sa_stands(&simulation), "the two ends are out of step");
        assert_eq!(moves(&simulation), before);
    }
}

#[test]
fn an_address_that_is_gone_without_another_is_told_once() {
    let mut simulation = connected(false, unchanged, &[]);
    simulation.readdress(0, &["2001:db8::7".parse().unwrap()]);
    simulation.run(10 * SECOND);
    assert_eq!(count(&simulation, 0, Counter::AddressLost), 1);
    let told = simulation.nodes[0].events.iter().map(ToString::to_string);
    let told: Vec<_> = told.filter(|event| event.contains("no other leads to")).collect();
    assert_eq!(
        told,
        ["Our address 192.0.2.1 is gone, and no other leads to 192.0.2.2: looking for one"]
    );
    simulation.readdress(0, &[OTHER_A]);
    simulation.run(30 * SECOND);
    still_the_same(&mut simulation);
}

fn sa_stands(simulation: &Simulation) -> bool {
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    status.ike_sas.iter().any(|sa| sa.state == "established")
}
