//! Whoever nobody knows yet: half-open IKE SAs, cookies, sizes, refusals.

use super::*;

/// B with this configuration, and the request with which A begins, which never arrives.
fn begun(config: &EndpointConfig) -> (Simulation, Vec<u8>) {
    let mut simulation = pair(config, 1);
    simulation.network.set_faults(CUT);
    simulation.acquire(0, "to-b-1");
    let request = simulation.nodes[0].sent[0].1.clone();
    (simulation, request)
}

/// B gets a request like that one, of another initiator, from an address; gives the cookie that
/// it demands, if it answers with one.
fn request(
    simulation: &mut Simulation,
    init: &[u8],
    from: IpAddr,
    number: u16,
    cookie: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let mut octets = init.to_vec();
    octets[..2].copy_from_slice(&number.to_be_bytes());
    let mut message = Message::decode(&octets).unwrap();
    if let Some(data) = cookie {
        let (protocol, kind) = (ProtocolId::NONE, NotifyType::COOKIE);
        message.payloads.insert(0, Payload::Notify(Notify { protocol, spi: &[], kind, data }));
    }
    let octets = encode_message(&message.header, &message.payloads).unwrap();
    let path = Path { local: SocketAddr::new(B, 500), remote: SocketAddr::new(from, 500) };
    let before = simulation.nodes[1].sent.len();
    simulation.input(1, Input::Datagram { path, octets: &octets });
    let (_, answer) = simulation.nodes[1].sent.get(before)?;
    let Payload::Notify(notify) = Message::decode(answer).unwrap().payloads.remove(0) else {
        return None;
    };
    (notify.kind == NotifyType::COOKIE).then(|| notify.data.to_vec())
}

/// The same, of an initiator that is where it says: it returns the cookie if it must.
fn honest_request(simulation: &mut Simulation, init: &[u8], from: IpAddr, number: u16) {
    if let Some(cookie) = request(simulation, init, from, number, None) {
        assert_eq!(request(simulation, init, from, number, Some(&cookie)), None);
    }
}

fn half_open(simulation: &Simulation) -> usize {
    simulation.nodes[1].endpoint.status(simulation.now).half_open
}

const OF_ADDRESS: Counter = Counter::HalfOpenAddressLimit;

#[test]
fn an_address_has_so_many_half_open_ike_sas_and_with_cookies_as_many_again() {
    let config = EndpointConfig { half_open_address_limit: 3, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &init, A, number, None), None, "no cookie yet");
    }
    for number in 4..=9 {
        honest_request(&mut simulation, &init, A, number);
    }
    assert_eq!(half_open(&simulation), 3 + 3);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 3);
    assert_eq!(counter(&simulation, 1, Counter::CookieDemanded), 6);
    // Another address has room of its own and needs no cookie.
    assert_eq!(request(&mut simulation, &init, OTHER, 10, None), None);
    assert_eq!(half_open(&simulation), 6 + 1);
    // Of IPv6 all of one /64 share it.
    for number in 11..=20 {
        let from = format!("2001:db8::{number}").parse().unwrap();
        honest_request(&mut simulation, &init, from, number);
    }
    assert_eq!(half_open(&simulation), 7 + 6);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 3 + 4);
    honest_request(&mut simulation, &init, "2001:db8:0:1::1".parse().unwrap(), 21);
    assert_eq!(half_open(&simulation), 7 + 6 + 1);
    // What ends makes room.
    simulation.run(config.half_open_timeout + SECOND);
    assert_eq!(half_open(&simulation), 0);
    assert_eq!(counter(&simulation, 1, Counter::HalfOpenTimeout), 14);
    assert_eq!(request(&mut simulation, &init, A, 22, None), None);
    assert_eq!(half_open(&simulation), 1);
}

#[test]
fn from_its_threshold_on_a_cookie_is_demanded() {
    for threshold in [0_u16, 5, 100] {
        let config =
            EndpointConfig { cookie_threshold: threshold.into(), ..EndpointConfig::default() };
        let (mut simulation, init) = begun(&config);
        for number in 1..=threshold {
            assert_eq!(request(&mut simulation, &init, A, number, None), None, "{threshold}");
        }
        assert_eq!(half_open(&simulation), usize::from(threshold));
        let cookie = request(&mut simulation, &init, A, threshold + 1, None);
        assert!(cookie.is_some(), "{threshold}");
        assert_eq!(half_open(&simulation), usize::from(threshold));
    }
}

#[test]
fn forged_requests_keep_nobody_out() {
    let config = EndpointConfig { half_open_address_limit: 3, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=200 {
        request(&mut simulation, &init, A, number, (number % 2 == 0).then_some(&[7; 21]));
    }
    assert_eq!(half_open(&simulation), 3);
    assert_eq!(counter(&simulation, 1, OF_ADDRESS), 0, "nobody has shown to be there");
    // Nor does a cookie that was sent to another address help, or one for another SPI.
    let cookie = request(&mut simulation, &init, A, 201, None).unwrap();
    for number in [202, 203] {
        assert!(request(&mut simulation, &init, A, number, Some(&cookie)).is_some());
    }
    assert_eq!(half_open(&simulation), 3);
    assert!(counter(&simulation, 1, Counter::CookieInvalid) >= 2);
    // The one that it is about gets in, by a cookie.
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
}

#[test]
fn above_the_limit_of_all_ike_sas_requests_are_dropped() {
    let config = EndpointConfig { ike_sa_limit: 1, ..EndpointConfig::default() };
    let mut simulation = pair(&config, 1);
    simulation.acquire(0, "to-b-1");
    simulation.run(5 * SECOND);
    let init = simulation.nodes[0].sent[0].1.clone();
    let established = counter(&simulation, 1, Counter::IkeSaEstablished);
    for number in 1..=5 {
        honest_request(&mut simulation, &init, OTHER, number);
    }
    assert_eq!((established, half_open(&simulation)), (1, 0));
    assert_eq!(counter(&simulation, 1, Counter::IkeSaLimit), 5);
}

#[test]
fn at_the_limit_of_all_ike_sas_half_open_ones_keep_nobody_out() {
    let config = EndpointConfig { ike_sa_limit: 4, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=20 {
        honest_request(&mut simulation, &init, OTHER, number);
        assert!(half_open(&simulation) <= 4, "{number}");
    }
    assert_eq!(counter(&simulation, 1, Counter::IkeSaLimit), 16);
    assert_eq!(counter(&simulation, 1, Counter::CookieDemanded), 16);
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
}

#[test]
fn one_host_with_many_networks_keeps_nobody_out() {
    let config = EndpointConfig {
        half_open_limit: 6,
        half_open_address_limit: 2,
        ..EndpointConfig::default()
    };
    let (mut simulation, init) = begun(&config);
    honest_request(&mut simulation, &init, OTHER, 1);
    // A /56 has 256 times a /64.
    for number in 2..=20 {
        let from = format!("2001:db8:0:{number}::1").parse().unwrap();
        honest_request(&mut simulation, &init, from, number);
        assert!(half_open(&simulation) <= 6, "{number}");
    }
    let displaced = |simulation: &Simulation| counter(simulation, 1, Counter::HalfOpenLimit);
    assert_eq!((half_open(&simulation), displaced(&simulation)), (6, 14));
    // Who may be forged displaces nobody.
    assert!(request(&mut simulation, &init, A, 21, None).is_some(), "a cookie is demanded");
    assert_eq!((half_open(&simulation), displaced(&simulation)), (6, 14));
    // The one that was there first still has its place, and A gets one and goes on by it.
    let from: Vec<_> = simulation.nodes[1].endpoint.status(simulation.now).ike_sas;
    assert!(from.iter().any(|sa| sa.path.remote.ip() == OTHER));
    simulation.network.set_faults(Faults::default());
    simulation.run(5 * SECOND);
    assert_eq!((children(&simulation, 0), children(&simulation, 1)), (1, 1));
    assert_eq!(displaced(&simulation), 15);
}

/// The request with so many octets in all.
fn of_size(init: &[u8], size: usize) -> Vec<u8> {
    let mut message = Message::decode(init).unwrap();
    let padding = vec![0; size - init.len() - 4];
    message.payloads.push(Payload::VendorId(&padding));
    let octets = encode_message(&message.header, &message.payloads).unwrap();
    assert_eq!(octets.len(), size);
    octets
}

#[test]
fn a_first_message_has_a_limit_and_what_comes_before_authentication_too() {
    let default = EndpointConfig::default();
    assert_eq!((default.init_size_limit, default.reassembly_limit), (8192, 32_768));
    let other = EndpointConfig { init_size_limit: 3000, reassembly_limit: 5000, ..default };
    for config in [default, other] {
        let EndpointConfig { init_size_limit: first, reassembly_limit: whole, .. } = config;
        let (mut simulation, init) = begun(&config);
        let limited = |simulation: &Simulation| counter(simulation, 1, Counter::InitSizeLimit);
        request(&mut simulation, &of_size(&init, first + 1), A, 1, None);
        assert_eq!((half_open(&simulation), limited(&simulation)), (0, 1));
        assert!(simulation.nodes[1].sent.is_empty());
        request(&mut simulation, &of_size(&init, first), A, 2, None);
        assert_eq!((half_open(&simulation), limited(&simulation)), (1, 1));
        // IKE_AUTH as a whole has that of one in fragments.
        let (path, answer) = simulation.nodes[1].sent[0].clone();
        for (size, expected) in
            [(whole + 1, Counter::FragmentLimit), (whole, Counter::NotAuthentic)]
        {
            let mut auth = answer.clone();
            auth.resize(size, 0);
            // SK, of IKE_AUTH, by the initiator, the second message.
            auth[16..24].copy_from_slice(&[46, 0x20, 35, 0x08, 0, 0, 0, 1]);
            auth[24..28].copy_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
            auth[28..30].copy_from_slice(&[35, 0]);
            auth[30..32].copy_from_slice(&u16::try_from(size - 28).unwrap().to_be_bytes());
            let before = counter(&simulation, 1, expected);
            simulation.input(1, Input::Datagram { path, octets: &auth });
            assert_eq!(counter(&simulation, 1, expected), before + 1, "{size}");
        }
    }
}

/// The request with so many proposals, of so many transforms that nobody knows.
fn proposing(init: &[u8], proposals: u8, transforms: u16) -> Vec<u8> {
    let mut message = Message::decode(init).unwrap();
    let transform = |id| Transform {
        kind: TransformType::ENCR,
        id: 60_000 + id,
        key_length: None,
        unknown_attribute: false,
    };
    let proposal = |number| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: (0..transforms).map(transform).collect(),
    };
    for payload in &mut message.payloads {
        if let Payload::SecurityAssociation(sa) = payload {
            sa.proposals = (1..=proposals).map(proposal).collect();
        }
    }
    encode_message(&message.header, &message.payloads).unwrap()
}

/// What B has said of requests that it refused.
fn refusals(simulation: &Simulation) -> Vec<String> {
    let refused = |kind: &EventKind| matches!(kind, EventKind::InitRefused(_));
    let events = simulation.nodes[1].events.iter().filter(|event| refused(&event.kind));
    events.map(|event| event.kind.to_string()).collect()
}

#[test]
fn refusals_above_their_rate_are_only_counted_and_then_cookies_are_demanded() {
    let config = EndpointConfig { unprotected_answers_per_second: 2, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    let init = proposing(&init, 2, 3);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &init, A, number, None), None);
    }
    let seen = |simulation: &Simulation| {
        let refused = counter(simulation, 1, Counter::NoProposalChosen);
        let silent = counter(simulation, 1, Counter::UnprotectedAnswerLimited);
        (refused, silent, simulation.nodes[1].sent.len(), refusals(simulation).len())
    };
    assert_eq!(seen(&simulation), (3, 1, 2, 2), "the third is neither answered nor explained");
    // Whoever forges its address gets no further than this, which costs a hash.
    let cookie = request(&mut simulation, &init, A, 4, None).expect("a cookie is demanded");
    assert_eq!(seen(&simulation), (3, 1, 3, 2));
    assert_eq!(request(&mut simulation, &init, A, 4, Some(&cookie)), None);
    assert_eq!(seen(&simulation), (4, 2, 3, 2));
    // Of everybody, and no longer than it must.
    assert!(request(&mut simulation, &init, OTHER, 5, None).is_some());
    simulation.now += 29 * SECOND;
    assert!(request(&mut simulation, &init, OTHER, 5, None).is_some());
    simulation.now += 2 * SECOND;
    assert_eq!(request(&mut simulation, &init, OTHER, 5, None), None);
    assert_eq!(seen(&simulation), (5, 2, 6, 3));
    let modes = simulation.nodes[1].events.iter().map(|event| &event.kind);
    let modes: Vec<_> = modes.filter(|kind| matches!(kind, EventKind::CookieMode(_))).collect();
    assert_eq!(modes, [&EventKind::CookieMode(true), &EventKind::CookieMode(false)]);
}

#[test]
fn who_never_answers_refusals_demands_no_cookies_for_them() {
    let config = EndpointConfig { unprotected_answers_per_second: 0, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &proposing(&init, 2, 3), A, number, None), None);
    }
    assert_eq!(counter(&simulation, 1, Counter::UnprotectedAnswerLimited), 3);
    assert!(simulation.nodes[1].sent.is_empty());
    // Who proposes what we take is answered at once.
    assert_eq!(request(&mut simulation, &init, A, 4, None), None);
    assert_eq!(simulation.nodes[1].sent.len(), 1);
}

#[test]
fn a_request_that_proposes_too_much_is_refused_unseen() {
    let config = EndpointConfig { init_transform_limit: 64, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    let counted = |simulation: &Simulation| {
        [Counter::TransformLimit, Counter::NoProposalChosen].map(|c| counter(simulation, 1, c))
    };
    for (proposals, transforms, expected) in [(3, 20, [0, 1]), (2, 31, [0, 2]), (5, 12, [1, 2])] {
        let number = proposals.into();
        request(&mut simulation, &proposing(&init, proposals, transforms), A, number, None);
        assert_eq!(counted(&simulation), expected, "{proposals}");
    }
    let said = refusals(&simulation);
    let words = "65 proposals and transforms, `init-transform-limit` is 64";
    assert!(said[2].contains(words), "{said:?}");
    let (_, answer) = simulation.nodes[1].sent.last().unwrap();
    let payloads = Message::decode(answer).unwrap().payloads;
    let [Payload::Notify(notify)] = payloads.as_slice() else { panic!("{payloads:?}") };
    assert_eq!(notify.kind, NotifyType::NO_PROPOSAL_CHOSEN);
}

#[test]
fn who_is_in_front_of_us_is_told_of_secrets_in_time_and_of_the_mode() {
    let config =
        EndpointConfig { shares_cookies: true, cookie_threshold: 3, ..EndpointConfig::default() };
    let (mut simulation, init) = begun(&config);
    let told = |simulation: &Simulation| simulation.nodes[1].cookies.clone();
    let [first] = told(&simulation)[..] else { panic!("{:?}", told(&simulation)) };
    assert!(!first.demand);
    assert_eq!((first.secrets[0].version, first.secrets[1].version), (1, 0));

    for number in 1..=3 {
        assert_eq!(request(&mut simulation, &init, A, number, None), None, "no cookie yet");
    }
    assert!(told(&simulation).last().unwrap().demand);
    // A cookie that we have not made ourselves, and the same one as ours.
    let spi = [&9_u16.to_be_bytes()[..], &init[2..8]].concat();
    let IpAddr::V4(address) = A else { panic!("{A}") };
    let address = gateway_common::Address::v4(address.octets());
    let initiator = gateway_common::Initiator::new(address, 500, spi.try_into().unwrap());
    let theirs = first.secrets[0].cookie(&initiator).octets();
    let ours = request(&mut simulation, &init, A, 9, None);
    assert_eq!(ours.as_deref(), Some(&theirs[..]));
    assert_eq!(request(&mut simulation, &init, A, 9, Some(&theirs)), None);

    simulation.run(Duration::from_secs(60));
    let later = told(&simulation);
    let last = later.last().unwrap();
    assert_eq!(last.secrets[1], first.secrets[0], "and cookies of the first are still good");
    assert_eq!(last.secrets[0].version, 2);
    // That the others have been forgotten is seen with the next request.
    assert_eq!(request(&mut simulation, &init, A, 10, Some(&theirs)), None);
    assert!(!told(&simulation).last().unwrap().demand);
    // Who shares them with nobody says nothing.
    let (quiet, _) = begun(&EndpointConfig::default());
    assert!(quiet.nodes[1].cookies.is_empty());
}
