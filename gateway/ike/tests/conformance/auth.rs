//! What AUTH covers, and how a shared key makes it (RFC 7296 2.15, 3.5, 3.8).

use gateway_ike::algorithms::Prf;
use gateway_ike::crypto::prf::prf;
use gateway_wire::{AuthMethod, Authentication, CertEncoding, CertificateRequest, Identification};

use super::*;

pub(super) fn nonce_of(datagram: &[u8]) -> Vec<u8> {
    let message = Message::decode(datagram).unwrap();
    let nonce = message.payloads.iter().find_map(|p| match p {
        Payload::Nonce(nonce) => Some(nonce.0.to_vec()),
        _ => None,
    });
    nonce.unwrap()
}

/// The method and the data of AUTH, and the body of the identification that it covers.
pub(super) fn auth_of(forge: &Forge, datagram: &[u8]) -> (AuthMethod, Vec<u8>, Vec<u8>) {
    let opened = forge.open(datagram).unwrap();
    let payloads = opened.payloads().unwrap();
    let of_responder = opened.header.flags.response;
    let id = payloads.iter().find_map(|p| match p {
        Payload::IdInitiator(id) if !of_responder => Some(id.body()),
        Payload::IdResponder(id) if of_responder => Some(id.body()),
        _ => None,
    });
    let auth = payloads.iter().find_map(|p| match p {
        Payload::Authentication(auth) => Some((auth.method, auth.data.to_vec())),
        _ => None,
    });
    let (method, data) = auth.unwrap();
    (method, data, id.unwrap())
}

/// The same message with another AUTH: what `make` gives for the octets that it has to cover.
pub(super) fn with_auth(
    simulation: &Simulation,
    sender: usize,
    datagram: &[u8],
    (message, nonce): (&[u8], &[u8]),
    make: impl FnOnce(&[u8]) -> (AuthMethod, Vec<u8>),
) -> Vec<u8> {
    let forge = forge(simulation, sender);
    let (_, _, id) = auth_of(&forge, datagram);
    let (method, data) = make(&forge.signed_octets(message, nonce, &id));
    let opened = forge.open(datagram).unwrap();
    let mut payloads = opened.payloads().unwrap();
    for payload in &mut payloads {
        if matches!(payload, Payload::Authentication(_)) {
            *payload = Payload::Authentication(Authentication { method, data: &data });
        }
    }
    forge.seal(&opened.header, &payloads).unwrap()
}

/// The shared key of both ends.
const KEY: &[u8] = b"a pre-shared key for tests";

/// AUTH of a shared key (RFC 7296 2.15), written out.
fn mic(key: &[u8], octets: &[u8]) -> Vec<u8> {
    let padded = prf(Prf::HmacSha256, key, &[b"Key Pad for IKEv2"]);
    prf(Prf::HmacSha256, &padded, &[octets]).to_vec()
}

/// Both first messages, and IKE_AUTH of A, or with `of` 1 that of B, on its way to the other.
fn with_auth_under_way(of: usize) -> (Simulation, [Vec<u8>; 2], Vec<u8>) {
    let (mut simulation, init) = begun(policies_of_a(), policies_of_b());
    let answer = only(deliver(&mut simulation, 1, &init));
    let mut auth = only(deliver(&mut simulation, 0, &answer));
    if of == 1 {
        auth = only(deliver(&mut simulation, 1, &auth));
    }
    (simulation, [init, answer], auth)
}

#[test]
fn an_auth_over_anything_else_or_made_otherwise_is_refused_by_either_end() {
    /// What AUTH is made of: the message, the nonce, the body of the identification, SK_p of which
    /// end, and how of the octets that come of these.
    type Change = fn(&mut Vec<u8>, &mut Vec<u8>, &mut Vec<u8>, &mut usize) -> fn(&[u8]) -> Vec<u8>;
    let right = |octets: &[u8]| mic(KEY, octets);
    let changes: [(&str, bool, Change); 10] = [
        ("as it is to be", true, |_, _, _, _| |o| mic(KEY, o)),
        ("another message", false, |message, _, _, _| {
            *message.last_mut().unwrap() ^= 1;
            |o| mic(KEY, o)
        }),
        ("another SPI in it", false, |message, _, _, _| {
            message[3] ^= 1;
            |o| mic(KEY, o)
        }),
        ("another nonce", false, |_, nonce, _, _| {
            nonce[0] ^= 1;
            |o| mic(KEY, o)
        }),
        ("no nonce", false, |_, nonce, _, _| {
            nonce.clear();
            |o| mic(KEY, o)
        }),
        ("another identity", false, |_, _, id, _| {
            *id.last_mut().unwrap() ^= 1;
            |o| mic(KEY, o)
        }),
        ("the other end's SK_p", false, |_, _, _, end| {
            *end = 1 - *end;
            |o| mic(KEY, o)
        }),
        ("no key pad", false, |_, _, _, _| |o| prf(Prf::HmacSha256, KEY, &[o]).to_vec()),
        ("another key", false, |_, _, _, _| |o| mic(b"another key", o)),
        ("cut short", false, |_, _, _, _| |o| mic(KEY, o)[..16].to_vec()),
    ];
    for of in [0, 1] {
        for (what, good, change) in &changes {
            let (mut simulation, firsts, datagram) = with_auth_under_way(of);
            let (_, data, mut id) = auth_of(&forge(&simulation, of), &datagram);
            let (mut message, mut nonce) = (firsts[of].clone(), nonce_of(&firsts[1 - of]));
            let whole = forge(&simulation, of).signed_octets(&message, &nonce, &id);
            assert_eq!(data, right(&whole), "what an end itself sends");
            let mut end = of;
            let make = change(&mut message, &mut nonce, &mut id, &mut end);
            let octets = forge(&simulation, end).signed_octets(&message, &nonce, &id);
            let made = |_: &[u8]| (AuthMethod::SHARED_KEY, make(&octets));
            let other = with_auth(&simulation, of, &datagram, (&message, &nonce), made);
            deliver(&mut simulation, 1 - of, &other);
            assert_eq!(children(&simulation, 1 - of), usize::from(*good), "{what} of {of}");
            let failed = counter(&simulation, 1 - of, Counter::AuthenticationFailed);
            assert_eq!(failed, u64::from(!*good), "{what} of {of}");
        }
    }
}

/// RFC 7296 3.5, and 2.15: RestOfInitIDPayload is all that follows the generic header.
#[test]
fn reserved_octets_of_an_identification_are_ignored_and_covered_by_auth() {
    for of in [0, 1] {
        for covered in [true, false] {
            let (mut simulation, firsts, datagram) = with_auth_under_way(of);
            let (_, _, id) = auth_of(&forge(&simulation, of), &datagram);
            let filled = [&id[..1], &[1, 2, 3], &id[4..]].concat();
            let over = if covered { &filled } else { &id };
            let nonce = nonce_of(&firsts[1 - of]);
            let octets = forge(&simulation, of).signed_octets(&firsts[of], &nonce, over);
            let data = mic(KEY, &octets);
            let reserved = |id: &mut Identification<'_>| id.reserved = [1, 2, 3];
            let sealer = forge(&simulation, of);
            let opened = sealer.open(&datagram).unwrap();
            let mut payloads = opened.payloads().unwrap();
            for payload in &mut payloads {
                match payload {
                    Payload::IdInitiator(id) if of == 0 => reserved(id),
                    Payload::IdResponder(id) if of == 1 => reserved(id),
                    Payload::Authentication(auth) => auth.data = &data,
                    _ => {}
                }
            }
            let other = sealer.seal(&opened.header, &payloads).unwrap();
            deliver(&mut simulation, 1 - of, &other);
            assert_eq!(children(&simulation, 1 - of), usize::from(covered), "{of}");
        }
    }
}

/// 3.7 has CERTREQ with encodings of X.509 alone: another asks for nothing that we would have shown
/// otherwise.
#[test]
fn a_certreq_of_another_encoding_changes_nothing() {
    let (mut simulation, auth) = half_open();
    let others = [0, 1, 2, 3, 6, 9, 11, 200].map(CertEncoding);
    let asks = resealed(&simulation, 0, &auth, |payloads| {
        payloads.extend(others.map(|encoding| {
            Payload::CertificateRequest(CertificateRequest { encoding, authorities: &[7; 20] })
        }));
    });
    let answer = only(deliver(&mut simulation, 1, &asks));
    deliver(&mut simulation, 0, &answer);
    for node in 0..2 {
        assert_eq!(states(&simulation, node), ["established"]);
        assert_eq!(children(&simulation, node), 1);
    }
}
