use core::num::NonZeroU32;
use core::time::Duration;

use gateway_ike::config::{ChildLifetime, Mode};
use gateway_ike::io::{Encapsulation, KernelEvent};
use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{
    UDP_ENCAP_ESPINUDP, UserAcquire, UserExpire, UserSaInfo, UserTemplate, XFRM_INF,
    XFRM_MSG_ACQUIRE, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA,
    XFRM_MSG_UPDSA, XFRM_STATE_AF_UNSPEC, XFRM_STATE_ESN, XfrmAttrs,
};

use super::SaDirection::{Inbound, Outbound};
use super::*;
use crate::kernel::netlink::{Message, messages};
use crate::kernel::testing::{CBC, GCM, child, selector};

const IF_ID: u32 = 7;
pub(super) const OURS: Ours = Ours { if_id: IF_ID };
pub(super) const MARK: u32 = 0x1f;

pub(super) fn octets(value: &impl Emitable) -> Vec<u8> {
    let mut buffer = vec![0; value.buffer_len()];
    value.emit(&mut buffer);
    buffer
}

/// Hands the message to `take` as the socket would.
fn receive<T>(kind: u16, body: &[u8], take: impl FnOnce(&Message<'_>) -> T) -> T {
    let mut datagram = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    datagram.extend(kind.to_ne_bytes());
    datagram.extend([0; 10]);
    datagram.extend(body);
    let message = messages(&datagram).next().unwrap();
    take(&message)
}

fn attributes(spec: &ChildSpec, direction: SaDirection) -> Vec<XfrmAttrs> {
    encode::sa(spec, direction, OURS, MARK, true).0.nlas.clone()
}

fn info(spec: &ChildSpec, direction: SaDirection) -> UserSaInfo {
    encode::sa(spec, direction, OURS, MARK, true).0.user_sa_info
}

fn text(name: &[u8]) -> &str {
    core::str::from_utf8(name).unwrap().trim_end_matches('\0')
}

#[test]
fn only_the_outbound_sa_of_esp_in_udp_has_an_encapsulation_template() {
    let mut spec = child(GCM);
    spec.encapsulation =
        Some(Encapsulation { local_port: 4500, remote_port: 61234, keepalive: None });
    assert_eq!(encode::encapsulation(&spec, Inbound), None);
    let template = encode::encapsulation(&spec, Outbound).unwrap();
    assert_eq!(template.encap_type, UDP_ENCAP_ESPINUDP);
    assert_eq!((template.encap_sport, template.encap_dport), (4500, 61234));
    spec.encapsulation = None;
    assert_eq!(encode::encapsulation(&spec, Outbound), None);
}

#[test]
fn in_transport_mode_the_inbound_sa_of_esp_in_udp_has_one_too_with_the_ports_of_its_packets() {
    let mut spec = child(GCM);
    spec.mode = Mode::Transport;
    assert_eq!(encode::encapsulation(&spec, Inbound), None, "bare");
    spec.encapsulation = Some(Encapsulation {
        local_port: 4500,
        remote_port: 61234,
        keepalive: NonZeroU32::new(20),
    });
    for (direction, ports) in [(Inbound, (61234, 4500)), (Outbound, (4500, 61234))] {
        let template = encode::encapsulation(&spec, direction).unwrap();
        assert_eq!(template.encap_type, UDP_ENCAP_ESPINUDP);
        assert_eq!((template.encap_sport, template.encap_dport), ports);
    }
}

#[test]
fn the_kernel_keeps_a_mapping_alive_for_what_sends_in_udp_if_it_knows_that_it_sends() {
    let mut spec = child(GCM);
    let encapsulated =
        |keepalive| Encapsulation { local_port: 4500, remote_port: 61234, keepalive };
    let asked = |spec: &ChildSpec, direction, state_direction| {
        let body = octets(&encode::sa(spec, direction, OURS, MARK, state_direction));
        receive(XFRM_MSG_NEWSA, &body, |m| decode::sa(m, OURS)).unwrap().unwrap().1.keepalive
    };
    spec.encapsulation = Some(encapsulated(NonZeroU32::new(20)));
    assert_eq!(asked(&spec, Outbound, true), Some(20));
    assert_eq!(asked(&spec, Inbound, true), None);
    assert_eq!(asked(&spec, Outbound, false), None, "the kernel would refuse it");
    spec.encapsulation = Some(encapsulated(None));
    assert_eq!(asked(&spec, Outbound, true), None);
}

#[test]
fn an_aead_key_includes_its_salt_and_has_no_integrity() {
    let attributes = attributes(&child(GCM), Outbound);
    let keys: Vec<_> = attributes
        .iter()
        .filter_map(|attribute| {
            let XfrmAttrs::EncryptionAlgAead(a) = attribute else { return None };
            Some((text(&a.alg_name), a.alg_key_len, a.alg_icv_len, a.alg_key.as_slice()))
        })
        .collect();
    assert_eq!(keys, [("rfc4106(gcm(aes))", 160, 128, &[0x5a; 20][..])]);
    assert!(!attributes.iter().any(|a| matches!(a, XfrmAttrs::AuthenticationAlgTrunc(_))));
}

#[test]
fn cbc_has_a_key_for_each_of_encryption_and_truncated_integrity() {
    let attributes = attributes(&child(CBC), Inbound);
    assert!(attributes.iter().any(|attribute| matches!(attribute, XfrmAttrs::EncryptionAlg(a)
        if text(&a.alg_name) == "cbc(aes)" && a.alg_key_len == 256 && a.alg_key == [0xa5; 32])));
    assert!(attributes.iter().any(|attribute| matches!(attribute, XfrmAttrs::AuthenticationAlgTrunc(a)
        if text(&a.alg_name) == "hmac(sha384)" && a.alg_trunc_len == 192 && a.alg_key == [0xa5; 48])));
}

#[test]
fn every_sa_carries_our_if_id_and_its_direction() {
    for (direction, value) in [(Inbound, 1), (Outbound, 2)] {
        let attributes = attributes(&child(GCM), direction);
        assert!(attributes.contains(&XfrmAttrs::IfId(IF_ID)));
        let expected = netlink_packet_core::DefaultNla::new(33, vec![value]);
        assert!(attributes.contains(&XfrmAttrs::Other(expected)));
    }
    let without = encode::sa(&child(GCM), Inbound, OURS, MARK, false);
    assert!(!without.0.nlas.iter().any(|a| matches!(a, XfrmAttrs::Other(_))));
}

type Replay = (u8, Option<(u32, u32, usize)>);

fn replay(spec: &ChildSpec, direction: SaDirection) -> Replay {
    replay_with(spec, direction, true)
}

fn replay_with(spec: &ChildSpec, direction: SaDirection, state_direction: bool) -> Replay {
    let message = encode::sa(spec, direction, OURS, MARK, state_direction);
    let extended = message.0.nlas.iter().find_map(|attribute| {
        let XfrmAttrs::ReplayStateEsn(r) = attribute else { return None };
        Some((r.replay_window, r.bmp_len, r.bmp.len()))
    });
    (message.0.user_sa_info.replay_window, extended)
}

#[test]
fn a_small_replay_window_stands_in_the_header_and_a_large_one_in_an_attribute() {
    let mut spec = child(GCM);
    spec.replay_window = 32;
    assert_eq!(replay(&spec, Inbound), (32, None));
    spec.replay_window = 33;
    assert_eq!(replay(&spec, Inbound), (0, Some((33, 2, 2))));
    spec.replay_window = u32::MAX;
    assert_eq!(replay(&spec, Inbound), (0, Some((4096, 128, 128))));
    assert_eq!(replay(&spec, Outbound), (0, None));
}

#[test]
fn extended_sequence_numbers_need_a_window_unless_the_kernel_knows_that_the_sa_is_outbound() {
    let mut spec = child(CBC);
    spec.replay_window = 0;
    assert_eq!(replay(&spec, Inbound), (0, Some((1, 1, 1))));
    spec.replay_window = 128;
    assert_eq!(replay(&spec, Inbound), (0, Some((128, 4, 4))));
    assert_eq!(replay(&spec, Outbound), (0, Some((0, 0, 0))));
    assert_eq!(replay_with(&spec, Outbound, false), (0, Some((1, 1, 1))));
    assert_ne!(info(&spec, Outbound).flags & XFRM_STATE_ESN, 0);
    assert_eq!(info(&child(GCM), Outbound).flags & XFRM_STATE_ESN, 0);
}

#[test]
fn a_single_selector_becomes_the_selector_of_the_sa() {
    let mut spec = child(GCM);
    let inbound = info(&spec, Inbound);
    assert_eq!(inbound.selector.saddr.addr[..4], [10, 2, 0, 0]);
    assert_eq!(inbound.selector.daddr.addr[..4], [10, 1, 0, 0]);
    assert_eq!((inbound.selector.prefixlen_s, inbound.selector.family), (16, 2));
    assert_eq!(inbound.flags & XFRM_STATE_AF_UNSPEC, 0);
    let outbound = info(&spec, Outbound);
    assert_eq!(outbound.selector.daddr.addr[..4], [10, 2, 0, 0]);

    spec.selectors.push((selector("fd00:1::/64", "fd00:2::/64"), 5));
    let inbound = info(&spec, Inbound);
    assert_eq!((inbound.selector.family, inbound.selector.prefixlen_s), (0, 0));
    assert_ne!(inbound.flags & XFRM_STATE_AF_UNSPEC, 0);

    spec.mode = Mode::Transport;
    assert_eq!(info(&spec, Inbound).flags & XFRM_STATE_AF_UNSPEC, 0);
}

#[test]
fn a_selector_with_several_port_blocks_is_left_to_the_policies() {
    let mut spec = child(GCM);
    spec.selectors[0].0.remote_ports = 80..=84;
    assert_eq!(info(&spec, Outbound).selector.family, 0);
    spec.selectors[0].0.remote_ports = 80..=83;
    let selector = info(&spec, Outbound).selector;
    assert_eq!((selector.dport, selector.dport_mask, selector.sport_mask), (80, 0xfffc, 0));
}

#[test]
fn a_prefix_of_zeros_keeps_its_length() {
    let mut spec = child(GCM);
    spec.selectors = vec![(selector("0.0.0.0/8", "0.0.0.0/0"), 1)];
    let selector = info(&spec, Outbound).selector;
    assert_eq!((selector.prefixlen_s, selector.prefixlen_d), (8, 0));
}

#[test]
fn hard_limits_lie_a_tenth_above_the_soft_ones_or_a_minute() {
    let mut spec = child(GCM);
    let hour = Duration::from_secs(3600);
    spec.lifetime = ChildLifetime { time: hour, bytes: 1_000_000, packets: 5 };
    let limits = info(&spec, Inbound).lifetime_cfg;
    assert_eq!((limits.soft_add_expires_seconds, limits.hard_add_expires_seconds), (3600, 3960));
    assert_eq!((limits.soft_byte_limit, limits.hard_byte_limit), (1_000_000, 1_100_000));
    assert_eq!((limits.soft_packet_limit, limits.hard_packet_limit), (5, 6));
    spec.lifetime.time = Duration::from_secs(5);
    let limits = info(&spec, Inbound).lifetime_cfg;
    assert_eq!((limits.soft_add_expires_seconds, limits.hard_add_expires_seconds), (5, 65));
    spec.lifetime = ChildLifetime { time: Duration::ZERO, bytes: 0, packets: 0 };
    let limits = info(&spec, Inbound).lifetime_cfg;
    assert_eq!((limits.soft_add_expires_seconds, limits.hard_add_expires_seconds), (0, 0));
    assert_eq!((limits.soft_byte_limit, limits.hard_packet_limit), (XFRM_INF, XFRM_INF));
}

#[test]
fn keys_of_a_policy_are_seen_from_its_direction() {
    let mut wanted = selector("10.1.0.0/16", "10.2.0.0/16");
    wanted.remote_ports = 443..=443;
    let [out] = policy_keys(&wanted, Mode::Tunnel, PolicyDirection::Out).unwrap()[..] else {
        panic!()
    };
    let [fwd] = policy_keys(&wanted, Mode::Tunnel, PolicyDirection::Forward).unwrap()[..] else {
        panic!()
    };
    assert_eq!((out.source, out.destination), (wanted.local, wanted.remote));
    assert_eq!((fwd.source, fwd.destination), (wanted.remote, wanted.local));
    assert_eq!((out.destination_ports.value, out.source_ports.mask), (443, 0));
    assert_eq!((fwd.source_ports.value, fwd.destination_ports.mask), (443, 0));
}

#[test]
fn prefixes_of_two_families_are_refused() {
    let mixed = selector("10.1.0.0/16", "fd00::/64");
    let error = policy_keys(&mixed, Mode::Tunnel, PolicyDirection::Out).unwrap_err();
    assert!(matches!(error, SelectorError::Families(_)));
}

#[test]
fn what_is_installed_is_read_back() {
    let spec = child(GCM);
    let body = octets(&encode::sa(&spec, Inbound, OURS, MARK, true));
    let (id, usage) = receive(XFRM_MSG_NEWSA, &body, |m| decode::sa(m, OURS)).unwrap().unwrap();
    assert_eq!(id, SaId { destination: spec.inbound.destination, spi: 0x1001 });
    assert!(usage.has_direction);
    assert_eq!((usage.packets, usage.last_used), (0, None));

    let mut wanted = selector("fd00:1::/64", "fd00:2::/64");
    wanted.protocol = Some(6);
    wanted.local_ports = 1024..=2047;
    let value = PolicyValue {
        priority: 9,
        reqid: *REQIDS.start(),
        source: None,
        destination: "2001:db8::1".parse().unwrap(),
    };
    for direction in [PolicyDirection::In, PolicyDirection::Out, PolicyDirection::Forward] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let key = policy_keys(&wanted, mode, direction).unwrap()[0];
            let body = octets(&encode::policy(&key, &value, OURS));
            assert_eq!(
                receive(XFRM_MSG_NEWPOLICY, &body, |m| decode::policy(m, OURS)),
                Some((key, 9))
            );
        }
    }
}

#[test]
fn only_tunnel_mode_goes_through_the_xfrm_interface() {
    let mut spec = child(GCM);
    let has_if_id = |spec: &ChildSpec| attributes(spec, Outbound).contains(&XfrmAttrs::IfId(IF_ID));
    assert!(has_if_id(&spec));
    spec.mode = Mode::Transport;
    assert!(!has_if_id(&spec));
}

#[test]
fn each_direction_has_its_reqid() {
    let spec = child(GCM);
    let reqids = [Inbound, Outbound].map(|direction| info(&spec, direction).reqid);
    assert_eq!(reqids, [spec.inbound.reqid, spec.outbound.reqid]);
}

#[test]
fn a_larval_state_is_named_as_the_acquire_left_it() {
    let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let trap = PolicyValue { priority: 1, reqid: 12, source: Some(source), destination };
    for (mode, number, if_id) in [(Mode::Tunnel, 1, Some(IF_ID)), (Mode::Transport, 0, None)] {
        let message = encode::any_spi(encode::larval(mode, &trap, 5), OURS);
        let info = message.spi_info.info;
        assert_eq!((info.reqid, info.seq, info.mode), (12, 5, number));
        assert_eq!(decode::ip(info.family, &info.id.daddr), Some(destination));
        assert_eq!(decode::ip(info.family, &info.saddr), Some(source));
        assert_eq!(message.nlas, if_id.map(XfrmAttrs::IfId).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn only_what_the_outbound_sa_sends_is_marked() {
    let mut spec = child(GCM);
    for mode in [Mode::Tunnel, Mode::Transport] {
        spec.mode = mode;
        assert!(attributes(&spec, Outbound).contains(&XfrmAttrs::MarkVal(MARK)));
        let inbound = attributes(&spec, Inbound);
        assert!(!inbound.iter().any(|attribute| matches!(attribute, XfrmAttrs::MarkVal(_))));
    }
}

#[test]
fn what_belongs_to_another_is_not_ours() {
    let body = octets(&encode::sa(&child(GCM), Inbound, Ours { if_id: IF_ID + 1 }, MARK, false));
    assert_eq!(receive(XFRM_MSG_NEWSA, &body, |m| decode::sa(m, OURS)), Some(None));
    // In transport mode the reqid alone tells.
    let mut spec = child(GCM);
    spec.mode = Mode::Transport;
    for (reqid, is_ours) in [(*REQIDS.start(), true), (*REQIDS.end(), true), (1, false)] {
        spec.inbound.reqid = reqid;
        let body = octets(&encode::sa(&spec, Inbound, OURS, MARK, false));
        let found = receive(XFRM_MSG_NEWSA, &body, |m| decode::sa(m, OURS)).unwrap();
        assert_eq!(found.is_some(), is_ours, "{reqid}");
    }
    // A tunnel of somebody else without an XFRM interface, whatever its reqid.
    let (mut spec, theirs) = (child(GCM), Ours { if_id: 0 });
    spec.inbound.reqid = *REQIDS.start();
    let body = octets(&encode::sa(&spec, Inbound, theirs, MARK, false));
    assert_eq!(receive(XFRM_MSG_NEWSA, &body, |m| decode::sa(m, OURS)), Some(None));
}

/// An acquire for a TCP packet from 10.1.0.1:4000 to 10.2.0.2:80.
fn acquire(if_id: u32, protocol: u8) -> Vec<u8> {
    let mut acquire = UserAcquire { seq: 5, ..UserAcquire::default() };
    acquire.selector.source_prefix(&"10.1.0.1".parse().unwrap(), 32);
    acquire.selector.destination_prefix(&"10.2.0.2".parse().unwrap(), 32);
    acquire.selector.proto = protocol;
    acquire.selector.sport = 4000;
    acquire.selector.dport = 80;
    let template = UserTemplate { reqid: 12, ..UserTemplate::default() };
    let mut body = octets(&acquire);
    body.extend(octets(&[XfrmAttrs::Template(vec![template]), XfrmAttrs::IfId(if_id)].as_slice()));
    body
}

#[test]
fn an_acquire_tells_reqid_number_and_packet() {
    let event = receive(XFRM_MSG_ACQUIRE, &acquire(IF_ID, 6), |m| event(m, OURS));
    let expected = KernelEvent::Acquire {
        reqid: 12,
        seq: 5,
        source: "10.1.0.1".parse().unwrap(),
        destination: "10.2.0.2".parse().unwrap(),
        protocol: 6,
        source_port: 4000,
        destination_port: 80,
    };
    assert_eq!(event, Some(expected));
}

#[test]
fn type_and_code_of_icmp_are_not_taken_for_ports() {
    let event = receive(XFRM_MSG_ACQUIRE, &acquire(IF_ID, 1), |m| event(m, OURS));
    assert!(matches!(
        event,
        Some(KernelEvent::Acquire { source_port: 0, destination_port: 0, .. })
    ));
}

/// An SA in a dump: `change` makes it what it is.
fn dumped(change: impl FnOnce(&mut UserSaInfo)) -> Vec<u8> {
    let mut info = UserSaInfo { reqid: 12, seq: 5, ..info(&child(GCM), Outbound) };
    info.lifetime_cur.add_time = 1000;
    change(&mut info);
    let mut body = octets(&info);
    body.extend(octets(&[XfrmAttrs::IfId(IF_ID)].as_slice()));
    body
}

#[test]
fn what_a_dump_says_of_the_use_of_an_sa_is_whole_or_an_error() {
    let body = dumped(|info| (info.lifetime_cur.bytes, info.lifetime_cur.packets) = (1 << 40, 7));
    let usage = |body: &[u8]| receive(XFRM_MSG_NEWSA, body, |m| decode::usage(m, OURS));
    let (id, found) = usage(&body).unwrap().unwrap();
    assert_eq!(id, SaId { destination: "192.0.2.2".parse().unwrap(), spi: 0x2002 });
    assert_eq!((found.bytes, found.packets), (1 << 40, 7));
    // Of another protocol under the same SPI.
    assert_eq!(usage(&dumped(|info| info.id.proto = 51)).unwrap(), None);
    for length in 0..octets(&UserSaInfo::default()).len() {
        let error = usage(&body[..length]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel's answer is no SA, or too short", "{length}");
    }
    receive(XFRM_MSG_DELSA, &body, |m| decode::usage(m, OURS)).unwrap_err();
}

/// What a survey at 1100 s after 1970 makes of it.
fn surveyed(body: &[u8]) -> Option<(Option<SaId>, Option<KernelEvent>)> {
    let seen = receive(XFRM_MSG_NEWSA, body, |message| decode::seen(message, OURS, 1100))?;
    Some(match seen {
        decode::Seen::Larval(event) => (None, Some(event)),
        decode::Seen::Sa(id, event) => (Some(id), event),
    })
}

#[test]
fn a_larval_sa_tells_what_its_acquire_told() {
    let body = dumped(|info| {
        info.id.spi = 0;
        info.selector.source_prefix(&"10.1.0.1".parse().unwrap(), 32);
        info.selector.destination_prefix(&"10.2.0.2".parse().unwrap(), 32);
        info.selector.proto = 6;
        info.selector.sport = 4000;
        info.selector.dport = 80;
    });
    let told = receive(XFRM_MSG_ACQUIRE, &acquire(IF_ID, 6), |m| event(m, OURS));
    assert!(told.is_some());
    assert_eq!(surveyed(&body), Some((None, told)));
}

#[test]
fn an_sa_beyond_a_soft_limit_expires_once_more() {
    let id = SaId { destination: "192.0.2.2".parse().unwrap(), spi: 0x2002 };
    let SaId { destination, spi } = id;
    let expire = KernelEvent::Expire { spi, destination, hard: false };
    let limits = |bytes: u64, packets: u64, seconds: u64| {
        surveyed(&dumped(|info| {
            info.lifetime_cfg.soft_byte_limit = bytes;
            info.lifetime_cfg.soft_packet_limit = packets;
            info.lifetime_cfg.soft_add_expires_seconds = seconds;
            info.lifetime_cur.bytes = 500;
            info.lifetime_cur.packets = 50;
        }))
    };
    assert_eq!(limits(XFRM_INF, XFRM_INF, 0), Some((Some(id), None)));
    assert_eq!(limits(501, 51, 101), Some((Some(id), None)));
    for (bytes, packets, seconds) in [(500, 51, 101), (501, 50, 101), (501, 51, 100)] {
        assert_eq!(limits(bytes, packets, seconds), Some((Some(id), Some(expire.clone()))));
    }
}

#[test]
fn an_esp_sa_of_somebody_else_is_told_from_all_others() {
    let others = |kind, change: &dyn Fn(&mut UserSaInfo), if_id| {
        let mut body = dumped(change);
        let place = body.len() - 4;
        body[place] = if_id;
        receive(kind, &body, |message| is_of_others(message, OURS))
    };
    let esp = |info: &mut UserSaInfo| info.id.spi = 77;
    let as_it_is: &dyn Fn(&mut UserSaInfo) = &esp;
    assert!(others(XFRM_MSG_NEWSA, as_it_is, 8) && others(XFRM_MSG_UPDSA, as_it_is, 8));
    assert!(others(XFRM_MSG_NEWSA, as_it_is, 0), "without an interface");
    assert!(!others(XFRM_MSG_NEWSA, as_it_is, 7), "ours");
    assert!(!others(XFRM_MSG_EXPIRE, as_it_is, 8) && !others(XFRM_MSG_DELSA, as_it_is, 8));
    let larval = |info: &mut UserSaInfo| info.id.spi = 0;
    assert!(!others(XFRM_MSG_NEWSA, &larval, 8));
    let ah = |info: &mut UserSaInfo| info.id.proto = 51;
    assert!(!others(XFRM_MSG_NEWSA, &ah, 8));
    let inside = |info: &mut UserSaInfo| info.destination(&"127.0.0.1".parse().unwrap());
    assert!(!others(XFRM_MSG_NEWSA, &inside, 8), "it is on no wire");
    let body = dumped(esp);
    for length in 0..body.len() - 4 {
        let cut = &body[..length];
        // Without the attribute it is of nobody whom we know.
        let whole = length >= body.len() - 8;
        assert_eq!(receive(XFRM_MSG_NEWSA, cut, |m| is_of_others(m, OURS)), whole, "{length}");
    }
}

#[test]
fn what_a_dump_shows_of_others_is_ignored() {
    let mut body = dumped(|info| info.id.spi = 0);
    let if_id = body.len() - 4;
    body[if_id] = 8;
    assert_eq!(surveyed(&body), None);
}

fn expire(if_id: u32, spi: u32, hard: u8) -> Vec<u8> {
    let mut expire = UserExpire::default();
    expire.state.destination(&"2001:db8::1".parse().unwrap());
    expire.state.id.spi = spi;
    expire.hard = hard;
    let mut body = octets(&expire);
    body.extend(octets(&[XfrmAttrs::IfId(if_id)].as_slice()));
    body
}

#[test]
fn an_expire_tells_the_sa_and_whether_it_is_gone() {
    for hard in [0, 1] {
        let event = receive(XFRM_MSG_EXPIRE, &expire(IF_ID, 0x1234, hard), |m| event(m, OURS));
        let destination = "2001:db8::1".parse().unwrap();
        let expected = KernelEvent::Expire { spi: 0x1234, destination, hard: hard == 1 };
        assert_eq!(event, Some(expected));
    }
}

#[test]
fn events_of_others_and_of_larval_states_are_ignored() {
    let other = IF_ID + 1;
    assert_eq!(receive(XFRM_MSG_ACQUIRE, &acquire(other, 6), |m| event(m, OURS)), None);
    assert_eq!(receive(XFRM_MSG_EXPIRE, &expire(other, 9, 1), |m| event(m, OURS)), None);
    assert_eq!(receive(XFRM_MSG_EXPIRE, &expire(IF_ID, 0, 1), |m| event(m, OURS)), None);
}

#[test]
fn an_event_cut_anywhere_is_ignored() {
    for (kind, body) in
        [(XFRM_MSG_ACQUIRE, acquire(IF_ID, 6)), (XFRM_MSG_EXPIRE, expire(IF_ID, 9, 1))]
    {
        for end in 0..body.len() {
            assert_eq!(receive(kind, &body[..end], |m| event(m, OURS)), None, "{kind} at {end}");
        }
    }
    let body = octets(&encode::sa(&child(GCM), Inbound, OURS, MARK, false));
    for end in 0..body.len() {
        let _no_panic = receive(XFRM_MSG_NEWSA, &body[..end], |m| decode::sa(m, OURS));
        let _no_panic = receive(XFRM_MSG_NEWPOLICY, &body[..end], |m| decode::policy(m, OURS));
    }
}

#[test]
fn the_keys_of_an_sa_are_read_as_they_were_written_and_never_printed() {
    let read = |spec: &ChildSpec, ours| {
        let body = octets(&encode::sa(spec, Inbound, OURS, MARK, true));
        receive(XFRM_MSG_NEWSA, &body, |m| keys::sa(m, ours))
    };
    let key = |name: &str, key: &[u8], icv_bits| AlgorithmKey {
        name: name.to_owned(),
        key: Zeroizing::new(key.to_vec()),
        icv_bits,
    };
    let gcm = read(&child(GCM), OURS).unwrap();
    assert_eq!(gcm.encryption, key("rfc4106(gcm(aes))", &[0xa5; 20], 128));
    assert_eq!(gcm.integrity, None);
    assert_ne!(gcm.source, gcm.id.destination);
    let cbc = read(&child(CBC), OURS).unwrap();
    assert_eq!(cbc.encryption, key("cbc(aes)", &[0xa5; 32], 0));
    assert_eq!(cbc.integrity, Some(key("hmac(sha384)", &[0xa5; 48], 192)));
    assert!(!format!("{cbc:?}").contains("165"), "no octet of a key");
    assert_eq!(read(&child(GCM), Ours { if_id: IF_ID + 1 }), None, "not ours");
    let body = octets(&encode::sa(&child(CBC), Inbound, OURS, MARK, true));
    for length in 0..body.len() {
        let _no_panic = receive(XFRM_MSG_NEWSA, &body[..length], |m| keys::sa(m, OURS));
    }
}
