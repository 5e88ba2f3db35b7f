//! The XDP program by test-run: a packet in; the verdict, the packet and the counters out.
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

use bpf::{Outcome, TEST_RUN, XDP_DROP, XDP_PASS, isolated, serve_at, through_xdp};
use gateway::kernel::bpf::{DataPath, Sa, SaDirection};
use gateway_common::Reason;
use gateway_tests::packet::{ESP, Ip, UDP, esp, ethernet, tagged, tcp, udp};

const SPI: u32 = 0xc123_4567;
/// Known too, but the kernel decapsulates it.
const KERNEL_SPI: u32 = 0xc123_4568;
/// Known too, and its peer sends bare ESP.
const BARE_SPI: u32 = 0xc123_456a;
/// Known as one that we send with.
const OUTBOUND_SPI: u32 = 0xc123_4569;

const PEERS: [(&str, &str); 2] = [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")];

fn from(peer: &str, port: u16) -> SocketAddr {
    SocketAddr::new(peer.parse().unwrap(), port)
}

/// Loads the programs and tells them of SAs to both of our addresses.
fn with_sas(test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        for (peer, local) in PEERS {
            let destination: IpAddr = local.parse().unwrap();
            let (in_udp, bare) = (from(peer, 31_000), from(peer, 0));
            for (spi, direction) in [
                (SPI, SaDirection::Inbound { strip: true, from: in_udp }),
                (KERNEL_SPI, SaDirection::Inbound { strip: false, from: in_udp }),
                (BARE_SPI, SaDirection::Inbound { strip: true, from: bare }),
                (OUTBOUND_SPI, SaDirection::Outbound),
            ] {
                data_path.insert_sa(&Sa { destination, spi, direction }).unwrap();
            }
        }
        test(&mut data_path);
    });
}

fn untouched(packet: &[u8], reason: Option<Reason>) -> Outcome {
    let counted = reason.into_iter().map(|reason| (reason, 1)).collect();
    Outcome { verdict: XDP_PASS, packet: packet.to_vec(), counted }
}

fn dropped(packet: &[u8], reason: Reason) -> Outcome {
    Outcome { verdict: XDP_DROP, packet: packet.to_vec(), counted: vec![(reason, 1)] }
}

/// ESP in UDP, and what is to become of it.
fn pair(source: &str, destination: &str, octets: usize) -> (Vec<u8>, Vec<u8>) {
    let esp = esp(SPI, octets);
    let wrapped = Ip::new(source, destination, UDP).packet(&udp(31_000, 4500, &esp));
    let bare = Ip::new(source, destination, ESP).packet(&esp);
    (wrapped, bare)
}

#[test]
fn esp_of_a_known_sa_loses_its_udp_header() {
    with_sas(|data_path| {
        for (source, destination) in PEERS {
            for octets in [0, 1, 40, 1400] {
                for tags in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]] {
                    let (wrapped, bare) = pair(source, destination, octets);
                    let outcome = through_xdp(data_path, &tagged(tags, &wrapped));
                    let expected = Outcome {
                        verdict: XDP_PASS,
                        packet: tagged(tags, &bare),
                        counted: vec![(Reason::Stripped, 1)],
                    };
                    assert_eq!(outcome, expected, "{source} {octets} {tags:x?}");
                }
            }
        }
    });
}

#[test]
fn octets_behind_the_packet_do_not_become_part_of_it() {
    with_sas(|data_path| {
        for (source, destination) in PEERS {
            let (wrapped, bare) = pair(source, destination, 2);
            let mut padded = ethernet(&wrapped);
            padded.extend([0xee; 9]);
            let outcome = through_xdp(data_path, &padded);
            // The frame's padding stays, and the IP header says that it is padding.
            let mut expected = ethernet(&bare);
            expected.extend([0xee; 9]);
            assert_eq!(outcome.packet, expected);
        }
    });
}

#[test]
fn what_is_not_esp_of_an_sa_to_strip_passes_as_it_came() {
    use Reason::{IkeOn4500, KernelDecapsulates, OuterFragment, TooShort, UnknownSpi};
    with_sas(|data_path| {
        for (source, destination) in PEERS {
            let ip = |protocol| Ip::new(source, destination, protocol);
            let on_4500 = |payload: &[u8]| ip(UDP).packet(&udp(31_000, 4500, payload));
            let whole = udp(31_000, 4500, &esp(SPI, 40));
            let is_v4 = !source.contains(':');
            let mut table: Vec<(&str, Vec<u8>, Option<Reason>)> = vec![
                ("IKE", on_4500(&[&[0; 4][..], &[7; 28]].concat()), Some(IkeOn4500)),
                ("nothing but the marker", on_4500(&[0; 4]), Some(IkeOn4500)),
                ("no octet", on_4500(&[]), Some(TooShort)),
                ("one octet that is no keepalive", on_4500(&[0xfe]), Some(TooShort)),
                ("two octets", on_4500(&[0xff; 2]), Some(TooShort)),
                ("three octets", on_4500(&SPI.to_be_bytes()[..3]), Some(TooShort)),
                ("an SPI alone", on_4500(&SPI.to_be_bytes()), Some(TooShort)),
                ("seven octets", on_4500(&esp(SPI, 0)[..7]), Some(TooShort)),
                ("an unknown SPI", on_4500(&esp(SPI + 100, 40)), Some(UnknownSpi)),
                ("our own SPI", on_4500(&esp(OUTBOUND_SPI, 40)), Some(UnknownSpi)),
                ("the kernel's SA", on_4500(&esp(KERNEL_SPI, 40)), Some(KernelDecapsulates)),
                ("another port", ip(UDP).packet(&udp(4500, 4501, &esp(SPI, 40))), None),
                ("port 500", ip(UDP).packet(&udp(500, 500, &[1; 28])), None),
                ("TCP", ip(6).packet(&tcp(31_000, 4500)), None),
                ("bare ESP", ip(ESP).packet(&esp(BARE_SPI, 40)), None),
            ];
            if is_v4 {
                let first = ip(UDP).fragment(0, true).packet(&whole);
                table.push(("a first fragment", first, Some(OuterFragment)));
                table.push(("options", ip(UDP).options(1).packet(&whole), None));
            } else {
                let first = ip(UDP).fragment(0, true).packet(&whole);
                table.push(("a first fragment", first, Some(OuterFragment)));
                table.push(("hop-by-hop options", ip(UDP).extension(0).packet(&whole), None));
                table.push(("destination options", ip(UDP).extension(60).packet(&whole), None));
            }
            table.push(("a later fragment", ip(UDP).fragment(16, false).packet(&whole), None));
            for (name, packet, reason) in table {
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let frame = tagged(tags, &packet);
                    let outcome = through_xdp(data_path, &frame);
                    assert_eq!(outcome, untouched(&frame, reason), "{name} {source} {tags:x?}");
                }
            }
            let frame = tagged(&[0x88a8, 0x8100, 0x8100], &on_4500(&esp(SPI, 40)));
            assert_eq!(through_xdp(data_path, &frame), untouched(&frame, None), "three tags");
            let elsewhere = Ip::new(source, source, UDP).packet(&whole);
            let frame = ethernet(&elsewhere);
            let expected = untouched(&frame, Some(UnknownSpi));
            assert_eq!(through_xdp(data_path, &frame), expected, "another destination");
        }
    });
}

#[test]
fn a_nat_keepalive_to_us_ends_there_also_when_the_link_pads_it() {
    with_sas(|data_path| {
        let ours = PEERS.map(|(_, us)| us);
        for (source, destination) in PEERS {
            let packet = Ip::new(source, destination, UDP).packet(&udp(31_000, 4500, &[0xff]));
            for length in [0, 80] {
                let mut frame = ethernet(&packet);
                frame.resize(frame.len().max(length), 0);
                serve_at(data_path, TEST_RUN, &[]);
                assert_eq!(through_xdp(data_path, &frame), untouched(&frame, None), "to others");
                serve_at(data_path, TEST_RUN, &ours);
                assert_eq!(through_xdp(data_path, &frame), dropped(&frame, Reason::Keepalive));
            }
        }
    });
}

/// Sets a field of 16 bits.
fn lie(frame: &[u8], at: usize, value: u16) -> Vec<u8> {
    let mut changed = frame.to_vec();
    changed[at..at + 2].copy_from_slice(&value.to_be_bytes());
    changed
}

#[test]
fn a_packet_with_a_lying_length_is_never_stripped() {
    with_sas(|data_path| {
        for (source, destination) in PEERS {
            let (wrapped, _) = pair(source, destination, 40);
            let frame = ethernet(&wrapped);
            let is_v4 = !source.contains(':');
            let (ip_length, udp_length) = if is_v4 { (14 + 2, 14 + 24) } else { (14 + 4, 14 + 44) };
            let truth: Vec<u16> = [ip_length, udp_length]
                .iter()
                .map(|at| u16::from_be_bytes([frame[*at], frame[*at + 1]]))
                .collect();
            let candidates = (0..200).chain((201..=u16::MAX).step_by(97)).chain([u16::MAX]);
            for value in candidates {
                for (at, true_value) in [ip_length, udp_length].iter().zip(&truth) {
                    if value == *true_value {
                        continue;
                    }
                    let packet = lie(&frame, *at, value);
                    let outcome = through_xdp(data_path, &packet);
                    assert_eq!(outcome.packet, packet, "length {value} at {at}");
                    // A header too short for ESP passes to the kernel, which drops it.
                    let reason = outcome.counted[0].0;
                    assert!(matches!(reason, Reason::BadLength | Reason::TooShort), "{reason:?}");
                }
            }
            // Both lie, in the same way: the frame is shorter than they say.
            let both = lie(&lie(&frame, ip_length, truth[0] + 8), udp_length, truth[1] + 8);
            assert_eq!(through_xdp(data_path, &both), dropped(&both, Reason::BadLength));
        }
    });
}

#[test]
fn a_packet_cut_off_anywhere_is_never_stripped() {
    with_sas(|data_path| {
        for (source, destination) in PEERS {
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let frame = tagged(tags, &pair(source, destination, 20).0);
                // The kernel takes no less than an Ethernet header.
                for length in 14..frame.len() {
                    let cut = &frame[..length];
                    let outcome = through_xdp(data_path, cut);
                    assert_eq!(outcome.packet, cut, "{length} octets of {}", frame.len());
                    assert_ne!(outcome.counted, [(Reason::Stripped, 1)], "{length} octets");
                }
            }
        }
    });
}

#[test]
fn a_forgotten_sa_is_unknown_again() {
    with_sas(|data_path| {
        let (source, destination) = PEERS[0];
        let frame = ethernet(&pair(source, destination, 20).0);
        assert_eq!(through_xdp(data_path, &frame).counted, [(Reason::Stripped, 1)]);
        let destination = destination.parse().unwrap();
        assert!(data_path.remove_sa(destination, SPI).unwrap());
        assert!(!data_path.remove_sa(destination, SPI).unwrap(), "it is gone");
        assert_eq!(through_xdp(data_path, &frame), untouched(&frame, Some(Reason::UnknownSpi)));
        assert_eq!(data_path.sas().unwrap().len(), 7);
    });
}

/// Where the SAs of [`PEERS`] are reached too.
const OTHERS: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

#[test]
fn an_sa_that_is_reached_at_another_address_gets_its_packets_as_if_sent_to_its_own() {
    with_sas(|data_path| {
        for ((source, destination), other) in PEERS.into_iter().zip(OTHERS) {
            let (at, to) = (other.parse().unwrap(), destination.parse().unwrap());
            data_path.reach_sa_at(at, SPI, to, from(source, 31_000)).unwrap();
            data_path.reach_sa_at(at, BARE_SPI, to, from(source, 0)).unwrap();
            for octets in [0, 1, 1400] {
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let (wrapped, _) = pair(source, other, octets);
                    let (_, stripped) = pair(source, destination, octets);
                    let esp = esp(BARE_SPI, octets);
                    let [bare, readdressed] =
                        [other, destination].map(|to| Ip::new(source, to, ESP).packet(&esp));
                    for (packet, expected, reason) in [
                        (wrapped, stripped, Reason::Stripped),
                        (bare, readdressed, Reason::Readdressed),
                    ] {
                        let outcome = through_xdp(data_path, &tagged(tags, &packet));
                        let expected = Outcome {
                            verdict: XDP_PASS,
                            packet: tagged(tags, &expected),
                            counted: vec![(reason, 1)],
                        };
                        assert_eq!(outcome, expected, "{other} {octets} {tags:x?}");
                    }
                }
            }
            // At its own address nothing changes, nor for an SPI that is not known at the other.
            let own = ethernet(&Ip::new(source, destination, ESP).packet(&esp(BARE_SPI, 20)));
            assert_eq!(through_xdp(data_path, &own), untouched(&own, None));
            let unknown = Ip::new(source, other, ESP).packet(&esp(KERNEL_SPI, 20));
            let unknown = ethernet(&unknown);
            assert_eq!(through_xdp(data_path, &unknown), untouched(&unknown, None));
            // All fragments of a packet have one destination, and only the first shows the SPI.
            if source.contains('.') {
                let first =
                    Ip::new(source, other, ESP).fragment(0, true).packet(&esp(BARE_SPI, 40));
                let first = ethernet(&first);
                assert_eq!(through_xdp(data_path, &first), untouched(&first, None));
            }
            let short = &BARE_SPI.to_be_bytes()[..3];
            let short = ethernet(&Ip::new(source, other, ESP).packet(short));
            assert_eq!(through_xdp(data_path, &short), untouched(&short, None));
            assert!(data_path.remove_sa(at, BARE_SPI).unwrap());
            let bare = ethernet(&Ip::new(source, other, ESP).packet(&esp(BARE_SPI, 20)));
            assert_eq!(through_xdp(data_path, &bare), untouched(&bare, None));
            // An SA that comes to be there itself is reached there as it is.
            data_path.reach_sa_at(at, BARE_SPI, to, from(source, 0)).unwrap();
            let direction = SaDirection::Inbound { strip: true, from: from(source, 0) };
            data_path.insert_sa(&Sa { destination: at, spi: BARE_SPI, direction }).unwrap();
            assert_eq!(through_xdp(data_path, &bare), untouched(&bare, None));
        }
        let [v4, v6] = OTHERS.map(|other| other.parse().unwrap());
        let error = data_path.reach_sa_at(v4, SPI, v6, from(PEERS[0].0, 0)).unwrap_err();
        assert!(error.to_string().contains("two address families"), "{error}");
    });
}

#[test]
fn the_known_sas_are_listed_as_they_were_given() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let mut given = Vec::new();
        for (peer, local) in PEERS {
            let destination = local.parse().unwrap();
            for (spi, direction) in [
                (1, SaDirection::Inbound { strip: false, from: from(peer, 0) }),
                (2, SaDirection::Inbound { strip: true, from: from(peer, 31_000) }),
                (u32::MAX, SaDirection::Outbound),
            ] {
                let sa = Sa { destination, spi, direction };
                data_path.insert_sa(&sa).unwrap();
                given.push(sa);
            }
        }
        assert_eq!(data_path.sas().unwrap(), given);
    });
}
