//! TCP's maximum segment size (RFC 9293 3.7.1): what our side announces in a SYN is lowered to what
//! fits into the SA, so that the other end sends nothing larger. It works where the packets too big
//! of routers are lost on their way.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use gateway_common::{Family, Reason, largest_segment};

use crate::header::{TCP_OPTION_END, TCP_OPTION_MSS, TCP_OPTION_NONE, Tcp, protocol};
use crate::read::{Packet, Visible};
use crate::{count, maps, packet};

/// The options take at most 40 octets, and each at least one.
const MOST_OPTIONS: u32 = 40;

/// Lowers the maximum segment size of a SYN that is to be encrypted. A SYN without one is left as
/// it is: its receiver then takes 536 octets (1220 with IPv6), which fit.
#[inline(always)]
pub(crate) fn clamp(context: &TcContext, packet: &Packet) -> Result<(), Reason> {
    if packet.flow.protocol != protocol::TCP || packet.visible != Visible::Ports {
        return Ok(());
    }
    let Some(tcp) = packet::load::<Tcp>(context, packet.payload) else { return Ok(()) };
    if !tcp.is_syn() {
        return Ok(());
    }
    let mtu = maps::mtu(packet.flow.remote);
    let largest = largest_segment(mtu, matches!(packet.flow.family, Family::V6));
    if largest == 0 {
        return Ok(());
    }
    let length = tcp.header_length();
    match lower_mss(context.skb.skb, packet.payload, length, u32::from(largest)) {
        UNCHANGED => Ok(()),
        LOWERED => {
            count::beside(Reason::MssClamped, u64::from(context.len()));
            Ok(())
        }
        _ => Err(Reason::NotRedirected),
    }
}

/// [`lower_mss`] has found nothing to lower.
const UNCHANGED: u32 = 0;
/// It has lowered it.
const LOWERED: u32 = 1;
/// It has changed half of it: the packet is to be dropped.
const SPOILED: u32 = 2;

/// Lowers the maximum segment size in the options of the TCP header of `header` octets at `start`.
///
/// It has a symbol, so the kernel's verifier takes it for a global function: it looks through the
/// loop once, and not again for every way in which the headers before it can have been read (that
/// took 30 times as long).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn lower_mss(context: *mut __sk_buff, start: u32, header: u32, largest: u32) -> u32 {
    let context = &TcContext::new(context);
    let end = start.wrapping_add(header);
    let mut at = start.wrapping_add(size_of::<Tcp>() as u32);
    for _ in 0..MOST_OPTIONS {
        // No option that ends before has a segment size.
        if at.wrapping_add(4) > end {
            break;
        }
        let Some([kind, length, high, low]) = packet::load::<[u8; 4]>(context, at) else { break };
        match (kind, length) {
            (TCP_OPTION_END, _) => break,
            (TCP_OPTION_NONE, _) => at = at.wrapping_add(1),
            (TCP_OPTION_MSS, 4) => {
                if u32::from(u16::from_be_bytes([high, low])) <= largest {
                    break;
                }
                let place = at.wrapping_add(2);
                let is_odd = place.wrapping_sub(start) & 1 != 0;
                let largest = (largest as u16).to_be_bytes();
                if !packet::replace_in_tcp(context, start, place, is_odd, [high, low], largest) {
                    return SPOILED;
                }
                return LOWERED;
            }
            // It would never end.
            (_, 0 | 1) => break,
            _ => at = at.wrapping_add(u32::from(length)),
        }
    }
    UNCHANGED
}
