//! Asks for memory ahead of its use.

/// Bytes that the CPU fetches at once.
const LINE: usize = 64;

/// Has the CPU fetch a value that begins a line, from line number `FIRST` on, into its second-level cache: it is too
/// much for the first.
///
/// How many lines these are the compiler knows: a loop's end that the CPU guesses wrong costs as much as ten of them.
#[inline]
pub(crate) fn many<const FIRST: usize, T>(value: &T) {
    const { assert!(align_of::<T>().is_multiple_of(LINE)) };
    let start = std::ptr::from_ref(value).cast::<u8>();
    for at in FIRST..size_of::<T>() / LINE {
        fetch::<false>(start.wrapping_add(LINE * at));
    }
}

/// Has the CPU fetch the line that a value begins in.
#[inline]
pub(crate) fn one<T>(value: &T) {
    fetch::<true>(std::ptr::from_ref(value).cast());
}

#[inline]
fn fetch<const FIRST_LEVEL: bool>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and does not fault, whatever the address; the
        // instruction is in SSE, which every x86-64 processor has.
        unsafe {
            if FIRST_LEVEL {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
