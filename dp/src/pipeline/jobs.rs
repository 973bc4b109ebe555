//! Gathers a stage's packets into one call of the AEAD.

use arrayvec::ArrayVec;
use twinseal_crypto::{self as crypto, Claim, Commits, Committed, Packet};

use super::BATCH;

/// Packets of one stage, in the order of their batch.
pub(super) struct Jobs<'a>(ArrayVec<Packet<'a>, BATCH>);

/// Which jobs went well, a bit each in the same order.
pub(super) struct Outcome(u64);

impl<'a> Jobs<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self(ArrayVec::new())
    }

    #[inline]
    pub(super) fn push(&mut self, packet: Packet<'a>) {
        self.0.push(packet);
    }

    #[inline]
    pub(super) fn seal(&mut self) -> Outcome {
        crypto::seal(&mut self.0);
        self.outcome()
    }

    #[inline]
    pub(super) fn open(&mut self) -> Outcome {
        crypto::open(&mut self.0);
        self.outcome()
    }

    #[inline]
    fn outcome(&self) -> Outcome {
        let bits = self.0.iter().rev();
        Outcome(bits.fold(0, |bits, packet| bits << 1 | u64::from(packet.ok)))
    }
}

impl Outcome {
    /// Whether job `nth` went well.
    #[inline]
    pub(super) fn ok(&self, nth: usize) -> bool {
        self.0 >> (nth % BATCH) & 1 == 1
    }

    /// Has those packets marked in their replay windows that were opened; there is a claim for every job.
    #[inline]
    pub(super) fn commit<'c, 't: 'c>(
        &self,
        claims: impl IntoIterator<Item = &'c Claim<'t>>,
    ) -> Committed {
        let mut commits = Commits::default();
        for (nth, claim) in claims.into_iter().enumerate() {
            if self.ok(nth) {
                claim.commit(nth, &mut commits);
            }
        }
        commits.finish()
    }
}
