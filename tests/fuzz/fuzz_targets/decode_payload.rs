//! One decoder at a time: the first octet chooses it, the rest is the payload's body, so that no
//! length of a chain has to be guessed.
#![no_main]

use gateway_wire::{Payload, PayloadType, SignatureAuthentication, decode_chain};
use libfuzzer_sys::fuzz_target;

const DECODERS: [PayloadType; 16] = [
    PayloadType::SA,
    PayloadType::KE,
    PayloadType::ID_I,
    PayloadType::ID_R,
    PayloadType::CERT,
    PayloadType::CERTREQ,
    PayloadType::AUTH,
    PayloadType::NONCE,
    PayloadType::NOTIFY,
    PayloadType::DELETE,
    PayloadType::VENDOR_ID,
    PayloadType::TS_I,
    PayloadType::TS_R,
    PayloadType::CP,
    PayloadType::EAP,
    PayloadType(200),
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let kind = DECODERS[usize::from(*choice) % DECODERS.len()];
    let Ok(length) = u16::try_from(body.len() + 4) else { return };
    let chain = [&[0, 0], length.to_be_bytes().as_slice(), body].concat();
    let Ok(payloads) = decode_chain(kind, &chain) else { return };
    let [payload] = payloads.as_slice() else { panic!("one payload became {}", payloads.len()) };
    assert_eq!(payload.payload_type(), kind);
    match payload {
        Payload::Authentication(auth) => drop(SignatureAuthentication::decode(auth.data)),
        Payload::Notify(notify) => drop(notify.hash_algorithms()),
        Payload::IdInitiator(id) | Payload::IdResponder(id) => assert_eq!(id.body(), body),
        _ => {}
    }
});
