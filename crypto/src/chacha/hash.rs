//! Poly1305 (RFC 8439, section 2.5) of a group's packets.
//!
//! A lane has a packet, and takes a block of it at a time: two vectors of lanes, as each waits for itself. A packet that
//! is much longer than the others gets all lanes of a vector for itself.

use std::arch::x86_64::*;

use super::{
    field::{Element, Factor, Sum},
    group::{Job, Lens},
    stream::State,
    transpose,
};
use crate::aes_gcm::settle;

/// Packets of a vector, or blocks of a long one.
pub(super) const LANES: usize = 8;
/// Bytes of a block.
const BLOCK: usize = 16;

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
pub(super) struct OneTimeKeys {
    /// What is multiplied by.
    r: [Factor; 2],
    /// What is added at the end.
    s: [[__m512i; 2]; 2],
}

impl OneTimeKeys {
    /// From the first block of each packet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(state: &State) -> Self {
        let [r0, r1, r2, r3, s0, s1, s2, s3, ..] = *state;
        let [r_lower, r_upper] = [pairs(r0, r1), pairs(r2, r3)];
        let [s_lower, s_upper] = [pairs(s0, s1), pairs(s2, s3)];
        let clamp = |value, mask: u64| _mm512_and_si512(value, _mm512_set1_epi64(mask as i64));
        Self {
            r: [0, 1].map(|half| {
                Factor::new(Element::new([
                    clamp(r_lower[half], 0x0fff_fffc_0fff_ffff),
                    clamp(r_upper[half], 0x0fff_fffc_0fff_fffc),
                ]))
            }),
            s: [0, 1].map(|half| [s_lower[half], s_upper[half]]),
        }
    }

    /// Puts the tags behind the texts, or compares them, wipes the texts with wrong ones, and says which are right.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma,avx512vl")]
    pub(super) fn settle<const OPEN: bool>(&self, jobs: &mut [Job<'_>], lens: &Lens) {
        let mut tags = [[_mm512_setzero_si512(); 2]; 2];
        if jobs.len() > LANES {
            self.tags::<2>(jobs, lens, &mut tags);
        } else {
            self.tags::<1>(jobs, lens, &mut tags);
        }
        for (at, job) in jobs.iter_mut().enumerate() {
            let of = &tags[at / LANES][at % 2];
            // SAFETY: a vector has four blocks.
            let tag = unsafe {
                _mm_loadu_si128(
                    std::ptr::from_ref(of)
                        .cast::<__m128i>()
                        .wrapping_add(at % LANES / 2),
                )
            };
            if job.ok {
                job.ok = settle::<OPEN>(job.data, tag);
            }
        }
    }

    /// The tags of `H` vectors of packets: of those in even lanes and of those in odd ones.
    #[inline(never)]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
    fn tags<const H: usize>(&self, jobs: &[Job<'_>], lens: &Lens, tags: &mut [[__m512i; 2]; 2]) {
        let (aads, texts, long) = (lens.aads(), lens.texts(), lens.long());
        let is_long = |at: usize| long[at / LANES] >> (at % LANES) & 1 == 1;
        let mut hash = [Element::zero(); H];
        self.absorb(&mut hash, &each(jobs, |_, job| job.aad), aads);
        let short = each(jobs, |at, job| if is_long(at) { &[] } else { job.text() });
        let short_lens =
            std::array::from_fn(|half| _mm512_maskz_mov_epi64(!long[half], texts[half]));
        self.absorb(&mut hash, &short, short_lens);
        if long != [0; 2] {
            for (at, job) in jobs.iter().enumerate().filter(|&(at, _)| is_long(at)) {
                let (half, lane) = (at / LANES, at % LANES);
                let long = absorb_long(&self.r[half].element, &hash[half], lane, job.text());
                hash[half] = hash[half].with(1 << lane, long);
            }
        }
        for half in 0..H {
            let lengths = Element::of_block([aads[half], texts[half]], !0);
            let sum = hash[half].plus(lengths).times(&self.r[half]);
            let [lower, upper] = sum.finish(self.s[half]);
            tags[half] = [
                _mm512_unpacklo_epi64(lower, upper),
                _mm512_unpackhi_epi64(lower, upper),
            ];
        }
    }

    /// Adds texts, each with zeros up to whole blocks, to the hashes in their lanes.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
    fn absorb<const H: usize>(
        &self,
        hash: &mut [Element; H],
        texts: &[[&[u8]; LANES]; H],
        lens: [__m512i; 2],
    ) {
        let lengths = texts.as_flattened().iter().map(|text| text.len());
        let longest = lengths.max().unwrap_or(0);
        for first in (0..longest).step_by(4 * BLOCK) {
            let words: [_; H] = std::array::from_fn(|half| {
                transpose::long_words(texts[half].map(|text| load(text, first)))
            });
            for block in 0..4 {
                let at = first + BLOCK * block;
                if at >= longest {
                    break;
                }
                for half in 0..H {
                    let has = _mm512_cmpgt_epu64_mask(lens[half], _mm512_set1_epi64(at as i64));
                    let block = [words[half][2 * block], words[half][2 * block + 1]];
                    let sum = hash[half].plus(Element::of_block(block, has));
                    hash[half] = hash[half].with(has, sum.times(&self.r[half]));
                }
            }
        }
    }
}

/// Adds a long text to the hash in a lane, and gives the new hash in all lanes.
///
/// Each lane has every eighth block and is multiplied by r^8 each time, at the last time by the power that is
/// still missing. The last vector is whole; the first may begin before the text.
#[inline(never)]
#[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma")]
fn absorb_long(r: &Element, hash: &Element, lane: usize, text: &[u8]) -> Element {
    let square = |factor: &Factor| Factor::new(factor.element.times(factor));
    let r = Factor::new(r.spread(lane, !0));
    let r2 = square(&r);
    let r4 = square(&r2);
    let r8 = square(&r4);
    let r16 = square(&r8);
    // From block 7, which takes r, down: the bits of what is to be added to that exponent.
    let last = r.element.with(0x33, r2.element);
    let last = last.with(0x0f, last.times(&r2));
    let last = last.with(0x55, last.times(&r4));

    let missing = text.len().div_ceil(BLOCK).wrapping_neg() % LANES;
    let mut vectors = text.len().div_ceil(BLOCK * LANES);
    let mut has = PLACES_FROM[missing];
    let mut at = -((BLOCK * missing) as isize);
    let mut next = || {
        let (a, b) = (load_from(text, at), load_from(text, at + 64));
        let blocks = [_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)];
        let element = Element::of_block(blocks, has);
        at += (BLOCK * LANES) as isize;
        has = !0;
        element
    };
    let mut hash = hash.spread(lane, 1 << PLACES[missing]);
    while vectors > 2 {
        let mut sum = Sum::zero();
        sum.add(hash.plus(next()), &r16);
        sum.add(next(), &r8);
        hash = sum.reduce();
        vectors -= 2;
    }
    if vectors == 2 {
        hash = hash.plus(next()).times(&r8);
    }
    hash.plus(next()).times(&Factor::new(last)).total()
}

/// Two words of 32 bits each in one of 64: of the first eight lanes, and of the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(lower: __m512i, upper: __m512i) -> [__m512i; 2] {
    let first = |words| _mm512_cvtepu32_epi64(_mm512_castsi512_si256(words));
    let other = |words| _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(words));
    let pair = |lower, upper| _mm512_or_si512(lower, _mm512_slli_epi64::<32>(upper));
    [
        pair(first(lower), first(upper)),
        pair(other(lower), other(upper)),
    ]
}

/// A part of each packet. Where there is none, it is somewhere in memory all the same: a load that admits no byte takes
/// long where no page is.
#[inline(always)]
fn each<'j, 'a, const H: usize>(
    jobs: &'j [Job<'a>],
    part: impl Fn(usize, &'j Job<'a>) -> &'j [u8],
) -> [[&'j [u8]; LANES]; H] {
    std::array::from_fn(|half| {
        std::array::from_fn(|lane| {
            let at = LANES * half + lane;
            let part = jobs.get(at).map_or(&[][..], |job| part(at, job));
            let nothing = &jobs[0].nonce[..0];
            if part.is_empty() { nothing } else { part }
        })
    })
}

/// 64 bytes of a text from one of them on, with zero for what is behind it.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
fn load(text: &[u8], at: usize) -> __m512i {
    let rest = text.get(at..).unwrap_or(&text[text.len()..]);
    let mask = _bzhi_u64(!0, rest.len().min(64) as u32);
    // SAFETY: the mask admits bytes of the text only, and no other is touched.
    unsafe { _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()) }
}

/// As `load`, from a place that may be before the text, with zero for what is there.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
fn load_from(text: &[u8], at: isize) -> __m512i {
    let begin = (-at).clamp(0, 64) as u32;
    let end = (text.len() as isize - at).clamp(0, 64) as u32;
    let mask = _bzhi_u64(!0, end) & !_bzhi_u64(!0, begin);
    // SAFETY: as above.
    unsafe { _mm512_maskz_loadu_epi8(mask, text.as_ptr().wrapping_offset(at).cast()) }
}
