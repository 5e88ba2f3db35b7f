//! TCP's maximum segment size (RFC 9293 3.7.1): what our side announces in a SYN is lowered to what
//! fits into the SA, so that the other end sends nothing larger. It works where the packets too big
//! of routers are lost on their way.

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
    lower(context, packet.payload, tcp, largest)
}

/// A function of its own, so that the kernel's verifier need not follow it from each way in which
/// the headers before it can have been read.
#[inline(never)]
fn lower(context: &TcContext, start: u32, tcp: Tcp, largest: u16) -> Result<(), Reason> {
    let end = start.wrapping_add(tcp.header_length());
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
                if u16::from_be_bytes([high, low]) <= largest {
                    break;
                }
                let place = at.wrapping_add(2);
                let is_odd = place.wrapping_sub(start) & 1 != 0;
                let largest = largest.to_be_bytes();
                if !packet::replace_in_tcp(context, start, place, is_odd, [high, low], largest) {
                    return Err(Reason::NotRedirected);
                }
                count::beside(Reason::MssClamped, u64::from(context.len()));
                break;
            }
            // It would never end.
            (_, 0 | 1) => break,
            _ => at = at.wrapping_add(u32::from(length)),
        }
    }
    Ok(())
}
