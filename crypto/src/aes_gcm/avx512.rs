//! AES-GCM on vectors of four blocks.
//!
//! A packet is a row of blocks in lanes, four to a vector:
//!
//! ```text
//! lane            0      1       2      ...   n
//! AES of counter  1      2       3            n + 1
//! the stream is   pad    text 1  text 2       text n
//! GHASH takes     AAD    text 1  text 2       text n, then the lengths
//! ```
//!
//! The pad and the hash make the tag. So the vectors of text begin 16 bytes before it; what is
//! outside the text, there and after its end, is masked: neither read nor written, and zero to
//! GHASH.

use std::arch::x86_64::*;

use super::{
    batch::Outer,
    ghash::{self, Sum},
    key::GcmKey,
    long::long,
    open::open,
    stream::{ANY, Counters, none, share, slots, stream, streams},
    tag::settle,
    tail::Tail,
    text::{LANES, Text},
};
use crate::{Nonce, TAG_LEN};

/// The longest text, in bytes: the block counter has 32 bits and starts at 2.
pub(super) const MAX_TEXT: usize = ((1 << 32) - 2) * 16;

/// Seals or opens one packet of any length, with AAD of any length.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn one<const OPEN: bool>(
    key: &GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &mut [u8],
) -> bool {
    // By vectors, and whether the last has no lane for the lengths.
    let lanes = data.len().div_ceil(16);
    match (lanes.div_ceil(LANES), lanes.is_multiple_of(LANES)) {
        (1, false) => short::<OPEN, 1, false>(key, nonce, aad, data),
        (1, true) => short::<OPEN, 1, true>(key, nonce, aad, data),
        (2, false) => short::<OPEN, 2, false>(key, nonce, aad, data),
        (2, true) => short::<OPEN, 2, true>(key, nonce, aad, data),
        (3, false) => short::<OPEN, 3, false>(key, nonce, aad, data),
        (3, true) => short::<OPEN, 3, true>(key, nonce, aad, data),
        (4, false) => short::<OPEN, 4, false>(key, nonce, aad, data),
        (4, true) => short::<OPEN, 4, true>(key, nonce, aad, data),
        _ if OPEN => open(key, nonce, aad, data),
        _ => {
            let (mut ok, mut tail) = (false, Tail::new());
            long(key, nonce, aad, data, &mut ok, &mut tail);
            tail.finish();
            ok
        }
    }
}

/// Seals or opens a packet of `N` vectors, which are `FULL` or have a lane for the lengths.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn short<const OPEN: bool, const N: usize, const FULL: bool>(
    key: &GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &mut [u8],
) -> bool {
    let rest = Rest::new(key, nonce, aad, data);
    let (hash, pad) = rest.vectors::<OPEN, N, FULL>();
    settle::<OPEN>(data, _mm_xor_si128(ghash::reverse_one(hash), pad))
}

/// Seals or opens two packets of `N` vectors, which are `FULL` or have a lane for the lengths, with
/// keys of one size.
///
/// Alone, a short packet's rounds wait for each other, and the next packet's find no room in the
/// CPU's schedulers.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn pair<const OPEN: bool, const N: usize, const FULL: bool>(
    (k, p): Outer<'_, '_>,
    (l, q): Outer<'_, '_>,
) {
    let a = Rest::new(k, &p.nonce, &p.aad, p.data);
    let b = Rest::new(l, &q.nonce, &q.aad, q.data);
    let [stream_a, stream_b] =
        streams::<N, 2, ANY>([&a.counters, &b.counters], |_| (), |_, _| none());
    // SAFETY: there are as many vectors.
    let (cipher_a, cipher_b) = unsafe {
        (
            add::<OPEN, N>(a.text, &stream_a),
            add::<OPEN, N>(b.text, &stream_b),
        )
    };
    let (mut sum_a, mut sum_b) = (Sum::zero(), Sum::zero());
    for vector in 0..N {
        a.hash_last::<N, FULL>(&mut sum_a, vector, cipher_a[vector]);
        b.hash_last::<N, FULL>(&mut sum_b, vector, cipher_b[vector]);
    }
    if FULL {
        sum_a.add(
            _mm512_zextsi128_si512(a.lengths),
            _mm512_zextsi128_si512(k.h()),
        );
        sum_b.add(
            _mm512_zextsi128_si512(b.lengths),
            _mm512_zextsi128_si512(l.h()),
        );
    }
    let (pad_a, pad_b) = (
        _mm512_castsi512_si128(stream_a[0]),
        _mm512_castsi512_si128(stream_b[0]),
    );
    let tag_a = _mm_xor_si128(ghash::reverse_one(sum_a.reduce()), pad_a);
    let tag_b = _mm_xor_si128(ghash::reverse_one(sum_b.reduce()), pad_b);
    p.ok = settle::<OPEN>(p.data, tag_a);
    q.ok = settle::<OPEN>(q.data, tag_b);
}

/// What of a packet is not yet sealed or opened.
pub(super) struct Rest<'a> {
    pub(super) counters: Counters<'a>,
    /// What GHASH adds to the next lane: the AAD, later the hash so far. Byte-reversed.
    pub(super) hash: __m128i,
    /// The last block of GHASH, byte-reversed: the bits of AAD and text.
    pub(super) lengths: __m128i,
    pub(super) text: Text,
}

impl<'a> Rest<'a> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn new(key: &'a GcmKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Self {
        Self {
            counters: Counters::new(key, nonce),
            hash: hash_aad(key, aad),
            lengths: _mm_set_epi64x(8 * aad.len() as i64, 8 * (data.len() - TAG_LEN) as i64),
            text: Text::new(data),
        }
    }

    /// Seals or opens all `N` vectors. If they are `FULL`, the lengths are hashed apart, else in the lane after the text.
    /// Gives the hash and the first lane's key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn vectors<const OPEN: bool, const N: usize, const FULL: bool>(self) -> (__m128i, __m128i) {
        let text = self.text;
        let mut sum = Sum::zero();
        let stream = stream::<N, ANY>(
            &self.counters,
            |slot| {
                if OPEN {
                    for vector in share(N, slot, slots(ANY)) {
                        // SAFETY: there are as many vectors.
                        let cipher = unsafe { text.load::<N>(vector) };
                        self.hash_last::<N, FULL>(&mut sum, vector, cipher);
                    }
                }
            },
            |_| none(),
        );
        // SAFETY: there are as many vectors.
        let cipher = unsafe { add::<OPEN, N>(text, &stream) };
        if !OPEN {
            for vector in (0..N).rev() {
                self.hash_last::<N, FULL>(&mut sum, vector, cipher[vector]);
            }
        }
        if FULL {
            let h = self.counters.key.h();
            sum.add(
                _mm512_zextsi128_si512(self.lengths),
                _mm512_zextsi128_si512(h),
            );
        }
        (sum.reduce(), _mm512_castsi512_si128(stream[0]))
    }

    /// Adds one of the last `N` vectors of ciphertext to the sum, and the lengths if there is a lane.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn hash_last<const N: usize, const FULL: bool>(
        &self,
        sum: &mut Sum,
        vector: usize,
        cipher: __m512i,
    ) {
        let lanes = self.text.left().div_ceil(16);
        let mut blocks = ghash::reverse(cipher);
        if vector == 0 {
            blocks = _mm512_xor_si512(blocks, _mm512_zextsi128_si512(self.hash));
        }
        if !FULL && vector == N - 1 {
            let lane = 0xf << (4 * (lanes % LANES));
            let lengths = _mm512_maskz_broadcast_i32x4(lane, self.lengths);
            blocks = _mm512_xor_si512(blocks, lengths);
        }
        sum.add(blocks, self.counters.key.powers(lanes + 1 - LANES * vector));
    }
}

/// Adds the key stream to `N` vectors of text, and gives the ciphertext: what they held, to open, or
/// what they hold then.
///
/// # Safety
/// As for [`Text::load`].
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
unsafe fn add<const OPEN: bool, const N: usize>(text: Text, stream: &[__m512i; N]) -> [__m512i; N] {
    let mut cipher = *stream;
    for (vector, cipher) in cipher.iter_mut().enumerate() {
        // SAFETY: the caller promises it.
        unsafe {
            let before = text.load::<N>(vector);
            let after = text.store::<N>(vector, _mm512_xor_si512(before, stream[vector]));
            *cipher = if OPEN { before } else { after };
        }
    }
    cipher
}

/// What GHASH adds to the first lane, which is the last of the AAD.
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn hash_aad(key: &GcmKey, aad: &[u8]) -> __m128i {
    if let Ok(block) = <&[u8; 16]>::try_from(aad) {
        // SAFETY: there are 16 bytes.
        return ghash::reverse_one(unsafe { _mm_loadu_si128(block.as_ptr().cast()) });
    }
    let mut hash = _mm_setzero_si128();
    for (at, block) in aad.chunks(16).enumerate() {
        if at > 0 {
            hash = ghash::multiply(hash, key.h());
        }
        let mask = !0 >> (16 - block.len());
        // SAFETY: the mask admits the block's bytes.
        let block = unsafe { _mm_maskz_loadu_epi8(mask, block.as_ptr().cast()) };
        hash = _mm_xor_si128(hash, ghash::reverse_one(block));
    }
    hash
}
