//! What the targets have in common.

pub mod chain;
pub mod chain_of_trust;
pub mod endpoint;
#[path = "../../../gateway/ike/benches/common/heap.rs"]
pub mod heap;
pub mod octets;

// The same two ends as in the simulation of gateway-ike.
#[path = "../../../gateway/ike/tests/certificates/mod.rs"]
#[expect(dead_code, reason = "It issues certificates of every kind, for other tests too.")]
mod certificates;
#[path = "../../../gateway/ike/tests/simulation/plan.rs"]
#[expect(dead_code, reason = "A part of it is about what follows from a seed.")]
mod plan;
#[path = "../../../gateway/ike/tests/simulation/proof.rs"]
#[expect(dead_code, reason = "A part of it is about what follows from a seed.")]
mod proof;

use core::net::{IpAddr, Ipv4Addr};

use gateway_wire::{
    ExchangeType, Flags, Header, IkeSpi, Message, MessageId, Payload, PayloadType, decode_chain,
    encode_chain,
};

/// The two ends, the NAT that may be before the first, and somebody else.
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const EVE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// Octets of the generic payload header (RFC 7296 3.2).
const GENERIC_LEN: usize = 4;

/// A chain of one payload, whose generic header has these flags; `None` if it is too long.
pub fn chain_of_one(flags: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(GENERIC_LEN + body.len()).ok()?;
    Some([&[0, flags], length.to_be_bytes().as_slice(), body].concat())
}

/// Reads one payload by its body, so that no length of a chain has to be guessed.
pub fn payload(kind: PayloadType, body: &[u8]) {
    decoded(kind, body, |_| {});
}

/// Like [`payload`], with a look at what it became, if it was not refused.
pub fn decoded(kind: PayloadType, body: &[u8], check: impl FnOnce(&Payload<'_>)) {
    let Some(chain) = chain_of_one(0, body) else { return };
    let Ok(payloads) = decode_chain(kind, &chain) else { return };
    let [payload] = payloads.as_slice() else { panic!("one payload became {}", payloads.len()) };
    assert_eq!(payload.payload_type(), kind);
    check(payload);
    written_and_read(&payloads);
}

/// Sees to it that payloads, if they can be written, are read again as the same.
pub fn written_and_read(payloads: &[Payload<'_>]) {
    let Ok((first, written)) = encode_chain(payloads) else { return };
    assert_eq!(decode_chain(first, &written).as_deref(), Ok(payloads));
}

/// Reads one payload of a kind that is in a datagram only, and looks at what it became.
pub fn in_datagram(kind: PayloadType, body: &[u8], check: impl FnOnce(&[u8], &Payload<'_>)) {
    let Some(chain) = chain_of_one(0, body) else { return };
    let header = Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::default(),
        message_id: MessageId(0),
    };
    let length = u32::try_from(Header::LEN + chain.len()).unwrap();
    let datagram = [header.encode(kind, length).as_slice(), &chain].concat();
    let Ok(message) = Message::decode(&datagram) else { return };
    let [payload] = message.payloads.as_slice() else { panic!("{:?}", message.payloads) };
    check(&datagram, payload);
}
