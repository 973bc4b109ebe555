//! Longer packets with one seal.
//!
//! AES and GHASH keep different parts of the CPU busy, so they are interleaved: while a step is encrypted, the one before
//! it is hashed, and while the first is, the [`Tail`] of another packet.

use std::arch::x86_64::*;

use super::{
    avx512::{Rest, add},
    ghash::{self, Sum},
    key::{GcmKey, POWERS},
    stream::{AES_128, AES_256, share, slots, stream},
    tail::{Place, Tail},
    text::{LANES, VECTOR},
};
use crate::Nonce;

/// Vectors of one step through a long packet.
pub(super) const STEP: usize = 8;
/// Vectors for those of a step: none is the last, nor the last but one.
pub(super) const WHOLE: usize = STEP + 2;
/// The longest rest of a packet that is no step and something: its lanes and one for the lengths have as many powers of H.
pub(super) const LAST: usize = 16 * (POWERS - 1);

/// The ciphertext of a step.
type Step = [__m512i; STEP];

/// Seals or opens a packet of more than four vectors. It gets its tag with the next one, or in [`Tail::finish`].
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn long<'p, const OPEN: bool>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p, OPEN>,
) {
    match (data.len() > LAST, key.is_long()) {
        (false, false) => middling::<OPEN, AES_128>(key, nonce, aad, data, ok, tail),
        (false, true) => middling::<OPEN, AES_256>(key, nonce, aad, data, ok, tail),
        (true, false) => steps::<OPEN, AES_128>(key, nonce, aad, data, ok, tail),
        (true, true) => steps::<OPEN, AES_256>(key, nonce, aad, data, ok, tail),
    }
}

/// Seals or opens a packet without a step.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn middling<'p, const OPEN: bool, const ROUNDS: usize>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p, OPEN>,
) {
    let vectors = data.len().div_ceil(VECTOR);
    let long = Long::<OPEN, ROUNDS>::new(key, nonce, aad, data);
    let place = (data, ok);
    match vectors {
        ..=5 => long.only::<5>(place, tail),
        6 => long.only::<6>(place, tail),
        7 => long.only::<7>(place, tail),
        8 => long.only::<8>(place, tail),
        _ => long.only::<9>(place, tail),
    }
}

/// Seals or opens a packet of a step or more.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn steps<'p, const OPEN: bool, const ROUNDS: usize>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p, OPEN>,
) {
    let mut long = Long::<OPEN, ROUNDS>::new(key, nonce, aad, data);
    let place = (data, ok);
    let stream = tail.stream::<STEP, ROUNDS, 1>(&long.0.counters);
    let pad = _mm512_castsi512_si128(stream[0]);
    let mut cipher = long.add_step(&stream);
    while long.0.text.left() > LAST {
        long.0.counters.reload_key();
        let stream = long.behind::<STEP, 0>(&cipher);
        cipher = long.add_step(&stream);
    }
    match long.0.text.left().div_ceil(VECTOR) {
        ..=1 => long.end::<1>(place, pad, &cipher, tail),
        2 => long.end::<2>(place, pad, &cipher, tail),
        3 => long.end::<3>(place, pad, &cipher, tail),
        4 => long.end::<4>(place, pad, &cipher, tail),
        5 => long.end::<5>(place, pad, &cipher, tail),
        6 => long.end::<6>(place, pad, &cipher, tail),
        7 => long.end::<7>(place, pad, &cipher, tail),
        8 => long.end::<8>(place, pad, &cipher, tail),
        _ => long.end::<9>(place, pad, &cipher, tail),
    }
}

/// What of a packet is not yet sealed or opened.
///
/// What is not inlined passes its vectors through memory, and what has one caller is inlined: so all that is called from
/// here is of its own type for every kind of packet, or has a number for every caller.
struct Long<'p, const OPEN: bool, const ROUNDS: usize>(Rest<'p>);

impl<'p, const OPEN: bool, const ROUNDS: usize> Long<'p, OPEN, ROUNDS> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn new(key: &'p GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Self {
        Self(Rest::new(key, nonce, aad, data))
    }

    /// Seals or opens a packet of `N` vectors.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn only<const N: usize>(self, place: Place<'p>, tail: &mut Tail<'p, OPEN>) {
        let stream = tail.stream::<N, ROUNDS, 0>(&self.0.counters);
        let pad = _mm512_castsi512_si128(stream[0]);
        self.last::<N, 0>(place, pad, &stream, tail);
    }

    /// Seals or opens the `N` vectors after the steps, of which the last is not hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn end<const N: usize>(
        mut self,
        place: Place<'p>,
        pad: __m128i,
        behind: &Step,
        tail: &mut Tail<'p, OPEN>,
    ) {
        let stream = self.behind::<N, 1>(behind);
        self.last::<N, 1>(place, pad, &stream, tail);
    }

    /// Seals or opens the last `N` vectors and leaves them to the tail.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn last<const N: usize, const CALLER: usize>(
        self,
        place: Place<'p>,
        pad: __m128i,
        stream: &[__m512i; N],
        tail: &mut Tail<'p, OPEN>,
    ) {
        let rest = self.0;
        // SAFETY: there are as many vectors.
        let cipher = unsafe { add::<OPEN, N, N>(rest.text, stream) };
        let lanes = rest.text.left().div_ceil(16);
        let hash = [
            _mm512_zextsi128_si512(rest.hash),
            _mm512_zextsi128_si512(rest.lengths),
        ];
        tail.put(rest.counters.key, place, (&cipher, lanes), hash, pad);
    }

    /// Seals or opens a step. Gives its ciphertext.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn add_step(&mut self, stream: &Step) -> Step {
        let rest = &mut self.0;
        // SAFETY: there is a whole step.
        let cipher = unsafe { add::<OPEN, STEP, WHOLE>(rest.text, stream) };
        rest.text = rest.text.after::<STEP>();
        rest.counters = rest.counters.after::<STEP>();
        cipher
    }

    /// Makes `N` vectors of key stream while a step of ciphertext is hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn behind<const N: usize, const CALLER: usize>(&mut self, behind: &Step) -> [__m512i; N] {
        let rest = &mut self.0;
        let hash = _mm512_zextsi128_si512(rest.hash);
        let mut sum = Sum::zero();
        let stream = stream::<N, ROUNDS>(&rest.counters, |slot| {
            hash_share::<ROUNDS>(&mut sum, slot, behind, hash, rest.counters.key);
        });
        rest.hash = sum.reduce();
        stream
    }
}

/// Adds a slot's share of a step of ciphertext to the sum.
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn hash_share<const ROUNDS: usize>(
    sum: &mut Sum,
    slot: usize,
    behind: &Step,
    hash: __m512i,
    key: &GcmKey,
) {
    for pair in share(STEP / 2, slot, slots(ROUNDS)) {
        let mut blocks = [
            ghash::reverse(behind[2 * pair]),
            ghash::reverse(behind[2 * pair + 1]),
        ];
        if pair == 0 {
            blocks[0] = _mm512_xor_si512(blocks[0], hash);
        }
        let power = LANES * (STEP - 2 * pair);
        sum.add_two(blocks, [key.powers(power), key.powers(power - LANES)]);
    }
}
