//! The processor's hint to fetch what will be read soon.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the cache line where `place` begins. Changes nothing but time.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and does not fault; the instruction is in SSE, which
        // every x86-64 processor has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// As [`prefetch`], for every cache line of an array that begins with one.
#[inline(always)]
pub(crate) fn prefetch_all<T>(places: &[T]) {
    let step = (LINE / size_of::<T>()).max(1);
    places.iter().step_by(step).for_each(prefetch);
}
