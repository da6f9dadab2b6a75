//! A global allocator that counts what one thread holds, for tests of memory; shared with the fuzz targets.
//!
//! It counts only for a thread that asks, so that other tests can run beside it.
#![allow(unsafe_code)]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

/// No test may hold more: what goes beyond is refused like any want of memory.
const MOST_BYTES: isize = 2 << 30;

thread_local! {
    /// bytes held, and the most asked for since counting began; `None` while not counting
    static HELD: Cell<Option<(isize, isize)>> = const { Cell::new(None) };
}

struct Counting;

/// Whether the change is allowed.
fn count(change: isize) -> bool {
    HELD.with(|held| {
        let Some((now, most)) = held.get() else { return true };
        let wanted = now + change;
        let allowed = wanted <= MOST_BYTES;
        held.set(Some((if allowed { wanted } else { now }, most.max(wanted))));
        allowed
    })
}

// SAFETY: every call goes to the system allocator unchanged or is refused with a null pointer; counting neither allocates
// nor touches the block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if count(layout.size() as isize) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if count(layout.size() as isize) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and the most bytes that this thread asked to hold at once beyond what it held before.
pub fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set(Some((0, 0)));
    let result = work();
    let (_, most) = HELD.take().expect("counting began above");
    (result, most.max(0) as usize)
}
