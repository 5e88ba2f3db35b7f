//! What an IKE SA with one Child SA, and one without, keeps in a responder that has ten thousand:
//! octets of the heap as they were asked for, right after IKE_AUTH, with its answer still at hand;
//! and by how much the process grew, with what the allocator adds. This is the state machine alone,
//! and so is the goal: what the driver notes of each SA in the kernel, what it keeps for a restart,
//! and the kernel's own part come beside it, and are not measured here.
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::process::ExitCode;

use gateway_ike::Input;
use gateway_ike::io::{ChildId, KernelEvent};

#[expect(dead_code, reason = "the floor is that of the bench of time")]
mod common;
#[expect(
    unsafe_code,
    unreachable_pub,
    reason = "An allocator is unsafe. The fuzz targets have it too, as a library."
)]
#[path = "common/heap.rs"]
mod heap;

use self::common::host::{Found, Host, KINDS, Kind, converse, handshake, now};

/// IKE SAs at the responder.
const COUNT: u16 = 10_000;
/// Octets that an IKE SA with one Child SA is to keep at most; what it does keep is printed as a
/// share of them, and the bench fails if it is more.
const GOAL: usize = 6 * 1024;

/// The daemon's, counted.
#[global_allocator]
static ALLOCATOR: heap::Counting<mimalloc::MiMalloc> = heap::Counting(mimalloc::MiMalloc);

fn children(host: &Host) -> Vec<ChildId> {
    let status = host.endpoint.status(now());
    status.ike_sas.iter().flat_map(|sa| &sa.children).map(|child| child.id).collect()
}

/// Octets of the process in memory (proc(5), `VmRSS`).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilo = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilo.unwrap_or_default().saturating_mul(1024)
}

/// Octets in use, or of them each of many IKE SAs.
struct Octets {
    /// As they were asked for.
    heap: usize,
    /// Of the whole process.
    resident: usize,
}

/// What many IKE SAs of a kind take: with a Child SA, or after that was deleted.
fn octets(kind: Kind, childless: bool) -> Octets {
    let mut responder = Host::responder(kind.responder(COUNT, Found::ByAddress));
    // What is made once, such as buffers, is made for the first.
    let mut before = Octets { heap: 0, resident: 0 };
    for nth in 0..COUNT {
        let mut initiator = Host::initiator(nth, kind.initiator(nth));
        handshake(kind, &mut initiator, &mut responder);
        let gone = if childless { children(&initiator) } else { Vec::new() };
        for child in gone {
            let vanished = Input::Kernel(KernelEvent::Vanished { child });
            converse(now(), &mut initiator, &mut responder, vanished);
        }
        drop(initiator);
        if nth == 0 {
            before = Octets { heap: heap::in_use(), resident: resident() };
        }
    }
    let status = responder.endpoint.status(now());
    assert_eq!(status.ike_sas.len(), usize::from(COUNT));
    let children = status.ike_sas.iter().map(|sa| sa.children.len()).sum::<usize>();
    assert_eq!(children, if childless { 0 } else { usize::from(COUNT) });
    drop(status);
    let each = |now: usize, then| {
        let kept = now.saturating_sub(then);
        kept.checked_div(usize::from(COUNT).saturating_sub(1)).unwrap_or(kept)
    };
    let (heap, resident) = (each(heap::in_use(), before.heap), each(resident(), before.resident));
    Octets { heap, resident }
}

fn main() -> ExitCode {
    let mut missed = false;
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for kind in KINDS {
        for (what, childless) in [("with_child", false), ("childless", true)] {
            let name = format!("memory_{}/{what}", kind.name);
            if filter.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
                continue;
            }
            let Octets { heap, resident } = octets(kind, childless);
            let percent = heap.saturating_mul(100).checked_div(GOAL).unwrap_or(heap);
            println!(
                "{name:<44} {heap:>6} octets an IKE SA, {percent} % of the goal; \
                 the process grew by {resident}"
            );
            missed |= heap > GOAL;
        }
    }
    if missed {
        println!("the goal of {GOAL} octets is missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
