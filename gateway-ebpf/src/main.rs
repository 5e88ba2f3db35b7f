//! The entry points: each calls its packet function, and turns the verdict into the kernel's
//! number.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, socket_filter, xdp};
use aya_ebpf::programs::{SkBuffContext, TcContext, XdpContext};
use aya_log_ebpf as _;
use gateway_common::{Hook, Reason, Subject, Verdict};
use gateway_ebpf::trace::Place;
use gateway_ebpf::{bench, count, cpu, guard, nat, natt, packet, steer};

/// What becomes of a packet by a packet function. A macro, and the entry points are `inline(always)`:
/// what is a function would have a frame of its own, and all frames of a chain of calls have 512 octets
/// (`MAX_BPF_STACK`), an empty one 32 of them.
macro_rules! decide_xdp {
    ($context:ident, $decide:path) => {{
        let (octets, mut subject) = (packet::length(&$context), Subject::default());
        let decided = $decide(&$context, &mut subject);
        finish_xdp(&$context, decided, octets, &subject)
    }};
}

/// XDP on the underlay.
#[xdp]
#[inline(always)]
fn natt_ingress(context: XdpContext) -> u32 {
    decide_xdp!(context, natt::ingress)
}

/// XDP that passes everything: what the bench measures against.
#[xdp]
fn pass(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// XDP that decapsulates and puts the headers back, for the bench.
#[xdp]
#[inline(always)]
fn natt_and_restore(context: XdpContext) -> u32 {
    decide_xdp!(context, bench::decapsulate_and_restore)
}

/// XDP that answers with a cookie and puts the request back, for the bench.
#[xdp]
#[inline(always)]
fn cookie_and_restore(context: XdpContext) -> u32 {
    decide_xdp!(context, bench::answer_and_restore)
}

/// XDP that cuts and puts the request back and nothing else, for the bench.
#[xdp]
fn cut_and_restore(context: XdpContext) -> u32 {
    match bench::cut_and_restore(&context) {
        Ok(()) => XDP_PASS,
        Err(_reason) => XDP_DROP,
    }
}

/// TC that passes everything, for the bench.
#[classifier]
fn pass_tc(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// TC that makes another packet of each and nothing else, for the bench.
#[classifier]
fn pick(context: TcContext) -> i32 {
    let _last = bench::pick(&context).map(core::hint::black_box);
    TC_ACT_UNSPEC
}

/// TC that finds the rule of another packet each time, for the bench.
#[classifier]
fn classify_picked(context: TcContext) -> i32 {
    if bench::classify_picked(&context) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// XDP that puts the headers back and nothing else, for the bench.
#[xdp]
fn restore(context: XdpContext) -> u32 {
    match bench::restore(&context) {
        Ok(()) => XDP_PASS,
        Err(_reason) => XDP_DROP,
    }
}

/// TC egress on an underlay with Ethernet headers.
#[classifier]
fn steer_egress(context: TcContext) -> i32 {
    finish::<true>(&context, Hook::Egress, steer::egress::<true>)
}

/// TC egress on an underlay without link headers.
#[classifier]
fn steer_egress_l3(context: TcContext) -> i32 {
    finish::<false>(&context, Hook::Egress, steer::egress::<false>)
}

/// TC ingress on an underlay with Ethernet headers.
#[classifier]
fn guard_ingress(context: TcContext) -> i32 {
    finish::<true>(&context, Hook::Ingress, guard::ingress::<true>)
}

/// TC ingress on an underlay without link headers.
#[classifier]
fn guard_ingress_l3(context: TcContext) -> i32 {
    finish::<false>(&context, Hook::Ingress, guard::ingress::<false>)
}

/// In POSTROUTING, where a connection's source NAT is decided: not 0 if its source must stay.
#[socket_filter]
fn keep_source(context: SkBuffContext) -> i64 {
    i64::from(nat::keeps_source(&TcContext::new(context.skb.skb)))
}

/// In POSTROUTING, for what source NAT is about to change: not 0 to drop it.
#[socket_filter]
fn drop_translated(context: SkBuffContext) -> i64 {
    drops(&context, Hook::Postrouting, nat::translated)
}

/// In PREROUTING, for what NAT has given another destination: not 0 to drop it.
#[socket_filter]
fn drop_destined(context: SkBuffContext) -> i64 {
    drops(&context, Hook::Prerouting, nat::destined)
}

#[inline(always)]
fn drops(
    context: &SkBuffContext,
    hook: Hook,
    decide: impl FnOnce(&TcContext, &mut Subject) -> Result<(), Reason>,
) -> i64 {
    // Programs of both kinds are given the same.
    let context = TcContext::new(context.skb.skb);
    let mut subject = Subject::default();
    let decided = decide(&context, &mut subject);
    let place = Place { hook, ethernet: false };
    let verdict = count::verdict(&context, place, decided, u64::from(context.len()), &subject);
    i64::from(verdict == Verdict::Drop)
}

#[inline(always)]
fn finish_xdp(
    context: &XdpContext,
    decided: Result<(), Reason>,
    octets: u64,
    subject: &Subject,
) -> u32 {
    let place = Place { hook: Hook::Xdp, ethernet: true };
    match count::verdict(context, place, decided, octets, subject) {
        Verdict::Drop => XDP_DROP,
        Verdict::Answer => XDP_TX,
        Verdict::Pass | Verdict::Redirect => cpu::hand_over(subject, octets),
    }
}

/// A packet that passes goes on to the next program, which may be another's.
#[inline(always)]
fn finish<const ETHERNET: bool>(
    context: &TcContext,
    hook: Hook,
    decide: impl FnOnce(&TcContext, &mut Subject) -> Result<(), Reason>,
) -> i32 {
    let mut subject = Subject::default();
    let decided = decide(context, &mut subject);
    let place = Place { hook, ethernet: ETHERNET };
    match count::verdict(context, place, decided, u64::from(context.len()), &subject) {
        Verdict::Pass => TC_ACT_UNSPEC,
        // No reason of TC answers.
        Verdict::Drop | Verdict::Answer => TC_ACT_SHOT,
        Verdict::Redirect => steer::redirect(),
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no path leads here: the verifier would refuse the program.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The project's own licence: no helper in use asks for the GPL.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"Apache-2.0 OR MIT\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
