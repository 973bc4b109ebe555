//! A packet's text, as vectors of four blocks.

use std::arch::x86_64::{
    __m128i, __m512i, __mmask64, _bzhi_u64, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_permutexvar_epi8, _mm512_set1_epi8,
    _mm512_sub_epi8, _mm512_zextsi128_si512,
};

/// Blocks of a vector.
pub(super) const LANES: usize = 4;
/// Bytes of a vector.
pub(super) const VECTOR: usize = 16 * LANES;

/// What is left of a text, from the start of a vector. Its first lane, at the beginning, is not
/// text: see [`avx512`](super::avx512).
#[derive(Clone, Copy)]
pub(super) struct Text {
    at: *mut u8,
    /// Bytes to the end.
    left: usize,
    /// Which bytes of the first vector are text, but for the end.
    head: __mmask64,
}

impl Text {
    /// The text before the tag in `data`, which it borrows for as long as it is used.
    #[inline]
    pub(super) fn new(data: &mut [u8]) -> Self {
        Self {
            at: data.as_mut_ptr().wrapping_sub(16),
            // The tag has as many bytes as the first lane.
            left: data.len(),
            head: !0xffff,
        }
    }

    /// The texts of two seals of which the first is within the second, behind a block and before a
    /// tag, at the second's vectors.
    #[inline]
    pub(super) fn nested(data: &mut [u8]) -> [Self; 2] {
        let outer = Self::new(data);
        let inner = Self {
            left: outer.left - 16,
            head: !0xffff_ffff,
            ..outer
        };
        [inner, outer]
    }

    #[inline]
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The text after `N` vectors, which may be nothing.
    #[inline]
    pub(super) fn after<const N: usize>(self) -> Self {
        Self {
            at: self.at.wrapping_add(VECTOR * N),
            left: self.left.saturating_sub(VECTOR * N),
            head: !0,
        }
    }

    /// Which bytes of a vector are text, if `N` vectors reach to the end or less far.
    #[inline]
    fn mask<const N: usize>(&self, vector: usize) -> __mmask64 {
        let head = if vector == 0 { self.head } else { !0 };
        let tail = if vector + 1 == N {
            !0 >> (VECTOR * N).saturating_sub(self.left)
        } else {
            !0
        };
        head & tail
    }

    /// One of the first `N` vectors, with zero for what is not text.
    ///
    /// # Safety
    /// `data` is still borrowed, and the text has more than `N - 1` vectors left.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw")]
    pub(super) unsafe fn load<const N: usize>(&self, vector: usize) -> __m512i {
        let at = self.at.wrapping_add(VECTOR * vector);
        // SAFETY: the mask admits bytes of the text only, and no other is touched.
        unsafe { _mm512_maskz_loadu_epi8(self.mask::<N>(vector), at.cast()) }
    }

    /// Puts a vector back. Gives what was stored, with zero for what is not text.
    ///
    /// # Safety
    /// As for [`Self::load`].
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw")]
    pub(super) unsafe fn store<const N: usize>(&self, vector: usize, value: __m512i) -> __m512i {
        let mask = self.mask::<N>(vector);
        let at = self.at.wrapping_add(VECTOR * vector);
        // SAFETY: the mask admits bytes of the text only, and no other is touched.
        unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, value) };
        _mm512_maskz_mov_epi8(mask, value)
    }

    /// Which bytes of a vector are before the end, if the `N` vectors of a text that this one is
    /// nested in reach to the end or less far.
    #[inline]
    #[target_feature(enable = "bmi2")]
    fn nested_tail<const N: usize>(&self, vector: usize) -> __mmask64 {
        if vector + 2 < N {
            return !0;
        }
        let before = self.left.saturating_sub(VECTOR * vector);
        debug_assert!(before < 256, "more than `bzhi` looks at");
        _bzhi_u64(!0, before as u32)
    }

    /// A vector with zero for what is not this nested text.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw")]
    pub(super) fn only<const N: usize>(&self, vector: usize, value: __m512i) -> __m512i {
        let head = if vector == 0 { self.head } else { !0 };
        _mm512_maskz_mov_epi8(head & self.nested_tail::<N>(vector), value)
    }

    /// The first vector with zero for what is not before this nested text.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn before(&self, value: __m512i) -> __m512i {
        _mm512_maskz_mov_epi8(!self.head, value)
    }

    /// The share of a vector in what [`turn_to_end`](Self::turn_to_end) gives. The last vector's may
    /// have bytes beyond the end of the outer text.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw")]
    pub(super) fn beyond<const N: usize>(&self, vector: usize, turned: __m512i) -> __m512i {
        if vector + 1 == N {
            turned
        } else {
            _mm512_maskz_mov_epi8(!self.nested_tail::<N>(vector), turned)
        }
    }

    /// A block turned to where the text ends in its vector. What does not fit is at the vector's
    /// beginning.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512vbmi")]
    pub(super) fn turn_to_end(&self, block: __m128i) -> __m512i {
        const BYTES: [u8; VECTOR] = {
            let mut bytes = [0; VECTOR];
            let mut at = 0;
            while at < VECTOR {
                bytes[at] = at as u8;
                at += 1;
            }
            bytes
        };
        // SAFETY: there is a vector.
        let bytes = unsafe { _mm512_loadu_si512(BYTES.as_ptr().cast()) };
        let from = _mm512_sub_epi8(bytes, _mm512_set1_epi8(self.left as i8));
        _mm512_permutexvar_epi8(from, _mm512_zextsi128_si512(block))
    }
}
