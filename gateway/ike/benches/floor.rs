//! How fast one responder handshake could be at best: the sum of its primitives.

use criterion::{Criterion, criterion_group, criterion_main};
// The crate's other dependencies, which this bench does not use.
use {aes as _, cbc as _, crypto_bigint as _, ipnet as _, p256 as _, p384 as _, proptest as _};
use {ring as _, thiserror as _, x25519_dalek as _, zeroize as _};

mod common;

fn responder_handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("responder handshake, X25519 and PSK");
    let floor = common::Floor::new();
    group.bench_function("floor: primitives alone", |b| b.iter(|| floor.run()));
    group.finish();
}

criterion_group!(benches, responder_handshake);
criterion_main!(benches);
