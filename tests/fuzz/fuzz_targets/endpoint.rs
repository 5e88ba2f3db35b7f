//! Two whole endpoints and whoever is between them: see [`gateway_fuzz::endpoint`].
#![no_main]

use gateway_fuzz::{endpoint, heap};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: heap::Counting<std::alloc::System> = heap::Counting(std::alloc::System);

fuzz_target!(|input: &[u8]| endpoint::run(input));
