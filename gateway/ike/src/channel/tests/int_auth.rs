//! What AUTH covers of IKE_INTERMEDIATE (RFC 9242), and the change of keys after it (RFC 9370).

use super::*;
use crate::crypto::prf::prf;

const INTERMEDIATE: ExchangeType = ExchangeType::IKE_INTERMEDIATE;

/// One IKE_INTERMEDIATE exchange with these nonces, after which both ends have new keys; gives
/// the datagrams of request and response.
fn exchange(a: &mut Channel, b: &mut Channel, one: &[u8], other: &[u8]) -> [Vec<Vec<u8>>; 2] {
    let (request, response) = ([Payload::Nonce(Nonce(one))], [Payload::Nonce(Nonce(other))]);
    let config = EndpointConfig::default();
    let sent = a.request(start(), &config, &mut random(), INTERMEDIATE, &request).unwrap().0;
    let (opened, last) = receive_all(b, &sent);
    b.intermediate_received(&opened).unwrap();
    let request = RequestId::new(&opened, opened.representative(last));
    let answer = b.respond(&mut random(), request, &response).unwrap().0;
    let (opened, _) = receive_all(a, &answer);
    a.response_received();
    a.intermediate_received(&opened).unwrap();
    for end in [a, b] {
        let before = end.keys.sk_ei().to_vec();
        end.add_secret(&[one[0]; 32], &[1; 32], &[2; 32]).unwrap();
        assert_ne!(end.keys.sk_ei(), before);
    }
    [sent, answer]
}

/// The message in these datagrams, and the last of them.
fn receive_all<'a>(to: &mut Channel, datagrams: &'a [Vec<u8>]) -> (Opened, &'a [u8]) {
    for datagram in datagrams {
        if let Received::Message(opened) = to.receive(start(), header(datagram), datagram) {
            return (opened, datagram);
        }
    }
    panic!("the message is not whole");
}

/// RFC 9242 3.3.2, put together here from the pieces that the RFC's figure names.
#[test]
fn int_auth_covers_the_messages_as_if_they_were_not_encrypted() {
    for encryption in [Encryption::Aes256Gcm16, Encryption::Aes128Cbc] {
        let (mut a, mut b) = ends(encryption);
        assert_eq!(a.take_int_auth(), Vec::<u8>::new(), "nothing without IKE_INTERMEDIATE");
        let mut chains = [Vec::new(), Vec::new()];
        for round in 0..2 {
            let keys = [a.keys.sk_pi().to_vec(), a.keys.sk_pr().to_vec()];
            let nonces = [vec![round; 20], vec![round; 33]];
            let messages = exchange(&mut a, &mut b, &nonces[0], &nonces[1]);
            for side in 0..2 {
                // Up to the SK payload's generic header, with its lengths as if the plaintext
                // followed alone; then the plaintext, which is one nonce payload.
                let inner = u8::try_from(nonces[side].len() + 4).unwrap();
                let mut covered = messages[side][0][..32].to_vec();
                covered[24..28].copy_from_slice(&[0, 0, 0, 32 + inner]);
                covered[30..32].copy_from_slice(&[0, 4 + inner]);
                covered.extend([0, 0, 0, inner]);
                covered.extend(&nonces[side]);
                let parts = [&chains[side][..], &covered];
                chains[side] = prf(Prf::HmacSha256, &keys[side], &parts).to_vec();
            }
        }
        // Messages 1 and 2 were IKE_INTERMEDIATE: IKE_AUTH begins with 3.
        let expected = [&chains[0][..], &chains[1], &[0, 0, 0, 3]].concat();
        assert_eq!(a.take_int_auth(), expected);
        assert_eq!(b.take_int_auth(), expected);
    }
}

#[test]
fn fragments_are_covered_as_the_message_that_they_are_of() {
    let (one, other) = (vec![1; 200], vec![2; 250]);
    let int_auth = |longest| {
        let (mut a, mut b) = ends(Encryption::Aes256Gcm16);
        for end in [&mut a, &mut b] {
            end.set_fragmentation(Some(Fragmentation { longest, ..fragments::ANY }));
        }
        let [sent, answered] = exchange(&mut a, &mut b, &one, &other);
        assert_eq!(sent.len() > 1 && answered.len() > 1, longest < 200);
        let of_a = a.take_int_auth();
        assert_eq!(of_a, b.take_int_auth());
        of_a
    };
    assert_eq!(int_auth(100), int_auth(1000));
}

#[test]
fn a_repeated_request_gets_its_answer_though_the_keys_have_changed_since() {
    for longest in [100, 1000] {
        let (mut a, mut b) = ends(Encryption::Aes256Gcm16);
        for end in [&mut a, &mut b] {
            end.set_fragmentation(Some(Fragmentation { longest, ..fragments::ANY }));
        }
        let [sent, answer] = exchange(&mut a, &mut b, &[1; 200], &[2; 200]);
        assert_eq!(b.place(&header(&sent[0]), &sent[0]), Place::Repeated(&Datagrams(answer)));
        for later in &sent[1..] {
            assert_eq!(b.place(&header(later), later), Place::RepeatedInPart);
        }
        let mut forged = sent[0].clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(b.place(&header(&forged), &forged), Place::Outside);
    }
}

#[test]
fn ike_intermediate_with_payloads_in_the_clear_is_not_opened() {
    for (exchange, opens) in [(ExchangeType::INFORMATIONAL, true), (INTERMEDIATE, false)] {
        let (mut a, mut b) = ends(Encryption::Aes256Gcm16);
        let sealed = with_vendor_id(&mut a, exchange);
        assert_eq!(open(&mut b, header(&sealed), &sealed).is_some(), opens);
    }
}

/// A message that holds a vendor ID in the clear before its empty SK payload; all lengths are
/// right, and the ICV covers it.
fn with_vendor_id(a: &mut Channel, exchange: ExchangeType) -> Vec<u8> {
    let header = Header {
        initiator_spi: SPIS.0,
        responder_spi: SPIS.1,
        exchange,
        flags: Flags { response: false, version: false, initiator: true },
        message_id: MessageId(1),
    };
    let sk_len = u16::try_from(a.sealer.body_len(0).saturating_add(4)).unwrap();
    let message_len = u32::from(sk_len).saturating_add(28 + 6);
    let mut message = header.encode(PayloadType::VENDOR_ID, message_len).to_vec();
    message.extend([PayloadType::SK.0, 0, 0, 6, 1, 2, 0, 0]);
    message.extend(sk_len.to_be_bytes());
    a.sealer.seal(&mut random(), &mut message, &[]).unwrap();
    message
}
