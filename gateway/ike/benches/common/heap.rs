//! Octets of the heap in use, for benches and fuzz targets that ask whether something grows.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of what is in use. A program that asks [`in_use`] makes it
/// its own.
pub struct Counting;

// SAFETY: everything is left to the system's allocator, with the arguments that it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Octets that were asked for and not given back.
pub fn in_use() -> usize {
    LIVE.load(Ordering::Relaxed)
}
