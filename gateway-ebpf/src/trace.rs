//! Tells whoever traces what was decided about a packet.
//!
//! While nobody does, this costs one look at a map that the kernel reads in place.

use core::hint::black_box;
use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_common::{
    Hook, PACKET_LIMIT, Reason, Subject, TraceCount, TraceEvent, TraceKey, TraceSettings, WINDOW,
};

use crate::maps::{TRACE_COUNTS, TRACE_EVENTS, TRACE_SETTINGS, TRACE_WANTED};
use crate::packet;

/// Octets that are copied at once.
const CHUNK: usize = 16;

/// How many chunks there are at most.
const CHUNKS: usize = PACKET_LIMIT / CHUNK;

/// An event and its packet, as they lie in the ring.
#[repr(C)]
pub struct Traced {
    event: TraceEvent,
    /// With room for a chunk that begins at the last octet, which the verifier asks for.
    packet: [u8; PACKET_LIMIT + CHUNK],
}

/// A packet as a program has it.
pub trait Source {
    /// Copies its first octets, at most [`PACKET_LIMIT`], to a place that has room for so many;
    /// returns how many.
    fn copy(&self, octets: u32, to: *mut u8) -> u32;

    /// Octets of the packet.
    fn length(&self) -> u32;

    /// The index of the interface.
    fn interface(&self) -> u32;

    /// Puts an event and at most so many octets of the packet into the ring.
    fn tell(&self, event: &TraceEvent, octets: u32);
}

impl Source for XdpContext {
    /// Chunk by chunk: `bpf_xdp_load_bytes` is there since 5.18 only. What is left of a frame in the
    /// end is in its last chunk, which overlaps the one before; a frame without a chunk is none.
    #[inline(always)]
    fn copy(&self, octets: u32, to: *mut u8) -> u32 {
        let octets = u64::from(octets).min(packet::length(self)) as usize;
        for nth in 0..CHUNKS {
            let offset = nth.wrapping_mul(CHUNK);
            if offset.wrapping_add(CHUNK) > octets {
                break;
            }
            let Some(chunk) = packet::at::<[u16; CHUNK / 2]>(self, offset) else { break };
            let to = to.wrapping_add(offset).cast::<u16>();
            for (nth, two) in chunk.iter().enumerate() {
                // As one write it would be a call of memcpy, which goes octet by octet: the verifier
                // would follow all 2048.
                // SAFETY: there are not more chunks than have room, and the place is even.
                unsafe { to.wrapping_add(nth).write_volatile(*two) };
            }
        }
        if octets < CHUNK {
            return 0;
        }
        // Both are hidden from the compiler: it would reckon from what it knows of them, and the
        // verifier, which does not, would see neither that the place has room nor that what is
        // read is what was compared with the frame's end.
        let offset = black_box(octets.wrapping_sub(CHUNK)) & PACKET_LIMIT.wrapping_sub(1);
        let start = black_box(self.data().wrapping_add(offset));
        if start.wrapping_add(CHUNK) > self.data_end() {
            return 0;
        }
        // SAFETY: it lies in the frame, and any octets are good.
        let chunk = unsafe { (start as *const [u8; CHUNK]).read() };
        // SAFETY: behind the last place where a chunk can begin a chunk has room.
        unsafe { to.wrapping_add(offset).cast::<[u8; CHUNK]>().write(chunk) };
        octets as u32
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        packet::length(self) as u32
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn tell(&self, event: &TraceEvent, octets: u32) {
        tell_xdp(self.ctx, event, octets);
    }
}

impl Source for TcContext {
    #[inline(always)]
    fn copy(&self, octets: u32, to: *mut u8) -> u32 {
        packet::copy::<PACKET_LIMIT>(self, octets.min(self.len()), to)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        packet::interface(self)
    }

    #[inline(always)]
    fn tell(&self, event: &TraceEvent, octets: u32) {
        tell_tc(self.skb.skb, event, octets);
    }
}

/// Where a program is attached.
#[derive(Clone, Copy)]
pub struct Place {
    /// On the packet's way.
    pub hook: Hook,
    /// Whether its packets begin with an Ethernet header.
    pub ethernet: bool,
}

/// Whether somebody wants to see ESP that passes without a reason to count.
#[inline(always)]
#[must_use]
pub fn wants_passing() -> bool {
    settings().is_some_and(|settings| settings.until != 0 && settings.has(TraceSettings::PASSED))
}

/// Tells of a decision, if somebody wants to know.
#[inline(always)]
pub fn decided(source: &impl Source, place: Place, decided: Result<(), Reason>, subject: &Subject) {
    let Some(settings) = settings() else { return };
    if settings.until == 0 {
        return;
    }
    // SAFETY: the helper only reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now > settings.until || !is_wanted(settings, decided, subject) || !has_room(settings, now) {
        return;
    }
    let ethernet = if place.ethernet { TraceEvent::ETHERNET } else { 0 };
    let event = event(now, decided, subject);
    let event = TraceEvent {
        interface: source.interface(),
        length: source.length(),
        flags: event.flags | ethernet,
        hook: place.hook as u8,
        ..event
    };
    source.tell(&event, settings.octets);
}

#[inline(always)]
fn settings() -> Option<&'static TraceSettings> {
    TRACE_SETTINGS.get(0)
}

#[inline(always)]
fn is_wanted(settings: &TraceSettings, decided: Result<(), Reason>, subject: &Subject) -> bool {
    match decided {
        Ok(()) if subject.spi().is_none() || !settings.has(TraceSettings::PASSED) => return false,
        Ok(()) => {}
        Err(reason) => {
            let [low, high] = settings.reasons;
            let word = if reason.index() < u64::BITS { low } else { high };
            if word >> (reason.index() % u64::BITS) & 1 == 0 {
                return false;
            }
        }
    }
    if !settings.has(TraceSettings::SELECTED) {
        return true;
    }
    let is_listed = |kind, value: Option<u32>| {
        value.is_some_and(|value| TRACE_WANTED.get_ptr(TraceKey { kind, value }).is_some())
    };
    is_listed(TraceKey::RULE, subject.rule()) || is_listed(TraceKey::SPI, subject.spi())
}

/// Whether this CPU may tell one more in this window.
#[inline(always)]
fn has_room(settings: &TraceSettings, now: u64) -> bool {
    let Some(count) = counts() else { return false };
    let window = now >> WINDOW;
    if count.window != window {
        (count.window, count.events) = (window, 0);
    }
    if count.events >= u64::from(settings.rate) {
        count.over_rate = count.over_rate.wrapping_add(1);
        return false;
    }
    count.events = count.events.wrapping_add(1);
    true
}

#[inline(always)]
fn counts() -> Option<&'static mut TraceCount> {
    let count = TRACE_COUNTS.get_ptr_mut(0)?;
    // SAFETY: the map gave the pointer, and it is this CPU's own.
    unsafe { count.as_mut() }
}

#[inline(always)]
fn event(at: u64, decided: Result<(), Reason>, subject: &Subject) -> TraceEvent {
    let reason = match decided {
        Ok(()) => TraceEvent::PASSED,
        Err(reason) => reason.index(),
    };
    // SAFETY: the helper only says where the program runs.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    subject.event(at, reason, cpu)
}

/// As [`Source::tell`]. A function with a symbol is verified by itself, once, and not again for
/// every way to a decision; it returns a number, and may be called without an event.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tell_xdp(context: *mut xdp_md, event: *const TraceEvent, octets: u32) -> u32 {
    // SAFETY: the kernel checks that all of it can be read; none is the null pointer.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    tell(&XdpContext::new(context), event, octets)
}

/// As [`tell_xdp`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tell_tc(context: *mut __sk_buff, event: *const TraceEvent, octets: u32) -> u32 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    tell(&TcContext::new(context), event, octets)
}

/// Returns whether there was room, as a number.
#[inline(always)]
fn tell(source: &impl Source, event: &TraceEvent, octets: u32) -> u32 {
    let Some(mut entry) = TRACE_EVENTS.reserve(0) else {
        if let Some(count) = counts() {
            count.full = count.full.wrapping_add(1);
        }
        return 0;
    };
    let packet = entry.as_mut_ptr().cast::<u8>().wrapping_add(offset_of!(Traced, packet));
    let captured = source.copy(octets.min(PACKET_LIMIT as u32), packet);
    // An event lies at the beginning.
    let first = entry.as_mut_ptr().cast::<TraceEvent>();
    // SAFETY: it is the place of an event, which the ring has aligned to eight octets.
    unsafe { first.write(TraceEvent { captured, ..*event }) };
    entry.submit(0);
    1
}
