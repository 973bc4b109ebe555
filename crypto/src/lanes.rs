//! Who may take counters of which lane.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{CryptoError, MAX_LANES};

/// The lanes of a node, shared out among its workers. Transmit SAs are made for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lanes {
    /// Different for each share-out of this process.
    id: u64,
    count: u16,
}

/// The right to take counters of some consecutive lanes, of whatever SA was made for them.
///
/// A lane has one owner: owners come from [`Lanes::split`] alone and cannot be cloned or shared
/// between threads. So a counter has one writer, and taking from it needs no locked instruction.
///
/// ```compile_fail
/// # use twinseal_crypto::Lanes;
/// let (_, mut owners) = Lanes::split(1, 4).unwrap();
/// let owner = owners.remove(0);
/// std::thread::scope(|scope| {
///     scope.spawn(|| owner.first()); // error: `LaneOwner` cannot be shared between threads
/// });
/// ```
#[derive(Debug)]
#[must_use = "lanes without an owner are lost"]
pub struct LaneOwner {
    lanes: Lanes,
    first: u16,
    count: u16,
    not_sync: PhantomData<Cell<()>>,
}

impl Lanes {
    /// Lanes from 0 up, `each` for every one of `owners`.
    ///
    /// # Errors
    /// [`CryptoError::Lanes`] unless they are 1 to [`MAX_LANES`] together.
    pub fn split(owners: usize, each: u16) -> Result<(Self, Vec<LaneOwner>), CryptoError> {
        static SPLITS: AtomicU64 = AtomicU64::new(0);
        let count = owners.saturating_mul(each.into());
        if !(1..=usize::from(MAX_LANES)).contains(&count) {
            return Err(CryptoError::Lanes(count));
        }
        let lanes = Self {
            id: SPLITS.fetch_add(1, Relaxed),
            count: count as u16,
        };
        let owner = |nth| LaneOwner {
            lanes,
            first: nth * each,
            count: each,
            not_sync: PhantomData,
        };
        Ok((lanes, (0..owners as u16).map(owner).collect()))
    }

    /// How many there are: numbers from 0 up.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }
}

impl LaneOwner {
    /// The first of its lanes.
    #[inline]
    #[must_use]
    pub fn first(&self) -> u8 {
        self.first as u8
    }

    /// How many lanes it owns.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether it owns this lane of these.
    #[inline]
    pub(crate) fn owns(&self, lanes: Lanes, lane: u8) -> bool {
        self.lanes.id == lanes.id && u16::from(lane).wrapping_sub(self.first) < self.count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_one_owner() {
        let (lanes, owners) = Lanes::split(3, 5).unwrap();
        assert_eq!(lanes.count(), 15);
        for lane in 0..=255 {
            let count = owners
                .iter()
                .filter(|owner| owner.owns(lanes, lane))
                .count();
            assert_eq!(count, usize::from(lane < 15), "lane {lane}");
        }
        assert_eq!((owners[2].first(), owners[2].count()), (10, 5));
        let (others, _) = Lanes::split(3, 5).unwrap();
        assert!(!owners[0].owns(others, 0), "lanes of another share-out");
    }

    #[test]
    fn a_lane_number_is_one_octet() {
        let (lanes, owners) = Lanes::split(1, 256).unwrap();
        assert!(owners[0].owns(lanes, 0) && owners[0].owns(lanes, 255));
        for (owners, each) in [(0, 4), (4, 0), (257, 1), (1, 257), (usize::MAX, 2)] {
            assert!(matches!(
                Lanes::split(owners, each),
                Err(CryptoError::Lanes(_))
            ));
        }
    }
}
