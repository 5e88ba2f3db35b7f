//! The XDP program before the IKE ports, by test-run: a message in; the verdict, the frame and the
//! counters out.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "../support/bpf.rs"]
mod bpf;
mod rates;
#[path = "../support/request.rs"]
mod request;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use bpf::{Outcome, XDP_DROP, XDP_PASS, XDP_TX, isolated, through_xdp};
use gateway::kernel::bpf::DataPath;
use gateway_common::{Address, CookieSecret, Initiator as Whom, Reason, map};
use gateway_ike::config::InitLimits;
use gateway_ike::io::SharedCookies;
use gateway_tests::packet::{Ip, UDP, checksum, ethernet, tagged, udp};
use gateway_wire::{ExchangeType, Message, NotifyType, Payload};
use request::Initiator;

/// An initiator and us.
const ENDS: [(&str, &str); 2] = [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")];
const PORTS: [u16; 2] = [500, 4500];
/// The initiator's port: it is behind NAT.
const THEIR_PORT: u16 = 31_000;
const SPI: [u8; 8] = [0xa1, 2, 3, 4, 5, 6, 7, 8];
const CURRENT: CookieSecret = CookieSecret { key: [1, 2], version: 6, zero: 0 };
const PREVIOUS: CookieSecret = CookieSecret { key: [3, 4], version: 5, zero: 0 };

const VERSION: usize = 17;
const EXCHANGE: usize = 18;
const FLAGS: usize = 19;
const MESSAGE_ID: usize = 20;

/// Loads the programs, tells them of our addresses and how IKE is protected.
fn protected(limits: &InitLimits, demand: bool, test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        bpf::serve_at(&mut data_path, bpf::TEST_RUN, &ENDS.map(|(_, us)| us));
        protect(&mut data_path, limits, demand);
        test(&mut data_path);
    });
}

fn protect(data_path: &mut DataPath, limits: &InitLimits, demand: bool) {
    let cookies = SharedCookies { secrets: [CURRENT, PREVIOUS], demand };
    data_path.protect_ike(limits, &cookies).unwrap();
}

/// An IKE message with this first payload and so much behind the header.
fn message(responder_spi: [u8; 8], first: u8, exchange: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = [SPI, responder_spi].concat();
    octets.extend([first, 0x20, exchange, flags]);
    octets.extend([0; 4]);
    octets.extend(u32::try_from(28 + body.len()).unwrap().to_be_bytes());
    octets.extend(body);
    octets
}

/// An IKE_SA_INIT request: what is in its payloads is not looked at.
fn init() -> Vec<u8> {
    let nonce = [&[0, 0, 0, 36][..], &[9; 32]].concat();
    let sa = [&[40, 0, 0, 44][..], &[0; 40]].concat();
    message([0; 8], 33, 34, 0x08, &[sa, nonce].concat())
}

/// The same with a cookie before all else.
fn init_with(cookie: &[u8]) -> Vec<u8> {
    let length = u8::try_from(8 + cookie.len()).unwrap();
    let notify = [&[33, 0, 0, length, 0, 0, 0x40, 0x06][..], cookie].concat();
    message([0; 8], 41, 34, 0x08, &[&notify[..], &init()[28..]].concat())
}

/// Puts octets into a copy.
fn with(message: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut changed = message.to_vec();
    changed[at..at + octets.len()].copy_from_slice(octets);
    changed
}

/// The UDP payload that carries a message to a port of ours.
fn framed(port: u16, message: &[u8]) -> Vec<u8> {
    let marker: &[u8] = if port == 4500 { &[0; 4] } else { &[] };
    [marker, message].concat()
}

fn datagram(from: &str, us: &str, port: u16, message: &[u8]) -> Vec<u8> {
    Ip::new(from, us, UDP).packet(&udp(THEIR_PORT, port, &framed(port, message)))
}

fn cookie(secret: CookieSecret, from: &str, port: u16, spi: [u8; 8]) -> [u8; 12] {
    let address = match from.parse().unwrap() {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    };
    secret.cookie(&Whom::new(address, port, spi)).octets()
}

/// The answer that demands a cookie, in its frame.
fn demand(tags: &[u16], from: &str, us: &str, port: u16, cookie: &[u8]) -> Vec<u8> {
    let notify = [&[0, 0, 0, 20, 0, 0, 0x40, 0x06][..], cookie].concat();
    let answer = message([0; 8], 41, 34, 0x20, &notify);
    let mut datagram = udp(port, THEIR_PORT, &framed(port, &answer));
    let octets = |address: &str| match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = u32::try_from(datagram.len()).unwrap().to_be_bytes();
    let covered = [&octets(us)[..], &octets(from), &length, &[0, 0, 0, UDP], &datagram].concat();
    datagram[6..8].copy_from_slice(&checksum(&covered));
    let mut packet = Ip::new(us, from, UDP).packet(&datagram);
    if !from.contains(':') {
        // Without identification, and never to be fragmented.
        packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        packet[10..12].fill(0);
        let checksum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum);
    }
    let mut frame = tagged(tags, &packet);
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    frame
}

fn passed(frame: &[u8], reason: Reason) -> Outcome {
    Outcome { verdict: XDP_PASS, packet: frame.to_vec(), counted: vec![(reason, 1)] }
}

fn dropped(frame: &[u8], reason: Reason) -> Outcome {
    Outcome { verdict: XDP_DROP, packet: frame.to_vec(), counted: vec![(reason, 1)] }
}

fn answered(frame: Vec<u8>) -> Outcome {
    Outcome { verdict: XDP_TX, packet: frame, counted: vec![(Reason::IkeCookieAnswered, 1)] }
}

fn on(port: u16) -> Reason {
    if port == 500 { Reason::IkeOn500 } else { Reason::IkeOn4500 }
}

#[test]
fn a_request_becomes_its_answer_when_cookies_are_demanded() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            for port in PORTS {
                for tags in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]] {
                    let frame = tagged(tags, &datagram(from, us, port, &init()));
                    let cookie = cookie(CURRENT, from, THEIR_PORT, SPI);
                    let expected = answered(demand(tags, from, us, port, &cookie));
                    assert!(expected.packet.len() < frame.len());
                    assert_eq!(through_xdp(data_path, &frame), expected, "{from} {port} {tags:x?}");
                    // What the link has put behind it is not sent back.
                    let padded = [&frame[..], &[0xee; 9]].concat();
                    assert_eq!(through_xdp(data_path, &padded), expected, "{from} {port}");
                }
            }
        }
    });
}

#[test]
fn a_good_cookie_passes_and_any_other_is_none() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            for port in PORTS {
                let frame = |cookie: &[u8]| ethernet(&datagram(from, us, port, &init_with(cookie)));
                for secret in [CURRENT, PREVIOUS] {
                    let frame = frame(&cookie(secret, from, THEIR_PORT, SPI));
                    let expected = passed(&frame, Reason::IkeInitWithCookie);
                    assert_eq!(through_xdp(data_path, &frame), expected, "{from} {port}");
                }
                let good = cookie(CURRENT, from, THEIR_PORT, SPI);
                let older = CookieSecret { version: 4, ..CURRENT };
                let none = CookieSecret { version: 0, ..CookieSecret::default() };
                let mut wrong = vec![
                    cookie(CookieSecret { key: [3, 4], ..CURRENT }, from, THEIR_PORT, SPI).to_vec(),
                    cookie(older, from, THEIR_PORT, SPI).to_vec(),
                    cookie(none, from, THEIR_PORT, SPI).to_vec(),
                    cookie(CURRENT, "192.0.2.3", THEIR_PORT, SPI).to_vec(),
                    cookie(CURRENT, from, THEIR_PORT + 1, SPI).to_vec(),
                    cookie(CURRENT, from, THEIR_PORT, [1; 8]).to_vec(),
                    good[..11].to_vec(),
                    [&good[..], &[0]].concat(),
                    Vec::new(),
                ];
                wrong.extend((0..12).map(|at| with(&good, at, &[good[at] ^ 1])));
                let expected = answered(demand(&[], from, us, port, &good));
                for cookie in wrong {
                    assert_eq!(through_xdp(data_path, &frame(&cookie)), expected, "{cookie:x?}");
                }
                // The notification itself: another type, an SPI, or not the first payload.
                let whole = init_with(&good);
                let odd = [
                    with(&whole, 28 + 6, &[0x40, 0x07]),
                    with(&whole, 28 + 5, &[4]),
                    with(&whole, 16, &[40]),
                ];
                for message in odd {
                    let frame = ethernet(&datagram(from, us, port, &message));
                    assert_eq!(through_xdp(data_path, &frame), expected);
                }
            }
        }
    });
}

#[test]
fn what_is_no_ike_that_anybody_could_want_an_answer_to_ends_there() {
    use Reason::{IkeBadInit, IkeBadLength, IkeBadVersion, IkeEmpty, IkeTooShort, IkeZeroSpi};
    protected(&InitLimits::default(), false, |data_path| {
        let init = init();
        let known = message([7; 8], 46, 37, 0x08, &[0; 40]);
        let answer = message([7; 8], 33, 34, 0x20, &[0; 40]);
        let one_more = u32::try_from(init.len() + 1).unwrap().to_be_bytes();
        let table = [
            ("27 octets", init[..27].to_vec(), IkeTooShort),
            ("no octet", Vec::new(), IkeTooShort),
            ("a header alone", message([7; 8], 0, 37, 0x08, &[]), IkeEmpty),
            ("no payload", message([7; 8], 0, 37, 0x08, &[0; 40]), IkeEmpty),
            ("cut off", init[..init.len() - 1].to_vec(), IkeBadLength),
            ("too long", [&init[..], &[0]].concat(), IkeBadLength),
            ("length of one more", with(&init, 24, &one_more), IkeBadLength),
            ("length of much more", with(&init, 24, &[1, 0, 0, 0]), IkeBadLength),
            ("version 0", with(&init, VERSION, &[0]), IkeBadVersion),
            ("a response of version 3", with(&answer, VERSION, &[0x30]), IkeBadVersion),
            ("no initiator", with(&known, 0, &[0; 8]), IkeZeroSpi),
            ("no initiator at first", with(&init, 0, &[0; 8]), IkeZeroSpi),
            ("no responder", with(&known, 8, &[0; 8]), IkeZeroSpi),
            ("a request with a responder", with(&init, 8, &[7; 8]), IkeBadInit),
            ("a request of the responder", with(&init, FLAGS, &[0]), IkeBadInit),
            ("a request that is not the first", with(&init, MESSAGE_ID, &[0, 0, 0, 1]), IkeBadInit),
            ("an answer of the initiator", with(&answer, FLAGS, &[0x28]), IkeBadInit),
            ("an answer to a later one", with(&answer, MESSAGE_ID, &[0, 0, 0, 1]), IkeBadInit),
        ];
        for (from, us) in ENDS {
            for port in PORTS {
                for (name, message, reason) in &table {
                    for tags in [&[][..], &[0x8100]] {
                        let frame = tagged(tags, &datagram(from, us, port, message));
                        let outcome = through_xdp(data_path, &frame);
                        assert_eq!(outcome, dropped(&frame, *reason), "{name} {from} {port}");
                    }
                }
            }
        }
    });
}

#[test]
fn what_the_daemon_may_have_to_answer_passes() {
    protected(&InitLimits::default(), false, |data_path| {
        let init = init();
        let known = message([7; 8], 46, 37, 0x08, &[0; 40]);
        let answer = message([7; 8], 33, 34, 0x20, &[0; 40]);
        let table = [
            ("a request", init.clone(), Some(Reason::IkeInit)),
            ("reserved flags", with(&init, FLAGS, &[0xdf]), Some(Reason::IkeInit)),
            ("a minor version", with(&init, VERSION, &[0x2f]), Some(Reason::IkeInit)),
            // RFC 7296 2.5: an unknown critical payload is named.
            ("an unknown payload", with(&init, 16, &[200]), Some(Reason::IkeInit)),
            ("a short request", message([0; 8], 200, 34, 0x08, &[0; 4]), Some(Reason::IkeInit)),
            ("an answer", answer.clone(), None),
            ("a demand for a cookie", with(&answer, 8, &[0; 8]), None),
            ("INFORMATIONAL", known.clone(), None),
            ("an error outside of an IKE SA", with(&known, 16, &[41]), None),
            // RFC 7296 2.21.3: if it is authentic it is answered with an error.
            ("an unknown exchange", with(&known, EXCHANGE, &[240]), None),
            ("a reserved exchange", with(&known, EXCHANGE, &[5]), None),
            ("a first message of version 1", with(&init, VERSION, &[0x10]), None),
            ("a request of version 3", with(&known, VERSION, &[0x30]), None),
            // The length may be anywhere in another version.
            ("version 3 of another length", with(&known, VERSION, &[0x30])[..40].to_vec(), None),
        ];
        for (from, us) in ENDS {
            for port in PORTS {
                for (name, message, reason) in &table {
                    let frame = ethernet(&datagram(from, us, port, message));
                    let expected = passed(&frame, reason.unwrap_or_else(|| on(port)));
                    assert_eq!(through_xdp(data_path, &frame), expected, "{name} {from} {port}");
                }
            }
        }
    });
}

#[test]
fn a_frame_cut_off_anywhere_is_never_answered() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            for port in PORTS {
                let frame = tagged(&[0x8100], &datagram(from, us, port, &init()));
                // The kernel takes no less than an Ethernet header.
                for length in 14..frame.len() {
                    let outcome = through_xdp(data_path, &frame[..length]);
                    let whole_answer = demand(&[0x8100], from, us, port, &[0; 12]).len();
                    if length < whole_answer {
                        assert_ne!(outcome.verdict, XDP_TX, "{length} octets");
                        assert_eq!(outcome.packet, &frame[..length]);
                    }
                }
            }
        }
    });
}

#[test]
fn nobody_is_answered_with_more_than_was_sent_nor_a_group() {
    protected(&InitLimits::default(), true, |data_path| {
        let not = Reason::IkeCookieNotAnswered;
        for (from, us) in ENDS {
            for port in PORTS {
                for (octets, verdict) in [(19, XDP_DROP), (20, XDP_TX)] {
                    let short = message([0; 8], 33, 34, 0x08, &vec![0; octets]);
                    let frame = ethernet(&datagram(from, us, port, &short));
                    let outcome = through_xdp(data_path, &frame);
                    assert_eq!(outcome.verdict, verdict, "{octets} octets");
                    assert!(outcome.packet.len() <= frame.len());
                }
                let groups: &[&str] = if from.contains(':') {
                    &["ff02::1", "::"]
                } else {
                    &["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0"]
                };
                for group in groups {
                    let frame = ethernet(&datagram(group, us, port, &init()));
                    assert_eq!(through_xdp(data_path, &frame), dropped(&frame, not), "{group}");
                }
                let mut frame = ethernet(&datagram(from, us, port, &init()));
                frame[..6].fill(0xff);
                assert_eq!(through_xdp(data_path, &frame), dropped(&frame, not), "broadcast");
            }
        }
    });
}

#[test]
fn a_first_fragment_is_judged_like_a_whole_message_and_the_others_pass() {
    protected(&InitLimits::default(), true, |data_path| {
        let (from, us) = ENDS[0];
        for port in PORTS {
            let whole = udp(THEIR_PORT, port, &framed(port, &init()));
            let fragment = |offset: u16, more, octets: &[u8]| {
                ethernet(&Ip::new(from, us, UDP).fragment(offset, more).packet(octets))
            };
            let first = fragment(0, true, &whole[..72]);
            let cookie = cookie(CURRENT, from, THEIR_PORT, SPI);
            let expected = answered(demand(&[], from, us, port, &cookie));
            assert_eq!(through_xdp(data_path, &first), expected);
            let later = fragment(72, false, &whole[72..]);
            let untouched =
                Outcome { verdict: XDP_PASS, packet: later.clone(), counted: Vec::new() };
            assert_eq!(through_xdp(data_path, &later), untouched);
            let returned = udp(THEIR_PORT, port, &framed(port, &init_with(&cookie)));
            let first = fragment(0, true, &returned[..72]);
            let expected = passed(&first, Reason::IkeInitWithCookie);
            assert_eq!(through_xdp(data_path, &first), expected);
        }
    });
}

#[test]
fn requests_behind_options_are_left_to_the_daemon() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            for port in PORTS {
                let ip = Ip::new(from, us, UDP);
                let ip = if from.contains(':') { ip.extension(60) } else { ip.options(2) };
                let frame = ethernet(&ip.packet(&udp(THEIR_PORT, port, &framed(port, &init()))));
                let expected = passed(&frame, Reason::BehindOptions);
                assert_eq!(through_xdp(data_path, &frame), expected, "{from} {port}");
            }
        }
    });
}

#[test]
fn ike_of_others_is_none_of_its_business() {
    protected(&InitLimits::default(), true, |data_path| {
        for (us, other) in ENDS {
            for port in PORTS {
                for message in [init(), init()[..27].to_vec(), with(&init(), 0, &[0; 8])] {
                    let frame = ethernet(&datagram(other, us, port, &message));
                    // ESP in UDP may be to anybody, so that port 4500 is looked at.
                    let counted = if port == 500 { Vec::new() } else { vec![(on(port), 1)] };
                    let untouched = Outcome { verdict: XDP_PASS, packet: frame.clone(), counted };
                    assert_eq!(through_xdp(data_path, &frame), untouched, "{us} {port}");
                }
            }
        }
    });
}

#[test]
fn requests_pass_until_a_cookie_is_known() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        bpf::serve_at(&mut data_path, bpf::TEST_RUN, &ENDS.map(|(_, us)| us));
        let (from, us) = ENDS[0];
        let frame = ethernet(&datagram(from, us, 500, &init()));
        for _ in 0..1000 {
            assert_eq!(through_xdp(&mut data_path, &frame), passed(&frame, Reason::IkeInit));
        }
        // The next run finds what the last one was told, and nobody else the secrets.
        protect(&mut data_path, &InitLimits::default(), true);
        let pin = fs::metadata(bpf::config(bpffs).pin_dir.join(map::IKE)).unwrap();
        assert_eq!(pin.permissions().mode() & 0o077, 0);
        drop(data_path);
        let mut data_path = bpf::load(&bpf::config(bpffs));
        assert_eq!(through_xdp(&mut data_path, &frame).verdict, XDP_TX);
    });
}

#[test]
fn a_request_to_the_address_of_another_interface_is_left_to_the_daemon() {
    protected(&InitLimits::default(), true, |data_path| {
        let (from, us) = ENDS[0];
        let frame = ethernet(&datagram(from, us, 500, &init()));
        assert_eq!(through_xdp(data_path, &frame).verdict, XDP_TX);
        // It may have come with a VLAN tag that the network card has taken off.
        bpf::serve_at(data_path, bpf::TEST_RUN + 1, &[us]);
        assert_eq!(through_xdp(data_path, &frame), passed(&frame, Reason::IkeInit));
        // And once it is not ours any more it is none of our business.
        bpf::serve_at(data_path, bpf::TEST_RUN, &[]);
        let untouched = Outcome { verdict: XDP_PASS, packet: frame.clone(), counted: Vec::new() };
        assert_eq!(through_xdp(data_path, &frame), untouched);
    });
}

#[test]
fn the_answer_is_what_the_codec_reads_as_a_demand_for_a_cookie() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            for port in PORTS {
                let frame = ethernet(&datagram(from, us, port, &init()));
                let answer = through_xdp(data_path, &frame).packet;
                let ip = if from.contains(':') { 40 } else { 20 };
                let marker = if port == 4500 { 4 } else { 0 };
                let message = Message::decode(&answer[14 + ip + 8 + marker..]).unwrap();
                assert_eq!(message.header.exchange, ExchangeType::IKE_SA_INIT);
                assert!(message.header.flags.response && !message.header.flags.initiator);
                assert_eq!(message.header.initiator_spi.0, SPI);
                let [Payload::Notify(notify)] = &*message.payloads else { panic!("{message:?}") };
                assert_eq!(notify.kind, NotifyType::COOKIE);
                assert_eq!(*notify.data, cookie(CURRENT, from, THEIR_PORT, SPI));
            }
        }
    });
}

#[test]
fn an_initiator_returns_the_cookie_and_passes() {
    protected(&InitLimits::default(), true, |data_path| {
        for (from, us) in ENDS {
            let mut initiator = Initiator::begin(from, us);
            let ip = if from.contains(':') { 40 } else { 20 };
            let ports = (initiator.path.local.port(), initiator.path.remote.port());
            assert_eq!(ports, (500, 500));
            let frame =
                |message: &[u8]| ethernet(&Ip::new(from, us, UDP).packet(&udp(500, 500, message)));
            let first = initiator.request.clone();
            let outcome = through_xdp(data_path, &frame(&first));
            assert_eq!(outcome.verdict, XDP_TX);
            initiator.answer(&outcome.packet[14 + ip + 8..]);
            assert_ne!(initiator.request, first);
            let again = frame(&initiator.request);
            let expected = passed(&again, Reason::IkeInitWithCookie);
            assert_eq!(through_xdp(data_path, &again), expected);
        }
    });
}
