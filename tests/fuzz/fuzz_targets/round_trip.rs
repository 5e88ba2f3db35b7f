//! A message that can be read and written is read back as the same.
#![no_main]

use gateway_wire::{Message, encode_message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = Message::decode(input)
        && let Ok(written) = encode_message(&message.header, &message.payloads)
    {
        assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
    }
});
