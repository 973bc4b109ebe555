//! The field of GHASH (NIST SP 800-38D, section 6.3) on vectors of four blocks.
//!
//! GHASH counts bits from the left of a block. So a block is byte-reversed, and then its bits stand
//! as in an integer, only in mirror image: the carry-less product of two mirrored blocks is the
//! mirrored product divided by x. The second factor, a power of H, therefore carries an extra x
//! from the start. A reduction folds the low half of the 256-bit product into the high one, 64 bits
//! at a time, and can wait until many products are summed.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x,
    _mm_set1_epi64x, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_xor_si128, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_xor_si256, _mm512_castsi512_si256, _mm512_clmulepi64_epi128,
    _mm512_extracti64x4_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_shuffle_epi32, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::stream::pinned;

/// x^128 + x^7 + x^2 + x + 1 without its ends, mirrored.
const POLYNOMIAL: u64 = 0xc2 << 56;

/// A sum of products, lane by lane, before reduction.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// Adds the products of blocks and powers of H.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn add(&mut self, blocks: __m512i, powers: __m512i) {
        let low = _mm512_clmulepi64_epi128::<0x00>(blocks, powers);
        let high = _mm512_clmulepi64_epi128::<0x11>(blocks, powers);
        let one = _mm512_clmulepi64_epi128::<0x01>(blocks, powers);
        let two = _mm512_clmulepi64_epi128::<0x10>(blocks, powers);
        self.low = _mm512_xor_si512(self.low, low);
        self.high = _mm512_xor_si512(self.high, high);
        self.middle = xor3(self.middle, one, two);
    }

    /// Adds two vectors of products, in the order of the source: see [`pinned`].
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn add_two(&mut self, [a, b]: [__m512i; 2], [k, l]: [__m512i; 2]) {
        let (low, low_b) = (
            _mm512_clmulepi64_epi128::<0x00>(a, k),
            _mm512_clmulepi64_epi128::<0x00>(b, l),
        );
        self.low = pinned(xor3(self.low, low, low_b));
        let (high, high_b) = (
            _mm512_clmulepi64_epi128::<0x11>(a, k),
            _mm512_clmulepi64_epi128::<0x11>(b, l),
        );
        self.high = pinned(xor3(self.high, high, high_b));
        let (one, two) = (
            _mm512_clmulepi64_epi128::<0x01>(a, k),
            _mm512_clmulepi64_epi128::<0x10>(a, k),
        );
        let middle = xor3(self.middle, one, two);
        let (one, two) = (
            _mm512_clmulepi64_epi128::<0x01>(b, l),
            _mm512_clmulepi64_epi128::<0x10>(b, l),
        );
        self.middle = pinned(xor3(middle, one, two));
    }

    /// Is made here, in the order of the source: see [`pinned`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn pin(&mut self) {
        self.low = pinned(self.low);
        self.middle = pinned(self.middle);
        self.high = pinned(self.high);
    }

    /// The sum over lanes, reduced.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn reduce(self) -> __m128i {
        let lanes = self.reduce_lanes();
        let half = _mm256_xor_si256(
            _mm512_castsi512_si256(lanes),
            _mm512_extracti64x4_epi64::<1>(lanes),
        );
        _mm_xor_si128(
            _mm256_castsi256_si128(half),
            _mm256_extracti128_si256::<1>(half),
        )
    }

    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn reduce_lanes(self) -> __m512i {
        let polynomial = _mm512_set1_epi64(POLYNOMIAL as i64);
        let folded = _mm512_clmulepi64_epi128::<0x00>(polynomial, self.low);
        let swapped = _mm512_shuffle_epi32::<0x4e>(self.low);
        let middle = xor3(self.middle, swapped, folded);
        let folded = _mm512_clmulepi64_epi128::<0x00>(polynomial, middle);
        let swapped = _mm512_shuffle_epi32::<0x4e>(middle);
        xor3(self.high, swapped, folded)
    }
}

/// The product of a block and a power of H; also of two powers, as a power.
#[inline]
#[target_feature(enable = "pclmulqdq")]
pub(super) fn multiply(block: __m128i, power: __m128i) -> __m128i {
    let middle = _mm_xor_si128(
        _mm_clmulepi64_si128::<0x01>(block, power),
        _mm_clmulepi64_si128::<0x10>(block, power),
    );
    reduce(
        _mm_clmulepi64_si128::<0x00>(block, power),
        middle,
        _mm_clmulepi64_si128::<0x11>(block, power),
    )
}

/// As [`Sum::reduce_lanes`], of one lane.
#[inline]
#[target_feature(enable = "pclmulqdq")]
pub(super) fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let polynomial = _mm_set1_epi64x(POLYNOMIAL as i64);
    let folded = _mm_clmulepi64_si128::<0x00>(polynomial, low);
    let swapped = _mm_shuffle_epi32::<0x4e>(low);
    let middle = _mm_xor_si128(middle, _mm_xor_si128(swapped, folded));
    let folded = _mm_clmulepi64_si128::<0x00>(polynomial, middle);
    let swapped = _mm_shuffle_epi32::<0x4e>(middle);
    _mm_xor_si128(high, _mm_xor_si128(swapped, folded))
}

/// H as a power: the block that AES made, byte-reversed and times x.
#[target_feature(enable = "sse4.1")]
pub(super) fn times_x(h: __m128i) -> __m128i {
    let (low, high) = (_mm_cvtsi128_si64(h), _mm_extract_epi64::<1>(h));
    let h = (u128::from(low.swap_bytes() as u64) << 64) | u128::from(high.swap_bytes() as u64);
    // All ones or zero: no branch on a secret.
    let carry = 0_u128.wrapping_sub(h >> 127);
    let h = (h << 1) ^ (carry & ((u128::from(POLYNOMIAL) << 64) | 1));
    _mm_set_epi64x((h >> 64) as i64, h as i64)
}

/// Reverses the bytes of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn reverse(blocks: __m512i) -> __m512i {
    let order = _mm512_set_epi64(
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
    );
    _mm512_shuffle_epi8(blocks, order)
}

#[inline]
#[target_feature(enable = "ssse3")]
pub(super) fn reverse_one(block: __m128i) -> __m128i {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    _mm_shuffle_epi8(block, order)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}
