//! From a batch to pairs of packets alike.

use super::{
    GcmKey, avx2,
    avx512::{self, MAX_TEXT},
    clear::clear,
    cpu::Form,
    double, double_long,
    long::long,
    tail::Tail,
    text::{LANES, VECTOR},
};
use crate::{HEADER_LEN, Nonce, Packet, Seal, TAG_LEN, aead::inside};

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
    fn clear(&self) {
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

/// A packet with the key of its seal, or of its outer one.
///
/// Two words, and so are [`Inner`]: functions take and give them in registers. An array of references goes
/// through memory, is written in words and read in vectors soon after, and the CPU waits for all that went before.
pub(super) type Outer<'p, 'a> = (&'p GcmKey, &'p mut Packet<'a>);
/// The inner seal of a packet with its key.
pub(super) type Inner<'p, 'a> = (&'p GcmKey, &'p Seal<'a>);

/// Seals or opens the packets that are pushed, the last of them in `finish`.
pub(crate) struct Batch<'p, 'a, const OPEN: bool> {
    /// For each kind, a packet that waits for another.
    waiting: [Option<Outer<'p, 'a>>; KINDS],
    /// Of the longer packets.
    tail: Tail<'p>,
    used: Used,
}

impl<'p, 'a, const OPEN: bool> Batch<'p, 'a, OPEN> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; KINDS],
            tail: Tail::new(),
            used: Used::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, key: &'p GcmKey, packet: &'p mut Packet<'a>) {
        self.used.note(key);
        let len = packet.data.len();
        if !(TAG_LEN..=MAX_VECTORS * VECTOR).contains(&len) || key.form() != Form::Vaes512 {
            self.alone(key, packet);
            return;
        }
        let kind = Kind::of(len, key);
        let b = (key, packet);
        let Some(a) = self.waiting[kind.number].take() else {
            self.waiting[kind.number] = Some(b);
            return;
        };
        // SAFETY: there are keys of this form, so the CPU has the features.
        unsafe {
            match (kind.vectors, kind.full) {
                (1, false) => avx512::pair::<OPEN, 1, false>(a, b),
                (1, true) => avx512::pair::<OPEN, 1, true>(a, b),
                (2, false) => avx512::pair::<OPEN, 2, false>(a, b),
                (2, true) => avx512::pair::<OPEN, 2, true>(a, b),
                (3, false) => avx512::pair::<OPEN, 3, false>(a, b),
                (3, true) => avx512::pair::<OPEN, 3, true>(a, b),
                (_, false) => avx512::pair::<OPEN, 4, false>(a, b),
                (_, true) => avx512::pair::<OPEN, 4, true>(a, b),
            }
        }
    }

    /// Seals or opens what makes no pair. A call of its own, so that short packets do not pay for its arguments.
    #[inline(never)]
    fn alone(&mut self, key: &'p GcmKey, packet: &'p mut Packet<'a>) {
        let sizes = MAX_VECTORS * VECTOR + 1..=MAX_TEXT + TAG_LEN;
        if OPEN || key.form() != Form::Vaes512 || !sizes.contains(&packet.data.len()) {
            one::<OPEN>(key, packet);
            return;
        }
        let Packet {
            nonce,
            aad,
            data,
            ok,
            ..
        } = packet;
        // SAFETY: there are keys of this form, so the CPU has the features.
        unsafe { long(key, nonce, aad, data, ok, &mut self.tail) };
    }

    /// What found no other, and what waits for its tag. It is not moved: nothing of it must be left behind.
    #[inline]
    pub(crate) fn finish(&mut self) {
        for waiting in &mut self.waiting {
            if let Some((key, packet)) = waiting.take() {
                one::<OPEN>(key, packet);
            }
        }
        if self.used.0 == Some(Form::Vaes512) {
            // SAFETY: a key of this form was used, so the CPU has the features.
            unsafe { self.tail.finish() };
        }
        self.used.clear();
    }
}

/// Gives one seal or both to the packets that are pushed, to the last of them in `finish`.
pub(crate) struct Layers<'p, 'a> {
    once: Batch<'p, 'a, false>,
    /// For each kind, a packet for both that waits for another.
    waiting: [Option<(Inner<'p, 'a>, Outer<'p, 'a>)>; KINDS],
}

impl<'p, 'a> Layers<'p, 'a> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            once: Batch::new(),
            waiting: [const { None }; KINDS],
        }
    }

    /// A packet for one seal.
    #[inline]
    pub(crate) fn push_one(&mut self, key: &'p GcmKey, packet: &'p mut Packet<'a>) {
        self.once.push(key, packet);
    }

    /// A packet for both.
    #[inline]
    pub(crate) fn push_two(&mut self, circuit: Inner<'p, 'a>, link: Outer<'p, 'a>) {
        self.once.used.note(circuit.0);
        self.once.used.note(link.0);
        let len = link.1.data.len();
        if !(HEADER_LEN + 2 * TAG_LEN..=MAX_TEXT).contains(&len)
            || circuit.0.is_long() != link.0.is_long()
            || circuit.0.form() != Form::Vaes512
            || link.0.form() != Form::Vaes512
        {
            one_by_one(circuit, link);
            return;
        }
        if len > MAX_VECTORS * VECTOR {
            // SAFETY: there are keys of this form, so the CPU has the features.
            unsafe { double_long::long(circuit, link, &mut self.once.tail) };
            return;
        }
        let kind = Kind::of(len, link.0);
        let Some((c, a)) = self.waiting[kind.number].take() else {
            self.waiting[kind.number] = Some((circuit, link));
            return;
        };
        let (d, b) = (circuit, link);
        // SAFETY: there are keys of this form, so the CPU has the features.
        unsafe {
            match (kind.vectors, kind.full) {
                (1, false) => double::pair::<1, false>(c, a, d, b),
                (1, true) => double::pair::<1, true>(c, a, d, b),
                (2, false) => double::pair::<2, false>(c, a, d, b),
                (2, true) => double::pair::<2, true>(c, a, d, b),
                (3, false) => double::pair::<3, false>(c, a, d, b),
                (3, true) => double::pair::<3, true>(c, a, d, b),
                (_, false) => double::pair::<4, false>(c, a, d, b),
                (_, true) => double::pair::<4, true>(c, a, d, b),
            }
        }
    }

    #[inline]
    pub(crate) fn finish(&mut self) {
        for waiting in &mut self.waiting {
            if let Some((circuit, link)) = waiting.take() {
                two(circuit, link);
            }
        }
        self.once.finish();
    }
}

#[inline]
fn two(circuit: Inner<'_, '_>, link: Outer<'_, '_>) {
    // SAFETY: there are keys of this form, so the CPU has the features.
    unsafe { double::one(circuit, link) }
}

/// Makes one seal after the other, with keys of different sizes or forms.
fn one_by_one((key, seal): Inner<'_, '_>, (outer, packet): Outer<'_, '_>) {
    let inner = inside(packet.data);
    packet.ok = inner.is_some_and(|text| key.one::<false>(&seal.nonce, &seal.aad, text))
        && outer.one::<false>(&packet.nonce, &packet.aad, packet.data);
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
