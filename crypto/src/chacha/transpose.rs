//! From vectors of one packet's words each to vectors of one word of each packet, and back.

use std::arch::x86_64::*;

/// Sixteen rows of sixteen words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Four rows make four vectors, each with a 4x4 square transposed in each of its quarters.
    let mut squares = [[_mm512_setzero_si512(); 4]; 4];
    for (rows, squares) in rows.as_chunks::<4>().0.iter().zip(&mut squares) {
        let [a, b, c, d] = *rows;
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        squares[0] = _mm512_unpacklo_epi64(ab, cd);
        squares[1] = _mm512_unpackhi_epi64(ab, cd);
        let (ab, cd) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        squares[2] = _mm512_unpacklo_epi64(ab, cd);
        squares[3] = _mm512_unpackhi_epi64(ab, cd);
    }
    let mut columns = rows;
    for at in 0..4 {
        let of = quarters([
            squares[0][at],
            squares[1][at],
            squares[2][at],
            squares[3][at],
        ]);
        for quarter in 0..4 {
            columns[4 * quarter + at] = of[quarter];
        }
    }
    columns
}

/// Eight rows of eight words of 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn long_words(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let even = quarters([
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ]);
    let odd = quarters([
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ]);
    [
        even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3],
    ]
}

/// Four rows of four quarters of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (even_ab, even_cd) = (
        _mm512_shuffle_i32x4::<0x88>(a, b),
        _mm512_shuffle_i32x4::<0x88>(c, d),
    );
    let (odd_ab, odd_cd) = (
        _mm512_shuffle_i32x4::<0xdd>(a, b),
        _mm512_shuffle_i32x4::<0xdd>(c, d),
    );
    [
        _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd),
        _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd),
        _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd),
        _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd),
    ]
}
