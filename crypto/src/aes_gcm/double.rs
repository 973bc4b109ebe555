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
    batch::{Inner, Outer},
    ghash::{self, Sum},
    key::GcmKey,
    stream::{ANY, Counters, none, streams},
    tag::settle,
    text::{LANES, Text},
};
use crate::{AAD_LEN, Nonce, Packet};

/// Seals one packet of at most four vectors.
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
        _ => short::<4, true>(circuit, link),
    }
}

/// Seals a packet of `N` vectors, which are `FULL` or have a lane for the link's lengths.
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
fn short<const N: usize, const FULL: bool>(circuit: Inner<'_, '_>, (key, packet): Outer<'_, '_>) {
    let both = Both::new(circuit, (key, &mut *packet));
    let streams = streams::<N, 2, ANY>(
        [&both.circuit.counters, &both.link.counters],
        |_| (),
        |_, _| none(),
    );
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
    let [c, d] = streams::<N, 2, ANY>(
        [&a.circuit.counters, &b.circuit.counters],
        |_| (),
        |_, _| none(),
    );
    let pads = [
        _mm512_extracti32x4_epi32::<1>(c[0]),
        _mm512_extracti32x4_epi32::<1>(d[0]),
    ];
    // SAFETY: there are as many vectors.
    let ((once_a, header_a), (once_b, header_b)) =
        unsafe { (a.encrypt::<N, 1>(&c), b.encrypt::<N, 2>(&d)) };
    let (mut sum_a, mut sum_b) = (Sum::zero(), Sum::zero());
    let mut tags = pads;
    let [e, f] = streams::<N, 2, ANY>(
        [&a.link.counters, &b.link.counters],
        |slot| {
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
        },
        |_, _| none(),
    );
    let pads = [_mm512_castsi512_si128(e[0]), _mm512_castsi512_si128(f[0])];
    let tag_a = a.finish::<N, FULL, 1>(once_a, header_a, tags[0], &e, pads[0]);
    let tag_b = b.finish::<N, FULL, 2>(once_b, header_b, tags[1], &f, pads[1]);
    p.ok = settle::<false>(p.data, tag_a);
    q.ok = settle::<false>(q.data, tag_b);
}

/// What of a packet is not yet sealed.
pub(super) struct Both<'a> {
    pub(super) circuit: Side<'a>,
    pub(super) link: Side<'a>,
}

/// One of the two seals.
pub(super) struct Side<'a> {
    pub(super) counters: Counters<'a>,
    /// What GHASH adds to the next vector: the AAD, later the hash so far. Byte-reversed.
    pub(super) hash: __m512i,
    /// The last block of GHASH, byte-reversed: the bits of AAD and text.
    pub(super) lengths: __m128i,
    /// What it encrypts.
    pub(super) text: Text,
}

impl<'a> Both<'a> {
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn new(
        (circuit, seal): Inner<'a, '_>,
        (link, packet): (&'a GcmKey, &mut Packet<'_>),
    ) -> Self {
        let texts = Text::nested(packet.data);
        Self {
            circuit: Side::new::<1>(circuit, &seal.nonce, &seal.aad, texts[0]),
            link: Side::new::<0>(link, &packet.nonce, &packet.aad, texts[1]),
        }
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
    pub(super) unsafe fn encrypt<const N: usize, const CALLER: usize>(
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

    /// Encrypts the last `N` vectors of the circuit's ciphertext and its tag for the link. Gives its
    /// ciphertext.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    pub(super) fn outer<const N: usize, const CALLER: usize>(
        &self,
        once: [__m512i; N],
        header: __m512i,
        tag: __m128i,
        stream: &[__m512i; N],
    ) -> [__m512i; N] {
        let tag = self.circuit.text.turn_to_end(tag);
        let mut cipher = once;
        for (vector, cipher) in cipher.iter_mut().enumerate() {
            let mut outer = _mm512_xor_si512(*cipher, stream[vector]);
            if vector == 0 {
                outer = _mm512_xor_si512(outer, header);
            }
            if vector + 2 >= N {
                let tag = self.circuit.text.beyond::<N>(vector, tag);
                outer = _mm512_xor_si512(outer, tag);
            }
            // SAFETY: there are as many vectors.
            *cipher = unsafe { self.link.text.store::<N>(vector, outer) };
        }
        cipher
    }

    /// As `outer`, of a packet with no other vectors. Gives the link's tag.
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
        let cipher = self.outer::<N, CALLER>(once, header, tag, stream);
        let mut sum = Sum::zero();
        for (vector, cipher) in cipher.into_iter().enumerate() {
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
    pub(super) fn advance<const N: usize>(&mut self) {
        self.text = self.text.after::<N>();
        self.counters = self.counters.after::<N>();
    }

    /// Adds one of the last `N` vectors of ciphertext to the sum, and the lengths if there is a lane.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn add_last<const N: usize, const FULL: bool>(
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
