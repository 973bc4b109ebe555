//! Gathers a stage's packets into one call of the AEAD.

use arrayvec::ArrayVec;
use twinseal_crypto::{
    self as crypto, AAD_LEN, Commits, Committed, Layered, OpenSa, Packet, Replay, Seal,
};

use super::{BATCH, Slot};

/// Packets to seal: for a link, and before that for their circuit if they enter one.
pub(super) struct Sealing<'a> {
    packets: ArrayVec<Layered<'a>, BATCH>,
    /// Whose each is.
    slots: ArrayVec<Slot, BATCH>,
}

/// Packets to open.
pub(super) struct Opening<'a> {
    packets: ArrayVec<Packet<'a>, BATCH>,
    /// Whose each is, and its place in the replay windows.
    places: [Option<Place<'a>>; BATCH],
}

/// Where a packet is in the replay windows.
#[derive(Clone, Copy)]
struct Place<'a> {
    sa: &'a OpenSa,
    counter: u64,
    lane: u8,
    slot: Slot,
}

/// Which packets were sealed: the bits of their slots.
pub(super) struct Sealed(u64);

/// Which packets were opened: the bits of their slots, and what their replay windows said.
pub(super) struct Opened {
    verified: u64,
    committed: Committed,
}

impl<'a> Sealing<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            packets: ArrayVec::new(),
            slots: ArrayVec::new(),
        }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, slot: Slot, circuit: Option<Seal<'a>>, link: Packet<'a>) {
        self.packets.push(Layered { circuit, link });
        self.slots.push(slot);
    }

    #[inline]
    pub(super) fn seal(&mut self) -> Sealed {
        crypto::seal_layers(&mut self.packets);
        let packets = self.packets.iter().zip(&self.slots);
        Sealed(packets.fold(0, |bits, (packet, slot)| {
            bits | u64::from(packet.link.ok) << slot.index()
        }))
    }
}

impl Sealed {
    /// Whether this packet is.
    #[inline]
    pub(super) fn ok(&self, slot: Slot) -> bool {
        slot.is_in(self.0)
    }
}

impl<'a> Opening<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            packets: ArrayVec::new(),
            places: [None; BATCH],
        }
    }

    /// Adds a packet.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        slot: Slot,
        sa: &'a OpenSa,
        lane: u8,
        counter: u64,
        aad: [u8; AAD_LEN],
        data: &'a mut [u8],
    ) {
        self.places[self.packets.len() % BATCH] = Some(Place {
            sa,
            counter,
            lane,
            slot,
        });
        self.packets.push(sa.packet(lane, counter, aad, data));
    }

    /// Opens all, and marks in their replay windows those that verified.
    // Windows are not asked before: what they know of a counter that nobody has verified saves nothing, as whoever
    // replays packets can as well send any counter.
    #[inline(always)]
    pub(super) fn open(&mut self) -> Opened {
        crypto::open(&mut self.packets);
        self.commit()
    }

    #[inline(never)]
    fn commit(&self) -> Opened {
        let mut commits = Commits::default();
        let mut verified = 0;
        for (packet, place) in self.packets.iter().zip(&self.places) {
            if let (true, Some(place)) = (packet.ok, place) {
                let slot = place.slot.index();
                place
                    .sa
                    .commit_with(&mut commits, slot, place.lane, place.counter);
                verified |= 1 << slot;
            }
        }
        Opened {
            verified,
            committed: commits.finish(),
        }
    }
}

impl Opened {
    /// Whether this packet verified and nobody sent it before.
    #[inline]
    pub(super) fn fresh(&self, slot: Slot) -> bool {
        self.committed.of(slot.index()) == Replay::Fresh
    }

    /// What the replay window said to this packet, if it verified.
    #[inline]
    pub(super) fn replay(&self, slot: Slot) -> Option<Replay> {
        slot.is_in(self.verified)
            .then(|| self.committed.of(slot.index()))
    }
}
