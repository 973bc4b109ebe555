//! The end of a longer packet, which waits for the beginning of the next one.
//!
//! Before a packet has ciphertext there is nothing of it to hash, and after its last key stream nothing for AES to do.
//! So its last vectors are hashed while AES makes the first of the next packet, under another key.

use std::{
    arch::{
        asm,
        x86_64::{
            __m128i, __m512i, _mm_xor_si128, _mm512_castsi512_si128, _mm512_maskz_broadcast_i32x4,
            _mm512_xor_si512,
        },
    },
    mem::MaybeUninit,
};

use super::{
    ghash::{self, Sum},
    key::{GcmKey, POWERS},
    stream::{AES_128, Counters, share, slots, stream},
    tag::settle,
    text::LANES,
};

/// The most vectors that wait, one for a slot: as many as there are powers of H.
const MOST: usize = slots(AES_128);
const _: () = assert!(LANES * MOST == POWERS);

/// The packet that waits for its tag, if one does.
pub(super) struct Tail<'p> {
    key: Option<&'p GcmKey>,
    place: Option<Place<'p>>,
    /// Of GHASH, the lengths among them; none if no packet waits.
    lanes: usize,
    vectors: MaybeUninit<Vectors>,
}

/// A packet, and where its result goes.
pub(super) type Place<'p> = (&'p mut [u8], &'p mut bool);

struct Vectors {
    /// What GHASH multiplies.
    blocks: [__m512i; MOST],
    pad: __m128i,
}

impl<'p> Tail<'p> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            key: None,
            place: None,
            lanes: 0,
            vectors: MaybeUninit::uninit(),
        }
    }

    /// Makes the first `N` vectors of a packet's key stream and adds them to text. The packet that waits gets its tag
    /// meanwhile, and no longer waits.
    // What has one caller is inlined: so every caller has a number.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn stream<const N: usize, const ROUNDS: usize, const CALLER: usize>(
        &mut self,
        counters: &Counters<'_>,
        text: impl Fn(usize) -> __m512i,
    ) -> [__m512i; N] {
        // No lanes: nothing to hash.
        let (key, lanes) = (self.key.unwrap_or(counters.key), self.lanes);
        let mut sum = Sum::zero();
        let stream = stream::<N, ROUNDS>(
            counters,
            |slot| {
                for vector in share(MOST, slot, slots(ROUNDS)) {
                    // SAFETY: a packet waits, if there are lanes.
                    unsafe { self.hash(&mut sum, vector, key, lanes) };
                }
            },
            text,
        );
        self.settle(sum);
        self.lanes = 0;
        stream
    }

    /// Gives the packet that waits its tag, and keeps nothing of it.
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn finish(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        let mut sum = Sum::zero();
        for vector in 0..MOST {
            // SAFETY: a packet waits.
            unsafe { self.hash(&mut sum, vector, key, self.lanes) };
        }
        self.settle(sum);
        self.vectors = MaybeUninit::zeroed();
        // SAFETY: there are no instructions. As they might read the vectors, they must have been zeroed.
        unsafe {
            asm!("/* {0} */", in(reg) self.vectors.as_ptr(), options(nostack, preserves_flags));
        }
    }

    /// Adds a vector to the sum, if the packet that waits has as many.
    ///
    /// # Safety
    /// A packet waits, with so many lanes.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    unsafe fn hash(&self, sum: &mut Sum, vector: usize, key: &GcmKey, lanes: usize) {
        if lanes > LANES * vector {
            let blocks = self.vectors.as_ptr().cast::<__m512i>();
            // SAFETY: it is one of those that were put there.
            let blocks = unsafe { blocks.add(vector).read() };
            sum.add(blocks, key.powers(lanes - LANES * vector));
            sum.pin();
        }
    }

    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn settle(&mut self, sum: Sum) {
        if let Some((data, ok)) = self.place.take() {
            // SAFETY: a packet waits, and its pad was put there.
            let pad = unsafe { (*self.vectors.as_ptr()).pad };
            let tag = _mm_xor_si128(ghash::reverse_one(sum.reduce()), pad);
            *ok = settle::<false>(data, tag);
        }
    }

    /// Lets a packet wait with its last `N` vectors of ciphertext, which are in so many lanes: fewer than there are
    /// powers of H.
    ///
    /// `hash` is what GHASH adds to them, `lengths` its last block, both byte-reversed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn put<const N: usize>(
        &mut self,
        key: &'p GcmKey,
        place: Place<'p>,
        (cipher, lanes): (&[__m512i; N], usize),
        [hash, lengths]: [__m512i; 2],
        pad: __m128i,
    ) {
        let vectors = self.vectors.as_mut_ptr();
        let full = lanes.is_multiple_of(LANES);
        let lengths = _mm512_maskz_broadcast_i32x4(
            0xf << (4 * (lanes % LANES)),
            _mm512_castsi512_si128(lengths),
        );
        for (vector, cipher) in cipher.iter().enumerate() {
            let mut blocks = ghash::reverse(*cipher);
            if vector == 0 {
                blocks = _mm512_xor_si512(blocks, hash);
            }
            if vector + 1 == N && !full {
                blocks = _mm512_xor_si512(blocks, lengths);
            }
            // SAFETY: it is within `self`.
            unsafe { (*vectors).blocks[vector] = blocks };
        }
        if N < MOST {
            // SAFETY: as above.
            unsafe { (*vectors).blocks[N] = lengths };
        }
        // SAFETY: as above.
        unsafe { (*vectors).pad = pad };
        self.key = Some(key);
        self.place = Some(place);
        self.lanes = lanes + 1;
    }
}
