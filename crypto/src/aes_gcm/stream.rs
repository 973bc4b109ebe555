//! AES in counter mode (NIST SP 800-38D, section 6.5) on vectors of four blocks.

use std::{
    arch::{
        asm,
        x86_64::{
            __m512i, _mm_maskz_loadu_epi32, _mm_set_epi32, _mm512_add_epi32, _mm512_aesenc_epi128,
            _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_set_epi32,
            _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_xor_si512,
        },
    },
    mem::MaybeUninit,
};

use super::{key::GcmKey, text::LANES};
use crate::Nonce;

/// The rounds of AES-128 and AES-256.
pub(super) const AES_128: usize = 10;
pub(super) const AES_256: usize = 14;
/// Of either, found out at run time.
pub(super) const ANY: usize = 0;

/// The slots for GHASH while a key stream is made: one before every round but the last.
pub(super) const fn slots(rounds: usize) -> usize {
    if rounds == AES_256 { 13 } else { 9 }
}

/// What the counters of each of a few vectors are, exclusive-or'ed with those of the first, if that
/// one's first block number is a multiple of 32: as the blocks have them.
type Deltas = [[u8; 16 * LANES]; 7];

/// The deltas if lane 0 counts from 1 and if it counts from 0.
static DELTAS: [Deltas; 2] = [deltas(1), deltas(0)];

const fn deltas(from: u8) -> Deltas {
    let mut deltas = [[0; 16 * LANES]; 7];
    let mut at = 0;
    while at < 7 * LANES {
        let (vector, lane) = (at / LANES, at % LANES);
        let (first, here) = (from + lane as u8, from + at as u8);
        deltas[vector][16 * lane + 15] = first ^ here;
        at += 1;
    }
    deltas
}

/// The blocks that AES makes into a key stream, from one of them on.
#[derive(Clone, Copy)]
pub(super) struct Counters<'a> {
    pub(super) key: &'a GcmKey,
    /// The nonce and no counter, plus the first round key; in all lanes.
    nonce: __m512i,
    /// The next four counters, as integers where the counter belongs.
    counters: __m512i,
    deltas: &'static Deltas,
}

impl<'a> Counters<'a> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn new(key: &'a GcmKey, nonce: &Nonce) -> Self {
        Self::from_lane::<0>(key, nonce)
    }

    /// With the first block in lane `LANE`, 0 or 1; a lane before it is of no use.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn from_lane<const LANE: usize>(key: &'a GcmKey, nonce: &Nonce) -> Self {
        // SAFETY: the mask admits three words, which a nonce has.
        let nonce = unsafe { _mm_maskz_loadu_epi32(0b111, nonce.as_ptr().cast()) };
        let counters = if LANE == 0 {
            _mm512_set_epi32(4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0)
        } else {
            _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
        };
        Self {
            key,
            nonce: _mm512_xor_si512(_mm512_broadcast_i32x4(nonce), key.round_key(0)),
            counters,
            deltas: &DELTAS[LANE],
        }
    }

    /// One vector of AES's input, plus the first round key.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn state(&self, vector: usize) -> __m512i {
        if let Some(delta) = self.deltas.get(vector)
            && vector > 0
        {
            // SAFETY: a delta is a vector.
            let delta = unsafe { _mm512_loadu_si512(delta.as_ptr().cast()) };
            return _mm512_xor_si512(self.state(0), delta);
        }
        let counters = _mm512_add_epi32(self.counters, advance(vector));
        // The counter is big-endian; the rest is zero, so it may come from anywhere.
        let order = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0d_0e0f, 0, 0, 0));
        _mm512_xor_si512(self.nonce, _mm512_shuffle_epi8(counters, order))
    }

    /// Has the key read again from where it is.
    ///
    /// The compiler knows that nothing changes it, and would take a loop's two dozen round keys and powers of H,
    /// spread out to vectors, to the stack before it begins.
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read there")]
    #[inline]
    pub(super) fn reload_key(&mut self) {
        let mut key = std::ptr::from_ref(self.key);
        // SAFETY: there are no instructions, so it is the same reference.
        self.key = unsafe {
            asm!("/* {0} */", inout(reg) key, options(nomem, nostack, preserves_flags));
            &*key
        };
    }

    /// After a step, which has a multiple of 32 blocks.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn after<const N: usize>(self) -> Self {
        const { assert!((LANES * N).is_multiple_of(32)) };
        Self {
            counters: _mm512_add_epi32(self.counters, advance(N)),
            ..self
        }
    }
}

/// What so many vectors add to the counters.
#[inline]
#[target_feature(enable = "avx512f")]
fn advance(vectors: usize) -> __m512i {
    let add = (LANES * vectors) as i32;
    _mm512_set_epi32(add, 0, 0, 0, add, 0, 0, 0, add, 0, 0, 0, add, 0, 0, 0)
}

/// Makes `N` vectors of key stream for each of `P` packets with keys of one size, and calls `slot`
/// with every number below [`slots`] meanwhile. Gives them with the `text` of each packet and vector added.
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn streams<const N: usize, const P: usize, const ROUNDS: usize>(
    counters: [&Counters<'_>; P],
    mut slot: impl FnMut(usize),
    text: impl Fn(usize, usize) -> __m512i,
) -> [[__m512i; N]; P] {
    let mut states = [[_mm512_setzero_si512(); N]; P];
    for p in 0..P {
        for (vector, state) in states[p].iter_mut().enumerate() {
            *state = counters[p].state(vector);
        }
    }
    // Written out, because a loop of this length is not unrolled.
    slot(0);
    aes_round(&mut states, counters, 1);
    slot(1);
    aes_round(&mut states, counters, 2);
    slot(2);
    aes_round(&mut states, counters, 3);
    slot(3);
    aes_round(&mut states, counters, 4);
    slot(4);
    aes_round(&mut states, counters, 5);
    slot(5);
    aes_round(&mut states, counters, 6);
    slot(6);
    aes_round(&mut states, counters, 7);
    slot(7);
    aes_round(&mut states, counters, 8);
    slot(8);
    aes_round(&mut states, counters, 9);
    if ROUNDS == AES_256 {
        slot(9);
        aes_round(&mut states, counters, 10);
        slot(10);
        aes_round(&mut states, counters, 11);
        slot(11);
        aes_round(&mut states, counters, 12);
        slot(12);
        aes_round(&mut states, counters, 13);
    }
    if ROUNDS == ANY && counters[0].key.is_long() {
        aes_round(&mut states, counters, 10);
        aes_round(&mut states, counters, 11);
        aes_round(&mut states, counters, 12);
        aes_round(&mut states, counters, 13);
    }
    for p in 0..P {
        let key = counters[p].key;
        let rounds = if ROUNDS == ANY { key.rounds() } else { ROUNDS };
        let round_key = key.round_key(rounds);
        for (vector, state) in states[p].iter_mut().enumerate() {
            // The last round key is what AES adds last: text that is added to it waits for nothing.
            let key = _mm512_xor_si512(round_key, text(p, vector));
            *state = _mm512_aesenclast_epi128(*state, key);
        }
    }
    states
}

#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn aes_round<const N: usize, const P: usize>(
    states: &mut [[__m512i; N]; P],
    counters: [&Counters<'_>; P],
    round: usize,
) {
    for p in 0..P {
        let round_key = counters[p].key.round_key(round);
        for state in &mut states[p] {
            *state = pinned(_mm512_aesenc_epi128(*state, round_key));
        }
    }
}

/// As [`streams`] for one packet.
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn stream<const N: usize, const ROUNDS: usize>(
    counters: &Counters<'_>,
    slot: impl FnMut(usize),
    text: impl Fn(usize) -> __m512i,
) -> [__m512i; N] {
    let [stream] = streams::<N, 1, ROUNDS>([counters], slot, |_, vector| text(vector));
    stream
}

/// The share that a slot of so many has of so many vectors, or pairs of them. The first comes last: it waits for the
/// hash so far.
#[inline]
pub(super) fn share(parts: usize, slot: usize, slots: usize) -> impl Iterator<Item = usize> {
    (parts.min(slot * parts / slots)..parts.min((slot + 1) * parts / slots))
        .map(move |part| parts - 1 - part)
}

/// Has the compiler begin the caller's frame at a cache line.
///
/// It would keep vectors that find no register wherever the stack happens to be: half of them across two lines, from
/// where they are slow to come back.
#[inline]
pub(super) fn align_frame() {
    let vector = MaybeUninit::<__m512i>::uninit();
    // SAFETY: there are no instructions.
    unsafe {
        asm!("/* {0} */", in(reg) vector.as_ptr(), options(nostack, preserves_flags));
    }
}

/// No text to add to a key stream.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn none() -> __m512i {
    _mm512_setzero_si512()
}

/// A vector that is made here, in the order of the source.
///
/// The compiler would take one vector through many rounds and then the next one, and GHASH after
/// all of them. But each round waits for the one before, and the CPU does not look far enough ahead
/// to find something else to do.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pinned(mut vector: __m512i) -> __m512i {
    // SAFETY: there are no instructions.
    unsafe {
        asm!("/* {0} */", inout(zmm_reg) vector, options(nomem, nostack, preserves_flags));
    }
    vector
}
