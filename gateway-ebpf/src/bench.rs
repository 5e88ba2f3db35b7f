//! What the bench needs beside the programs. The kernel's test-run goes on with the packet as the
//! last run left it, so a decapsulation can only be repeated if each run puts back what it took.
//! A program is loaded when it is asked for: the daemon never loads these.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_common::{Address, Flow, Reason, Subject};

use crate::decide::decide;
use crate::header::{Ipv4InPlace, Udp};
use crate::read::Packet;
use crate::{natt, packet};

/// The headers of ESP in UDP over IPv4, without a VLAN tag.
#[derive(Clone, Copy)]
#[repr(C)]
struct Headers {
    link: [u16; 7],
    ip: Ipv4InPlace,
    udp: Udp,
}

/// What a UDP header takes.
const UDP: usize = size_of::<Udp>();

/// Decapsulates, and puts the headers back. What was decided.
#[inline(always)]
pub fn decapsulate_and_restore(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(headers) = packet::at::<Headers>(context, 0).copied() else { return Ok(()) };
    let decided = natt::ingress(context, subject);
    if decided == Err(Reason::Stripped) && !packet::lengthen::<_, UDP>(context, headers) {
        return Err(Reason::NotStripped);
    }
    decided
}

/// Octets of the answer to an IKE_SA_INIT request over IPv4, in its frame, and in words.
const ANSWER: usize = 90;
const ANSWER_WORDS: usize = ANSWER / 2;

/// Answers with a cookie, and puts the request back as far as it is looked at. What was decided.
#[inline(always)]
pub fn answer_and_restore(context: &XdpContext, subject: &mut Subject) -> Result<(), Reason> {
    let Some(before) = packet::at::<[u16; ANSWER_WORDS]>(context, 0).copied() else {
        return Ok(());
    };
    let length = packet::length(context);
    let decided = natt::ingress(context, subject);
    if decided == Err(Reason::IkeCookieAnswered) && !put_back(context, before, length) {
        return Err(Reason::IkeCookieNotAnswered);
    }
    decided
}

/// Does only what the one above does beside answering, with the cut that undoes it.
#[inline(always)]
pub fn cut_and_restore(context: &XdpContext) -> Result<(), Reason> {
    let Some(before) = packet::at::<[u16; ANSWER_WORDS]>(context, 0).copied() else {
        return Ok(());
    };
    let length = packet::length(context);
    if !packet::cut(context, ANSWER as u64) || !put_back(context, before, length) {
        return Err(Reason::IkeCookieNotAnswered);
    }
    Ok(())
}

#[inline(always)]
fn put_back(context: &XdpContext, before: [u16; ANSWER_WORDS], length: u64) -> bool {
    packet::grow(context, length) && packet::replace(context, before)
}

/// Does only what the first does beside decapsulating, with the move that undoes it.
#[inline(always)]
pub fn restore(context: &XdpContext) -> Result<(), Reason> {
    let Some(headers) = packet::at::<Headers>(context, 0).copied() else { return Ok(()) };
    let moved = packet::shorten::<[u16; 1], UDP>(context, [0]);
    if !moved || !packet::lengthen::<_, UDP>(context, headers) {
        return Err(Reason::NotStripped);
    }
    Ok(())
}

/// The third octet from the right counts the prefixes among which a packet's is picked; the first is
/// 11.0.0.0/24.
const FIRST_PREFIX: u32 = 0x0b00_0000;

/// Reads a packet to one of as many prefixes as its destination says, another one each time: the
/// caches know the rule of none.
#[inline(always)]
pub fn pick(context: &TcContext) -> Option<Flow> {
    let mut packet = Packet::EMPTY;
    if !packet.read::<true, true>(context).is_ok_and(|is_ip| is_ip) {
        return None;
    }
    let [_high, low] = packet.flow.remote.words();
    let prefixes = u64::from(u64::from_be(low) as u32);
    // SAFETY: the helper has no requirements.
    let random = u64::from(unsafe { bpf_get_prandom_u32() });
    let prefix = (random.wrapping_mul(prefixes) >> 32) as u32;
    packet.flow.remote = Address::v4(FIRST_PREFIX.wrapping_add(prefix << 8).to_be_bytes());
    Some(packet.flow)
}

/// Whether such a packet has a rule.
#[inline(always)]
pub fn classify_picked(context: &TcContext) -> bool {
    pick(context).is_some_and(|flow| decide(&flow).is_some())
}
