//! What one responder handshake costs, beside the sum of its primitives.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

mod common;

use self::common::Floor;
use self::common::host::{KINDS, handshake, hosts};

fn responder_handshake(c: &mut Criterion) {
    for kind in KINDS {
        let mut group = c.benchmark_group(format!("responder_handshake_{}", kind.name));
        let floor = Floor::new(kind);
        group.bench_function("floor", |b| b.iter(|| floor.run()));
        let (initiators, responders) = (kind.initiator(0), kind.responder(1));
        group.bench_function("endpoint", |b| {
            b.iter_custom(|count| {
                let time = |_| {
                    let (mut a, mut b) = hosts(initiators.clone(), responders.clone());
                    handshake(kind, &mut a, &mut b)
                };
                (0..count).map(time).fold(Duration::ZERO, Duration::saturating_add)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, responder_handshake);
criterion_main!(benches);
