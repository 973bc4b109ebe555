//! The processor's hint to fetch cache lines that will be read soon.

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

/// Asks for the cache line that is `offset` bytes into `place`.
#[inline(always)]
pub fn prefetch_within<T>(place: &T, offset: usize) {
    line(std::ptr::from_ref(place).cast::<u8>().wrapping_add(offset));
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
