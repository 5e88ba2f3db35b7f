//! How much of IKE passes, and what becomes of the rest.

use super::*;

/// Sends so many requests and gives how many were treated in each way.
fn flood(data_path: &mut DataPath, frame: &[u8], count: usize) -> [usize; 3] {
    let mut verdicts = [0; 3];
    for _ in 0..count {
        let place = match through_xdp(data_path, frame).verdict {
            XDP_PASS => 0,
            XDP_TX => 1,
            XDP_DROP => 2,
            other => panic!("verdict {other}"),
        };
        verdicts[place] += 1;
    }
    verdicts
}

/// Whether one of two packets meets this: a second may pass before the first.
fn soon(data_path: &mut DataPath, frame: &[u8], verdict: u32) -> bool {
    (0..2).any(|_| through_xdp(data_path, frame).verdict == verdict)
}

#[test]
fn too_many_requests_of_all_make_everybody_return_a_cookie() {
    // One a second in the long run; it takes two at least until cookies are no longer demanded.
    let limits = InitLimits { init_rate: 1, ..InitLimits::default() };
    protected(&limits, false, |data_path| {
        let (from, us) = ENDS[0];
        let frame = ethernet(&datagram(from, us, 500, &init()));
        assert_eq!(through_xdp(data_path, &frame), passed(&frame, Reason::IkeInit));
        let [passed_on, answered, _] = flood(data_path, &frame, 20);
        // A second may pass before the second request.
        assert!(passed_on <= 1 && passed_on + answered == 20, "{passed_on} {answered}");
        for (from, us) in ENDS {
            let other = ethernet(&datagram(from, us, 4500, &init()));
            assert_eq!(through_xdp(data_path, &other).verdict, XDP_TX);
            let good = cookie(CURRENT, from, THEIR_PORT, SPI);
            let with_cookie = ethernet(&datagram(from, us, 4500, &init_with(&good)));
            let expected = passed(&with_cookie, Reason::IkeInitWithCookie);
            assert_eq!(through_xdp(data_path, &with_cookie), expected);
        }
        // Nothing else is kept from the daemon.
        let known = ethernet(&datagram(from, us, 500, &message([7; 8], 46, 37, 0x08, &[0; 40])));
        assert_eq!(through_xdp(data_path, &known), passed(&known, Reason::IkeOn500));
        let unlimited = InitLimits { init_rate: 0, prefix_rate: 0, ..InitLimits::default() };
        isolated(|bpffs| {
            let mut data_path = bpf::load(&bpf::config(bpffs));
            bpf::serve_at(&mut data_path, bpf::TEST_RUN, &[us]);
            protect(&mut data_path, &unlimited, false);
            assert_eq!(flood(&mut data_path, &frame, 500), [500, 0, 0]);
        });
    });
}

#[test]
fn too_many_requests_of_a_prefix_make_it_return_cookies_and_too_many_of_those_are_dropped() {
    let limits =
        InitLimits { init_rate: 0, prefix_rate: 1, prefix_burst: 5, ..InitLimits::default() };
    let others = [("192.0.3.2", "192.0.2.255"), ("2001:db8:0:100::2", "2001:db8:0:ff::2")];
    protected(&limits, false, |data_path| {
        for ((from, us), (beyond, within)) in ENDS.into_iter().zip(others) {
            let frame = |from: &str| ethernet(&datagram(from, us, 500, &init()));
            let [passed_on, answered, lost] = flood(data_path, &frame(from), 40);
            // A token may come back meanwhile.
            assert!((5..10).contains(&passed_on) && answered >= 30, "{passed_on} {answered}");
            assert_eq!(lost, 0);
            assert!(soon(data_path, &frame(within), XDP_TX), "of the same prefix");
            assert_eq!(through_xdp(data_path, &frame(beyond)).verdict, XDP_PASS, "of another one");
            // Who has a cookie is counted apart: whatever was sent in the name of the prefix.
            let good = cookie(CURRENT, from, THEIR_PORT, SPI);
            let frame = ethernet(&datagram(from, us, 500, &init_with(&good)));
            let expected = passed(&frame, Reason::IkeInitWithCookie);
            assert_eq!(through_xdp(data_path, &frame), expected);
            let [passed_on, answered, lost] = flood(data_path, &frame, 40);
            assert!((4..10).contains(&passed_on) && lost >= 30, "{passed_on} {lost}");
            assert_eq!(answered, 0);
            assert!(soon(data_path, &frame, XDP_DROP));
            assert!(bpf::counters(data_path)[&Reason::IkePrefixLimited] > 30);
            // And nobody else of the prefix suffers.
            let good = cookie(CURRENT, within, THEIR_PORT, SPI);
            let frame = ethernet(&datagram(within, us, 500, &init_with(&good)));
            let expected = passed(&frame, Reason::IkeInitWithCookie);
            assert_eq!(through_xdp(data_path, &frame), expected, "{within}");
        }
    });
}

#[test]
fn messages_of_other_versions_pass_at_a_rate() {
    let limits = InitLimits { other_version_rate: 1, ..InitLimits::default() };
    protected(&limits, false, |data_path| {
        let (from, us) = ENDS[0];
        let frame = ethernet(&datagram(from, us, 500, &with(&init(), VERSION, &[0x10])));
        assert_eq!(through_xdp(data_path, &frame), passed(&frame, Reason::IkeOn500));
        assert!(soon(data_path, &frame, XDP_DROP));
        assert!(bpf::counters(data_path)[&Reason::IkeVersionLimited] >= 1);
        // What IKEv1 goes on with may be for a host behind us.
        let known = with(&message([7; 8], 46, 37, 0x08, &[0; 40]), VERSION, &[0x10]);
        let frame = ethernet(&datagram(from, us, 500, &known));
        assert_eq!(through_xdp(data_path, &frame), passed(&frame, Reason::IkeOn500));
        assert!(soon(data_path, &frame, XDP_DROP));
    });
}
