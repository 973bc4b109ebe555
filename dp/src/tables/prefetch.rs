//! The processor's hint to fetch cache lines that will be read soon.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the cache line where `place` begins. Changes nothing but time.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    line(std::ptr::from_ref(place).cast());
}

/// Asks for the cache line where the `nth` of `places` begins; if there is none, for one that is of no use.
#[inline(always)]
pub fn prefetch_nth<T>(places: &[T], nth: usize) {
    line(places.as_ptr().wrapping_add(nth).cast());
}

/// Asks for all cache lines of `place`.
#[inline(always)]
pub fn prefetch_all<T>(place: &T) {
    let first = std::ptr::from_ref(place).cast::<u8>();
    let mut at = 0;
    while at < size_of::<T>() {
        line(first.wrapping_add(at));
        at += LINE;
    }
    // It need not begin with a line.
    line(first.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[inline(always)]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and does not fault; the instruction is in SSE, which
        // every x86-64 processor has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
