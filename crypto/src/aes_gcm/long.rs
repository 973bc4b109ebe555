//! Longer packets with one seal.
//!
//! AES and GHASH keep different parts of the CPU busy, so they are interleaved: while a step is encrypted, the one before
//! it is hashed, and while the first is, the [`Tail`] of another packet.

use std::arch::x86_64::*;

use super::{
    avx512::Rest,
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
pub(super) type Step = [__m512i; STEP];

/// Seals a packet of more than four vectors. It gets its tag with the next one, or in [`Tail::finish`].
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn long<'p>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p>,
) {
    match (data.len() > LAST, key.is_long()) {
        (false, false) => middling::<AES_128>(key, nonce, aad, data, ok, tail),
        (false, true) => middling::<AES_256>(key, nonce, aad, data, ok, tail),
        (true, false) => steps::<AES_128>(key, nonce, aad, data, ok, tail),
        (true, true) => steps::<AES_256>(key, nonce, aad, data, ok, tail),
    }
}

/// Seals a packet without a step.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn middling<'p, const ROUNDS: usize>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p>,
) {
    let vectors = data.len().div_ceil(VECTOR);
    let long = Long::<ROUNDS>::new(key, nonce, aad, data);
    let place = (data, ok);
    match vectors {
        ..=5 => long.only::<5>(place, tail),
        6 => long.only::<6>(place, tail),
        7 => long.only::<7>(place, tail),
        8 => long.only::<8>(place, tail),
        _ => long.only::<9>(place, tail),
    }
}

/// Seals a packet of a step or more.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn steps<'p, const ROUNDS: usize>(
    key: &'p GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &'p mut [u8],
    ok: &'p mut bool,
    tail: &mut Tail<'p>,
) {
    let mut long = Long::<ROUNDS>::new(key, nonce, aad, data);
    let place = (data, ok);
    let (mut cipher, pad) = long.first_step(tail);
    while long.0.text.left() > LAST {
        cipher = long.step(&cipher);
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

/// What of a packet is not yet sealed.
///
/// What is not inlined passes its vectors through memory, and what has one caller is inlined: so all that is called from
/// here is of its own type for every kind of packet, or has a number for every caller.
struct Long<'p, const ROUNDS: usize>(Rest<'p>);

impl<'p, const ROUNDS: usize> Long<'p, ROUNDS> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn new(key: &'p GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Self {
        Self(Rest::new(key, nonce, aad, data))
    }

    /// Seals a packet of `N` vectors.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn only<const N: usize>(self, place: Place<'p>, tail: &mut Tail<'p>) {
        let text = self.0.text;
        let sealed = tail.stream::<N, ROUNDS, 0>(&self.0.counters, |vector| {
            // SAFETY: there are as many vectors.
            unsafe { text.load::<N>(vector) }
        });
        self.last::<N, 0>(place, _mm512_castsi512_si128(sealed[0]), &sealed, tail);
    }

    /// Seals the first step. Gives its ciphertext and the first lane's key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn first_step(&mut self, tail: &mut Tail<'p>) -> (Step, __m128i) {
        let text = self.0.text;
        let sealed = tail.stream::<STEP, ROUNDS, 1>(&self.0.counters, |vector| {
            // SAFETY: there is a whole step.
            unsafe { text.load::<WHOLE>(vector) }
        });
        (self.put_step(&sealed), _mm512_castsi512_si128(sealed[0]))
    }

    /// Seals a step while the one before is hashed. Gives its ciphertext.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn step(&mut self, behind: &Step) -> Step {
        self.0.counters.reload_key();
        let text = self.0.text;
        let sealed = self.behind::<STEP, 0>(behind, |vector| {
            // SAFETY: there is a whole step.
            unsafe { text.load::<WHOLE>(vector) }
        });
        self.put_step(&sealed)
    }

    /// Seals the `N` vectors after the steps, of which the last is not hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn end<const N: usize>(
        mut self,
        place: Place<'p>,
        pad: __m128i,
        behind: &Step,
        tail: &mut Tail<'p>,
    ) {
        let text = self.0.text;
        let sealed = self.behind::<N, 1>(behind, |vector| {
            // SAFETY: there are as many vectors.
            unsafe { text.load::<N>(vector) }
        });
        self.last::<N, 1>(place, pad, &sealed, tail);
    }

    /// Makes `N` vectors of key stream and adds them to text, while a step of ciphertext is hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn behind<const N: usize, const CALLER: usize>(
        &mut self,
        behind: &Step,
        text: impl Fn(usize) -> __m512i,
    ) -> [__m512i; N] {
        let rest = &mut self.0;
        let hash = _mm512_zextsi128_si512(rest.hash);
        let mut sum = Sum::zero();
        let sealed = stream::<N, ROUNDS>(
            &rest.counters,
            |slot| hash_share::<ROUNDS>(&mut sum, slot, behind, hash, rest.counters.key),
            text,
        );
        rest.hash = sum.reduce();
        sealed
    }

    /// Puts a step back. Gives its ciphertext.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn put_step(&mut self, sealed: &Step) -> Step {
        let rest = &mut self.0;
        let mut cipher = *sealed;
        for (vector, cipher) in cipher.iter_mut().enumerate() {
            // SAFETY: there is a whole step.
            *cipher = unsafe { rest.text.store::<WHOLE>(vector, *cipher) };
        }
        rest.text = rest.text.after::<STEP>();
        rest.counters = rest.counters.after::<STEP>();
        cipher
    }

    /// Puts the last `N` vectors back and leaves them to the tail.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn last<const N: usize, const CALLER: usize>(
        self,
        place: Place<'p>,
        pad: __m128i,
        sealed: &[__m512i; N],
        tail: &mut Tail<'p>,
    ) {
        let rest = self.0;
        let mut cipher = *sealed;
        for (vector, cipher) in cipher.iter_mut().enumerate() {
            // SAFETY: there are as many vectors.
            *cipher = unsafe { rest.text.store::<N>(vector, *cipher) };
        }
        let lanes = rest.text.left().div_ceil(16);
        let hash = [
            _mm512_zextsi128_si512(rest.hash),
            _mm512_zextsi128_si512(rest.lengths),
        ];
        tail.put(rest.counters.key, place, (&cipher, lanes), hash, pad);
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
