//! From a batch to pairs of packets alike.

use super::{
    GcmKey, avx2,
    avx512::{self, MAX_TEXT},
    clear::clear,
    cpu::Form,
    double,
    text::{LANES, VECTOR},
};
use crate::{Double, HEADER_LEN, Nonce, Packet, TAG_LEN};

/// Vectors of the longest packets that are paired; longer ones fill the CPU alone.
const MAX_VECTORS: usize = 4;
/// Kinds of packets that may make a pair: as many vectors, a lane left or not, keys of one size.
const KINDS: usize = 4 * MAX_VECTORS;

/// The form that has left something to clear.
#[derive(Default)]
struct Used(Option<Form>);

impl Used {
    #[inline]
    fn note(&mut self, key: &GcmKey) {
        // What the wide form uses includes what the narrow one does.
        if self.0 != Some(Form::Vaes512) {
            self.0 = Some(key.form());
        }
    }

    #[inline]
    fn clear(self) {
        if let Some(form) = self.0 {
            clear(form);
        }
    }
}

/// What must be the same in a pair.
struct Kind {
    /// Vectors, the first lane among them.
    vectors: usize,
    /// Whether the last one has no lane left.
    full: bool,
    /// Below [`KINDS`].
    number: usize,
}

impl Kind {
    /// Of data of at most [`MAX_VECTORS`].
    #[inline]
    fn of(len: usize, key: &GcmKey) -> Self {
        // The first lane is not text, but as long as the tag.
        let lanes = len.div_ceil(16);
        let (vectors, full) = (lanes.div_ceil(LANES), lanes.is_multiple_of(LANES));
        Self {
            vectors,
            full,
            number: 4 * (vectors - 1) + 2 * usize::from(full) + usize::from(key.is_long()),
        }
    }
}

/// Seals or opens the packets that are pushed, the last of them in `finish`.
pub(crate) struct Batch<'p, 'a, const OPEN: bool> {
    /// For each kind, a packet that waits for another.
    waiting: [Option<(&'a GcmKey, &'p mut Packet<'a>)>; KINDS],
    used: Used,
}

impl<'p, 'a, const OPEN: bool> Batch<'p, 'a, OPEN> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; KINDS],
            used: Used::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, key: &'a GcmKey, packet: &'p mut Packet<'a>) {
        self.used.note(key);
        let len = packet.data.len();
        if !(TAG_LEN..=MAX_VECTORS * VECTOR).contains(&len) || key.form() != Form::Vaes512 {
            one::<OPEN>(key, packet);
            return;
        }
        let kind = Kind::of(len, key);
        let Some((other_key, other)) = self.waiting[kind.number].take() else {
            self.waiting[kind.number] = Some((key, packet));
            return;
        };
        let keys = [other_key, key];
        let pair = [other, packet];
        // SAFETY: there are keys of this form, so the CPU has the features.
        unsafe {
            match (kind.vectors, kind.full) {
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
        self.used.clear();
    }
}

/// Gives both seals to the packets that are pushed, the last of them in `finish`.
pub(crate) struct Doubles<'p, 'a> {
    /// For each kind, a packet that waits for another.
    waiting: [Option<([&'a GcmKey; 2], &'p mut Double<'a>)>; KINDS],
    used: Used,
}

impl<'p, 'a> Doubles<'p, 'a> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; KINDS],
            used: Used::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, keys: [&'a GcmKey; 2], packet: &'p mut Double<'a>) {
        for key in keys {
            self.used.note(key);
        }
        let len = packet.data.len();
        if !(HEADER_LEN + 2 * TAG_LEN..=MAX_TEXT).contains(&len)
            || keys[0].is_long() != keys[1].is_long()
            || keys.iter().any(|key| key.form() != Form::Vaes512)
        {
            one_by_one(keys, packet);
            return;
        }
        if len > MAX_VECTORS * VECTOR {
            double_one(keys, packet);
            return;
        }
        let kind = Kind::of(len, keys[0]);
        let Some((other_keys, other)) = self.waiting[kind.number].take() else {
            self.waiting[kind.number] = Some((keys, packet));
            return;
        };
        let keys = [other_keys, keys];
        let pair = [other, packet];
        // SAFETY: there are keys of this form, so the CPU has the features.
        unsafe {
            match (kind.vectors, kind.full) {
                (1, false) => double::pair::<1, false>(keys, pair),
                (1, true) => double::pair::<1, true>(keys, pair),
                (2, false) => double::pair::<2, false>(keys, pair),
                (2, true) => double::pair::<2, true>(keys, pair),
                (3, false) => double::pair::<3, false>(keys, pair),
                (3, true) => double::pair::<3, true>(keys, pair),
                (_, false) => double::pair::<4, false>(keys, pair),
                (_, true) => double::pair::<4, true>(keys, pair),
            }
        }
    }

    #[inline]
    pub(crate) fn finish(self) {
        for (keys, packet) in self.waiting.into_iter().flatten() {
            double_one(keys, packet);
        }
        self.used.clear();
    }
}

#[inline]
fn double_one(keys: [&GcmKey; 2], packet: &mut Double<'_>) {
    // SAFETY: there are keys of this form, so the CPU has the features.
    unsafe { double::one(keys, packet) }
}

/// Makes one seal after the other, with keys of different sizes or forms.
fn one_by_one([circuit, link]: [&GcmKey; 2], packet: &mut Double<'_>) {
    let inner = packet.inner();
    packet.ok = inner
        .is_some_and(|(seal, text)| circuit.one::<false>(&seal.nonce, &seal.aad, text))
        && link.one::<false>(&packet.link.nonce, &packet.link.aad, packet.data);
}

#[inline]
fn one<const OPEN: bool>(key: &GcmKey, packet: &mut Packet<'_>) {
    packet.ok = key.one::<OPEN>(&packet.nonce, &packet.aad, packet.data);
}

impl GcmKey {
    /// As [`Key::seal_one`](crate::Key::seal_one).
    #[inline]
    pub(crate) fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        let ok = self.one::<false>(nonce, aad, data);
        clear(self.form());
        ok
    }

    /// As [`Key::open_one`](crate::Key::open_one).
    #[inline]
    pub(crate) fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        let ok = self.one::<true>(nonce, aad, data);
        clear(self.form());
        ok
    }

    #[inline]
    fn one<const OPEN: bool>(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        (TAG_LEN..=MAX_TEXT + TAG_LEN).contains(&data.len())
            && match self.form() {
                // SAFETY: there is a key of this form, so the CPU has the features.
                Form::Vaes512 => unsafe { avx512::one::<OPEN>(self, nonce, aad, data) },
                // SAFETY: as above.
                Form::Vaes256 => unsafe { avx2::one::<OPEN>(self, nonce, aad, data) },
            }
    }
}
