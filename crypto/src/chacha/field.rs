//! The field of Poly1305, the integers modulo 2^130 - 5 (RFC 8439, section 2.5), on eight elements at a time.

use std::arch::x86_64::*;

/// Bits of the lower two limbs.
const LIMB: u32 = 44;
/// Bits of the highest.
const TOP: u32 = 42;

#[inline]
#[target_feature(enable = "avx512f")]
fn low<const BITS: u32>(value: __m512i) -> __m512i {
    _mm512_and_si512(value, _mm512_set1_epi64((1 << BITS) - 1))
}

/// An element in each lane, as three limbs of 44, 44 and 42 bits and a few more: at most 50 each, of which a
/// multiplication takes 52.
#[derive(Clone, Copy)]
pub(super) struct Element(pub(super) [__m512i; 3]);

impl Element {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 3])
    }

    /// From 128 bits.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new([lower, upper]: [__m512i; 2]) -> Self {
        let middle = _mm512_or_si512(
            _mm512_srli_epi64::<LIMB>(lower),
            _mm512_slli_epi64::<{ 64 - LIMB }>(upper),
        );
        Self([
            low::<LIMB>(lower),
            low::<LIMB>(middle),
            _mm512_srli_epi64::<{ 2 * LIMB - 64 }>(upper),
        ])
    }

    /// From a block, which has one bit more than what is in it. Where `whole` says no, it does not.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn of_block(block: [__m512i; 2], whole: __mmask8) -> Self {
        let Self([a, b, c]) = Self::new(block);
        let bit = _mm512_set1_epi64(1 << (128 - 2 * LIMB));
        Self([a, b, _mm512_mask_or_epi64(c, whole, c, bit)])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| {
            _mm512_add_epi64(self.0[at], other.0[at])
        }))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn times(self, factor: &Factor) -> Self {
        let mut sum = Sum::zero();
        sum.add(self, factor);
        sum.reduce()
    }

    /// The other's lanes where `lanes` says so.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn with(self, lanes: __mmask8, other: Self) -> Self {
        Self(std::array::from_fn(|at| {
            _mm512_mask_mov_epi64(self.0[at], lanes, other.0[at])
        }))
    }

    /// One lane in all of those in `lanes`, and zero in the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn spread(self, lane: usize, lanes: __mmask8) -> Self {
        let from = _mm512_set1_epi64(lane as i64);
        Self(std::array::from_fn(|at| {
            _mm512_maskz_permutexvar_epi64(lanes, from, self.0[at])
        }))
    }

    /// The sum of all lanes, in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn total(self) -> Self {
        Self(self.0.map(|limb| {
            let limb = _mm512_add_epi64(limb, _mm512_shuffle_i64x2::<0x4e>(limb, limb));
            let limb = _mm512_add_epi64(limb, _mm512_shuffle_i64x2::<0xb1>(limb, limb));
            _mm512_add_epi64(limb, _mm512_shuffle_epi32::<0x4e>(limb))
        }))
    }

    /// The 128 lower bits of the element as a number below 2^130 - 5, plus those of `pad`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn finish(self, pad: [__m512i; 2]) -> [__m512i; 2] {
        // The second time there is so little to carry that the lowest limb has room for what comes around.
        let [a, b, c] = carry(carry(self.0));
        // If adding 5 reaches 2^130, subtracting that is subtracting 2^130 - 5.
        let five = _mm512_set1_epi64(5);
        let d = _mm512_add_epi64(a, five);
        let e = _mm512_add_epi64(b, _mm512_srli_epi64::<LIMB>(d));
        let f = _mm512_add_epi64(c, _mm512_srli_epi64::<LIMB>(e));
        let over = _mm512_cmpge_epu64_mask(f, _mm512_set1_epi64(1 << TOP));
        let a = _mm512_mask_mov_epi64(a, over, low::<LIMB>(d));
        let b = _mm512_mask_mov_epi64(b, over, low::<LIMB>(e));
        let c = _mm512_mask_mov_epi64(c, over, f);

        let lower = _mm512_or_si512(a, _mm512_slli_epi64::<LIMB>(b));
        let upper = _mm512_or_si512(
            _mm512_srli_epi64::<{ 64 - LIMB }>(b),
            _mm512_slli_epi64::<{ 2 * LIMB - 64 }>(c),
        );
        let lower = _mm512_add_epi64(lower, pad[0]);
        let over = _mm512_cmplt_epu64_mask(lower, pad[0]);
        let upper = _mm512_add_epi64(upper, pad[1]);
        let one = _mm512_set1_epi64(1);
        [lower, _mm512_mask_add_epi64(upper, over, upper, one)]
    }
}

/// Brings the limbs to their size, but for the lowest, which has a few units more.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn carry([a, b, c]: [__m512i; 3]) -> [__m512i; 3] {
    let b = _mm512_add_epi64(b, _mm512_srli_epi64::<LIMB>(a));
    let c = _mm512_add_epi64(c, _mm512_srli_epi64::<LIMB>(b));
    // 2^130 is 5.
    let over = _mm512_srli_epi64::<TOP>(c);
    [
        _mm512_madd52lo_epu64(low::<LIMB>(a), over, _mm512_set1_epi64(5)),
        low::<LIMB>(b),
        low::<TOP>(c),
    ]
}

/// What elements are multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) element: Element,
    /// The upper two limbs times 20, which is 2^132: for products beyond the highest limb.
    wrapped: [__m512i; 2],
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(element: Element) -> Self {
        let [_, b, c] = element.0;
        let wrapped = [b, c].map(|limb| {
            _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb))
        });
        Self { element, wrapped }
    }
}

/// A sum of products, before it is reduced.
///
/// Limbs are multiplied to 104 bits, of which the lower 52 and the upper are added up apart.
pub(super) struct Sum {
    lower: [__m512i; 3],
    upper: [__m512i; 3],
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn zero() -> Self {
        Self {
            lower: [_mm512_setzero_si512(); 3],
            upper: [_mm512_setzero_si512(); 3],
        }
    }

    /// Adds a product.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn add(&mut self, Element([a, b, c]): Element, factor: &Factor) {
        let ([r, s, t], [s20, t20]) = (factor.element.0, factor.wrapped);
        for (x, factors) in [(a, [r, s, t]), (b, [t20, r, s]), (c, [s20, t20, r])] {
            for limb in [2, 0, 1] {
                let y = factors[limb];
                self.upper[limb] = _mm512_madd52hi_epu64(self.upper[limb], x, y);
                self.lower[limb] = _mm512_madd52lo_epu64(self.lower[limb], x, y);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce(self) -> Element {
        let ([a, b, c], [d, e, f]) = (self.lower, self.upper);
        // 52 bits are a limb and 8 bits. Beyond the highest limb, that is 20 times as much.
        Element(carry([
            _mm512_madd52lo_epu64(a, f, _mm512_set1_epi64(20 << 8)),
            _mm512_add_epi64(b, _mm512_slli_epi64::<8>(d)),
            _mm512_add_epi64(c, _mm512_slli_epi64::<8>(e)),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chacha::Cpu;

    /// The first lane's.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn finished(limbs: [u64; 3], pad: [u64; 2]) -> [u64; 2] {
        let spread = |word: u64| _mm512_set1_epi64(word as i64);
        let bits = Element(limbs.map(spread)).finish(pad.map(spread));
        bits.map(|bits| _mm_cvtsi128_si64(_mm512_castsi512_si128(bits)) as u64)
    }

    #[test]
    fn numbers_beyond_the_prime_come_around() {
        if Cpu::detect().is_none() {
            eprintln!("SKIPPED: this CPU cannot run the kernel");
            return;
        }
        const M: u64 = (1 << LIMB) - 1;
        const T: u64 = (1 << TOP) - 1;
        for (limbs, pad, wanted) in [
            ([0, 0, 0], [0, 0], [0, 0]),
            // 2^130 - 6, the greatest that stays; then 2^130 - 5, - 1 and 2^130.
            ([M - 5, M, T], [0, 0], [!5, !0]),
            ([M - 4, M, T], [0, 0], [0, 0]),
            ([M, M, T], [0, 0], [4, 0]),
            ([0, 0, T + 1], [0, 0], [5, 0]),
            // What is carried makes more to carry.
            ([M + 1, M, T], [0, 0], [5, 0]),
            ([1 << 50, M, T], [0, 0], [5 + (((1 << 6) - 1) << 44), 0]),
            // The pad is added to 128 bits, and what is beyond is lost.
            ([0, 0, 1 << 40], [7, 8], [7, 8]),
            ([1, 0, 0], [!0, 0], [0, 1]),
            ([1, 0, 0], [!0, !0], [0, 0]),
        ] {
            // SAFETY: there is a `Cpu`, so the CPU has the features.
            assert_eq!(unsafe { finished(limbs, pad) }, wanted, "{limbs:x?}");
        }
    }
}
