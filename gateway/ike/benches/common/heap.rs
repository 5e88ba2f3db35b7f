//! Octets of the heap in use, for benches, fuzz targets and simulations that ask whether something
//! grows.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// An allocator with a count of what is in use for each thread. A program that asks [`in_use`] makes
/// it its own.
pub struct Counting<A>(pub A);

/// A thread may give back what another has taken, so that only differences mean something.
fn count(change: impl FnOnce(usize) -> usize) {
    LIVE.with(|live| live.set(change(live.get())));
}

// SAFETY: everything is left to the allocator within, with the arguments that it was given.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|live| live.wrapping_add(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|live| live.wrapping_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

/// Octets that this thread asked for and has not given back.
pub fn in_use() -> usize {
    LIVE.get()
}
