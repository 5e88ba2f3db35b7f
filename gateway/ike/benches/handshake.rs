//! What one responder handshake costs, beside the sum of its primitives: alone, and where ten
//! thousand IKE SAs, each with a Child SA and with a peer and a rule of its own, stand already.
//!
//! The three are taken in turn, so that whatever slows the machine down slows all of them down; what
//! is judged is the ratio of their medians.
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::process::ExitCode;
use std::time::Duration;

mod common;

use self::common::Floor;
use self::common::host::{Found, Host, KINDS, Kind, WHERE, handshake, now};

/// As the daemon has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// IKE SAs that stand at the responder.
const STANDING: u16 = 10_000;
/// Handshakes of which the median is taken.
const SAMPLES: u16 = 400;
/// A handshake is to cost so many hundredths of the floor at most; the bench fails if it is more.
const GOAL: u128 = 150;

/// Medians.
struct Costs {
    floor: Duration,
    alone: Duration,
    standing: Duration,
}

fn costs(kind: Kind, found: Found) -> Costs {
    let count = STANDING.saturating_add(SAMPLES);
    let mut responder = Host::responder(kind.responder(count, found));
    let shake = |nth, responder: &mut Host| {
        let mut initiator = Host::initiator(nth, kind.initiator(nth));
        handshake(kind, &mut initiator, responder)
    };
    for nth in 0..STANDING {
        shake(nth, &mut responder);
    }
    let floor = Floor::new(kind);
    let mut costs = [(); 3].map(|()| Vec::new());
    for nth in STANDING..count {
        let began = now();
        floor.run();
        let took = now().saturating_duration_since(began);
        let alone = shake(0, &mut Host::responder(kind.responder(1, found)));
        let standing = shake(nth, &mut responder);
        for (all, one) in costs.iter_mut().zip([took, alone, standing]) {
            all.push(one);
        }
    }
    let status = responder.endpoint.status(now());
    assert_eq!(status.ike_sas.len(), usize::from(count));
    assert!(status.ike_sas.iter().all(|sa| sa.children.len() == 1));
    let [floor, alone, standing] = costs.map(median);
    Costs { floor, alone, standing }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// In hundredths.
fn ratio(cost: Duration, floor: Duration) -> u128 {
    let hundredfold = cost.as_nanos().saturating_mul(100);
    hundredfold.checked_div(floor.as_nanos()).unwrap_or(u128::MAX)
}

fn main() -> ExitCode {
    let mut missed = Vec::new();
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (kind, found) in KINDS.into_iter().flat_map(|kind| WHERE.map(|found| (kind, found))) {
        let name = format!("handshake_{}/{}", kind.name, found.name());
        if filter.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let Costs { floor, alone, standing } = costs(kind, found);
        println!("{name:<44} {floor:>12.2?}  floor");
        for (what, cost) in [("alone", alone), ("standing", standing)] {
            let ratio = ratio(cost, floor);
            let (whole, part) = (ratio / 100, ratio % 100);
            println!(
                "{:<44} {cost:>12.2?}  {whole:>3}.{part:02} x floor",
                format!("{name}/{what}")
            );
            if ratio > GOAL {
                missed.push(format!("{name}/{what}"));
            }
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("more than {}.{} x floor: {}", GOAL / 100, GOAL % 100, missed.join(", "));
    ExitCode::FAILURE
}
