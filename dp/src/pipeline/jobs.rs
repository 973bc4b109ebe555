//! Gathers a stage's packets into one call of the AEAD.

use arrayvec::ArrayVec;
use twinseal_crypto::{
    self as crypto, AAD_LEN, Commits, Committed, Layered, OpenSa, Packet, Replay, Seal,
};

use super::BATCH;

/// Packets to seal, in the order of their batch: for a link, and before that for their circuit if they enter one.
pub(super) struct Sealing<'a>(ArrayVec<Layered<'a>, BATCH>);

/// Packets to open, in the order of their batch.
pub(super) struct Opening<'a> {
    packets: ArrayVec<Packet<'a>, BATCH>,
    /// Each one's place in the replay windows: key, lane and counter.
    places: [Option<(&'a OpenSa, u8, u64)>; BATCH],
}

/// Which packets were sealed, a bit each.
pub(super) struct Sealed(u64);

/// Which packets were opened, a bit each, and what their replay windows said.
pub(super) struct Opened {
    verified: u64,
    committed: Committed,
}

impl<'a> Sealing<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self(ArrayVec::new())
    }

    #[inline(always)]
    pub(super) fn push(&mut self, circuit: Option<Seal<'a>>, link: Packet<'a>) {
        self.0.push(Layered { circuit, link });
    }

    #[inline]
    pub(super) fn seal(&mut self) -> Sealed {
        crypto::seal_layers(&mut self.0);
        let bits = self.0.iter().rev();
        Sealed(bits.fold(0, |bits, job| bits << 1 | u64::from(job.link.ok)))
    }
}

impl Sealed {
    /// Whether packet `nth` is.
    #[inline]
    pub(super) fn ok(&self, nth: usize) -> bool {
        self.0 >> (nth % BATCH) & 1 == 1
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
        sa: &'a OpenSa,
        lane: u8,
        counter: u64,
        aad: [u8; AAD_LEN],
        data: &'a mut [u8],
    ) {
        self.places[self.packets.len() % BATCH] = Some((sa, lane, counter));
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
        for (nth, (packet, place)) in self.packets.iter().zip(&self.places).enumerate() {
            if let (true, Some((sa, lane, counter))) = (packet.ok, place) {
                sa.commit_with(&mut commits, nth, *lane, *counter);
                verified |= 1 << nth;
            }
        }
        Opened {
            verified,
            committed: commits.finish(),
        }
    }
}

impl Opened {
    /// Whether packet `nth` verified and nobody sent it before.
    #[inline]
    pub(super) fn fresh(&self, nth: usize) -> bool {
        self.committed.of(nth) == Replay::Fresh
    }

    /// What the replay window said to packet `nth`, if it verified.
    #[inline]
    pub(super) fn replay(&self, nth: usize) -> Option<Replay> {
        (self.verified >> (nth % BATCH) & 1 == 1).then(|| self.committed.of(nth))
    }
}
