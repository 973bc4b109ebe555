//! A group of packets, of any keys and lengths.
//!
//! The first block of each gives the one-time key of its Poly1305; the others are added to its text. They take the
//! lanes in this order: all first blocks, then the blocks of the first text, of the second and so on.

use std::{arch::x86_64::*, ops::Range};

use super::{
    hash::OneTimeKeys,
    key::ChaChaKey,
    stream::{BLOCK, Inputs, LANES, Lanes, State},
    transpose,
};
use crate::{Nonce, TAG_LEN};

/// The longest text, in bytes: the block counter has 32 bits and starts at 1.
pub(super) const MAX_TEXT: usize = ((1 << 32) - 1) * BLOCK;

/// Texts of fewer bytes are never long to Poly1305.
const MIN_LONG: usize = 256;

/// A packet to seal or to open.
pub(super) struct Job<'a> {
    pub(super) key: &'a [u8; 32],
    pub(super) nonce: &'a Nonce,
    pub(super) aad: &'a [u8],
    pub(super) data: &'a mut [u8],
    /// Whether there is something to do; then, as [`Packet`](crate::Packet) has it.
    pub(super) ok: bool,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        key: &'a ChaChaKey,
        nonce: &'a Nonce,
        aad: &'a [u8],
        data: &'a mut [u8],
    ) -> Self {
        Self {
            key: key.words(),
            nonce,
            aad,
            ok: (TAG_LEN..=MAX_TEXT + TAG_LEN).contains(&data.len()),
            data,
        }
    }

    /// No packet, which is not `ok`.
    pub(super) const fn none() -> Self {
        Self {
            key: &[0; 32],
            nonce: &[0; 12],
            aad: &[],
            data: &mut [],
            ok: false,
        }
    }

    /// What is before the tag, if there is something to do.
    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        let len = if self.ok {
            self.data.len() - TAG_LEN
        } else {
            0
        };
        &self.data[..len]
    }
}

/// What the packets of a group have of bytes, as vectors.
///
/// It is written well before it is read: a vector that was written as words just before waits for all that the CPU is
/// still at.
#[repr(C, align(64))]
pub(super) struct Lens {
    aads: [u64; LANES],
    texts: [u64; LANES],
    /// Texts of more bytes are much longer than the others.
    long: u64,
}

impl Lens {
    #[inline(always)]
    fn new(jobs: &[Job<'_>]) -> Self {
        let mut lens = Self {
            aads: [0; LANES],
            texts: [0; LANES],
            long: 0,
        };
        let mut total = 0;
        for (at, job) in jobs.iter().enumerate() {
            lens.aads[at] = job.aad.len() as u64;
            lens.texts[at] = job.text().len() as u64;
            total += job.text().len();
        }
        // With half as much again as all lanes have on average, the others would wait for it.
        lens.long = (total * 3 / 2 / LANES).max(MIN_LONG) as u64;
        lens
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn aads(&self) -> [__m512i; 2] {
        vectors(&self.aads)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn texts(&self) -> [__m512i; 2] {
        vectors(&self.texts)
    }

    /// A bit for each packet that is much longer than the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn long(&self) -> [__mmask8; 2] {
        let long = _mm512_set1_epi64(self.long as i64);
        self.texts()
            .map(|texts| _mm512_cmpgt_epu64_mask(texts, long))
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vectors(words: &[u64; LANES]) -> [__m512i; 2] {
    // SAFETY: there are twice eight words.
    unsafe {
        [
            _mm512_loadu_si512(words.as_ptr().cast()),
            _mm512_loadu_si512(words[8..].as_ptr().cast()),
        ]
    }
}

/// Seals or opens up to [`LANES`] packets.
#[target_feature(enable = "bmi2,avx512f,avx512bw,avx512ifma,avx512vl")]
pub(super) fn run<const OPEN: bool>(jobs: &mut [Job<'_>]) {
    let lens = Lens::new(jobs);
    let (mut lanes, mut next) = (&mut Lanes::default(), &mut Lanes::default());
    for (packet, number) in lanes.packets.iter_mut().zip(0..jobs.len() as u32) {
        *packet = number;
    }
    let mut texts = Texts::default();
    let mut used = jobs.len()..texts.fill(lanes, jobs.len(), jobs);
    let inputs = Inputs::new(jobs);
    let mut state = [_mm512_setzero_si512(); 16];
    inputs.blocks(lanes, &mut state);
    let keys = OneTimeKeys::new(&state);
    if OPEN {
        keys.settle::<OPEN>(jobs, &lens);
    }
    loop {
        // Before what follows, for the same reason as `Lens`.
        let end = texts.fill(next, 0, jobs);
        add(jobs, lanes, used, &state);
        if end == 0 {
            break;
        }
        (lanes, next, used) = (next, lanes, 0..end);
        inputs.blocks(lanes, &mut state);
    }
    if !OPEN {
        keys.settle::<OPEN>(jobs, &lens);
    }
}

/// Where the next lane's block is.
#[derive(Default)]
struct Texts {
    packet: usize,
    /// Blocks before it in its packet.
    block: usize,
}

impl Texts {
    /// Gives the lanes from one of them on to the next blocks, and says where the lanes that have one end.
    #[inline]
    fn fill(&mut self, lanes: &mut Lanes, from: usize, jobs: &[Job<'_>]) -> usize {
        let mut lane = from;
        while lane < LANES
            && let Some(job) = jobs.get(self.packet)
        {
            let blocks = job.text().len().div_ceil(BLOCK);
            while lane < LANES && self.block < blocks {
                self.block += 1;
                lanes.packets[lane] = self.packet as u32;
                lanes.counters[lane] = self.block as u32;
                lane += 1;
            }
            // It has fewer if it did not open since.
            if self.block >= blocks {
                self.packet += 1;
                self.block = 0;
            }
        }
        lane
    }
}

/// Adds the blocks in these lanes to their texts.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
fn add(jobs: &mut [Job<'_>], lanes: &Lanes, used: Range<usize>, state: &State) {
    if used.is_empty() {
        return;
    }
    let blocks = transpose::words(*state);
    let mut lane = used.start;
    while lane < used.end {
        let job = &mut jobs[lanes.packets[lane] as usize];
        let mut at = BLOCK * (lanes.counters[lane] as usize - 1);
        let len = job.text().len();
        let text = &mut job.data[..len];
        // Nothing is left where a packet that does not open had lanes.
        lane += usize::from(at >= len);
        while at < len && lane < used.end {
            let mask = _bzhi_u64(!0, (len - at).min(BLOCK) as u32);
            let place = text.as_mut_ptr().wrapping_add(at);
            // SAFETY: the mask admits bytes of the text only, and no other is touched.
            unsafe {
                let before = _mm512_maskz_loadu_epi8(mask, place.cast_const().cast());
                let after = _mm512_xor_si512(before, blocks[lane]);
                _mm512_mask_storeu_epi8(place.cast(), mask, after);
            }
            at += BLOCK;
            lane += 1;
        }
    }
}
