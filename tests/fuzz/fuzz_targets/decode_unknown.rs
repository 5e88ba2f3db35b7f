//! A payload of a type that we do not know (RFC 7296 2.5); the first octet is its flags.
#![no_main]

use gateway_fuzz::chain_of_one;
use gateway_wire::{ChainError, Payload, PayloadType, decode_chain};
use libfuzzer_sys::fuzz_target;

const KIND: PayloadType = PayloadType(200);

fuzz_target!(|input: &[u8]| {
    let Some((flags, body)) = input.split_first() else { return };
    let Some(chain) = chain_of_one(*flags, body) else { return };
    match decode_chain(KIND, &chain) {
        Ok(payloads) => {
            let [Payload::Unknown(unknown)] = payloads.as_slice() else { panic!("{payloads:?}") };
            assert_eq!((unknown.kind, unknown.critical, unknown.data), (KIND, false, body));
        }
        Err(error) => assert_eq!(error, ChainError::UnsupportedCritical(KIND)),
    }
});
