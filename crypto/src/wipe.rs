//! An allocator that leaves nothing behind in what is freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;

/// The system's allocator, which wipes all memory that is given back.
///
/// Secrets come through buffers of libraries (HTTP/2, protobuf, TLS, YAML) that free them as they are, and what was freed
/// lies about until it is used again. As a program's global allocator this takes care of all of them, for the price of
/// writing once more what is freed; a buffer that grows is copied and its old place wiped.
pub struct Wiping;

/// Bytes of a block that is worth a system call.
const LARGE: usize = 1 << 20;
/// Bytes that are a multiple of a page's on all machines.
const ALIGNED: usize = 1 << 16;

// SAFETY: all memory is the system allocator's, with the layout that the caller gave, but that `realloc` makes a new block.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the block has so many bytes, and until it is freed below it is the caller's, who needs it no more.
        unsafe { wipe(memory, layout.size()) };
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is sound with this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as in `alloc`; the caller promises that the size is not 0.
        let to = unsafe { System.alloc(new) };
        if to.is_null() {
            return to;
        }
        let (kept, mut at) = (size.min(layout.size()), 0);
        // Piece by piece: a large block is not there twice.
        while at < kept {
            let piece = LARGE.min(kept - at);
            // SAFETY: both blocks have so many bytes, and are two.
            unsafe { to.add(at).copy_from_nonoverlapping(memory.add(at), piece) };
            // SAFETY: it is within the old block, which nobody else has any more.
            unsafe { wipe(memory.add(at), piece) };
            at += piece;
        }
        // SAFETY: what was not kept of the old block is wiped here, all else is zero, and it is not used after.
        unsafe {
            wipe(memory.add(at), layout.size() - at);
            System.dealloc(memory, layout);
        }
        to
    }
}

/// Makes memory zero that will be freed. Of a large block the kernel takes the pages.
///
/// # Safety
/// So many bytes are the system allocator's, and the caller's alone.
unsafe fn wipe(memory: *mut u8, size: usize) {
    if size >= LARGE {
        let begin = memory.align_offset(ALIGNED);
        let pages = (size - begin) / ALIGNED * ALIGNED;
        // SAFETY: the pages are within the block, whose memory is private and of no file, so that they read as zeroes
        // afterwards; where that is not so, or they are locked, the kernel refuses and changes nothing.
        let taken = unsafe { libc::madvise(memory.add(begin).cast(), pages, libc::MADV_DONTNEED) };
        if taken == 0 {
            let end = begin + pages;
            // SAFETY: before and after these pages is the block's memory too.
            unsafe {
                zero(memory, begin);
                zero(memory.add(end), size - end);
            }
            return;
        }
    }
    // SAFETY: as the caller promises.
    unsafe { zero(memory, size) };
}

/// # Safety
/// As [`wipe`].
unsafe fn zero(memory: *mut u8, size: usize) {
    // SAFETY: as the caller promises.
    unsafe { memory.write_bytes(0, size) };
    // SAFETY: it does nothing. As it may read all memory, the zeroes must have been written, though nothing else reads them
    // before the block is freed.
    unsafe { asm!("/* {0} */", in(reg) memory, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    // That nothing stays in a process' memory is tested with the whole program: dp/tests/memory.rs.
    #[test]
    fn what_grows_or_shrinks_is_kept_and_its_old_place_wiped() {
        for (from, to) in [
            (100, 5000),
            (5000, 100),
            (5 << 20, 11 << 20),
            (11 << 20, 3 << 20),
        ] {
            let old = Layout::from_size_align(from, 16).unwrap();
            // SAFETY: the layout is not empty.
            let memory = unsafe { Wiping.alloc(old) };
            assert!(!memory.is_null());
            for at in 0..from {
                // SAFETY: the block has so many bytes.
                unsafe { memory.add(at).write((at % 251) as u8) };
            }
            // SAFETY: the block came from this allocator with this layout; the new size is not 0.
            let moved = unsafe { Wiping.realloc(memory, old, to) };
            assert!(!moved.is_null() && moved != memory);
            for at in 0..from.min(to) {
                // SAFETY: what was written moved with it.
                assert_eq!(unsafe { moved.add(at).read() }, (at % 251) as u8, "{at}");
            }
            let new = Layout::from_size_align(to, 16).unwrap();
            // SAFETY: the block is ours; it came from this allocator with this layout.
            unsafe { wipe(moved, to) };
            for at in 0..to {
                // SAFETY: it is not freed yet.
                assert_eq!(unsafe { moved.add(at).read() }, 0, "{at}");
            }
            // SAFETY: the block came from this allocator with this layout.
            unsafe { Wiping.dealloc(moved, new) };
        }
    }
}
