//! Opening a longer packet: there is ciphertext to begin with, so a step is hashed while its own key stream is made.

use std::arch::x86_64::*;

use super::{
    avx512::Rest,
    ghash::{self, Sum},
    key::GcmKey,
    long::{LAST, STEP, WHOLE, hash_share},
    stream::{AES_128, AES_256, align_frame, share, slots, stream},
    tag::settle,
    text::VECTOR,
};
use crate::Nonce;

/// Opens a packet of more than four vectors.
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn open(key: &GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
    match (data.len() > LAST, key.is_long()) {
        (false, false) => middling::<AES_128>(key, nonce, aad, data),
        (false, true) => middling::<AES_256>(key, nonce, aad, data),
        (true, false) => steps::<AES_128>(key, nonce, aad, data),
        (true, true) => steps::<AES_256>(key, nonce, aad, data),
    }
}

/// Opens a packet without a step.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn middling<const ROUNDS: usize>(key: &GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
    let open = Open::<ROUNDS>(Rest::new(key, nonce, aad, data));
    let (hash, pad) = match data.len().div_ceil(VECTOR) {
        ..=5 => open.last::<5, 0>(),
        6 => open.last::<6, 0>(),
        7 => open.last::<7, 0>(),
        8 => open.last::<8, 0>(),
        _ => open.last::<9, 0>(),
    };
    settle::<true>(data, _mm_xor_si128(ghash::reverse_one(hash), pad))
}

/// Opens a packet of a step or more.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn steps<const ROUNDS: usize>(key: &GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
    align_frame();
    let mut open = Open::<ROUNDS>(Rest::new(key, nonce, aad, data));
    let pad = open.step::<0>();
    while open.0.text.left() > LAST {
        open.step::<1>();
    }
    let (hash, _) = match open.0.text.left().div_ceil(VECTOR) {
        ..=1 => open.last::<1, 1>(),
        2 => open.last::<2, 1>(),
        3 => open.last::<3, 1>(),
        4 => open.last::<4, 1>(),
        5 => open.last::<5, 1>(),
        6 => open.last::<6, 1>(),
        7 => open.last::<7, 1>(),
        8 => open.last::<8, 1>(),
        _ => open.last::<9, 1>(),
    };
    settle::<true>(data, _mm_xor_si128(ghash::reverse_one(hash), pad))
}

/// What of a packet is not yet opened.
struct Open<'a, const ROUNDS: usize>(Rest<'a>);

impl<const ROUNDS: usize> Open<'_, ROUNDS> {
    /// Opens a step. Gives the first lane's key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn step<const CALLER: usize>(&mut self) -> __m128i {
        let rest = &mut self.0;
        rest.counters.reload_key();
        let mut cipher = [_mm512_setzero_si512(); STEP];
        for (vector, cipher) in cipher.iter_mut().enumerate() {
            // SAFETY: there is a whole step.
            *cipher = unsafe { rest.text.load::<WHOLE>(vector) };
        }
        let hash = _mm512_zextsi128_si512(rest.hash);
        let mut sum = Sum::zero();
        let opened = stream::<STEP, ROUNDS>(
            &rest.counters,
            |slot| hash_share::<ROUNDS>(&mut sum, slot, &cipher, hash, rest.counters.key),
            |vector| cipher[vector],
        );
        rest.hash = sum.reduce();
        for (vector, plain) in opened.into_iter().enumerate() {
            // SAFETY: there is a whole step.
            unsafe { rest.text.store::<WHOLE>(vector, plain) };
        }
        rest.text = rest.text.after::<STEP>();
        rest.counters = rest.counters.after::<STEP>();
        _mm512_castsi512_si128(opened[0])
    }

    /// Opens the last `N` vectors. Gives the hash and the first lane's key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn last<const N: usize, const CALLER: usize>(self) -> (__m128i, __m128i) {
        let rest = self.0;
        let mut sum = Sum::zero();
        let load = |vector| {
            // SAFETY: there are as many vectors.
            unsafe { rest.text.load::<N>(vector) }
        };
        let opened = stream::<N, ROUNDS>(
            &rest.counters,
            |slot| {
                for vector in share(N, slot, slots(ROUNDS)) {
                    rest.hash_last::<N, true>(&mut sum, vector, load(vector));
                    sum.pin();
                }
            },
            load,
        );
        for (vector, plain) in opened.into_iter().enumerate() {
            // SAFETY: there are as many vectors.
            unsafe { rest.text.store::<N>(vector, plain) };
        }
        sum.add(
            _mm512_zextsi128_si512(rest.lengths),
            _mm512_zextsi128_si512(rest.counters.key.h()),
        );
        (sum.reduce(), _mm512_castsi512_si128(opened[0]))
    }
}
