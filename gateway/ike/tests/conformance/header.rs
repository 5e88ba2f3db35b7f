//! The header, what is reserved, and messages of all sizes (RFC 7296 2, 2.2, 2.5, 2.6, 3.1, 3.2).

use gateway_wire::{IkeSpi, PayloadType, encode_sk_prefix};

use super::*;

/// Every message that both ends send in a handshake, a question and a goodbye, with the keys.
fn everything() -> (Simulation, Forge) {
    let a = with_peer(policies_of_a(), |p| p.liveness_interval = Duration::from_secs(20));
    let mut simulation = connect(a, policies_of_b());
    let forge = forge(&simulation, 0);
    simulation.network.set_faults(Faults::default());
    simulation.input(1, Input::Shutdown);
    simulation.run(MINUTE);
    (simulation, forge)
}

/// The flags octets of the payloads of a chain.
fn payload_flags(first: PayloadType, mut octets: &[u8]) -> Vec<u8> {
    let (mut next, mut flags) = (first, Vec::new());
    while next != PayloadType::NONE && next != PayloadType::SK {
        next = PayloadType(octets[0]);
        flags.push(octets[1]);
        octets = &octets[usize::from(u16::from_be_bytes([octets[2], octets[3]]))..];
    }
    flags
}

#[test]
fn what_is_reserved_is_sent_as_zero_and_no_payload_is_critical() {
    let (simulation, forge) = everything();
    let sent = simulation.nodes.iter().flat_map(|node| &node.sent);
    for (_, octets) in sent {
        assert_eq!(octets[17], 0x20, "version 2.0");
        assert_eq!(octets[19] & 0b1101_0111, 0, "no flag but R and I");
        let (_, first, rest) = Header::decode(octets).unwrap();
        let inside = forge.open(octets);
        let inside = inside.map(|o| payload_flags(o.first, &o.plaintext)).unwrap_or_default();
        let flags = [payload_flags(first, rest), inside].concat();
        assert!(flags.iter().all(|f| *f == 0), "{flags:?}");
    }
}

#[test]
fn what_is_reserved_is_ignored_when_it_comes() {
    let (mut simulation, mut init) = begun(policies_of_a(), policies_of_b());
    init[17] |= 0x0f; // the minor version
    init[19] |= 0b1101_0111; // all flags but R, V among them
    init[29] |= 0x7f; // beside the critical bit of SA
    init[33] = 0xff; // in the proposal
    init[41] = 0xff; // in its first transform, twice
    init[45] = 0xff;
    let answer = only(deliver(&mut simulation, 1, &init));
    let message = Message::decode(&answer).unwrap();
    assert!(matches!(message.payloads[0], Payload::SecurityAssociation(_)));

    // Under protection as well.
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let header = forge.header(ExchangeType::INFORMATIONAL, false, NEXT_OF_A);
    let len = forge.body_len(0).unwrap();
    let mut prefix = encode_sk_prefix(&header, PayloadType::NONE, len).unwrap();
    prefix[17] |= 0x0f;
    prefix[19] |= 0b1101_0111;
    prefix[29] |= 0xff; // the critical bit of a payload that is known, too
    let request = forge.seal_behind(&header, prefix, &[]).unwrap();
    assert_eq!(deliver(&mut simulation, 1, &request).len(), 1);
}

#[test]
fn requests_and_responses_say_which_they_are_and_who_began_the_ike_sa() {
    let (simulation, _) = everything();
    let flags = |node: usize| {
        let sent = simulation.nodes[node].sent.iter().map(|(_, octets)| header(octets).flags);
        sent.map(|f| (f.response, f.initiator)).collect::<Vec<_>>()
    };
    let (of_a, of_b) = (flags(0), flags(1));
    assert!(of_a.iter().all(|(_, initiator)| *initiator), "A began it");
    assert!(of_b.iter().all(|(_, initiator)| !*initiator));
    assert!(of_a.contains(&(true, true)), "and answers B's goodbye as the one that began it");
    assert!(of_b.contains(&(false, false)));
}

#[test]
fn a_message_with_a_wrong_initiator_flag_is_not_taken() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let mut header = forge.header(ExchangeType::INFORMATIONAL, false, NEXT_OF_A);
    header.flags.initiator = false;
    // B looks for the SPI that would be its own then, and has none.
    let request = forge.seal(&header, &[]).unwrap();
    let answer = only(deliver(&mut simulation, 1, &request));
    assert!(forge.open(&answer).is_none(), "it is not taken as a request of this IKE SA");
    // With the SPIs exchanged it would be found, and is nobody's.
    std::mem::swap(&mut header.initiator_spi, &mut header.responder_spi);
    let request = forge.seal(&header, &[]).unwrap();
    assert!(deliver(&mut simulation, 1, &request).is_empty());
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn a_response_is_never_answered() {
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    for id in [0, 1, NEXT_OF_A, 77] {
        for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::IKE_SA_INIT, ExchangeType(99)] {
            let response = forge.seal(&forge.header(exchange, true, id), &[]).unwrap();
            assert!(deliver(&mut simulation, 1, &response).is_empty());
            let mut unknown = response;
            unknown[8..16].fill(0x77);
            assert!(deliver(&mut simulation, 1, &unknown).is_empty());
        }
    }
    assert_eq!(states(&simulation, 1), ["established"]);
}

#[test]
fn spis_are_never_zero_and_never_the_same() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    let mut spis = std::collections::BTreeSet::new();
    for n in 1..100 {
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_secs(5));
        let status = simulation.nodes[0].endpoint.status(simulation.now);
        let sa = &status.ike_sas[0];
        assert!(!sa.initiator_spi.is_zero() && !sa.responder_spi.is_zero());
        spis.extend([sa.initiator_spi, sa.responder_spi]);
        assert_eq!(spis.len(), 2 * n);
        let mut none = policies_of_a();
        none.rules.clear();
        none.peers.clear();
        simulation.configure(0, none);
        simulation.run(MINUTE);
        simulation.configure(0, policies_of_a());
    }
}

#[test]
fn a_first_message_without_our_spi_is_no_first_message() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    assert_eq!(header(&init).responder_spi, IkeSpi::ZERO);
    let mut named = init.clone();
    named[8..16].fill(1);
    let mut anonymous = init;
    anonymous[..8].fill(0);
    for wrong in [named, anonymous] {
        assert!(deliver(&mut simulation, 1, &wrong).is_empty());
    }
    assert_eq!(counter(&simulation, 1, Counter::InvalidInit), 2);
}

#[test]
fn a_first_message_under_another_number_than_zero_is_refused() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for id in [1, 2, u32::MAX] {
        let mut later = init.clone();
        later[20..24].copy_from_slice(&u32::to_be_bytes(id));
        assert!(deliver(&mut simulation, 1, &later).is_empty(), "{id}");
    }
    assert_eq!(counter(&simulation, 1, Counter::InvalidInit), 3);
    assert!(simulation.nodes[1].endpoint.is_empty());
    assert_eq!(deliver(&mut simulation, 1, &init).len(), 1);
}

#[test]
fn a_refusal_of_ike_sa_init_names_no_spi_of_the_responder() {
    let none = with_peer(policies_of_b(), |p| {
        p.proposals[0].encryption = vec![gateway_ike::algorithms::Encryption::ChaCha20Poly1305];
    });
    let (mut simulation, init) = begun(policies_of_a(), none);
    let answer = only(deliver(&mut simulation, 1, &init));
    assert_eq!(header(&answer).responder_spi, IkeSpi::ZERO);
    assert_eq!(header(&answer).initiator_spi, header(&init).initiator_spi);
    assert!(simulation.nodes[1].endpoint.is_empty(), "and nothing is kept");
}

#[test]
fn messages_of_3000_octets_are_taken_and_answered() {
    let filler = [0x55; 2900];
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let long = rewritten(&init, |payloads| payloads.push(Payload::VendorId(&filler)));
    assert!(long.len() > 3000);
    let answer = only(deliver(&mut simulation, 1, &long));
    assert!(!header(&answer).responder_spi.is_zero());

    let mut simulation = connected();
    let exchange = ExchangeType::INFORMATIONAL;
    ask(&mut simulation, 0, exchange, NEXT_OF_A, &[Payload::VendorId(&filler)]);
}

#[test]
fn an_answer_goes_back_to_where_the_request_came_from() {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    for (ours, theirs) in [(500, 500), (500, 12_345), (4500, 4500), (4500, 61_000)] {
        let path = Path { local: SocketAddr::new(B, ours), remote: SocketAddr::new(A, theirs) };
        assert_eq!(deliver_by(&mut simulation, 1, path, &init).len(), 1);
        assert_eq!(simulation.nodes[1].sent.last().unwrap().0, path);
    }
    // Also when the IKE SA stands and the request comes by another way than before.
    let mut simulation = connected();
    let forge = forge(&simulation, 0);
    let header = forge.header(ExchangeType::INFORMATIONAL, false, NEXT_OF_A);
    let request = forge.seal(&header, &[]).unwrap();
    let path = Path { remote: SocketAddr::new(A, 999), ..path_to(1) };
    assert_eq!(deliver_by(&mut simulation, 1, path, &request).len(), 1);
    assert_eq!(simulation.nodes[1].sent.last().unwrap().0, path);
}

#[test]
fn ike_is_sent_from_500_and_4500_only() {
    let any_a = with_peer(policies_of_b(), |p| p.remote_address = None);
    let mut behind_nat = pair(policies_of_a(), any_a);
    behind_nat.network.translate(A, IpAddr::from([198, 51, 100, 1]));
    behind_nat.acquire(0, "to-b");
    behind_nat.run(MINUTE);
    let ports = |node: usize| {
        behind_nat.nodes[node].sent.iter().map(|(p, _)| p.local.port()).collect::<Vec<_>>()
    };
    assert_eq!(ports(0), [500, 4500], "behind NAT, all after IKE_SA_INIT");
    assert_eq!(ports(1), [500, 4500]);
}
