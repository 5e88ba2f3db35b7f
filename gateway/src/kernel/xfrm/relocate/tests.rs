use core::num::NonZeroU32;

use gateway_ike::io::{ChildSpec, Encapsulation};
use netlink_packet_core::DefaultNla;
use netlink_packet_xfrm::{
    UserSaInfo, XFRM_USER_SA_INFO_LEN, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_CRYPT, XFRMA_ENCAP,
    XFRMA_IF_ID, XFRMA_LASTUSED, XFRMA_LTIME_VAL, XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_VAL,
    XFRMA_SET_MARK, XfrmAttrs,
};

use super::super::SaDirection::{Inbound, Outbound};
use super::super::tests::{MARK, OURS, octets};
use super::*;
use crate::kernel::testing::{CBC, GCM, child};

/// An SA as the kernel shows it: with what it has used, its replay state, and more than we know.
fn state(spec: &ChildSpec, direction: SaDirection, replay: (u16, &[u32])) -> Vec<u8> {
    let mut message = encode::sa(spec, direction, OURS, MARK, true);
    message.0.user_sa_info.lifetime_cur.packets = 7;
    message.0.user_sa_info.lifetime_cur.add_time = 1_700_000_000;
    message.0.nlas.retain(|nla| !matches!(nla, XfrmAttrs::ReplayStateEsn(_)));
    let words: Vec<u8> = replay.1.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for (kind, value) in [(replay.0, words), (XFRMA_LASTUSED, vec![1; 8])] {
        message.0.nlas.push(XfrmAttrs::Other(DefaultNla::new(kind, value)));
    }
    octets(&message)
}

fn to(last: u8, port: Option<u16>) -> SaEnds {
    SaEnds {
        source: [192, 0, 2, 1].into(),
        destination: [192, 0, 2, last].into(),
        encapsulation: port.map(|port| Encapsulation {
            local_port: 4500,
            remote_port: port,
            keepalive: None,
        }),
    }
}

/// ESP in UDP, for which the kernel sends keepalives after 20 s.
fn kept_alive(remote_port: u16) -> Encapsulation {
    Encapsulation { local_port: 4500, remote_port, keepalive: NonZeroU32::new(20) }
}

fn sends(from: SaEnds, to: SaEnds) -> SaMove {
    SaMove { spi: 0x2002, direction: Outbound, from, to }
}

fn word(value: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(value[at * 4..][..4].try_into().unwrap())
}

#[test]
fn an_sa_that_moves_keeps_keys_limits_and_mark_and_skips_sequence_numbers() {
    let spec = ChildSpec {
        encapsulation: Some(Encapsulation {
            local_port: 4500,
            remote_port: 61234,
            keepalive: None,
        }),
        ..child(CBC)
    };
    let before = state(&spec, Outbound, (XFRMA_REPLAY_ESN_VAL, &[0, u32::MAX, 0, 3, 0, 0]));
    let way = sends(to(2, Some(61234)), to(3, Some(4501)));
    let after = octets(&sa(&before, &way, way.gap()).unwrap());
    let (old, new) = (UserSaInfo::parse(&before).unwrap(), UserSaInfo::parse(&after).unwrap());
    assert_eq!(new.id.daddr, netlink_packet_xfrm::Address::from_ip(&way.to.destination));
    assert_eq!(
        (new.id.spi, new.reqid, new.mode, new.flags),
        (old.id.spi, old.reqid, old.mode, old.flags)
    );
    assert_eq!((&new.lifetime_cfg, new.seq), (&old.lifetime_cfg, 0));
    let (old, new) = (&before[XFRM_USER_SA_INFO_LEN..], &after[XFRM_USER_SA_INFO_LEN..]);
    for kind in
        [XFRMA_ALG_CRYPT, XFRMA_ALG_AUTH_TRUNC, XFRMA_IF_ID, XFRMA_SET_MARK, encode::XFRMA_SA_DIR]
    {
        assert!(attribute(new, kind).is_some(), "{kind}");
        assert_eq!(attribute(new, kind), attribute(old, kind), "{kind}");
    }
    let replay = attribute(new, XFRMA_REPLAY_ESN_VAL).unwrap();
    let low = SEQUENCE_GAP - 1;
    assert_eq!((word(replay, 1), word(replay, 3)), (low, 4), "the high half takes the carry");
    let used = attribute(new, XFRMA_LTIME_VAL).unwrap();
    assert_eq!((word(used, 2), word(used, 4)), (7, 1_700_000_000));
    let encapsulation = attribute(new, XFRMA_ENCAP).unwrap();
    assert_eq!(encapsulation[4..6], 4501_u16.to_be_bytes());
    assert_eq!(attribute(new, XFRMA_LASTUSED), None);
}

#[test]
fn an_sa_without_sequence_numbers_for_the_gap_does_not_move() {
    let spec = child(GCM);
    let way = sends(to(2, None), to(3, None));
    let last = u32::MAX - SEQUENCE_GAP;
    for (number, fits) in [(last, true), (last + 1, false), (u32::MAX, false)] {
        let before = state(&spec, Outbound, (XFRMA_REPLAY_VAL, &[number, 0, 0]));
        let moved = sa(&before, &way, way.gap());
        assert_eq!(moved.is_ok(), fits, "{number}");
        if let Err(error) = moved {
            assert!(matches!(error, NetlinkError::Exhausted), "{error}");
        }
    }
    let esn = child(CBC);
    let before = state(&esn, Outbound, (XFRMA_REPLAY_ESN_VAL, &[0, u32::MAX, 0, u32::MAX, 0, 0]));
    assert!(matches!(sa(&before, &way, way.gap()), Err(NetlinkError::Exhausted)));
}

#[test]
fn an_sa_whose_keys_the_kernel_hides_does_not_move() {
    for suite in [GCM, CBC] {
        let shown = state(&child(suite), Outbound, (XFRMA_REPLAY_VAL, &[1, 0, 0]));
        check_keys(&shown).unwrap();
        let mut spec = child(suite);
        for key in [&mut spec.outbound.encryption_key, &mut spec.outbound.integrity_key] {
            key.fill(0);
        }
        let hidden = state(&spec, Outbound, (XFRMA_REPLAY_VAL, &[1, 0, 0]));
        assert!(matches!(check_keys(&hidden), Err(NetlinkError::KeysHidden)), "{suite:?}");
    }
}

#[test]
fn what_receives_keeps_its_window_and_its_bare_esp() {
    let spec = child(GCM);
    let ends = |last: u8| SaEnds {
        source: [192, 0, 2, 9].into(),
        destination: [192, 0, 2, last].into(),
        encapsulation: None,
    };
    let way = SaMove { spi: 0x1001, direction: Inbound, from: ends(1), to: ends(7) };
    let words = [4, 0, 900, 0, 0, 128, 1, 2, 3, 4];
    let before = state(&spec, Inbound, (XFRMA_REPLAY_ESN_VAL, &words));
    let after = octets(&sa(&before, &way, way.gap()).unwrap());
    let new = &after[XFRM_USER_SA_INFO_LEN..];
    let replay = attribute(new, XFRMA_REPLAY_ESN_VAL).unwrap();
    assert_eq!((0..10).map(|at| word(replay, at)).collect::<Vec<_>>(), words);
    assert_eq!(attribute(new, XFRMA_ENCAP), None);
}

#[test]
fn only_a_change_of_ports_is_made_in_place() {
    assert!(sends(to(2, Some(1)), to(2, Some(2))).keeps_addresses());
    assert!(!sends(to(2, Some(1)), to(3, Some(1))).keeps_addresses());
    assert!(!sends(to(2, None), to(2, Some(1))).keeps_addresses(), "UDP comes or goes");
    let kept = SaEnds { encapsulation: Some(kept_alive(2)), ..to(2, Some(2)) };
    assert!(!sends(to(2, Some(1)), kept).keeps_addresses(), "we are behind NAT now");
    let other_port = SaEnds { encapsulation: Some(kept_alive(3)), ..kept };
    assert!(sends(kept, other_port).keeps_addresses());
}

#[test]
fn the_kernel_keeps_the_new_mapping_alive_if_it_is_to() {
    let spec = ChildSpec { encapsulation: Some(kept_alive(61234)), ..child(GCM) };
    let before = state(&spec, Outbound, (XFRMA_REPLAY_VAL, &[1, 0, 0]));
    let from = SaEnds { encapsulation: spec.encapsulation, ..to(2, None) };
    for (there, expected) in
        [(Some(kept_alive(700)), Some(20)), (to(3, Some(700)).encapsulation, None)]
    {
        let way = sends(from, SaEnds { encapsulation: there, ..to(3, None) });
        let after = octets(&sa(&before, &way, way.gap()).unwrap());
        let new = &after[XFRM_USER_SA_INFO_LEN..];
        let seconds = attribute(new, encode::XFRMA_NAT_KEEPALIVE_INTERVAL);
        assert_eq!(seconds.map(|value| word(value, 0)), expected);
    }
}

#[test]
fn an_sa_cut_anywhere_moves_with_what_is_whole_or_not_at_all() {
    let spec = child(GCM);
    let before = state(&spec, Outbound, (XFRMA_REPLAY_VAL, &[1, 0, 0]));
    let way = sends(to(2, None), to(3, None));
    for end in 0..XFRM_USER_SA_INFO_LEN {
        assert!(sa(&before[..end], &way, way.gap()).is_err(), "cut at {end}");
    }
    for end in XFRM_USER_SA_INFO_LEN..before.len() {
        drop(sa(&before[..end], &way, way.gap()));
    }
}
