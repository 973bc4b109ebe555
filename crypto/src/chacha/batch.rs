//! From a batch to groups.

use super::{
    group::{Job, run},
    key::ChaChaKey,
    stream::LANES,
};
use crate::{Packet, Seal, aead::inside, aes_gcm::clear_deep};

/// Bytes of packets that a group has enough with: they stay in the first-level cache while they are worked on, and
/// fill the lanes.
const ENOUGH: usize = 32 * 1024;

/// A packet with the key of its seal, or of its outer one.
type Outer<'p, 'a> = (&'p ChaChaKey, &'p mut Packet<'a>);
/// The inner seal of a packet with its key.
type Inner<'p, 'a> = (&'p ChaChaKey, &'p Seal<'a>);

/// Seals or opens the packets that are pushed, the last of them in `finish`.
pub(crate) struct Batch<'p, 'a, const OPEN: bool> {
    waiting: [Option<(Option<Inner<'p, 'a>>, Outer<'p, 'a>)>; LANES],
    packets: usize,
    bytes: usize,
    /// Whether there is an inner seal among them.
    inner: bool,
    /// Whether there was a packet.
    used: bool,
}

impl<'p, 'a> Batch<'p, 'a, false> {
    /// A packet for both seals.
    #[inline]
    pub(crate) fn push_two(&mut self, circuit: Inner<'p, 'a>, link: Outer<'p, 'a>) {
        self.inner = true;
        self.add(Some(circuit), link);
    }
}

impl<'p, 'a, const OPEN: bool> Batch<'p, 'a, OPEN> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; LANES],
            packets: 0,
            bytes: 0,
            inner: false,
            used: false,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, key: &'p ChaChaKey, packet: &'p mut Packet<'a>) {
        self.add(None, (key, packet));
    }

    #[inline]
    fn add(&mut self, inner: Option<Inner<'p, 'a>>, outer: Outer<'p, 'a>) {
        self.bytes += outer.1.data.len();
        self.waiting[self.packets] = Some((inner, outer));
        self.packets += 1;
        if self.packets == LANES || self.bytes >= ENOUGH {
            self.flush();
        }
    }

    /// What waits.
    #[inline]
    pub(crate) fn finish(mut self) {
        if self.packets > 0 {
            self.flush();
        }
        if self.used {
            // SAFETY: there was a key, so the CPU has the features.
            unsafe { clear_deep() };
        }
    }

    #[inline(never)]
    fn flush(&mut self) {
        let mut inner_ok = [true; LANES];
        let mut outer_ok = inner_ok;
        let waiting = &mut self.waiting[..self.packets];
        if self.inner {
            let mut jobs = [const { Job::none() }; LANES];
            for (job, (inner, (_, packet))) in jobs.iter_mut().zip(waiting.iter_mut().flatten()) {
                if let Some((key, seal)) = inner
                    && let Some(text) = inside(packet.data)
                {
                    *job = Job::new(key, &seal.nonce, &seal.aad, text);
                }
            }
            // SAFETY: there is a key, so the CPU has the features.
            unsafe { run::<OPEN>(&mut jobs[..self.packets]) };
            for (ok, job) in inner_ok.iter_mut().zip(&jobs) {
                *ok = job.ok;
            }
        }
        let mut jobs = [const { Job::none() }; LANES];
        for (job, (_, (key, packet))) in jobs.iter_mut().zip(waiting.iter_mut().flatten()) {
            *job = Job::new(key, &packet.nonce, &packet.aad, packet.data);
        }
        // SAFETY: as above.
        unsafe { run::<OPEN>(&mut jobs[..self.packets]) };
        for (ok, job) in outer_ok.iter_mut().zip(&jobs) {
            *ok = job.ok;
        }
        let packets = waiting.iter_mut().flatten();
        for (at, (inner, (_, packet))) in packets.enumerate() {
            packet.ok = outer_ok[at] && (inner_ok[at] || inner.is_none());
        }
        (self.packets, self.bytes, self.inner, self.used) = (0, 0, false, true);
    }
}
