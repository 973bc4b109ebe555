//! From a batch to pairs of packets alike.

use super::{
    GcmKey,
    avx512::{self, MAX_TEXT},
    text::{LANES, VECTOR},
};
use crate::{Nonce, Packet, TAG_LEN};

/// Vectors of the longest packets that are paired; longer ones fill the CPU alone.
const MAX_VECTORS: usize = 4;
/// Kinds of packets that may make a pair: as many vectors, a lane left or not, keys of one size.
const KINDS: usize = 4 * MAX_VECTORS;

/// Seals or opens the packets that are pushed, the last of them in `finish`.
pub(crate) struct Batch<'p, 'a, const OPEN: bool> {
    /// For each kind, a packet that waits for another.
    waiting: [Option<(&'a GcmKey, &'p mut Packet<'a>)>; KINDS],
}

impl<'p, 'a, const OPEN: bool> Batch<'p, 'a, OPEN> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; KINDS],
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, key: &'a GcmKey, packet: &'p mut Packet<'a>) {
        let len = packet.data.len();
        if !(TAG_LEN..=MAX_VECTORS * VECTOR).contains(&len) {
            one::<OPEN>(key, packet);
            return;
        }
        // The first lane is not text, but as long as the tag.
        let lanes = len.div_ceil(16);
        let (vectors, full) = (lanes.div_ceil(LANES), lanes.is_multiple_of(LANES));
        let kind = 4 * (vectors - 1) + 2 * usize::from(full) + usize::from(key.is_long());
        let Some((other_key, other)) = self.waiting[kind].take() else {
            self.waiting[kind] = Some((key, packet));
            return;
        };
        let keys = [other_key, key];
        let pair = [other, packet];
        // SAFETY: there are keys, so the CPU has the features.
        unsafe {
            match (vectors, full) {
                (1, false) => avx512::pair::<OPEN, 1, false>(keys, pair),
                (1, true) => avx512::pair::<OPEN, 1, true>(keys, pair),
                (2, false) => avx512::pair::<OPEN, 2, false>(keys, pair),
                (2, true) => avx512::pair::<OPEN, 2, true>(keys, pair),
                (3, false) => avx512::pair::<OPEN, 3, false>(keys, pair),
                (3, true) => avx512::pair::<OPEN, 3, true>(keys, pair),
                (_, false) => avx512::pair::<OPEN, 4, false>(keys, pair),
                (_, true) => avx512::pair::<OPEN, 4, true>(keys, pair),
            }
        }
    }

    /// What found no other.
    #[inline]
    pub(crate) fn finish(self) {
        for (key, packet) in self.waiting.into_iter().flatten() {
            one::<OPEN>(key, packet);
        }
    }
}

#[inline]
fn one<const OPEN: bool>(key: &GcmKey, packet: &mut Packet<'_>) {
    packet.ok = key.one::<OPEN>(&packet.nonce, &packet.aad, packet.data);
}

impl GcmKey {
    /// As [`Key::seal_one`](crate::Key::seal_one).
    #[inline]
    pub(crate) fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        self.one::<false>(nonce, aad, data)
    }

    /// As [`Key::open_one`](crate::Key::open_one).
    #[inline]
    pub(crate) fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        self.one::<true>(nonce, aad, data)
    }

    #[inline]
    fn one<const OPEN: bool>(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        (TAG_LEN..=MAX_TEXT + TAG_LEN).contains(&data.len())
            // SAFETY: there is a key, so the CPU has the features.
            && unsafe { avx512::one::<OPEN>(self, nonce, aad, data) }
    }
}
