//! Poly1305 (RFC 8439, section 2.5) of a group's packets.
//!
//! A lane has a packet, and takes a block of it at a time. A long packet gets all lanes for itself.

use std::arch::x86_64::*;

use super::{
    field::{Element, Factor},
    group::Job,
    stream::State,
    transpose,
};
use crate::aes_gcm::settle;

/// Packets at a time, or blocks of a long one.
const LANES: usize = 8;
/// Bytes of a block.
const BLOCK: usize = 16;
/// Texts of more bytes than this are long.
const LONG: usize = 512;

/// The lane that has block `n` of eight in a row, as unpacking two vectors places them.
const PLACES: [usize; LANES] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Which lanes have block `n` of eight in a row, or a later one.
const PLACES_FROM: [__mmask8; LANES] = {
    let mut places = [0; LANES];
    let (mut lanes, mut at) = (0, LANES);
    while at > 0 {
        at -= 1;
        lanes |= 1 << PLACES[at];
        places[at] = lanes;
    }
    places
};

/// The keys of Poly1305 of a group.
pub(super) struct OneTimeKeys([Half; 2]);

/// Of eight packets.
struct Half {
    /// What is multiplied by.
    r: Factor,
    /// What is added at the end.
    s: [__m512i; 2],
}

impl OneTimeKeys {
    /// From the first block of each packet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(state: &State) -> Self {
        let lower = |word: __m512i| _mm512_cvtepu32_epi64(_mm512_castsi512_si256(word));
        let upper = |word: __m512i| _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(word));
        let [r0, r1, r2, r3, s0, s1, s2, s3, ..] = *state;
        Self([
            Half::new([r0, r1, r2, r3].map(lower), [s0, s1, s2, s3].map(lower)),
            Half::new([r0, r1, r2, r3].map(upper), [s0, s1, s2, s3].map(upper)),
        ])
    }

    /// Puts the tags behind the texts, or compares them, wipes the texts with wrong ones, and says which are right.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma,avx512vl")]
    pub(super) fn settle<const OPEN: bool>(&self, jobs: &mut [Job<'_>]) {
        for (half, jobs) in self.0.iter().zip(jobs.chunks_mut(LANES)) {
            let tags = half.tags(jobs);
            for (job, tag) in jobs.iter_mut().zip(tags) {
                if job.ok {
                    job.ok = settle::<OPEN>(job.data, tag);
                }
            }
        }
    }
}

impl Half {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(r: [__m512i; 4], s: [__m512i; 4]) -> Self {
        let pair = |lower, upper| _mm512_or_si512(lower, _mm512_slli_epi64::<32>(upper));
        let clamp = |value, mask: u64| _mm512_and_si512(value, _mm512_set1_epi64(mask as i64));
        let r = [
            clamp(pair(r[0], r[1]), 0x0fff_fffc_0fff_ffff),
            clamp(pair(r[2], r[3]), 0x0fff_fffc_0fff_fffc),
        ];
        Self {
            r: Factor::new(Element::new(r)),
            s: [pair(s[0], s[1]), pair(s[2], s[3])],
        }
    }

    #[inline(never)]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
    fn tags(&self, jobs: &[Job<'_>]) -> [__m128i; LANES] {
        let texts = each(jobs, Job::text);
        let aads = each(jobs, |job| job.aad);
        let mut hash = self.absorb(Element::zero(), aads);
        let short = texts.map(|text| if text.len() > LONG { &[] } else { text });
        hash = self.absorb(hash, short);
        for (lane, text) in texts.iter().enumerate() {
            if text.len() > LONG {
                hash = hash.with(1 << lane, self.absorb_long(hash, lane, text));
            }
        }
        let lengths = [aads, texts].map(|parts| vector(&parts.map(|part| part.len() as u64)));
        let [lower, upper] = hash
            .plus(Element::of_block(lengths, !0))
            .times(&self.r)
            .finish(self.s);
        let (even, odd) = (
            _mm512_unpacklo_epi64(lower, upper),
            _mm512_unpackhi_epi64(lower, upper),
        );
        [
            _mm512_extracti32x4_epi32::<0>(even),
            _mm512_extracti32x4_epi32::<0>(odd),
            _mm512_extracti32x4_epi32::<1>(even),
            _mm512_extracti32x4_epi32::<1>(odd),
            _mm512_extracti32x4_epi32::<2>(even),
            _mm512_extracti32x4_epi32::<2>(odd),
            _mm512_extracti32x4_epi32::<3>(even),
            _mm512_extracti32x4_epi32::<3>(odd),
        ]
    }

    /// Adds texts, each with zeros up to whole blocks, to the hashes in their lanes.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
    fn absorb(&self, mut hash: Element, texts: [&[u8]; LANES]) -> Element {
        let counts = texts.map(|text| text.len().div_ceil(BLOCK) as u64);
        let end = counts.into_iter().max().unwrap_or(0);
        let counts = vector(&counts);
        for first in (0..end).step_by(4) {
            let words = transpose::long_words(texts.map(|text| {
                let at = BLOCK * first as usize;
                load(text, at as isize)
            }));
            for (block, number) in words.as_chunks::<2>().0.iter().zip(first..end) {
                let has = _mm512_cmpgt_epu64_mask(counts, _mm512_set1_epi64(number as i64));
                let sum = hash.plus(Element::of_block(*block, has));
                hash = hash.with(has, sum.times(&self.r));
            }
        }
        hash
    }

    /// As `absorb`, with one long text. Gives the hash in all lanes.
    ///
    /// Each lane has every eighth block and is multiplied by r^8 each time, at the last time by the power that is
    /// still missing. The last vector is whole; the first may begin before the text.
    #[inline(never)]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
    fn absorb_long(&self, hash: Element, lane: usize, text: &[u8]) -> Element {
        let square = |factor: &Factor| Factor::new(factor.element.times(factor));
        let r = Factor::new(self.r.element.spread(lane, !0));
        let r2 = square(&r);
        let r4 = square(&r2);
        let r8 = square(&r4);
        // From block 7, which takes r, down: the bits of what is to be added to that exponent.
        let last = r.element.with(0x33, r2.element);
        let last = last.with(0x0f, last.times(&r2));
        let last = last.with(0x55, last.times(&r4));

        let missing = text.len().div_ceil(BLOCK).wrapping_neg() % LANES;
        let mut has = PLACES_FROM[missing];
        let mut at = -((BLOCK * missing) as isize);
        let mut hash = hash.spread(lane, 1 << PLACES[missing]);
        loop {
            let (a, b) = (load(text, at), load(text, at + 64));
            let blocks = [_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)];
            hash = hash.plus(Element::of_block(blocks, has));
            has = !0;
            at += (BLOCK * LANES) as isize;
            if at >= text.len() as isize {
                return hash.times(&Factor::new(last)).total();
            }
            hash = hash.times(&r8);
        }
    }
}

/// A part of each packet, which is empty in lanes without one.
#[inline]
fn each<'j, 'a>(jobs: &'j [Job<'a>], part: impl Fn(&'j Job<'a>) -> &'j [u8]) -> [&'j [u8]; LANES] {
    std::array::from_fn(|at| jobs.get(at).map_or(&[][..], &part))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vector(words: &[u64; LANES]) -> __m512i {
    // SAFETY: there are eight words.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// 64 bytes of a text from one of them on, with zero for what is before or behind it.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
fn load(text: &[u8], at: isize) -> __m512i {
    let begin = (-at).clamp(0, 64) as u32;
    let end = (text.len() as isize - at).clamp(0, 64) as u32;
    let mask = _bzhi_u64(!0, end) & !_bzhi_u64(!0, begin);
    // SAFETY: the mask admits bytes of the text only, and no other is touched.
    unsafe { _mm512_maskz_loadu_epi8(mask, text.as_ptr().wrapping_offset(at).cast()) }
}
