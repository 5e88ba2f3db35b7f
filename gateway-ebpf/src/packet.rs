//! The only place where an offset becomes a reference, or octets of a packet become a value.

use core::hint::black_box;
use core::mem::offset_of;

use aya_ebpf::helpers::{
    bpf_skb_load_bytes, bpf_skb_vlan_pop, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::header::Tcp;

/// The `T` at an offset of an XDP frame; none if the frame ends before its end.
///
/// `T` must be numbers only: any content must be good for it.
#[inline(always)]
#[must_use]
pub fn at<T: Copy>(context: &XdpContext, offset: usize) -> Option<&T> {
    const { assert!(align_of::<T>() <= 2) };
    if !reaches(context, offset.wrapping_add(size_of::<T>())) {
        return None;
    }
    // SAFETY: the whole of it lies in the frame, at an even address since frames begin at one and
    // the offsets of headers are even, and any content is good.
    Some(unsafe { &*(context.data().wrapping_add(offset) as *const T) })
}

/// Octets of a frame among which [`within`] finds something.
const HEADERS: u32 = 128;

/// As [`at`], for an even offset that is known only as the program runs, of less than 128; and it
/// may be changed. No other reference to the same octets may be in use.
///
/// Where it leads to is hidden from the compiler, which would reckon the end and the place apart:
/// the verifier would not see that the latter is what was compared. And the frame's ends are read
/// each time: kept aside they would be numbers of 32 bits, which the verifier takes for no pointer.
#[expect(clippy::mut_from_ref, reason = "the frame is no part of the context")]
#[inline(always)]
#[must_use]
pub fn within<T: Copy>(context: &XdpContext, offset: u32) -> Option<&mut T> {
    const { assert!(align_of::<T>() <= 2) };
    // SAFETY: the context is the kernel's; the verifier knows the field.
    let data = unsafe { &raw const (*context.ctx).data };
    // SAFETY: as above.
    let end = unsafe { &raw const (*context.ctx).data_end };
    // SAFETY: as above.
    let data = unsafe { data.read_volatile() };
    let offset = offset & HEADERS.wrapping_sub(1);
    let place = black_box((data as usize).wrapping_add(offset as usize));
    // SAFETY: as above.
    let end = unsafe { end.read_volatile() };
    if place.wrapping_add(size_of::<T>()) > end as usize {
        return None;
    }
    // SAFETY: the whole of it lies in the frame, at an even address, and any content is good.
    Some(unsafe { &mut *(place as *mut T) })
}

/// Whether an XDP frame has at least `length` octets.
#[inline(always)]
#[must_use]
pub fn reaches(context: &XdpContext, length: usize) -> bool {
    context.data().wrapping_add(length) <= context.data_end()
}

/// The octets of an XDP frame.
#[inline(always)]
#[must_use]
pub fn length(context: &XdpContext) -> u64 {
    context.data_end().wrapping_sub(context.data()) as u64
}

/// Puts `head` over the `T` at the frame's start. Whether it was done.
#[inline(always)]
#[must_use]
pub fn replace<T: Copy>(context: &XdpContext, head: T) -> bool {
    const { assert!(align_of::<T>() <= 2) };
    if !reaches(context, size_of::<T>()) {
        return false;
    }
    // SAFETY: the whole of it lies in the frame, at an even address.
    unsafe { (context.data() as *mut T).write(head) };
    true
}

/// Puts `head` over the `T` that begins `N` octets after the frame's start, and lets the frame
/// begin there. Whether it was done; if not, the frame is to be dropped.
#[inline(always)]
#[must_use]
pub fn shorten<T: Copy, const N: usize>(context: &XdpContext, head: T) -> bool {
    const { assert!(align_of::<T>() <= 2 && N.is_multiple_of(2)) };
    if !reaches(context, N.wrapping_add(size_of::<T>())) {
        return false;
    }
    let place = context.data().wrapping_add(N) as *mut T;
    // SAFETY: the whole of it lies in the frame, at an even address.
    unsafe { place.write(head) };
    // SAFETY: the context is the kernel's.
    unsafe { bpf_xdp_adjust_head(context.ctx, N as i32) == 0 }
}

/// Lets the frame begin `N` octets earlier, and puts `head` there. Whether it was done.
#[inline(always)]
#[must_use]
pub fn lengthen<T: Copy, const N: usize>(context: &XdpContext, head: T) -> bool {
    const { assert!(align_of::<T>() <= 2 && N.is_multiple_of(2)) };
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_xdp_adjust_head(context.ctx, (N as i32).wrapping_neg()) } != 0 {
        return false;
    }
    if !reaches(context, size_of::<T>()) {
        return false;
    }
    // SAFETY: the whole of it lies in the frame, at an even address.
    unsafe { (context.data() as *mut T).write(head) };
    true
}

/// Lets an XDP frame end after `length` octets. Whether it had as many, and it was done.
#[inline(always)]
#[must_use]
pub fn cut(context: &XdpContext, length: u64) -> bool {
    // Hidden, or the compiler adds `length` to a pointer, which the verifier refuses.
    let excess = black_box(self::length(context)).wrapping_sub(length) as i32;
    // SAFETY: the context is the kernel's.
    excess >= 0 && unsafe { bpf_xdp_adjust_tail(context.ctx, excess.wrapping_neg()) } == 0
}

/// Lets an XDP frame that was cut end after `length` octets again. Whether it was done.
#[inline(always)]
#[must_use]
pub fn grow(context: &XdpContext, length: u64) -> bool {
    // As in `cut`.
    let missing = length.wrapping_sub(black_box(self::length(context))) as i32;
    // SAFETY: the context is the kernel's.
    missing >= 0 && unsafe { bpf_xdp_adjust_tail(context.ctx, missing) } == 0
}

/// The `T` at an offset of a packet at TC, wherever the kernel keeps these octets.
///
/// `T` must be numbers only: any content must be good for it.
#[inline(always)]
#[must_use]
pub fn load<T: Copy>(context: &TcContext, offset: u32) -> Option<T> {
    context.load(offset as usize).ok()
}

/// Copies a packet's first octets, 1 to `LIMIT`, a power of two, to a place that has room for
/// `LIMIT`; returns how many.
#[inline(always)]
#[must_use]
pub fn copy<const LIMIT: usize>(context: &TcContext, octets: u32, to: *mut u8) -> u32 {
    const { assert!(LIMIT.is_power_of_two()) };
    // So the verifier knows both bounds.
    let octets = (octets.wrapping_sub(1) & (LIMIT as u32).wrapping_sub(1)).wrapping_add(1);
    // SAFETY: the context is the kernel's, and the place has room.
    let failed = unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), 0, to.cast(), octets) };
    if failed == 0 { octets } else { 0 }
}

/// The mark of a packet at TC.
#[inline(always)]
#[must_use]
pub fn mark(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's; the verifier knows the field.
    unsafe { (*context.skb.skb).mark }
}

/// The index of the interface at whose TC hook a packet is.
#[inline(always)]
#[must_use]
pub fn interface(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's; the verifier knows the field.
    unsafe { (*context.skb.skb).ifindex }
}

/// The EtherType that the kernel has for a packet at TC.
#[inline(always)]
#[must_use]
pub fn ethertype(context: &TcContext) -> [u8; 2] {
    // SAFETY: the context is the kernel's; the verifier knows the field, which is 16 bits in
    // network order.
    let protocol = unsafe { (*context.skb.skb).protocol } as u16;
    protocol.to_ne_bytes()
}

/// Takes a packet's VLAN tags off: the one that the kernel keeps beside it and `in_frame` more.
/// Whether it was done.
#[inline(always)]
#[must_use]
pub fn untag(context: &TcContext, in_frame: u32) -> bool {
    // SAFETY: the context is the kernel's; the verifier knows the field.
    let beside = unsafe { (*context.skb.skb).vlan_present };
    let mut tags = in_frame.wrapping_add(u32::from(beside != 0));
    for _ in 0..3 {
        if tags == 0 {
            return true;
        }
        // SAFETY: the context is the kernel's.
        if unsafe { bpf_skb_vlan_pop(context.skb.skb) } != 0 {
            return false;
        }
        tags = tags.wrapping_sub(1);
    }
    tags == 0
}

/// Puts two octets in the place of others in a TCP segment that begins at `start`, and mends its
/// checksum (RFC 1624), in which octets at an odd place of the segment have changed sides. Whether it was
/// done; if not, the packet is to be dropped.
#[inline(always)]
#[must_use]
pub fn replace_in_tcp(
    context: &TcContext,
    start: u32,
    place: u32,
    is_odd: bool,
    old: [u8; 2],
    new: [u8; 2],
) -> bool {
    let checksum = start.wrapping_add(offset_of!(Tcp, checksum) as u32);
    let word = |[a, b]: [u8; 2]| {
        let word = if is_odd { [b, a] } else { [a, b] };
        u64::from(u16::from_ne_bytes(word))
    };
    context.store(place as usize, &new, 0).is_ok()
        && context.l4_csum_replace(checksum as usize, word(old), word(new), 2).is_ok()
}
