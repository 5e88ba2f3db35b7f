//! The TC programs by test-run: a packet in; the verdict and the counters out.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "this is test code")]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use bpf::{
    MARK, Outcome, TC_DROP, TC_NEXT, TC_REDIRECT, TEST_RUN, isolated, rule, serve_at, through_tc,
};
use gateway::kernel::bpf::{BpfError, ClassRule, DataPath, RuleError, Sa, SaDirection};
use gateway_common::{Action, Reason, program};
use gateway_tests::packet::{ESP, ICMP, ICMPV6, Ip, TCP, UDP, esp, ethernet, tagged, tcp, udp};

const SPI: u32 = 0xc123_4567;

/// Bypass SSH to the peer's site, protect the rest of it, discard one prefix; and all traffic
/// between the gateways themselves.
fn rules() -> Vec<ClassRule> {
    let v4 = |id, remote, action| rule(id, "10.1.0.0/16", remote, action);
    let v6 = |id, remote, action| rule(id, "fd01::/16", remote, action);
    let ssh = |rule| ClassRule { protocol: Some(TCP), remote_ports: 22..=22, ..rule };
    vec![
        ssh(v4(1, "10.2.0.0/16", Action::Bypass)),
        ssh(v6(2, "fd02::/16", Action::Bypass)),
        v4(3, "10.2.0.0/16", Action::Protect),
        v6(4, "fd02::/16", Action::Protect),
        v4(5, "10.3.0.0/24", Action::Discard),
        v6(6, "fd03::/64", Action::Discard),
        rule(7, "192.0.2.1/32", "192.0.2.2/32", Action::Protect),
        rule(8, "2001:db8::1/128", "2001:db8::2/128", Action::Protect),
        ClassRule {
            protocol: Some(UDP),
            remote_ports: 5000..=5999,
            ..rule(9, "10.1.0.0/16", "10.4.0.0/16", Action::Protect)
        },
    ]
}

fn with_rules(test: impl FnOnce(&mut DataPath) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        data_path.classify(&rules()).unwrap();
        serve_at(&mut data_path, TEST_RUN, &["10.1.0.9", "fd01::9"]);
        test(&mut data_path);
    });
}

fn steer(data_path: &mut DataPath, frame: &[u8]) -> Outcome {
    through_tc(data_path, program::STEER_EGRESS, frame, 0)
}

fn guard(data_path: &mut DataPath, frame: &[u8]) -> Outcome {
    through_tc(data_path, program::GUARD_INGRESS, frame, 0)
}

/// The verdict that a reason has at TC.
fn outcome(frame: &[u8], reason: Option<Reason>) -> Outcome {
    let verdict = match reason.map(Reason::verdict) {
        None | Some(gateway_common::Verdict::Pass) => TC_NEXT,
        // No reason of TC answers.
        Some(gateway_common::Verdict::Drop | gateway_common::Verdict::Answer) => TC_DROP,
        Some(gateway_common::Verdict::Redirect) => TC_REDIRECT,
    };
    let counted = reason.into_iter().map(|reason| (reason, 1)).collect();
    Outcome { verdict, packet: frame.to_vec(), counted }
}

#[test]
fn each_packet_on_its_way_out_meets_its_rule() {
    use Reason::{BypassedOut, DiscardedOut, Protected};
    let v4 = |to, protocol| Ip::new("10.1.0.9", to, protocol);
    let v6 = |to, protocol| Ip::new("fd01::9", to, protocol);
    let dns = udp(40_000, 53, b"?");
    let table: Vec<(&str, Vec<u8>, Option<Reason>)> = vec![
        ("UDP", v4("10.2.9.9", UDP).packet(&dns), Some(Protected)),
        ("UDP, v6", v6("fd02::9", UDP).packet(&dns), Some(Protected)),
        ("ping", v4("10.2.9.9", ICMP).packet(&[8, 0, 0, 0]), Some(Protected)),
        ("ping, v6", v6("fd02::9", ICMPV6).packet(&[128, 0, 0, 0]), Some(Protected)),
        ("IPv4 options", v4("10.2.9.9", UDP).options(3).packet(&dns), Some(Protected)),
        ("SSH", v4("10.2.9.9", TCP).packet(&tcp(40_000, 22)), Some(BypassedOut)),
        ("SSH, v6", v6("fd02::9", TCP).packet(&tcp(40_000, 22)), Some(BypassedOut)),
        ("port 22 of UDP", v4("10.2.9.9", UDP).packet(&udp(40_000, 22, b"")), Some(Protected)),
        ("port 22 here", v4("10.2.9.9", TCP).packet(&tcp(22, 40_000)), Some(Protected)),
        ("discarded", v4("10.3.0.1", TCP).packet(&tcp(1, 2)), Some(DiscardedOut)),
        ("discarded, v6", v6("fd03::1", TCP).packet(&tcp(1, 2)), Some(DiscardedOut)),
        ("beyond the prefix", v4("10.3.1.1", TCP).packet(&tcp(1, 2)), None),
        ("elsewhere", v4("198.51.100.1", UDP).packet(&dns), None),
        ("elsewhere, v6", v6("fd09::1", UDP).packet(&dns), None),
        ("from elsewhere", Ip::new("10.9.0.1", "10.2.9.9", UDP).packet(&dns), None),
        ("the lowest port", v4("10.4.0.1", UDP).packet(&udp(1, 5000, b"")), Some(Protected)),
        ("the highest port", v4("10.4.0.1", UDP).packet(&udp(1, 5999, b"")), Some(Protected)),
        ("below the ports", v4("10.4.0.1", UDP).packet(&udp(1, 4999, b"")), None),
        ("above the ports", v4("10.4.0.1", UDP).packet(&udp(1, 6000, b"")), None),
        ("a protocol without ports", v4("10.4.0.1", ICMP).packet(&[8, 0, 0, 0]), None),
        ("hop-by-hop options", v6("fd02::9", UDP).extension(0).packet(&dns), Some(Protected)),
        (
            "SSH behind options",
            v6("fd02::9", TCP).extension(0).extension(43).extension(60).packet(&tcp(1, 22)),
            Some(BypassedOut),
        ),
    ];
    with_rules(|data_path| {
        for (name, packet, reason) in &table {
            let frame = ethernet(packet);
            assert_eq!(steer(data_path, &frame), outcome(&frame, *reason), "{name}");
        }
        let arp = [&[2; 12][..], &[0x08, 0x06], &[0; 28]].concat();
        assert_eq!(steer(data_path, &arp), outcome(&arp, None), "ARP");
    });
}

#[test]
fn each_packet_on_its_way_in_meets_its_rule() {
    use Reason::{BypassedIn, ClearInbound, DiscardedIn};
    let v4 = |protocol| Ip::new("10.2.9.9", "10.1.0.9", protocol);
    let v6 = |protocol| Ip::new("fd02::9", "fd01::9", protocol);
    let v4_behind = |protocol| Ip::new("10.2.9.9", "10.1.0.10", protocol);
    let v6_behind = |protocol| Ip::new("fd02::9", "fd01::a", protocol);
    let dns = udp(53, 40_000, b"!");
    let table: Vec<(&str, Vec<u8>, Option<Reason>)> = vec![
        ("UDP", v4(UDP).packet(&dns), Some(ClearInbound)),
        ("UDP, v6", v6(UDP).packet(&dns), Some(ClearInbound)),
        ("ping", v4(ICMP).packet(&[0, 0, 0, 0]), Some(ClearInbound)),
        ("SSH's answer", v4(TCP).packet(&tcp(22, 40_000)), Some(BypassedIn)),
        ("SSH from there", v4(TCP).packet(&tcp(40_000, 22)), Some(ClearInbound)),
        ("ESP of anyone", v4(ESP).packet(&esp(7, 40)), None),
        ("ESP of anyone, v6", v6(ESP).packet(&esp(7, 40)), None),
        ("IKE", v4(UDP).packet(&udp(31_000, 500, &[1; 28])), None),
        ("ESP in UDP", v4(UDP).packet(&udp(31_000, 4500, &esp(7, 40))), None),
        ("ESP for one behind us", v4_behind(ESP).packet(&esp(7, 40)), Some(ClearInbound)),
        ("the same, v6", v6_behind(ESP).packet(&esp(7, 40)), Some(ClearInbound)),
        (
            "IKE for one behind us",
            v4_behind(UDP).packet(&udp(500, 500, &[1; 28])),
            Some(ClearInbound),
        ),
        (
            "ESP in UDP for one behind us, v6",
            v6_behind(UDP).packet(&udp(31_000, 4500, &esp(7, 40))),
            Some(ClearInbound),
        ),
        ("from port 500", v4(UDP).packet(&udp(500, 31_000, &[1; 28])), Some(ClearInbound)),
        ("TCP to port 500", v4(TCP).packet(&tcp(31_000, 500)), Some(ClearInbound)),
        ("discarded", Ip::new("10.3.0.1", "10.1.0.9", UDP).packet(&dns), Some(DiscardedIn)),
        (
            "IKE where all is discarded",
            Ip::new("10.3.0.1", "10.1.0.9", UDP).packet(&udp(500, 500, &[1; 28])),
            Some(DiscardedIn),
        ),
        ("elsewhere", Ip::new("198.51.100.1", "10.1.0.9", UDP).packet(&dns), None),
        ("a rule the other way round", Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&dns), None),
    ];
    with_rules(|data_path| {
        for (name, packet, reason) in &table {
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let frame = tagged(tags, packet);
                // The kernel takes the first tag off before the program sees the packet.
                let counted: Vec<(Reason, u64)> =
                    reason.iter().map(|reason| (*reason, 1)).collect();
                let found = guard(data_path, &frame);
                assert_eq!(found.counted, counted, "{name} {tags:x?}");
                assert_eq!(found.verdict, outcome(&frame, *reason).verdict, "{name} {tags:x?}");
            }
        }
    });
}

#[test]
fn a_later_fragment_leaks_nothing_and_breaks_no_carrier() {
    use Reason::{ClearInbound, Protected};
    let later = |from, to, protocol| Ip::new(from, to, protocol).fragment(16, false);
    let first = |from, to, protocol| Ip::new(from, to, protocol).fragment(0, true);
    with_rules(|data_path| {
        for (here, there) in [("10.1.0.9", "10.2.9.9"), ("fd01::9", "fd02::9")] {
            // The bypass for SSH is for some ports, and these are not to be seen.
            let frame = ethernet(&later(here, there, TCP).packet(&[0; 40]));
            assert_eq!(steer(data_path, &frame), outcome(&frame, Some(Protected)));
            let frame = ethernet(&later(there, here, TCP).packet(&[0; 40]));
            assert_eq!(guard(data_path, &frame), outcome(&frame, Some(ClearInbound)));
            // A first fragment shows its ports, unless it ends before them.
            let frame = ethernet(&first(here, there, TCP).packet(&tcp(1, 22)));
            let expected = outcome(&frame, Some(Reason::BypassedOut));
            assert_eq!(steer(data_path, &frame), expected);
            let frame = ethernet(&first(here, there, TCP).packet(&[0, 1]));
            assert_eq!(steer(data_path, &frame), outcome(&frame, Some(Protected)));
            // What may belong to ESP or IKE is judged by its first fragment.
            for protocol in [UDP, ESP] {
                let frame = ethernet(&later(there, here, protocol).packet(&[0; 40]));
                assert_eq!(guard(data_path, &frame), outcome(&frame, None), "{protocol}");
            }
        }
        for (there, behind) in [("10.2.9.9", "10.1.0.10"), ("fd02::9", "fd01::a")] {
            for protocol in [UDP, ESP] {
                let frame = ethernet(&later(there, behind, protocol).packet(&[0; 40]));
                let refused = outcome(&frame, Some(ClearInbound));
                assert_eq!(guard(data_path, &frame), refused, "{protocol} for one behind us");
            }
        }
        // A rule for some ports, without one for the rest.
        let frame = ethernet(&later("10.1.0.9", "10.4.0.1", UDP).packet(&[0; 40]));
        assert_eq!(steer(data_path, &frame), outcome(&frame, Some(Protected)));
    });
}

#[test]
fn our_own_esp_and_ike_leave_although_the_peer_is_protected() {
    use Reason::{OwnEsp, OwnIke, Protected};
    with_rules(|data_path| {
        for (here, there) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let destination = there.parse().unwrap();
            let direction = SaDirection::Outbound;
            data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
            let ip = |protocol| Ip::new(here, there, protocol);
            let later = |protocol| ip(protocol).fragment(16, false);
            let in_udp = |spi| ip(UDP).packet(&udp(4500, 31_000, &esp(spi, 40)));
            let ike = ip(UDP).packet(&udp(500, 500, &[1; 28]));
            for (name, packet, mark, reason) in [
                ("ESP", ip(ESP).packet(&esp(SPI, 40)), 0, OwnEsp),
                ("ESP in UDP", in_udp(SPI), 0, OwnEsp),
                ("another's ESP", ip(ESP).packet(&esp(SPI + 1, 40)), 0, Protected),
                ("another's ESP in UDP", in_udp(SPI + 1), 0, Protected),
                ("cut-off ESP", ip(ESP).packet(&[1, 2]), 0, Protected),
                ("IKE", ike.clone(), MARK, OwnIke),
                ("another's IKE", ike, 0, Protected),
                ("another mark", ip(UDP).packet(&udp(500, 500, &[1; 28])), MARK + 1, Protected),
                ("the mark on TCP", ip(TCP).packet(&tcp(500, 500)), MARK, Protected),
                // Only the first fragment shows the SPI.
                ("a later fragment of ESP", later(ESP).packet(&[0; 40]), MARK, OwnEsp),
                ("a later fragment in UDP", later(UDP).packet(&[0; 40]), MARK, OwnIke),
                ("another's fragment", later(ESP).packet(&[0; 40]), 0, Protected),
                ("a marked fragment of TCP", later(TCP).packet(&[0; 40]), MARK, Protected),
            ] {
                let frame = ethernet(&packet);
                let found = through_tc(data_path, program::STEER_EGRESS, &frame, mark);
                assert_eq!(found, outcome(&frame, Some(reason)), "{name} {here}");
            }
            // An SA that the peer sends with is not one that we send with.
            let direction = SaDirection::Inbound { strip: true, from: (destination, 4500).into() };
            data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
            let frame = ethernet(&in_udp(SPI));
            assert_eq!(steer(data_path, &frame), outcome(&frame, Some(Protected)));
        }
    });
}

#[test]
fn without_neighbours_and_dhcp_there_is_no_network_so_they_pass() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let all = [
            rule(1, "0.0.0.0/0", "0.0.0.0/0", Action::Discard),
            rule(2, "::/0", "::/0", Action::Discard),
        ];
        data_path.classify(&all).unwrap();
        let v4 = |from, to| Ip::new(from, to, UDP);
        let v6 = |protocol| Ip::new("fe80::1", "ff02::1", protocol);
        let neighbour = |kind| v6(ICMPV6).hop_limit(255).packet(&[kind, 0, 0, 0]);
        let mut pass = vec![
            v4("0.0.0.0", "255.255.255.255").packet(&udp(68, 67, b"")),
            v4("10.0.0.1", "10.0.0.2").packet(&udp(67, 68, b"")),
            v4("10.0.0.1", "10.0.0.2").packet(&udp(67, 67, b"")),
            v6(UDP).packet(&udp(546, 547, b"")),
            v6(UDP).packet(&udp(547, 546, b"")),
        ];
        pass.extend((133..=137).map(neighbour));
        for packet in pass {
            let frame = ethernet(&packet);
            assert_eq!(steer(&mut data_path, &frame), outcome(&frame, None), "{packet:x?}");
            assert_eq!(guard(&mut data_path, &frame), outcome(&frame, None), "{packet:x?}");
        }
        let stop = vec![
            v4("10.0.0.1", "10.0.0.2").packet(&udp(68, 53, b"")),
            v4("10.0.0.1", "10.0.0.2").packet(&udp(546, 547, b"")),
            v6(UDP).packet(&udp(68, 67, b"")),
            neighbour(132),
            neighbour(138),
            // Neighbour discovery never crosses a router.
            v6(ICMPV6).hop_limit(254).packet(&[135, 0, 0, 0]),
            v6(ICMPV6).hop_limit(255).packet(&[]),
        ];
        for packet in stop {
            let frame = ethernet(&packet);
            let expected = outcome(&frame, Some(Reason::DiscardedOut));
            assert_eq!(steer(&mut data_path, &frame), expected, "{packet:x?}");
        }
    });
}

#[test]
fn an_ip_packet_that_cannot_be_read_goes_nowhere() {
    with_rules(|data_path| {
        let good = Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b""));
        let good6 = Ip::new("fd01::9", "fd02::9", UDP).extension(0).packet(&udp(1, 2, b""));
        // With a tag, since the kernel's test-run refuses shorter packets that it takes for IP.
        let cut = |packet: &[u8], length: usize| tagged(&[0x8100], &packet[..length]);
        let mut table: Vec<Vec<u8>> = (1..20).map(|length| cut(&good, length)).collect();
        table.extend((1..48).map(|length| cut(&good6, length)));
        let mut no_version = ethernet(&good);
        no_version[14] = 0x55;
        let mut short_header = ethernet(&good);
        short_header[14] = 0x44;
        let mut endless = Ip::new("fd01::9", "fd02::9", UDP);
        for _ in 0..9 {
            endless = endless.extension(60);
        }
        table.extend([no_version, short_header, ethernet(&endless.packet(&udp(1, 2, b"")))]);
        for frame in table {
            let found = steer(data_path, &frame);
            assert_eq!(found.counted, [(Reason::UnreadableOut, 1)], "{frame:x?}");
            assert_eq!(found.verdict, TC_DROP);
            let found = guard(data_path, &frame);
            assert_eq!(found.counted, [(Reason::UnreadableIn, 1)], "{frame:x?}");
            assert_eq!(found.verdict, TC_DROP);
        }
        // A header cut off behind the addresses still finds its rule, without ports.
        for length in 20..24 {
            let frame = &ethernet(&good)[..14 + length];
            assert_eq!(steer(data_path, frame), outcome(frame, Some(Reason::Protected)));
        }
    });
}

#[test]
fn a_tag_is_taken_off_on_the_way_into_the_xfrm_interface() {
    with_rules(|data_path| {
        let packet = Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"hello"));
        for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
            let found = steer(data_path, &tagged(tags, &packet));
            assert_eq!(found.verdict, TC_REDIRECT, "{tags:x?}");
            assert_eq!(found.packet, ethernet(&packet), "{tags:x?}");
        }
        let elsewhere = Ip::new("10.1.0.9", "198.51.100.1", UDP).packet(&udp(1, 2, b"hello"));
        let frame = tagged(&[0x8100], &elsewhere);
        assert_eq!(steer(data_path, &frame).counted, []);
    });
}

#[test]
fn selected_traffic_is_dropped_while_there_is_no_xfrm_interface() {
    isolated(|bpffs| {
        let mut config = bpf::config(bpffs);
        config.xfrm_ifindex = 0;
        let mut data_path = bpf::load(&config);
        data_path.classify(&rules()).unwrap();
        let frame = ethernet(&Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"")));
        let expected = outcome(&frame, Some(Reason::NoXfrmInterface));
        assert_eq!(steer(&mut data_path, &frame), expected);
    });
}

#[test]
fn without_rules_everything_passes() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let frame = ethernet(&Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"")));
        assert_eq!(steer(&mut data_path, &frame), outcome(&frame, None), "no generation yet");
        data_path.classify(&[]).unwrap();
        assert_eq!(steer(&mut data_path, &frame), outcome(&frame, None), "an empty one");
        assert_eq!(guard(&mut data_path, &frame), outcome(&frame, None));
    });
}

#[test]
fn each_rule_counts_what_it_did() {
    with_rules(|data_path| {
        let out = ethernet(&Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"")));
        let back = ethernet(&Ip::new("10.2.9.9", "10.1.0.9", UDP).packet(&udp(2, 1, b"")));
        for _ in 0..3 {
            steer(data_path, &out);
        }
        guard(data_path, &back);
        let counters = data_path.rule_counters().unwrap();
        let ids: Vec<u32> = counters.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=9).collect::<Vec<u32>>());
        for (id, count) in &counters {
            let expected = if *id == 3 { (3, 3 * 42, 1, 42) } else { (0, 0, 0, 0) };
            let found = (
                count.outbound.packets,
                count.outbound.octets,
                count.refused.packets,
                count.refused.octets,
            );
            assert_eq!(found, expected, "rule {id}");
        }
        // A rule that stays keeps its count; one that goes takes it along.
        data_path.classify(&rules()[2..4]).unwrap();
        let counters = data_path.rule_counters().unwrap();
        assert_eq!(counters.len(), 2);
        assert_eq!(counters[0].1.outbound.packets, 3);
    });
}

#[test]
fn rules_that_cannot_be_expressed_change_nothing() {
    with_rules(|data_path| {
        let mut broken = rules();
        broken[0].local = "::/0".parse().unwrap();
        let error = data_path.classify(&broken).unwrap_err();
        assert!(matches!(error, BpfError::Rule(RuleError::Families(1))), "{error}");
        let frame = ethernet(&Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"")));
        assert_eq!(steer(data_path, &frame), outcome(&frame, Some(Reason::Protected)));
    });
}

#[test]
fn full_tables_are_searched_to_their_end() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        // Forty tuples, the last one with sixteen alternatives of which the last matches.
        let mut rules: Vec<ClassRule> = (0..39)
            .map(|id| {
                let remote = format!("fd99::/{}", 16 + id);
                rule(id, "fd01::/16", &remote, Action::Discard)
            })
            .collect();
        rules.extend((0..16).map(|place| ClassRule {
            remote_ports: 1000 + place..=1000 + place,
            ..rule(100 + u32::from(place), "fd01::/16", "fd02::/100", Action::Protect)
        }));
        data_path.classify(&rules).unwrap();
        let to = |port| ethernet(&Ip::new("fd01::9", "fd02::9", UDP).packet(&udp(1, port, b"")));
        let found = steer(&mut data_path, &to(1015));
        assert_eq!(found.counted, [(Reason::Protected, 1)]);
        assert_eq!(steer(&mut data_path, &to(1016)).counted, []);
        let counters = data_path.rule_counters().unwrap();
        let hit: Vec<u32> =
            counters.iter().filter(|(_, c)| c.outbound.packets > 0).map(|(id, _)| *id).collect();
        assert_eq!(hit, [115]);
    });
}

#[test]
fn no_packet_sees_half_a_generation() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let frame = ethernet(&Ip::new("10.1.0.9", "10.2.9.9", UDP).packet(&udp(1, 2, b"")));
        // Both protect the packet, by rules in different tuples and under different keys.
        let generations = [
            [rule(1, "10.1.0.0/16", "10.2.0.0/16", Action::Protect)],
            [rule(2, "10.1.0.9/32", "10.2.9.0/24", Action::Protect)],
        ];
        data_path.classify(&generations[0]).unwrap();
        let pin = bpffs.join("steer");
        data_path.classifier(program::STEER_EGRESS).unwrap().pin(&pin).unwrap();
        let program = SchedClassifier::from_pin(&pin).unwrap();
        let done = AtomicBool::new(false);
        let runs = thread::scope(|scope| {
            let runner = scope.spawn(|| {
                let mut runs = 0;
                while !done.load(Ordering::Relaxed) {
                    let options = TestRunOptions {
                        data_in: Some(&frame),
                        repeat: 1000,
                        ..TestRunOptions::default()
                    };
                    program.test_run(options).unwrap();
                    runs += 1000;
                }
                runs
            });
            for _ in 0..100 {
                for generation in generations.iter().rev() {
                    data_path.classify(generation).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
            runner.join().unwrap()
        });
        assert!(runs > 0);
        assert_eq!(bpf::counters(&data_path)[&Reason::Protected], runs);
    });
}

/// The kernel's verifier refuses what takes it more than a million instructions
/// (`BPF_COMPLEXITY_LIMIT_INSNS`), counts them otherwise from one version to the next, and spends
/// the time of each start on them. Only with an XFRM interface is there a way through all the code.
#[test]
fn the_verifier_has_room_in_every_kernel() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let tc = [
            program::STEER_EGRESS,
            program::STEER_EGRESS_L3,
            program::GUARD_INGRESS,
            program::GUARD_INGRESS_L3,
        ]
        .map(|name| (name, data_path.classifier(name).unwrap().info()));
        let name = program::NATT_INGRESS;
        let xdp = (name, data_path.xdp(name).unwrap().info());
        for (name, info) in tc.into_iter().chain([xdp]) {
            let verified = info.unwrap().verified_instruction_count();
            println!("{name}: {verified:?} instructions verified");
            // Kernels tell since 5.16.
            assert!(verified.unwrap_or_default() < 100_000, "{name}: {verified:?}");
        }
    });
}
