//! A key as the kernel reads it.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_loadu_si128, _mm_set1_epi32,
    _mm_setzero_si128, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_si128, _mm_storeu_si128,
    _mm_xor_si128, _mm512_broadcast_i32x4, _mm512_loadu_si512,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    clear::clear,
    cpu::{Cpu, Form},
    ghash,
};
use crate::{CryptoError, Suite, prefetch::prefetch_all};

type Block = [u8; 16];

/// The powers of H in a key: one reduction then serves a step of 32 blocks, or as many and the few
/// that are left with their lengths.
pub(super) const POWERS: usize = 36;
/// The first power that a short packet reads, on a cache line of its own.
const SHORT: usize = 28;
/// Round keys of AES-256, which has the most.
const ROUND_KEYS: usize = 15;

/// The key schedule of an AES-GCM key.
///
/// It is made in its box and stays there, so that no copy is left behind by a move.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(crate) struct GcmKey {
    /// H^36 down to H^1, each times x and byte-reversed (see [`ghash`]), then the round keys, in the
    /// order of FIPS 197. A short packet reads the end of the first part and the whole second one:
    /// six cache lines in a row. A vector of powers that reaches beyond H^1 falls on round keys;
    /// that is harmless, for what it multiplies there is zero.
    table: [Block; POWERS + ROUND_KEYS],
    /// 10 or 14.
    #[zeroize(skip)]
    rounds: u8,
    #[zeroize(skip)]
    suite: Suite,
    #[zeroize(skip)]
    cpu: Cpu,
}

impl GcmKey {
    /// The schedule of a key; the caller wipes its own copy.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] when the key is not of the suite's length.
    pub(super) fn new(cpu: Cpu, suite: Suite, key: &[u8]) -> Result<Box<Self>, CryptoError> {
        if key.len() != suite.key_len() {
            let got = key.len();
            return Err(CryptoError::KeyLength { suite, got });
        }
        let mut made = Box::new(Self {
            table: [[0; 16]; POWERS + ROUND_KEYS],
            rounds: if key.len() == 32 { 14 } else { 10 },
            suite,
            cpu,
        });
        // SAFETY: there is a `Cpu`, so the CPU has the features.
        unsafe { made.fill(key) };
        clear(cpu.form());
        Ok(made)
    }

    /// Asks the processor for what a short packet needs of it.
    #[inline(always)]
    pub(crate) fn prefetch_short(&self) {
        prefetch_all(&self.table[SHORT..]);
    }

    /// Asks the processor for all of it.
    #[inline(always)]
    pub(crate) fn prefetch_all(&self) {
        prefetch_all(&self.table);
    }

    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether it is one of 256 bits.
    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.rounds == 14
    }

    #[inline]
    pub(super) fn rounds(&self) -> usize {
        usize::from(self.rounds)
    }

    /// A round key in all four lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn round_key(&self, round: usize) -> __m512i {
        _mm512_broadcast_i32x4(self.block(POWERS + round))
    }

    /// Four falling powers of H from lane 0 up, the first of them H^`power`. Lanes beyond H^1 hold
    /// something arbitrary.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn powers(&self, power: usize) -> __m512i {
        debug_assert!((1..=POWERS).contains(&power));
        let first = POWERS - power;
        // SAFETY: `power` is at least 1, so four blocks from the first one end within the table's
        // first three round keys.
        unsafe { _mm512_loadu_si512(self.table.as_ptr().wrapping_add(first).cast()) }
    }

    /// A round key.
    #[inline]
    pub(super) fn round_key_block(&self, round: usize) -> __m128i {
        self.block(POWERS + round)
    }

    /// H^`power`, and one power less: something arbitrary for H^1.
    #[inline]
    pub(super) fn power_blocks(&self, power: usize) -> [__m128i; 2] {
        debug_assert!((1..=POWERS).contains(&power));
        let first = POWERS - power;
        [self.block(first), self.block(first + 1)]
    }

    /// The form of the kernel that uses it.
    #[inline]
    pub(super) fn form(&self) -> Form {
        self.cpu.form()
    }

    /// H.
    #[inline]
    pub(super) fn h(&self) -> __m128i {
        self.block(POWERS - 1)
    }

    #[inline]
    fn block(&self, at: usize) -> __m128i {
        debug_assert!(at < self.table.len());
        // SAFETY: `at` is within the table: the rounds of the schedule are at most 14.
        unsafe { _mm_loadu_si128(self.table.as_ptr().wrapping_add(at).cast()) }
    }

    fn set_block(&mut self, at: usize, value: __m128i) {
        // SAFETY: a block is 16 bytes, and the store has no alignment.
        unsafe { _mm_storeu_si128(self.table[at].as_mut_ptr().cast(), value) }
    }

    #[target_feature(enable = "aes,pclmulqdq,sse4.1")]
    fn fill(&mut self, key: &[u8]) {
        self.expand(key);

        // AES of a block of zeros.
        let mut h = self.block(POWERS);
        for round in 1..self.rounds() {
            h = _mm_aesenc_si128(h, self.block(POWERS + round));
        }
        h = _mm_aesenclast_si128(h, self.block(POWERS + self.rounds()));

        let h = ghash::times_x(h);
        let mut power = h;
        self.set_block(POWERS - 1, h);
        for at in (0..POWERS - 1).rev() {
            power = ghash::multiply(power, h);
            self.set_block(at, power);
        }
    }

    /// FIPS 197, section 5.2, without a table: AESENCLAST of four equal columns is SubWord of each.
    #[target_feature(enable = "aes,ssse3")]
    fn expand(&mut self, key: &[u8]) {
        let (parts, _) = key.as_chunks::<16>();
        for (at, part) in parts.iter().enumerate() {
            self.table[POWERS + at] = *part;
        }
        // RotWord of the last column, in all columns.
        let rotate = _mm_set1_epi32(0x0c0f_0e0d);
        let mut rcon: u8 = 1;
        for at in parts.len()..=self.rounds() {
            let last = self.block(POWERS + at - 1);
            let substituted = if at.is_multiple_of(parts.len()) {
                let constant = _mm_set1_epi32(i32::from(rcon));
                rcon = (rcon << 1) ^ ((rcon >> 7) * 0x1b);
                _mm_aesenclast_si128(_mm_shuffle_epi8(last, rotate), constant)
            } else {
                _mm_aesenclast_si128(_mm_shuffle_epi32::<0xff>(last), _mm_setzero_si128())
            };
            let mut next = self.block(POWERS + at - parts.len());
            next = _mm_xor_si128(next, _mm_slli_si128::<4>(next));
            next = _mm_xor_si128(next, _mm_slli_si128::<8>(next));
            self.set_block(POWERS + at, _mm_xor_si128(next, substituted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_wiped_on_drop() {
        fn wipes<T: ZeroizeOnDrop>(_: &T) {}

        let Some(cpu) = Cpu::all().next() else {
            eprintln!("SKIPPED: this CPU cannot run the kernel");
            return;
        };
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm] {
            let mut key = GcmKey::new(cpu, suite, &vec![7; suite.key_len()]).unwrap();
            let blocks = POWERS + 1 + key.rounds();
            assert!(key.table[..blocks].iter().all(|block| *block != [0; 16]));
            wipes(&*key);
            key.zeroize();
            assert!(key.table.iter().all(|block| *block == [0; 16]));
        }
    }
}
