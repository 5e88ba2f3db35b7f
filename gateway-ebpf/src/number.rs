//! Numbers in maps that all CPUs share.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use gateway_common::Rate;

/// A number in a map that all CPUs share. It is read and written at once, as every aligned number
/// of 64 bits is; LLVM has no atomic loads for BPF that older kernels take.
///
/// INVARIANT: a map gave the pointer.
#[derive(Clone, Copy)]
pub(crate) struct Number(*mut u64);

impl Number {
    /// What a map gave.
    #[inline(always)]
    pub(crate) const fn new(given: *mut u64) -> Self {
        Self(given)
    }

    #[inline(always)]
    pub(crate) fn read(self) -> u64 {
        // SAFETY: what a map gives can be read and written as long as the program runs.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn write(self, value: u64) {
        // SAFETY: what a map gives can be read and written as long as the program runs.
        unsafe { self.0.write_volatile(value) };
    }

    /// Counts one more, if there may be one, where it is the state of a rate.
    #[inline(always)]
    pub(crate) fn take(self, rate: Rate, now: u64) -> bool {
        let next = rate.take(self.read(), now);
        if let Some(next) = next {
            self.write(next);
        }
        next.is_some()
    }
}

/// The time, in nanoseconds since boot without sleep.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no requirements.
    unsafe { bpf_ktime_get_ns() }
}
