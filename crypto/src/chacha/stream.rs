//! ChaCha20 (RFC 8439, section 2.3) on sixteen blocks at a time: a vector has one word of each.

use std::arch::x86_64::*;

use super::{group::Job, transpose};

/// Blocks at a time, and packets in a group.
pub(super) const LANES: usize = 16;
/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A word of each of sixteen blocks, for every word of a block.
pub(super) type State = [__m512i; 16];

/// Which block each lane makes.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Lanes {
    /// The packet, by its number in the group.
    pub(super) packets: [u32; LANES],
    /// The block's number: 0 is for Poly1305, the text begins with 1.
    pub(super) counters: [u32; LANES],
}

/// The keys and nonces of a group: a lane has those of one packet.
pub(super) struct Inputs {
    key: [__m512i; 8],
    nonce: [__m512i; 3],
}

impl Inputs {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn new(jobs: &[Job<'_>]) -> Self {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, job) in rows.iter_mut().zip(jobs) {
            // SAFETY: a key has 32 bytes; the mask admits three words, which a nonce has.
            let (key, nonce) = unsafe {
                (
                    _mm256_loadu_si256(job.key.as_ptr().cast()),
                    _mm_maskz_loadu_epi32(0b111, job.nonce.as_ptr().cast()),
                )
            };
            *row = _mm512_inserti32x4::<2>(_mm512_zextsi256_si512(key), nonce);
        }
        let words = transpose::words(rows);
        Self {
            key: std::array::from_fn(|at| words[at]),
            nonce: std::array::from_fn(|at| words[8 + at]),
        }
    }

    /// Makes the blocks.
    ///
    /// It is code of its own: within another's loop there are not enough registers for both.
    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    pub(super) fn blocks(&self, lanes: &Lanes, state: &mut State) {
        let begin = self.state(lanes);
        let mut rows = begin;
        for _ in 0..10 {
            rows = double_round(rows);
        }
        let words = rows.as_flattened().iter().zip(begin.as_flattened());
        for (word, (end, begin)) in state.iter_mut().zip(words) {
            *word = _mm512_add_epi32(*end, *begin);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn state(&self, lanes: &Lanes) -> [Row; 4] {
        // SAFETY: there are sixteen words in each.
        let (packets, counters) = unsafe {
            (
                _mm512_loadu_si512(lanes.packets.as_ptr().cast()),
                _mm512_loadu_si512(lanes.counters.as_ptr().cast()),
            )
        };
        let of_packet = |words: __m512i| _mm512_permutexvar_epi32(packets, words);
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key.map(of_packet);
        let [n0, n1, n2] = self.nonce.map(of_packet);
        [
            CONSTANTS.map(|constant| _mm512_set1_epi32(constant as i32)),
            [k0, k1, k2, k3],
            [k4, k5, k6, k7],
            [counters, n0, n1, n2],
        ]
    }
}

/// Four words of a state in a row.
type Row = [__m512i; 4];

#[inline]
#[target_feature(enable = "avx512f")]
fn double_round([a, b, c, d]: [Row; 4]) -> [Row; 4] {
    let [a, b, c, d] = quarter_rounds([a, b, c, d]);
    // The diagonals become columns, and then what they were.
    let [a, b, c, d] = quarter_rounds([a, turn::<1>(b), turn::<2>(c), turn::<3>(d)]);
    [a, turn::<3>(b), turn::<2>(c), turn::<1>(d)]
}

#[inline]
fn turn<const BY: usize>(row: Row) -> Row {
    [
        row[BY],
        row[(BY + 1) % 4],
        row[(BY + 2) % 4],
        row[(BY + 3) % 4],
    ]
}

/// Those of four columns side by side: each waits for itself at every step.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds([a, b, c, d]: [Row; 4]) -> [Row; 4] {
    let (a, d) = step::<16>(a, b, d);
    let (c, b) = step::<12>(c, d, b);
    let (a, d) = step::<8>(a, b, d);
    let (c, b) = step::<7>(c, d, b);
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn step<const BITS: i32>(mut sum: Row, other: Row, mut last: Row) -> (Row, Row) {
    for at in 0..4 {
        sum[at] = _mm512_add_epi32(sum[at], other[at]);
        last[at] = _mm512_rol_epi32::<BITS>(_mm512_xor_si512(last[at], sum[at]));
    }
    (sum, last)
}
