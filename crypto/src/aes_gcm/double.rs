//! Both seals of a packet in one pass: each vector is read once, encrypted and hashed for the
//! circuit, encrypted and hashed for the link, and written once.
//!
//! The link's text is the circuit's with a block in front, the circuit header, and one behind, the
//! circuit's tag. So that both share their lanes, the circuit's begin a block late:
//!
//! ```text
//! lane                    0      1       2       ...   n + 1    n + 2
//! circuit: AES of counter        1       2             n + 1
//!          the stream is         pad     text 1        text n
//!          GHASH takes           AAD     text 1        text n   lengths
//! link:    AES of counter 1      2       3             n + 2    n + 3
//!          the stream is  pad    header  text 1        text n   tag
//!          GHASH takes    AAD    header  text 1        text n   tag, then lengths
//! ```
//!
//! The circuit's tag comes right after its text, which need not fill its last block: the tag may
//! stand across two lanes, and they in two vectors. It is turned to its place and mixed in before
//! the last vectors are encrypted for the link. Those wait for it; all others do not.

use std::arch::x86_64::*;

use super::{
    avx512::{STEP, share, step_powers},
    batch::{Inner, Outer},
    ghash::{self, Sum},
    key::GcmKey,
    stream::{Counters, stream, streams},
    tag::settle,
    text::{LANES, Text, VECTOR},
};
use crate::{AAD_LEN, Nonce};

/// Vectors for those of a step: none is the last, nor the last but one.
const WHOLE: usize = STEP + 2;

/// Seals one packet.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
pub(super) fn one(circuit: Inner<'_, '_>, link: Outer<'_, '_>) {
    let lanes = link.1.data.len().div_ceil(16);
    match (lanes.div_ceil(LANES), lanes.is_multiple_of(LANES)) {
        (1, false) => short::<1, false>(circuit, link),
        (1, true) => short::<1, true>(circuit, link),
        (2, false) => short::<2, false>(circuit, link),
        (2, true) => short::<2, true>(circuit, link),
        (3, false) => short::<3, false>(circuit, link),
        (3, true) => short::<3, true>(circuit, link),
        (4, false) => short::<4, false>(circuit, link),
        (4, true) => short::<4, true>(circuit, link),
        _ => long(circuit, link),
    }
}

/// Seals a packet of `N` vectors, which are `FULL` or have a lane for the link's lengths.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
fn short<const N: usize, const FULL: bool>(circuit: Inner<'_, '_>, (key, packet): Outer<'_, '_>) {
    let both = Both::new(circuit, (key, &mut *packet));
    let streams = streams::<N, 2>([&both.circuit.counters, &both.link.counters], |_| ());
    let [pad, link_pad] = [
        _mm512_extracti32x4_epi32::<1>(streams[0][0]),
        _mm512_castsi512_si128(streams[1][0]),
    ];
    // SAFETY: there are as many vectors.
    let (once, header) = unsafe { both.encrypt::<N, 0>(&streams[0]) };
    let mut sum = Sum::zero();
    for vector in (0..N).rev() {
        both.circuit
            .add_last::<N, false>(&mut sum, vector, once[vector]);
    }
    let tag = _mm_xor_si128(ghash::reverse_one(sum.reduce()), pad);
    let tag = both.finish::<N, FULL, 0>(once, header, tag, &streams[1], link_pad);
    packet.ok = settle::<false>(packet.data, tag);
}

/// Seals two packets of `N` vectors, which are `FULL` or have a lane for the link's lengths, with
/// keys of one size.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
pub(super) fn pair<const N: usize, const FULL: bool>(
    c: Inner<'_, '_>,
    (k, p): Outer<'_, '_>,
    d: Inner<'_, '_>,
    (l, q): Outer<'_, '_>,
) {
    let a = Both::new(c, (k, &mut *p));
    let b = Both::new(d, (l, &mut *q));
    let [c, d] = streams::<N, 2>([&a.circuit.counters, &b.circuit.counters], |_| ());
    let pads = [
        _mm512_extracti32x4_epi32::<1>(c[0]),
        _mm512_extracti32x4_epi32::<1>(d[0]),
    ];
    // SAFETY: there are as many vectors.
    let ((once_a, header_a), (once_b, header_b)) =
        unsafe { (a.encrypt::<N, 1>(&c), b.encrypt::<N, 2>(&d)) };
    let (mut sum_a, mut sum_b) = (Sum::zero(), Sum::zero());
    let mut tags = pads;
    let [e, f] = streams::<N, 2>([&a.link.counters, &b.link.counters], |slot| {
        if slot < N {
            let vector = N - 1 - slot;
            a.circuit
                .add_last::<N, false>(&mut sum_a, vector, once_a[vector]);
            b.circuit
                .add_last::<N, false>(&mut sum_b, vector, once_b[vector]);
            sum_a.pin();
            sum_b.pin();
        }
        if slot == N {
            tags = [
                _mm_xor_si128(ghash::reverse_one(sum_a.reduce()), pads[0]),
                _mm_xor_si128(ghash::reverse_one(sum_b.reduce()), pads[1]),
            ];
        }
    });
    let pads = [_mm512_castsi512_si128(e[0]), _mm512_castsi512_si128(f[0])];
    let tag_a = a.finish::<N, FULL, 1>(once_a, header_a, tags[0], &e, pads[0]);
    let tag_b = b.finish::<N, FULL, 2>(once_b, header_b, tags[1], &f, pads[1]);
    p.ok = settle::<false>(p.data, tag_a);
    q.ok = settle::<false>(q.data, tag_b);
}

/// Seals a packet that is too long for two key streams at once.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
fn long(circuit: Inner<'_, '_>, (key, packet): Outer<'_, '_>) {
    let mut both = Both::new(circuit, (key, &mut *packet));
    let mut behind = None;
    // A step takes nothing but text of the circuit.
    if both.circuit.text.left() >= STEP * VECTOR {
        let mut circuit = stream::<STEP>(&both.circuit.counters, |_| ());
        let pad = _mm512_extracti32x4_epi32::<1>(circuit[0]);
        let mut link_pad = None;
        let cipher = loop {
            let (cipher, link) = both.step(circuit);
            link_pad.get_or_insert(link);
            if both.circuit.text.left() < STEP * VECTOR {
                break cipher;
            }
            circuit = both
                .link
                .stream_behind::<STEP, 0>(&both.circuit.counters, &cipher);
        };
        behind = Some(Behind {
            cipher,
            pads: [pad, link_pad.unwrap_or(pad)],
        });
    }
    let tag = match both.link.text.left().div_ceil(VECTOR) {
        1 => both.last::<1>(behind),
        2 => both.last::<2>(behind),
        3 => both.last::<3>(behind),
        4 => both.last::<4>(behind),
        5 => both.last::<5>(behind),
        6 => both.last::<6>(behind),
        7 => both.last::<7>(behind),
        8 => both.last::<8>(behind),
        _ => both.last::<9>(behind),
    };
    packet.ok = settle::<false>(packet.data, tag);
}

/// What the steps through a packet leave to its last vectors.
struct Behind {
    /// The link's ciphertext of the last step, not yet hashed.
    cipher: [__m512i; STEP],
    /// The circuit's and the link's.
    pads: [__m128i; 2],
}

/// What of a packet is not yet sealed.
struct Both<'a> {
    circuit: Side<'a>,
    link: Side<'a>,
}

/// One of the two seals.
struct Side<'a> {
    counters: Counters<'a>,
    /// What GHASH adds to the next vector: the AAD, later the hash so far. Byte-reversed.
    hash: __m512i,
    /// The last block of GHASH, byte-reversed: the bits of AAD and text.
    lengths: __m128i,
    /// What it encrypts.
    text: Text,
}

impl<'a> Both<'a> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn new((circuit, seal): Inner<'a, '_>, (link, packet): Outer<'a, '_>) -> Self {
        let texts = Text::nested(packet.data);
        Self {
            circuit: Side::new::<1>(circuit, &seal.nonce, &seal.aad, texts[0]),
            link: Side::new::<0>(link, &packet.nonce, &packet.aad, texts[1]),
        }
    }

    /// Encrypts a whole step, by the circuit's key stream and then by the link's, which is made while
    /// the circuit's ciphertext is hashed. Gives the link's ciphertext, not yet hashed, and the first
    /// lane of its key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn step(&mut self, circuit: [__m512i; STEP]) -> ([__m512i; STEP], __m128i) {
        self.circuit.counters.reload_key();
        self.link.counters.reload_key();
        let mut once = circuit;
        let mut header = _mm512_setzero_si512();
        for vector in 0..STEP {
            // SAFETY: there is a whole step.
            let text = unsafe { self.link.text.load::<WHOLE>(vector) };
            let inner = _mm512_xor_si512(text, circuit[vector]);
            once[vector] = self.circuit.text.only::<WHOLE>(vector, inner);
            if vector == 0 {
                header = self.circuit.text.before(text);
            }
        }
        let link = self
            .circuit
            .stream_behind::<STEP, 1>(&self.link.counters, &once);
        once[0] = _mm512_xor_si512(once[0], header);
        for vector in 0..STEP {
            // SAFETY: there is a whole step.
            unsafe {
                let outer = _mm512_xor_si512(once[vector], link[vector]);
                once[vector] = self.link.text.store::<WHOLE>(vector, outer);
            }
        }
        self.circuit.advance::<STEP>();
        self.link.advance::<STEP>();
        (once, _mm512_castsi512_si128(link[0]))
    }

    /// Seals the last `N` vectors. Gives the link's tag.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    fn last<const N: usize>(mut self, behind: Option<Behind>) -> __m128i {
        let circuit = match &behind {
            None => stream::<N>(&self.circuit.counters, |_| ()),
            Some(Behind { cipher, .. }) => self
                .link
                .stream_behind::<N, 2>(&self.circuit.counters, cipher),
        };
        // SAFETY: there are as many vectors.
        let (once, header) = unsafe { self.encrypt::<N, 3>(&circuit) };
        let mut sum = Sum::zero();
        let link = stream::<N>(&self.link.counters, |slot| {
            for vector in share::<N>(slot) {
                self.circuit
                    .add_last::<N, false>(&mut sum, vector, once[vector]);
                sum.pin();
            }
        });
        let [pad, link_pad] = match behind {
            None => [
                _mm512_extracti32x4_epi32::<1>(circuit[0]),
                _mm512_castsi512_si128(link[0]),
            ],
            Some(Behind { pads, .. }) => pads,
        };
        let tag = _mm_xor_si128(ghash::reverse_one(sum.reduce()), pad);
        self.finish::<N, true, 3>(once, header, tag, &link, link_pad)
    }

    /// Encrypts the last `N` vectors for the circuit. Gives its ciphertext, and what is before it in
    /// the first vector.
    ///
    /// # Safety
    /// There are as many vectors.
    // What is not inlined passes its vectors through memory, and what has one caller is inlined: so
    // every caller has a number.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    unsafe fn encrypt<const N: usize, const CALLER: usize>(
        &self,
        stream: &[__m512i; N],
    ) -> ([__m512i; N], __m512i) {
        let text = self.circuit.text;
        let mut once = *stream;
        let mut header = _mm512_setzero_si512();
        for vector in 0..N {
            // SAFETY: the caller promises it.
            let plain = unsafe { self.link.text.load::<N>(vector) };
            once[vector] = text.only::<N>(vector, _mm512_xor_si512(plain, stream[vector]));
            if vector == 0 {
                header = text.before(plain);
            }
        }
        (once, header)
    }

    /// Encrypts the last `N` vectors of the circuit's ciphertext and its tag for the link. Gives the
    /// link's tag.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    fn finish<const N: usize, const FULL: bool, const CALLER: usize>(
        &self,
        once: [__m512i; N],
        header: __m512i,
        tag: __m128i,
        stream: &[__m512i; N],
        pad: __m128i,
    ) -> __m128i {
        let tag = self.circuit.text.turn_to_end(tag);
        let mut sum = Sum::zero();
        for vector in 0..N {
            let mut outer = _mm512_xor_si512(once[vector], stream[vector]);
            if vector == 0 {
                outer = _mm512_xor_si512(outer, header);
            }
            if vector + 2 >= N {
                let tag = self.circuit.text.beyond::<N>(vector, tag);
                outer = _mm512_xor_si512(outer, tag);
            }
            // SAFETY: there are as many vectors.
            let cipher = unsafe { self.link.text.store::<N>(vector, outer) };
            self.link.add_last::<N, FULL>(&mut sum, vector, cipher);
        }
        if FULL {
            sum.add(
                _mm512_zextsi128_si512(self.link.lengths),
                _mm512_zextsi128_si512(self.link.counters.key.h()),
            );
        }
        _mm_xor_si128(ghash::reverse_one(sum.reduce()), pad)
    }
}

impl<'a> Side<'a> {
    /// The AAD is in lane `FIRST`.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn new<const FIRST: usize>(
        key: &'a GcmKey,
        nonce: &Nonce,
        aad: &[u8; AAD_LEN],
        text: Text,
    ) -> Self {
        // SAFETY: there are 16 bytes.
        let block = ghash::reverse_one(unsafe { _mm_loadu_si128(aad.as_ptr().cast()) });
        let before = 16 * (FIRST + 1);
        Self {
            counters: Counters::from_lane::<FIRST>(key, nonce),
            hash: _mm512_maskz_broadcast_i32x4(0xf << (4 * FIRST), block),
            lengths: _mm_set_epi64x(8 * aad.len() as i64, 8 * (text.left() - before) as i64),
            text,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn advance<const N: usize>(&mut self) {
        self.text = self.text.after::<N>();
        self.counters = self.counters.after::<N>();
    }

    /// Makes `N` vectors of a key stream, while a step of this side's ciphertext is hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn stream_behind<const N: usize, const CALLER: usize>(
        &mut self,
        counters: &Counters<'_>,
        behind: &[__m512i; STEP],
    ) -> [__m512i; N] {
        let mut sum = Sum::zero();
        let stream = stream::<N>(counters, |slot| {
            for pair in share::<{ STEP / 2 }>(slot) {
                let mut blocks = [
                    ghash::reverse(behind[2 * pair]),
                    ghash::reverse(behind[2 * pair + 1]),
                ];
                if pair == 0 {
                    blocks[0] = _mm512_xor_si512(blocks[0], self.hash);
                }
                sum.add_two(blocks, step_powers(self.counters.key, pair));
            }
        });
        self.hash = _mm512_zextsi128_si512(sum.reduce());
        stream
    }

    /// Adds one of the last `N` vectors of ciphertext to the sum, and the lengths if there is a lane.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn add_last<const N: usize, const FULL: bool>(
        &self,
        sum: &mut Sum,
        vector: usize,
        cipher: __m512i,
    ) {
        let lanes = self.text.left().div_ceil(16);
        let mut blocks = ghash::reverse(cipher);
        if vector == 0 {
            blocks = _mm512_xor_si512(blocks, self.hash);
        }
        if !FULL && vector == N - 1 {
            let lane = 0xf << (4 * (lanes % LANES));
            let lengths = _mm512_maskz_broadcast_i32x4(lane, self.lengths);
            blocks = _mm512_xor_si512(blocks, lengths);
        }
        sum.add(blocks, self.counters.key.powers(lanes + 1 - LANES * vector));
    }
}
