//! Both seals of a longer packet: see [`double`](super::double).
//!
//! A step has two phases. While AES makes the circuit's key stream, the link's ciphertext of the step before is hashed;
//! while it makes the link's, the circuit's ciphertext of this step is. With the circuit's first key stream, the [`Tail`]
//! of another packet is.

use std::arch::x86_64::*;

use super::{
    batch::{Inner, Outer},
    double::Both,
    ghash::{self, Sum},
    long::{LAST, STEP, Step, WHOLE, hash_share},
    stream::{AES_128, AES_256, align_frame, none, share, slots, stream},
    tail::{Place, Tail},
    text::VECTOR,
};

/// Seals a packet of more than four vectors. It gets its tag with the next one, or in [`Tail::finish`].
#[inline]
#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
pub(super) fn long<'p>(circuit: Inner<'p, '_>, link: Outer<'p, '_>, tail: &mut Tail<'p>) {
    match link.0.is_long() {
        false => steps::<AES_128>(circuit, link, tail),
        true => steps::<AES_256>(circuit, link, tail),
    }
}

#[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
fn steps<'p, const ROUNDS: usize>(
    circuit: Inner<'p, '_>,
    (key, packet): Outer<'p, '_>,
    tail: &mut Tail<'p>,
) {
    align_frame();
    let mut long = Long::<ROUNDS>(Both::new(circuit, (key, &mut *packet)));
    let place: Place<'p> = (packet.data, &mut packet.ok);
    if long.0.link.text.left() <= LAST {
        return match long.0.link.text.left().div_ceil(VECTOR) {
            ..=5 => long.only::<5>(place, tail),
            6 => long.only::<6>(place, tail),
            7 => long.only::<7>(place, tail),
            8 => long.only::<8>(place, tail),
            _ => long.only::<9>(place, tail),
        };
    }
    let circuit = tail.stream::<STEP, ROUNDS, 2>(&long.0.circuit.counters, |_| none());
    let pad = _mm512_extracti32x4_epi32::<1>(circuit[0]);
    let (mut cipher, link_pad) = long.step::<0>(circuit);
    while long.0.link.text.left() > LAST {
        let circuit = long.circuit_stream::<STEP, 0>(&cipher);
        (cipher, _) = long.step::<1>(circuit);
    }
    let pads = [pad, link_pad];
    match long.0.link.text.left().div_ceil(VECTOR) {
        ..=1 => long.end::<1>(place, pads, &cipher, tail),
        2 => long.end::<2>(place, pads, &cipher, tail),
        3 => long.end::<3>(place, pads, &cipher, tail),
        4 => long.end::<4>(place, pads, &cipher, tail),
        5 => long.end::<5>(place, pads, &cipher, tail),
        6 => long.end::<6>(place, pads, &cipher, tail),
        7 => long.end::<7>(place, pads, &cipher, tail),
        8 => long.end::<8>(place, pads, &cipher, tail),
        _ => long.end::<9>(place, pads, &cipher, tail),
    }
}

/// What of a longer packet is not yet sealed. Every caller has a number, so that all is inlined.
struct Long<'p, const ROUNDS: usize>(Both<'p>);

impl<'p, const ROUNDS: usize> Long<'p, ROUNDS> {
    /// Seals a packet of `N` vectors.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    fn only<const N: usize>(self, place: Place<'p>, tail: &mut Tail<'p>) {
        let circuit = tail.stream::<N, ROUNDS, 3>(&self.0.circuit.counters, |_| none());
        self.last::<N, 3>(place, circuit, None, tail);
    }

    /// Seals the `N` vectors after the steps, of which the last is not hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    fn end<const N: usize>(
        mut self,
        place: Place<'p>,
        pads: [__m128i; 2],
        behind: &Step,
        tail: &mut Tail<'p>,
    ) {
        let circuit = self.circuit_stream::<N, 1>(behind);
        self.last::<N, 4>(place, circuit, Some(pads), tail);
    }

    /// Makes `N` vectors of the circuit's key stream, while a step of the link's ciphertext is hashed.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn circuit_stream<const N: usize, const CALLER: usize>(
        &mut self,
        behind: &Step,
    ) -> [__m512i; N] {
        let Both { circuit, link } = &mut self.0;
        let mut sum = Sum::zero();
        let stream = stream::<N, ROUNDS>(
            &circuit.counters,
            |slot| {
                hash_share::<ROUNDS>(&mut sum, slot, behind, link.hash, link.counters.key);
            },
            |_| none(),
        );
        link.hash = _mm512_zextsi128_si512(sum.reduce());
        stream
    }

    /// Encrypts a whole step, by the circuit's key stream and then by the link's, which is made while
    /// the circuit's ciphertext is hashed. Gives the link's ciphertext, not yet hashed, and the first
    /// lane of its key stream.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn step<const CALLER: usize>(&mut self, circuit_stream: Step) -> (Step, __m128i) {
        let Both { circuit, link } = &mut self.0;
        circuit.counters.reload_key();
        link.counters.reload_key();
        let mut once = circuit_stream;
        let mut header = _mm512_setzero_si512();
        for vector in 0..STEP {
            // SAFETY: there is a whole step.
            let text = unsafe { link.text.load::<WHOLE>(vector) };
            let inner = _mm512_xor_si512(text, circuit_stream[vector]);
            once[vector] = circuit.text.only::<WHOLE>(vector, inner);
            if vector == 0 {
                header = circuit.text.before(text);
            }
        }
        let mut sum = Sum::zero();
        let sealed = stream::<STEP, ROUNDS>(
            &link.counters,
            |slot| hash_share::<ROUNDS>(&mut sum, slot, &once, circuit.hash, circuit.counters.key),
            |vector| match vector {
                0 => _mm512_xor_si512(once[0], header),
                _ => once[vector],
            },
        );
        circuit.hash = _mm512_zextsi128_si512(sum.reduce());
        let mut cipher = sealed;
        for (vector, cipher) in cipher.iter_mut().enumerate() {
            // SAFETY: there is a whole step.
            *cipher = unsafe { link.text.store::<WHOLE>(vector, *cipher) };
        }
        circuit.advance::<STEP>();
        link.advance::<STEP>();
        (cipher, _mm512_castsi512_si128(sealed[0]))
    }

    /// Seals the last `N` vectors and leaves them to the tail.
    #[inline]
    #[target_feature(enable = "aes,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,vaes,vpclmulqdq")]
    fn last<const N: usize, const CALLER: usize>(
        self,
        place: Place<'p>,
        circuit: [__m512i; N],
        pads: Option<[__m128i; 2]>,
        tail: &mut Tail<'p>,
    ) {
        let both = self.0;
        // SAFETY: there are as many vectors.
        let (once, header) = unsafe { both.encrypt::<N, CALLER>(&circuit) };
        let mut sum = Sum::zero();
        let mut hash = _mm_setzero_si128();
        // The circuit's tag is made before AES has done: the link's last vectors wait for it.
        let hashed = slots(ROUNDS) - 3;
        let stream = stream::<N, ROUNDS>(
            &both.link.counters,
            |slot| {
                for vector in share(N, slot, hashed) {
                    both.circuit
                        .add_last::<N, false>(&mut sum, vector, once[vector]);
                    sum.pin();
                }
                if slot == hashed {
                    hash = sum.reduce();
                }
            },
            |_| none(),
        );
        let [pad, link_pad] = pads.unwrap_or([
            _mm512_extracti32x4_epi32::<1>(circuit[0]),
            _mm512_castsi512_si128(stream[0]),
        ]);
        let tag = _mm_xor_si128(ghash::reverse_one(hash), pad);
        let cipher = both.outer::<N, CALLER>(once, header, tag, &stream);
        let link = both.link;
        let lanes = link.text.left().div_ceil(16);
        let hash = [link.hash, _mm512_zextsi128_si512(link.lengths)];
        tail.put(link.counters.key, place, (&cipher, lanes), hash, link_pad);
    }
}
