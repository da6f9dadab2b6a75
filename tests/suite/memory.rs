//! Peak memory while reading: the voxels and a few MiB (N-16).
//!
//! The allocator counts only for a thread that asks, so that other tests can run beside it.
#![allow(unsafe_code, clippy::unwrap_used)]

use ctmatch::volume::Image;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;
use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

thread_local! {
    /// bytes held, and the most since counting began; `None` while not counting
    static HELD: Cell<Option<(isize, isize)>> = const { Cell::new(None) };
}

struct Counting;

fn count(change: isize) {
    HELD.with(|held| {
        if let Some((now, most)) = held.get() {
            held.set(Some((now + change, most.max(now + change))));
        }
    });
}

// SAFETY: every call goes to the system allocator unchanged; counting neither allocates nor touches the block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn reading_holds_the_voxels_and_little_more() {
    let dims = [256, 256, 128];
    let voxels: Vec<i16> = (0..256 * 256 * 128).map(|n| (n % 2003 - 1000) as i16).collect();
    let image = Image::lps(&voxels, dims, [0.7, 0.7, 1.0]).unwrap();
    for file in [image.to_nii(), image.to_nii_gz()] {
        HELD.set(Some((0, 0)));
        let mut reader = Reader::new(ReadOptions::default());
        file.chunks(1 << 20).for_each(|chunk| reader.push(chunk).unwrap());
        let volume = reader.finish().unwrap();
        let (_, most) = HELD.take().unwrap();
        assert_eq!(volume.stored_voxels().len(), voxels.len());
        let beyond = most - 2 * voxels.len() as isize;
        assert!(beyond < 2 << 20, "{beyond} bytes beyond the voxels");
    }
}
