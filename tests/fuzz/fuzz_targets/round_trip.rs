//! What can be read and written is read back as the same, in messages and inside SK.
#![no_main]

use gateway_wire::{Message, PayloadType, decode_chain, encode_chain, encode_message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = Message::decode(input)
        && let Ok(written) = encode_message(&message.header, &message.payloads)
    {
        assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
    }
    let Some((first, octets)) = input.split_first() else { return };
    if let Ok(payloads) = decode_chain(PayloadType(*first), octets)
        && let Ok((first, written)) = encode_chain(&payloads)
    {
        assert_eq!(decode_chain(first, &written).as_ref(), Ok(&payloads));
    }
});
