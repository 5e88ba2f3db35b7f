//! EAP-MD5 (RFC 3748 5.4): after as many good messages as the first octet says, the data of one
//! that is not.
#![no_main]

use gateway_ike::testing::eap::{EapMethod, instead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((good, data)) = input.split_first() else { return };
    instead(EapMethod::Md5, usize::from(*good), data);
});
