//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2 2): after as many good messages as the first octet says, the data of one
//! that is not.
#![no_main]

use gateway_ike::testing::eap::{EapMethod, instead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((good, data)) = input.split_first() else { return };
    instead(EapMethod::MsChapV2, usize::from(*good), data);
});
