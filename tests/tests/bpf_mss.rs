//! TCP's segment sizes by test-run: which SYN is changed, to what, and that its checksum still holds.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "This is test code."
)]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use bpf::{TC_NEXT, TC_REDIRECT, isolated, rule, through_tc};
use gateway::kernel::bpf::{ClassRule, DataPath};
use gateway_common::{Action, Reason, program};
use gateway_tests::packet::{Ip, TCP, UDP, ethernet, tagged, tcp, udp};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// Protect the peer's sites, but for SSH.
fn rules() -> Vec<ClassRule> {
    let v4 = |id, action| rule(id, "10.1.0.0/16", "10.2.0.0/15", action);
    vec![
        ClassRule { protocol: Some(TCP), remote_ports: 22..=22, ..v4(1, Action::Bypass) },
        v4(2, Action::Protect),
        rule(3, "fd01::/16", "fd02::/16", Action::Protect),
    ]
}

fn with_rules(test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        data_path.classify(&rules()).unwrap();
        test(&mut data_path);
    });
}

/// A segment with these flags and options, which are filled up to whole words, and some checksum.
fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = tcp(40_000, 80);
    segment.extend(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[12] = u8::try_from(segment.len() / 4).unwrap() << 4;
    segment[13] = flags;
    segment[16..18].copy_from_slice(&[0xbe, 0xef]);
    segment
}

/// The option for a segment size.
fn mss(size: u16) -> Vec<u8> {
    [&[2, 4][..], &size.to_be_bytes()].concat()
}

/// The sum that a checksum makes zero (RFC 1071). The checksum was right before and is after if
/// this is the same, since the addresses have not changed.
fn sum(segment: &[u8]) -> u32 {
    let words = segment
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let sum = words.fold(0, |sum: u32, word| sum.wrapping_add(word));
    // 0 and 0xffff are one number.
    sum % 0xffff
}

/// What becomes of a segment: the segment as it goes into the XFRM interface.
fn protected(data_path: &mut DataPath, name: &str, ip: &Ip, segment: &[u8]) -> Vec<u8> {
    let packet = ip.packet(segment);
    let outcome = through_tc(data_path, program::STEER_EGRESS, &ethernet(&packet), 0);
    assert_eq!(outcome.verdict, TC_REDIRECT, "{name}");
    let before = outcome.packet.len() - segment.len();
    let (headers, sent) = outcome.packet.split_at(before);
    assert_eq!(headers, &ethernet(&packet)[..before], "{name}");
    let is_changed = sent != segment;
    let changed = is_changed.then_some((Reason::MssClamped, 1));
    let expected: Vec<_> = [(Reason::Protected, 1)].into_iter().chain(changed).collect();
    assert_eq!(outcome.counted, expected, "{name}");
    assert_eq!(sum(sent), sum(segment), "{name}: the checksum");
    assert!(!is_changed || sent[16..18] != segment[16..18], "{name}: the checksum");
    sent.to_vec()
}

#[test]
fn a_syn_announces_no_more_than_what_fits() {
    let v4 = Ip::new("10.1.0.9", "10.2.0.9", TCP);
    let v6 = Ip::new("fd01::9", "fd02::9", TCP);
    let nothing: &[u8] = &[];
    let sack_and_times: &[u8] = &[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    // What is before the option, what it says, what comes after, and what it says then: with the
    // MTU of 1400 of the XFRM interface, 1360 and 1340.
    let table = [
        ("a SYN", &v4, SYN, nothing, 1460, nothing, 1360),
        ("its answer", &v4, SYN_ACK, nothing, 1460, nothing, 1360),
        ("a SYN, v6", &v6, SYN, nothing, 1440, nothing, 1340),
        ("a jumbo", &v4, SYN, nothing, 8960, nothing, 1360),
        ("the largest", &v4, SYN, nothing, u16::MAX, nothing, 1360),
        ("exactly what fits", &v4, SYN, nothing, 1360, nothing, 1360),
        ("one more", &v4, SYN, nothing, 1361, nothing, 1360),
        ("less", &v4, SYN, nothing, 536, nothing, 536),
        ("no SYN", &v4, ACK, nothing, 1460, nothing, 1460),
        ("as Linux sends it", &v4, SYN, nothing, 1460, sack_and_times, 1360),
        ("behind others", &v4, SYN, sack_and_times, 1460, &[1, 3, 3, 7], 1360),
        ("at an odd place", &v4, SYN, &[1], 1460, &[3, 3, 7], 1360),
        ("at an odd place, v6", &v6, SYN, &[1, 1, 1], 1440, &[1, 3, 3, 7], 1340),
        ("last of 40 octets", &v4, SYN, &[1; 36], 1460, nothing, 1360),
        ("behind the end of the options", &v4, SYN, &[0, 0, 0, 0], 1460, nothing, 1460),
        ("behind one without a length", &v4, SYN, &[9, 0], 1460, nothing, 1460),
        ("behind one of length 1", &v4, SYN, &[9, 1], 1460, nothing, 1460),
        ("behind one that is too long", &v4, SYN, &[9, 30], 1460, nothing, 1460),
        ("behind one of its kind and another length", &v4, SYN, &[2, 3, 9], 1460, &[1], 1360),
    ];
    with_rules(|data_path| {
        for (name, ip, flags, before, old, after, new) in table {
            let with = |size| segment(flags, &[before, &mss(size), after].concat());
            let mut expected = with(new);
            let sent = protected(data_path, name, ip, &with(old));
            // Its checksum was looked at.
            expected[16..18].copy_from_slice(&sent[16..18]);
            assert_eq!(sent, expected, "{name}");
        }
        let without = segment(SYN, &[4, 2, 1, 1]);
        assert_eq!(protected(data_path, "no segment size", &v4, &without), without);
        let options = Ip::clone(&v4).options(3);
        let sent = protected(data_path, "IPv4 options", &options, &segment(SYN, &mss(1460)));
        assert_eq!(sent[20..], mss(1360));
        let extended = Ip::clone(&v6).extension(0).extension(60);
        let sent = protected(data_path, "extensions", &extended, &segment(SYN, &mss(1440)));
        assert_eq!(sent[20..], mss(1340));
    });
}

#[test]
fn what_is_no_whole_syn_to_be_encrypted_is_left_alone() {
    let v4 = |to, protocol| Ip::new("10.1.0.9", to, protocol);
    let syn = segment(SYN, &mss(1460));
    with_rules(|data_path| {
        // Every length but the whole one.
        for length in 4..syn.len() {
            let cut = &syn[..length];
            let sent = protected(data_path, "cut off", &v4("10.2.0.9", TCP), cut);
            assert_eq!(sent, cut, "{length} octets");
        }
        let mut lies = segment(SYN, &mss(1460));
        lies[12] = 0x50;
        assert_eq!(protected(data_path, "no options", &v4("10.2.0.9", TCP), &lies), lies);
        lies[12] = 0;
        assert_eq!(protected(data_path, "no header", &v4("10.2.0.9", TCP), &lies), lies);
        lies[12] = 0xf0;
        let sent = protected(data_path, "a long header", &v4("10.2.0.9", TCP), &lies);
        assert_eq!(sent[20..], mss(1360), "the option itself is there");
        let later = v4("10.2.0.9", TCP).fragment(64, false);
        assert_eq!(protected(data_path, "a later fragment", &later, &syn), syn);
        let as_udp = udp(40_000, 80, &syn);
        assert_eq!(protected(data_path, "UDP", &v4("10.2.0.9", UDP), &as_udp), as_udp);
        let mut ssh = syn.clone();
        ssh[2..4].copy_from_slice(&22_u16.to_be_bytes());
        for (name, to, segment) in
            [("bypassed", "10.2.0.9", &ssh), ("in the clear", "10.9.0.9", &syn)]
        {
            let frame = ethernet(&v4(to, TCP).packet(segment));
            let outcome = through_tc(data_path, program::STEER_EGRESS, &frame, 0);
            assert_eq!((outcome.verdict, outcome.packet), (TC_NEXT, frame), "{name}");
        }
    });
}

#[test]
fn each_destination_has_the_limit_of_its_longest_prefix() {
    let size = |data_path: &mut DataPath, to: &str| {
        let from = if to.contains(':') { "fd01::9" } else { "10.1.0.9" };
        let ip = Ip::new(from, to, TCP);
        let sent = protected(data_path, to, &ip, &segment(SYN, &mss(9000)));
        u16::from_be_bytes([sent[22], sent[23]])
    };
    with_rules(|data_path| {
        let set = |data_path: &mut DataPath, prefix: &str, mtu| {
            data_path.set_mtu(prefix.parse().unwrap(), mtu).unwrap();
        };
        set(data_path, "10.2.0.0/16", 1438);
        set(data_path, "10.2.9.0/24", 1300);
        set(data_path, "fd02:1::/32", 1422);
        assert_eq!(size(data_path, "10.2.0.9"), 1398);
        assert_eq!(size(data_path, "10.2.9.9"), 1260);
        assert_eq!(size(data_path, "10.3.0.9"), 1360, "that of the XFRM interface");
        assert_eq!(size(data_path, "fd02:1::9"), 1362);
        assert_eq!(size(data_path, "fd02:2::9"), 1340);
        set(data_path, "10.2.9.0/24", 1280);
        assert_eq!(size(data_path, "10.2.9.9"), 1240, "it is another one now");
        set(data_path, "10.3.0.0/16", 0);
        set(data_path, "10.3.1.0/24", 100);
        assert_eq!(size(data_path, "10.3.0.9"), 9000, "no limit");
        assert_eq!(size(data_path, "10.3.1.9"), 9000, "no limit that makes sense");
        let forget = |data_path: &mut DataPath, prefix: &str| {
            data_path.forget_mtu(prefix.parse().unwrap()).unwrap();
        };
        forget(data_path, "10.2.9.0/24");
        assert_eq!(size(data_path, "10.2.9.9"), 1398);
        forget(data_path, "10.2.9.0/24");
        data_path.forget_mtus().unwrap();
        assert_eq!(size(data_path, "10.2.9.9"), 1360);
        assert_eq!(size(data_path, "fd02:1::9"), 1340);
        data_path.forget_mtus().unwrap();
    });
}

#[test]
fn a_tagged_syn_is_changed_before_its_tag_is_taken_off() {
    with_rules(|data_path| {
        let ip = Ip::new("10.1.0.9", "10.2.0.9", TCP);
        let frame = tagged(&[0x8100], &ip.packet(&segment(SYN, &mss(1460))));
        let outcome = through_tc(data_path, program::STEER_EGRESS, &frame, 0);
        assert_eq!(outcome.verdict, TC_REDIRECT);
        assert_eq!(outcome.counted, [(Reason::Protected, 1), (Reason::MssClamped, 1)]);
        assert_eq!(outcome.packet[outcome.packet.len() - 4..], mss(1360));
    });
}
