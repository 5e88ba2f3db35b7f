//! Every kind of packet in every shape through the XDP program by test-run: verdict, octets, counters,
//! and what the daemon is told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bpf::{Outcome, TEST_RUN, XDP_DROP, XDP_PASS, isolated, serve_at, through_xdp};
use gateway::kernel::bpf::{DataPath, EspEvent, Sa, SaDirection, UnknownEsp};
use gateway_common::{Reason, Verdict};
use gateway_tests::packet::{ESP, Ip, TCP, UDP, esp, tagged, tcp, udp};

const SPI: u32 = 0xc123_4567;
/// Its peer sends bare ESP.
const BARE_SPI: u32 = 0xc123_4568;
/// The kernel decapsulates it.
const KERNEL_SPI: u32 = 0xc123_4569;
/// Offered, and not there yet.
const AWAITED_SPI: u32 = 0xc123_456a;
/// Nobody's.
const UNKNOWN_SPI: u32 = 0xc123_456b;

const PORT: u16 = 31_000;
/// The peer and us.
const ENDS: [[&str; 2]; 2] = [["192.0.2.2", "192.0.2.1"], ["2001:db8::2", "2001:db8::1"]];

/// Tags before IP, by their EtherTypes.
const TAGS: [&[u16]; 6] =
    [&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100], &[0x8100, 0x88a8]];

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It passes as it came, and is not counted.
    Uncounted,
    /// As the reason says, with what it had.
    As(Reason),
    /// It loses its UDP header.
    Stripped,
}

use Fate::{As, Stripped, Uncounted};

/// What an IP packet carries.
struct Kind {
    name: &'static str,
    protocol: u8,
    payload: Vec<u8>,
    fate: Fate,
}

/// An IKE message that any IKE SA may be for: the header of an INFORMATIONAL request.
fn ike() -> Vec<u8> {
    let mut message = vec![7; 16];
    message.extend([46, 0x20, 37, 8, 0, 0, 0, 2, 0, 0, 0, 28]);
    message
}

fn kinds() -> Vec<Kind> {
    let on = |port, payload: &[u8]| udp(PORT, port, payload);
    let with_marker = |message: &[u8]| [&[0; 4][..], message].concat();
    let of = |name, protocol, payload, fate| Kind { name, protocol, payload, fate };
    vec![
        of("ESP in UDP", UDP, on(4500, &esp(SPI, 40)), Stripped),
        of("empty ESP in UDP", UDP, on(4500, &esp(SPI, 0)), Stripped),
        // As much as a test-run takes.
        of("large ESP in UDP", UDP, on(4500, &esp(SPI, 3300)), Stripped),
        of("the kernel's", UDP, on(4500, &esp(KERNEL_SPI, 40)), As(Reason::KernelDecapsulates)),
        of("awaited in UDP", UDP, on(4500, &esp(AWAITED_SPI, 40)), As(Reason::Awaited)),
        of("unknown in UDP", UDP, on(4500, &esp(UNKNOWN_SPI, 40)), As(Reason::UnknownSpiDropped)),
        of("bare ESP", ESP, esp(BARE_SPI, 40), Uncounted),
        of("large bare ESP", ESP, esp(BARE_SPI, 3300), Uncounted),
        of("awaited", ESP, esp(AWAITED_SPI, 40), As(Reason::Awaited)),
        of("unknown", ESP, esp(UNKNOWN_SPI, 40), As(Reason::BareUnknownSpiDropped)),
        of("a keepalive", UDP, on(4500, &[0xff]), As(Reason::Keepalive)),
        of("too short", UDP, on(4500, &[0xff; 7]), As(Reason::TooShort)),
        of("IKE", UDP, on(500, &ike()), As(Reason::IkeOn500)),
        of("IKE with a marker", UDP, on(4500, &with_marker(&ike())), As(Reason::IkeOn4500)),
        of("half IKE", UDP, on(500, &ike()[..20]), As(Reason::IkeTooShort)),
        of("another port", UDP, on(4501, &esp(SPI, 40)), Uncounted),
        of("TCP", TCP, tcp(PORT, 4500), Uncounted),
    ]
}

/// Loads the programs, which know our addresses and SAs, and are to drop what has none.
fn with_programs(test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        serve_at(&mut data_path, TEST_RUN, &ENDS.map(|[_, us]| us));
        let all = UnknownEsp { bare: true, in_udp: true };
        data_path.drop_unknown_esp(all, Duration::from_secs(600)).unwrap();
        for [peer, us] in ENDS {
            let destination: IpAddr = us.parse().unwrap();
            let at = |port| SocketAddr::new(peer.parse().unwrap(), port);
            for (spi, strip, from) in
                [(SPI, true, at(PORT)), (BARE_SPI, true, at(0)), (KERNEL_SPI, false, at(PORT))]
            {
                let direction = SaDirection::Inbound { strip, from };
                data_path.insert_sa(&Sa { destination, spi, direction }).unwrap();
            }
            data_path.await_sa(destination, AWAITED_SPI).unwrap();
        }
        test(&mut data_path);
    });
}

fn is_v6(address: &str) -> bool {
    address.contains(':')
}

/// The octets before the payload of a packet without options, under so many tags.
fn headers(address: &str, tags: &[u16]) -> usize {
    14 + tags.len() * 4 + if is_v6(address) { 40 } else { 20 }
}

/// What a frame becomes; `stripped` if it loses its UDP header.
fn expected(frame: &[u8], fate: Fate, stripped: impl FnOnce() -> Vec<u8>) -> Outcome {
    let (verdict, counted) = match fate {
        Uncounted => (XDP_PASS, Vec::new()),
        As(reason) => {
            let is_dropped = reason.verdict() == Verdict::Drop;
            (if is_dropped { XDP_DROP } else { XDP_PASS }, vec![(reason, 1)])
        }
        Stripped => (XDP_PASS, vec![(Reason::Stripped, 1)]),
    };
    let packet = if fate == Stripped { stripped() } else { frame.to_vec() };
    Outcome { verdict, packet, counted }
}

/// A fate that is none of those that change a packet.
fn check(data_path: &mut DataPath, frame: &[u8], fate: Fate, what: &str) {
    assert_eq!(through_xdp(data_path, frame), expected(frame, fate, Vec::new), "{what}");
}

#[test]
fn every_kind_comes_to_its_end_under_up_to_two_tags() {
    with_programs(|data_path| {
        for [peer, us] in ENDS {
            for Kind { name, protocol, payload, fate } in kinds() {
                let packet = Ip::new(peer, us, protocol).packet(&payload);
                for tags in TAGS {
                    let frame = tagged(tags, &packet);
                    let bare = || tagged(tags, &Ip::new(peer, us, ESP).packet(&payload[8..]));
                    let outcome = through_xdp(data_path, &frame);
                    assert_eq!(outcome, expected(&frame, fate, bare), "{name} {us} {tags:x?}");
                }
                // No IP stack here takes those.
                for tags in [&[0x88a8, 0x8100, 0x8100][..], &[0x9100], &[0x88a8, 0x9100]] {
                    check(data_path, &tagged(tags, &packet), Uncounted, name);
                }
            }
        }
        // From where they are expected, of SAs that are there, but for the first of what has none.
        let mut events = data_path.esp_events().unwrap();
        let told: Vec<_> = core::iter::from_fn(|| events.take()).collect();
        assert!(told.len() >= 4, "{told:?}");
        assert!(told.iter().all(|event| matches!(event, EspEvent::Unknown(_))), "{told:?}");
    });
}

#[test]
fn what_is_behind_options_goes_the_kernels_way() {
    with_programs(|data_path| {
        for tags in TAGS {
            for [peer, us] in ENDS {
                for Kind { name, protocol, payload, .. } in kinds() {
                    if payload.len() > 3000 {
                        continue;
                    }
                    let ip = || Ip::new(peer, us, protocol);
                    let (packets, is_counted) = if is_v6(us) {
                        let one = [0, 43, 60].map(|kind| ip().extension(kind)).to_vec();
                        let several = ip().extension(0).extension(43).extension(60);
                        ([one, vec![several]].concat(), true)
                    } else {
                        ([1, 5, 10].map(|words| ip().options(words)).to_vec(), protocol != TCP)
                    };
                    let fate = if is_counted { As(Reason::BehindOptions) } else { Uncounted };
                    for packet in packets {
                        let frame = tagged(tags, &packet.packet(&payload));
                        check(data_path, &frame, fate, name);
                    }
                }
            }
        }
        // Of somebody else's nothing is said.
        for [us, other] in ENDS {
            let ip = Ip::new(us, other, ESP);
            serve_at(data_path, TEST_RUN, &[]);
            let ip = if is_v6(us) { ip.extension(0) } else { ip.options(1) };
            let frame = tagged(&[], &ip.packet(&esp(UNKNOWN_SPI, 40)));
            check(data_path, &frame, Uncounted, "to others");
        }
    });
}

#[test]
fn fragments_go_the_kernels_way() {
    with_programs(|data_path| {
        for [peer, us] in ENDS {
            for tags in TAGS {
                for Kind { name, protocol, payload, .. } in kinds() {
                    if payload.len() > 3000 {
                        continue;
                    }
                    let ip = || Ip::new(peer, us, protocol);
                    let later = tagged(tags, &ip().fragment(16, true).packet(&payload));
                    check(data_path, &later, Uncounted, name);
                    let last = tagged(tags, &ip().fragment(1480, false).packet(&payload));
                    check(data_path, &last, Uncounted, name);
                    let first = tagged(tags, &ip().fragment(0, true).packet(&payload));
                    // How long an IKE message is the first fragment does not show.
                    let fate = match (protocol, u16::from_be_bytes([payload[2], payload[3]])) {
                        (UDP, 4500) if name == "IKE with a marker" && !is_v6(us) => {
                            As(Reason::IkeOn4500)
                        }
                        (UDP, 4500) => As(Reason::OuterFragment),
                        (UDP, 500) if !is_v6(us) => {
                            As(if name == "IKE" { Reason::IkeOn500 } else { Reason::IkeTooShort })
                        }
                        _ => Uncounted,
                    };
                    check(data_path, &first, fate, name);
                }
            }
        }
    });
}

#[test]
fn what_is_cut_off_is_never_changed_nor_read_beyond_its_end() {
    with_programs(|data_path| {
        for [peer, us] in ENDS {
            for tags in [TAGS[0], TAGS[1], TAGS[3]] {
                for Kind { name, protocol, payload, .. } in kinds() {
                    if payload.len() > 3000 {
                        continue;
                    }
                    let frame = tagged(tags, &Ip::new(peer, us, protocol).packet(&payload));
                    let start = headers(us, tags);
                    // The kernel takes no less than an Ethernet header.
                    for length in 14..frame.len() {
                        let cut = &frame[..length];
                        let outcome = through_xdp(data_path, cut);
                        assert_eq!(outcome.packet, cut, "{name}: {length} octets");
                        let seen = length.saturating_sub(start);
                        let counted = outcome.counted.first().map(|(reason, _)| *reason);
                        // Up to the SPI, or the header of UDP, nobody can tell what it is.
                        let header = if protocol == UDP { 8 } else { 4 };
                        if seen < header {
                            assert_eq!(counted, None, "{name}: {length} octets");
                        }
                        assert_ne!(counted, Some(Reason::Stripped), "{name}: {length} octets");
                        if protocol == UDP && (8..12).contains(&seen) {
                            let is_unknown = counted == Some(Reason::UnknownSpiDropped);
                            assert!(!is_unknown, "{name}: {length} octets");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn lengths_that_lie_strip_nothing() {
    with_programs(|data_path| {
        for [peer, us] in ENDS {
            for tags in TAGS {
                let packet = Ip::new(peer, us, UDP).packet(&udp(PORT, 4500, &esp(SPI, 40)));
                let frame = tagged(tags, &packet);
                let start = headers(us, tags);
                let ip_length = start - if is_v6(us) { 36 } else { 18 };
                for at in [ip_length, start + 4] {
                    for value in (0..120).chain([1500, 0x7fff, 0xffff]) {
                        let mut lie = frame.clone();
                        let place = &mut lie[at..at + 2];
                        let is_true = *place == u16::to_be_bytes(value);
                        place.copy_from_slice(&value.to_be_bytes());
                        let outcome = through_xdp(data_path, &lie);
                        if is_true {
                            assert_eq!(outcome.counted, [(Reason::Stripped, 1)]);
                            continue;
                        }
                        assert_eq!(outcome.packet, lie, "{us} {tags:x?} {value} at {at}");
                        let reason = outcome.counted[0].0;
                        assert!(matches!(reason, Reason::BadLength | Reason::TooShort));
                    }
                }
                // A header of IPv4 that is shorter than any, or of another version.
                for first in [0x40, 0x44, 0x35, 0x55, 0x65, 0x75] {
                    let mut lie = frame.clone();
                    let place = &mut lie[14 + tags.len() * 4];
                    if is_v6(us) && first >> 4 == 6 {
                        continue;
                    }
                    *place = first;
                    check(data_path, &lie, Uncounted, "another version");
                }
            }
        }
    });
}
