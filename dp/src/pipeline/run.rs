//! Gathers packets of one key into one call of its AEAD.

use std::sync::Arc;

use arrayvec::ArrayVec;
use twinseal_crypto::{OpenSa, Packet, SealSa};

use super::BATCH;

/// A key that a run belongs to.
pub(super) trait Key {
    /// Does the whole run, and says in each packet whether it went well.
    fn work(&self, packets: &mut [Packet<'_>]);
}

impl Key for SealSa {
    #[inline]
    fn work(&self, packets: &mut [Packet<'_>]) {
        self.seal(packets);
    }
}

impl Key for OpenSa {
    #[inline]
    fn work(&self, packets: &mut [Packet<'_>]) {
        self.open(packets);
    }
}

/// Consecutive packets of one key. A packet of another key works off what is there and begins the next run.
pub(super) struct Run<'a, K> {
    key: Option<&'a Arc<K>>,
    packets: ArrayVec<Packet<'a>, BATCH>,
    places: ArrayVec<u8, BATCH>,
    done: u64,
}

impl<'a, K: Key> Run<'a, K> {
    pub(super) fn new() -> Self {
        Self {
            key: None,
            packets: ArrayVec::new(),
            places: ArrayVec::new(),
            done: 0,
        }
    }

    /// Adds the packet at `place` of its batch.
    #[inline]
    pub(super) fn push(&mut self, key: &'a Arc<K>, place: usize, packet: Packet<'a>) {
        if !self.key.is_some_and(|last| Arc::ptr_eq(last, key)) {
            self.work();
            self.key = Some(key);
        }
        self.packets.push(packet);
        self.places.push(place as u8);
    }

    /// Works off the rest, and returns the places of the packets that went well, a bit each.
    pub(super) fn finish(mut self) -> u64 {
        self.work();
        self.done
    }

    #[inline]
    fn work(&mut self) {
        if let Some(key) = self.key {
            key.work(&mut self.packets);
        }
        for (packet, place) in self.packets.iter().zip(&self.places) {
            self.done |= u64::from(packet.ok) << place;
        }
        self.packets.clear();
        self.places.clear();
    }
}
