//! ESP to an address of ours with an SPI that no SA of ours has, by test-run: when it is dropped, what
//! is counted, and what the daemon is told.
#![expect(clippy::unwrap_used, reason = "This is test code.")]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use core::iter::from_fn;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::thread;

use bpf::{
    MARK, Outcome, TC_NEXT, TEST_RUN, XDP_DROP, XDP_PASS, isolated, serve_at, through_tc,
    through_xdp,
};
use gateway::kernel::bpf::{DataPath, EspEvent, EspSource, Sa, SaDirection, UnknownEsp};
use gateway_common::{Reason, program};
use gateway_tests::packet::{ESP, Ip, UDP, esp, tagged, udp};

const SPI: u32 = 0xc123_4567;
const PORT: u16 = 31_000;

/// The peer, us, where else we are, and where somebody else is.
const ENDS: [[&str; 4]; 2] = [
    ["192.0.2.2", "192.0.2.1", "198.51.100.1", "192.0.2.9"],
    ["2001:db8::2", "2001:db8::1", "2001:db8:7::1", "2001:db8::9"],
];

const ALL: UnknownEsp = UnknownEsp { bare: true, in_udp: true };
/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);

/// Loads the programs, which know our addresses.
fn with_programs(test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let ours: Vec<_> = ENDS.iter().flat_map(|[_, us, also_us, _]| [*us, *also_us]).collect();
        serve_at(&mut data_path, TEST_RUN, &ours);
        test(&mut data_path);
    });
}

/// ESP from the peer to an address, in UDP or bare.
fn packet(peer: &str, to: &str, in_udp: bool, spi: u32) -> Vec<u8> {
    let esp = esp(spi, 40);
    if in_udp {
        Ip::new(peer, to, UDP).packet(&udp(PORT, 4500, &esp))
    } else {
        Ip::new(peer, to, ESP).packet(&esp)
    }
}

fn passed(frame: &[u8], reason: Option<Reason>) -> Outcome {
    let counted = reason.into_iter().map(|reason| (reason, 1)).collect();
    Outcome { verdict: XDP_PASS, packet: frame.to_vec(), counted }
}

fn dropped(frame: &[u8], in_udp: bool) -> Outcome {
    let reason = if in_udp { Reason::UnknownSpiDropped } else { Reason::BareUnknownSpiDropped };
    Outcome { verdict: XDP_DROP, packet: frame.to_vec(), counted: vec![(reason, 1)] }
}

const fn passes(in_udp: bool) -> Reason {
    if in_udp { Reason::UnknownSpi } else { Reason::BareUnknownSpi }
}

fn told(data_path: &DataPath) -> Vec<EspEvent> {
    let mut events = data_path.esp_events().unwrap();
    from_fn(|| events.take()).collect()
}

#[test]
fn it_is_dropped_at_each_address_of_ours_under_any_tag_and_told_of() {
    with_programs(|data_path| {
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        let mut expected = Vec::new();
        for [peer, us, also_us, _] in ENDS {
            for in_udp in [false, true] {
                for (to, tags) in [(us, &[][..]), (also_us, &[0x8100])] {
                    let frame = tagged(tags, &packet(peer, to, in_udp, SPI));
                    let outcome = through_xdp(data_path, &frame);
                    assert_eq!(outcome, dropped(&frame, in_udp), "{to} {in_udp}");
                    let port = if in_udp { PORT } else { 0 };
                    expected.push(EspEvent::Unknown(EspSource {
                        destination: to.parse().unwrap(),
                        spi: SPI,
                        source: SocketAddr::new(peer.parse().unwrap(), port),
                    }));
                }
            }
        }
        // Four at once, and then one a second, of all together.
        let at_once = told(data_path);
        assert_eq!(at_once.get(..4), expected.get(..4));
        assert!(at_once.len() < expected.len(), "{at_once:?}");
        thread::sleep(Duration::from_millis(1_010));
        for _ in 0..3 {
            let [[peer, us, ..], _] = ENDS;
            through_xdp(data_path, &tagged(&[], &packet(peer, us, true, SPI)));
        }
        let later = told(data_path);
        assert!((1..3).contains(&later.len()), "{later:?}");
    });
}

#[test]
fn it_passes_as_long_as_nobody_says_otherwise_and_when_that_is_over() {
    with_programs(|data_path| {
        let runs = |data_path: &mut DataPath, drops: [bool; 2]| {
            for [peer, us, ..] in ENDS {
                for (in_udp, is_dropped) in [false, true].into_iter().zip(drops) {
                    let frame = tagged(&[], &packet(peer, us, in_udp, SPI));
                    let expected = if is_dropped {
                        dropped(&frame, in_udp)
                    } else {
                        passed(&frame, Some(passes(in_udp)))
                    };
                    assert_eq!(through_xdp(data_path, &frame), expected, "{us} {in_udp}");
                }
            }
        };
        runs(data_path, [false, false]);
        assert_eq!(told(data_path), []);
        data_path.drop_unknown_esp(UnknownEsp { bare: false, in_udp: true }, LONG).unwrap();
        runs(data_path, [false, true]);
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        runs(data_path, [true, true]);
        data_path.drop_unknown_esp(UnknownEsp::default(), LONG).unwrap();
        runs(data_path, [false, false]);
        data_path.drop_unknown_esp(ALL, Duration::from_millis(1)).unwrap();
        thread::sleep(Duration::from_millis(5));
        runs(data_path, [false, false]);
    });
}

#[test]
fn what_is_to_others_or_may_be_of_an_sa_passes() {
    with_programs(|data_path| {
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        for [peer, us, _, other] in ENDS {
            let bare = tagged(&[], &packet(peer, other, false, SPI));
            assert_eq!(through_xdp(data_path, &bare), passed(&bare, None));
            let in_udp = tagged(&[], &packet(peer, other, true, SPI));
            let expected = passed(&in_udp, Some(Reason::UnknownSpi));
            assert_eq!(through_xdp(data_path, &in_udp), expected);
            // A datagram that does not show its SPI.
            let short = Ip::new(peer, us, ESP).packet(&[0xc1, 0x23, 0x45]);
            let short = tagged(&[], &short);
            assert_eq!(through_xdp(data_path, &short), passed(&short, None));
            // Of a fragment the others do not show it either.
            if us.contains('.') {
                let first = Ip::new(peer, us, ESP).fragment(0, true).packet(&esp(SPI, 40));
                let first = tagged(&[], &first);
                assert_eq!(through_xdp(data_path, &first), passed(&first, None));
                let whole = udp(PORT, 4500, &esp(SPI, 40));
                let first = tagged(&[], &Ip::new(peer, us, UDP).fragment(0, true).packet(&whole));
                let expected = passed(&first, Some(Reason::OuterFragment));
                assert_eq!(through_xdp(data_path, &first), expected);
            }
        }
        assert_eq!(told(data_path), []);
    });
}

#[test]
fn only_the_spis_of_inbound_sas_are_known() {
    with_programs(|data_path| {
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        for [peer, us, also_us, _] in ENDS {
            let destination: IpAddr = us.parse().unwrap();
            let port_of = |in_udp| if in_udp { PORT } else { 0 };
            for in_udp in [false, true] {
                let from = SocketAddr::new(peer.parse().unwrap(), port_of(in_udp));
                let direction = SaDirection::Inbound { strip: true, from };
                data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
                let frame = tagged(&[], &packet(peer, us, in_udp, SPI));
                let outcome = through_xdp(data_path, &frame);
                let counted: &[_] = if in_udp { &[(Reason::Stripped, 1)] } else { &[] };
                assert_eq!((outcome.verdict, outcome.counted.as_slice()), (XDP_PASS, counted));
                // It is not at the other address.
                let elsewhere = tagged(&[], &packet(peer, also_us, in_udp, SPI));
                let expected = dropped(&elsewhere, in_udp);
                assert_eq!(through_xdp(data_path, &elsewhere), expected);
                let direction = SaDirection::Outbound;
                data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
                assert_eq!(through_xdp(data_path, &frame), dropped(&frame, in_udp));
                assert!(data_path.remove_sa(destination, SPI).unwrap());
                assert_eq!(through_xdp(data_path, &frame), dropped(&frame, in_udp));
            }
        }
    });
}

#[test]
fn what_a_peer_may_send_before_its_sa_is_there_passes() {
    with_programs(|data_path| {
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        for [peer, us, ..] in ENDS {
            let destination: IpAddr = us.parse().unwrap();
            let frames = [false, true].map(|in_udp| tagged(&[], &packet(peer, us, in_udp, SPI)));
            data_path.await_sa(destination, SPI).unwrap();
            data_path.await_sa(destination, SPI).unwrap();
            let awaited = Sa { destination, spi: SPI, direction: SaDirection::Awaited };
            assert!(data_path.sas().unwrap().contains(&awaited));
            for frame in &frames {
                assert_eq!(through_xdp(data_path, frame), passed(frame, Some(Reason::Awaited)));
            }
            data_path.await_no_more(destination, SPI).unwrap();
            data_path.await_no_more(destination, SPI).unwrap();
            for (frame, in_udp) in frames.iter().zip([false, true]) {
                assert_eq!(through_xdp(data_path, frame), dropped(frame, in_udp));
            }
            // An SA takes its place, and stays whatever is said of waiting for it.
            data_path.await_sa(destination, SPI).unwrap();
            let from = SocketAddr::new(peer.parse().unwrap(), 0);
            let sa =
                Sa { destination, spi: SPI, direction: SaDirection::Inbound { strip: true, from } };
            data_path.insert_sa(&sa).unwrap();
            data_path.await_sa(destination, SPI).unwrap();
            data_path.await_no_more(destination, SPI).unwrap();
            assert!(data_path.sas().unwrap().contains(&sa));
            assert!(data_path.remove_sa(destination, SPI).unwrap());
        }
    });
}

/// ESP and IKE of others, which leave by TC egress; and what is none, or ours.
#[test]
fn what_answers_the_ike_and_esp_of_others_passes() {
    with_programs(|data_path| {
        data_path.drop_unknown_esp(ALL, LONG).unwrap();
        for [peer, us, _, other] in ENDS {
            let frames = [false, true].map(|in_udp| tagged(&[], &packet(peer, us, in_udp, SPI)));
            let drops = |data_path: &mut DataPath| {
                for (frame, in_udp) in frames.iter().zip([false, true]) {
                    assert_eq!(through_xdp(data_path, frame), dropped(frame, in_udp));
                }
            };
            let leaves = |data_path: &mut DataPath, packet: &[u8], mark| {
                let name = program::STEER_EGRESS;
                through_tc(data_path, name, &tagged(&[], packet), mark).verdict
            };
            drops(data_path);
            // Ours, by their mark or by the SA.
            let ike = Ip::new(us, peer, UDP).packet(&udp(500, 500, &[7; 28]));
            let bare = Ip::new(us, peer, ESP).packet(&esp(SPI, 40));
            assert_eq!(leaves(data_path, &ike, MARK), TC_NEXT);
            assert_eq!(leaves(data_path, &bare, MARK), TC_NEXT);
            let destination = peer.parse().unwrap();
            let direction = SaDirection::Outbound;
            data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
            assert_eq!(leaves(data_path, &bare, 0), TC_NEXT);
            assert!(data_path.remove_sa(destination, SPI).unwrap());
            // Neither IKE nor ESP, or to somebody else.
            let dns = Ip::new(us, peer, UDP).packet(&udp(40_000, 500, &[7; 28]));
            assert_eq!(leaves(data_path, &dns, 0), TC_NEXT);
            let elsewhere = Ip::new(us, other, UDP).packet(&udp(500, 500, &[7; 28]));
            assert_eq!(leaves(data_path, &elsewhere, 0), TC_NEXT);
            // Of somebody behind us, by his own address.
            let forwarded = Ip::new(other, peer, UDP).packet(&udp(500, 500, &[7; 28]));
            assert_eq!(leaves(data_path, &forwarded, 0), TC_NEXT);
            drops(data_path);
            assert_eq!(leaves(data_path, &ike, 0), TC_NEXT);
            for (frame, in_udp) in frames.iter().zip([false, true]) {
                assert_eq!(through_xdp(data_path, frame), passed(frame, Some(passes(in_udp))));
            }
        }
    });
    for [peer, us, ..] in ENDS {
        let keepalive = Ip::new(us, peer, UDP).packet(&udp(4500, 4500, &[0xff]));
        for noted in [keepalive, Ip::new(us, peer, ESP).packet(&esp(SPI, 40))] {
            with_programs(|data_path| {
                data_path.drop_unknown_esp(ALL, LONG).unwrap();
                through_tc(data_path, program::STEER_EGRESS, &tagged(&[], &noted), 0);
                let frame = tagged(&[], &packet(peer, us, true, SPI));
                assert_eq!(through_xdp(data_path, &frame), passed(&frame, Some(passes(true))));
            });
        }
    }
}
