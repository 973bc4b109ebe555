//! The end of a packet, in every form.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_testz_si128, _mm_xor_si128,
};

use crate::TAG_LEN;

/// Puts the tag behind the text, or compares it and wipes the text if it is wrong.
#[inline]
#[target_feature(enable = "avx")]
pub(crate) fn settle<const OPEN: bool>(data: &mut [u8], tag: __m128i) -> bool {
    let Some((text, end)) = data.split_last_chunk_mut::<TAG_LEN>() else {
        return false;
    };
    if !OPEN {
        // SAFETY: a tag has 16 bytes.
        unsafe { _mm_storeu_si128(end.as_mut_ptr().cast(), tag) };
        return true;
    }
    // SAFETY: a tag has 16 bytes.
    let wrong = _mm_xor_si128(tag, unsafe { _mm_loadu_si128(end.as_ptr().cast()) });
    let ok = _mm_testz_si128(wrong, wrong) == 1;
    if !ok {
        text.fill(0);
    }
    ok
}
